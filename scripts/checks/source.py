# SPDX-License-Identifier: Apache-2.0
"""Checks that read the sources: layers, owners, banned calls, marks, dead files. All are fast."""
import re
from fnmatch import fnmatch
from pathlib import PurePath

from . import rules
from .tree import ROOT, code, includes, line_of, scripts_in, select, text


def read_layers(content):
    """src/LAYERS: folder, layer, and the folders of the same layer that it may use."""
    layers = {}
    for line in content.splitlines():
        words = line.split("#")[0].split()
        if words:
            layers[words[0]] = (int(words[1]), set(words[2:]) - {"-"})
    return layers


def layer_problem(layers, own, other):
    """Why a file of folder `own` may not include a header of folder `other`; None if it may."""
    if other not in layers:
        return f"folder {other} is not in src/LAYERS"
    (own_layer, peers), (other_layer, _) = layers[own], layers[other]
    if other == own or other_layer < own_layer or (other_layer == own_layer and other in peers):
        return None
    return f"{own} (layer {own_layer}) may not include {other} (layer {other_layer})"


def check_layers():
    """A file includes headers of its own folder or of lower layers (src/LAYERS)"""
    layers = read_layers(text("src/LAYERS"))
    for path in select(".c", ".h", ".def", under=["src/"]):
        parts = PurePath(path).parts
        own = parts[1]
        if own not in layers:
            yield f"{path}: folder {own} is not in src/LAYERS"
            continue
        for number, _, name in (i for i in includes(path) if i[1] == '"'):
            if (ROOT / path).parent.joinpath(name).is_file() and "/" not in name:
                continue
            other = name.split("/")[0]
            why = layer_problem(layers, own, other) if "/" in name else "write it as \"folder/name.h\""
            if not why and name.endswith("priv.h") and not path.startswith(f"src/{PurePath(name).parent}"):
                why = "is private to its folder"
            if why:
                yield f"{path}:{number}: \"{name}\": {why}"


def owner_problem(path, name):
    for pattern, owners in rules.FOREIGN_HEADERS:
        if fnmatch(name, pattern) and not path.startswith(tuple(owners)):
            return f"belongs to {' and '.join(owners)}"
    return None


def check_owners():
    """Each foreign header is included by its one owner (scripts/checks/rules.py)"""
    for path in select(".c", ".h", under=["src/"]):
        for number, _, name in includes(path):
            why = owner_problem(path, name)
            if why:
                yield f"{path}:{number}: <{name}> {why}"


def banned_calls(path, content, table):
    """Calls of the table's functions in C text without comments: 'path:line: what, use what'."""
    for names, allowed, instead in table:
        if path.startswith(tuple(allowed)):
            continue
        for match in re.finditer(rf"(?<![\w.])(?<!->)({'|'.join(names.split())})\s*\(", content):
            yield f"{path}:{line_of(content, match.start())}: {match.group(1)}(): use {instead}"


def check_banned():
    """Banned functions, goto, and calls that must go through base/ or loop/"""
    for path in select(".c", ".h", ".def", under=["src/", "tests/"]):
        content = code(path)
        yield from banned_calls(path, content, rules.BANNED_EVERYWHERE)
        if path.startswith("src/"):
            yield from banned_calls(path, content, rules.BANNED_IN_SRC)
        for match in re.finditer(r"\bgoto\b", content):
            yield f"{path}:{line_of(content, match.start())}: goto: use AUTO() and functions"


def check_marks():
    """An SPDX line in every source; no words of unfinished work; headers start with #pragma once"""
    sources = set(select(".c", ".h", ".def", ".py", ".cmake", ".lua")) | set(scripts_in("bash")) | \
        set(scripts_in("python"))
    for path in sorted(sources):
        if rules.SPDX not in "\n".join(text(path).splitlines()[:3]):
            yield f"{path}:1: no '{rules.SPDX}' in the first three lines"
        if path.endswith(".h") and "#pragma once" not in text(path):
            yield f"{path}:1: no #pragma once"
    words = re.compile(rf"\b({'|'.join(rules.UNFINISHED)})\b")
    for path in sorted(sources | set(select("CMakeLists.txt", "Makefile"))):
        if path == "scripts/checks/rules.py":
            continue
        for match in words.finditer(text(path)):
            yield f"{path}:{line_of(text(path), match.start())}: {match.group()}: open an issue instead"


def check_magics():
    """Magic numbers that mark objects and files differ from each other"""
    seen = {}
    for path in select(".c", ".h", ".def", under=["src/"]):
        for match in re.finditer(r"^\s*#\s*define\s+(\w*MAGIC\w*)\s+(\S+)", text(path), re.MULTILINE):
            name, value = match.groups()
            where = f"{path}:{line_of(text(path), match.start())}: {name}"
            if seen.setdefault(value.lower(), where) != where:
                yield f"{where} has the value of {seen[value.lower()]}"


def check_dead():
    """Every .c is listed in a CMakeLists.txt, every .h and .def is included by someone"""
    listed = {}
    for path in select("CMakeLists.txt"):
        listed[str(PurePath(path).parent)] = set(re.findall(r"[\w./-]+\.c\b", text(path)))
    for path in select(".c", under=["src/", "tests/"]):
        folder = PurePath(path)
        if not any(str(folder.relative_to(parent)) in listed.get(str(parent), ())
                   for parent in folder.parents):
            yield f"{path}: no CMakeLists.txt lists it"
    included = set()
    for path in select(".c", ".h", ".def"):
        for _, _, name in includes(path):
            beside = PurePath(path).parent / name
            included |= {f"src/{name}", f"tests/unit/{name}", f"tests/fuzz/{name}", str(beside)}
    for path in select(".h", ".def", under=["src/", "tests/"]):
        if path not in included:
            yield f"{path}: nobody includes it"


def sizes():
    """Files and functions past the sizes of rules.py, longest first: information."""
    rows = []
    for path in select(".c", ".h", under=["src/", "tests/"]):
        content = text(path)
        lines = content.count("\n")
        limit = rules.HEADER_LINES if path.endswith(".h") else rules.FILE_LINES
        if lines > limit:
            rows.append((lines, f"{path}: {lines} lines (orientation: {limit})"))
        for match in re.finditer(r"^([\w *]*?\b(\w+)\([^;{}]*\))\n\{\n(.*?)^\}", content,
                                 re.MULTILINE | re.DOTALL):
            lines = match.group(3).count("\n")
            if lines > rules.FUNCTION_LINES:
                rows.append((lines, f"{path}:{line_of(content, match.start())}: {match.group(2)}(): "
                                    f"{lines} lines (orientation: {rules.FUNCTION_LINES})"))
    return [row for _, row in sorted(rows, reverse=True)]
