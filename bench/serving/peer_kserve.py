# SPDX-License-Identifier: Apache-2.0
"""KServe's Python model server with a custom model; it speaks the Open Inference Protocol itself."""
import argparse

import kserve

import peer_onnx


class Onnx(kserve.Model):
    def load(self):
        self.session = peer_onnx.open_session()
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        arrays = self.session.run(None, {"x": payload.inputs[0].as_numpy()})
        outputs = []
        for output, array in zip(self.session.get_outputs(), arrays, strict=True):
            tensor = kserve.InferOutput(output.name, list(array.shape), peer_onnx.TYPES[array.dtype.name])
            tensor.set_data_from_numpy(array, binary_data=False)
            outputs.append(tensor)
        return kserve.InferResponse(payload.id or "none", self.name, outputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    arguments = parser.parse_args()
    model = Onnx(arguments.model_name)
    model.load()
    kserve.ModelServer(enable_grpc=False, access_log_format=None).start([model])
