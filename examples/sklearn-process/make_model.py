#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a classifier on made-up orders and leaves it as a pickle: model/model.pkl."""
import pickle
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier


def main():
    random = np.random.default_rng(1)
    x = random.uniform([5, 1, 0, 0, 0], [200, 10, 0.5, 14, 8], size=(4000, 5)).astype(np.float32)
    comes_back = 0.02 * x[:, 0] * x[:, 2] + 0.2 * x[:, 4] + 0.05 * x[:, 3] > 2 + random.normal(size=4000)
    model = RandomForestClassifier(n_estimators=20, max_depth=6, random_state=1, n_jobs=1).fit(x, comes_back)
    (Path(__file__).parent / "model/model.pkl").write_bytes(pickle.dumps(model))


if __name__ == "__main__":
    main()
