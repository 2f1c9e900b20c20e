# SPDX-License-Identifier: Apache-2.0
"""Remote models over gRPC and TLS: a Weir in front of another Weir, of grpcio's server, and of servers
that break the rules of HTTP/2 in every way that a test can think of."""

import re
import socket
import struct
import threading
import time
from concurrent import futures

import grpc
import h2.config
import h2.connection
import h2.events
import models
import numpy as np
import pytest
from gateway import Gateway, endpoint, float_columns, signature, version
from test_elsewhere import YAML, infer, live, metric, post, until, value
from test_tls import Authority
from tritonclient.grpc import service_pb2

LINEAR = models.linear([1, 2], 0.5)
REMOTE = """
kind: remote
url: {url}
model: {model}
allow_private: true
retries: 1
backoff: 10ms
breaker: {{failure_threshold: 1000}}
"""


def front(weir_project, url, model="m", more="", **options):
    """A project that serves `model` of the server at url."""
    project = weir_project(YAML, {"remote.yaml": REMOTE.format(url=url, model=model) + more}, start=False)
    project.start(gateway_path="/healthz", **options)
    live(project, "m", "remote.yaml")
    return project


# --- Weir in front of Weir ---------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def origin(weir_binary, tmp_path, authority):
    """make(**tls) -> a gateway with the model m; encrypted when there are settings of tls."""
    made = []

    def make(**tls):
        gw = Gateway(tmp_path / f"origin{len(made)}")
        settings = {}
        if tls:
            cert, key = authority.sign("server")
            settings["tls"] = {"certificate": str(cert), "key": str(key), **tls}
        gw.plan(endpoint("m", [version(gw.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score")),
                **settings)
        made.append(gw)
        gw.spawn()
        end = time.monotonic() + 30
        while "gateway.ready" not in gw.log():
            assert gw.process.poll() is None and time.monotonic() < end, gw.log()
            time.sleep(0.01)
        return gw

    yield make
    for gw in made:
        gw.stop()


def test_a_weir_over_grpc(weir_project, origin):
    far = origin()
    project = front(weir_project, f"grpc://{far.address}")
    assert value(project, 1, 2) == 5.5
    for i in range(50):  # over few connections: each slot keeps its own
        assert value(project, i, 2) == i + 4.5
    assert far.metric("weir_connections_accepted_total") < 20
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [200, 2], "data": [1, 2] * 200}]}
    status, answer = post(project.gateway, "/v2/models/m/infer", body)
    assert status == 200 and answer["outputs"][0]["data"] == [5.5] * 200
    far.stop()
    assert infer(project, 1, 2)[0] == 503
    far.spawn()
    until(lambda: infer(project, 1, 2)[0] == 200)


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_weir_over_tls(weir_project, origin, authority, tmp_path, scheme):
    far = origin(client_ca=str(authority.cert))
    cert, key = authority.sign("client")
    tls = f"tls: {{ca: {authority.cert}, certificate: {cert}, key: {key}}}\n"
    project = front(weir_project, f"{scheme}://{far.address}", more=tls)
    for i in range(20):
        assert value(project, i, 2) == i + 4.5

    def refused(url, settings):
        (project.folder / "other.yaml").write_text(REMOTE.format(url=url, model="m") + settings)
        return project.run("register", "m", "other.yaml", status=None).stderr

    stranger = Authority(tmp_path, "stranger")
    ours = f"certificate: {cert}, key: {key}}}\n"
    assert "not trusted" in refused(f"{scheme}://{far.address}", f"tls: {{ca: {stranger.cert}, {ours}")
    name = far.address.replace("127.0.0.1", "localhost")
    assert "not trusted" in refused(f"{scheme}://{name}", f"tls: {{ca: {authority.cert}, {ours}")
    assert "not trusted" in refused(f"{scheme}://{far.address}", "")  # the system does not know us
    no_certificate = refused(f"{scheme}://{far.address}", f"tls: {{ca: {authority.cert}}}\n")
    assert "certificate" in no_certificate or "closed" in no_certificate or "broke" in no_certificate
    assert "none.pem" in refused(f"{scheme}://{far.address}", "tls: {ca: /none.pem}\n")
    plain = refused(f"{scheme.rstrip('s')}://{far.address}", "")
    assert "closed" in plain or "broke" in plain or "no HTTP" in plain, plain
    assert value(project, 1, 2) == 5.5


# --- grpcio's server ---------------------------------------------------------------------------------


