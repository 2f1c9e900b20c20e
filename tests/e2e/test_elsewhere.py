# SPDX-License-Identifier: Apache-2.0
"""Models that live elsewhere, on the real program: in a process of their own, on a remote server."""
import http.client
import http.server
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import models
import numpy as np
import pytest
import tritonclient.http as triton
import weir
from prometheus_client.parser import text_string_to_metric_families

HELPER = (weir.ROOT / "python/weir_runtime.py").read_text()
EXAMPLE = weir.ROOT / "examples/sklearn-process"
VENV = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
YAML = """
version: 1
project: elsewhere
gateway: {listen: "@GATEWAY@"}
models:
  m: {task: regression, features: [{name: a, type: float}, {name: b, type: float}]}
endpoints:
  m: {model: m, timeout: 2s}
"""
MANIFEST = """
command: [python3, main.py]
inputs: [{name: x, datatype: FP32, shape: [-1, 2]}]
outputs: [{name: y, datatype: FP32, shape: [-1, 1]}]
"""
PROGRAM = """
import os, signal, sys, time
from weir_runtime import serve

print("hello from", os.getpid(), file=sys.stderr)

def predict(inputs):
    x = inputs["x"]
    first = float(x[0, 0])
    if first == -1: os.kill(os.getpid(), signal.SIGKILL)
    if first == -2: time.sleep(60)
    if first == -3: raise ValueError("minus three is not for us")
    if first == -4: sys.stdout.write("noise\\n" * 5000)
    if first == -5: return {"y": [[os.getpid()]]}
    if first == -6: return {"y": [[len(bytearray(8 << 30))]]}
    if first == -7: os.write(3, b"garbage" * 100)
    return {"y": x.sum(axis=1)}

serve(predict)
"""


def post(address, path, body, timeout=20):
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def infer(project, a, b=0.0):
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [a, b]}]}
    return post(project.gateway, "/v2/models/m/infer", body)


def value(project, a, b=0.0):
    status, answer = infer(project, a, b)
    assert status == 200, answer
    return answer["outputs"][0]["data"][0]


def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def live(project, model, folder, *more, **options):
    done = project.run("register", model, folder, "--promote", *more, **options)
    until(lambda: weir.answers(f"http://{project.gateway}/readyz"))
    return done


@pytest.fixture
def program(weir_project):
    """make(PROGRAM, MANIFEST) -> a project that serves it."""
    def make(program=PROGRAM, manifest=MANIFEST):
        files = {"model/main.py": program, "model/model.yaml": manifest, "model/weir_runtime.py": HELPER}
        project = weir_project(YAML, files, start=False)
        project.start(VENV, gateway_path="/healthz")
        live(project, "m", "model")
        return project
    return make


def metric(project, name, **labels):
    with urllib.request.urlopen(f"http://{project.gateway}/metrics") as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return [sample.value for family in families for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()]


def zombies(project):
    found = subprocess.run(["ps", "-o", "stat=", "--ppid", str(project.pid_of("gateway"))],
                           capture_output=True, text=True)
    return sum(line.startswith("Z") for line in found.stdout.splitlines())


def test_the_example_serves_a_pickle(weir_project, tmp_path):
    project = weir_project((EXAMPLE / "weir.yaml").read_text(), start=False)
    for name in ("make_model.py", "model"):
        source = EXAMPLE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, project.folder / name)
    subprocess.run([sys.executable, "make_model.py"], cwd=project.folder, check=True)
    shutil.copy(weir.ROOT / "python/weir_runtime.py", project.folder / "model")
    project.start(VENV, gateway_path="/healthz")
    live(project, "returns", "model")
    model = pickle.loads((project.folder / "model/model.pkl").read_bytes())
    rows = np.float32([[59.9, 2, 0.2, 3.5, 6], [9.9, 1, 0, 1, 0], [150, 9, 0.5, 13, 7]])
    want = model.predict_proba(rows)

    client = triton.InferenceServerClient(project.gateway)
    assert client.get_model_metadata("returns")["platform"] == "process"
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    got = client.infer("returns", [tensor])
    np.testing.assert_allclose(got.as_numpy("probabilities"), want, rtol=1e-6)
    assert got.as_numpy("label").tolist() == want.argmax(axis=1).tolist()

    names = ["price", "items", "discount", "days_to_ship", "past_returns"]
    status, answer = post(project.gateway, "/v1/predict/returns",
                          {"features": dict(zip(names, map(float, rows[0]), strict=True))})
    assert status == 200 and answer["prediction"] == str(want[0].argmax())
    shown = project.run_json("models", "returns", "1")
    assert "process" in json.dumps(shown)


def test_a_program_that_dies_is_started_again(program):
    project = program()
    assert value(project, 1, 2) == 3
    first = value(project, -5)
    assert infer(project, -1)[0] == 503
    assert value(project, 1, 2) == 3  # waits for the new one
    assert value(project, -5) != first
    os.kill(int(value(project, -5)), signal.SIGKILL)  # between two requests
    until(lambda: infer(project, 1, 2)[0] == 200)
    assert zombies(project) == 0
    assert "killed by SIGKILL" in project.log(1000)
    until(lambda: metric(project, "weir_runtime_programs_ready", endpoint="m", version="1") == [1])
    assert metric(project, "weir_runtime_ends_total")[0] >= 2


