# SPDX-License-Identifier: Apache-2.0
"""Repeated request ids: one run, one answer, byte for byte; for its own caller alone, for a time."""

import json
import re
import threading
import time

import grpc
import httpx
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from gateway import Control, Gateway, endpoint, float_columns, infer_body, responses, signature, version
from test_auth import PEPPER, key, key_text, plan_with
from tritonclient.grpc import service_pb2

LINEAR = models.linear([1, 2], 0.5)
SIGN = signature(LINEAR, float_columns(2), value="score")
WINDOW = {"window_ns": 60 * 10**9, "bytes_max": 1 << 20, "entries_max": 1000}
PLACES = pytest.mark.parametrize("place", ["loops", "crew"])


@pytest.fixture
def gw(weir_binary, tmp_path):
    gateway = Gateway(tmp_path / "gw")
    yield gateway
    gateway.stop()


def serve(gw, place="loops", model=LINEAR, sign=SIGN, window=WINDOW, **more):
    gw.plan(endpoint("m", [version(gw.blob(model))], sign, compute={"place": place}, idempotency=window,
                     **more), loops=2)
    return gw.start()


def ask(gw, row, name, **headers):
    """(status, headers in small letters, body) of one request with that id."""
    body = {"features": {"f0": row[0], "f1": row[1]}, "metadata": {"request_id": name}}
    status, head, text = gw.request("POST", "/v1/predict/m", body, headers)
    return status, {k.lower(): v for k, v in head.items()}, text


def count(gw, result):
    return gw.metric("weir_idempotency_total", endpoint="m", result=result)


def runs(gw):
    return gw.metric("weir_requests_total", endpoint="m", result="ok")


@PLACES
def test_a_repeat_gets_the_same_bytes_and_no_second_run(gw, place):
    serve(gw, place)
    status, head, first = ask(gw, [1, 2], "order-1")
    assert status == 200 and "idempotent-replayed" not in head
    for _ in range(20):  # over both loops
        status, head, again = ask(gw, [1, 2], "order-1")
        assert (status, again, head["idempotent-replayed"]) == (200, first, "true")
        assert head["x-request-id"] == "order-1"
    other = ask(gw, [1, 2], "order-2")
    assert other[0] == 200 and "idempotent-replayed" not in other[1]
    assert (runs(gw), count(gw, "stored"), count(gw, "replayed")) == (2, 2, 20)
    assert gw.metric("weir_idempotency_entries", endpoint="m") == 2
    gw.stop()  # each request has one record
    kept = b"".join(p.read_bytes() for p in (gw.state / "records").glob("*") if p.is_file())
    assert len(re.findall(rb"order-1", kept)) == 1


@PLACES
def test_an_id_is_of_one_request(gw, place):
    serve(gw, place)
    assert ask(gw, [1, 2], "a")[0] == 200
    status, head, text = ask(gw, [1, 3], "a")
    said = json.loads(text)
    assert status == 409 and said["code"] == "ALREADY_EXISTS" and "'a' was used for another" in said["error"]
    assert "retry-after" not in head
    # The same row in the words of another protocol is another request.
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]], id="a"))[0] == 409
    assert count(gw, "conflict") == 2 and runs(gw) == 1


def test_requests_without_an_id_run_each_time(gw):
    serve(gw)
    body = {"features": {"f0": 1, "f1": 2}}
    for _ in range(3):
        status, head, _ = gw.request("POST", "/v1/predict/m", body)
        assert status == 200 and "Idempotent-Replayed" not in head
    assert runs(gw) == 3 and count(gw, "stored") == 0
    got = [gw.request("POST", "/v1/predict/m", body, {"X-Request-Id": "by-header"}) for _ in range(2)]
    assert got[0][2] == got[1][2] and got[1][1]["Idempotent-Replayed"] == "true" and runs(gw) == 4


def test_without_a_window_repeats_run(gw):
    serve(gw, window=None)
    first, again = ask(gw, [1, 2], "a"), ask(gw, [1, 3], "a")
    assert first[0] == again[0] == 200 and first[2] != again[2] and runs(gw) == 2


def test_tensors_binary_answers_and_pipelines(gw):
    serve(gw)
    body = infer_body([[1, 2]], id="bin", parameters={"binary_data_output": True})
    first, again = (gw.request("POST", "/v2/models/m/infer", body) for _ in range(2))
    assert first[2] == again[2] and again[1]["Idempotent-Replayed"] == "true"
    assert again[1]["Inference-Header-Content-Length"] == first[1]["Inference-Header-Content-Length"]
    assert again[1]["Content-Type"] == "application/octet-stream"
    data = b""
    names = ["p0", "bin2", "p1", "bin2", "p2", "bin2"]
    for name in names:
        text = json.dumps(infer_body([[1, 2]], id=name)).encode()
        data += b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text)
        data += text
    got = responses(gw.raw(data))
    ids = [json.loads(t).get("id") if s == 200 else json.loads(t)["code"] for s, t in got]
    # Within one turn the first is still under way when the others are read.
    assert [want if said != "ABORTED" else said for want, said in zip(names, ids, strict=True)] == ids
    assert ids[0::2] == ["p0", "p1", "p2"] and ids[1] == "bin2"


@PLACES
def test_a_failure_is_forgotten(gw, place):
    brittle = models.brittle((4, 4), fails_above=50)
    sign = signature(brittle, float_columns(2), label="label", probabilities="probabilities",
                     classes=["0", "1"], positive=1, threshold=0.5)
    serve(gw, place, brittle, sign)
    assert [ask(gw, [1, 100], "a")[0] for _ in range(2)] == [500, 500]
    assert ask(gw, [1, "x"], "a")[0] == 400
    assert ask(gw, [1, 2], "a")[0] == 200 and count(gw, "stored") == 1
    assert gw.metric("weir_requests_total", endpoint="m", result="failed") == 2


