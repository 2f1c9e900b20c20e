# SPDX-License-Identifier: Apache-2.0
"""Overload on the real program: who is refused, how fast, in which words, and what still gets through."""

import collections
import hashlib
import hmac
import http.client
import json
import socket
import threading
import time

import grpc
import httpx
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
import weir
from gateway import Gateway, canonical, endpoint, infer_body, signature, version
from test_gateway import slow_model
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

LINEAR = models.linear([1, 2])
HELPER = (weir.ROOT / "python/weir_runtime.py").read_text()
CALL = "/inference.GRPCInferenceService/ModelInfer"
PEPPER = "c0ffee" * 11
PATH = "/v2/models/m/infer"
BODY = infer_body([[1, 2]])
RUN_SECONDS = 0.01
PROGRAM = f"""
import time
from weir_runtime import serve

def predict(inputs):
    time.sleep({RUN_SECONDS} * len(inputs["x"]))
    return {{"y": [sum(row) for row in inputs["x"]]}}

serve(predict)
"""
YAML = """
version: 1
project: overload
gateway: {listen: "@GATEWAY@", loops: 1}
models:
  m: {task: regression, features: [{name: a, type: float}, {name: b, type: float}]}
endpoints:
  m: {model: m, timeout: 200ms, queue: @QUEUE@, compute: {workers: 2}}
"""
MANIFEST = """
command: [python3, main.py]
inputs: [{name: x, datatype: FP32, shape: [-1, 2]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
instances: 2
"""


@pytest.fixture
def gateway(weir_binary, tmp_path):
    """make(part of an endpoint m, …) -> a running gateway with one loop."""
    made = []

    def make(model=LINEAR, auth=None, **more):
        gw = Gateway(tmp_path / f"gw{len(made)}")
        made.append(gw)
        part = endpoint("m", [version(gw.blob(model))], signature(model), **more)
        root = json.loads(gw.blob_path(gw.plan(part)).read_text())
        if auth:
            (gw.state / "keys").mkdir()
            (gw.state / "keys/pepper").write_text(PEPPER)
            root["auth"] = gw.blob(canonical(auth))
            (gw.state / "plan/current").write_text(gw.blob(canonical(root)))
        return gw.start("--loops", "1")

    yield make
    for gw in made:
        gw.stop()


@pytest.fixture
def program(weir_project):
    """make(queue) -> a project with endpoint m on two programs that sleep RUN_SECONDS for each row."""
    def make(queue):
        files = {"model/main.py": PROGRAM, "model/model.yaml": MANIFEST, "model/weir_runtime.py": HELPER}
        project = weir_project(YAML.replace("@QUEUE@", queue), files, start=False)
        project.start(gateway_path="/healthz")
        project.run("register", "m", "model", "--promote")
        project.wait(lambda: infer(project)[0] == 200, 30, "serving the program")
        return project

    return make


