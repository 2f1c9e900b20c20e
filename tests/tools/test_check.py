# SPDX-License-Identifier: Apache-2.0
"""scripts/check on small trees of its own: what is right passes, each breach is named."""
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"
CLEAN = {
    "src/LAYERS": "# folder layer peers\nbase 0\nstore 1\njournal 1 store\nserve 2 -\nrollout 2 -\n",
    "src/base/a.h": SPDX + "#pragma once\nint a_one(void);\n",
    "src/base/a.c": SPDX + '#include "base/a.h"\nint a_one(void)\n{\n    return 1;\n}\n',
    "src/base/CMakeLists.txt": "weir_module(base SOURCES a.c)\n",
}


@pytest.fixture
def tree(tmp_path):
    """A git tree with the given files over CLEAN; returns a function that runs checks on it."""
    shutil.copytree(SCRIPTS / "checks", tmp_path / "scripts/checks")
    shutil.copy(SCRIPTS / "check", tmp_path / "scripts/check")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)

    def check(*names, **changes):
        for path, content in {**CLEAN, **changes.get("files", {})}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(content)
        done = subprocess.run([tmp_path / "scripts/check", *names], capture_output=True, text=True)
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout

    return check


def test_a_clean_tree_passes_every_source_check(tree):
    status, said = tree("layers", "owners", "banned", "marks", "magics", "dead")
    assert status == 0 and said.count("ok ") == 6, said


@pytest.mark.parametrize("path, include, passes", [
    ("src/serve/x.c", "base/a.h", True),
    ("src/serve/x.c", "serve/x.h", True),
    ("src/journal/x.c", "store/x.h", True),  # a peer that LAYERS lists
    ("src/store/x.c", "journal/x.h", False),  # but not the other way round
    ("src/base/x.c", "store/x.h", False),
    ("src/serve/x.c", "rollout/x.h", False),
    ("src/serve/x.c", "nowhere/x.h", False),
    ("src/new/x.c", "base/a.h", False),
    ("src/serve/x.c", "rollout.h", False),
    ("src/serve/x.c", "store/priv.h", False),
    ("src/store/lake/x.c", "store/priv.h", True),
])
def test_layers(tree, path, include, passes):
    status, said = tree("layers", files={path: f'{SPDX}#include "{include}"\n'})
    assert (status == 0) == passes, said
    assert passes or path in said


@pytest.mark.parametrize("path, line, passes", [
    ("src/serve/x.c", "strcpy(a, b);", False),
    ("tests/unit/x.c", "strcpy(a, b);", False),
    ("src/serve/x.c", "p = malloc (3);", False),
    ("src/base/x.c", "p = malloc(3);", True),
    ("tests/unit/x.c", "p = malloc(3);", True),
    ("src/serve/x.c", "api->free(p); api.open(p); sqlite3_free(p);", True),
    ("src/serve/x.c", '/* malloc(3) */ log("free(p)"); // goto', True),
    ("src/serve/x.c", "goto out;", False),
    ("src/loop/x.c", "write(fd, p, n);", True),
    ("src/serve/x.c", "write(fd, p, n);", False),
    ("src/serve/x.c", "now = time(NULL);", False),
    ("src/serve/x.c", "time_mono_ns();", True),
    ("src/serve/x.c", 'getenv("HOME");', False),
    ("src/cli/x.c", 'getenv("HOME");', True),
])
def test_banned(tree, path, line, passes):
    status, said = tree("banned", files={path: f"{SPDX}\n{line}\n"})
    assert (status == 0) == passes, said
    assert passes or f"{path}:3: " in said


def test_owners(tree):
    status, said = tree("owners", files={"src/serve/x.c": SPDX + "#include <sqlite3.h>\n"})
    assert status == 1 and "src/serve/x.c:2: <sqlite3.h> belongs to src/store/" in said


def test_marks(tree):
    unfinished = "TO" + "DO"
    status, said = tree("marks", files={
        "src/base/b.c": "int b;\n", "src/base/b.h": SPDX, "src/base/c.c": f"{SPDX}/* {unfinished} */\n",
        "bench/x": "#!/usr/bin/env bash\n"})
    assert status == 1
    for part in ("src/base/b.c:1: no 'SPDX", "src/base/b.h:1: no #pragma once",
                 f"src/base/c.c:2: {unfinished}", "bench/x:1: no 'SPDX"):
        assert part in said


def test_magics(tree):
    status, said = tree("magics", files={
        "src/base/b.c": f"{SPDX}#define B_MAGIC 0xAB12\n", "src/base/c.c": f"{SPDX}#define C_MAGIC 0xab12\n"})
    assert status == 1 and "src/base/c.c:2: C_MAGIC has the value of src/base/b.c:2: B_MAGIC" in said


def test_dead_files(tree):
    status, said = tree("dead", files={"src/base/lost.c": SPDX, "src/base/lost.def": SPDX})
    assert status == 1
    assert "src/base/lost.c: no CMakeLists.txt lists it" in said
    assert "src/base/lost.def: nobody includes it" in said


def test_format_and_headers_use_the_real_tools(tree):
    status, said = tree("format", "headers", files={
        ".clang-format": "BasedOnStyle: LLVM\nIndentWidth: 4\n",
        "src/base/b.h": SPDX + "#pragma once\nsize_t b(void);\n",  # lacks <stddef.h>
        "src/base/b.c": SPDX + "int    b;\n"})
    assert status == 1
    assert "src/base/b.c:2" in said
    assert "src/base/b.h: gcc: " in said and "src/base/b.h: clang: " in said


def test_an_unknown_check_is_refused(tree):
    done = subprocess.run([SCRIPTS / "check", "layerz"], capture_output=True, text=True)
    assert done.returncode == 1 and "no check layerz" in done.stderr