class Far(grpc.GenericRpcHandler):
    """The model `far`: y is the sum of each row of x; answers as `mode` says."""

    def __init__(self):
        self.mode, self.calls, self.cancelled, self.metadata = "good", 0, threading.Event(), {}

    def service(self, details):
        self.metadata = dict(details.invocation_metadata)
        method = {"ModelMetadata": self.describe, "ModelInfer": self.infer}.get(details.method.split("/")[-1])
        return method and grpc.unary_unary_rpc_method_handler(method)

    def describe(self, _, context):
        return METADATA

    def infer(self, message, context):
        self.calls += 1
        self.time_left = context.time_remaining()
        asked = service_pb2.ModelInferRequest.FromString(message)
        rows = np.frombuffer(asked.raw_input_contents[0], np.float32).reshape(asked.inputs[0].shape)
        answer = service_pb2.ModelInferResponse(model_name="far")
        out = answer.outputs.add(name="y", datatype="FP32", shape=[len(rows), 1])
        mode = self.mode
        if mode in grpc.StatusCode.__members__:
            context.abort(grpc.StatusCode[mode], "so it is: 100 % ü")
        if mode == "pushback":
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "-1"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "do not come back")
        if mode == "once" and self.calls == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        if mode == "slow":
            context.add_callback(self.cancelled.set)
            time.sleep(3)
        if mode == "typed":
            out.contents.fp32_contents.extend(rows.sum(axis=1).tolist())
            return answer.SerializeToString()
        if mode == "compressed":
            context.set_compression(grpc.Compression.Gzip)
        if mode == "garbage":
            return b"\xff\xfe\xfd nonsense"
        if mode == "empty":
            return b""
        if mode == "shape":
            out.shape[1] = 2
        if mode == "lies":
            answer.raw_output_contents.append(b"\0" * 3)
        elif mode == "huge":
            answer.raw_output_contents.append(b"\0" * (2 << 20))
        else:
            answer.raw_output_contents.append(rows.sum(axis=1).astype(np.float32).tobytes())
        return answer.SerializeToString()


def metadata():
    told = service_pb2.ModelMetadataResponse(name="far", versions=["1"], platform="other")
    told.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    told.outputs.add(name="y", datatype="FP32", shape=[-1, 1])
    return told.SerializeToString()


METADATA = metadata()


@pytest.fixture
def far():
    handler = Far()
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(handler,))
    handler.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler
    server.stop(0).wait()


def test_a_grpcio_server(weir_project, far, monkeypatch):
    monkeypatch.setenv("FAR_TOKEN", "s3cret")
    more = "answer_mib: 1\ncredentials: {env: FAR_TOKEN}\n"
    project = front(weir_project, f"grpc://127.0.0.1:{far.port}", "far", more)
    assert value(project, 1, 2) == 3
    assert far.metadata["authorization"] == "Bearer s3cret"
    assert far.metadata["user-agent"].startswith("weir/")
    assert 0 < far.time_left <= 2  # the endpoint's timeout
    far.mode = "typed"
    assert value(project, 3, 4) == 7
    far.mode = "compressed"  # would be, if we took it
    assert value(project, 3, 5) == 8
    far.mode, far.calls = "once", 0
    assert value(project, 5, 6) == 11 and far.calls == 2
    for mode, status, calls, words in (
        ("UNAVAILABLE", 503, 4, "not ready: so it is: 100 % ü"),
        ("pushback", 503, 2, "do not come back"),
        ("RESOURCE_EXHAUSTED", 429, 2, "too much to do"),
        ("INVALID_ARGUMENT", 400, 2, "refuses the input: so it is: 100 % ü"),
        ("PERMISSION_DENIED", 503, 2, "PERMISSION_DENIED"),
        ("UNIMPLEMENTED", 503, 2, "UNIMPLEMENTED"),
        ("INTERNAL", 500, 2, "INTERNAL"),
        ("DATA_LOSS", 500, 2, "DATA_LOSS"),
        ("garbage", 500, 2, "protobuf"),
        ("empty", 500, 2, "missing"),
        ("shape", 500, 2, "[1,2]"),
        ("lies", 500, 2, "'y'"),
        ("huge", 429, 2, "larger than allowed"),
        ("slow", 504, 2, ""),
    ):
        far.mode, far.calls = mode, 0
        got, answer = infer(project, 1, 2)
        assert got == status and words in answer["error"], (mode, got, answer)
        assert far.calls <= calls, mode
        assert str(far.port) not in answer["error"] and "s3cret" not in answer["error"]
        far.mode = "good"
        until(lambda: infer(project, 1, 2)[0] == 200)
    assert far.cancelled.wait(5)  # the late call was taken back
    assert "s3cret" not in project.log(100000)


