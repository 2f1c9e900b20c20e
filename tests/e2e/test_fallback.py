# SPDX-License-Identifier: Apache-2.0
"""What answers when the version chosen for a request fails, and how an answer says so."""

import json
import socket
import struct
import threading
import time

import httpx
import loop
import models
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from gateway import Gateway, endpoint, float_columns, infer_body, responses, signature, version

BRITTLE = models.brittle((4, 4, 0))  # fails where c is above 50
FINE = models.brittle((4, 4, 0), fails_above=1e9)
SIGN = signature(FINE, float_columns(3), label="label", probabilities="probabilities",
                 classes=["0", "1"], positive=1, threshold=0.5)
GOOD, BAD = [1, 1, 0], [1, 1, 100]
SLOW, LONG = models.lengthy(), [1, 1, 1000]
ANSWER = {"label": [0], "probabilities": [0.75, 0.25]}
YAML = loop.QUIET.replace("rollout: fast}", "rollout: fast, fallback: {chain: [{alias: baseline}]}}")
PLACES = pytest.mark.parametrize("place", ["loops", "crew"])


@pytest.fixture
def gw(weir_binary, tmp_path):
    gateway = Gateway(tmp_path / "gw")
    yield gateway
    gateway.stop()


def serve(gw, place, versions, fallback, start=True, **more):
    made = [version(gw.blob(model), number=n, weight=weight, arm=arm)
            for n, (model, weight, arm) in enumerate(versions, 1)]
    gw.plan(endpoint("m", made, SIGN, compute={"place": place}, fallback=fallback, **more))
    return gw.start() if start else gw


def chain(*versions, answer=None, share=0.5, shed=False):
    return {"versions": list(versions), "share": share, "shed": shed,
            **({"answer": answer} if answer else {})}


def predict(gw, row, **metadata):
    body = {"features": {f"f{i}": v for i, v in enumerate(row)}, "metadata": metadata}
    status, head, text = gw.request("POST", "/v1/predict/m", body)
    return status, {k.lower(): v for k, v in head.items()}, json.loads(text)


def caught(gw, **labels):
    return gw.metric("weir_fallback_total", endpoint="m", **labels)


def ended(gw, number, how):
    return gw.metric("weir_requests_total", endpoint="m", version=number, result=how)


def post(body):
    """The bytes of an infer request, for a pipeline."""
    text = json.dumps(body).encode()
    return b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


# --- From one version to the next ---------------------------------------------------------------------


@PLACES
def test_the_next_version_answers_and_says_so(gw, place):
    serve(gw, place, [(BRITTLE, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2))
    status, head, said = predict(gw, GOOD)
    assert status == 200 and said["model_version"] == "1"
    assert "fallback" not in said["metadata"] and "x-weir-fallback" not in head
    status, head, said = predict(gw, BAD, request_id="r1")
    assert status == 200 and said["model_version"] == "2" and said["prediction"] == "1", said
    assert said["metadata"]["fallback"] == {"to": "2", "from": "1", "reason": "failed"}
    assert head["x-weir-fallback"] == "2; from=1; reason=failed"
    said = gw.json("POST", "/v2/models/m/infer", infer_body([BAD, GOOD]))
    assert said["model_version"] == "2" and said["outputs"][0]["data"] == [1, 1]
    assert said["parameters"] == {"fallback": "2", "fallback_from": "1", "fallback_reason": "failed"}
    said = gw.json("POST", "/v2/models/m/infer", infer_body([GOOD]))
    assert said["model_version"] == "1" and "parameters" not in said
    assert caught(gw, **{"from": "1"}, to="2", reason="failed") == 2 == caught(gw)
    # Each version has what happened to it.
    assert [ended(gw, v, how) for v in "12" for how in ("ok", "failed")] == [2, 2, 2, 0]


@PLACES
def test_what_every_version_would_refuse_does_not_fall_back(gw, place):
    serve(gw, place, [(BRITTLE, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2, answer=ANSWER))
    status, head, said = predict(gw, ["x", 1, 1])
    assert status == 400 and "x-weir-fallback" not in head and said["code"] == "INVALID_ARGUMENT"
    assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]]))[0] == 400
    # Who asks for a version gets it, or its failure.
    assert gw.request("POST", "/v2/models/m/versions/1/infer", infer_body([BAD]))[0] == 500
    assert gw.request("POST", "/v2/models/m/versions/1/infer", infer_body([GOOD]))[0] == 200
    assert caught(gw) == 0


