#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A trainer for Weir: scikit-learn in, ONNX out.

Weir runs this file in the folder of the project, as a child with limits, and tells it by three
environment variables what to do:

    WEIR_TRAIN_DATA   a Parquet file: the features by name, the label as text, __ts
    WEIR_TRAIN_SPEC   a JSON file: model, task, label, features, classes, seed, params
    WEIR_MODEL_OUT    a folder; model.onnx belongs there

Exit status 0 is success. What is printed is kept in trainer.log of the run.
"""
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier


def main():
    spec = json.loads(Path(os.environ["WEIR_TRAIN_SPEC"]).read_text())
    rows = pd.read_parquet(os.environ["WEIR_TRAIN_DATA"])
    out = Path(os.environ["WEIR_MODEL_OUT"])

    # The order of the columns is the order of the features in the spec: Weir fills the input so.
    x = rows[spec["features"]].to_numpy(dtype=np.float32)
    # Labels are text: they may have come in by feedback. The probabilities must come in the order
    # of `classes`, so the model learns the place of each class in that list.
    classes = spec.get("classes") or sorted(rows[spec["label"]].unique())
    y = rows[spec["label"]].map({name: i for i, name in enumerate(classes)}).to_numpy()

    model = HistGradientBoostingClassifier(max_iter=60, random_state=spec["seed"])
    model.fit(x, y)

    # zipmap off: probabilities as a tensor [rows, classes], not as a list of dictionaries.
    onnx = to_onnx(model, x[:1], options={"zipmap": False},
                   target_opset={"": 17, "ai.onnx.ml": 3})
    (out / "model.onnx").write_bytes(onnx.SerializeToString())
    print(f"trained on {len(x)} rows, {len(classes)} classes")


if __name__ == "__main__":
    main()
