# SPDX-License-Identifier: Apache-2.0
"""Pre- and post-processing around a model: a scikit-learn pipeline whose last step alone is registered
and whose others are declared in weir.yaml answers as it did in Python; by field name, by tensor, after
a retraining, and over a file."""
import json

import models
import numpy as np
import pandas as pd
import pytest
import requests

PLANS = ["free", "pro", "team"]
YAML = """
version: 1
project: pipes
gateway: {listen: 127.0.0.1:8080, loops: 1, records: {flush_interval: 50ms, seal_interval: 1s}}
datasets:
  past: {path: data/past.csv, label: churned}
models:
  m:
    task: classification
    dataset: past
    classes: ["0", "1"]
    positive: "1"
    features:
      - {name: age, type: double, required: false, min: 0}
      - {name: income, type: double}
      - {name: plan, type: string, required: false}
      - {name: created, type: string}
    pipeline:
      pre:
        - {step: impute, columns: [age], with: median}
        - {step: log1p, columns: [income]}
        - {step: standard, columns: [age, income]}
        - {step: one_hot, columns: [plan], unseen: zeros}
        - {step: time, columns: [created], parts: [hour, weekday]}
        - {step: min_max, columns: [created_hour], min: 0, max: 23}
endpoints:
  e: {model: m, timeout: 5s}
"""
TENSORS = [("age", "FP64"), ("income", "FP64"), ("plan", "BYTES"), ("created", "BYTES")]


def table(n=800, seed=1):
    rng = np.random.default_rng(seed)
    t = pd.DataFrame({
        "age": rng.uniform(18, 90, n).round(1), "income": rng.lognormal(10, 1, n).round(2),
        "plan": rng.choice(PLANS, n),
        "created": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**7, n), unit="s")})
    t.loc[rng.random(n) < 0.1, "age"] = np.nan
    t["churned"] = (((t.age.fillna(50) > 50) & (t.plan != "pro")) | (t.created.dt.hour < 6)).astype(int)
    return t


def prepare(t, past):
    """What the pipeline of YAML says, by scikit-learn."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def numbers(of):
        return np.column_stack([imputer.transform(of[["age"]])[:, 0], np.log1p(of["income"])])
    imputer = SimpleImputer(strategy="median").fit(past[["age"]])
    scaler = StandardScaler().fit(numbers(past))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(past[["plan"]])
    created = pd.to_datetime(t["created"]).dt
    return np.column_stack([scaler.transform(numbers(t)), encoder.transform(t[["plan"]]),
                            created.hour / 23, created.day_of_week])


def logistic(x, y):
    """The last step alone, as ONNX, and what it says."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2000).fit(x, y)
    onnx = to_onnx(model, x[:1].astype(np.float32), options={id(model): {"zipmap": False}})
    return model, onnx.SerializeToString()


@pytest.fixture
def served(weir_project):
    """make(yaml) -> (project, past, model): version 1 is champion and answers."""
    def make(yaml=YAML, **options):
        past = table()
        model, onnx = logistic(prepare(past, past), past["churned"])
        project = weir_project(yaml, {"data/past.csv": past.to_csv(index=False), "m.onnx": onnx}, start=False)
        project.start(gateway_path="/healthz", **options)
        project.run("register", "m", "m.onnx")
        project.wait(lambda: requests.get(f"http://{project.gateway}/readyz", timeout=5).ok, 20, "ready")
        return project, past, model
    return make


def fields(t):
    """Rows as a client has them: what is missing is left out."""
    t = t.assign(created=t["created"].astype(str)).drop(columns="churned", errors="ignore")
    return [{k: v for k, v in row.items() if v == v} for row in t.to_dict("records")]


def predict(project, rows, status=200):
    answer = requests.post(f"http://{project.gateway}/v1/predict/e", json={"rows": rows}, timeout=10)
    assert answer.status_code == status, answer.text
    return answer.json()


def infer(project, t, status=200):
    inputs = [{"name": name, "datatype": kind, "shape": [len(t), 1],
               "data": [None if v != v else v for v in t[name].tolist()] if kind == "FP64"
               else t[name].astype(str).tolist()} for name, kind in TENSORS]
    answer = requests.post(f"http://{project.gateway}/v2/models/e/infer", json={"inputs": inputs}, timeout=10)
    assert answer.status_code == status, answer.text
    return answer.json()


