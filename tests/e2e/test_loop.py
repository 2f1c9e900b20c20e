# SPDX-License-Identifier: Apache-2.0
"""The whole loop on the real program: first champion, quiet traffic, drift, triage, retrain, gate,
rollout, and what may go wrong on the way."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import weir
from loop import YAML, Traffic

# A trainer of one's own that does as data/mode says; "good" and "worse" use the built-in one, the
# latter on labels that were turned round.
TRAINER = """
import os, sys, time, pathlib
mode = pathlib.Path("data/mode").read_text().strip()
out = pathlib.Path(os.environ["WEIR_MODEL_OUT"])
print("mode", mode, flush=True)
if mode == "hang":
    pathlib.Path("data/pid").write_text(str(os.getpid()))
    time.sleep(600)
if mode == "crash":
    print("the GPU is on fire", file=sys.stderr)
    os.abort()
if mode == "nothing":
    sys.exit(0)
if mode == "garbage":
    (out / "model.onnx").write_bytes(b"\\x08\\x01not a model" * 100)
    sys.exit(0)
if mode == "worse":
    import pyarrow, pyarrow.parquet
    t = pyarrow.parquet.read_table(os.environ["WEIR_TRAIN_DATA"])
    turned = pyarrow.array(["1" if v == "0" else "0" for v in t["bad"].to_pylist()])
    worse = out.parent / "worse.parquet"
    pyarrow.parquet.write_table(t.set_column(t.schema.get_field_index("bad"), "bad", turned), worse)
    os.environ["WEIR_TRAIN_DATA"] = str(worse)
