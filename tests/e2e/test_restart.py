# SPDX-License-Identifier: Apache-2.0
"""Stopping, restarting and replacing the program under load: nobody is refused, nobody is cut off."""

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import grpc
import hpack
import loop
import models
import numpy as np
import pytest
import tritonclient.grpc as triton
import weir
from gateway import Gateway, endpoint, float_columns, infer_body, signature, version

LINEAR = models.linear([1, 2], 0.5)
BODY = json.dumps(infer_body([[1, 2]]))
ANSWER = [5.5]


class Up(Gateway):
    """`weir up --no-control`: the supervisor and a gateway, on a plan written straight to disk."""

    def __init__(self, folder):
        super().__init__(folder)
        self.write_plan()
        (self.folder / "weir.yaml").write_text("")
        self.binary = self.folder / "weir"
        shutil.copy(weir.binary(), self.binary)

    def write_plan(self, **settings):
        self.plan(
            endpoint("m", [version(self.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score")),
            **{"loops": 2, "drain_timeout_ns": 3 * 10**9, **settings},
        )

    def command(self, *more):
        return [str(self.binary), "up", "--no-control", "--project", str(self.folder), *more]

    def run(self, *words):
        return subprocess.run(
            [self.binary, *words, "--project", self.folder], capture_output=True, text=True, timeout=60
        )

    def gateways(self):
        parent = self.process.pid
        found = []
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if b"gateway" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[1:2]:
                found.append(int(child))
        return found

    def until(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)


@pytest.fixture
def up(weir_binary, tmp_path):
    supervisor = Up(tmp_path / "up")
    yield supervisor
    supervisor.stop()


class Http2:
    """One connection, one request at a time, and every GOAWAY that came."""

    DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
    END_STREAM, ACK = 1, 1

    def __init__(self, up):
        self.socket = up.connect()
        self.stream = -1
        self.goaways = []
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS)

    def send(self, kind, payload=b"", flags=0, stream=0):
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self.socket.sendall(head + payload)

    def exactly(self, n):
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise ConnectionError("the server has closed the connection")
            data += piece
        return data

    def frame(self):
        """The next frame; what belongs to the connection is seen to."""
        head = self.exactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = self.exactly(int.from_bytes(head[:3], "big"))
        if kind == self.GOAWAY:
            self.goaways.append(struct.unpack(">II", payload[:8]))
        if kind in (self.SETTINGS, self.PING) and not flags & self.ACK:
            self.send(kind, payload if kind == self.PING else b"", self.ACK)
        if kind == self.DATA and payload:
            self.send(self.WINDOW, struct.pack(">I", len(payload)))
        return kind, flags, stream, payload

    def begin(self, path, body):
        self.stream += 2
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "weir")]
        self.send(self.HEADERS, self.encoder.encode(head), 4, self.stream)
        self.send(self.DATA, body.encode(), self.END_STREAM, self.stream)

    def end(self):
        status, body = None, b""
        while True:
            kind, flags, stream, payload = self.frame()
            if stream != self.stream:
                continue
            assert kind != self.RESET, "reset"
            if kind == self.HEADERS:
                status = dict(self.decoder.decode(payload))[":status"]
            if kind == self.DATA:
                body += payload
            if flags & self.END_STREAM and kind in (self.HEADERS, self.DATA):
                return status, body

    def ask(self, path, body):
        self.begin(path, body)
        return self.end()


