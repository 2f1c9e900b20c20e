# SPDX-License-Identifier: Apache-2.0
"""Three classes with names, from the first training to the promotion of what was learnt after a
change: the answers are right class by class, by field name and by tensor."""
import json
import time

import numpy as np
import requests
from loop import YAML, Traffic, rows

COLOURS = ["red", "green", "blue"]
THREE = (YAML.replace('classes: ["0", "1"]', f"classes: {json.dumps(COLOURS)}")
         .replace('    positive: "1"\n', "").replace("f1", "macro_f1").replace("label: bad", "label: colour")
         .replace("min_labels: 1500", "min_labels: 4000"))


FAR = 2.0  # of a: hardly seen before the change


def colour(x, shifted=False):
    """Bands of a + b; since the change, where a is large, bands of b the other way round."""
    side = x[:, 0] + x[:, 1]
    if shifted:
        side = np.where(x[:, 0] > FAR, -x[:, 1], side)
    return np.array(COLOURS)[np.digitize(side, [-0.6, 0.6])]


def colours(n=6000):
    x = rows(np.random.default_rng(3), n)
    return "a,b,c,colour\n" + "".join(f"{r[0]:.6f},{r[1]:.6f},{r[2]:.6f},{t}\n"
                                      for r, t in zip(x, colour(x), strict=True))


def ask(project, x):
    """What the endpoint says by field name and by tensor: must be the same. -> (names, version)"""
    fields = [dict(zip("abc", r, strict=True)) for r in x.tolist()]
    said = requests.post(f"http://{project.gateway}/v1/predict/e", json={"rows": fields}, timeout=10).json()
    meta = requests.get(f"http://{project.gateway}/v2/models/e", timeout=10).json()
    tensor = meta["inputs"][0]
    answer = requests.post(f"http://{project.gateway}/v2/models/e/infer", timeout=10, json={"inputs": [
        {"name": tensor["name"], "datatype": tensor["datatype"], "shape": list(x.shape),
         "data": x.ravel().tolist()}]}).json()
    outputs = {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer["outputs"]}
    shares = next(v for v in outputs.values() if v.shape == (len(x), 3))
    names = [p["prediction"] for p in said["predictions"]]
    assert names == [COLOURS[i] for i in shares.argmax(axis=1)]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    for key in ("score", "confidence"):  # there is no positive class: that of the class given
        np.testing.assert_allclose([p[key] for p in said["predictions"]], shares.max(axis=1), atol=1e-6)
    assert answer["model_version"] == str(said["predictions"][0].get("model_version",
                                                                     said.get("model_version")))
    return np.array(names), answer["model_version"]


def right_by_class(project, shifted):
    x = rows(np.random.default_rng(4), 1500, shifted).astype(np.float32).astype(float)
    x = x[x[:, 0] > FAR][:250] if shifted else x[:250]
    names, version = ask(project, x)
    truth = colour(x, shifted)
    return {c: (names[truth == c] == c).mean() for c in COLOURS}, version


def test_three_classes_from_drift_to_promotion(world):
    project, control = world(THREE, {"data/past.csv": colours()})
    right, version = right_by_class(project, shifted=False)
    assert version == "1" and min(right.values()) > 0.85, right
    with Traffic(project.gateway, truth=colour) as traffic:
        time.sleep(3)
        assert "drift.detected" not in control.types(), control.story()
        traffic.shifted = True
        drift = control.wait_fact("drift.detected", 18)
        assert "a" in {f["feature"] for f in drift["data"]["features"]}, drift
        control.wait_fact("gate.evaluated", 60, where=lambda f: f["data"]["champion_version"] == 1)
        control.wait_fact("rollout.promoted", 60)
        project.wait(lambda: traffic.last_seen.get("2", 0) > time.time() - 1, 10, "answering by version 2")
        assert traffic.failed == 0
    right, version = right_by_class(project, shifted=True)
    assert version == "2" and min(right.values()) > 0.7, right  # of version 1 it is near 0
