# SPDX-License-Identifier: Apache-2.0
"""The servers under measurement. Each is a process tree of ours on a loopback port: started, told apart
by pid, and ended. A server says how it is started, and where and how it is asked; most answer the same
Open Inference Protocol request.

To add one: a function (folder, port, model) -> Server, and its line in SERVERS.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))

import gateway  # noqa: E402

DEPS = ROOT / ".deps"
CELL_COUNT = 12  # ten cells, missing values and others
FEATURES = 30
FOLDER = ROOT / "build/bench/serving"  # where make_inputs writes
JSON_TYPE = {"Content-Type": "application/json"}


class NotMeasured(Exception):
    """Why a server cannot take part; the row says so."""


def make_inputs():
    subprocess.run([DEPS / "venv/bin/python", HERE / "make_inputs", FOLDER], check=True)


def about(model):
    """What make_inputs tells of a model."""
    return json.loads((FOLDER / "inputs.json").read_text())["models"][model]


def requests_of(model, rows, form):
    """The bodies of requests, in the order in which they are sent."""
    data, at = (FOLDER / f"{model}-{rows}.{form}").read_bytes(), 0
    while at < len(data):
        size, = struct.unpack_from("<I", data, at)
        yield data[at + 4: at + 4 + size]
        at += 4 + size


def flat(values):
    return [x for value in values for x in flat(value)] if isinstance(values, list) else [values]


def last_output(answer):
    """The values of the last output of an Open Inference Protocol answer."""
    return flat(answer["outputs"][-1]["data"])


@dataclass
class Server:
    command: list
    cwd: Path = HERE
    path: str = "/v2/models/{model}/infer"
    form: str = "json"  # of the requests it takes
    values: Callable = last_output  # of an answer; None for the floor, which answers a constant
    start_seconds: float = 120
    control: gateway.Control | None = None  # what hears the digests of a server that watches


def fill(template, **words):
    text = (HERE / template).read_text()
    for word, value in words.items():
        text = text.replace(f"@{word.upper()}@", str(value))
    return text


def program(path):
    if not Path(path).exists():
        raise NotMeasured(f"{str(path).removeprefix(f'{ROOT}/')} is missing")
    return str(path)


# Where the values fall that are watched: ten equal cells (what is counted, not where, costs the time).
CELLS = {"kind": "numeric", "edges": [round(-2 + 0.5 * i, 1) for i in range(9)],
         "mids": [round(-2.25 + 0.5 * i, 2) for i in range(10)], "lo": -5, "hi": 5, "mean": 0, "sd": 1,
         "lumpy": False, "counts": [100] * CELL_COUNT}
SCORE_CELLS = {**CELLS, "edges": [round(0.1 * i, 1) for i in range(1, 10)],
               "mids": [round(0.05 + 0.1 * i, 2) for i in range(10)], "lo": 0, "hi": 1, "mean": 0.5,
               "sd": 0.3}


def watched_by_cells(gw):
    columns = [{"name": f"f{i}", "cells": CELLS} for i in range(FEATURES)]
    columns.append({"name": "probabilities_1", "cells": SCORE_CELLS})
    return gw.blob(gateway.canonical({"format": 1, "kind": "profile", "columns": columns}))


def signature_of(model):
    """Of the trees: by name and by tensor; of the networks, whose rows are wide: by tensor only."""
    row = about(model)["row"]
    outputs = [{"name": "label", "datatype": "INT64", "shape": [-1]},
               {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]
    is_tree = model.startswith("gbm")
    if not is_tree:
        outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 10 if model == "cnn" else 1]}]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, *row]}], "outputs": outputs,
            "columns": gateway.float_columns(row[0]) if is_tree else [],
            "reading": {"label": 0, "probabilities": 1, "value": -1, "classes": ["0", "1"], "positive": 1,
                        "threshold": 0.5} if is_tree else {}}


def weir(folder, port, model="gbm", options=(), platform="onnxruntime_onnx"):
    """The gateway process on a plan with the one model: one loop, as the peers have one worker. Control
    is another process and does not stand in the way of a request; here somebody only hears the digests."""
    binary = program(os.environ.get("WEIR_BENCH_BIN", ROOT / "build/release/weir"))
    project = folder / "-".join(["weir", model, platform, *options])
    shutil.rmtree(project, ignore_errors=True)
    gw = gateway.Gateway(project)
    profile = watched_by_cells(gw) if model == "gbm" else ""
    artifact = gw.blob((folder / f"{model}.onnx").read_bytes())
    version = gateway.version(artifact, profile=profile, platform=platform)
    gw.plan(gateway.endpoint(model, [version], signature_of(model), rows_max=1024, timeout_ns=10 * 10**9,
                             body_bytes_max=64 << 20))
    return Server([binary, "gateway", "--project", str(project), "--listen", f"127.0.0.1:{port}",
                   "--loops", "1", "--log-level", "warn", *options],
                  control=Control(gw.state) if profile and not options else None)


def weir_trees(folder, port, model="gbm"):
    """The same model through the tree engine."""
    if not model.startswith("gbm"):
        raise NotMeasured("the tree engine computes trees")
    return weir(folder, port, model, platform="weir_trees")


def weir_bare(folder, port, model="gbm"):
    """Weir that neither records nor watches: what these cost is the difference."""
    return weir(folder, port, model, options=("--no-records",))


def nginx(folder, port, model="gbm"):
    constant = {"model_name": model, "model_version": "1", "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [1, 2],
         "data": [0.1234567, 0.8765433]}]}
    metadata = {"name": model, "versions": ["1"], "platform": "constant",
                "inputs": signature_of("gbm")["inputs"], "outputs": signature_of("gbm")["outputs"]}
    conf = folder / "nginx.conf"
    conf.write_text(fill("nginx.conf", port=port, folder=folder, body=json.dumps(constant), model=model,
                         metadata=json.dumps(metadata)))
    return Server([program("/usr/sbin/nginx"), "-p", str(folder), "-c", str(conf)], values=None)


def python_of(venv):
    return program(DEPS / venv / "bin/python")


def fastapi(_folder, port, _model="gbm"):
    return Server([python_of("bench"), "-m", "uvicorn", "peer_fastapi:app", "--host", "127.0.0.1", "--port",
                   str(port), "--workers", "1", "--loop", "uvloop", "--http", "httptools",
                   "--no-access-log", "--log-level", "warning"])


def litserve(_folder, port, _model="gbm"):
    return Server([python_of("bench"), str(HERE / "peer_litserve.py"), str(port)])


def mlserver(folder, port, model="gbm"):
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "debug": False,
                "metrics_port": free_port(), "parallel_workers": 0, "use_structured_logging": False}
    about_it = {"name": model, "implementation": "peer_mlserver.OnnxModel"}
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps(about_it))
    python = python_of("bench-mlserver")
    return Server([python, str(Path(python).with_name("mlserver")), "start", str(place)])


def bentoml(_folder, port, _model="gbm"):
    python = python_of("bench-bentoml")
    return Server([python, "-m", "bentoml", "serve", "peer_bentoml:Onnx", "--host", "127.0.0.1", "--port",
                   str(port), "--api-workers", "1"])


def kserve(_folder, port, model="gbm"):
    return Server([python_of("bench-kserve"), str(HERE / "peer_kserve.py"), "--model_name", model,
                   "--http_port", str(port), "--grpc_port", str(free_port()), "--workers", "1",
                   "--configure_logging", "False"])


def ray(_folder, port, _model="gbm"):
    return Server([python_of("bench-ray"), str(HERE / "peer_ray.py"), str(port)])


def mlflow(folder, port, _model="gbm"):
    program_and_place = [python_of("bench-mlflow"), str(HERE / "peer_mlflow.py"), str(folder / "mlflow")]
    return Server([*program_and_place, str(port)],
                  path="/invocations", form="mlflow",
                  values=lambda answer: flat(list(answer["predictions"].values())[-1]))


def grpcio(_folder, port, _model="gbm"):
    """The protocol's own Python server, with the same model; it speaks gRPC only."""
    return Server([program(DEPS / "venv/bin/python"), str(HERE / "peer_grpcio.py"), str(port)], form="grpc")


