# SPDX-License-Identifier: Apache-2.0
"""The calls of KServe's own clients, run by tests/e2e/test_kserve.py with the Python of .deps/kserve:

    kserve_client.py '{"rest": "http://host:port", "grpc": "host:port", "ca": null}' [CASE…]

Every coroutine `rest_…` and `grpc_…` is a case: it fails by an exception. One line of JSON tells how
each of them ended: null, or the traceback. The server has the models `m` (x: FP32[-1,2] -> score, the
sum of 1*a + 2*b + 0.5), `cls` (label and probabilities) and `empty`, which has no version.
"""

import asyncio
import json
import logging
import sys
import traceback

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.errors import UnsupportedProtocol
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

logging.disable(logging.CRITICAL)
WHERE = json.loads(sys.argv[1])
ROWS = np.array([[1, 2], [3, 4]], np.float32)


def request(binary=False, model="m", outputs=None, **more):
    x = InferInput("x", list(ROWS.shape), "FP32")
    x.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model, [x], request_outputs=outputs, **more)


def scores(answer):
    (score,) = [output for output in answer.outputs if output.name == "score"]
    return score.as_numpy().ravel().tolist()


async def fails(call, kind):
    try:
        got = await call
    except kind as caught:
        return caught
    raise AssertionError(f"no {kind} but {got!r}")


# --- REST --------------------------------------------------------------------------------------------


def rest(**more):
    return InferenceRESTClient(RESTConfig(protocol="v2", verify=WHERE["ca"] or True, **more))


async def rest_health():
    client = rest()
    assert await client.is_server_live(WHERE["rest"]) is True
    assert await client.is_model_ready(WHERE["rest"], "m") is True
    assert await client.is_model_ready(WHERE["rest"], "none") is False
    assert await client.is_model_ready(WHERE["rest"], "empty") is False
    why = await fails(client.is_server_ready(WHERE["rest"]), httpx.HTTPStatusError)
    assert why.response.status_code == 503 and "empty" in str(why.response.json()), why
    await client.close()


async def rest_infer_json():
    client = rest()
    answer = await client.infer(WHERE["rest"], request(request_id="abc"), "m")
    assert scores(answer) == [5.5, 11.5] and answer.id == "abc" and answer.model_name == "m"
    await client.close()


async def rest_infer_binary():
    client = rest()
    outputs = [RequestedOutput("score", {"binary_data": True})]
    answer = await client.infer(WHERE["rest"], request(True, outputs=outputs), "m")
    assert scores(answer) == [5.5, 11.5]
    answer = await client.infer(WHERE["rest"], request(parameters={"binary_data_output": True}), "m")
    assert scores(answer) == [5.5, 11.5]
    answer = await client.infer(WHERE["rest"], request(True), "m")  # binary in, JSON out
    assert scores(answer) == [5.5, 11.5]
    await client.close()


async def rest_chosen_outputs():
    client = rest()
    asked = request(model="cls", outputs=[RequestedOutput("label")])
    answer = await client.infer(WHERE["rest"], asked, "cls")
    assert [output.name for output in answer.outputs] == ["label"]
    wrong = client.infer(WHERE["rest"], request(outputs=[RequestedOutput("nothing")]), "m")
    assert "nothing" in str(await fails(wrong, httpx.HTTPStatusError))
    await client.close()


async def rest_headers():
    client = rest()
    got = {}
    asked = request(request_id="seven")
    await client.infer(WHERE["rest"], asked, "m", headers={"x-some": "thing"}, response_headers=got)
    assert got["x-request-id"] == "seven", got
    await client.close()


async def rest_http2():
    client = rest(http2=True)
    assert await client.is_server_live(WHERE["rest"]) is True
    assert scores(await client.infer(WHERE["rest"], request(), "m")) == [5.5, 11.5]
    await client.close()


