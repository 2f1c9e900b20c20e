# SPDX-License-Identifier: Apache-2.0
"""The rows that scripts/bench reads, and what one says meanwhile."""
import json
import statistics
import sys

# metric: (unit, which direction is better, from one result of a generator)
METRICS = {
    "throughput": ("req/s", "higher", lambda r: r["requests"] / r["seconds"]),
    "latency p50": ("ms", "lower", lambda r: r["p50_us"] / 1000),
    "latency p99": ("ms", "lower", lambda r: r["p99_us"] / 1000),
    "CPU": ("us/req", "lower", lambda r: r["cpu_seconds"] * 1e6 / r["requests"]),
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def values_of(metric, results):
    return [METRICS[metric][2](result) for result in results]


def middle(metric, results):
    return statistics.median(values_of(metric, results))


def shares(metric, above, below):
    """Ratios of one metric between the neighbouring bursts of two servers."""
    return [a / b for a, b in zip(values_of(metric, above), values_of(metric, below), strict=True)]


def print_row(case, metric, unit, better, subject, values, why=None):
    row = {"case": case, "metric": metric, "unit": unit, "better": better, "subject": subject,
           "value": statistics.median(values) if values else None}
    if len(values) > 1:
        row.update(min=min(values), max=max(values))
    if why:
        row["why"] = why
    print(json.dumps(row), flush=True)
