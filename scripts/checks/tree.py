# SPDX-License-Identifier: Apache-2.0
"""What the checks look at: the files of the tree, and C text without comments and literals."""
import functools
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = int(os.environ.get("JOBS") or os.cpu_count() or 1)

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<literal>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""",
    re.DOTALL)


@functools.cache
def files():
    """All files that are, or would be, committed: relative paths as strings, sorted."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout
    return sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file())


def select(*suffixes, under=("",)):
    return [path for path in files() if path.endswith(suffixes) and path.startswith(tuple(under))]


def scripts_in(language):
    """Files of a scripting language: by suffix, or by the first line."""
    suffix = {"python": ".py", "bash": ".sh"}[language]
    return [path for path in files() if path.endswith(suffix) or
            ("." not in Path(path).name and re.match(rf"#!.*\b{language}", first_line(path)))]


@functools.cache
def text(path):
    return (ROOT / path).read_text(errors="replace")


def first_line(path):
    with open(ROOT / path, "rb") as file:
        return file.readline(200).decode(errors="replace")


@functools.cache
def code(path):
    """C text with comments and literals blanked; lines keep their numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())
    return TOKEN.sub(blank, text(path))


def includes(path):
    """(line number, '<' or '"', name) for each #include."""
    for number, line in enumerate(text(path).splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(1), match.group(2)


def line_of(content, offset):
    return content.count("\n", 0, offset) + 1


def run(command, **options):
    return subprocess.run([str(word) for word in command], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def in_parallel(function, items):
    """function(item) -> list of problems, for all items, on all processors, in order."""
    with ThreadPoolExecutor(JOBS) as pool:
        return [problem for problems in pool.map(function, items) for problem in problems]