def infer(project, headers=None, body=BODY):
    connection = http.client.HTTPConnection(project.gateway, timeout=10)
    try:
        connection.request("POST", PATH, json.dumps(body), headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def metric(project, name, **labels):
    connection = http.client.HTTPConnection(project.gateway, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{")
               and all(f'{k}="{v}"' in line for k, v in labels.items()))


def post(body, lines=""):
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Load:
    """Requests at fixed instants, whatever becomes of earlier ones: open loop, a connection for each of
    `callers` threads. results: (status, seconds from the intended instant, headers)."""

    def __init__(self, address, rate, seconds, callers=60, headers=None):
        host, port = address.rsplit(":", 1)
        body = json.dumps(BODY).encode()
        lines = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        message = post(body, lines)
        self.results, self.next, self.lock = [], 0, threading.Lock()
        self.count, self.rate, self.seconds = int(rate * seconds), rate, seconds
        self.begin = time.monotonic() + 0.1

        def caller():
            with socket.create_connection((host, int(port)), 10) as s:
                while True:
                    with self.lock:
                        number, self.next = self.next, self.next + 1
                    if number >= self.count:
                        return
                    due = self.begin + number / rate
                    time.sleep(max(0, due - time.monotonic()))
                    sent = time.monotonic()
                    s.sendall(message)
                    answer = s.recv(1 << 16)
                    self.results.append((int(answer[9:12]), time.monotonic() - sent, answer))

        self.threads = [threading.Thread(target=caller) for _ in range(callers)]
        [t.start() for t in self.threads]

    def done(self):
        [t.join() for t in self.threads]
        return self

    def times(self, status):
        return sorted(seconds for got, seconds, _ in self.results if got == status)

    def goodput(self):
        return len(self.times(200)) / self.seconds


def percentile(times, p):
    return times[min(len(times) - 1, int(len(times) * p))]


# --- Crews -------------------------------------------------------------------------------------------


def test_three_times_the_capacity_of_a_crew(program):
    project = program("{}")
    capacity = 2 / RUN_SECONDS
    load = Load(project.gateway, 3 * capacity, 4).done()
    good, shed = load.times(200), load.times(503)
    assert len(good) + len(shed) > 0.98 * len(load.results), collections.Counter(r[0] for r in load.results)
    assert load.goodput() > 0.6 * capacity, load.goodput()  # the machine is shared with other tests
    assert percentile(good, 0.99) < 0.2 + 0.02
    assert percentile(shed, 0.5) < 0.01
    reasons = {why: metric(project, "weir_shed_total", endpoint="m", reason=why)
               for why in ("limit", "deadline", "expired", "max_inflight", "queue_full", "late", "model")}
    assert sum(reasons.values()) == metric(project, "weir_requests_total", endpoint="m", result="shed")
    assert reasons["limit"] + reasons["deadline"] > 0 and reasons["model"] == 0, reasons
    assert 3 <= metric(project, "weir_crew_limit", endpoint="m") < 128  # it began there
    assert metric(project, "weir_crew_requests", endpoint="m") == 0
    assert infer(project)[0] == 200


def test_the_lower_are_refused_first_and_the_higher_get_through(program):
    project = program("{limit: 8}")
    capacity = 2 / RUN_SECONDS
    low = Load(project.gateway, 1.5 * capacity, 3, 30, {"X-Weir-Priority": "3"})
    normal = Load(project.gateway, 0.6 * capacity, 3, 30)
    low.done(), normal.done()
    assert normal.goodput() > 0.8 * 0.6 * capacity, (normal.goodput(), low.goodput())
    refused = [len(load.times(503)) / len(load.results) for load in (normal, low)]
    assert refused[0] < 0.1 < 0.3 < refused[1], refused
    assert low.goodput() > 0, "the lowest starve"


# --- Who may say what ----------------------------------------------------------------------------------


def key(number, role):
    text = f"wk_{number:08x}_{number:040x}"
    digest = hmac.new(PEPPER.encode(), text.encode(), hashlib.sha256).hexdigest()
    return text, {"role": role, "secrets": [{"hash": digest}]}


def filled(gw, credential=None):
    """Keeps as many requests under way as m takes at its own priority."""
    stop = threading.Event()
    headers = {"X-API-Key": credential} if credential else {}

    def caller():
        while not stop.is_set():
            gw.request("POST", PATH, BODY, headers)

    threads = [threading.Thread(target=caller) for _ in range(16)]
    [t.start() for t in threads]
    time.sleep(0.2)
    return lambda: (stop.set(), [t.join() for t in threads])


def test_only_who_may_goes_first(gateway):
    (plain, plain_key), (first, first_key) = key(1, "predictor"), key(2, "operator")
    gw = gateway(slow_model(20_000), {"kind": "auth", "format": 1, "mode": "required",
                                      "keys": {"00000001": plain_key, "00000002": first_key}},
                 compute={"place": "crew", "workers": 1}, queue={"limit": 8}, timeout_ns=10**10, rows_max=1)
    end = filled(gw, plain)

    def share(credential, body, **headers):
        got = [gw.request("POST", PATH, body, {"X-API-Key": credential, **headers})[0] for _ in range(12)]
        assert set(got) <= {200, 503}
        return got.count(200)

    urgent = {**BODY, "parameters": {"priority": 1}}
    try:
        assert share(first, urgent) >= 10
        assert share(first, BODY, **{"X-Weir-Priority": "1"}) >= 10
        assert share(plain, urgent) < 12 and share(plain, {**BODY, "parameters": {"priority": 3}}) < 12
    finally:
        end()


@pytest.mark.parametrize("place", ["loops", "crew"])
def test_deadlines_and_priorities_that_mean_nothing(gateway, place):
    gw = gateway(compute={"place": place})
    for name, value, status in (
        ("timeout", 0, 200), ("timeout", -1, 400), ("timeout", 1.5, 400), ("timeout", "1s", 400),
        ("timeout", None, 400), ("timeout", 2**63, 200), ("timeout", 10**30, 200), ("timeout", 10**6, 200),
        ("priority", 0, 200), ("priority", 1, 200), ("priority", 3, 200), ("priority", 4, 200),
        ("priority", 2**64, 200), ("priority", -1, 400), ("priority", "high", 400), ("priority", True, 400),
    ):
        got = gw.request("POST", PATH, {**BODY, "parameters": {name: value}})
        assert got[0] == status, (name, value, got)
        if status == 400:
            assert name in json.loads(got[2])["error"] and "expected" in json.loads(got[2])["error"]
    for value, status in (("0", 200), ("2", 200), ("99999999999999999999", 200), ("-1", 400), ("x", 400),
                          ("", 400)):
        assert gw.request("POST", PATH, BODY, {"X-Weir-Priority": value})[0] == status, value
    # A microsecond is over before anything can be done; that is the caller's doing, not overload.
    got = [gw.request("POST", PATH, {**BODY, "parameters": {"timeout": 1}}) for _ in range(20)]
    assert {answer[0] for answer in got} == {504} and all(b"deadline" in answer[2] for answer in got)
    assert gw.metric("weir_requests_total", endpoint="m", result="deadline") == 20
    assert gw.metric("weir_requests_total", endpoint="m", result="shed") == 0
    assert gw.request("POST", PATH, BODY)[0] == 200


@pytest.mark.parametrize("place", ["loops", "crew"])
def test_deadlines_of_grpc(gateway, place):
    gw = gateway(compute={"place": place})
    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], np.float32))
    with triton.InferenceServerClient(gw.address) as client:
        assert client.infer("m", [x], priority=1, timeout=10**7).get_response().outputs
    for parameters in ({"timeout": -1}, {"priority": -1}, {"priority": "first"}):
        with pytest.raises(InferenceServerException) as caught:
            infer_raw(gw, parameters)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    for timeout, code in (("0n", grpc.StatusCode.DEADLINE_EXCEEDED),
                          ("1n", grpc.StatusCode.DEADLINE_EXCEEDED), ("99999999H", None)):
        assert call(gw, timeout) == code, timeout