weir = pathlib.Path("data/weir").read_text()
os.environ.setdefault("WEIR_DEPS_LIB", pathlib.Path("data/libs").read_text())
os.execv(weir, [weir, "trainer-xgboost"])
"""
COMMAND = YAML.replace("trees: {kind: xgboost, rounds: 20, max_depth: 4, threads: 1, seed: 1, retries: 0}",
                       f"trees: {{kind: command, command: ['{sys.executable}', train.py], timeout: 20s, "
                       "retries: 0, memory: off}")
assert COMMAND != YAML


@pytest.fixture
def trainer_world(world):
    """The same with a trainer that does as mode(word) says."""
    def make(yaml=COMMAND, champion=True):
        files = {"train.py": TRAINER, "data/mode": "good", "data/weir": str(weir.binary()),
                 "data/libs": os.environ.get("WEIR_DEPS_LIB", str(weir.ROOT / ".deps/lib"))}
        project, control = world(yaml, files, champion)
        return project, control, lambda word: project.write("data/mode", word)
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


def test_quiet_traffic_raises_nothing_and_worse_is_rejected(trainer_world):
    project, control, mode = trainer_world()
    mode("worse")
    before = control.last()
    flow = control.retrain("somebody hopes for the best", override=True)
    rejected = control.wait_fact("retrain.rejected", 40, before)
    assert rejected["data"]["verdict"] == "REJECT"
    assert any(not g["passed"] for g in rejected["data"]["gates"])
    assert control.champion() == 1 and "rollout.started" not in control.types(before)
    kept = control.get("/models/m/versions/2")  # the candidate stays, with the reasons
    assert "REJECT" in str(kept), kept
    assert control.flow(flow)["result"]["result"] == "rejected"


def test_gate_compares_with_what_the_endpoint_serves(trainer_world):
    """Also under another alias than champion: a worse version is no first version."""
    project, control, mode = trainer_world(
        COMMAND.replace("e: {model: m, timeout", "e: {model: m, alias: stable, timeout")
        .replace("min_absolute: 0.7, ", ""), champion=False)
    control.retrain("the first one")
    first = control.wait_fact("retrain.finished", 40)
    assert first["data"]["version"] == 1
    assert control.facts("gate.evaluated")[0]["data"]["champion_version"] == 0
    project.wait(lambda: weir.answers(f"http://{project.gateway}/readyz"), 10, "serving it")
    mode("worse")
    control.retrain("somebody hopes for the best", override=True)
    rejected = control.wait_fact("retrain.rejected", 40, first["seq"])
    assert rejected["data"]["champion_version"] == 1 and rejected["data"]["verdict"] == "REJECT"
    assert "rollout.started" not in control.types()


@pytest.mark.parametrize("word, says", [("crash", "GPU is on fire"), ("nothing", "left no model"),
                                        ("garbage", "refused"), ("hang", "did not end within")])
def test_trainer_that_fails_leaves_the_champion_alone(trainer_world, word, says):
    project, control, mode = trainer_world(COMMAND.replace("timeout: 20s", "timeout: 12s"))
    mode(word)
    before = control.last()
    with Traffic(project.gateway, labels=False) as traffic:
        control.retrain("a test asks", override=True)
        failed = control.wait_fact("retrain.failed", 40, before)
        assert traffic.failed == 0 and set(traffic.versions) == {"1"}
    assert says in failed["data"]["error"], failed
    assert control.champion() == 1
    if word == "garbage":
        assert "model.refused" in control.types(before)
    if word == "hang":
        pid = int((project.folder / "data/pid").read_text())
        assert not Path(f"/proc/{pid}").exists()


def test_trainer_is_tried_again_as_the_project_says(trainer_world):
    project, control, mode = trainer_world(COMMAND.replace("retries: 0", "retries: 2, retry_delay: 1s"))
    mode("crash")
    before = control.last()
    control.retrain("a test asks", override=True)
    control.wait_fact("retrain.step", 30, before, lambda f: f["data"].get("failed") == 1)
    mode("good")
    done = control.wait_fact("retrain.step", 30, before,
                             lambda f: f["data"]["step"] == "train" and "path" in f["data"])
    assert done["correlation"] == control.wait_fact("trigger.fired", 1, before)["correlation"]


def test_cancel_kills_the_trainer(trainer_world):
    project, control, mode = trainer_world()
    mode("hang")
    before = control.last()
    flow = control.retrain("a test asks", override=True)
    project.wait(lambda: (project.folder / "data/pid").exists(), 20, "training")
    pid = int((project.folder / "data/pid").read_text())
    control.post(f"/flows/{flow}/cancel", {"reason": "never mind"})
    failed = control.wait_fact("retrain.failed", 15, before)
    assert failed["data"]["state"] == "cancelled"
    assert not Path(f"/proc/{pid}").exists()
    assert control.flow(flow)["state"] == "cancelled"


def test_null_spike_is_not_trained_on(world):
    project, control = world()
    with Traffic(project.gateway) as traffic:
        time.sleep(3)
        traffic.missing = 0.9
        before = control.last()
        triage = control.wait_fact("triage.finished", 30, before)
        assert triage["data"]["verdict"] == "upstream_fault" and "'b'" in triage["data"]["why"], triage
        skipped = control.wait_fact("retrain.skipped", 10, before)
        assert skipped["correlation"] == control.wait_fact("drift.detected", 1)["correlation"]
        time.sleep(2)
    assert control.champion() == 1
    assert not [f for f in control.facts("retrain.step", before) if f["data"]["step"] == "train"]


def bad_model(project):
    """A model that has learnt the opposite, trained outside of the loop."""
    data = next(project.folder.glob(".weir/work/*/train.parquet"))
    table = pyarrow.parquet.read_table(data)
    turned = pyarrow.array(["1" if v == "0" else "0" for v in table["bad"].to_pylist()])
    out = project.folder / "bad"
    out.mkdir()
    pyarrow.parquet.write_table(table.set_column(table.schema.get_field_index("bad"), "bad", turned),
                                out / "train.parquet")
    subprocess.run([weir.binary(), "trainer-xgboost"], check=True, env={
        **os.environ, "WEIR_TRAIN_DATA": str(out / "train.parquet"), "WEIR_MODEL_OUT": str(out),
        "WEIR_TRAIN_SPEC": str(data.parent / "spec.json")})
    return out / "model.json"


def test_canary_that_hurts_goes_back(world):
    project, control = world()
    version = control.register(bad_model(project))
    with Traffic(project.gateway) as traffic:
        time.sleep(1)
        before = control.last()
        control.post("/endpoints/e/promote", {"version": version, "reason": "let us see"})
        back = control.wait_fact("rollout.rolled_back", 30, before)
        seen = time.time()
        judged = [f for f in control.facts("rollout.judged", before) if f["seq"] < back["seq"]][-1]
        time.sleep(1.5)
        assert traffic.last_seen.get(str(version), 0) < seen + 1.0, "traffic did not go back within 1 s"
        assert traffic.failed == 0
        assert judged["correlation"] == back["correlation"]
    assert control.champion() == 1


def test_orders_of_people(world):
    slow = YAML.replace("hold: 500ms", "hold: 1h").replace("min_rows: 100}", "min_rows: 0}")
    project, control = world(slow)
    version = control.register(next(project.folder.glob(".weir/work/*/out/model.json")))
    with Traffic(project.gateway, labels=False) as traffic:
        control.post("/endpoints/e/promote", {"version": version, "reason": "half of it"})
        project.wait(lambda: str(version) in traffic.versions, 10, "in canary")
        control.post("/endpoints/e/rollout", {"order": "abort", "reason": "no"})
        asked = time.time()
        time.sleep(1.5)
        assert traffic.last_seen[str(version)] < asked + 1.0
        assert "rollout.aborted" in control.types()
        control.post("/endpoints/e/promote", {"version": version, "reason": "all of it", "direct": True})
        project.wait(lambda: traffic.last_seen[str(version)] > time.time() - 0.3, 10, "promoted")
        control.post("/endpoints/e/rollback", {"reason": "I do not like it"})
        asked = time.time()
        time.sleep(1.5)
        assert traffic.last_seen[str(version)] < asked + 1.0 and traffic.failed == 0
    assert control.champion() == 1


def test_loop_survives_kills(world):
    project, control = world()
    with Traffic(project.gateway) as traffic:
        time.sleep(3)
        traffic.shifted = True
        control.wait_fact("retrain.started", 25, where=lambda f: f["reason"] != "the first champion")
        os.kill(project.pid_of("control"), signal.SIGKILL)
        control.wait_fact("retrain.step", 60, where=lambda f: f["data"]["step"] == "gate"
                          and f["data"].get("champion_version") == 1)
        os.kill(project.pid_of("gateway"), signal.SIGKILL)
        control.wait_fact("rollout.step.advanced", 30)
        os.kill(project.pid_of("control"), signal.SIGKILL)
        control.wait_fact("rollout.promoted", 60)
        project.wait(lambda: traffic.last_seen.get("2", 0) > time.time() - 1, 15, "answering by version 2")
    fired = [f for f in control.facts("trigger.fired") if f["data"]["rule"] == "drift"]
    assert len(fired) == 1 and control.champion() == 2, control.story()
    assert project.stop() == 0


def test_review_waits_for_a_person(world):
    project, control = world(YAML.replace("    on: drift\n", "    on: manual\n    policy: review\n")
                             .replace("    endpoint: e\n    min_severity: moderate\n", "    endpoint: e\n")
                             .replace("    require: {min_labels: 1500, wait: 20s}\n", ""), champion=False)
    flow = control.retrain("the first champion, if somebody says so")
    control.wait_fact("retrain.step", 10, where=lambda f: f["data"]["step"] == "review")
    time.sleep(0.5)
    assert control.flow(flow)["state"] == "waiting" and "model.registered" not in control.types()
    control.post(f"/flows/{flow}/approve", {"reason": "looks sane"})
    control.wait_fact("retrain.finished", 40)
    said = [f for f in control.facts("retrain.step") if f["data"].get("approved")]
    assert said and said[0]["data"]["reason"] == "looks sane"
    other = control.retrain("and again")
    control.wait_fact("retrain.step", 10, said[0]["seq"], lambda f: f["data"]["step"] == "review")
    control.post(f"/flows/{other}/approve", {"approved": False, "reason": "not today"})
    assert "not today" in control.wait_fact("retrain.skipped", 10)["reason"]


def test_one_control_per_folder(world):
    project, control = world(champion=False)
    for words, holder in ((["control"], project.pid_of("control")), (["up"], project.process.pid)):
        other = subprocess.run([weir.binary(), *words, "--listen", "127.0.0.1:0"], cwd=project.folder,
                               capture_output=True, text=True, timeout=30)
        assert other.returncode == 3, other.stderr
        assert str(holder) in other.stderr, other.stderr
    assert control.get("/status")


def test_stop_in_the_middle_of_training(trainer_world):
    project, control, mode = trainer_world()
    mode("hang")
    control.retrain("a test asks", override=True)
    project.wait(lambda: (project.folder / "data/pid").exists(), 20, "training")
    pid, start = int((project.folder / "data/pid").read_text()), time.time()
    assert project.stop() == 0
    assert time.time() - start < 12 and not Path(f"/proc/{pid}").exists()
    log = project.log_path.read_text()
    assert log.index("event=gateway.stopping") < log.index("event=control.stopping")
    mode("good")
    project.start()
    control.wait_fact("retrain.step", 40, where=lambda f: f["data"]["step"] == "gate"
                      and f["data"].get("champion_version") == 1)