@PLACES
def test_without_a_fallback_a_failure_is_the_answer(gw, place):
    made = [version(gw.blob(BRITTLE)), version(gw.blob(FINE), number=2, weight=0, arm="previous")]
    gw.plan(endpoint("m", made, SIGN, compute={"place": place}))
    gw.start()
    assert predict(gw, BAD)[0] == 500


@PLACES
def test_a_chain_that_ends_gives_the_last_failure(gw, place):
    third = models.brittle((4, 4, 0), fails_above=60)
    serve(gw, place, [(BRITTLE, 10000, "champion"), (third, 0, "fallback")], chain(1, 2))
    status, head, said = predict(gw, BAD)
    assert status == 500 and "x-weir-fallback" not in head, said
    assert caught(gw) == 0
    assert gw.metric("weir_requests_total", endpoint="m", version="2", result="failed") == 1


@PLACES
def test_static_answers(gw, place):
    serve(gw, place, [(BRITTLE, 10000, "champion")], chain(1, answer=ANSWER))
    status, head, said = predict(gw, BAD)
    assert (status, said["prediction"], said["score"], said["model_version"]) == (200, "0", 0.25, "static")
    assert said["metadata"]["fallback"] == {"to": "static", "from": "1", "reason": "failed"}
    assert head["x-weir-fallback"] == "static; from=1; reason=failed"
    said = gw.json("POST", "/v2/models/m/infer", infer_body([BAD, GOOD, GOOD]))
    assert [o["data"] for o in said["outputs"]] == [[0, 0, 0], [0.75, 0.25] * 3]
    assert caught(gw, to="static", reason="failed") == 2
    assert gw.metric("weir_requests_total", endpoint="m", version="static", result="ok") == 2


@PLACES
def test_many_in_one_turn_each_get_their_own(gw, place):
    """Requests of one turn share a run; one that falls back must not disturb what others are given."""
    weights = models.brittle((-4, -4, 0), fails_above=1e9)
    serve(gw, place, [(BRITTLE, 5000, "champion"), (weights, 5000, "challenger")], chain(1, 2))
    rng, asked, data = np.random.default_rng(1), [], b""
    for _ in range(300):
        row = [float(rng.normal()), float(rng.normal()), 100.0 if rng.random() < 0.3 else 0.0]
        asked.append(row)
        data += post(infer_body([row]))
    got = responses(gw.raw(data, 30))
    assert len(got) == 300
    for row, (status, text) in zip(asked, got, strict=True):
        said = json.loads(text)
        sign = 1 if said["model_version"] == "1" else -1
        p = 1 / (1 + np.exp(-sign * 4 * (row[0] + row[1])))
        assert status == 200 and np.allclose(said["outputs"][1]["data"], [1 - p, p], atol=1e-5), (row, said)
        assert row[2] == 0 or said["model_version"] == "2"
        assert ("parameters" in said) == (said.get("parameters", {}).get("fallback_from") == "1")
    assert 0 < caught(gw, **{"from": "1"}, to="2") < 90


