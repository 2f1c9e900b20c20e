# SPDX-License-Identifier: Apache-2.0
"""What sends the requests: wrk over HTTP/1.1 and h2load for gRPC, as fast as answers come; and
`weir load`, which sends at a rate of its own (Poisson arrivals) and counts the latency of each request
from the instant at which it was due, so that a server that stalls is not asked less.

All run on the last CPU, the servers on the first. A result is a dict: requests, seconds, cpu_seconds (of
the server's process tree), and where the generator tells them p50_us and p99_us. Any failure refuses it.
"""
import csv
import json
import os
import re
import struct
import subprocess

import servers

ROOT = servers.ROOT
CPU = str(max(os.sched_getaffinity(0)))
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def run(server, command, parse):
    before = server.cpu_seconds()
    done = subprocess.run(["taskset", "-c", CPU, *map(str, command)], capture_output=True, text=True)
    spent = server.cpu_seconds() - before
    if done.returncode:
        raise servers.NotMeasured(f"{command[0]} failed: {done.stdout[-200:]}{done.stderr[-200:]}")
    result = parse(done.stdout)
    if result["errors"] or not result["requests"]:
        raise servers.NotMeasured(f"{result['errors']} errors in {result['requests']} requests")
    return {**result, "cpu_seconds": spent}


def headers_of(server, rows, form):
    if form != "binary":
        return servers.JSON_TYPE
    size = servers.about(server.model)["json_bytes"][str(rows)]
    return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": size}


def wrk(server, connections, seconds, form="json", rows=1):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s",
               servers.HERE / "load.lua", server.url, "--", servers.FOLDER / f"{server.model}-{rows}.{form}",
               *(f"{name}={value}" for name, value in headers_of(server, rows, form).items())]
    return run(server, command, lambda out: json.loads(out.splitlines()[-1]))


def read_h2load(out):
    total, failed = (int(re.search(rf"(\d+) {word}", out)[1]) for word in ("total", "failed"))
    good = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    seconds, unit = re.search(r"finished in ([\d.]+)(us|ms|s),", out).groups()
    return {"requests": good, "errors": failed + max(0, total - good - failed),
            "seconds": float(seconds) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]}


def h2load(server, connections, seconds, rows=1):
    """gRPC: one request over and over, `connections` in flight, up to eight on one connection."""
    body = servers.FOLDER / f"{server.model}-{rows}.message"
    body.write_bytes(next(servers.requests_of(server.model, rows, "grpc")))
    clients = max(1, connections // 8)
    command = ["h2load", "-t1", f"-c{clients}", f"-m{connections // clients}", "-D", seconds, "-d", body,
               "-H", "content-type: application/grpc", "-H", "te: trailers",
               f"http://127.0.0.1:{server.port}{GRPC_METHOD}"]
    result = run(server, command, read_h2load)
    check_grpc(server)
    return result


def check_grpc(server):
    """An error of gRPC is a 200 for HTTP: the last request is asked once more by a client that sees it."""
    servers.post_grpc(server.port, next(servers.requests_of(server.model, 1, "grpc")))


def columns_file(model):
    """The rows of the requests as a table for `weir load`."""
    path = servers.FOLDER / f"{model}.csv"
    size = servers.about(model)["row"][0]
    if not path.exists():
        with open(path, "w", newline="") as out:
            table = csv.writer(out)
            table.writerow(f"f{i}" for i in range(size))
            for body in servers.requests_of(model, 1, "grpc"):
                table.writerow(struct.unpack(f"<{size}f", body[-4 * size:]))
    return path


def read_load(out):
    report = json.loads(out)
    totals = report["totals"]
    return {"requests": totals["ok"], "errors": totals["failed"] + totals["dropped"],
            "seconds": totals["elapsed_s"], "p50_us": 1000 * totals["latency"]["p50_ms"],
            "p99_us": 1000 * totals["latency"]["p99_ms"]}


def open_loop(server, rate, seconds, connections=64):
    command = [ROOT / "build/release/weir", "load", server.model, "--data", columns_file(server.model),
               "--to", f"127.0.0.1:{server.port}", "--api", "oip", "--poisson", "--rate", round(rate),
               "--duration", f"{seconds}s", "--loop", "--connections", connections, "--quiet", "--json"]
    return run(server, command, read_load)
