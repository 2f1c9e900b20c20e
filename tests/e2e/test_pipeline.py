# SPDX-License-Identifier: Apache-2.0
"""Pre- and post-processing around a model: a scikit-learn pipeline whose last step alone is registered
and whose others are declared in weir.yaml answers as it did in Python; by field name, by tensor, after
a retraining, and over a file."""
import json

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