@PLACES
def test_over_http2_and_grpc(gw, place):
    serve(gw, place, [(BRITTLE, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2))
    with httpx.Client(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
        answer = client.post("/v2/models/m/infer", json=infer_body([BAD]))
        assert answer.headers["x-weir-fallback"] == "2; from=1; reason=failed"
        assert answer.json()["parameters"]["fallback"] == "2"
        assert "x-weir-fallback" not in client.post("/v2/models/m/infer", json=infer_body([GOOD])).headers
    x = triton.InferInput("x", [1, 3], "FP32")
    with triton.InferenceServerClient(gw.address) as client:
        x.set_data_from_numpy(np.array([BAD], np.float32))
        answer = client.infer("m", [x])
        said = answer.get_response()
        assert said.model_version == "2" and answer.as_numpy("label").tolist() == [1]
        assert {k: v.string_param for k, v in said.parameters.items()} == {
            "fallback": "2", "fallback_from": "1", "fallback_reason": "failed"}
        got = []
        client.start_stream(lambda result, error: got.append((result, error)))
        for row in (GOOD, BAD, GOOD):
            x.set_data_from_numpy(np.array([row], np.float32))
            client.async_stream_infer("m", [x])
        end = time.monotonic() + 10
        while len(got) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        client.stop_stream()
    assert [(r.get_response().model_version, e) for r, e in got] == [("1", None), ("2", None), ("1", None)]


def test_no_version_is_promoted(gw):
    """The plan of an endpoint whose alias names nothing sends everything to the chain."""
    serve(gw, "loops", [(FINE, 10000, "fallback")], chain(1))
    status, head, said = predict(gw, GOOD)
    assert status == 200
    assert said["metadata"]["fallback"] == {"to": "1", "from": "none", "reason": "not_ready"}
    assert caught(gw, **{"from": "none"}, to="1", reason="not_ready") == 1


# --- Time and load -------------------------------------------------------------------------------------


def test_a_slow_version_leaves_time_for_the_next(gw):
    serve(gw, "crew", [(SLOW, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2, share=0.4),
          timeout_ns=2 * 10**9)
    start = time.monotonic()
    status, _, said = predict(gw, LONG)
    took = time.monotonic() - start
    assert status == 200 and said["model_version"] == "2", said
    assert said["metadata"]["fallback"]["reason"] == "deadline" and 0.7 < took < 1.9, took


@PLACES
def test_a_static_answer_comes_before_the_deadline(gw, place):
    serve(gw, place, [(SLOW, 10000, "champion")], chain(1, answer=ANSWER), timeout_ns=10**9)
    start = time.monotonic()
    status, _, said = predict(gw, LONG)
    took = time.monotonic() - start
    assert status == 200 and said["metadata"]["fallback"]["reason"] == "deadline", said
    assert 0.6 < took < 1.2, took
    assert predict(gw, GOOD)[2]["model_version"] == "1"  # the connection and the crew live on


def shed_at(gw, number, **labels):
    return gw.metric("weir_shed_total", endpoint="m", version=number, **labels)


@pytest.mark.parametrize("shed", [False, True])
def test_overload_goes_down_the_chain_where_the_project_says_so(gw, shed):
    serve(gw, "crew", [(SLOW, 10000, "champion")], chain(1, answer=ANSWER, shed=shed), inflight_max=1,
          timeout_ns=2 * 10**9)
    holder = threading.Thread(target=predict, args=(gw, LONG))
    holder.start()
    time.sleep(0.4)
    start = time.monotonic()
    status, head, said = predict(gw, LONG)
    took = time.monotonic() - start
    holder.join()
    assert took < 0.5, took
    if shed:
        assert status == 200 and said["metadata"]["fallback"]["reason"] == "shed", said
    else:
        assert status == 503 and "x-weir-fallback" not in head
    assert shed_at(gw, "1", reason="max_inflight") == 1 == shed_at(gw, "1")


def test_overload_of_a_crew_goes_to_the_next_one(gw):
    serve(gw, "crew", [(SLOW, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2, shed=True),
          inflight_max=1, timeout_ns=2 * 10**9)
    holder = threading.Thread(target=predict, args=(gw, LONG))
    holder.start()
    time.sleep(0.4)
    said = [predict(gw, GOOD)[2] for _ in range(3)]
    holder.join()
    assert [s["metadata"]["fallback"] for s in said] == [{"to": "2", "from": "1", "reason": "shed"}] * 3
    assert shed_at(gw, "1", reason="max_inflight") == 3 and ended(gw, "2", "ok") >= 3
    # Who names the version gets the refusal, with the time to come again.
    holder = threading.Thread(target=predict, args=(gw, LONG))
    holder.start()
    time.sleep(0.4)
    status, head, _ = gw.request("POST", "/v2/models/m/versions/1/infer", infer_body([GOOD]))
    holder.join()
    assert status == 503 and head["Retry-After"]


def test_overload_of_a_loop_is_answered_in_order(gw):
    serve(gw, "loops", [(FINE, 10000, "champion")], chain(1, answer=ANSWER, shed=True), inflight_max=3)
    data = b""
    for i in range(40):
        data += post(infer_body([GOOD], id=f"r{i}"))
    got = [(status, json.loads(text)) for status, text in responses(gw.raw(data))]
    assert [said["id"] for _, said in got] == [f"r{i}" for i in range(40)]
    assert {status for status, _ in got} == {200}
    static = [said for _, said in got if said["model_version"] == "static"]
    assert len(static) == shed_at(gw, "1", reason="max_inflight")
    assert 30 <= len(static) == caught(gw, reason="shed") and static[0]["outputs"][1]["data"] == [0.75, 0.25]


def test_clients_that_leave_need_no_fallback(gw):
    serve(gw, "crew", [(SLOW, 10000, "champion"), (FINE, 0, "fallback")], chain(1, 2, answer=ANSWER),
          timeout_ns=10**9)
    for _ in range(5):
        s = socket.create_connection((gw.host, gw.port))
        s.sendall(post(infer_body([LONG])))
        time.sleep(0.05)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        s.close()
    time.sleep(1.5)
    assert caught(gw) == 0
    assert gw.request("GET", "/v2/health/live")[0] == 200


def test_the_failure_is_on_record_at_the_version_that_failed(world):
    """Two records: the failure with its status, and the answer with its version and the flag."""
    project, control = world(YAML, champion=False)
    control.begin_with(project.write("brittle.onnx", BRITTLE))
    baseline = control.register(project.write("baseline.onnx", models.brittle((0, 0, 0), fails_above=1e9)))
    control.post("/models/m/aliases", {"alias": "baseline", "version": baseline, "reason": "a floor"})
    url = f"http://{project.gateway}/v1/predict/e"

    def ask(c, **metadata):
        body = {"features": {"a": 1, "b": 1, "c": c}, "metadata": metadata}
        return requests.post(url, json=body, timeout=10).json()

    project.wait(lambda: "fallback" in ask(100).get("metadata", {}), 10, "serving the chain")
    assert ask(0, request_id="fine")["model_version"] == "1"
    said = ask(100, request_id="caught")
    assert said["metadata"]["fallback"] == {"to": str(baseline), "from": "1", "reason": "failed"}, said
    assert said["score"] == 0.5

    def kept():
        try:
            done = project.run("records", "e", "--json", "--limit", "50")
        except AssertionError:
            return []  # there are none yet
        return [r for r in map(json.loads, done.stdout.splitlines()) if r["request_id"] == "caught"]

    control.post("/seal")
    project.wait(lambda: len(kept()) == 2, 40, "keeping both records")
    first, second = sorted(kept(), key=lambda r: r["model_version"])
    assert (first["model_version"], second["model_version"]) == ("1", str(baseline))
    assert (first["status"], first["flags"]) == (500, "error"), first
    assert (second["status"], second["flags"]) == (200, "fallback"), second


def test_a_chain_that_cannot_be_is_not_applied(world):
    project, control = world(YAML, champion=False)
    control.begin_with(project.write("fine.onnx", FINE))
    text = (project.folder / "weir.yaml").read_text()
    for step, message in {
        "{answer: {prediction: '2', score: 0.1}}": "prediction '2' is not one of the 2 classes",
        "{answer: {prediction: '1', score: 0.1}}": "a score of 0.1 reads as '0', not as the prediction '1'",
        "{answer: {prediction: '0'}}": "has no 'score'",
        "{answer: {label: 0, probabilities: [1]}}": "1 values for output 'probabilities', expected 2",
        "{answer: {label: x, probabilities: [1, 0]}}": "does not fit INT64",
        "{answer: {scores: 1}}": "'scores' is no output of the model",
        "{version: 9}": "no version 9",
    }.items():
        project.write("weir.yaml", text.replace("{alias: baseline}", step))
        done = project.run("apply", "--yes", status=None)
        assert done.returncode != 0 and message in done.stderr, (step, done.stderr)
        assert "endpoints.e.fallback.chain[0]" in done.stderr
    project.write("weir.yaml", text.replace("{alias: baseline}", "{alias: a, version: 1}"))
    done = project.run("plan", status=None)
    assert "weir.yaml:" in done.stderr, done.stderr
    assert "has 2 of 'alias', 'version' and 'answer'" in done.stderr, done.stderr
    project.write("weir.yaml", text.replace("{alias: baseline}", "{answer: {prediction: 0, score: 25%}}"))
    assert "a probability" in project.run("apply", "--yes", status=None).stderr
    project.write("weir.yaml", text.replace("{alias: baseline}", "{answer: {prediction: 0, score: 0.25}}"))
    project.run("apply", "--yes")
    url = f"http://{project.gateway}/v1/predict/e"
    body = {"features": {"a": 1, "b": 1, "c": 0}}
    assert requests.post(url, json=body, timeout=10).json()["model_version"] == "1"
