# SPDX-License-Identifier: Apache-2.0
"""Ray Serve: one replica behind its HTTP proxy."""
import signal
import sys

import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

import peer_onnx


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Onnx:
    def __init__(self):
        self.session = peer_onnx.open_session()

    async def __call__(self, request: Request):
        rows = peer_onnx.rows_of(self.session, orjson.loads(await request.body()))
        return Response(orjson.dumps(peer_onnx.answer(self.session, rows)), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Onnx.bind(), route_prefix=peer_onnx.PATH)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