def request_pb(**parameters):
    request = service_pb2.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1, 2])
    for name, value in parameters.items():
        if isinstance(value, str):
            request.parameters[name].string_param = value
        else:
            request.parameters[name].int64_param = value
    return request.SerializeToString()


def infer_raw(gw, parameters):
    with grpc.insecure_channel(gw.address) as channel:
        try:
            channel.unary_unary(CALL)(request_pb(**parameters), timeout=5)
        except grpc.RpcError as why:
            raise InferenceServerException(why.details(), str(why.code())) from None


def call(gw, timeout):
    """The status of a call with that grpc-timeout, sent by hand: real clients give up themselves."""
    message = request_pb()
    with httpx.Client(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
        answer = client.post(CALL,
                             content=b"\0" + len(message).to_bytes(4, "big") + message,
                             headers={"content-type": "application/grpc", "te": "trailers",
                                      "grpc-timeout": timeout})
        status = int(answer.headers.get("grpc-status", 0))
    return next((code for code in grpc.StatusCode if code.value[0] == status), None) if status else None


# --- Refusals ------------------------------------------------------------------------------------------


def test_a_refusal_says_when_to_come_again(gateway):
    gw = gateway(slow_model(200_000), compute={"place": "crew", "workers": 1}, queue={"limit": 4},
                 timeout_ns=60 * 10**9, rows_max=1)
    end = filled(gw)
    try:
        got = [gw.request("POST", PATH, BODY) for _ in range(20)]
        refused = [answer for answer in got if answer[0] == 503]
        assert refused
        for _, headers, body in refused:
            assert 1 <= int(headers["Retry-After"]) <= 60
            assert json.loads(body)["code"] == "UNAVAILABLE" and "as it can bear" in json.loads(body)["error"]
        with grpc.insecure_channel(gw.address) as channel:
            for _ in range(20):
                try:
                    channel.unary_unary(CALL)(request_pb(), timeout=30)
                except grpc.RpcError as why:
                    assert why.code() == grpc.StatusCode.UNAVAILABLE
                    trailers = dict(why.trailing_metadata())
                    assert int(trailers["grpc-retry-pushback-ms"]) >= 1
                    break
            else:
                raise AssertionError("no call was refused")
    finally:
        end()
    assert gw.metric("weir_shed_total", reason="limit") > 0


def test_what_is_certain_to_be_refused_is_not_read(gateway):
    """Neither unfolded nor parsed: the body is no gzip and no JSON, and nobody finds out."""
    gw = gateway(slow_model(200_000), compute={"place": "crew", "workers": 1}, queue={"limit": 4},
                 timeout_ns=60 * 10**9, rows_max=1)
    end = filled(gw)
    try:
        got = {gw.request("POST", PATH, b"\0junk", {"Content-Encoding": "gzip"})[0] for _ in range(40)}
    finally:
        end()
    assert 503 in got and got <= {503, 400}
    assert gw.request("POST", PATH, b"\0junk", {"Content-Encoding": "gzip"})[0] == 400


def test_time_in_the_socket_counts(gateway):
    """A loop that is busy does not see who waits; the kernel noted when the request came."""
    gw = gateway(slow_model(300_000), compute={"place": "loops"}, timeout_ns=20 * 10**9)
    start = time.monotonic()
    gw.request("POST", PATH, BODY)
    run = time.monotonic() - start
    assert run > 0.05, "too fast to tell"
    hurried = post(json.dumps({**BODY, "parameters": {"timeout": int(run * 1e6 / 2)}}).encode())
    with gw.connect(30) as first, gw.connect(30) as second:
        first.sendall(post(json.dumps(BODY).encode()))
        time.sleep(run / 10)
        second.sendall(hurried)
        answer = second.recv(1 << 16)
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert answer.startswith(b"HTTP/1.1 503") and b"Retry-After: 1" in answer, answer
    assert gw.metric("weir_shed_total", endpoint="m", reason="late") == 1