async def rest_errors_are_said():
    client = rest()
    for model, status, words in (("none", 404, "Request for unknown model"), ("empty", 503, "not ready")):
        why = await fails(client.infer(WHERE["rest"], request(), model), httpx.HTTPStatusError)
        assert why.response.status_code == status and words in str(why), why
    bad = request()
    bad.inputs[0]._datatype = "INT64"
    assert "FP32" in str(await fails(client.infer(WHERE["rest"], bad, "m"), httpx.HTTPStatusError))
    await client.close()


async def rest_explain_is_not_there():
    await fails(rest().explain(WHERE["rest"], "m", {"instances": [[1, 2]]}), UnsupportedProtocol)
    client = InferenceRESTClient(RESTConfig(protocol="v1", verify=WHERE["ca"] or True))
    why = await fails(client.explain(WHERE["rest"], "m", {"instances": [[1, 2]]}), httpx.HTTPStatusError)
    assert why.response.status_code == 404 and "/v1/models/m:explain" in str(why), why
    await client.close()


async def rest_time_runs_out():
    client = rest()
    await fails(client.infer(WHERE["rest"], request(), "m", timeout=1e-6), httpx.TimeoutException)
    assert scores(await client.infer(WHERE["rest"], request(), "m", timeout=30)) == [5.5, 11.5]
    await client.close()


# --- gRPC --------------------------------------------------------------------------------------------


def rpc(**more):
    ca = WHERE["ca"]
    return InferenceGRPCClient(WHERE["grpc"], use_ssl=bool(ca), root_certificates=ca, **more)


async def grpc_health():
    async with rpc() as client:
        assert await client.is_server_live() is True
        assert await client.is_server_ready() is False
        assert await client.is_model_ready("m") is True
        assert await client.is_model_ready("none") is False
        assert await client.is_model_ready("empty", timeout=5, headers=(("x-some", "thing"),)) is False


async def grpc_infer_typed():
    async with rpc() as client:
        answer = await client.infer(request(request_id="abc"))
        assert scores(answer) == [5.5, 11.5] and answer.id == "abc"


async def grpc_infer_raw():
    async with rpc() as client:
        answer = await client.infer(request(True))
        assert scores(answer) == [5.5, 11.5] and answer.outputs[0]._raw_data is not None


async def grpc_chosen_outputs():
    async with rpc() as client:
        answer = await client.infer(request(model="cls", outputs=[RequestedOutput("label")]))
        assert [output.name for output in answer.outputs] == ["label"]


async def grpc_parameters_and_metadata():
    async with rpc() as client:
        asked = request(True, parameters={"timeout": 2_000_000, "note": "text", "flag": True})
        answer = await client.infer(asked, headers=(("x-request-id", "seven"),))
        assert scores(answer) == [5.5, 11.5]


async def grpc_errors_are_said():
    async with rpc() as client:
        why = await fails(client.infer(request(model="none")), grpc.RpcError)
        assert why.code() == grpc.StatusCode.NOT_FOUND and "unknown model" in why.details()
        bad = request()
        bad.inputs[0]._shape = [4]
        why = await fails(client.infer(bad), grpc.RpcError)
        assert why.code() == grpc.StatusCode.INVALID_ARGUMENT and "shape" in why.details()


async def grpc_time_runs_out():
    async with rpc() as client:
        why = await fails(client.infer(request(), timeout=-1), grpc.RpcError)
        assert why.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert scores(await client.infer(request(), timeout=None)) == [5.5, 11.5]


async def grpc_unavailable_is_tried_again():
    async with rpc(retries=3) as client:
        why = await fails(client.infer(request(model="empty")), grpc.RpcError)
        assert why.code() == grpc.StatusCode.UNAVAILABLE and "not ready" in why.details()


def main():
    cases = {n: f for n, f in globals().items() if n.startswith(("rest_", "grpc_")) and callable(f)}
    ends = {}
    for name in sys.argv[2:] or cases:
        try:
            asyncio.run(asyncio.wait_for(cases[name](), 60))
            ends[name] = None
        except Exception:
            ends[name] = traceback.format_exc()
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