def test_programs_die_with_the_gateway(program):
    project = program()
    pid = int(value(project, -5))
    os.kill(project.pid_of("gateway"), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    until(lambda: weir.answers(f"http://{project.gateway}/readyz"))
    assert value(project, 1, 2) == 3
    left = sorted((project.folder / ".weir/work").glob("process-*"))
    assert len(left) == 2, left  # a folder and its lock: those of the dead are gone
    project.stop()
    assert not list((project.folder / ".weir/work").glob("process-*"))


def test_what_a_program_says_is_in_the_log(program):
    project = program()
    assert value(project, -4) == -4
    until(lambda: "process.output" in project.log(5000))
    log = project.log(20000)
    assert re.search(r'event=process.output .*model=\w+ instance=0 .*line="hello from \d+"', log)
    assert 0 < log.count('line="noise"') + log.count("line=noise") <= 260  # limited
    assert value(project, 1, 2) == 3


def test_errors_of_a_program_reach_the_client(program):
    project = program()
    status, answer = infer(project, -3)
    assert (status, "minus three is not for us" in answer["error"]) == (400, True)
    status, answer = infer(project, -6)
    assert (status, "MemoryError" in answer["error"]) == (429, True)
    status, answer = infer(project, -7)
    assert status == 500, answer
    assert value(project, 1, 2) == 3


def test_a_stalled_program_costs_one_request(program):
    project = program(manifest=MANIFEST + "timeouts: {grace: 200ms}\n")
    begun = time.monotonic()
    assert infer(project, -2)[0] == 504
    assert time.monotonic() - begun < 4
    until(lambda: infer(project, 1, 2)[0] == 200)


def test_a_crash_loop_is_refused_at_once(program):
    project = program(manifest=MANIFEST + "restart: {backoff: 1ms, crash_limit: 3}\n")
    for _ in range(3):
        assert infer(project, -1)[0] == 503
    until(lambda: "process.broken" in project.log(1000))
    begun = time.monotonic()
    status, answer = infer(project, 1, 2)
    assert status == 503 and "again and again" in answer["error"]
    assert time.monotonic() - begun < 0.5


def test_what_does_not_work_is_not_registered(weir_project):
    files = {"model/main.py": "import sys; sys.exit('weights are missing')", "model/model.yaml": MANIFEST,
             "empty/readme": "nothing", "link/model.yaml": MANIFEST, "link/main.py": ""}
    project = weir_project(YAML, files, start=False)
    (project.folder / "link/passwd").symlink_to("/etc/passwd")
    project.start(VENV, gateway_path="/healthz")
    assert "weights are missing" in project.run("register", "m", "model", status=2).stderr
    assert "model.yaml" in project.run("register", "m", "empty", status=2).stderr
    assert "link" in project.run("register", "m", "link", status=2).stderr
    assert list((project.folder / ".weir/work").glob("*")) == []


# --- Remote ----------------------------------------------------------------------------------------

REMOTE = """
kind: remote
url: http://{address}
model: {model}
allow_private: true
retries: 1
backoff: 10ms
breaker: {{failure_threshold: 3, recovery_timeout: 500ms}}
"""


def test_another_weir_answers(weir_project):
    origin = weir_project(YAML, {"m.onnx": models.linear([1, 2], 0.5)}, start=False)
    origin.start(gateway_path="/healthz")
    live(origin, "m", "m.onnx")
    project = weir_project(YAML, {"remote.yaml": REMOTE.format(address=origin.gateway, model="m")},
                           start=False)
    project.start(gateway_path="/healthz")
    live(project, "m", "remote.yaml")
    assert value(project, 1, 2) == 5.5
    status, answer = post(project.gateway, "/v1/predict/m", {"features": {"a": 3, "b": 1}})
    assert status == 200 and float(answer["prediction"]) == 5.5
    client = triton.InferenceServerClient(project.gateway)
    assert client.get_model_metadata("m")["platform"] == "remote"

    origin.stop()
    assert [infer(project, 1, 2)[0] for _ in range(4)] == [503] * 4
    assert "state=open" in project.log(1000)
    assert metric(project, "weir_runtime_breaker", state="closed") == [0]
    assert metric(project, "weir_runtime_breaker_openings_total")[0] >= 1
    origin.start(gateway_path="/readyz")
    until(lambda: infer(project, 1, 2)[0] == 200)
    assert "state=closed" in project.log(1000)


class Crooked(http.server.BaseHTTPRequestHandler):
    """Metadata as it should be; answers as `mode` says."""
    protocol_version = "HTTP/1.1"
    mode, calls = "good", 0

    def log_message(self, *_):
        pass

    def say(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, content in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), content)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/v2":
            return self.say(200, {"name": "crooked", "version": "1", "extensions": []})
        spec = {"datatype": "FP32", "shape": [-1, 2]}
        self.say(200, {"name": "far", "inputs": [{"name": "x", **spec}],
                       "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode = Crooked.mode
        Crooked.calls += 1
        if mode == "503":
            return self.say(503, {"error": "not now"})
        if mode == "slow":
            time.sleep(3)
        if mode == "nonsense":
            return self.say(200, b"<html>welcome</html>")
        if mode == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"outputs":')
            self.close_connection = True
            return None
        tensor = body["inputs"][0]
        rows = np.reshape(tensor["data"], tensor["shape"]).sum(axis=1)
        shape = [len(rows), 1] if mode != "shape" else [len(rows), 2]
        data = np.repeat(rows, shape[1]).tolist()
        return self.say(200, {"model_name": "far", "outputs": [
            {"name": "y", "datatype": "FP32", "shape": shape, "data": data}]})


@pytest.fixture
def crooked():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Crooked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Crooked.mode, Crooked.calls = "good", 0
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_crooked_server_harms_nobody(weir_project, crooked):
    project = weir_project(YAML, {"remote.yaml": REMOTE.format(address=crooked, model="far")}, start=False)
    project.start(gateway_path="/healthz")
    live(project, "m", "remote.yaml")
    assert value(project, 1, 2) == 3
    for mode, status in (("503", 503), ("slow", 504), ("nonsense", 500), ("cut", 503), ("shape", 500)):
        Crooked.mode = mode
        Crooked.calls = 0
        got, answer = infer(project, 1, 2)
        assert got == status, (mode, answer)
        # A run that fails may be tried once more, request by request; each with one retry where safe.
        assert Crooked.calls <= (4 if mode == "503" else 2), mode
        assert crooked not in answer["error"]
        Crooked.mode = "good"
        until(lambda: infer(project, 1, 2)[0] == 200)
    Crooked.mode = "nonsense"
    for _ in range(3):
        infer(project, 1, 2)
    Crooked.calls = 0
    begun = time.monotonic()
    assert [infer(project, 1, 2)[0] for _ in range(5)] == [503] * 5
    assert Crooked.calls <= 1 and time.monotonic() - begun < 1  # the breaker is open
    Crooked.mode = "good"
    until(lambda: infer(project, 1, 2)[0] == 200)


def test_a_private_address_needs_a_word(weir_project, crooked):
    text = REMOTE.format(address=crooked, model="far").replace("allow_private: true\n", "")
    project = weir_project(YAML, {"remote.yaml": text}, start=False)
    project.start(gateway_path="/healthz")
    assert "allow_private" in project.run("register", "m", "remote.yaml", status=2).stderr


def test_a_breaker_is_held_by_hand(weir_project, crooked):
    yaml = YAML.replace("timeout: 2s", "timeout: 2s, fallback: {chain: [{answer: {prediction: -1}}]}")
    features = "[{name: a, type: float}, {name: b, type: float}]"
    yaml = yaml.replace("endpoints:", "endpoints:\n  n: {model: n}").replace(
        "models:", f"models:\n  n: {{task: regression, features: {features}}}")
    project = weir_project(yaml, {"remote.yaml": REMOTE.format(address=crooked, model="far"),
                                  "n.onnx": models.linear([1, 2], 0.5)}, start=False)
    project.start(gateway_path="/healthz")
    project.run("register", "m", "remote.yaml", "--promote")
    live(project, "n", "n.onnx")  # and with it both
    assert value(project, 1, 2) == 3

    done = project.run("breaker", "m", "open", "--reason", "their database is being moved")
    assert "version 1, is held open" in done.stderr
    until(lambda: value(project, 1, 2) == -1)
    calls = Crooked.calls
    status, answer = infer(project, 1, 2)
    assert status == 200 and answer["parameters"]["fallback_reason"] == "unavailable", answer
    assert Crooked.calls == calls and metric(project, "weir_runtime_breaker", state="open") == [1]
    facts = project.run("journal", "list", "--type", "breaker.forced", "--json").stdout
    assert "their database is being moved" in json.dumps(json.loads(facts))
    project.stop()  # it is a word that holds
    project.start()
    assert value(project, 1, 2) == -1

    project.run("breaker", "m", "closed", "--reason", "call it in any case")
    until(lambda: value(project, 1, 2) == 3)
    Crooked.mode = "nonsense"
    calls = Crooked.calls
    assert [value(project, 1, 2) for _ in range(6)] == [-1] * 6
    assert Crooked.calls == calls + 6 and metric(project, "weir_runtime_breaker", state="closed") == [1]

    project.run("breaker", "m", "auto", "--reason", "it is over")
    until(lambda: (value(project, 1, 2), metric(project, "weir_runtime_breaker", state="closed")[0])[1] == 0)
    Crooked.mode = "good"
    until(lambda: value(project, 1, 2) == 3)

    def refused(*words):
        return project.run("breaker", *words, "--reason", "x", status=None)

    sideways = refused("m", "sideways")
    assert sideways.returncode == 2 and "open, closed or auto" in sideways.stderr
    assert "no version 9" in refused("m", "open", "--version", "9").stderr
    assert "only remote models have one" in refused("n", "open").stderr
    assert "reason" in project.run("breaker", "m", "open", status=2).stderr
