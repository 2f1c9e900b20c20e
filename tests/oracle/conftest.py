# SPDX-License-Identifier: Apache-2.0
"""The tree engine as the oracle tests ask it: `trees.score(model_file, rows)` in both of its forms."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(os.environ.get("WEIR_TREES_SCORE", ROOT / "build/dev/tests/oracle/trees_score"))


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(answer["error"])
        self.code = answer["code"]


class Answer:
    def __init__(self, about, raw, rows):
        kind = np.float64 if about["wide_answer"] else np.float32
        size = rows * about["outputs"] * np.dtype(kind).itemsize
        self.about = about
        self.scores = np.frombuffer(raw[:size], kind).reshape(rows, about["outputs"])
        self.classes = np.frombuffer(raw[size:], np.uint32)


class Trees:
    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, model, x, form):
        rows, out = self.folder / "rows", self.folder / "out"
        x = np.asarray(x, np.float64)
        with np.errstate(over="ignore"):
            rows.write_bytes(x.astype(np.float32).tobytes() + x.tobytes())
        self.process.stdin.write(f"{model} {rows} {out} {form}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise Refused(answer)
        return Answer(answer, out.read_bytes(), len(x))

    def score(self, model, x):
        """By the walk and, where it is possible, by bins: the bits must be the same. Rows also one by
        one and in odd numbers, since those take other ways through the code."""
        walk = self.ask(model, x, "walk")
        for part in (x[:1], x[:13], x[3:40]):
            start = 3 if len(part) == 37 else 0
            some = self.ask(model, part, "walk")
            np.testing.assert_array_equal(some.scores, walk.scores[start : start + len(part)])
        try:
            bins = self.ask(model, x, "bins")
        except Refused as refused:
            assert refused.code == "FAILED_PRECONDITION", refused
            walk.bins = False
            return walk
        np.testing.assert_array_equal(bins.scores, walk.scores)
        np.testing.assert_array_equal(bins.classes, walk.classes)
        walk.bins = True
        return walk


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    t = Trees(tmp_path_factory.mktemp("trees"))
    yield t
    t.process.stdin.close()
    t.process.wait(10)
