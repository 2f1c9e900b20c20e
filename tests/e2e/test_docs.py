# SPDX-License-Identifier: Apache-2.0
"""The documentation is held to the tree and to the program.

Names: what a page puts in backticks must exist. A path below a folder of the repository, a source
file, a function (written `name()`), a command (`weir …`, `make …`), a route (`GET /…`), a metric or
variable of the program (`weir_…`, `WEIR_…`). Links lead to files and headings that are there.

Tables: what stands in a .def file and is documented is documented whole.

Examples: a fenced block that begins with ```console run is run, in the order of the page, in a copy of
examples/sklearn-trainer with a trained model behind `weir up`. A line with `$ ` is a command (it goes
on after a backslash, or on lines with `> `); what follows is its output, in which `…` stands for
anything, and a line of `…` alone for any number of lines. A block ```console is for reading only.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import weir

ROOT = weir.ROOT
EXAMPLE = ROOT / "examples/sklearn-trainer"
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
                           *sorted((ROOT / "examples").glob("*/README.md"))] if page.exists()]
GENERATED = {"configuration.md"}  # by scripts/gen-config, which has a test of its own
SOURCE_SUFFIXES = {".c", ".h", ".def", ".py"}
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page):
    return str(page.relative_to(ROOT))


def fences(page):
    return [(found["info"].strip(), found["body"]) for found in FENCE.finditer(page.read_text())]


def prose(page):
    return FENCE.sub("", page.read_text())


def read_tree(pattern):
    return "\n".join(path.read_text(errors="replace") for path in sorted((ROOT / "src").rglob(pattern)))


@pytest.fixture(scope="module")
def tree():
    """All that is looked up: sources as one text, and the names of commands, goals and routes."""
    class Tree:
        sources = "\n".join(read_tree(pattern) for pattern in ("*.c", "*.h", "*.def"))
        functions = set(re.findall(r"\b([a-z_][a-z0-9_]*)\(", sources))
        commands = {"help", *re.findall(r"^COMMAND\(\w+, \"([^\"]+)\"",
                                        (ROOT / "src/cli/commands.def").read_text(), re.MULTILINE)}
        goals = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())
        folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build"}
        routes = [(method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path)))
                  for file in ("src/serve/routes.def", "src/api/routes.def")
                  for method, path in re.findall(r"^ROUTE\((\w+), \"([^\"]+)\"", (ROOT / file).read_text(),
                                                 re.MULTILINE)]
    return Tree


def complaint(span, page, tree):
    """What is wrong with a span of code, or None."""
    words = span.split()
    if re.fullmatch(r"[a-z_][a-z0-9_]*\(\)", span):
        return None if span[:-2] in tree.functions else "no such function"
    if words[0] == "weir" and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]):
        return None if words[1] in tree.commands else "no such command"
    if words[0] == "make" and len(words) > 1 and "=" not in words[1]:
        return None if words[1] in tree.goals else "no such goal of the Makefile"
    if words[0] in ("GET", "POST") and len(words) == 2:
        path = words[1].split("?")[0]
        known = any(method == words[0] and route.fullmatch(path) for method, route in tree.routes)
        return None if known else "no such route"
    if re.fullmatch(r"(weir_[a-z_]+|WEIR_[A-Z_]+)", span):
        return None if span in tree.sources else "the program knows no such name"
    if re.fullmatch(r"[\w./-]+", span):
        return path_complaint(Path(span), page, tree)
    return None


def path_complaint(path, page, tree):
    first = path.parts[0] if len(path.parts) > 1 else ""
    if first in tree.folders and not first.startswith("."):
        return None if (ROOT / path).exists() else "no such file"
    if path.suffix in SOURCE_SUFFIXES and path.stem:
        places = [ROOT, ROOT / "src", page.parent, EXAMPLE]
        return None if any((place / path).exists() for place in places) else "no such file"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page, tree):
    wrong = []
    for span in SPAN.findall(prose(page)):
        why = complaint(span.strip(), page, tree)
        if why and not (page.name in GENERATED and why == "no such file"):
            wrong.append(f"`{span}`: {why}")
    for info, body in fences(page):
        if info.startswith("console"):
            for command in re.findall(r"^\$ .*?\bweir ([a-z-]+)", body, re.MULTILINE):
                if command not in tree.commands:
                    wrong.append(f"$ weir {command}: no such command")
    assert not wrong, f"{name_of(page)}:\n" + "\n".join(wrong)


def anchors(page):
    """The anchors that headings get, as the common renderers make them."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)}: {link} leads nowhere"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name_of(page)}: {link} has no such heading"