class Load:
    """Clients that ask without a pause until they are told to stop, and note what went wrong."""

    def __init__(self, up, *kinds):
        self.up, self.failures, self.answers, self.over = up, [], {}, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(kind, n)) for n, kind in enumerate(kinds)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()

    def run(self, kind, number):
        name = f"{kind}-{number}"
        with getattr(self, kind)() as ask:
            while not self.over.is_set():
                try:
                    got = ask()
                    if got != ANSWER:
                        self.failures.append((name, time.monotonic(), f"answered {got}"))
                    self.answers[name] = self.answers.get(name, 0) + 1
                except Exception as e:  # whatever a client says of it
                    self.failures.append((name, time.monotonic(), repr(e)))
                    time.sleep(0.01)

    class Client:
        def __init__(self, ask, close=lambda: None):
            self.ask, self.close = ask, close

        def __enter__(self):
            return self.ask

        def __exit__(self, *_):
            self.close()

    def kept(self):
        """HTTP/1.1 on one connection, until the server says that it closes it."""
        connection = http.client.HTTPConnection(self.up.host, self.up.port, timeout=10)

        def ask():
            try:
                connection.request("POST", "/v2/models/m/infer", BODY)
                return json.loads(connection.getresponse().read())["outputs"][0]["data"]
            except Exception:
                connection.close()
                raise

        return self.Client(ask, connection.close)

    def fresh(self):
        """A connection for each request."""

        def ask():
            return self.up.json("POST", "/v2/models/m/infer", BODY)["outputs"][0]["data"]

        return self.Client(ask)

    def http2(self):
        """HTTP/2 as RFC 9113 has it: after a GOAWAY what is under way goes on, what is new goes to
        another connection. (The package h2, and so httpx, drops what is under way.)"""
        connections = []

        def ask():
            if not connections or connections[0].goaways:
                self.close(connections)
                connections.append(Http2(self.up))
            try:
                status, body = connections[0].ask("/v2/models/m/infer", BODY)
                assert status == "200", body
                return json.loads(body)["outputs"][0]["data"]
            except Exception:
                self.close(connections)
                raise

        return self.Client(ask, lambda: self.close(connections))

    @staticmethod
    def close(connections):
        while connections:
            connections.pop().socket.close()

    def rpc(self):
        client = triton.InferenceServerClient(self.up.address)
        x = triton.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.array([[1, 2]], np.float32))

        def ask():
            return client.infer("m", [x]).as_numpy("score").reshape(-1).tolist()

        return self.Client(ask, client.close)


def test_restarts_under_load_lose_no_request(up):
    up.start()
    pid, seen = up.process.pid, set(up.gateways())
    with Load(up, "kept", "kept", "fresh", "fresh", "http2", "rpc") as load:
        for _ in range(3):
            done = up.run("restart", "--json")
            assert done.returncode == 0, done.stderr + up.log()
            outcome = json.loads(done.stdout)
            assert outcome["done"] == "restarted" and outcome["pid"] == pid
            before = dict(load.answers)
            time.sleep(1)
            assert all(load.answers[name] > n for name, n in before.items()), "a client hangs"
            assert len(up.gateways()) == 1 and up.gateways()[0] not in seen
            seen.update(up.gateways())
    assert load.failures == [], up.log()
    assert min(load.answers.values()) > 100, load.answers
    assert up.stop() == 0


def test_no_record_is_left_open_by_restarts(up):
    up.start()
    for _ in range(2):
        up.json("POST", "/v2/models/m/infer", BODY)
        assert up.run("restart").returncode == 0, up.log()
    up.json("POST", "/v2/models/m/infer", BODY)
    assert up.stop() == 0
    suffixes = [path.suffix for path in (up.state / "records").iterdir() if path.suffix in (".seg", ".open")]
    assert suffixes == [".seg"] * 3


def test_the_program_on_disk_takes_over(up):
    up.start()
    pid = up.process.pid
    newer = up.folder / "weir.new"
    shutil.copy(weir.binary(), newer)
    os.replace(newer, up.binary)
    assert os.readlink(f"/proc/{pid}/exe").endswith("(deleted)")
    assert up.run("restart").returncode == 0, up.log()
    for process in (pid, *up.gateways()):
        assert os.readlink(f"/proc/{process}/exe") == str(up.binary)