def test_while_the_first_is_under_way(gw):
    lengthy = models.lengthy()
    sign = signature(lengthy, float_columns(3), label="label", probabilities="probabilities",
                     classes=["0", "1"], positive=1, threshold=0.5)
    serve(gw, "crew", lengthy, sign, timeout_ns=20 * 10**9)
    body = {"features": {"f0": 1, "f1": 2, "f2": 10}, "metadata": {"request_id": "long"}}
    first = []
    thread = threading.Thread(
        target=lambda: first.append(gw.request("POST", "/v1/predict/m", body, timeout=30)))
    thread.start()
    end = time.monotonic() + 10
    while not count(gw, "in_flight") and time.monotonic() < end:
        status, head, text = gw.request("POST", "/v1/predict/m", body, timeout=30)
        if status == 200:
            break
        assert status == 409 and json.loads(text)["code"] == "ABORTED" and head["Retry-After"] == "1"
        other = {**body, "features": {**body["features"], "f0": 3}}
        assert json.loads(gw.request("POST", "/v1/predict/m", other)[2])["code"] == "ALREADY_EXISTS"
    assert count(gw, "in_flight") >= 1
    thread.join()
    assert first[0][0] == 200
    again = gw.request("POST", "/v1/predict/m", body)
    assert again[2] == first[0][2] and again[1]["Idempotent-Replayed"] == "true" and runs(gw) == 1


def test_the_window_passes_and_is_bounded(gw):
    serve(gw, window={"window_ns": 2 * 10**9, "bytes_max": 1 << 20, "entries_max": 5})
    for i in range(8):
        assert ask(gw, [1, 2], f"a{i}")[0] == 200
    assert gw.metric("weir_idempotency_entries", endpoint="m") == 5 and count(gw, "evicted") == 3
    assert "idempotent-replayed" in ask(gw, [1, 2], "a7")[1]
    assert "idempotent-replayed" not in ask(gw, [1, 2], "a0")[1]
    time.sleep(2.1)
    assert "idempotent-replayed" not in ask(gw, [1, 2], "a7")[1]
    assert ask(gw, [5, 5], "a6")[0] == 200  # another request may have the id now


def test_an_id_is_its_callers_own(gw):
    (gw.state / "keys").mkdir()
    (gw.state / "keys/pepper").write_text(PEPPER)
    gw.settings = {"listen": gw.address}
    gw.parts = [endpoint("m", [version(gw.blob(LINEAR))], SIGN, idempotency=WINDOW)]
    plan_with(gw, mode="required", keys={f"{n:08x}": key(n, tenant="t") for n in (1, 2)})
    gw.start()
    mine = {"X-API-Key": key_text(1)}
    theirs = {"X-API-Key": key_text(2)}
    first = ask(gw, [1, 2], "a", **mine)
    assert first[0] == 200
    other = ask(gw, [3, 4], "a", **theirs)  # no conflict, nothing of the other's answer
    assert other[0] == 200 and "idempotent-replayed" not in other[1] and other[2] != first[2]
    assert ask(gw, [1, 2], "a", **mine)[2] == first[2]
    assert ask(gw, [3, 4], "a", **theirs)[2] == other[2]
    assert ask(gw, [3, 4], "a", **mine)[0] == 409


def test_a_window_outlives_a_plan(gw):
    control = Control(gw.state)
    serve(gw)
    control.accept()
    first = ask(gw, [1, 2], "a")
    part = endpoint("m", [version(gw.blob(LINEAR), number=2)], SIGN, idempotency=WINDOW)
    assert "error" not in control.swap(gw.plan(part, loops=2))
    assert json.loads(ask(gw, [1, 2], "b")[2])["model_version"] == "2"
    assert ask(gw, [1, 2], "a")[2] == first[2]
    control.close()


@PLACES
def test_over_http2_and_grpc(gw, place):
    serve(gw, place)
    with httpx.Client(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
        url, body = "/v2/models/m/infer", infer_body([[1, 2]], id="h2")
        first, again = client.post(url, json=body), client.post(url, json=body)
        assert first.content == again.content and again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert client.post("/v2/models/m/infer", json=infer_body([[1, 3]], id="h2")).status_code == 409
    with triton.InferenceServerClient(gw.address) as client:
        x = triton.InferInput("x", [1, 2], "FP32")
        request = service_pb2.ModelInferRequest(model_name="m", id="g")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(np.array([[1, 2]], np.float32).tobytes())
        raw = request.SerializeToString()
        got, sent = [], 0
        client.start_stream(lambda result, error: got.append((result, error)))
        for value in (1, 1, 2):
            x.set_data_from_numpy(np.array([[value, 2]], np.float32))
            client.async_stream_infer("m", [x], request_id="s")
            sent += 1
            end = time.monotonic() + 10
            while len(got) < sent and time.monotonic() < end:
                time.sleep(0.01)
        client.stop_stream()
    assert [e is None for _, e in got] == [True, True, False] and "another request" in str(got[2][1])
    assert got[0][0].get_response() == got[1][0].get_response()
    with grpc.insecure_channel(gw.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, lambda b: b)
        first, _ = call.with_call(raw)
        again, about = call.with_call(raw)
        assert first == again
        assert ("idempotent-replayed", "true") in [tuple(m) for m in about.initial_metadata()]
        message = service_pb2.ModelInferRequest.FromString(raw)
        message.raw_input_contents[0] = np.array([[9, 9]], np.float32).tobytes()
        with pytest.raises(grpc.RpcError) as caught:
            call(message.SerializeToString())
        assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert runs(gw) == 3
