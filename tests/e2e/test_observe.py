# SPDX-License-Identifier: Apache-2.0
"""What operators see of a gateway: its figures, its access log, its traces, and `weir top`."""

import http.server
import json
import queue
import re
import signal
import threading
import time
from datetime import datetime

import httpx
import models
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from gateway import Gateway, endpoint, float_columns, infer_body, signature, version
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families
from test_gateway import linear_endpoint, slow_model
from tritonclient.utils import InferenceServerException


@pytest.fixture
def gateway(tmp_path, weir_binary):
    made = []

    def make():
        made.append(Gateway(tmp_path / f"gateway{len(made)}"))
        return made[-1]

    yield make
    for gw in made:
        gw.stop()


def samples(gw):
    """{(name, labels as a frozenset): value}"""
    text = gw.request("GET", "/metrics")[2].decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(found, name, **labels):
    (v,) = [v for (n, ls), v in found.items() if n == name and frozenset(labels.items()) <= ls]
    return v


# --- Queues, batches, limits ---------------------------------------------------------------------------


def test_batches_and_queues_are_told(gateway):
    gw = gateway()
    model = slow_model(20_000)
    gw.plan(
        endpoint(
            "slow", [version(gw.blob(model))], signature(model), timeout_ns=60_000_000_000, inflight_max=77
        ),
        linear_endpoint(gw),
    )
    gw.start("--loops", "1")
    for rows in (1, 3, 8):
        assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]] * rows))[0] == 200
    found = samples(gw)
    batches = {"endpoint": "m", "version": "1"}
    assert value(found, "weir_batch_rows_count", **batches) == 3
    assert value(found, "weir_batch_rows_sum", **batches) == 12
    for le, count in (("1", 1), ("2", 1), ("4", 2), ("8", 3), ("+Inf", 3)):
        assert value(found, "weir_batch_rows_bucket", le=le, **batches) == count
    assert value(found, "weir_endpoint_inflight_max", endpoint="slow") == 77
    assert value(found, "weir_endpoint_timeout_seconds", endpoint="slow") == 60
    assert value(found, "weir_crew_workers", endpoint="slow") >= 1
    assert not [key for key in found if key[0].startswith("weir_crew") and ("endpoint", "m") in key[1]]

    body = infer_body([[1, 2]] * 4)
    threads = [
        threading.Thread(target=gw.request, args=("POST", "/v2/models/slow/infer", body)) for _ in range(6)
    ]
    [t.start() for t in threads]
    seen = []
    while any(t.is_alive() for t in threads):
        found = samples(gw)
        seen.append(
            [
                value(found, f"weir_{n}", endpoint="slow")
                for n in ("crew_waiting_rows", "endpoint_inflight", "crew_busy")
            ]
        )
    [t.join() for t in threads]
    assert max(s[0] for s in seen) > 4 and max(s[1] for s in seen) > 1 and max(s[2] for s in seen) >= 1, seen
    found = samples(gw)
    assert value(found, "weir_crew_waiting_rows", endpoint="slow") == 0
    assert value(found, "weir_endpoint_inflight", endpoint="slow") == 0
    assert value(found, "weir_batch_rows_sum", endpoint="slow", version="1") == 24
    assert value(found, "weir_crew_row_cost_seconds", endpoint="slow") > 0


# --- The access log ------------------------------------------------------------------------------------

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE, SPAN = PARENT.split("-")[1:3]
LOG = {
    "path": "access.log",
    "sample": 1,
    "errors": "all",
    "slow_ns": None,
    "rotate_bytes": 1 << 20,
    "keep": 3,
}


