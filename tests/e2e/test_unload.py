# SPDX-License-Identifier: Apache-2.0
"""Endpoints taken out of memory and brought back by request, with tritonclient over HTTP and gRPC."""

import threading
import time

import pytest
import tritonclient.grpc
import tritonclient.http
from gateway import Control
from tritonclient.utils import InferenceServerException
from unloading import ADMIN, PREDICTOR, READER, Unloading

NAMES = ["onnx", "process", "trees"]


@pytest.fixture
def gw(weir_binary, tmp_path):
    gateway = Unloading(tmp_path / "gw")
    yield gateway.start()
    gateway.stop()


class Http:
    module = tritonclient.http
    statuses = {"NOT_FOUND": "404", "PERMISSION_DENIED": "403", "UNIMPLEMENTED": "501"}

    def index(self, client):
        return {(m["name"], m["version"]): (m["state"], m["reason"])
                for m in client.get_model_repository_index(headers=READER)}


class Grpc:
    module = tritonclient.grpc
    statuses = {}

    def index(self, client):
        return {(m.name, m.version): (m.state, m.reason)
                for m in client.get_model_repository_index(headers=lower(READER)).models}


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def refused(kind, code, fn, *args, **more):
    with pytest.raises(InferenceServerException) as caught:
        fn(*args, **more)
    assert caught.value.status() in (kind.statuses.get(code), f"StatusCode.{code}"), caught.value
    return caught.value.message()


@pytest.mark.parametrize("kind", [Http, Grpc])
def test_tritonclient_unloads_and_loads(gw, kind):
    kind = kind()
    ready, loaded = ("READY", ""), {(name, "1"): ("READY", "") for name in NAMES}
    admin, reader, predictor = (lower(h) for h in (ADMIN, READER, PREDICTOR))
    with kind.module.InferenceServerClient(gw.address) as client:
        for name in NAMES:
            assert kind.index(client) == loaded
            client.load_model(name, headers=admin)  # is there: nothing to do
            for who in (reader, predictor):
                refused(kind, "PERMISSION_DENIED", client.unload_model, name, headers=who)
                refused(kind, "PERMISSION_DENIED", client.load_model, name, headers=who)
            client.unload_model(name, headers=admin)
            client.unload_model(name, headers=admin)
            assert kind.index(client) == {**loaded, (name, "1"): ("UNAVAILABLE", "unloaded")}
            assert not client.is_model_ready(name, headers=reader)
            assert not client.is_model_ready(name, "1", headers=reader)
            assert "no available versions" in refused(kind, "NOT_FOUND", client.get_model_metadata, name,
                                                      headers=reader)
            assert gw.infer(name)[0] == 404
            assert client.is_server_ready() and gw.request("GET", "/readyz")[0] == 200
            assert all(gw.infer(other)[0] == 200 for other in NAMES if other != name)
            client.load_model(name, headers=admin)
            assert kind.index(client)[(name, "1")] == ready and client.is_model_ready(name, headers=reader)
            assert gw.infer(name)[0] == 200
        for what, change in (("load", client.load_model), ("unload", client.unload_model)):
            assert f"failed to {what} 'none'" in refused(kind, "NOT_FOUND", change, "none", headers=admin)
        refused(kind, "UNIMPLEMENTED", client.load_model, "onnx", headers=admin, config="{}")


def test_without_authentication_nobody_may(gw, weir_binary):
    gw.stop()
    gw.plan(gw.parts["onnx"])
    gw.start()
    for what in ("load", "unload"):
        assert gw.change("onnx", what, {}) in (401, 403)
    assert gw.infer("onnx")[0] == 200


def test_it_holds_until_the_plan_changes_the_endpoint(gw):
    gw.stop()
    control = Control(gw.state)
    gw.start()
    try:
        control.accept()
        assert gw.change("onnx", "unload") == 200 and gw.change("trees", "unload") == 200
        gw.parts["trees"]["rows_max"] = 100  # another endpoint of that name
        assert "load_ms" in control.swap(gw.write())
        assert gw.infer("onnx")[0] == 404 and gw.infer("trees")[0] == 200
        assert gw.change("onnx", "load") == 200
        assert gw.change("trees", "unload") == 200
        gw.parts["trees"]["rows_max"] = 256  # and back: the first unload was of the old one
        assert "load_ms" in control.swap(gw.write())
        assert gw.infer("trees")[0] == 200 and gw.infer("onnx")[0] == 200
    finally:
        control.close()


def test_a_load_that_fails_leaves_it_unloaded(gw):
    assert gw.change("onnx", "unload") == 200
    path = gw.blob_path(gw.blob(gw.onnx))
    path.write_bytes(b"damaged")
    status, _, body = gw.request("POST", "/v2/repository/models/onnx/load", "{}", ADMIN)
    assert status >= 400 and b"onnx" in body, body
    assert gw.infer("onnx")[0] == 404 and gw.infer("trees")[0] == 200
    path.write_bytes(gw.onnx)
    assert gw.change("onnx", "load") == 200 and gw.infer("onnx")[0] == 200


def test_under_load_only_the_unloaded_is_missed(gw):
    """Requests meet one plan or the other; those of other endpoints and the order of a pipeline stay."""
    over, answers = threading.Event(), {name: [] for name in NAMES}

    def ask(name):
        while not over.is_set():
            answers[name].append(gw.infer(name)[0])

    threads = [threading.Thread(target=ask, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert gw.change("trees", "unload") == 200 and gw.change("trees", "load") == 200
    over.set()
    for thread in threads:
        thread.join(30)
    assert set(answers["onnx"]) == set(answers["process"]) == {200}
    assert set(answers["trees"]) <= {200, 404}
    key = "".join(f"{name}: {value}\r\n" for name, value in ADMIN.items())
    ask = [f"POST /v2/repository/models/trees/{what} HTTP/1.1\r\nHost: x\r\n{key}\r\n"
           for what in ("unload", "load")]
    look = f"GET /v2/models/trees/ready HTTP/1.1\r\nHost: x\r\n{key}\r\n"
    got = gw.raw("".join([look, ask[0], look, ask[1], look]).encode())
    assert [int(part.split()[0]) for part in got.split(b"HTTP/1.1 ")[1:]] == [200, 200, 404, 200, 200]


def test_a_client_that_leaves_changes_nothing(gw):
    key = "".join(f"{name}: {value}\r\n" for name, value in ADMIN.items())
    for what in ("unload", "load") * 3:
        with gw.connect() as s:
            path = f"/v2/repository/models/process/{what}"
            s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{key}\r\n".encode())
    time.sleep(1)  # two loops read them in whatever order
    assert gw.change("process", "load") == 200 and gw.infer("process")[0] == 200


@pytest.mark.parametrize("name", NAMES)
def test_memory_comes_back(weir_binary, tmp_path, name):
    """Resident memory over some cycles: within 1 %, or one arena of the allocator, which a thread may come
    to at any time; a model left behind each time would be 12 times more (bench/memory runs hundreds)."""
    gw = Unloading(tmp_path / "gw")
    try:
        gw.start("--no-records")
        for other in NAMES:
            assert gw.change(other, "unload") == 200
        gw.cycles(name, 12)
        before = gw.rss()
        gw.cycles(name, 12)
        after = gw.rss()
        assert after < before + max(before // 100, 1 << 20), (before, after)
        assert gw.change(name, "load") == 200 and gw.infer(name)[0] == 200
        if name == "onnx":
            assert gw.rss() > before + (6 << 20)
    finally:
        gw.stop()