# What is listed in a table of the source, and the page that must name all of it.
WHOLE = [
    ("src/serve/routes.def", r"^ROUTE\(\w+, \"([^\"]+)\"", "docs/serving.md"),
    ("src/serve/metrics.def", r"^METRIC\(\"(\w+)\"", "docs/serving.md"),
    ("src/serve/ends.def", r"^REQUEST_END\(\w+, \"(\w+)\"", "docs/serving.md"),
    ("src/api/routes.def", r"^ROUTE\(\w+, \"([^\"]+)\"", "docs/operations.md"),
    ("src/journal/types.def", r"^FACT\(\w+, \"([^\"]+)\"", "docs/formats.md"),
    ("src/server/link.def", r"^LINK\((\w+)", "docs/formats.md"),
    ("src/store/meta/migrations.def", r"CREATE TABLE (\w+)", "docs/formats.md"),
    ("src/record/flags.def", r"^RECORD_FLAG\(\w+, \d+, \"(\w+)\"", "docs/formats.md"),
    ("src/flow/states.def", r"^FLOW_STATE\(\w+, \"(\w+)\"", "docs/formats.md"),
    ("src/rollout/states.def", r"^ROLLOUT_STATE\(\w+, \"(\w+)\"", "docs/retraining.md"),
    ("src/project/presets.def", r"^PRESET\(\"([\w-]+)\"", "docs/configuration.md"),
    ("src/base/codes.def", r"^CODE\((\w+)", "docs/operations.md"),
]


@pytest.mark.parametrize("table, pattern, page", WHOLE, ids=[row[0] for row in WHOLE])
def test_tables_are_told_whole(table, pattern, page):
    names = re.findall(pattern, (ROOT / table).read_text(), re.MULTILINE)
    text = (ROOT / page).read_text()
    assert names, f"{table}: nothing found"
    assert not [name for name in names if f"`{name}`" not in text and f"{name}`" not in text], page


# --- Examples ----------------------------------------------------------------------------------------


def steps(body):
    """[(command, expected output)] of a console block."""
    found = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif found and not found[-1][1] and (line.startswith("> ") or found[-1][0].endswith("\\")):
            found[-1][0] += "\n" + line.removeprefix("> ")
        elif found:
            found[-1][1].append(line)
    return [(command, output) for command, output in found]


def pattern_of(lines):
    parts = []
    for line in lines:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(piece.rstrip() if piece is line else piece)
                                    for piece in line.split("…")) + r"[ \t]*\n")
    return re.compile("".join(parts))


class Shell:
    """Runs the commands of a page. Addresses in the page are those of a default project; here they
    are the ones of this run."""

    def __init__(self, project, binary):
        self.project = project
        self.names = {"127.0.0.1:8080": project.gateway, "127.0.0.1:7070": project.control}
        self.env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb",
                    "PATH": os.pathsep.join([str(binary.parent), str(Path(sys.executable).parent),
                                             os.environ["PATH"]])}

    def run(self, command):
        for page, here in self.names.items():
            command = command.replace(page, here)
        done = subprocess.run(["bash", "-c", command], cwd=self.project.folder, env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120)
        output = done.stdout
        for page, here in self.names.items():
            output = output.replace(here, page)
        return output if output.endswith("\n") or not output else output + "\n"


@pytest.fixture(scope="module")
def shell(weir_binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns(".weir", "data", "__pycache__"))
    project = weir.Project(folder, (EXAMPLE / "weir.yaml").read_text())
    runs = Shell(project, weir_binary)
    runs.run("python3 make_data.py")
    with open(project.log_path, "ab") as log:
        project.process = subprocess.Popen(project.command("up"), cwd=folder, stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, env=runs.env, start_new_session=True)
    try:
        project.wait(lambda: weir.answers(f"http://{project.control}/api/v1/status"), 30, "answering")
        said = runs.run("weir retrain returns --reason 'first version'")
        try:
            project.wait(lambda: weir.answers(f"http://{project.gateway}/readyz"), 60, "ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\nweir retrain said: {said}") from None
        yield runs
    finally:
        project.stop()


RUN = [page for page in PAGES if any(info == "console run" for info, _ in fences(page))]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_examples_run(page, shell):
    for info, body in fences(page):
        if info != "console run":
            continue
        for command, expected in steps(body):
            output = shell.run(command)
            assert pattern_of(expected).fullmatch(output), (
                f"{name_of(page)}: $ {command}\n--- the page says\n" + "\n".join(expected) +
                f"\n--- it is\n{output}--- log\n{shell.project.log(20)}")


def test_the_matcher_matches():
    """The convention itself: what must fit fits, what must not does not."""
    assert steps("$ a \\\n  b\nout\n$ c\n") == [("a \\\n  b", ["out"]), ("c", [])]
    assert pattern_of(["a … c", "…", "z"]).fullmatch("a b c\nx\ny\nz\n")
    assert not pattern_of(["a … c"]).fullmatch("a b d\n")
    assert not pattern_of(["a"]).fullmatch("a\nb\n")
