# SPDX-License-Identifier: Apache-2.0
"""The house rules that scripts/check holds the sources to, as data.

A path pattern is a prefix: "src/base/" is the folder, "src/base/hash.c" the one file.
"""

# (functions, where they may be called all the same, what to use). Checked in src/ and tests/.
BANNED_EVERYWHERE = [
    ("strcpy strcat strncpy strncat sprintf vsprintf stpcpy", [], "str, buf or arena_printf"),
    ("strtok strtok_r", [], "str_cut"),
    ("atoi atol atoll atof", [], "str_to_i64 and its kin"),
    ("gets scanf sscanf fscanf", [], "str_cut and str_to_i64"),
    ("alloca", [], "an arena"),
    ("rand srand random srandom drand48 rand_r", [], "base/random.h"),
    ("setjmp longjmp", [], "error codes"),
]

# The seams of base/: checked in src/ only, since tests may reach past them.
BANNED_IN_SRC = [
    ("strtol strtoul strtoll strtoull strtod strtof", ["src/base/"], "str_to_i64 and its kin"),
    ("system popen", [], "loop's child processes"),
    ("malloc calloc realloc reallocarray free strdup strndup posix_memalign aligned_alloc "
     "asprintf vasprintf", ["src/base/"], "base/mem.h or an arena"),
    ("fwrite", ["src/base/", "src/cli/"], "base/files.h"),  # commands write to stdout and stderr
    ("open openat creat fopen freopen fdopen pwrite fsync fdatasync rename renameat unlink "
     "unlinkat remove truncate mkdir rmdir opendir mkstemp mkdtemp "
     "realpath",
     # a unix socket's path; the control groups of a child, set between fork and exec
     ["src/base/", "src/loop/listen.c", "src/loop/child.c"], "base/files.h"),
    ("ftruncate", ["src/base/", "src/record/ring.c"], "base/files.h"),  # the ring lies in a memfd
    ("read write pread readv writev", ["src/base/", "src/loop/"], "base/files.h, or loop for sockets"),
    ("socket connect accept accept4 bind listen fork execve execv execvp posix_spawn epoll_create1",
     ["src/loop/"], "loop"),
    ("clock_gettime time gettimeofday localtime gmtime mktime ftime", ["src/base/"], "base/time.h"),
    ("sleep usleep nanosleep clock_nanosleep", ["src/base/", "src/loop/"], "a timer of loop"),
    # Only a command may just wait, and the thread that stops a gateway: it watches the loops go.
    ("time_sleep", ["src/base/", "src/cli/", "src/serve/gateway.c"], "a timer of loop"),
    ("getrandom getentropy arc4random", ["src/base/"], "base/random.h"),
    ("getenv secure_getenv setenv putenv",
     ["src/base/", "src/cli/", "src/server/",
      "src/loop/child.c",  # PATH, to find a program; the variables handed to a child
      # the body of a command that Weir runs as a child: a trainer, the built-in one
      # too, gets its input in variables (trainer.c)
      "src/retrain/xgboost.c"],
     "a setting passed down from cli or server"),
]

# Each foreign header is included by its owner alone (shell pattern, who may).
FOREIGN_HEADERS = [
    ("sqlite3.h", ["src/store/"]),
    ("libpq-fe.h", ["src/store/"]),
    ("duckdb.h", ["src/store/"]),
    ("lmdb.h", ["src/store/"]),
    ("hiredis/*", ["src/store/"]),
    ("librdkafka/*", ["src/store/"]),
    ("onnxruntime_*.h", ["src/serve/"]),
    ("xgboost/*", ["src/retrain/"]),
    ("nghttp2/*", ["src/wire/"]),
    ("openssl/*", ["src/loop/", "src/base/hash.c",
                   "src/base/sign.c"]),  # signatures of tokens: the gateway and control check the same keys
    ("curl/*", ["src/loop/fetch.c"]),
    ("libfyaml.h", ["src/base/yaml.c"]),
    ("zstd.h", ["src/record/", "src/store/"]),
    ("zlib.h", ["src/wire/"]),
    ("hs/*", ["src/llm/"]),
    ("sys/epoll.h", ["src/loop/"]),
    ("dlfcn.h", ["src/base/library.c"]),
]

# Words that mark unfinished work. An issue is the place for those.
UNFINISHED = ["TODO", "FIXME", "XXX", "HACK"]

SPDX = "SPDX-License-Identifier: Apache-2.0"

# Sizes past which `scripts/check --sizes` names a file or a function. Information, not a failure.
FILE_LINES = 600
HEADER_LINES = 300
FUNCTION_LINES = 60

# libraries whose compiler flags the headers may need (pkg-config names)
PKG_CONFIG = ["sqlite3", "libfyaml", "libcrypto", "libnghttp2", "libzstd", "zlib"]