def logging(gateway, *parts, **settings):
    gw = gateway()
    gw.plan(*(parts or [linear_endpoint(gw)]), access_log={**LOG, **settings})
    return gw.start("--loops", "1")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(check, seconds=10):
    end = time.monotonic() + seconds
    while not (got := check()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return got


def logged(gw, count, where=None):
    """The lines of the log once there are so many but those of /v2/health/live."""

    def look():
        lines = [x for x in lines_of(where or gw.folder / "access.log") if x.get("path") != "/v2/health/live"]
        assert len(lines) <= count, lines
        return len(lines) == count and lines

    return wait_for(look)


def test_a_line_for_each_request(gateway):
    gw = logging(gateway)
    body = json.dumps(infer_body([[1717.25, 2]] * 3))
    status, headers, _ = gw.request(
        "POST", "/v2/models/m/infer", body, {"X-Request-Id": "r-1", "traceparent": PARENT}
    )
    assert status == 200 and headers["X-Request-Id"] == "r-1"
    answer = gw.request(
        "POST", "/v1/predict/m", {"features": {"f0": 1, "f1": 2}, "metadata": {"user_id": "ann"}}
    )
    made = json.loads(answer[2])["metadata"]["request_id"]
    gw.request("POST", "/v2/models/m/infer", '{"inputs": "secret-1717.25"}', {"X-Request-Id": "r-3"})
    gw.request("GET", "/v2/models/none")
    gw.raw(b"nonsense\r\n\r\n")
    ok, predict, invalid, missing, broken = logged(gw, 5)

    assert ok["request_id"] == "r-1" and ok["trace_id"] == TRACE and ok["span_id"] == SPAN
    assert (ok["endpoint"], ok["version"], ok["arm"], ok["form"]) == ("m", "1", "champion", "oip")
    assert (ok["protocol"], ok["status"], ok["code"], ok["result"]) == ("http/1.1", 200, "OK", "ok")
    assert (ok["rows"], ok["batch_rows"]) == (3, 3)
    assert ok["bytes_in"] == len(body) and ok["bytes_out"] > 50
    assert 0 < ok["latency_ms"] < 10000
    assert ok["latency_ms"] == pytest.approx(ok["queue_ms"] + ok["compute_ms"], abs=1e-6)
    assert ok["logged"] == "sample" and "user" not in ok
    assert abs(datetime.fromisoformat(ok["time"]).timestamp() - time.time()) < 60
    assert predict["request_id"] == made and predict["form"] == "predict" and "trace_id" not in predict
    assert re.fullmatch("[0-9a-f]{32}", predict["user"])
    assert (invalid["status"], invalid["code"], invalid["result"]) == (400, "INVALID_ARGUMENT", "invalid")
    assert invalid["request_id"] == "r-3" and invalid["logged"] == "error" and "compute_ms" not in invalid
    assert (missing["status"], missing["path"]) == (404, "/v2/models/none") and "endpoint" not in missing
    assert broken["status"] == 400 and "path" not in broken
    text = (gw.folder / "access.log").read_text()
    assert "1717.25" not in text and '"ann"' not in text and "1721.75" not in text
    assert value(samples(gw), "weir_access_log_lines_total") >= 5


@pytest.mark.parametrize("place", ["loops", "crew"])
def test_grpc_calls_and_streams_are_logged(gateway, place):
    gw = gateway()
    gw.plan(linear_endpoint(gw, compute={"place": place}), access_log=LOG)
    gw.start("--loops", "1")
    x = triton_grpc.InferInput("x", [2, 2], "FP32")
    x.set_data_from_numpy(np.ones([2, 2], np.float32))
    with triton_grpc.InferenceServerClient(gw.address) as client:
        client.infer("m", [x], request_id="g-1", headers={"traceparent": PARENT})
        with pytest.raises(InferenceServerException):
            client.infer("none", [x])
        answers = queue.Queue()
        client.start_stream(
            lambda result, error: answers.put((result, error)), headers={"traceparent": PARENT}
        )
        for i in range(2):
            client.async_stream_infer("m", [x], request_id=f"s-{i}")
        [answers.get(timeout=10) for _ in range(2)]
        client.stop_stream()
    unary, missing, *stream = logged(gw, 4)
    assert (unary["request_id"], unary["form"], unary["protocol"], unary["rows"]) == (
        "g-1",
        "grpc",
        "grpc",
        2,
    )
    assert unary["trace_id"] == TRACE
    assert missing["code"] == "NOT_FOUND" and missing["path"].endswith("/ModelInfer")
    assert [s["request_id"] for s in stream] == ["s-0", "s-1"]
    assert all(s["form"] == "grpc-stream" and s["trace_id"] == TRACE for s in stream)


@pytest.mark.parametrize("place", ["loops", "crew"])
def test_fallbacks_and_repeats_are_logged(gateway, place):
    gw = gateway()
    bad, good = models.brittle((4, 4, 0), fails_above=50), models.brittle((4, 4, 0), fails_above=1e9)
    sign = signature(good, float_columns(3), label="label", probabilities="probabilities",
                     classes=["0", "1"], positive=1, threshold=0.5)
    made = [version(gw.blob(bad), weight=10000), version(gw.blob(good), number=2, weight=0, arm="fallback")]
    part = endpoint(
        "m", made, sign, compute={"place": place},
        fallback={"versions": [1, 2], "share": 0.5, "shed": False},
        idempotency={"window_ns": 60 * 10**9, "bytes_max": 1 << 20, "entries_max": 1000},
    )
    gw.plan(part, access_log=LOG)
    gw.start("--loops", "1")
    kept = []
    for name, third in (("fine", 0), ("fine", 0), ("bad", 100), ("bad", 100)):
        body = json.dumps(infer_body([[1, 1, third]], id=name))
        assert gw.request("POST", "/v2/models/m/infer", body, {"traceparent": PARENT})[0] == 200
        kept.append(len(body))
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[2, 1, 0]], id="fine"))[0] == 409
    lines = logged(gw, 5)
    said = [(x["request_id"], x["version"], x.get("fallback"), x.get("replayed")) for x in lines[:4]]
    assert said == [("fine", "1", None, None), ("fine", "1", None, True),
                    ("bad", "2", "failed", None), ("bad", "2", None, True)]
    assert [x["bytes_in"] for x in lines[:4]] == kept and {x["trace_id"] for x in lines[:4]} == {TRACE}
    assert lines[0]["bytes_out"] == lines[1]["bytes_out"] > 0 and "compute_ms" not in lines[1]
    assert {x["result"] for x in lines[:4]} == {"ok"} and lines[2]["bytes_out"] == lines[3]["bytes_out"]
    assert (lines[4]["status"], lines[4]["code"], lines[4]["result"]) == (409, "ALREADY_EXISTS", "invalid")