def registered(project, version):
    return requests.get(f"http://{project.control}/api/v1/models/m/versions/{version}", timeout=5).json()


def output(answer, name):
    found = next(o for o in answer["outputs"] if o["name"] == name)
    return np.array(found["data"]).reshape(found["shape"])


def test_answers_as_scikit_learn_did(served):
    project, past, model = served()
    new = table(300, seed=2)
    new.loc[:4, "plan"] = "unheard of"
    want = model.predict_proba(prepare(new, past))
    said = predict(project, fields(new))["predictions"]
    np.testing.assert_allclose([p["score"] for p in said], want[:, 1], atol=2e-6)
    tensors = infer(project, new)
    np.testing.assert_allclose(output(tensors, "probabilities"), want, atol=2e-6)
    alone = [predict(project, [row])["predictions"][0]["score"] for row in fields(new)[:70]]
    np.testing.assert_allclose(alone, [p["score"] for p in said[:70]], atol=2e-7)


def test_clients_see_raw_columns(served):
    project, _, _ = served()
    meta = requests.get(f"http://{project.gateway}/v2/models/e", timeout=5).json()
    assert [(i["name"], i["datatype"], i["shape"]) for i in meta["inputs"]] == \
        [(name, kind, [-1, 1]) for name, kind in TENSORS]
    assert meta["platform"] == "pipeline"
    schema = requests.get(f"http://{project.gateway}/v1/schema/e", timeout=5).json()
    assert "plan" in json.dumps(schema) and "plan_pro" not in json.dumps(schema)
    wrong = predict(project, [{"age": "old", "incom": 3, "created": "2026-01-01"}], status=400)
    assert {f["field"]: f["problem"] for f in wrong["fields"]} == \
        {"age": "wrong_type", "incom": "unknown", "income": "missing"}


def test_what_its_steps_refuse_is_a_bad_request(served):
    project, _, _ = served()
    good = {"age": 40, "income": 1000, "plan": "pro", "created": "2026-11-27T11:00:00Z"}
    wrong = predict(project, [good, {**good, "created": "tomorrow"}], status=400)
    assert "row 1: column 'created' is 'tomorrow', which is no time" in wrong["error"], wrong
    assert wrong["code"] == "OUT_OF_RANGE"
    predict(project, [good])


def test_a_version_keeps_its_pipeline(served):
    """Frozen with the version: neither other data nor another weir.yaml changes what it says."""
    project, past, _ = served()
    row = fields(table(1, seed=5))
    before = predict(project, row)["predictions"][0]["score"]
    version = registered(project, 1)
    steps = version["meta"]["pipeline"]["steps"]
    assert [s["step"] for s in steps] == ["impute", "log1p", "standard", "one_hot", "time", "min_max"]
    assert steps[0]["value"] == [past["age"].median()] and steps[3]["categories"] == [PLANS]
    past.assign(age=past.age * 3).to_csv(project.folder / "data/past.csv", index=False)
    project.write("weir.yaml", YAML.replace("with: median", "value: 20"))
    project.run("apply", "--yes")
    project.run("register", "m", "m.onnx")
    second = registered(project, 2)
    assert second["artifact"] != version["artifact"]
    assert predict(project, row)["predictions"][0]["score"] == before
    project.run("register", "m", "m.onnx", "--promote", "--reason", "the new one")
    project.wait(lambda: predict(project, row)["model_version"] == "3", 10, "version 3")
    assert predict(project, row)["predictions"][0]["score"] != before


def test_a_pipeline_that_does_not_fit_is_refused(served):
    project, _, _ = served()
    project.write("weir.yaml", YAML.replace("[hour, weekday]", "[hour]"))
    project.run("apply", "--yes")
    said = project.run("register", "m", "m.onnx", status=2).stderr
    assert "the pipeline leaves 6 columns (age, income, plan_free, plan_pro, plan_team, created_hour), " \
           "the model takes 7" in said


