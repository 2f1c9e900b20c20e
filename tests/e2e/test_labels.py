# SPDX-License-Identifier: Apache-2.0
"""Labels that come late, twice, corrected, or for nothing that was ever asked: what a retraining then
trains on."""
import time

import models
import numpy as np
import pyarrow
import pyarrow.parquet
import requests
from loop import QUIET, rows, truth

ROWS = 20
PATIENT = (QUIET.replace("    cooldown: 0s\n", "    cooldown: 0s\n    require: {min_labels: 400, wait: 1m}\n")
           .replace("      min_rows: 500\n", "      min_rows: 100\n      include_dataset: false\n"))


class Client:
    def __init__(self, project):
        self.project, self.asked, self.rng = project, {}, np.random.default_rng(5)

    def ask(self, name):
        """A request whose label nobody knows yet."""
        x = rows(self.rng, ROWS).astype(np.float32).astype(float)  # records hold what the model got
        fields = [dict(zip("abc", r, strict=True)) for r in x.tolist()]
        answer = requests.post(f"http://{self.project.gateway}/v1/predict/e", timeout=10,
                               json={"rows": fields, "metadata": {"request_id": name}})
        assert answer.status_code == 200, answer.text
        self.asked[name] = x

    def tell(self, *label_lists):
        answer = requests.post(f"http://{self.project.gateway}/v1/feedback", timeout=10,
                               json={"feedback": [label for labels in label_lists for label in labels]})
        assert answer.status_code == 202, answer.text

    def labels(self, name, turned=False):
        return [{"request_id": name, "row": k, "label": int(t) ^ turned}
                for k, t in enumerate(truth(self.asked[name]))]


def trained_on(project):
    """{(a, b, c): label} of the run, and how many rows it had."""
    folder = next(project.folder.glob(".weir/work/*/manifest.json")).parent
    parts = [pyarrow.parquet.read_table(folder / f"{name}.parquet") for name in ("train", "holdout")]
    table = pyarrow.concat_tables([p.select(["a", "b", "c", "bad"]) for p in parts]).to_pydict()
    found = {row[:3]: row[3] for row in zip(*table.values(), strict=True)}
    return found, len(table["a"])


def test_late_and_corrected_labels_are_trained_on(world):
    project, control = world(PATIENT, champion=False)
    control.begin_with(project.write("fine.onnx", models.brittle(fails_above=1e6)))
    client = Client(project)
    early, unsure, mended = ([f"{word}-{i}" for i in range(10)] for word in ("early", "unsure", "mended"))
    for name in early:
        client.ask(name)
    # Their records become Parquet, and the gateway that could have joined labels in memory is gone.
    project.stop()
    project.start()
    project.wait(lambda: list(project.folder.glob(".weir/lake/records/**/*.parquet")), 20, "exported")
    for name in unsure + mended + ["unlabelled"]:
        client.ask(name)
    before = control.last()
    flow = control.retrain("as soon as 400 labels are there")
    project.wait(lambda: control.flow(flow)["state"] == "sleeping", 10, "waiting for labels")
    for name in early:
        client.tell(client.labels(name))
    for i in range(100):
        client.tell([{"request_id": f"nobody-{i}", "row": k, "label": "1"} for k in range(ROWS)])
    client.tell([{"request_id": early[0], "row": 1000, "label": 1}])
    for turned in (True, True, False):
        for name in unsure:
            client.tell(client.labels(name, turned))
    time.sleep(0.5)
    steps = [f["data"]["step"] for f in control.facts("retrain.step", before)]
    assert "labels" not in steps, "late or repeated labels were counted for new ones"
    for name in mended:
        client.tell(client.labels(name, True), client.labels(name))
    control.wait_fact("retrain.step", 30, before, lambda f: f["data"]["step"] == "snapshot")
    found, count = trained_on(project)
    assert count == len(found) == 30 * ROWS
    for name in early + unsure + mended:
        told = [found[tuple(r)] for r in client.asked[name].tolist()]
        assert told == [str(t) for t in truth(client.asked[name])], name
    assert project.stop() == 0