# --- Servers that break the rules --------------------------------------------------------------------


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Rogue:
    """A server of HTTP/2 that tells of the model `far`, and answers other calls as `mode` says."""

    def __init__(self):
        self.mode, self.calls, self.connections = "good", 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.talk, args=(peer,), daemon=True).start()

    def talk(self, peer):
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        paths = {}
        try:
            if self.mode == "banner":
                peer.sendall(b"220 welcome to this server of mail\r\n")
            c.initiate_connection()
            peer.sendall(c.data_to_send())
            while data := peer.recv(65536):
                for event in c.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        paths[event.stream_id] = dict(event.headers)[":path"]
                    elif isinstance(event, h2.events.DataReceived):
                        c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        peer.sendall(c.data_to_send())
                        if not self.answer(c, peer, event.stream_id, paths[event.stream_id]):
                            return
                peer.sendall(c.data_to_send())
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            peer.close()

    def say(self, c, stream, message, status="200", kind="application/grpc", trailers=True, flag=0):
        c.send_headers(stream, [(":status", status), ("content-type", kind)])
        data = bytes([flag]) + struct.pack(">I", len(message)) + message
        c.send_data(stream, data, end_stream=not trailers)
        if trailers:
            c.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def answer(self, c, peer, stream, path):
        """False: the connection is to be closed."""
        if path.endswith("ModelMetadata"):
            self.say(c, stream, METADATA)
            return True
        mode, first = self.mode, self.calls == 0
        self.calls += 1
        answer = service_pb2.ModelInferResponse()
        answer.outputs.add(name="y", datatype="FP32", shape=[1, 1])
        answer.raw_output_contents.append(np.float32([3]).tobytes())
        message = answer.SerializeToString()
        field = b"\0\x01a\x7f\x81\x76" + b"b" * 15000
        raw = {
            "refused": frame(3, 0, stream, struct.pack(">I", 7)),
            "reset": frame(3, 0, stream, struct.pack(">I", 2)),
            "goaway": frame(7, 0, 0, struct.pack(">II", 0, 0)),
            "pings": frame(6, 0, 0, b"12345678") * 5000,
            "settings": frame(4, 0, 0, b"\0\4\0\0\0\1") * 5000,
            "windows": frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
            "garbage": b"\x99" * 100000,
            "promise": frame(5, 4, stream, b"\0\0\0\2\x88"),
            "index": frame(1, 4, stream, b"\xfe"),
            "bomb": frame(1, 0, stream, b"\x88" + field) + frame(9, 4, stream, field),
            "continuations": frame(1, 0, stream, b"\x88") + frame(9, 0, stream) * 5000,
        }
        if mode in ("refused once", "goaway once"):
            mode = mode.split()[0] if first else "good"
        if mode in raw:
            peer.sendall(raw[mode])
            return mode != "goaway"
        if mode == "silence":
            return True
        if mode == "close":
            return False
        if mode == "cut":
            c.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            c.send_data(stream, b"\0\0\0\1\0abc")
            peer.sendall(c.data_to_send())
            return False
        kinds = {"html": {"kind": "text/html"}, "404": {"status": "404"}, "503": {"status": "503"},
                 "no status": {"trailers": False}, "flag": {"flag": 1}}
        self.say(c, stream, **{"message": message, **kinds.get(mode, {})})
        return True


@pytest.fixture
def rogue():
    server = Rogue()
    yield server
    server.listener.close()


def test_a_rogue_server_harms_nobody(weir_project, rogue):
    project = front(weir_project, f"grpc://{rogue.address}", "far")
    assert value(project, 1, 2) == 3
    for mode in ("refused once", "goaway once"):
        rogue.mode, rogue.calls = mode, 0
        assert value(project, 1, 2) == 3 and rogue.calls == 2, mode
    for mode, status, calls in (
        ("refused", 503, 4), ("reset", 500, 2), ("goaway", 503, 4), ("close", 503, 4), ("cut", 503, 2),
        ("silence", 504, 2), ("pings", 500, 2), ("settings", 500, 2), ("windows", 500, 2),
        ("garbage", 500, 2), ("promise", 500, 2), ("index", 500, 2), ("bomb", 500, 2),
        ("continuations", 500, 2), ("html", 500, 2), ("404", 503, 2), ("503", 503, 4),
        ("no status", 500, 2), ("flag", 500, 2),
    ):
        rogue.mode, rogue.calls = mode, 0
        got, answer = infer(project, 1, 2)
        assert got == status, (mode, got, answer, project.log(5))
        assert rogue.calls <= calls, (mode, rogue.calls)
        assert rogue.address not in answer["error"]
        rogue.mode = "good"
        until(lambda: infer(project, 1, 2)[0] == 200)
    before, rogue.calls = rogue.connections, 0
    assert [value(project, i, 2) for i in range(30)] == [3] * 30
    assert rogue.connections - before < 10  # sound sessions are kept


def test_a_server_of_something_else(weir_project, rogue):
    rogue.mode = "banner"
    project = weir_project(YAML, {"remote.yaml": REMOTE.format(url=f"grpc://{rogue.address}", model="far")},
                           start=False)
    project.start(gateway_path="/healthz")
    assert "no HTTP/2" in project.run("register", "m", "remote.yaml", status=None).stderr


def test_the_breaker_opens_over_grpc(weir_project, far):
    more = "breaker: {failure_threshold: 3, recovery_timeout: 500ms}\n"
    text = re.sub("(?m)^breaker.*\n", more, REMOTE.format(url=f"grpc://127.0.0.1:{far.port}", model="far"))
    project = weir_project(YAML, {"remote.yaml": text}, start=False)
    project.start(gateway_path="/healthz")
    live(project, "m", "remote.yaml")
    far.mode = "INTERNAL"
    for _ in range(3):
        infer(project, 1, 2)
    far.calls = 0
    assert [infer(project, 1, 2)[0] for _ in range(5)] == [503] * 5 and far.calls <= 1
    assert metric(project, "weir_runtime_breaker_openings_total")[0] >= 1
    far.mode = "good"
    until(lambda: infer(project, 1, 2)[0] == 200)