def test_mistakes_are_shown_where_they_are(weir_project):
    project = weir_project(YAML.replace("[age], with: median", "[agr], with: median")
                           .replace("step: log1p, columns: [income]", "step: log1p, columns: [plan]")
                           .replace("[hour, weekday]", "[hour, weekdays]")
                           .replace("unseen: zeros", "unseen: code"), start=False)
    said = project.run("plan", status=2).stderr
    for part in ("weir.yaml:20:36: models.m.pipeline.pre[0].columns has 'agr', which is no column",
                 "did you mean 'age'?",
                 "models.m.pipeline.pre[1].columns has 'plan', which is text",
                 "models.m.pipeline.pre[3].unseen is 'code', expected error, missing or zeros",
                 "models.m.pipeline.pre[4].parts has 'weekdays', expected of year, quarter"):
        assert part in said, (part, said)


POST = """      post:
        labels: {"0": stays, "1": leaves}
        bands: [{band: high, beyond: 0.3}, {band: medium, beyond: 0.1}, {band: low}]
        minimum: {score: 0.05, outcome: not asked}
"""


def with_post(post):
    return YAML.replace("endpoints:", post + "endpoints:")


def test_what_is_answered_follows_the_rules_of_the_project(served):
    project, past, model = served(with_post(POST))
    new = table(300, seed=3)
    said = predict(project, fields(new))["predictions"]
    want = model.predict_proba(prepare(new, past))[:, 1]
    for p, score in zip(said, want, strict=True):
        assert abs(p["score"] - score) < 2e-6
        score = p["score"]
        far = abs(score - 0.5)
        assert p["band"] == ("high" if far > 0.3 else "medium" if far > 0.1 else "low")
        if score < 0.05:
            assert (p["prediction"], p["rule"]) == ("not asked", "minimum")
        else:
            assert (p["prediction"], "rule" in p) == ("leaves" if score >= 0.5 else "stays", False)
    assert {p["prediction"] for p in said} == {"stays", "leaves", "not asked"}
    hidden = POST.replace("labels:", "scores: hidden\n        labels:")
    project.write("weir.yaml", with_post(hidden))
    project.run("apply", "--yes")
    project.wait(lambda: "score" not in predict(project, fields(new[:1]))["predictions"][0], 10, "hidden")
    again = predict(project, fields(new))["predictions"]
    assert all(set(p) <= {"prediction", "band", "rule"} for p in again)
    assert [p["prediction"] for p in again] == [p["prediction"] for p in said]
    shown = output(infer(project, new), "probabilities")
    np.testing.assert_array_equal(shown, np.column_stack([want < 0.5, want >= 0.5]).astype(float))


def test_thresholds_of_classes_and_rounding(served):
    post = """      post:
        thresholds: {"0": 0.6, "1": 0.8}
        otherwise: ask a person
        decimals: 2
"""
    project, past, model = served(with_post(post))
    new = table(300, seed=4)
    said = predict(project, fields(new))["predictions"]
    want = model.predict_proba(prepare(new, past))
    for p, (no, yes) in zip(said, want, strict=True):
        assert p["prediction"] == ("1" if yes >= 0.8 else "0" if no >= 0.6 else "ask a person")
        assert p["score"] == pytest.approx(yes, abs=0.00501) and round(p["score"], 2) == p["score"]
    assert {p["prediction"] for p in said} == {"0", "1", "ask a person"}
    assert {p.get("rule") for p in said} == {None, "threshold"}
    shown = output(infer(project, new), "probabilities")
    np.testing.assert_allclose(shown, want, atol=0.00501)
    np.testing.assert_array_equal(shown, np.round(shown, 2))


def test_mistakes_after_the_model_are_shown_too(weir_project):
    project = weir_project(with_post(POST.replace('"1": leaves', "'2': leaves")
                                     .replace("{band: low}", "{band: low, beyond: 0.2}")), start=False)
    said = project.run("plan", status=2).stderr
    for part in ("models.m.pipeline.post.labels.2 is of no class of the model, expected one of classes",
                 "models.m.pipeline.post.bands has 'low' after a band that takes all its scores"):
        assert part in said, (part, said)


TRAINED = YAML.replace("models:", """trainers:
  trees: {kind: xgboost, rounds: 20, max_depth: 4, threads: 1, seed: 1}
models:""").replace("    dataset: past\n    classes", """    dataset: past
    trainer: trees
    retrain: {min_rows: 100, evaluation: {gates: [{metric: f1, min_absolute: 0.5}]}}
    classes""")