def test_sampling_is_by_id_and_spares_nothing_that_failed(gateway):
    ids = [f"id-{i}" for i in range(400)]
    chosen = []
    for _ in range(2):
        gw = logging(gateway, sample=0.25)
        with httpx.Client(base_url=f"http://{gw.address}") as client:
            for name in ids:
                client.post("/v2/models/m/infer", json=infer_body([[1, 2]]), headers={"X-Request-Id": name})
            bad = [
                client.post("/v2/models/m/infer", content=b"{", headers={"X-Request-Id": f"bad-{i}"})
                for i in range(20)
            ]
        assert {b.status_code for b in bad} == {400}
        wait_for(
            lambda gw=gw: sum(x.get("logged") == "error" for x in lines_of(gw.folder / "access.log")) == 20
        )
        chosen.append(
            [
                x["request_id"]
                for x in lines_of(gw.folder / "access.log")
                if x.get("endpoint") and x["status"] == 200
            ]
        )
    assert chosen[0] == chosen[1] and 60 < len(chosen[0]) < 140
    few = logging(gateway, sample=0.1)
    for name in chosen[0][:40] + [n for n in ids if n not in chosen[0]][:40]:
        few.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), {"X-Request-Id": name})
    few.stop()
    part = {x["request_id"] for x in lines_of(few.folder / "access.log") if x.get("endpoint")}
    assert part < set(chosen[0])  # a smaller share is part of a larger one


def test_slow_requests_are_logged(gateway):
    gw = gateway()
    model = slow_model(20_000)
    gw.plan(
        endpoint("slow", [version(gw.blob(model))], signature(model), timeout_ns=60_000_000_000),
        linear_endpoint(gw),
        access_log={**LOG, "sample": 0, "slow_ns": 1_000_000},
    )
    gw.start("--loops", "1")
    assert gw.request("POST", "/v2/models/slow/infer", infer_body([[1, 2]] * 64))[0] == 200
    (line,) = wait_for(lambda: [x for x in lines_of(gw.folder / "access.log") if x.get("form")])
    assert line["endpoint"] == "slow" and line["logged"] == "slow" and line["compute_ms"] > 1


