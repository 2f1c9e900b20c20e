# SPDX-License-Identifier: Apache-2.0
"""BentoML: a service with one worker whose route takes the members of the request as arguments."""
import bentoml

import peer_onnx


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False})
class Onnx:
    def __init__(self):
        self.session = peer_onnx.open_session()

    @bentoml.api(route=peer_onnx.PATH)
    async def infer(self, inputs: list) -> dict:
        return peer_onnx.answer(self.session, peer_onnx.rows_of(self.session, {"inputs": inputs}))
