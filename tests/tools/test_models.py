# SPDX-License-Identifier: Apache-2.0
"""The models that the other tests serve mean what they say, by ONNX Runtime's Python package."""
import json

import numpy as np
import onnxruntime
import pytest

import models


def score(model, **inputs):
    return onnxruntime.InferenceSession(model).run(None, inputs)


def test_plain_models():
    x = np.float32([[1, 2], [3, 4]])
    assert (score(models.identity(), x=x)[0] == x).all()
    assert score(models.linear([10, 1], bias=0.5), x=x)[0].tolist() == [[12.5], [34.5]]
    assert score(models.two_inputs(), a=np.float32([0.5]), b=np.int64([2]))[0].tolist() == [2.5]
    assert score(models.strings(), x=np.array(["yes", "?", "no"]))[0].tolist() == [1, -1, 0]


@pytest.fixture(scope="module")
def gbm():
    return models.gbm()


def test_gbm_answers_as_the_library_that_trained_it(gbm):
    label, probabilities = score(gbm.model, x=gbm.rows)
    assert probabilities.shape == (256, 2)
    assert abs(probabilities[:, 1] - gbm.answers).max() < 1e-5
    assert (label == (gbm.answers > 0.5)).all()
    assert len(set(np.round(gbm.answers, 3))) > 100


def test_xgb_is_a_model_file():
    trained = models.xgb(trees=10, rows=2_000)
    trees = json.loads(trained.model)["learner"]["gradient_booster"]["model"]["trees"]
    assert len(trees) == 10 and 0 < trained.answers.min() < trained.answers.max() < 1
