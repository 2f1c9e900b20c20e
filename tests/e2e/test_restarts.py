# SPDX-License-Identifier: Apache-2.0
"""What control and the gateway know, across their deaths: evidence of monitors and rollouts counts each
row once, a drift is told once, and a gateway that starts again is another one."""
import http.client
import os
import random
import signal
import time

import pytest
import weir
from loop import QUIET, Traffic

HELD = QUIET.replace("{weight: 50%, hold: 500ms, min_rows: 100}", "{weight: 50%, hold: 10min, min_rows: 100}")
assert HELD != QUIET


def monitors(control):
    try:
        return control.get("/drift")["monitors"]
    except (OSError, http.client.HTTPException):
        return []  # it is being started


def rows(control):
    return sum(m["rows"] for m in monitors(control))


def kill(project, role):
    os.kill(project.pid_of(role), signal.SIGKILL)


def kill_control(project, control, times, rng):
    """At instants of no meaning; each time it comes back."""
    for _ in range(times):
        time.sleep(rng.uniform(0.2, 1.5))
        project.wait(lambda: monitors(control), 20, "watching")
        kill(project, "control")


def settled(project, control, traffic):
    """All rows that were answered are in the evidence, and no more than these."""
    want = sum(traffic.versions.values())
    project.wait(lambda: rows(control) >= want, 20, f"knowing all {want} rows")
    time.sleep(1)
    assert rows(control) == want
    assert sum(m["labels"]["joined"] for m in monitors(control)) == want


def test_each_row_counts_once(world):
    project, control = world(QUIET)
    rng = random.Random(1)
    with Traffic(project.gateway) as traffic:
        kill_control(project, control, 5, rng)
        time.sleep(1)
    settled(project, control, traffic)
    assert traffic.failed == 0 and "drift.detected" not in control.types()
    assert project.log_path.read_text().count("event=evidence.restored") >= 4
    with Traffic(project.gateway, seed=3) as more:  # and across an orderly end
        time.sleep(1)
    project.wait(lambda: rows(control) >= sum(traffic.versions.values()) + sum(more.versions.values()), 10,
                 "counting")
    before = rows(control)
    assert project.stop() == 0
    project.start()
    project.wait(lambda: rows(control), 10, "watching")
    assert rows(control) == before


def test_a_drift_is_told_once(world):
    project, control = world(QUIET)
    rng = random.Random(2)
    with Traffic(project.gateway) as traffic:
        time.sleep(2)
        traffic.shifted = True
        control.wait_fact("drift.detected", 18)
        kill_control(project, control, 4, rng)
        time.sleep(2)
        project.wait(lambda: monitors(control), 20, "watching")
        assert [m["state"] for m in monitors(control)] == ["drifting"]
        assert len(control.facts("drift.detected")) == 1, control.story()
        traffic.shifted = False
        control.wait_fact("drift.cleared", 60)
        kill(project, "control")
        time.sleep(2)
        project.wait(lambda: monitors(control), 20, "watching")
    assert len(control.facts("drift.cleared")) == 1 and len(control.facts("drift.detected")) == 1
    assert traffic.failed == 0


@pytest.fixture
def in_rollout(world):
    """A rollout that stays in its first step, under traffic: version 2 is version 1 again."""
    project, control = world(HELD)
    model = next(project.folder.glob(".weir/work/*/out/model.json"))
    version = control.register(model)
    return project, control, version


def rollout(control):
    try:
        found = control.get("/rollouts")["rollouts"]
    except (OSError, http.client.HTTPException):
        return None
    return found[0] if found else None


def requests_judged(control):
    state = rollout(control)
    return sum(state["evidence"][arm]["requests"] for arm in ("champion", "challenger")) if state else 0


def test_evidence_of_a_rollout_goes_on(in_rollout):
    project, control, version = in_rollout
    rng = random.Random(3)
    control.post("/endpoints/e/promote", {"version": version, "reason": "a test asks"})
    control.wait_fact("rollout.step.advanced", 10)
    project.wait(lambda: control.get("/status")["plan_live"], 10, "serving both")
    with Traffic(project.gateway, labels=False) as traffic:
        kill_control(project, control, 3, rng)
        project.wait(lambda: requests_judged(control), 20, "judging")
        time.sleep(1.5)
        kill(project, "gateway")  # another run of digests, which the clock does not mistake for the old one
        time.sleep(0.5)
        project.wait(lambda: weir.answers(f"http://{project.gateway}/readyz"), 20, "answering")
        kill_control(project, control, 1, rng)
        time.sleep(1)
    sent = traffic.sent - traffic.failed
    project.wait(lambda: requests_judged(control) > 0, 10, "judging")
    time.sleep(2)
    judged = requests_judged(control)
    # What the gateway had answered and not yet sent when it was killed is lost, once: half a second of it.
    assert sent - 40 <= judged <= sent, (sent, judged)
    assert rollout(control)["state"] == "step" and len(control.facts("rollout.started")) == 1