def test_the_file_turns_over_and_opens_anew(gateway):
    gw = logging(gateway, rotate_bytes=6000, keep=2)
    path = gw.folder / "access.log"
    for i in range(60):
        gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), {"X-Request-Id": f"r-{i}"})
        if i % 10 == 9:
            wait_for(lambda i=i: f'"r-{i}"' in path.read_text())
    files = [path.with_name(f"access.log{end}") for end in (".2", ".1", "")]
    assert all(0 < f.stat().st_size <= 6000 for f in files) and not path.with_name("access.log.3").exists()
    seen = [x["request_id"] for f in files for x in lines_of(f) if "request_id" in x]
    assert seen == [f"r-{i}" for i in range(60)][-len(seen) :] and len(seen) > 20
    assert value(samples(gw), "weir_access_log_rotations_total") >= 2

    path.rename(gw.folder / "moved.log")
    gw.process.send_signal(signal.SIGHUP)
    wait_for(path.exists)
    gw.request("GET", "/v2/models/m", headers={"X-Request-Id": "after"})
    wait_for(lambda: [x.get("request_id") for x in lines_of(path)][-1:] == ["after"])


def test_a_full_disk_costs_lines_and_nothing_else(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw), access_log=LOG)
    gw.start("--no-records", "--no-monitors")
    gw.stop()  # what is written once is there
    (gw.folder / "access.log").unlink()
    gw.start("--no-records", "--no-monitors", env={"WEIR_FILE_FAULT": "write:0:tear:28"})
    wait_for(lambda: value(samples(gw), "weir_access_log_lost_total") >= 1)
    for i in range(5):
        assert (
            gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), {"X-Request-Id": f"{i}"})[0] == 200
        )
    wait_for(lambda: '"4"' in (gw.folder / "access.log").read_text())
    assert {x.get("request_id") for x in lines_of(gw.folder / "access.log")} > {*"01234"}  # no half lines
    assert gw.log().count("access_log.failed") == 1 and gw.log().count("access_log.written_again") == 1


def test_to_stdout_and_what_cannot_be_opened(gateway):
    gw = logging(gateway, path="stdout")
    gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), {"X-Request-Id": "out"})
    wait_for(lambda: '"request_id":"out"' in gw.log())
    other = gateway()
    other.plan(linear_endpoint(other), access_log={**LOG, "path": "no/such/folder.log"})
    other.spawn()
    assert other.process.wait(10) != 0
    assert "gateway.access_log" in other.log() and "no/such/folder.log" in other.log()


def test_anomalies_of_inputs_are_counted(gateway):
    gw = gateway()
    numeric = {
        "kind": "numeric",
        "lo": 0,
        "hi": 10,
        "mean": 5,
        "sd": 2,
        "lumpy": False,
        "edges": [5],
        "mids": [2, 7],
        "counts": [50, 50, 0, 0],
    }
    category = {
        "kind": "categorical",
        "keys": ["0000000000000000", "3ff0000000000000"],
        "counts": [5, 5, 0, 0],
    }
    profile = gw.blob(
        json.dumps(
            {"columns": [{"name": "f0", "cells": numeric}, {"name": "f1", "cells": category}]}
        ).encode()
    )
    part = linear_endpoint(gw)
    part["versions"][0]["profile"] = profile
    gw.plan(part, access_log=LOG)
    gw.start("--loops", "1")
    rows = [[3, 0], [11, 1], [-1, 2], [None, 1], [4, 7]]  # 2 out of range, 2 unseen, 1 missing
    assert gw.request("POST", "/v2/models/m/infer", infer_body(rows))[0] == 200
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[3, 0]]))[0] == 200
    first, second = logged(gw, 2)
    assert first["anomalies"] == {"missing": 1, "out_of_range": 2, "unseen": 2}
    assert second["anomalies"] == {"missing": 0, "out_of_range": 0, "unseen": 0}


# --- Traces --------------------------------------------------------------------------------------------


