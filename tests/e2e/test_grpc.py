# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 and gRPC on the gateway's port, with the clients that people have: httpx, tritonclient, grpcio."""

import asyncio
import json
import queue
import socket
import threading
import time

import grpc
import httpx
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
from gateway import Gateway, endpoint, float_columns, infer_body, read_all, signature, version
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

LINEAR = models.linear([1, 2], 0.5)


@pytest.fixture(params=["loops", "crew"])
def gw(weir_binary, tmp_path, request):
    gateway = Gateway(tmp_path / "gw")
    gateway.plan(
        endpoint("m", [version(gateway.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score"),
                 compute={"place": request.param}),
        endpoint("empty", [], signature(LINEAR)),
    )
    gateway.start()
    yield gateway
    gateway.stop()


def rows(*values):
    x = triton.InferInput("x", [len(values), 2], "FP32")
    x.set_data_from_numpy(np.array(values, np.float32))
    return x


def failure(code, fn, *args, **more):
    with pytest.raises(InferenceServerException) as caught:
        fn(*args, **more)
    assert caught.value.status() == f"StatusCode.{code}", caught.value
    return caught.value.message()


# --- HTTP/2 ------------------------------------------------------------------------------------------


def test_the_same_answers_over_http2(gw):
    with httpx.Client(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
        for method, path, body in (
            ("GET", "/v2", None), ("GET", "/v2/models/m", None), ("GET", "/nowhere", None),
            ("POST", "/v2/models/none/infer", json.dumps(infer_body([[1, 2]]))),
            ("POST", "/v2/models/m/infer", '{"inputs":3}'),
            ("GET", "/v2/models/m/config", None), ("POST", "/v2/repository/index", None),
        ):
            two = client.request(method, path, content=body)
            one = gw.request(method, path, body)
            assert two.http_version == "HTTP/2" and two.status_code == one[0], path
            assert two.json() == json.loads(one[2]), path
        answer = client.post("/v1/predict/m", json={"features": {"f0": 1, "f1": 2}},
                             headers={"X-Request-Id": "seven"})
        assert answer.json()["prediction"] == 5.5 and answer.headers["x-request-id"] == "seven"
        assert "date" in answer.headers and client.head("/v2").content == b""


def test_many_streams_at_once(gw):
    async def all_of_them():
        async with httpx.AsyncClient(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
            asks = (client.post("/v2/models/m/infer", json=infer_body([[i, 2]])) for i in range(64))
            return [answer.json()["outputs"][0]["data"] for answer in await asyncio.gather(*asks)]

    assert asyncio.run(all_of_them()) == [[i + 4.5] for i in range(64)]


def test_bodies_larger_than_windows(gw):
    with httpx.Client(http1=False, http2=True, base_url=f"http://{gw.address}") as client:
        big = json.dumps(infer_body([[1, 2]] * 250)) + " " * 900_000
        answer = client.post("/v2/models/m/infer", content=big)
        assert answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [5.5] * 250
        over = client.post("/v2/models/m/infer", content=b" " * (1 << 20) + b"{}")
        assert over.status_code == 413


def test_frames_that_are_none(gw):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frame = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # SETTINGS
    resets = b"".join(b"\x00\x00\x04\x03\x00" + (2 * i + 1).to_bytes(4, "big") + b"\x00\x00\x00\x08"
                      for i in range(500))
    for data in (preface + b"\x00" * 50, preface + frame + b"\xff" * 100, preface + frame + resets,
                 preface[:10],
                 preface + frame + b"\x00\x40\x01\x01\x04\x00\x00\x00\x01" + b"a" * 0x4001,
                 preface + frame + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"):
        with gw.connect() as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            read_all(s)
    assert gw.json("POST", "/v2/models/m/infer", infer_body([[1, 2]]))["outputs"][0]["data"] == [5.5]


# --- gRPC --------------------------------------------------------------------------------------------


def test_every_call_of_tritonclient(gw):
    with triton.InferenceServerClient(gw.address) as client:
        assert client.is_server_live() and client.is_model_ready("m") and client.is_model_ready("m", "1")
        assert not client.is_server_ready()  # 'empty' has no version
        assert not client.is_model_ready("none") and not client.is_model_ready("m", "9")
        assert client.get_server_metadata().name == "weir"
        meta = client.get_model_metadata("m")
        assert list(meta.inputs[0].shape) == [-1, 2] and meta.versions == ["1"]
        assert client.get_model_config("m").config.max_batch_size == 256
        index = {(i.name, i.version): i.state for i in client.get_model_repository_index().models}
        assert index == {("m", "1"): "READY", ("empty", ""): "UNAVAILABLE"}
        got = client.infer("m", [rows([1, 2], [3, 4])], request_id="abc", client_timeout=5)
        assert got.as_numpy("score").ravel().tolist() == [5.5, 11.5] and got.get_response().id == "abc"
        stats = client.get_inference_statistics("m", "1").model_stats
        assert len(stats) == 1 and stats[0].inference_count == 2
        assert stats[0].inference_stats.success.count == 1
        for change in (client.load_model, client.unload_model):  # an admin's, as test_unload.py has it
            failure("PERMISSION_DENIED", change, "m")
        assert not client.get_system_shared_memory_status().regions
        failure("UNIMPLEMENTED", client.register_system_shared_memory, "r", "/key", 64)


def test_what_is_wrong_is_said(gw):
    with triton.InferenceServerClient(gw.address) as client:
        assert "Request for unknown model" in failure("NOT_FOUND", client.infer, "none", [rows([1, 2])])
        assert "no version" in failure("NOT_FOUND", client.infer, "m", [rows([1, 2])], model_version="7")
        assert "not ready" in failure("UNAVAILABLE", client.infer, "empty", [rows([1, 2])])
        wrong = triton.InferInput("x", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
        assert "shape" in failure("INVALID_ARGUMENT", client.infer, "m", [wrong])
        other = triton.InferInput("y", [1, 2], "FP32")
        other.set_data_from_numpy(np.zeros((1, 2), np.float32))
        failure("INVALID_ARGUMENT", client.infer, "m", [other])
        failure("RESOURCE_EXHAUSTED", client.infer, "m", [rows(*[[1, 2]] * 257)])
        assert client.infer("m", [rows([1, 2])]).as_numpy("score")[0, 0] == 5.5


def test_compressed_messages(gw):
    with triton.InferenceServerClient(gw.address) as client:
        for how in ("gzip", "deflate"):
            got = client.infer("m", [rows(*[[1, 2]] * 200)], compression_algorithm=how)
            assert got.as_numpy("score").ravel().tolist() == [5.5] * 200


def test_a_stream_keeps_its_order_and_survives_errors(gw):
    with triton.InferenceServerClient(gw.address) as client:
        answers = queue.Queue()
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for i in range(40):
            client.async_stream_infer("none" if i % 10 == 3 else "m", [rows([i, 2])], request_id=str(i))
        for i in range(40):
            result, error = answers.get(timeout=10)
            if i % 10 == 3:
                assert "unknown model" in error.message()
            else:
                assert result.get_response().id == str(i)
                assert result.as_numpy("score")[0, 0] == i + 4.5
        client.stop_stream()


def call(channel, method="ModelInfer", service="inference.GRPCInferenceService"):
    return channel.unary_unary(f"/{service}/{method}", request_serializer=bytes, response_deserializer=bytes)


def test_messages_that_are_none(gw):
    with grpc.insecure_channel(gw.address) as channel:
        for method, service, data, code in (
            ("ModelInfer", "inference.GRPCInferenceService", b"\xff\xff\xff", "INVALID_ARGUMENT"),
            ("Nothing", "inference.GRPCInferenceService", b"", "UNIMPLEMENTED"),
            ("ModelInfer", "other.Service", b"", "UNIMPLEMENTED"),
            ("ModelInfer", "inference.GRPCInferenceService", b"", "NOT_FOUND"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, method, service)(data, timeout=5)
            assert caught.value.code().name == code, (method, caught.value)
        health = call(channel, "Check", "grpc.health.v1.Health")(b"", timeout=5)
        assert health == b"\x08\x02"  # NOT_SERVING: 'empty' has no version


def test_a_cancelled_call_harms_nobody(gw):
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    with grpc.insecure_channel(gw.address) as channel:
        infer = call(channel)
        for _ in range(100):
            infer.future(request.SerializeToString()).cancel()
        answer = service_pb2.ModelInferResponse.FromString(infer(request.SerializeToString(), timeout=5))
        assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == 5.5


def test_typed_contents_get_typed_answers(gw):
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    with grpc.insecure_channel(gw.address) as channel:
        raw = call(channel)(request.SerializeToString(), timeout=5)
        answer = service_pb2.ModelInferResponse.FromString(raw)
        assert list(answer.outputs[0].contents.fp32_contents) == [5.5] and not answer.raw_output_contents


def test_a_gateway_that_stops_answers_what_it_has(gw):
    with triton.InferenceServerClient(gw.address) as client:
        client.infer("m", [rows([1, 2])])
        done, errors = [], []

        def caller():
            try:
                while len(done) < 10_000:
                    client.infer("m", [rows([1, 2])])
                    done.append(1)
            except InferenceServerException as e:
                errors.append(e.status())

        threads = [threading.Thread(target=caller) for _ in range(4)]
        [t.start() for t in threads]
        while len(done) < 50:
            time.sleep(0.01)
        assert gw.stop() == 0
        [t.join() for t in threads]
    assert errors and set(errors) <= {"StatusCode.UNAVAILABLE"}