def test_a_trainer_gets_what_the_model_will_get(weir_project):
    past = table(3000, seed=6)
    project = weir_project(TRAINED, {"data/past.csv": past.to_csv(index=False)}, start=False)
    project.start(gateway_path="/healthz")
    project.run("retrain", "m", "--reason", "the first version")
    project.wait(lambda: requests.get(f"http://{project.gateway}/readyz", timeout=5).ok, 60, "trained")
    run, = (project.folder / ".weir/work").glob("*/prepared.parquet")
    trained_on = pd.read_parquet(run)
    names = ["age", "income", "plan_free", "plan_pro", "plan_team", "created_hour", "created_weekday"]
    assert list(trained_on.columns) == [*names, "churned", "__ts"]
    assert json.loads((run.parent / "spec.json").read_text())["features"] == names
    raw = pd.read_parquet(run.parent / "train.parquet")
    np.testing.assert_allclose(trained_on[names], prepare(raw, raw), atol=1e-12)
    pipeline = json.loads((run.parent / "pipeline.json").read_text())
    served = registered(project, 1)["meta"]["pipeline"]
    assert served.pop("platform") == "weir_trees" and served == pipeline
    import xgboost

    model = xgboost.Booster(model_file=str(run.parent / "out/model.json"))
    new = table(200, seed=7)
    rows = prepare(new, raw).astype(np.float32)
    want = model.predict(xgboost.DMatrix(rows, feature_names=model.feature_names))
    said = [p["score"] for p in predict(project, fields(new))["predictions"]]
    np.testing.assert_allclose(said, want, atol=1e-5)
    assert ((np.array(said) > 0.5) == new.churned).mean() > 0.9


def test_a_file_gets_the_numbers_that_the_model_gets(weir_project):
    """The model gives back what it takes, so that its inputs can be seen: the same bits as of the file."""
    past, new = table(500, seed=8), table(200, seed=9)
    yaml = YAML.replace("task: classification", "task: regression")
    yaml = yaml.replace('    classes: ["0", "1"]\n    positive: "1"\n', "")
    identity = models.named_columns(7)
    project = weir_project(yaml, {"data/past.csv": past.to_csv(index=False), "m.onnx": identity,
                                  "new.csv": new.to_csv(index=False)}, start=False)
    project.start(gateway_path="/healthz")
    project.run("register", "m", "m.onnx")
    project.wait(lambda: requests.get(f"http://{project.gateway}/readyz", timeout=5).ok, 20, "ready")
    project.run("transform", "m", "new.csv", "ready.parquet", "--keep", "churned")
    ready = pd.read_parquet(project.folder / "ready.parquet")
    assert list(ready.columns[-2:]) == ["created_weekday", "churned"]
    np.testing.assert_array_equal(ready.churned, new.churned)
    answer = infer(project, new)
    served = np.column_stack([output(answer, f"y{i}").ravel() for i in range(7)])
    np.testing.assert_array_equal(ready.drop(columns="churned").to_numpy(), served)
    assert "is there already" in project.run("transform", "m", "new.csv", "ready.parquet", status=1).stderr


def test_a_request_in_steady_state_allocates_nothing(served, alloc_count, weir_binary):
    project, _, _ = served(env=alloc_count.env)
    pid = project.pid_of("gateway")
    rows = fields(table(40, seed=10))
    with requests.Session() as session:
        def ask(times):
            for i in range(times):
                body = {"rows": rows[:1 + i % 40]}
                answer = session.post(f"http://{project.gateway}/v1/predict/e", json=body)
                assert answer.ok, answer.text
        ask(200)
        before = alloc_count.of(pid)
        ask(400)
        own = alloc_count.own_since(before, pid, "weir-loop")
    assert own == 0, alloc_count.last_place(pid, "weir-loop", weir_binary)


def test_a_bundle_carries_the_pipeline(served, tmp_path):
    project, _, _ = served()
    row = fields(table(1, seed=5))
    before = predict(project, row)["predictions"][0]["score"]
    project.run("bundle", "export", "m@1", "-o", tmp_path / "m.bundle")
    project.run("register", "m", tmp_path / "m.bundle", "--promote", "--reason", "from elsewhere")
    project.wait(lambda: predict(project, row)["model_version"] == "2", 10, "version 2")
    assert predict(project, row)["predictions"][0]["score"] == before
    first, second = registered(project, 1), registered(project, 2)
    assert first["artifact"] == second["artifact"]
    assert first["meta"]["pipeline"] == second["meta"]["pipeline"]