class Collector:
    """Takes what exporters send, as the protocol says, and answers as it is told."""

    def __init__(self):
        self.messages, self.answers, self.times, self.heads = [], [], [], []
        self.pause = 0
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.times.append(time.monotonic())
                collector.heads.append((self.path, dict(self.headers)))
                time.sleep(collector.pause)
                status, headers, answer = collector.answers.pop(0) if collector.answers else (200, {}, b"")
                if status == 200:
                    collector.messages.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(status)
                for name, text in {"Content-Type": "application/x-protobuf", **headers}.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        return [
            span
            for message in self.messages
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector():
    c = Collector()
    yield c
    c.close()


def otlp(collector, **more):
    return {"otlp": {"endpoint": collector.url, "sample": 1, "interval_ns": 20_000_000, **more}}


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_spans_reach_a_collector(gateway, collector):
    gw = gateway()
    gw.plan(
        linear_endpoint(gw),
        access_log=LOG,
        telemetry=otlp(collector, headers_env="COLLECTOR_HEADERS", service="fraud"),
    )
    gw.start("--loops", "1", env={"COLLECTOR_HEADERS": "x-key=s3cret, x-other = a b"})
    before = time.time_ns()
    for body, name in ((infer_body([[1, 2]] * 3), "good"), ({"inputs": 3}, "bad")):
        gw.request(
            "POST",
            "/v2/models/m/infer",
            body,
            {"X-Request-Id": name, "traceparent": PARENT, "tracestate": "a=1,b@v=2"},
        )
    spans = wait_for(lambda: len(collector.spans()) == 4 and collector.spans())
    after = time.time_ns()
    path, head = collector.heads[0]
    assert path == "/v1/traces" and head["Content-Type"] == "application/x-protobuf"
    assert head["x-key"] == "s3cret" and head["x-other"] == "a b" and "s3cret" not in gw.log()
    resource = collector.messages[0].resource_spans[0]
    assert attributes(resource.resource)["service.name"] == "fraud"
    assert resource.scope_spans[0].scope.name == "weir.gateway"

    server, queue_, compute, refused = spans
    assert {s.trace_id.hex() for s in spans} == {TRACE} and {s.trace_state for s in spans} == {"a=1,b@v=2"}
    assert len({s.span_id for s in spans}) == 4 and all(len(s.span_id) == 8 and any(s.span_id) for s in spans)
    assert (server.name, server.kind, server.parent_span_id.hex()) == ("infer m", Span.SPAN_KIND_SERVER, SPAN)
    assert server.flags == 0x301  # sampled; its parent is of another process
    assert (queue_.name, compute.name) == ("queue", "compute")
    for child in (queue_, compute):
        assert child.parent_span_id == server.span_id and child.kind == Span.SPAN_KIND_INTERNAL
    assert before <= server.start_time_unix_nano == queue_.start_time_unix_nano
    assert queue_.end_time_unix_nano == compute.start_time_unix_nano
    assert compute.start_time_unix_nano < compute.end_time_unix_nano == server.end_time_unix_nano <= after
    told = attributes(server)
    assert told["weir.endpoint"] == "m" and told["weir.version"] == "1" and told["weir.rows"] == 3
    assert told["weir.request_id"] == "good" and told["http.response.status_code"] == 200
    assert attributes(compute)["weir.batch_rows"] == 3
    assert server.status.code == 0 and "error.type" not in told
    assert attributes(refused)["error.type"] == "INVALID_ARGUMENT" and refused.status.code == 0
    lines = {x["request_id"]: x for x in lines_of(gw.folder / "access.log") if "request_id" in x}
    assert lines["good"]["span_id"] == server.span_id.hex() and lines["good"]["trace_id"] == TRACE


def test_which_traces_are_sent(gateway, collector):
    gw = gateway()
    gw.plan(linear_endpoint(gw), telemetry=otlp(collector, sample=0))
    gw.start("--loops", "1")
    infer = lambda **headers: gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), headers)  # noqa: E731
    infer()  # begins here: none of these
    infer(traceparent=PARENT[:-1] + "0")  # the caller says no
    infer(traceparent=PARENT.upper())  # is none, so it begins here
    infer(traceparent=PARENT)
    wait_for(lambda: collector.spans())
    gw.stop()
    assert {s.trace_id.hex() for s in collector.spans()} == {TRACE} and len(collector.spans()) == 3

    share = gateway()
    share.plan(linear_endpoint(share), telemetry=otlp(collector, sample=0.5))
    share.start("--loops", "1")
    collector.messages.clear()
    with httpx.Client(base_url=f"http://{share.address}") as client:
        for _ in range(200):
            client.post("/v2/models/m/infer", json=infer_body([[1, 2]]))
    share.stop()  # sends what it has
    roots = [s for s in collector.spans() if s.kind == Span.SPAN_KIND_SERVER]
    assert 60 < len(roots) < 140 and all(not r.parent_span_id and r.flags == 0x101 for r in roots)
    assert len({r.trace_id for r in roots}) == len(roots)


