# SPDX-License-Identifier: Apache-2.0
"""The gateway alone: plans written straight into a state folder, `weir gateway` on top of them, and
the other end of the link. What control does for a real project, in a few lines a test can bend.

    gw = Gateway(tmp_path)
    gw.plan(endpoint("m", [version(gw.blob(models.linear([1, 2])))], signature(model)))
    gw.start()
"""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import weir

ONNX_TYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
LINK = {"hello": 1, "plan": 2, "live": 3, "refused": 4, "digest": 5, "seal": 6, "kept": 7}
SECOND = 10**9


def canonical(tree):
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def tensors_of(values):
    return [
        {
            "name": v.name,
            "datatype": ONNX_TYPES[v.type.tensor_type.elem_type],
            "shape": [d.dim_value if d.HasField("dim_value") else -1 for d in v.type.tensor_type.shape.dim],
        }
        for v in values
    ]


def signature(model, columns=(), **reading):
    """The signature of ONNX bytes: what the registry would store with the version."""
    import onnx

    graph = onnx.load_from_string(model).graph
    names = [o.name for o in graph.output]
    places = {
        key: names.index(value)
        for key, value in reading.items()
        if key in ("label", "probabilities", "value")
    }
    return {
        "inputs": tensors_of(graph.input),
        "outputs": tensors_of(graph.output),
        "columns": list(columns),
        "reading": {**reading, **places},
    }


def float_columns(count, prefix="f", **more):
    return [
        {"name": f"{prefix}{i}", "type": "float", "input": 0, "element": i, "required": True, **more}
        for i in range(count)
    ]


def version(artifact, number=1, weight=10000, arm="champion", **more):
    return {
        "version": number,
        "weight": weight,
        "shadow": False,
        "arm": arm,
        "artifact": artifact,
        "platform": "onnxruntime_onnx",
        "profile": "",
        **more,
    }


def endpoint(name, versions, sign, **more):
    return {
        "kind": "endpoint",
        "format": 1,
        "name": name,
        "model": name,
        "timeout_ns": SECOND,
        "body_bytes_max": 1 << 20,
        "rows_max": 256,
        "inflight_max": 4096,
        "durable_log": False,
        "sticky": {"field": "user_id", "header": "x-user", "salt": name},
        "signature": sign,
        "versions": versions,
        "compute": {"place": os.environ.get("WEIR_TEST_PLACE", "auto")},
        **more,
    }


class Gateway:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.state = self.folder / ".weir"
        self.state.mkdir(parents=True)
        self.address = f"127.0.0.1:{weir.free_port()}"
        self.host, self.port = "127.0.0.1", int(self.address.rpartition(":")[2])
        self.log_path = self.folder / "gateway.log"
        self.process = None

    # --- plans ---------------------------------------------------------------------------------

    def blob(self, content):
        name = hashlib.sha256(content).hexdigest()
        path = self.blob_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def blob_path(self, name):
        return self.state / "blobs" / name[:2] / name[2:]

    def plan(self, *endpoints, current=True, **settings):
        """Writes the parts and the root; makes it the current one. Returns its hash."""
        root = {
            "kind": "plan",
            "format": 1,
            "project": "tests",
            "gateway": {"listen": self.address, "loops": 1, **settings},
            "endpoints": {part["name"]: self.blob(canonical(part)) for part in endpoints},
        }
        name = self.blob(canonical(root))
        if current:
            (self.state / "plan").mkdir(exist_ok=True)
            (self.state / "plan/current").write_text(name)
        return name

    # --- the process ---------------------------------------------------------------------------

    def command(self, *more):
        return [str(weir.binary()), "gateway", "--project", str(self.folder), *more]

    def spawn(self, *more, env=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(*more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        return self

    def start(self, *more, env=None, seconds=30):
        self.spawn(*more, env=env)
        end = time.monotonic() + seconds
        while not weir.answers(f"http://{self.address}/v2/health/live"):
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < end, f"not live:\n{self.log()}"
            time.sleep(0.005)
        return self

    def stop(self, how=signal.SIGTERM, seconds=20):
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"did not end {seconds} s after {how.name}:\n{self.log()}") from None

    def log(self, lines=40):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # --- talking -------------------------------------------------------------------------------

    def request(self, method, path, body=None, headers=None, timeout=10):
        """(status, headers, body) over a connection of its own; a dict or list goes as JSON."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=None, status=200):
        got, _, text = self.request(method, path, body, headers)
        assert got == status, f"{got}, want {status}: {text[:300]}"
        return json.loads(text)

    def connect(self, timeout=10):
        return socket.create_connection((self.host, self.port), timeout)

    def raw(self, data, timeout=10):
        """Sends bytes, closes our side, and reads to the end."""
        with self.connect(timeout) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            return read_all(s)

    def metric(self, name, **labels):
        """The sum of the samples of that name that have those labels."""
        total = 0.0
        for line in self.request("GET", "/metrics")[2].decode().splitlines():
            found = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if (
                found
                and found[1] == name
                and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items())
            ):
                total += float(found[3])
        return total


def read_all(s):
    data = b""
    try:
        while piece := s.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        data += b"<reset>"
    return data


def responses(data):
    """Splits a stream of answers with Content-Length into (status, body)."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 100:
            data = rest
            continue
        length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
        found.append((status, rest[:length]))
        data = rest[length:]
    return found


def infer_body(rows, name="x", datatype="FP32", **more):
    shape = [len(rows), len(rows[0])] if isinstance(rows[0], (list, tuple)) else [len(rows)]
    flat = [v for row in rows for v in row] if len(shape) == 2 else list(rows)
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": flat}], **more}


class Control:
    """The other end of the link: tells plans, hears answers."""

    def __init__(self, state):
        run = Path(state) / "run"
        run.mkdir(exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(run / "link.sock"))
        self.listener.listen()
        self.peer = None
        self.frames = []  # (type, payload) without the digests
        self.digests = []
        self.news = threading.Condition()

    def accept(self, seconds=10):
        self.listener.settimeout(seconds)
        self.peer, _ = self.listener.accept()
        threading.Thread(target=self.read, args=(self.peer,), daemon=True).start()
        return json.loads(self.wait("hello", seconds=seconds))

    def read(self, peer):
        stream = peer.makefile("rb")
        while head := stream.read(5):
            length, kind = struct.unpack("<IB", head)
            payload = stream.read(length - 1)
            with self.news:
                (self.digests if kind == LINK["digest"] else self.frames).append((kind, payload))
                self.news.notify_all()
            if kind == LINK["digest"]:
                self.heard(payload)

    def heard(self, digest):
        """For who answers digests; this one lets the gateway hold them."""

    def send(self, kind, payload=b""):
        self.peer.sendall(struct.pack("<IB", len(payload) + 1, LINK[kind]) + payload)

    def wait(self, *kinds, seconds=30):
        """Takes the first frame of one of these kinds."""
        wanted, end = {LINK[k] for k in kinds}, time.monotonic() + seconds
        with self.news:
            while True:
                for i, (kind, payload) in enumerate(self.frames):
                    if kind in wanted:
                        del self.frames[i]
                        return payload
                assert self.news.wait(max(0, end - time.monotonic())), f"no {kinds} within {seconds} s"

    def swap(self, plan):
        """Asks for a plan; the answer of the gateway."""
        self.send("plan", plan.encode())
        return json.loads(self.wait("live", "refused"))

    def close(self):
        if self.peer:
            self.peer.close()
        self.listener.close()
