# SPDX-License-Identifier: Apache-2.0
"""Every call of tritonclient's four clients: HTTP and gRPC, each blocking and asyncio."""

import asyncio
import threading

import models
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from gateway import Gateway, endpoint, float_columns, signature, version
from tritonclient.utils import InferenceServerException

LINEAR = models.linear([1, 2], 0.5)
CLASSES = models.brittle((1, 2))
STRINGS = models.strings()
ROWS = np.array([[1, 2], [3, 4]], np.float32)


class Blocking:
    """A client of asyncio, each call run to its end."""

    def __init__(self, make):
        self.loop = asyncio.new_event_loop()
        self.client = self.run(make)

    def run(self, call):
        async def whole():
            done = call()
            return await done if asyncio.iscoroutine(done) else done
        return self.loop.run_until_complete(asyncio.wait_for(whole(), 30))

    def __getattr__(self, name):
        call = getattr(self.client, name)
        return lambda *args, **more: self.run(lambda: call(*args, **more))


@pytest.fixture(scope="module")
def served(weir_binary, tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("triton") / "gw")
    gateway.plan(
        endpoint("m", [version(gateway.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score")),
        endpoint("cls", [version(gateway.blob(CLASSES))], signature(CLASSES)),
        endpoint("text", [version(gateway.blob(STRINGS))], signature(STRINGS)),
    )
    gateway.start()
    yield gateway
    gateway.stop()


KINDS = {
    "http": (http_client, lambda address: http_client.InferenceServerClient(address)),
    "http-asyncio": (http_client, lambda address: Blocking(lambda: http_aio.InferenceServerClient(address))),
    "grpc": (grpc_client, lambda address: grpc_client.InferenceServerClient(address)),
    "grpc-asyncio": (grpc_client, lambda address: Blocking(lambda: grpc_aio.InferenceServerClient(address))),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def lib(kind):
    return KINDS[kind][0]


@pytest.fixture(scope="module")
def client(served, kind):
    made = KINDS[kind][1](served.address)
    yield made
    made.close()


def x_of(lib, rows=ROWS, datatype="FP32", name="x", **more):
    tensor = lib.InferInput(name, list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows, **more)
    return tensor


def fails(words, call, *args, **more):
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **more)
    assert words in caught.value.message(), caught.value
    return caught.value


def plain(message, *path):
    """A member of an answer that is a dict over HTTP and a message over gRPC."""
    for name in path:
        message = message[name] if isinstance(message, (dict, list)) or isinstance(name, int) \
            else getattr(message, name)
    return message


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("m") and client.is_model_ready("m", "1")
    assert not client.is_model_ready("none") and not client.is_model_ready("m", "9")
    assert plain(client.get_server_metadata(), "name") == "weir"
    about = client.get_model_metadata("cls")
    assert [plain(t, "name") for t in plain(about, "outputs")] == ["label", "probabilities"]
    assert list(plain(about, "versions")) == ["1"]
    fails("unknown model", client.get_model_metadata, "none")
    assert client.is_server_live(headers={"x-some": "thing"})


def test_config_and_statistics(client, lib):
    config = client.get_model_config("m")
    assert plain(config if isinstance(config, dict) else config.config, "max_batch_size") == 256
    fails("unknown model", client.get_model_config, "none")

    def count():
        told = plain(client.get_inference_statistics("m", "1"), "model_stats", 0)
        assert plain(told, "name") == "m"
        return int(plain(told, "inference_count"))

    before = count()
    client.infer("m", [x_of(lib)])
    assert count() == before + 2
    assert len(plain(client.get_inference_statistics(), "model_stats")) == 3


def test_repository(client):
    index = client.get_model_repository_index()
    index = index if isinstance(index, list) else index.models
    assert {(plain(i, "name"), plain(i, "state")) for i in index} >= {("m", "READY"), ("cls", "READY")}
    for change in (client.load_model, client.unload_model):  # an admin's, as test_unload.py has it
        fails("does not allow this", change, "m")
    assert client.is_model_ready("m")


def test_shared_memory_is_refused(client):
    for kind in ("system", "cuda"):
        status = getattr(client, f"get_{kind}_shared_memory_status")()
        assert not (status if isinstance(status, list) else status.regions)
        getattr(client, f"unregister_{kind}_shared_memory")()
    fails("memory", client.register_system_shared_memory, "r", "/key", 64)
    fails("memory", client.register_cuda_shared_memory, "r", b"aGFuZGxl", 0, 64)


def test_settings_of_triton_are_not_there(client):
    for call in ("get_trace_settings", "update_trace_settings", "get_log_settings"):
        fails("no such", getattr(client, call))
    fails("no such", client.update_log_settings, {"log_verbose_level": 1})
    assert client.is_server_live()


def test_infer_and_its_options(client, lib):
    got = client.infer("m", [x_of(lib)], model_version="1", request_id="abc", priority=3, timeout=2_000_000,
                       headers={"x-some": "thing"}, parameters={"note": "text", "flag": True, "n": 7})
    assert got.as_numpy("score").ravel().tolist() == [5.5, 11.5]
    assert plain(got.get_response(), "id") == "abc" and plain(got.get_response(), "model_version") == "1"
    assert got.as_numpy("nothing") is None and got.get_output("nothing") is None
    fails("unknown model", client.infer, "none", [x_of(lib)])
    fails("no version", client.infer, "m", [x_of(lib)], model_version="7")
    fails("FP32", client.infer, "m", [x_of(lib, ROWS.astype(np.float64), "FP64")])
    fails("shape", client.infer, "m", [x_of(lib, np.zeros((1, 3), np.float32))])


def test_outputs_are_chosen(client, lib):
    wanted = lib.InferRequestedOutput
    got = client.infer("cls", [x_of(lib)], outputs=[wanted("label")])
    assert [plain(o, "name") for o in plain(got.get_response(), "outputs")] == ["label"]
    got = client.infer("cls", [x_of(lib)], outputs=[wanted("probabilities"), wanted("label")])
    assert [plain(o, "name") for o in plain(got.get_response(), "outputs")] == ["probabilities", "label"]
    assert got.as_numpy("probabilities").shape == (2, 2)
    top = client.infer("cls", [x_of(lib)], outputs=[wanted("probabilities", class_count=1)])
    values = [text.decode().split(":") for text in top.as_numpy("probabilities").ravel()]
    assert [index for _, index in values] == ["1", "1"] and all(float(value) > 0.5 for value, _ in values)
    fails("nothing", client.infer, "cls", [x_of(lib)], outputs=[wanted("nothing")])


def test_json_and_binary(client, lib, kind):
    if not kind.startswith("http"):
        pytest.skip("gRPC has one form: raw")
    for into in (False, True):
        for out in (False, True):
            got = client.infer("m", [x_of(lib, binary_data=into)],
                               outputs=[lib.InferRequestedOutput("score", binary_data=out)])
            assert got.as_numpy("score").ravel().tolist() == [5.5, 11.5]
            assert ("data" in got.get_output("score")) != out


def test_texts(client, lib):
    rows = np.array(["yes", "täglich", ""], dtype=np.object_)
    assert client.infer("text", [x_of(lib, rows, "BYTES")]).as_numpy("code").tolist() == [1, -1, -1]


def test_compression(client, lib, kind):
    rows = np.tile(ROWS, (100, 1))
    for how in ("gzip", "deflate"):
        more = {"compression_algorithm": how} if kind.startswith("grpc") else \
            {"request_compression_algorithm": how, "response_compression_algorithm": how}
        got = client.infer("m", [x_of(lib, rows)], **more)
        assert got.as_numpy("score").ravel().tolist() == [5.5, 11.5] * 100


def test_sequences_are_refused(client, lib):
    for more in ({"sequence_id": 7, "sequence_start": True}, {"sequence_id": "seven", "sequence_end": True}):
        fails("sequence", client.infer, "m", [x_of(lib)], **more)
    assert client.infer("m", [x_of(lib)], sequence_id=0).as_numpy("score")[0, 0] == 5.5


def test_time_runs_out(client, lib, kind):
    if not kind.startswith("grpc"):
        pytest.skip("the time of HTTP is the client's own affair")
    why = fails("", client.infer, "m", [x_of(lib)], client_timeout=-1)
    assert why.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert client.infer("m", [x_of(lib)], client_timeout=30).as_numpy("score")[0, 0] == 5.5


@pytest.mark.parametrize("kind", ["http", "grpc"], scope="module", indirect=True)
def test_async_infer(client, lib, kind):
    if kind == "http":
        asked = [client.async_infer("m", [x_of(lib)], request_id=str(i)) for i in range(20)]
        assert [a.get_result().get_response()["id"] for a in asked] == [str(i) for i in range(20)]
        return
    ends, done = [], threading.Event()

    def told(result, error):
        ends.append(error or result.get_response().id)
        if len(ends) == 20:
            done.set()

    for i in range(20):
        client.async_infer("m", [x_of(lib)], told, request_id=str(i))
    assert done.wait(20) and sorted(ends, key=int) == [str(i) for i in range(20)]


def test_a_stream_of_asyncio(served):
    async def talk():
        async with grpc_aio.InferenceServerClient(served.address) as client:
            async def ask():
                for i in range(10):
                    yield {"model_name": "none" if i == 3 else "m", "inputs": [x_of(grpc_client)],
                           "request_id": str(i)}
            return [error.message() if error else result.get_response().id
                    async for result, error in client.stream_infer(ask())]

    ends = asyncio.run(asyncio.wait_for(talk(), 30))
    assert len(ends) == 10 and "unknown model" in ends[3]
    assert [end for i, end in enumerate(ends) if i != 3] == [str(i) for i in range(10) if i != 3]
