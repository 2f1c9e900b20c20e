# SPDX-License-Identifier: Apache-2.0
"""The disk of a running project fills up, and is given room again: answers flow, what cannot be written is
counted or refused, and all goes on without a restart."""
import errno
import http.client
import os
import signal
import subprocess
import time
import urllib.request

import pytest
import weir
from loop import QUIET, Control, Traffic, table


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "weir-test", folder]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def project(weir_binary, small_disk, request):
    folder = small_disk / "project"
    folder.mkdir()
    project = weir.Project(folder, QUIET.replace("seal_interval: 1s", "seal_interval: 5s"),
                           {"data/past.csv": table()})
    request.node.weir_projects = [project]
    yield project
    project.stop()


def fill(path):
    """To the last byte; returns what was written."""
    written = 0
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    written += f.write(bytes(size))
            except OSError as why:
                assert why.errno == errno.ENOSPC
    return written


def metric(project, name):
    with urllib.request.urlopen(f"http://{project.gateway}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def gateway(control):
    return control.get("/status")["gateways"][0]


def keep_full(path):
    """What the program gave back meanwhile is taken, too."""
    with open(path, "ab", buffering=0) as f:
        try:
            while True:
                f.write(bytes(512))
        except OSError:
            pass


def test_full_disk_and_back(project):
    ballast = project.folder.parent / "ballast"
    project.start(gateway_path="/healthz")
    control = Control(project)
    control.retrain("the first champion")
    control.wait_fact("retrain.finished", 60)
    project.wait(lambda: weir.answers(f"http://{project.gateway}/readyz"), 20, "serving it")
    with Traffic(project.gateway) as traffic:
        time.sleep(2)
        before = control.last()
        assert metric(project, "weir_records_dropped_total") == 0
        fill(ballast)

        def is_noticed():
            keep_full(ballast)
            return gateway(control)["disk_failing"] and metric(project, "weir_records_dropped_total") > 0

        project.wait(is_noticed, 30, "saying that records cannot be written")
        log = project.log_path.read_text()
        assert "event=record.disk_failing" in log and "No space left" in log
        project.wait(lambda: "event=evidence.not_saved" in project.log_path.read_text(), 20,
                     "saying that evidence cannot be written")
        order = {"endpoint": "e", "reason": "no room", "override": True}
        status, answer = control.call("POST", "/retrain", order)
        assert status in (429, 503, 507), (status, answer)
        assert "RESOURCE_EXHAUSTED" in str(answer) and "disk" in str(answer), answer
        assert control.last() == before, control.story()  # nothing half done
        sent = traffic.sent
        time.sleep(2)
        assert traffic.sent > sent and traffic.failed == 0

        os.kill(project.pid_of("control"), signal.SIGKILL)  # not even a restart needs room
        time.sleep(1)
        ballast.unlink()
        project.wait(lambda: answers(control), 30, "back")
        project.wait(lambda: not gateway(control)["disk_failing"], 30, "writing records again")
        dropped = metric(project, "weir_records_dropped_total")
        time.sleep(3)
        assert metric(project, "weir_records_dropped_total") == dropped
        control.retrain("there is room", override=True)
        control.wait_fact("retrain.started", 20, before)
        assert traffic.failed == 0
    project.run("journal", "verify")
    said = project.run("doctor", status=1).stdout  # 64 MiB are too few for it, and that is all
    assert [line.split()[2] for line in said.splitlines() if "✗ fail" in line] == ["disk"], said
    assert project.stop() == 0
    assert not list((project.folder / ".weir/records/damaged").glob("*"))


def answers(control):
    try:
        return bool(control.get("/status")["gateways"])
    except (OSError, http.client.HTTPException):
        return False
