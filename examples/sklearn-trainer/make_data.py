#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes made-up orders, and whether each came back; the same bytes each time.

    data/orders.csv    6,000 rows to train on
    data/live.csv      40,000 more of the same kind, to send to the endpoint
    data/changed.csv   60,000 after the world changed: prices rose, and dear orders come back less

Usage: python3 make_data.py
"""
from pathlib import Path

import numpy as np
import pandas as pd


def orders(rows, seed, inflation=1.0, price_effect=0.012):
    random = np.random.default_rng(seed)
    table = pd.DataFrame({
        "price": (inflation * random.gamma(2.0, 30.0, rows)).round(2),
        "items": random.integers(1, 9, rows),
        "discount": random.choice([0.0, 0.1, 0.2, 0.5], rows, p=[0.6, 0.2, 0.15, 0.05]),
        "days_to_ship": random.gamma(3.0, 1.2, rows).round(1),
        "past_returns": random.poisson(0.6, rows),
    })
    usual_price = 60 * inflation
    log_odds = (-2.5 + price_effect * (table.price - usual_price) + 2.0 * table.discount
                + 0.25 * table.days_to_ship + 0.9 * table.past_returns)
    table["returned"] = (random.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return table


if __name__ == "__main__":
    folder = Path("data")
    folder.mkdir(exist_ok=True)
    for name, table in {"orders": orders(6_000, seed=1), "live": orders(40_000, seed=2),
                        "changed": orders(60_000, seed=3, inflation=1.6, price_effect=-0.012)}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        print(f"{folder / name}.csv: {len(table)} rows")
