# SPDX-License-Identifier: Apache-2.0
"""What operators see of a gateway: its figures, its access log, its traces, and `weir top`."""

import threading

import pytest
from gateway import Gateway, endpoint, infer_body, signature, version
from prometheus_client.parser import text_string_to_metric_families
from test_gateway import linear_endpoint, slow_model


@pytest.fixture
def gateway(tmp_path, weir_binary):
    made = []

    def make():
        made.append(Gateway(tmp_path / f"gateway{len(made)}"))
        return made[-1]

    yield make
    for gw in made:
        gw.stop()


def samples(gw):
    """{(name, labels as a frozenset): value}"""
    text = gw.request("GET", "/metrics")[2].decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(found, name, **labels):
    (v,) = [v for (n, ls), v in found.items() if n == name and frozenset(labels.items()) <= ls]
    return v


# --- Queues, batches, limits ---------------------------------------------------------------------------


def test_batches_and_queues_are_told(gateway):
    gw = gateway()
    model = slow_model(20_000)
    gw.plan(
        endpoint(
            "slow", [version(gw.blob(model))], signature(model), timeout_ns=60_000_000_000, inflight_max=77
        ),
        linear_endpoint(gw),
    )
    gw.start("--loops", "1")
    for rows in (1, 3, 8):
        assert gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]] * rows))[0] == 200
    found = samples(gw)
    batches = {"endpoint": "m", "version": "1"}
    assert value(found, "weir_batch_rows_count", **batches) == 3
    assert value(found, "weir_batch_rows_sum", **batches) == 12
    for le, count in (("1", 1), ("2", 1), ("4", 2), ("8", 3), ("+Inf", 3)):
        assert value(found, "weir_batch_rows_bucket", le=le, **batches) == count
    assert value(found, "weir_endpoint_inflight_max", endpoint="slow") == 77
    assert value(found, "weir_endpoint_timeout_seconds", endpoint="slow") == 60
    assert value(found, "weir_crew_workers", endpoint="slow") >= 1
    assert not [key for key in found if key[0].startswith("weir_crew") and ("endpoint", "m") in key[1]]

    body = infer_body([[1, 2]] * 4)
    threads = [
        threading.Thread(target=gw.request, args=("POST", "/v2/models/slow/infer", body)) for _ in range(6)
    ]
    [t.start() for t in threads]
    seen = []
    while any(t.is_alive() for t in threads):
        found = samples(gw)
        seen.append(
            [
                value(found, f"weir_{n}", endpoint="slow")
                for n in ("crew_waiting_rows", "endpoint_inflight", "crew_busy")
            ]
        )
    [t.join() for t in threads]
    assert max(s[0] for s in seen) > 4 and max(s[1] for s in seen) > 1 and max(s[2] for s in seen) >= 1, seen
    found = samples(gw)
    assert value(found, "weir_crew_waiting_rows", endpoint="slow") == 0
    assert value(found, "weir_endpoint_inflight", endpoint="slow") == 0
    assert value(found, "weir_batch_rows_sum", endpoint="slow", version="1") == 24
    assert value(found, "weir_crew_row_cost_seconds", endpoint="slow") > 0
