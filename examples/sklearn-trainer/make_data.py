#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes data/orders.csv: 6,000 made-up orders, and whether each came back.

A fixed seed, so that every run writes the same bytes. Usage: python3 make_data.py
"""
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 6_000


def orders(rows=ROWS, seed=1):
    random = np.random.default_rng(seed)
    table = pd.DataFrame({
        "price": random.gamma(2.0, 30.0, rows).round(2),
        "items": random.integers(1, 9, rows),
        "discount": random.choice([0.0, 0.1, 0.2, 0.5], rows, p=[0.6, 0.2, 0.15, 0.05]),
        "days_to_ship": random.gamma(3.0, 1.2, rows).round(1),
        "past_returns": random.poisson(0.6, rows),
    })
    log_odds = (-3.2 + 0.012 * table.price + 2.0 * table.discount + 0.25 * table.days_to_ship
                + 0.9 * table.past_returns)
    table["returned"] = (random.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return table


if __name__ == "__main__":
    path = Path("data/orders.csv")
    path.parent.mkdir(exist_ok=True)
    orders().to_csv(path, index=False)
    print(f"{path}: {ROWS} rows")
