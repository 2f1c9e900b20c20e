# SPDX-License-Identifier: Apache-2.0
"""Checks that run compilers, analysers and formatters."""
import hashlib
import json
import os
import re
import shlex

from . import rules
from .tree import JOBS, ROOT, files, in_parallel, run, scripts_in, select

CACHE = ROOT / ".cache"


def complaint(done, lines=12):
    """The first lines of what a failed command said, as one problem."""
    said = [line for line in done.stdout.splitlines() if line.strip()]
    return "\n".join(said[:lines] + ([f"… {len(said) - lines} lines more"] if len(said) > lines else []))


def check_format():
    """clang-format leaves the C sources as they are (`make fmt` mends)"""
    sources = select(".c", ".h")
    if not sources:
        return
    done = run(["clang-format-14", "--dry-run", "-Werror", "--ferror-limit=1", *sources])
    yield from (line for line in done.stdout.splitlines() if ": error: " in line)


def check_headers():
    """Each header compiles alone, with gcc and with clang"""
    flags = run(["pkg-config", "--cflags", *rules.PKG_CONFIG]).stdout.split()
    flags += ["-std=gnu17", "-D_GNU_SOURCE", '-DWEIR_VERSION="0"', "-Wall", "-Wextra", "-Werror",
              "-Isrc", "-Itests/unit", "-isystem", ".deps/include", "-fsyntax-only", "-x", "c"]

    def compile_alone(job):
        compiler, header = job
        done = run([compiler, *flags, "-include", header, "/dev/null"])
        errors = [line for line in done.stdout.splitlines() if "error: " in line]
        return [f"{header}: {compiler}: {errors[0]}"] if errors else []

    headers = select(".h", under=["src/", "tests/"])
    yield from in_parallel(compile_alone, [(c, h) for c in ("gcc", "clang") for h in headers])


def compile_everything(preset):
    done = run(["scripts/build", preset, "-k0"])
    if done.returncode:
        errors = [line.removeprefix(f"{ROOT}/") for line in done.stdout.splitlines()
                  if re.search(r"error: |undefined reference|multiple definition", line)]
        yield from errors or [complaint(done, 40)]


def check_gcc():
    """gcc builds everything with warnings as errors"""
    yield from compile_everything("gcc-werror")


def check_clang():
    """clang builds everything with warnings as errors, thread roles included"""
    yield from compile_everything("clang-werror")


def compile_commands(preset="clang-werror"):
    """Relative path -> entry, for the C files of src/ that the preset compiles."""
    run(["scripts/build", preset, "-n"])  # configures, builds nothing
    listed = json.loads((ROOT / "build" / preset / "compile_commands.json").read_text())
    return {os.path.relpath(entry["file"], ROOT): entry for entry in listed
            if entry["file"].startswith(str(ROOT / "src"))}


class Digests:
    """sha256 of files, each read once."""

    def __init__(self):
        self.known = {}

    def of(self, path):
        if path not in self.known:
            with open(path, "rb") as file:
                self.known[path] = hashlib.sha256(file.read()).hexdigest()
        return self.known[path]


def inputs_digest(entry, digests):
    """A key of all that clang-tidy looks at: the command, its settings, the file, its headers."""
    words = [word for word in shlex.split(entry["command"])
             if word not in ("ccache", "/usr/bin/ccache")]
    at = words.index("-o")
    listed = run([*words[:at], *words[at + 2:], "-M"])
    names = re.sub(r"\\\n", " ", listed.stdout.partition(":")[2]).split()
    key = hashlib.sha256(" ".join(words).encode())
    key.update(digests.of(ROOT / ".clang-tidy").encode())
    for name in names:
        key.update(digests.of(os.path.normpath(os.path.join(entry["directory"], name))).encode())
    return key.hexdigest()


def check_tidy():
    """clang-tidy (.clang-tidy) has nothing to say; unchanged files are not read again"""
    passed = CACHE / "tidy"
    passed.mkdir(parents=True, exist_ok=True)
    digests = Digests()

    def tidy(item):
        path, entry = item
        mark = passed / inputs_digest(entry, digests)
        if mark.exists():
            os.utime(mark)
            return []
        done = run(["clang-tidy-14", "-p", "build/clang-werror", "--quiet", path])
        said = [line for line in done.stdout.splitlines() if re.search(r": (warning|error): ", line)]
        if done.returncode == 0 and not said:
            mark.touch()
        return [line.removeprefix(f"{ROOT}/") for line in said] or \
            ([f"{path}: {complaint(done)}"] if done.returncode else [])

    found = in_parallel(tidy, sorted(compile_commands().items()))
    yield from sorted(set(found))
    for mark in sorted(passed.iterdir(), key=lambda m: m.stat().st_mtime)[:-5000]:
        mark.unlink()


def check_cppcheck():
    """cppcheck has nothing to say (scripts/checks/cppcheck.txt lists what it may not say)"""
    sources = select(".c", under=["src/"])
    if not sources:
        return
    state = CACHE / "cppcheck"
    state.mkdir(parents=True, exist_ok=True)
    done = run(["cppcheck", "--quiet", "--enable=warning,performance,portability", "--inline-suppr",
                "--suppressions-list=scripts/checks/cppcheck.txt", f"--cppcheck-build-dir={state}",
                "--std=c11", "--library=gnu", "--library=posix", "-D__GNUC__=12", "-D__linux__=1",
                "-D__x86_64__=1", "-D__SSE2__=1", "-D_GNU_SOURCE", "-Isrc", f"-j{JOBS}",
                "--template={file}:{line}: {severity}: {message} [{id}]", *sources])
    yield from (line for line in done.stdout.splitlines() if re.match(r"\S+:\d+: ", line))


def check_shell():
    """shellcheck has nothing to say about the shell scripts"""
    scripts = scripts_in("bash")
    if scripts:
        done = run(["shellcheck", "--format=gcc", *scripts])
        yield from done.stdout.splitlines()


def check_python():
    """ruff has nothing to say about the Python programs"""
    scripts = scripts_in("python")
    if scripts:
        done = run([".deps/venv/bin/ruff", "check", "--quiet", "--cache-dir", CACHE / "ruff",
                    "--output-format", "concise", *scripts])
        yield from done.stdout.splitlines()


def generators():
    return [path for path in files() if re.fullmatch(r"scripts/gen-[\w-]+", path)]


def check_tables():
    """Tables and pages that derive from .def files are what scripts/gen-* writes (`make doc` mends)"""
    for path in generators():
        done = run([ROOT / path, "--check"])
        if done.returncode:
            yield f"{path}: {complaint(done)}"


def write_tables():
    return [complaint(done) for done in (run([ROOT / path]) for path in generators())
            if done.returncode]
