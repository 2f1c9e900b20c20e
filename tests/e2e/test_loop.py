# SPDX-License-Identifier: Apache-2.0
"""The whole loop on the real program: first champion, quiet traffic, drift, triage, retrain, gate,
rollout, and what may go wrong on the way."""
import time

import pytest

from loop import YAML, Control, Traffic, table


@pytest.fixture
def world(weir_project):
    """make(yaml, files) -> (project, control): a project whose first champion has been trained."""
    def make(yaml=YAML, files=None, champion=True):
        project = weir_project(yaml, {"data/past.csv": table(), **(files or {})}, start=False)
        project.start(gateway_path="/healthz")
        control = Control(project)
        if champion:
            flow = control.retrain("the first champion")
            control.wait_fact("retrain.finished", 40)
            project.wait(lambda: control.flow(flow)["state"] == "done", 10, "done with the first run")
            project.wait(lambda: control.get("/status")["plan_live"], 10, "serving the champion")
            assert control.champion() == 1, control.story()
        return project, control
    return make


def one_story(control, last):
    """Facts of the correlation of `last`, by type, in order."""
    return [f["type"] for f in control.get(f"/journal?correlation={last['correlation']}&limit=1000")["facts"]]


def in_order(facts, wanted):
    rest = iter(facts)
    assert all(w in rest for w in wanted), f"{wanted} is not in order in {facts}"


def test_drift_to_promotion(world):
    project, control = world()
    with Traffic(project.gateway) as traffic:
        time.sleep(6)
        assert "drift.detected" not in control.types(), control.story()
        assert traffic.failed == 0
        start = time.time()
        traffic.shifted = True
        control.wait_fact("drift.detected", 18)
        control.wait_fact("trigger.fired", 5, where=lambda f: f["data"]["rule"] == "drift")
        control.wait_fact("gate.evaluated", 60, where=lambda f: f["data"]["champion_version"] == 1)
        promoted = control.wait_fact("rollout.promoted", 60)
        print(f"promoted {time.time() - start:.1f} s after the change")
        project.wait(lambda: traffic.last_seen.get("2", 0) > time.time() - 1, 10, "answering by version 2")
        assert traffic.failed == 0
    finished = control.wait_fact("retrain.finished", 20, where=lambda f: f["data"]["version"] == 2)
    story = one_story(control, promoted)
    in_order(story, ["drift.detected", "trigger.fired", "retrain.started", "triage.finished", "retrain.step",
                     "model.registered", "gate.evaluated", "rollout.started", "rollout.step.advanced",
                     "rollout.promoted", "retrain.finished"])
    assert "plan.compiled" in story and "plan.live" in story
    assert finished["data"]["result"] == "promoted"
    assert control.champion() == 2
    verified = control.get("/journal/verify")
    assert verified.get("ok", True) is not False, verified