def test_a_collector_that_is_busy_refuses_or_is_gone_harms_nobody(gateway, collector):
    gw = gateway()
    gw.plan(linear_endpoint(gw), telemetry=otlp(collector, queue=16, timeout_ns=2_000_000_000))
    gw.start("--loops", "1")
    infer = lambda: gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0]  # noqa: E731
    collector.answers += [(429, {"Retry-After": "1"}, b""), (503, {}, b"")]
    assert infer() == 200
    wait_for(lambda: len(collector.spans()) == 3)  # the same batch, asked for a third time
    first, second, third = collector.times
    assert 0.9 < second - first < 3 and 0.4 < third - second < 5
    assert value(samples(gw), "weir_trace_retries_total") == 2

    collector.answers += [(400, {}, b"")]
    assert infer() == 200
    wait_for(lambda: value(samples(gw), "weir_traces_dropped_total", reason="refused") == 1)
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    collector.answers += [(200, {}, partial.SerializeToString())]
    assert infer() == 200
    wait_for(lambda: value(samples(gw), "weir_trace_spans_rejected_total") == 2)

    collector.pause = 1.5
    start = time.monotonic()
    assert {infer() for _ in range(60)} == {200}
    assert time.monotonic() - start < 1.5
    wait_for(lambda: value(samples(gw), "weir_traces_dropped_total", reason="queue_full") >= 20)
    collector.pause = 0
    taken = len(collector.spans())
    wait_for(lambda: len(collector.spans()) > taken)
    found = samples(gw)
    assert value(found, "weir_traces_exported_total") >= 3

    collector.close()
    assert {infer() for _ in range(5)} == {200}
    wait_for(lambda: "otlp.failed" in gw.log())
    start = time.monotonic()
    gw.stop()
    assert time.monotonic() - start < 5
    collector.close = lambda: None


@pytest.mark.parametrize("exports", [True, False])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_trace_goes_on_to_a_remote_server(gateway, collector, exports, protocol):
    far = gateway()
    far.plan(linear_endpoint(far), access_log=LOG)
    far.start("--loops", "1")
    near = gateway()
    there = {"kind": "remote", "url": f"{protocol}://{far.address}", "model": "m", "allow_private": True}
    artifact = near.blob(json.dumps(there).encode())
    part = linear_endpoint(near)
    part["versions"] = [version(artifact, platform="remote")]
    near.plan(part, **({"telemetry": otlp(collector)} if exports else {}))
    near.start("--loops", "1")
    headers = {"traceparent": PARENT, "tracestate": "a=1"}
    got = near.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]), headers)
    assert got[0] == 200, got
    (line,) = wait_for(lambda: [x for x in lines_of(far.folder / "access.log") if x.get("form")])
    assert line["trace_id"] == TRACE
    if not exports:
        assert line["span_id"] == SPAN  # told on as it came
        return
    spans = {s.name: s for s in wait_for(lambda: len(collector.spans()) == 4 and collector.spans())}
    call = spans["call"]
    assert line["span_id"] == call.span_id.hex() and call.kind == Span.SPAN_KIND_CLIENT
    assert call.parent_span_id == spans["compute"].span_id and not spans["compute"].links
    assert spans["compute"].parent_span_id == spans["infer m"].span_id
