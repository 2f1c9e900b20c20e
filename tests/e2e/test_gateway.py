# SPDX-License-Identifier: Apache-2.0
"""The gateway over real sockets: its protocols with the clients that people have, what it refuses and
how, and what it keeps when it is stopped, killed, or given a plan that cannot be served."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib

import models
import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
from gateway import (
    Control,
    Gateway,
    endpoint,
    float_columns,
    infer_body,
    read_all,
    responses,
    signature,
    version,
)
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

LINEAR = models.linear([1, 2], 0.5)
TRITON_TYPES = {
    "BOOL": bool,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}


def linear_endpoint(gw, name="m", weights=(1, 2), **more):
    model = models.linear(list(weights), 0.5)
    return endpoint(
        name, [version(gw.blob(model))], signature(model, float_columns(len(weights)), value="score"), **more
    )


def slow_model(rounds=3_000_000):
    """x [batch, 2] -> y, after a loop that ONNX Runtime can be told to leave."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "one"], ["v2"])],
        "body",
        [
            models.value("i", TensorProto.INT64),
            models.value("c", TensorProto.BOOL),
            models.value("v", TensorProto.FLOAT, "batch", 2),
        ],
        [models.value("c2", TensorProto.BOOL), models.value("v2", TensorProto.FLOAT, "batch", 2)],
    )
    numbers = [
        models.numpy_helper.from_array(np.int64(rounds), "n"),
        models.numpy_helper.from_array(np.bool_(True), "yes"),
        models.numpy_helper.from_array(np.float32(1), "one"),
    ]
    return models.onnx_bytes(
        [helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=body)],
        [models.value("x", TensorProto.FLOAT, "batch", 2)],
        [models.value("y", TensorProto.FLOAT, "batch", 2)],
        numbers,
    )


