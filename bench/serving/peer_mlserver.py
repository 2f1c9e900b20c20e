# SPDX-License-Identifier: Apache-2.0
"""MLServer's custom runtime for ONNX; MLServer itself speaks the Open Inference Protocol."""
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

import peer_onnx


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.session = peer_onnx.open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        arrays = self.session.run(None, {"x": rows})
        return InferenceResponse(model_name=self.name, model_version="1", outputs=[
            NumpyCodec.encode_output(output.name, array)
            for output, array in zip(self.session.get_outputs(), arrays, strict=True)])