@pytest.mark.parametrize("broken", ["#!/bin/sh\nexit 1\n", "no program at all\n"])
def test_a_program_that_does_not_come_up_changes_nothing(up, broken):
    up.start()
    serving = up.gateways()
    up.binary.rename(up.folder / "good")
    up.binary.write_text(broken)
    up.binary.chmod(0o755)
    with Load(up, "kept", "fresh", "http2", "rpc") as load:
        command = [up.folder / "good", "restart", "--project", up.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "the old one serves on" in done.stderr, done.stderr
    assert load.failures == [] and up.gateways() == serving
    (up.folder / "good").replace(up.binary)
    assert up.run("restart").returncode == 0, up.log()
    assert up.gateways() != serving


def test_settings_that_need_a_restart_get_one(up):
    """More loops, then fewer, then another address: the sockets are shared out anew."""
    up.start()
    for loops in (4, 1, 3):
        up.write_plan(loops=loops)
        with Load(up, "kept", "fresh", "fresh", "rpc") as load:
            assert up.run("restart").returncode == 0, up.log()
            time.sleep(0.3)
        assert load.failures == []
        for _ in range(20):
            assert up.json("POST", "/v2/models/m/infer", BODY)["outputs"][0]["data"] == ANSWER
    old = up.port
    up.address = f"127.0.0.1:{weir.free_port()}"
    up.port = int(up.address.rpartition(":")[2])
    up.write_plan()
    assert up.run("restart").returncode == 0, up.log()
    up.json("POST", "/v2/models/m/infer", BODY)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old), 5)


def test_a_killed_gateway_refuses_nobody(up):
    """What was under way is lost with it; whoever comes later waits, and is answered."""
    up.start()
    killed = []
    with Load(up, "fresh", "fresh", "fresh", "kept") as load:
        for _ in range(3):
            (gateway,) = up.gateways()
            os.kill(gateway, signal.SIGKILL)
            killed.append(time.monotonic())
            up.until(lambda old=gateway: up.gateways() not in ([], [old]))
            time.sleep(0.5)
    for name, at, what in load.failures:
        assert "refused" not in what, (name, what)
        assert any(0 <= at - moment < 0.1 for moment in killed), (name, what, "was not under way")
    assert len(load.failures) <= 4 * len(killed)
    assert min(load.answers.values()) > 50, load.answers


def test_control_is_replaced_too(weir_project):
    project = weir_project(loop.YAML, {"data/past.csv": loop.table()}, start=False)
    project.start(gateway_path="/healthz")
    before = [project.pid_of(role) for role in ("gateway", "control")]
    project.run("restart")
    after = [project.pid_of(role) for role in ("gateway", "control")]
    assert not set(before) & set(after)
    project.wait(lambda: weir.answers(f"http://{project.control}/readyz"), 10, "ready")
    project.wait(lambda: len(project.run_json("status")["gateways"]) == 1, 10, "joined by the gateway")
    assert project.stop() == 0


def test_only_one_supervisor_for_a_project(up):
    up.start()
    second = subprocess.run(up.command(), capture_output=True, text=True, timeout=20)
    assert second.returncode == 3 and f"locked by process {up.process.pid}" in second.stderr
    up.stop()
    done = up.run("restart")
    assert done.returncode == 1 and "no `weir up` runs" in done.stderr


# --- Draining ----------------------------------------------------------------------------------------


def ready(up):
    return up.request("GET", "/readyz")[0]


