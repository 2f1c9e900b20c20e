# SPDX-License-Identifier: Apache-2.0
"""A small world that drifts, and a project that should notice: data, traffic with labels, and what the
journal says of it.

The truth before the change is a + b > 0, after it a - b > 1 with a shifted by 1.5: the old model is
wrong there, and a new one can learn it.
"""
import http.client
import json
import threading
import time

import numpy as np
import weir

YAML = """
version: 1
project: loop
gateway:
  listen: 127.0.0.1:8080
  loops: 1
  records: {flush_interval: 50ms, seal_interval: 1s}
datasets:
  past: {path: data/past.csv, label: bad}
trainers:
  trees: {kind: xgboost, rounds: 20, max_depth: 4, threads: 1, seed: 1, retries: 0}
models:
  m:
    task: classification
    dataset: past
    trainer: trees
    classes: ["0", "1"]
    positive: "1"
    metric: f1
    features:
      - {name: a, type: double}
      - {name: b, type: double, required: false}
      - {name: c, type: double}
    retrain:
      window: 1h
      min_rows: 500
      evaluation:
        gates: [{metric: f1, min_absolute: 0.7, not_worse_than: 0.02}]
endpoints:
  e: {model: m, timeout: 1s, rollout: fast}
monitors:
  e: {endpoint: e, false_alarms: {one_in: 30d}}
triggers:
  drift:
    on: drift
    endpoint: e
    min_severity: moderate
    cooldown: 0s
    require: {min_labels: 1500, wait: 20s}
    budget: {max_per_day: 1000}
rollouts:
  fast:
    steps:
      - {weight: 50%, hold: 500ms, min_rows: 100}
    guards: {p99: off, p99_ratio: off}
    bake: 1s
    post_checks: [1s]
    rollback_window: 30s
"""


POISON = 100.0
# The same without triggers that fire by themselves, and a retraining that waits for nothing.
QUIET = (YAML.replace("    on: drift\n", "    on: manual\n").replace("    min_severity: moderate\n", "")
         .replace("    require: {min_labels: 1500, wait: 20s}\n", ""))


def rows(rng, n, shifted=False):
    x = rng.normal(size=(n, 3))
    if shifted:
        x[:, 0] += 1.5
    return x


def truth(x, shifted=False):
    return ((x[:, 0] - x[:, 1] > 1.0) if shifted else (x[:, 0] + x[:, 1] > 0)).astype(int)


def table(n=6000, seed=1, shifted=False):
    """The dataset as CSV text."""
    rng = np.random.default_rng(seed)
    x = rows(rng, n, shifted)
    y = truth(x, shifted)
    return "a,b,c,bad\n" + "".join(f"{r[0]:.6f},{r[1]:.6f},{r[2]:.6f},{t}\n"
                                   for r, t in zip(x, y, strict=True))


class Traffic:
    """Sends rows and, a moment later, their labels, on a thread of its own, until stopped. What is sent
    may be changed at any time: shifted, missing (share of b that is null), labels, poison (share of
    requests with one c of 100, which models.brittle() cannot bear). `truth` gives the labels."""

    def __init__(self, gateway, endpoint="e", rows_per_request=25, pause=0.02, labels=True, seed=2,
                 truth=truth):
        self.gateway, self.endpoint, self.pause, self.labels = gateway, endpoint, pause, labels
        self.rows_per_request, self.shifted, self.missing = rows_per_request, False, 0.0
        self.truth, self.poison = truth, 0.0
        self.rng = np.random.default_rng(seed)
        self.sent = self.failed = 0
        self.last_failed = 0.0  # when
        self.seconds = []  # what each answer took
        self.versions = {}  # rows answered, by version
        self.last_seen = {}  # when a version answered last
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def post(self, connection, path, body):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def once(self, connection, i):
        x = rows(self.rng, self.rows_per_request, self.shifted)
        y = self.truth(x, self.shifted).tolist()
        if self.rng.random() < self.poison:
            x[0, 2] = POISON
        gone = self.rng.random(len(x)) < self.missing
        request = f"r{id(self)}-{i}"
        fields = [{"a": r[0], "b": None if g else r[1], "c": r[2]} for r, g in
                  zip(x.tolist(), gone, strict=True)]
        start = time.monotonic()
        status, text = self.post(connection, f"/v1/predict/{self.endpoint}",
                                 {"rows": fields, "metadata": {"request_id": request}})
        self.seconds.append(time.monotonic() - start)
        self.sent += 1
        if status != 200:
            self.failed += 1
            self.last_failed = time.time()
            return
        said = json.loads(text)
        version = str(said.get("model_version", said["predictions"][0].get("model_version")))
        self.versions[version] = self.versions.get(version, 0) + len(x)
        self.last_seen[version] = time.time()
        if self.labels:
            labels = [{"request_id": request, "row": k, "label": t} for k, t in enumerate(y)]
            self.post(connection, "/v1/feedback", {"feedback": labels})

    def run(self):
        connection, i = None, 0
        while not self.over.wait(self.pause):
            try:
                connection = connection or http.client.HTTPConnection(self.gateway, timeout=5)
                self.once(connection, i)
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection = None  # the gateway is being restarted
                time.sleep(0.05)
            i += 1


class Control:
    """The API of a project's control process, and what its journal tells."""

    def __init__(self, project):
        self.project = project

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.project.control, timeout=20)
        connection.request(method, "/api/v1" + path, None if body is None else json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    def get(self, path):
        status, answer = self.call("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path, body=None, status=200):
        got, answer = self.call("POST", path, body or {})
        assert got in ((200, 201, 202) if status == 200 else (status,)), (got, answer)
        return answer

    def facts(self, kind=None, after=0):
        query = f"/journal?limit=10000&after={after}" + (f"&type={kind}" if kind else "")
        return self.get(query)["facts"]

    def types(self, after=0):
        return [f["type"] for f in self.facts(after=after)]

    def wait_fact(self, kind, seconds=30, after=0, where=lambda f: True):
        found = []

        def there():
            try:
                found[:] = [f for f in self.facts(kind, after) if where(f)]
            except (OSError, http.client.HTTPException):
                return False  # control is being restarted
            return bool(found)

        try:
            self.project.wait(there, seconds, f"telling {kind}")
        except AssertionError as why:
            raise AssertionError(f"{why}\nfacts:\n{self.story()}") from None
        return found[0]

    def story(self):
        try:
            return "\n".join(f"{f['seq']:4} {f['type']:24} {f['subject']:14} {f['reason'][:100]}"
                             for f in self.facts())
        except (OSError, http.client.HTTPException) as why:
            return f"(control does not answer: {why})"

    def last(self):
        return max((f["seq"] for f in self.facts()), default=0)

    def champion(self, model="m"):
        return self.get(f"/models/{model}/live").get("version")

    def retrain(self, reason="a test asks", **more):
        return self.post("/retrain", {"endpoint": "e", "reason": reason, **more})["flow"]

    def register(self, path, model="m"):
        """The number that the model file got; the first one of a model is its champion."""
        before = self.last()
        self.post(f"/models/{model}/versions", {"path": str(path), "reason": "by hand"})
        return self.wait_fact("model.registered", 30, before)["data"]["version"]

    def begin_with(self, path):
        """The first champion is this file: no training."""
        assert self.register(path) == 1
        self.project.wait(lambda: weir.answers(f"http://{self.project.gateway}/readyz"), 10, "serving it")

    def flow(self, flow):
        return self.get(f"/flows/{flow}")
