# SPDX-License-Identifier: Apache-2.0
"""scripts/rda2csv on workspaces written here byte by byte, as R's serialisation describes them."""
import bz2
import gzip
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "scripts/rda2csv"
NA_INT, HAS_ATTRIBUTES, HAS_TAG = -(1 << 31), 512, 1024
NIL = struct.pack(">i", 254)


def ints(*numbers):
    return struct.pack(f">{len(numbers)}i", *numbers)


def char(text):
    return ints(9, -1) if text is None else ints(9, len(text.encode())) + text.encode()


def strings(*texts):
    return ints(16, len(texts)) + b"".join(char(t) for t in texts)


class Writer:
    """Symbols are written once and then referred to by number."""

    def __init__(self):
        self.symbols = []

    def symbol(self, name):
        if name in self.symbols:
            return ints((self.symbols.index(name) + 1) << 8 | 255)
        self.symbols.append(name)
        return ints(1) + char(name)

    def pairs(self, **items):
        return b"".join(ints(2 | HAS_TAG) + self.symbol(k) + v for k, v in items.items()) + NIL

    def vector(self, kind, numbers, **attributes):
        code = {10: "i", 13: "i", 14: "d"}[kind]
        body = struct.pack(f">i{len(numbers)}{code}", len(numbers), *numbers)
        if not attributes:
            return ints(kind) + body
        return ints(kind | HAS_ATTRIBUTES) + body + self.pairs(**attributes)

    def frame(self, columns, rows):
        return ints(19 | HAS_ATTRIBUTES, len(columns)) + b"".join(columns.values()) + self.pairs(
            names=strings(*columns), row_names=ints(13, 2, NA_INT, -rows),
            **{"class": strings("data.frame")})


def workspace(version=2):
    head = b"RDX%d\nX\n" % version + ints(version, 0x040000, 0x020300)
    if version == 3:
        head += ints(5) + b"UTF-8"
    return head


def table(version=2):
    w = Writer()
    # The tag of the object comes first in the file, so its symbol is the first one.
    tag = w.symbol("Frame")
    columns = {
        "whole": w.vector(13, [3, NA_INT]),
        "flag": w.vector(10, [1, 0]),
        "real": w.vector(14, [0.5, float("nan")]),
        "kind": w.vector(13, [2, 1], levels=strings("low, er", "high"), **{"class": strings("factor")}),
        "text": strings("a", None),
    }
    return workspace(version) + ints(2 | HAS_TAG) + tag + w.frame(columns, 2) + NIL


def convert(tmp_path, raw, *words):
    path = tmp_path / "x.rda"
    path.write_bytes(raw)
    return subprocess.run([PROGRAM, path, *words], capture_output=True, text=True)


WANT = 'whole,flag,real,kind,text\n3,true,0.5,high,a\n,false,,"low, er",\n'


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_columns_of_every_kind(tmp_path, version, compress):
    done = convert(tmp_path, compress(table(version)))
    assert (done.stdout, done.stderr) == (WANT, "")


def test_a_frame_is_chosen_by_name(tmp_path):
    assert convert(tmp_path, table(), "Frame").stdout == WANT
    done = convert(tmp_path, table(), "Other")
    assert done.returncode == 1 and "no data frame Other; the file has: Frame" in done.stderr


@pytest.mark.parametrize("raw, why", [
    (b"not R at all", "not an R workspace"),
    (workspace() + ints(2 | HAS_TAG) + ints(1) + char("f") + ints(3), "R type 3"),  # a function
    (table()[:-40], "ends early"),
    (b"RDX2\nX\n" + ints(9, 0, 0), "serialisation format 9"),
])
def test_what_is_refused(tmp_path, raw, why):
    done = convert(tmp_path, raw)
    assert done.returncode == 1 and why in done.stderr and not done.stdout
