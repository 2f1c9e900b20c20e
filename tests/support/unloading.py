# SPDX-License-Identifier: Apache-2.0
"""A gateway whose endpoints are loaded and unloaded by request, and what that does to its memory."""

import functools
import io
import json
import os
import re
import sys
import tarfile
import time
from pathlib import Path

import models
import numpy as np
import weir
from gateway import Gateway, canonical, endpoint, float_columns, infer_body, signature, version
from onnx import TensorProto, helper, numpy_helper
from test_auth import PEPPER, key, key_text

ADMIN = {"X-API-Key": key_text(1)}
READER = {"X-API-Key": key_text(2)}
PREDICTOR = {"X-API-Key": key_text(3)}
VENV = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
TENSORS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
           "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]}
PROGRAM = "from weir_runtime import serve\n\nserve(lambda inputs: {'y': inputs['x'].sum(axis=1)})\n"


def layers(width=1000, hidden=2000):
    """x [batch, width] -> y [batch, 1] through 8 MB of weights."""
    rng = np.random.default_rng(1)
    weights = {"a": rng.normal(size=(width, hidden)), "b": rng.normal(size=(hidden, 1))}
    return models.onnx_bytes(
        [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
         helper.make_node("MatMul", ["r", "b"], ["y"])],
        [models.value("x", TensorProto.FLOAT, "batch", width)],
        [models.value("y", TensorProto.FLOAT, "batch", 1)],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()])


@functools.cache
def forest():
    return models.gbm(trees=100, depth=7, rows=5000).model


def pack(files):
    """A folder as the registry would keep it, the manifest first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o444
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def process_endpoint(gw, name):
    manifest = json.dumps({"command": ["python3", "main.py"], **TENSORS})
    content = pack({"weir-process.json": manifest, "main.py": PROGRAM,
                    "weir_runtime.py": (weir.ROOT / "python/weir_runtime.py").read_text()})
    sign = {**TENSORS, "columns": float_columns(2), "reading": {"value": 0}}
    return endpoint(name, [version(gw.blob(content), platform="process")], sign, timeout_ns=10**10)


class Unloading(Gateway):
    """Endpoints onnx, trees and process, and keys of an admin, a reader and a predictor."""

    def __init__(self, folder):
        super().__init__(folder)
        (self.state / "keys").mkdir()
        (self.state / "keys/pepper").write_text(PEPPER)
        self.onnx = layers()
        self.trees = forest()
        self.bodies = {"onnx": infer_body([[0.5] * 1000]), "trees": infer_body([[0.5] * 30]),
                       "process": infer_body([[1, 2]])}
        self.parts = {
            "onnx": endpoint("onnx", [version(self.blob(self.onnx))], signature(self.onnx)),
            "trees": endpoint("trees", [version(self.blob(self.trees), platform="weir_trees")],
                              signature(self.trees)),
            "process": process_endpoint(self, "process"),
        }
        self.write()

    def start(self, *more, env=None, seconds=30):
        return super().start(*more, env={**VENV, **(env or {})}, seconds=seconds)

    def write(self):
        """A plan of the parts; the current one. Returns its hash."""
        keys = {f"{n:08x}": key(n, role) for n, role in ((1, "admin"), (2, "reader"), (3, "predictor"))}
        auth = self.blob(canonical({"kind": "auth", "format": 1, "mode": "required", "keys": keys}))
        root = {"kind": "plan", "format": 1, "project": "tests", "auth": auth,
                "gateway": {"listen": self.address, "loops": 2},
                "endpoints": {name: self.blob(canonical(part)) for name, part in self.parts.items()}}
        name = self.blob(canonical(root))
        (self.state / "plan").mkdir(exist_ok=True)
        (self.state / "plan/current").write_text(name)
        return name

    def change(self, name, what, headers=ADMIN):
        return self.request("POST", f"/v2/repository/models/{name}/{what}", "{}", headers, timeout=60)[0]

    def infer(self, name):
        return self.request("POST", f"/v2/models/{name}/infer", self.bodies[name], PREDICTOR, timeout=30)

    def rss(self):
        """Resident bytes, once they have come to rest: models go a moment after the answer."""
        last = 0
        for _ in range(100):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            now = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10
            if now == last:
                break
            last = now
            time.sleep(0.1)
        return now

    def cycles(self, name, count, each=lambda i: None):
        """Unloads and loads, with a request in between; leaves it unloaded."""
        for i in range(count):
            assert self.change(name, "load") == 200, self.log()
            status, _, body = self.infer(name)
            assert status == 200, body
            assert self.change(name, "unload") == 200, self.log()
            each(i)