def text_labels():
    """x FP32 [batch, 1] -> label strings [batch], score FP32 [batch, 1]: the form of a classifier."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node(
            "LabelEncoder",
            ["i"],
            ["l"],
            domain="ai.onnx.ml",
            keys_int64s=[0, 1],
            values_strings=["ham", "spam"],
            default_string="?",
        ),
        helper.make_node("Reshape", ["l", "flat"], ["label"]),
        helper.make_node("Identity", ["x"], ["score"]),
    ]
    return models.onnx_bytes(
        nodes,
        [models.value("x", TensorProto.FLOAT, "batch", 1)],
        [
            models.value("label", TensorProto.STRING, "batch"),
            models.value("score", TensorProto.FLOAT, "batch", 1),
        ],
        [models.numpy_helper.from_array(np.int64([-1]), "flat")],
    )


@pytest.fixture
def gateway(tmp_path, weir_binary, request):
    made = []

    def make():
        made.append(Gateway(tmp_path / f"gateway{len(made)}"))
        return made[-1]

    yield make
    for gw in made:
        failed = getattr(request.node, "failed", False)
        try:
            gw.stop()
        finally:
            if failed:
                print(gw.log())


@pytest.fixture(scope="module")
def served(tmp_path_factory, weir_binary):
    """One gateway with models of many kinds, for the tests that change nothing."""
    gw = Gateway(tmp_path_factory.mktemp("served") / "g")
    strings, two, labels, trained = (
        models.strings(),
        models.two_inputs(),
        text_labels(),
        models.gbm(4, 10, 3, 2000),
    )
    parts = [
        linear_endpoint(gw),
        endpoint("unready", [], None),
        endpoint(
            "strings",
            [version(gw.blob(strings))],
            signature(
                strings,
                [{"name": "t", "type": "string", "input": 0, "element": 0, "required": True}],
                label="code",
            ),
        ),
        endpoint("two", [version(gw.blob(two))], signature(two)),
        endpoint(
            "labels",
            [version(gw.blob(labels))],
            signature(labels, float_columns(1), label="label", classes=["ham", "spam"]),
        ),
        endpoint(
            "gbm",
            [version(gw.blob(trained.model))],
            signature(
                trained.model,
                float_columns(4, min=-100, max=100),
                label="label",
                probabilities="probabilities",
                classes=["0", "1"],
                positive=1,
                threshold=0.5,
            ),
        ),
    ]
    for name, element in ELEMENTS.items():
        model = models.identity(3, element)
        parts.append(endpoint(f"id-{name}", [version(gw.blob(model))], signature(model)))
    gw.plan(*parts)
    gw.trained = trained
    gw.start()
    yield gw
    gw.stop()


@pytest.fixture(scope="module")
def client(served):
    with triton.InferenceServerClient(served.address) as c:
        yield c


# --- The Open Inference Protocol ---------------------------------------------------------------------


def test_server_and_model_metadata(served, client):
    assert client.is_server_live()
    assert not client.is_server_ready()  # one endpoint has no version yet
    assert "unready" in served.json("GET", "/readyz", status=503)["reason"]
    assert client.is_model_ready("m") and client.is_model_ready("m", "1")
    assert not client.is_model_ready("m", "7") and not client.is_model_ready("unready")
    assert not client.is_model_ready("nobody")
    about = client.get_server_metadata()
    assert about["name"] == "weir" and "binary_tensor_data" in about["extensions"]
    meta = client.get_model_metadata("two")
    assert [t["datatype"] for t in meta["inputs"]] == ["FP32", "INT64"]
    assert meta["versions"] == ["1"] and meta["platform"] == "onnxruntime_onnx"
    with pytest.raises(triton.InferenceServerException, match="has no version 7"):
        client.get_model_metadata("m", "7")
    assert set(served.json("GET", "/v2/models")["models"]) >= {"m", "two", "gbm"}


@pytest.mark.parametrize("datatype", ELEMENTS)
@pytest.mark.parametrize("binary", [False, True])
def test_every_datatype(client, datatype, binary):
    if datatype == "FP16" and not binary:
        pytest.skip("FP16 has no JSON form in the protocol")
    kind = TRITON_TYPES[datatype]
    rows = np.array([[0, 1, 1], [1, 0, 1]], dtype=kind)
    if datatype not in ("BOOL", "FP16"):
        info = np.finfo(kind) if np.issubdtype(kind, np.floating) else np.iinfo(kind)
        rows[0, :2] = [info.min, info.max]
    tensor = triton.InferInput("x", rows.shape, datatype)
    tensor.set_data_from_numpy(rows, binary_data=binary)
    got = client.infer(
        f"id-{datatype}",
        [tensor],
        request_id="r-1",
        outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
    )
    assert got.get_response()["id"] == "r-1"
    np.testing.assert_array_equal(got.as_numpy("y"), rows)


@pytest.mark.parametrize("binary", [False, True])
def test_texts(client, binary):
    rows = np.array(["yes", "no", "täglich", "", "x" * 5000], dtype=np.object_)
    tensor = triton.InferInput("x", rows.shape, "BYTES")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    assert client.infer("strings", [tensor]).as_numpy("code").tolist() == [1, 0, -1, -1, -1]


def test_text_outputs_of_joined_requests(served):
    """Requests that share a run get their own texts, also where the engine allocates the outputs."""
    bodies = [json.dumps(infer_body([[i % 2]] * (1 + i % 3))) for i in range(40)]
    data = b"".join(
        f"POST /v2/models/labels/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(b)}\r\n\r\n{b}".encode()
        for b in bodies
    )
    answers = responses(served.raw(data))
    assert [status for status, _ in answers] == [200] * 40
    for i, (_, body) in enumerate(answers):
        outputs = {o["name"]: o["data"] for o in json.loads(body)["outputs"]}
        assert outputs["label"] == [["ham", "spam"][i % 2]] * (1 + i % 3)
        assert outputs["score"] == [i % 2] * (1 + i % 3)
    assert served.json("POST", "/v1/predict/labels", {"features": {"f0": 1}})["prediction"] == "spam"


def test_two_inputs_outputs_and_classification(served, client):
    a, b = triton.InferInput("a", [2], "FP32"), triton.InferInput("b", [2], "INT64")
    a.set_data_from_numpy(np.float32([0.5, 1.5])), b.set_data_from_numpy(np.int64([1, 2]), binary_data=False)
    assert client.infer("two", [a, b]).as_numpy("sum").tolist() == [1.5, 3.5]
    rows = served.trained.rows[:2]
    x = triton.InferInput("x", rows.shape, "FP32")
    x.set_data_from_numpy(rows)
    chosen = client.infer("gbm", [x], outputs=[triton.InferRequestedOutput("label")]).get_response()
    assert [o["name"] for o in chosen["outputs"]] == ["label"]
    top = client.infer(
        "gbm", [x], outputs=[triton.InferRequestedOutput("probabilities", class_count=1, binary_data=False)]
    )
    assert len(top.get_response()["outputs"][0]["data"]) == 2


def test_versions_are_called_by_number(gateway):
    gw = gateway()
    other = models.linear([10, 20])
    gw.plan(
        endpoint("m", [version(gw.blob(LINEAR)), version(gw.blob(other), 2, 0, "old")], signature(LINEAR))
    )
    gw.start()
    for path, want in (("", 5.5), ("/versions/1", 5.5), ("/versions/2", 50)):
        got = gw.json("POST", f"/v2/models/m{path}/infer", infer_body([[1, 2]]))
        assert got["outputs"][0]["data"] == [want]
    assert gw.request("POST", "/v2/models/m/versions/9/infer", infer_body([[1, 2]]))[0] == 404


# --- By field name -----------------------------------------------------------------------------------


def test_predict_gives_the_numbers_of_the_model(served):
    rows, session = served.trained.rows[:16], onnxruntime.InferenceSession(served.trained.model)
    labels, probabilities = session.run(None, {"x": rows})
    named = [{f"f{i}": float(v) for i, v in enumerate(row)} for row in rows]
    listed = served.json("POST", "/v1/predict/gbm", {"features": named})["predictions"]
    inferred = served.json("POST", "/v2/models/gbm/infer", infer_body(rows.tolist()))["outputs"]
    inferred = {o["name"]: o["data"] for o in inferred}
    np.testing.assert_allclose(
        np.array(inferred["probabilities"]).reshape(-1, 2), probabilities, rtol=0, atol=1e-6
    )
    assert inferred["label"] == labels.tolist()
    for row, one in zip(named, listed, strict=True):
        single = served.json("POST", "/v1/predict/gbm", {"features": row, "metadata": {"request_id": "q"}})
        assert {k: single[k] for k in one} == one
        assert single["metadata"] == {"request_id": "q", "endpoint": "gbm"} and single["model_version"] == "1"
    np.testing.assert_allclose([p["score"] for p in listed], probabilities[:, 1], rtol=0, atol=1e-6)
    assert [p["prediction"] for p in listed] == [str(label) for label in labels]


def test_predict_names_all_offending_fields(served):
    got = served.json(
        "POST", "/v1/predict/gbm", {"features": {"f0": "x", "f1": 1e9, "nope": 1, "f2": 1}}, status=400
    )
    assert {f["field"]: f["problem"] for f in got["fields"]} == {
        "f0": "wrong_type",
        "f1": "out_of_range",
        "nope": "unknown",
        "f3": "missing",
    }
    assert served.request("POST", "/v1/predict", {"features": {}})[0] == 400  # which of the endpoints?
    assert served.request("POST", "/v1/predict/two", {"features": {}})[0] == 501
    assert served.json("GET", "/v1/schema/gbm")["required"] == ["f0", "f1", "f2", "f3"]


BAD = {
    "wrong shape": infer_body([[1, 2, 3]]),
    "wrong datatype": infer_body([[1, 2]], datatype="FP64"),
    "wrong name": infer_body([[1, 2]], name="y"),
    "no inputs": {"inputs": []},
    "no rows": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 2], "data": []}]},
    "too few elements": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1]}]},
    "a text": infer_body([["1", "2"]]),
    "not a number": '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[NaN,1]}]}',
    "infinity": '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[Infinity,1]}]}',
    "huge": '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1e400,1]}]}',
    "huge shape": '{"inputs":[{"name":"x","datatype":"FP32","shape":[9223372036854775807,2],"data":[1]}]}',
    "negative shape": '{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],"data":[1,2]}]}',
    "deep": "[" * 100_000,
    "truncated": '{"inputs":[{"name":"x","dataty',
    "empty": "",
    "not UTF-8": b'{"id":"\xff\xfe","inputs":[]}',
    "duplicate key": '{"id":"a","id":"b","inputs":[]}',
    "trailing": json.dumps(infer_body([[1, 2]])) + "x",
    "unknown output": infer_body([[1, 2]], outputs=[{"name": "nope"}]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_requests_are_refused_with_a_reason(served, what):
    status, headers, text = served.request("POST", "/v2/models/m/infer", BAD[what])
    assert 400 <= status < 500 and json.loads(text)["error"] and headers["Content-Type"] == "application/json"
    assert json.loads(text)["code"] in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")
    assert served.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]))["outputs"][0]["data"] == [5.5]


def test_limits_and_unknown_things(served):
    assert served.request("POST", "/v2/models/m/infer", infer_body([[1, 2]] * 257))[0] == 413
    assert (
        "unknown model"
        in served.json("POST", "/v2/models/x/infer", infer_body([[1, 2]]), status=404)["error"]
    )
    assert "not ready" in served.json("POST", "/v2/models/unready/infer", {}, status=503)["error"]
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("DELETE", "/v2", 405, "UNIMPLEMENTED"),
        ("GET", "/v2/models/x", 404, "NOT_FOUND"),
        ("GET", "/v2/models/unready", 503, "UNAVAILABLE"),
        ("POST", "/v1/predict/x", 404, "NOT_FOUND"),
        ("GET", "/v2/" + "x" * 9000, 414, "RESOURCE_EXHAUSTED"),
    ):
        got, headers, text = served.request(method, path)
        answer = json.loads(text)
        assert (got, answer["code"], set(answer)) == (status, code, {"error", "code"}), (path, answer)
        assert headers["Content-Type"] == "application/json"
    status, headers, body = served.request("HEAD", "/v2")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 10
    for length in ("99999", "-1", "x", ""):
        assert (
            served.request(
                "POST",
                "/v2/models/m/infer",
                infer_body([[1, 2]]),
                {"Inference-Header-Content-Length": length},
            )[0]
            == 400
        )


def test_an_endpoint_may_be_stricter_about_bodies(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw, body_bytes_max=400))
    gw.start()
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]] * 200))[0] == 413
    assert gw.request("POST", "/v1/predict/m", " " * 401)[0] == 413


def test_feedback(served):
    def send(body, status=202):
        return served.json("POST", "/v1/feedback", body, status=status)

    assert send({"request_id": "a", "label": 1}) == {"accepted": 1}
    assert send(
        {
            "feedback": [
                {"request_id": "a", "label": "spam"},
                {"request_id": "b", "rating": 5, "comment": "ü"},
                {"request_id": "c", "outcome": "click", "value": 1.5},
            ]
        }
    ) == {"accepted": 3}
    assert send({"request_id": "a", "label": True, "comment": None}) == {"accepted": 1}
    for wrong, why in (
        ({"label": 1}, "request_id"),
        ({"request_id": "a"}, "needs a label"),
        ({"request_id": "a", "lable": 1}, "did you mean 'label'"),
        ({"request_id": "a", "label": 1, "row": "3"}, "row"),
        ({"request_id": "a", "label": [1]}, "label"),
        ({"request_id": "a", "rating": 6}, "rating"),
        ({"request_id": "a", "outcome": "click", "value": "x"}, "value"),
        ({"request_id": "a", "label": 1, "event_time": "now"}, "event_time"),
        ({"feedback": [{"request_id": "a", "label": 1}, {"request_id": ""}]}, "feedback[1]"),
        ({"feedback": []}, "1 to 10000"),
        ([1], "object"),
        ({"request_id": "x" * 65, "label": 1}, "64"),
    ):
        answer = send(wrong, 400)
        assert why in answer["error"] and answer["code"] == "INVALID_ARGUMENT", wrong


def test_metrics_are_strict(served):
    text = served.request("GET", "/metrics")[2].decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert families["weir_requests"].type == "counter"
    assert families["weir_request_duration_seconds"].type == "histogram"
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    assert len(re.findall(r"^# TYPE (\S+)", text, re.M)) == len(set(re.findall(r"^# TYPE (\S+)", text, re.M)))
    if not shutil.which("promtool"):
        pytest.skip("promtool (Debian package prometheus) is not installed: parsed by prometheus_client only")
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


# --- HTTP over real sockets --------------------------------------------------------------------------

POST = "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n"
GOOD = json.dumps(infer_body([[1, 2]]))
SMUGGLED = {
    "two lengths": f"{POST}Content-Length: {len(GOOD)}\r\nContent-Length: 5\r\n\r\n{GOOD}",
    "length beside chunked": f"{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": f"POST /v2 HTTP/1.1\nHost: h\nContent-Length: {len(GOOD)}\n\n{GOOD}",
    "blank before the colon": f"{POST}Content-Length : {len(GOOD)}\r\n\r\n{GOOD}",
    "folded line": f"{POST}X-A: 1\r\n Content-Length: 5\r\n\r\n",
    "signed length": f"{POST}Content-Length: +5\r\n\r\n12345",
    "hexadecimal length": f"{POST}Content-Length: 0x5\r\n\r\n12345",
    "unknown coding": f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "no host": f"POST /v2 HTTP/1.1\r\nContent-Length: {len(GOOD)}\r\n\r\n{GOOD}",
    "NUL": f"{POST}X: a\0b\r\n\r\n",
    "wrong chunk": f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_ambiguous_framing_is_refused_and_closed(served, what):
    after = "GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
    got = served.raw((SMUGGLED[what] + after).encode())
    assert b"<reset>" not in got
    answers = responses(got)
    assert len(answers) == 1 and 400 <= answers[0][0] <= 501


def test_pipelining_is_answered_in_order(served):
    requests = []
    for i in range(100):
        body = json.dumps(infer_body([[i, 0]], id=f"n{i}"))
        requests.append(
            [
                f"{POST}Content-Length: {len(body)}\r\n\r\n{body}",
                "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
                f"GET /none/{i} HTTP/1.1\r\nHost: h\r\n\r\n",
                f"{POST}Content-Length: 1\r\n\r\n{{",
            ][i % 4 if i % 5 else 0]
        )
    answers = responses(served.raw("".join(requests).encode()))
    assert len(answers) == 100
    for i, (status, body) in enumerate(answers):
        kind = i % 4 if i % 5 else 0
        assert status == [200, 200, 404, 400][kind]
        if kind == 0:
            assert json.loads(body)["id"] == f"n{i}"
        if kind == 2:
            assert f"/none/{i}" in body.decode()


def test_many_pipelined_requests_of_a_slow_reader(served):
    """More answers than the output may hold: requests wait, none is lost, memory stays bounded."""
    body = json.dumps(infer_body([[1, 2]] * 200))
    one = f"{POST}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    with served.connect(30) as s:
        sender = threading.Thread(target=lambda: (s.sendall(one * 6000), s.shutdown(socket.SHUT_WR)))
        sender.start()
        time.sleep(0.7)
        answers = responses(read_all(s))
        sender.join()
    assert len(answers) == 6000 and {status for status, _ in answers} == {200}


def test_half_closed_clients_and_keep_alive(served):
    answers = responses(served.raw(f"{POST}Content-Length: {len(GOOD)}\r\n\r\n{GOOD}".encode()))
    assert [status for status, _ in answers] == [200]
    with served.connect() as s:
        for _ in range(3):
            s.sendall(f"{POST}Content-Length: {len(GOOD)}\r\n\r\n{GOOD}".encode())
            assert s.recv(65536).startswith(b"HTTP/1.1 200")
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"onnection: close" in read_all(s)
    start = time.monotonic()
    with served.connect() as s:
        s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"live" in read_all(s)
    assert time.monotonic() - start < 5


def test_chunked_bodies_and_expect(served):
    cut = [GOOD[:7], GOOD[7:20], GOOD[20:]]
    chunks = "".join(f"{len(p):x};a=b\r\n{p}\r\n" for p in cut)
    got = served.raw(f"{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nTrailer: x\r\n\r\n".encode())
    assert responses(got)[0][0] == 200
    with served.connect() as s:
        s.sendall(f"{POST}Expect: 100-continue\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode())
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(GOOD.encode())
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
        s.sendall(f"{POST}Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert s.recv(65536).startswith(b"HTTP/1.1 413")


def test_too_much_is_refused_and_the_client_learns_why(served):
    head = f"{POST}Content-Length: {64 << 20}\r\n\r\n".encode()
    with served.connect() as s:
        s.sendall(head)
        try:
            for _ in range(64):
                s.sendall(b"x" * (1 << 16))
                time.sleep(0.001)
        except OSError:
            pass
        assert s.recv(4096).startswith(b"HTTP/1.1 413")
    assert responses(served.raw(f"{POST}X: {'a' * 20000}\r\n\r\n".encode()))[0][0] == 431
    assert responses(served.raw(f"GET /{'a' * 9000} HTTP/1.1\r\nHost: h\r\n\r\n".encode()))[0][0] == 414


def test_a_silent_connection_gives_up_its_buffers_and_goes_on(served):
    """After a silence of two seconds; also one that has sent half a request keeps that half."""
    health = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    with served.connect() as silent, served.connect() as half:
        silent.sendall(health)
        half.sendall(health + health[:12])
        for s in (silent, half):
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(4)
        silent.sendall(health)
        half.sendall(health[12:])
        for s in (silent, half):
            assert s.recv(4096).startswith(b"HTTP/1.1 200")


def test_slow_clients_are_cut_off(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw), request_timeout_ns=10**9, idle_timeout_ns=2 * 10**9)
    gw.start()
    with gw.connect() as trickle, gw.connect() as idle, gw.connect() as busy:
        start, got = time.monotonic(), b""
        trickle.settimeout(0.05)
        while time.monotonic() < start + 4 and not got:
            try:
                trickle.send(b"P")
                got = trickle.recv(4096)
            except TimeoutError:
                pass
            busy.sendall(
                b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\nGET /heal"
            )  # always the start of a next one
            assert busy.recv(4096).startswith(b"HTTP/1.1 200")
            busy.sendall(b"thz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert busy.recv(4096).startswith(b"HTTP/1.1 200")
        assert got.startswith(b"HTTP/1.1 408") and time.monotonic() - start < 3
        assert b'"code":"DEADLINE_EXCEEDED"}' in got
        assert idle.recv(10) == b""


# --- Deadlines and overload --------------------------------------------------------------------------


def test_a_slow_model_meets_its_deadline(gateway):
    gw, model = gateway(), slow_model()
    gw.plan(
        endpoint("slow", [version(gw.blob(model))], signature(model), timeout_ns=150_000_000),
        linear_endpoint(gw),
    )
    gw.start()
    for _ in range(3):  # a slow run must not close the endpoint, nor one cancelled run spoil the next
        start = time.monotonic()
        status, _, text = gw.request("POST", "/v2/models/slow/infer", infer_body([[1, 2]]))
        assert status == 504 and b"deadline" in text and time.monotonic() - start < 1
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
    start = time.monotonic()
    body = infer_body([[1, 2]], parameters={"timeout": 30_000})
    assert gw.request("POST", "/v2/models/slow/infer", body)[0] == 504 and time.monotonic() - start < 0.14
    assert gw.metric("weir_requests_total", endpoint="slow", result="deadline") == 4


def test_overload_is_shed_at_once_and_goodput_stays(gateway):
    gw, model = gateway(), slow_model(2_000)
    gw.plan(endpoint("slow", [version(gw.blob(model))], signature(model), timeout_ns=100_000_000))
    gw.start()
    body = json.dumps(infer_body([[1, 2]] * 64)).encode()
    message = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    results, stop = [], time.monotonic() + 2

    def caller():
        with gw.connect() as s:
            while time.monotonic() < stop:
                start = time.monotonic()
                s.sendall(message)
                results.append((s.recv(1 << 16), time.monotonic() - start))

    threads = [threading.Thread(target=caller) for _ in range(40)]
    [t.start() for t in threads], [t.join() for t in threads]
    kinds = {
        k: [(d, s) for d, s in results if d.startswith(b"HTTP/1.1 " + k)] for k in (b"200", b"503", b"504")
    }
    assert len(results) == sum(map(len, kinds.values()))
    assert kinds[b"200"], "nothing was answered"
    assert all(b"Retry-After: 1" in d for d, _ in kinds[b"503"])
    assert max(s for _, s in results) < 2
    assert gw.request("POST", "/v2/models/slow/infer", infer_body([[1, 2]]))[0] == 200




def test_the_openapi_document_fits_what_is_said(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw))
    gw.start()
    document = gw.json("GET", "/v1/openapi/m")
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/v1/predict/m", "/v2/models/m/infer"}
    schemas = document["components"]["schemas"]

    def resolve(schema):
        if "$ref" in schema:
            return resolve(schemas[schema["$ref"].removeprefix("#/components/schemas/")])
        members = {name: resolve(v) for name, v in schema.get("properties", {}).items()}
        return {**schema, "properties": members}

    bodies = {"/v1/predict/m": {"features": {"f0": 1, "f1": 2}}, "/v2/models/m/infer": infer_body([[1, 2]])}
    for path, entry in document["paths"].items():
        request = resolve(entry["post"]["requestBody"]["content"]["application/json"]["schema"])
        answer = resolve(entry["post"]["responses"]["200"]["content"]["application/json"]["schema"])
        got = gw.json("POST", path, bodies[path])
        assert set(request["required"]) <= set(bodies[path]) <= set(request["properties"])
        assert set(answer["required"]) <= set(got) <= set(answer["properties"]), path
    assert schemas["Row"]["required"] and not schemas["Row"]["additionalProperties"]
    assert gw.request("GET", "/v1/openapi/none")[0] == 404



# --- Content codings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["loops", "crew"])
@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_bodies_may_be_compressed(gateway, how, place):
    gw = gateway()
    gw.plan(linear_endpoint(gw, compute={"place": place}))
    gw.start()
    with triton.InferenceServerClient(gw.address) as client:
        x = triton.InferInput("x", [250, 2], "FP32")
        x.set_data_from_numpy(np.tile(np.array([1, 2], np.float32), (250, 1)), binary_data=how == "gzip")
        got = client.infer("m", [x], request_compression_algorithm=how, response_compression_algorithm=how)
        assert got.as_numpy("score").ravel().tolist() == [5.5] * 250
    fold = {"gzip": gzip.compress, "deflate": zlib.compress}[how]
    unfold = {"gzip": gzip.decompress, "deflate": zlib.decompress}[how]
    body = fold(json.dumps(infer_body([[i / 3, 2] for i in range(256)], id="x" * 15000)).encode())
    status, headers, text = gw.request("POST", "/v2/models/m/infer", body,
                                       {"Content-Encoding": how, "Accept-Encoding": f"br, {how}"})
    assert status == 200 and headers["Content-Encoding"] == how
    answer = json.loads(unfold(text))
    assert answer["id"] == "x" * 15000 and len(answer["outputs"][0]["data"]) == 256
    plain = gw.request("POST", "/v2/models/m/infer", body, {"Content-Encoding": how})
    assert "Content-Encoding" not in plain[1] and json.loads(plain[2]) == answer


def test_what_unfolds_too_far_is_refused(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw), body_bytes_max=1 << 20)
    gw.start()
    bomb = gzip.compress(b" " * (100 << 20))
    for body, how, status in ((bomb, "gzip", 413), (b"junk", "gzip", 400), (bomb[:-9], "gzip", 413),
                              (gzip.compress(b"{}")[:-3], "gzip", 400), (b"{}", "br", 400)):
        got = gw.request("POST", "/v2/models/m/infer", body, {"Content-Encoding": how})
        assert got[0] in (status, 429) and "error" in json.loads(got[2]), (how, got)
    assert gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]))["outputs"][0]["data"] == [5.5]


# --- Crews: models too slow for the loops ------------------------------------------------------------


def slow_and_fast(gw, **more):
    model = slow_model(2_000)
    gw.plan(endpoint("slow", [version(gw.blob(model))], signature(model), timeout_ns=5_000_000_000, **more),
            linear_endpoint(gw))
    gw.start("--loops", "1")
    return model


def test_a_slow_model_does_not_delay_a_fast_one(gateway):
    gw = gateway()
    slow_and_fast(gw)
    body = infer_body([[1, 2]] * 8)
    start = time.monotonic()
    assert gw.request("POST", "/v2/models/slow/infer", body)[0] == 200
    alone = time.monotonic() - start
    stop, answers = threading.Event(), []

    def caller():
        while not stop.is_set():
            answers.append(gw.request("POST", "/v2/models/slow/infer", body)[0])

    threads = [threading.Thread(target=caller) for _ in range(6)]
    [t.start() for t in threads]
    times = []
    while len(answers) < 12:
        start = time.monotonic()
        assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
        times.append(time.monotonic() - start)
    stop.set()
    [t.join() for t in threads]
    assert set(answers) == {200}
    assert sorted(times)[len(times) // 2] < alone / 4, (alone, times)


def test_requests_that_wait_for_a_crew_share_a_run(gateway):
    gw = gateway()
    slow_and_fast(gw)
    bodies = [infer_body([[i, 2]]) for i in range(24)]
    want = [gw.json("POST", "/v2/models/slow/infer", body)["outputs"] for body in bodies]
    got = [None] * len(bodies)

    def caller(i):
        got[i] = gw.json("POST", "/v2/models/slow/infer", bodies[i])["outputs"]

    before = gw.metric("weir_batches_total")
    threads = [threading.Thread(target=caller, args=(i,)) for i in range(len(bodies))]
    [t.start() for t in threads], [t.join() for t in threads]
    assert got == want  # each its own rows
    assert gw.metric("weir_batches_total") - before < len(bodies)


def test_clients_and_plans_may_go_while_a_crew_works(gateway):
    gw = gateway()
    model = slow_and_fast(gw)
    message = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
    body = json.dumps(infer_body([[1, 2]] * 64)).encode()
    control = Control(gw.state)
    control.accept()
    for i in range(20):
        with gw.connect() as s:
            s.sendall(message % (len(body), body))
            if i % 4 == 3:  # the model is unloaded under the request
                more = {"rows_max": 256 - i}
                plan = gw.plan(endpoint("slow", [version(gw.blob(model))], signature(model), **more),
                               linear_endpoint(gw), current=False)
                assert not control.swap(plan).get("error")
    assert gw.request("POST", "/v2/models/slow/infer", infer_body([[1, 2]]))[0] == 200
    control.close()
    with gw.connect() as s:  # the gateway stops, but not without this answer
        s.sendall(message % (len(body), body))
        time.sleep(0.02)
        gw.stop()
        assert s.recv(1 << 16).startswith(b"HTTP/1.1 200")


# --- Plans -------------------------------------------------------------------------------------------


def test_a_plan_that_cannot_be_served_leaves_the_last_good_one(gateway):
    gw = gateway()
    good = gw.plan(linear_endpoint(gw))
    control = Control(gw.state)
    gw.start()
    assert control.accept()["plan"] == good
    corrupt = linear_endpoint(gw, weights=(7, 7))
    broken = {
        "missing blob": gw.plan({**linear_endpoint(gw), "versions": [version("0" * 64)]}, current=False),
        "not a model": gw.plan(
            {**linear_endpoint(gw), "versions": [version(gw.blob(b"junk"))]}, current=False
        ),
        "other signature": gw.plan(
            {**linear_endpoint(gw), "versions": [version(gw.blob(models.linear([1])))]}, current=False
        ),
        "weights": gw.plan(
            {**linear_endpoint(gw), "versions": [version(gw.blob(LINEAR), weight=1)]}, current=False
        ),
        "no such plan": "1" * 64,
        "no hash": "zz",
    }
    path = gw.blob_path(corrupt["versions"][0]["artifact"])
    broken["damaged"] = gw.plan(corrupt, current=False)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for what, plan in broken.items():
        answer = control.swap(plan)
        assert answer.get("error"), what
        assert gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]))["outputs"][0]["data"] == [5.5]
    # A start with a broken current plan serves the last good one, and says so to control.
    gw.stop()
    (gw.state / "plan/current").write_text(broken["missing blob"])
    gw.start()
    assert control.accept()["plan"] == good
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
    control.close()


def test_two_hundred_swaps_under_load(gateway):
    gw = gateway()
    other = models.linear([1, 2], 100)
    a, b = gw.blob(LINEAR), gw.blob(other)
    third = gw.blob(models.linear([1, 2], 200))

    def plan(i):
        share = (i * 50) % 10000
        second = third if i % 10 == 9 else b
        return gw.plan(
            endpoint(
                "m",
                [version(a, 1, 10000 - share), version(second, 2 + i % 2, share, "challenger")],
                signature(LINEAR),
            ),
            current=False,
        )

    plans = [plan(i) for i in range(200)]
    gw.plan(endpoint("m", [version(a)], signature(LINEAR)))
    control = Control(gw.state)
    gw.start()
    control.accept()
    body = json.dumps(infer_body([[1, 2]])).encode()
    message = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    done, times, wrong = threading.Event(), [], []

    def caller():
        with gw.connect() as s:
            while not done.is_set():
                start = time.monotonic()
                s.sendall(message)
                got = s.recv(1 << 16)
                times.append(time.monotonic() - start)
                if not got.startswith(b"HTTP/1.1 200"):
                    wrong.append(got)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    [t.start() for t in threads]
    start = time.monotonic()
    for name in plans:
        assert "error" not in control.swap(name)
    seconds = time.monotonic() - start
    done.set()
    [t.join() for t in threads]
    p99 = sorted(times)[int(len(times) * 0.99)]
    print(f"200 swaps in {seconds:.2f} s, {len(times)} requests, p99 {p99 * 1000:.2f} ms")
    assert not wrong and len(times) > 500
    assert p99 < 0.02
    control.close()


def test_sticky_keys_never_move_back(gateway):
    gw = gateway()
    a, b = gw.blob(LINEAR), gw.blob(models.linear([1, 2], 100))
    sign = signature(LINEAR, float_columns(2), value="score")
    plans = [
        gw.plan(
            endpoint("m", [version(a, 1, 10000 - w), version(b, 2, w, "challenger")], sign), current=w == 0
        )
        for w in (0, 100, 2500, 5000, 10000)
    ]
    control = Control(gw.state)
    gw.start()
    control.accept()
    moved = set()
    for plan in plans:
        assert control.swap(plan)["plan"] == plan
        now = set()
        for i in range(60):
            user = f"user {i}"
            ways = [
                gw.json(
                    "POST", "/v1/predict/m", {"features": {"f0": 1, "f1": 2}, "metadata": {"user_id": user}}
                )["model_version"],
                gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]], parameters={"user_id": user}))[
                    "model_version"
                ],
                gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]), {"X-User": user})[
                    "model_version"
                ],
            ]
            assert len(set(ways)) == 1, (user, ways)
            if ways[0] == "2":
                now.add(user)
        assert moved <= now
        moved = now
    assert len(moved) == 60
    control.close()


def test_a_shadow_never_fails_answers(gateway):
    gw, slow = gateway(), slow_model(100_000)
    fine = models.identity(2)
    gw.plan(
        endpoint(
            "m",
            [version(gw.blob(fine)), version(gw.blob(slow), 2, 0, "shadow", shadow=True)],
            signature(fine),
            timeout_ns=50_000_000,
        )
    )
    gw.start()
    times = []
    for _ in range(600):
        start = time.monotonic()
        assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
        times.append(time.monotonic() - start)
    assert gw.metric("weir_shadow_skipped_total", endpoint="m") > 0
    assert sorted(times)[300] < 0.05


# --- Records: what is promised about the disk --------------------------------------------------------


def records(gw):
    """The bytes of all segments: request ids lie in them as they came."""
    return b"".join(p.read_bytes() for p in sorted((gw.state / "records").glob("*")) if p.is_file())


def test_sigterm_under_load_loses_nothing(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw))
    gw.start()
    answered, resets = [], []

    def caller(k):
        i = 0
        try:
            with gw.connect() as s:
                while True:
                    body = json.dumps(infer_body([[1, 2]], id=f"id-{k}-{i:06}")).encode()
                    s.sendall(
                        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
                        % (len(body), body)
                    )
                    got = s.recv(1 << 16)
                    if not got.startswith(b"HTTP/1.1 200"):
                        resets.append(got)
                        return
                    answered.append(f"id-{k}-{i:06}")
                    i += 1
        except OSError as why:
            resets.append(why)

    threads = [threading.Thread(target=caller, args=(k,)) for k in range(4)]
    [t.start() for t in threads]
    time.sleep(0.7)
    assert gw.stop() == 0
    [t.join() for t in threads]
    kept = records(gw)
    found = set(re.findall(rb"id-\d-\d{6}", kept))
    assert len(answered) > 100
    assert {a.encode() for a in answered} == found


def test_a_durable_answer_is_on_disk(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw, durable_log=True))
    gw.start()
    for i in range(20):
        gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]], id=f"durable-{i:03}"))
        if i == 12:
            break
    gw.stop(signal.SIGKILL)
    assert len(set(re.findall(rb"durable-\d{3}", records(gw)))) == 13
    gw.start()  # what the dead process left open is recovered
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 200
    assert gw.stop() == 0


def test_durable_answers_are_refused_when_the_disk_is_full(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw, durable_log=True), linear_endpoint(gw, "plain"))
    gw.start(env={"WEIR_FILE_FAULT": "write:3:errno:28:sticky"})
    status, headers, text = gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))
    assert status == 503 and b"record" in text and headers["Retry-After"] == "1"
    assert gw.request("POST", "/v2/models/plain/infer", infer_body([[1, 2]]))[0] == 200
    end = time.monotonic() + 5
    while not gw.metric("weir_records_dropped_total", reason="disk"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert gw.stop() == 0


def test_what_stops_a_start_is_said_clearly(gateway):
    first, second, third = gateway(), gateway(), gateway()
    first.plan(linear_endpoint(first))
    first.start()
    second.address = first.address
    second.plan(linear_endpoint(second))
    second.spawn()
    assert second.process.wait(10) == 3 and "is in use" in second.log()
    # the same records folder, another port
    done = subprocess.run(
        first.command("--listen", "127.0.0.1:0"), capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 3 and str(first.process.pid) in done.stderr
    third.plan(linear_endpoint(third))
    done = subprocess.run(third.command("--listen", "nonsense"), capture_output=True, text=True, timeout=10)
    assert done.returncode != 0 and "nonsense" in done.stderr
    assert first.request("GET", "/healthz")[0] == 200


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root writes everywhere: a read-only folder cannot be made by mode"
)
def test_a_read_only_folder(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw))
    (gw.state / "records").mkdir()
    (gw.state / "records").chmod(0o500)
    gw.spawn()
    assert gw.process.wait(10) != 0 and "records" in gw.log()


def test_the_last_digest_reaches_control(gateway):
    gw = gateway()
    gw.plan(linear_endpoint(gw), digest_interval_ns=60 * 10**9)
    control = Control(gw.state)
    gw.start()
    control.accept()
    gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]))
    assert gw.stop() == 0
    time.sleep(0.2)
    assert control.digests
    control.close()


# --- Cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True])
def test_a_request_in_steady_state_allocates_nothing(gateway, alloc_count, weir_binary, told):
    gw, trained = gateway(), models.gbm(4, 10, 3, 2000)
    sign = signature(
        trained.model,
        float_columns(4),
        label="label",
        probabilities="probabilities",
        classes=["0", "1"],
        positive=1,
        threshold=0.5,
    )
    settings = {"access_log": {"path": "access.log", "sample": 1}} if told else {}
    gw.plan(endpoint("gbm", [version(gw.blob(trained.model))], sign), **settings)
    gw.start(env=alloc_count.env)
    row = [float(v) for v in trained.rows[0]]
    forms = [
        ("/v2/models/gbm/infer", infer_body([row])),
        ("/v2/models/gbm/infer", infer_body([row] * 20)),
        (
            "/v1/predict/gbm",
            {
                "features": {f"f{i}": v for i, v in enumerate(row)},
                "metadata": {"request_id": "r", "user_id": "u"},
            },
        ),
    ]
    messages = []
    for path, body in forms:
        text = json.dumps(body).encode()
        messages.append(
            b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(text), text)
        )
    pid = gw.process.pid
    with gw.connect() as s:

        def rounds(n):
            for i in range(n):
                s.sendall(messages[i % len(messages)])
                assert s.recv(1 << 16).startswith(b"HTTP/1.1 200")

        rounds(300)
        before = alloc_count.of(pid)
        rounds(600)
        own = alloc_count.own_since(before, pid, "weir-loop")
        after = alloc_count.of(pid)
    foreign = sum(t.foreign - before[tid].foreign for tid, t in after.items() if tid in before)
    print(f"600 requests: {own} own allocations on the loops, {foreign} of the libraries")
    assert own == 0, alloc_count.last_place(pid, "weir-loop", weir_binary)
