# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests: the real program, in a project of the test's own.

    def test_scores(weir_project):
        project = weir_project(YAML, files={"models/m.onnx": models.linear([1, 2])})
        requests.post(f"http://{project.gateway}/v2/models/m/infer", json=…)

The program is build/dev/weir, or $WEIR_BIN. When a test fails, the last lines of every project's log
are shown with it.
"""
import loop
import pytest
import weir
from alloc_count import AllocCount


@pytest.fixture(scope="session")
def weir_binary():
    if not weir.binary().is_file():
        pytest.fail(f"{weir.binary()} is missing: run scripts/build dev, or set WEIR_BIN", pytrace=False)
    return weir.binary()


@pytest.fixture
def weir_project(weir_binary, tmp_path, request):
    """make(yaml, files={}, start=True, env={}) -> weir.Project; all are stopped after the test."""
    made = []
    request.node.weir_projects = made

    def make(yaml, files=None, start=True, env=None):
        folder = tmp_path / f"project{len(made) or ''}"
        folder.mkdir()
        made.append(weir.Project(folder, yaml, files))
        return made[-1].start(env) if start else made[-1]

    yield make
    for project in made:
        project.stop()


@pytest.fixture
def world(weir_project):
    """make(yaml, files) -> (project, control): a project whose first champion has been trained."""
    def make(yaml=loop.YAML, files=None, champion=True):
        project = weir_project(yaml, {"data/past.csv": loop.table(), **(files or {})}, start=False)
        project.start(gateway_path="/healthz")
        control = loop.Control(project)
        if champion:
            flow = control.retrain("the first champion")
            control.wait_fact("retrain.finished", 40)
            project.wait(lambda: control.flow(flow)["state"] == "done", 10, "done with the first run")
            project.wait(lambda: control.get("/status")["plan_live"], 10, "serving the champion")
            assert control.champion() == 1, control.story()
        return project, control
    return make


@pytest.fixture
def alloc_count(weir_binary, tmp_path):
    """Counts allocations of a project started with env=alloc_count.env (tests/fault/alloc_count.c)."""
    return AllocCount(tmp_path, weir_binary.parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for project in getattr(item, "weir_projects", []):
            report.sections.append((f"log of {project.folder.name}", project.log()))
    return report
