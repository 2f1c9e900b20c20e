# SPDX-License-Identifier: Apache-2.0
"""The servers under measurement. Each is a process tree of ours on a loopback port: started, told apart
by pid, and ended. A server says how it is started; all answer the same POST.

To add one: a function (folder, port) -> Server, and its line in SERVERS.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))

import gateway  # noqa: E402

DEPS = ROOT / ".deps"
INFER = "/v2/models/gbm/infer"
CELL_COUNT = 12  # ten cells, missing values and others
FEATURES = 30


class NotMeasured(Exception):
    """Why a server cannot take part; the row says so."""


@dataclass
class Server:
    command: list
    cwd: Path = HERE
    right_answers: bool = True  # False for the floor, which answers a constant
    start_seconds: float = 60
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
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, FEATURES]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    "columns": gateway.float_columns(FEATURES),
    "reading": {"label": 0, "probabilities": 1, "value": -1, "classes": ["0", "1"], "positive": 1,
                "threshold": 0.5}}


def weir(folder, port, *options, platform="onnxruntime_onnx"):
    """The gateway process on a plan with the one model: one loop, as the peers have one worker. Control
    is another process and does not stand in the way of a request; here somebody only hears the digests."""
    binary = program(os.environ.get("WEIR_BENCH_BIN", ROOT / "build/release/weir"))
    project = folder / ("weir-" + platform + "".join(options))
    shutil.rmtree(project, ignore_errors=True)
    gw = gateway.Gateway(project)
    columns = [{"name": f"f{i}", "cells": CELLS} for i in range(FEATURES)]
    columns.append({"name": "probabilities_1", "cells": SCORE_CELLS})
    profile = gw.blob(gateway.canonical({"format": 1, "kind": "profile", "columns": columns}))
    model = gw.blob((folder / "gbm.onnx").read_bytes())
    gw.plan(gateway.endpoint("gbm", [gateway.version(model, profile=profile, platform=platform)], SIGNATURE))
    return Server([binary, "gateway", "--project", str(project), "--listen", f"127.0.0.1:{port}",
                   "--loops", "1", "--log-level", "warn", *options],
                  control=None if options else gateway.Control(gw.state))


def weir_trees(folder, port):
    """The same model through the tree engine."""
    return weir(folder, port, platform="weir_trees")


def weir_bare(folder, port):
    """Weir that neither records nor watches: what these cost is the difference."""
    return weir(folder, port, "--no-records")


def nginx(folder, port):
    constant = {"model_name": "gbm", "model_version": "1", "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [1, 2],
         "data": [0.1234567, 0.8765433]}]}
    conf = folder / "nginx.conf"
    conf.write_text(fill("nginx.conf", port=port, folder=folder, body=json.dumps(constant)))
    return Server([program("/usr/sbin/nginx"), "-p", str(folder), "-c", str(conf)], right_answers=False)


def fastapi(folder, port):
    return Server([program(DEPS / "bench/bin/python"), "-m", "uvicorn", "peer_fastapi:app", "--host",
                   "127.0.0.1", "--port", str(port), "--workers", "1", "--loop", "uvloop", "--http",
                   "httptools", "--no-access-log", "--log-level", "warning"])


def litserve(folder, port):
    return Server([program(DEPS / "bench/bin/python"), str(HERE / "peer_litserve.py"), str(port)])


def mlserver(folder, port):
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "debug": False,
                "metrics_port": free_port(), "parallel_workers": 0, "use_structured_logging": False}
    model = {"name": "gbm", "implementation": "peer_mlserver.OnnxModel"}
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps(model))
    python = program(DEPS / "bench-mlserver/bin/python")
    return Server([python, str(Path(python).with_name("mlserver")), "start", str(place)])


SERVERS = {"weir": weir, "weir-trees": weir_trees, "weir-bare": weir_bare, "nginx": nginx, "fastapi": fastapi,
           "litserve": litserve, "mlserver": mlserver}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url, body):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


class DigestReader:
    """Rows, and values counted in cells, of one digest as src/record/digest_codec.c writes it."""

    def __init__(self, data):
        self.data, self.at = data, 8
        self.rows = self.values = 0
        for _ in range(2):
            self.skip(self.number())
        for _ in range(11):  # two times, eight counters, bits
            self.number()
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


class Running:
    """A started server on one CPU; a context manager that ends what it started."""

    def __init__(self, name, folder, cpus):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{INFER}"
        self.folder, self.cpus, self.log = folder, cpus, folder / f"{name}.log"
        self.server = SERVERS[name](folder, self.port)

    def __enter__(self):
        env = {**os.environ, "BENCH_MODEL": str(self.folder / "gbm.onnx"), "PYTHONPATH": str(HERE),
               "PYTHONDONTWRITEBYTECODE": "1"}
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

    def wait_ready(self):
        with open(self.folder / "bodies.jsonl", "rb") as bodies:
            body = bodies.readline()
        start = time.monotonic()
        end = start + self.server.start_seconds
        while True:
            try:
                post(self.url, body)
                self.first_answer_seconds = time.monotonic() - start
                return
            except (urllib.error.URLError, OSError, ValueError) as why:
                if self.process.poll() is not None or time.monotonic() > end:
                    tail = self.log.read_text(errors="replace")[-400:]
                    raise NotMeasured(f"does not answer ({why}): {tail}") from None
            time.sleep(0.002)

    def check_answers(self):
        """The server does the work: its answers are the model's, to six digits."""
        if not self.server.right_answers:
            return
        want = json.loads((self.folder / "answers.json").read_text())
        with open(self.folder / "bodies.jsonl", "rb") as bodies:
            for body, probability in zip(bodies, want, strict=True):
                outputs = {output["name"]: output["data"] for output in post(self.url, body)["outputs"]}
                got = outputs["probabilities"]
                got = got[0] if isinstance(got[0], list) else got
                if abs(got[1] - probability) > 1e-5:
                    raise NotMeasured(f"answers {got[1]}, the model says {probability}")

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