SERVERS = {"weir": weir, "weir-trees": weir_trees, "weir-bare": weir_bare, "nginx": nginx, "fastapi": fastapi,
           "litserve": litserve, "mlserver": mlserver, "bentoml": bentoml, "kserve": kserve, "ray": ray,
           "mlflow": mlflow, "grpcio": grpcio}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url, body):
    request = urllib.request.Request(url, body, JSON_TYPE)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def post_grpc(port, body):
    """The answer's message to a framed one, by grpcio in the environment of the tests."""
    script = ("import grpc,sys,json;from tritonclient.grpc import service_pb2 as pb;import numpy as np;"
              "c=grpc.insecure_channel(f'127.0.0.1:{sys.argv[1]}');"
              "m=c.unary_unary('/inference.GRPCInferenceService/ModelInfer')"
              "(sys.stdin.buffer.read()[5:],timeout=10);r=pb.ModelInferResponse.FromString(m);"
              "print(json.dumps(np.frombuffer(r.raw_output_contents[-1],np.float32).tolist()))")
    command = [DEPS / "venv/bin/python", "-c", script, str(port)]
    done = subprocess.run(command, input=body, capture_output=True)
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace")[-200:])
    return json.loads(done.stdout)


class DigestReader:
    """Rows, and values counted in cells, of one digest as src/record/digest_codec.c writes it."""

    def __init__(self, data):
        self.data, self.at = data, 8
        self.rows = self.values = 0
        for _ in range(2):
            self.skip(self.number())
        self.number(), self.number()  # its times
        self.sequence, *_, self.run = (self.number() for _ in range(9))
        self.number()  # bits
        for _ in range(self.number()):
            self.series()

    def skip(self, size):
        self.at += size

    def number(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def counts(self):
        return sum((self.number(), self.number())[1] for _ in range(self.number()))

    def series(self):
        for _ in range(2):
            self.skip(self.number())
        self.skip(8)
        parts, _arm, _features, columns, _requests, rows = (self.number() for _ in range(6))
        self.rows += rows
        self.counts(), self.counts()
        if parts & 1:
            for _ in range(4):
                self.number()
            self.counts()
        for _ in range(columns if parts & 2 else 0):
            self.skip(16 if self.number() else 0)
            self.values += self.counts()


class Control(gateway.Control):
    """Hears the digests, and says that they are kept, so that the gateway need not hold them."""

    def heard(self, digest):
        read = DigestReader(digest)
        with contextlib.suppress(OSError):  # it has just ended
            self.send("kept", struct.pack("<QQ", read.run, read.sequence))


class Running:
    """A started server on one CPU; a context manager that ends what it started."""

    def __init__(self, name, cpus, model="gbm"):
        self.port, self.model, self.cpus = free_port(), model, cpus
        self.log = FOLDER / f"{name}.log"
        self.server = SERVERS[name](FOLDER, self.port, model)
        self.url = f"http://127.0.0.1:{self.port}{self.server.path.format(model=model)}"

    def __enter__(self):
        env = {**os.environ, "BENCH_MODEL": str(FOLDER / f"{self.model}.onnx"), "BENCH_NAME": self.model,
               "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
               "PATH": f"{Path(self.server.command[0]).parent}:{os.environ['PATH']}"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.server.command, cwd=self.server.cwd, env=env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus))
        try:
            self.wait_ready()
            if self.server.control:
                self.server.control.accept()
        except BaseException:
            self.__exit__()
            raise
        return self

    def answer(self, body):
        """The values that matter of the answer to one request in the server's own form."""
        if self.server.form == "grpc":
            return post_grpc(self.port, body)
        tree = post(self.url, body)
        return self.server.values(tree) if self.server.values else []

    def wait_ready(self):
        body = next(requests_of(self.model, 1, self.server.form))
        start = time.monotonic()
        end = start + self.server.start_seconds
        while True:
            try:
                self.answer(body)
                self.first_answer_seconds = time.monotonic() - start
                return
            except (urllib.error.URLError, OSError, ValueError, LookupError) as why:
                if self.process.poll() is not None or time.monotonic() > end:
                    tail = self.log.read_text(errors="replace")[-400:]
                    raise NotMeasured(f"does not answer ({why}): {tail}") from None
            time.sleep(0.002)

    def check_answers(self):
        """The server does the work: its answers are the model's."""
        if not self.server.values:
            return
        bodies = requests_of(self.model, 1, self.server.form)
        for want, body in zip(about(self.model)["answers"], bodies, strict=False):
            got = self.answer(body)
            if len(got) != len(want) or any(abs(g - w) > 1e-4 for g, w in zip(got, want, strict=True)):
                raise NotMeasured(f"answers {got[:3]}, the model says {want[:3]}")

    def check_watched(self):
        """A server that says it watches has counted every feature and the score of every row."""
        if not self.server.control:
            return
        time.sleep(0.5)  # two digests
        digests = [DigestReader(data) for _, data in list(self.server.control.digests)]
        rows, values = sum(d.rows for d in digests), sum(d.values for d in digests)
        if not rows or values != rows * (FEATURES + 1):
            raise NotMeasured(f"counted {values} values of {rows} rows: records and monitors are not on")

    def pids(self):
        """Our process and all below it."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                pass
        return found

    def cpu_seconds(self):
        """CPU time of all threads of the process tree so far, by the scheduler's own clock: short bursts
        would drown in the ticks of /proc/PID/stat."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(task.read_text().split()[0])
                except OSError:
                    continue
        return total / 1e9

    def resident_mib(self):
        """Proportional set size of the process tree: shared pages are counted once."""
        total = 0
        for pid in self.pids():
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
            except OSError:
                continue
        return total / 1024

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"{self.process.pid} did not end in 10 s", file=sys.stderr)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # what is left of its own process group
        except ProcessLookupError:
            pass
        self.process.wait()
        if self.server.control:
            self.server.control.close()