def test_a_stop_is_announced(up):
    """Not ready for the stated time, serving on, telling clients to go elsewhere; then the end."""
    up.write_plan(drain_announce_ns=1_500_000_000)
    up.start()
    kept = http.client.HTTPConnection(up.host, up.port, timeout=10)
    kept.request("POST", "/v2/models/m/infer", BODY)
    assert kept.getresponse().read() and kept.sock
    peer = Http2(up)
    assert peer.ask("/v2/models/m/infer", BODY)[0] == "200"
    with grpc.insecure_channel(up.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"
        drain = subprocess.Popen(
            [up.binary, "drain", "--project", up.folder],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        start = time.monotonic()
        up.until(lambda: ready(up) == 503)
        assert up.json("GET", "/readyz", status=503)["reason"] == "the gateway is about to stop"
        assert check(b"", wait_for_ready=True) == b"\x08\x02"
        assert up.request("GET", "/healthz")[0] == 200
        up.json("POST", "/v2/models/m/infer", BODY)
        kept.request("POST", "/v2/models/m/infer", BODY)
        answer = kept.getresponse()
        assert answer.status == 200 and answer.getheader("Connection") == "close"
        assert peer.ask("/v2/models/m/infer", BODY)[0] == "200"
        assert peer.goaways == [(2**31 - 1, 0)]
        with pytest.raises(ConnectionError):
            while True:
                peer.frame()
        assert peer.goaways == [(2**31 - 1, 0), (3, 0)]
        assert time.monotonic() - start > 1.4
    out, err = drain.communicate(timeout=20)
    assert drain.returncode == 0 and out.startswith("stopped in"), err
    assert up.process.wait(5) == 0
    with pytest.raises(ConnectionRefusedError):
        up.connect()


def slow(up, **settings):
    """An endpoint whose row takes some hundred milliseconds, in a crew."""
    from test_gateway import slow_model

    model = slow_model(200_000)
    up.plan(
        endpoint("m", [version(up.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score")),
        endpoint("slow", [version(up.blob(model))], signature(model), timeout_ns=20 * 10**9,
                 compute={"place": "crew"}),
        **{"loops": 2, **settings},
    )
    return up.start()


@pytest.mark.parametrize("how", ["drain", "restart"])
def test_what_is_under_way_is_answered(up, how):
    slow(up)
    got = {}

    def ask_http1():
        got["http1"] = up.request("POST", "/v2/models/slow/infer", BODY, timeout=30)[0]

    def ask_http2():
        got["http2"] = Http2(up).ask("/v2/models/slow/infer", BODY)[0]

    threads = [threading.Thread(target=ask) for ask in (ask_http1, ask_http2)]
    for thread in threads:
        thread.start()
    up.until(lambda: up.metric("weir_requests_total") >= 2 or time.sleep(0.05), 5)
    assert up.run(how).returncode == 0, up.log()
    for thread in threads:
        thread.join(30)
    assert got == {"http1": 200, "http2": "200"}, up.log()


def test_a_drain_is_bounded(up):
    """A client that keeps a request under way for ever does not keep the gateway."""
    up.write_plan(drain_timeout_ns=500_000_000)
    up.start()
    with up.connect() as idle, up.connect() as half:
        half.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
        start = time.monotonic()
        assert up.run("drain").returncode == 0
        assert 0.4 < time.monotonic() - start < 5
        assert idle.recv(1) == b""
    assert up.process.wait(5) == 0


# --- Sockets from outside ----------------------------------------------------------------------------


def activated(folder, command, *listeners):
    """Starts the command as systemd would: the sockets from descriptor 3 on, named by LISTEN_FDS."""
    numbers = [listener.fileno() for listener in listeners]

    def place():
        copies = [os.dup(n) for n in numbers]
        copies = [os.dup2(copy, 60 + i) for i, copy in enumerate(copies)]
        for i, copy in enumerate(copies):
            os.dup2(copy, 3 + i)

    script = 'LISTEN_PID=$$ LISTEN_FDS="$0" exec "$@"'
    with open(folder / "gateway.log", "ab") as log:
        return subprocess.Popen(
            ["sh", "-c", script, str(len(numbers)), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=False, preexec_fn=place,
        )


@pytest.mark.parametrize("alone", [False, True])
def test_socket_activation(up, alone, tmp_path):
    path = str(tmp_path / "s")
    with socket.create_server((up.host, up.port)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        early = up.connect()  # before anybody accepts
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        command = Gateway.command(up) if alone else up.command()
        up.process = activated(up.folder, command, tcp, unix)
        assert b"200 OK" in early.recv(1000)
        early.close()

        def over_unix():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(path)
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return client.recv(1000)

        assert b"200 OK" in over_unix()
        if not alone:
            with Load(up, "fresh", "kept") as load:
                assert up.run("restart").returncode == 0, up.log()
            assert load.failures == []
            assert b"200 OK" in over_unix()
        assert up.stop() == 0
        assert os.path.exists(path)  # systemd's, not ours
        late = up.connect()  # waits for the next start
        late.close()
