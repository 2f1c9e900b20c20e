# SPDX-License-Identifier: Apache-2.0
"""LitServe as its documentation has it: one worker, requests batched up to 64 rows or 1 ms."""
import sys

import litserve
import numpy as np

import peer_onnx


class Gbm(litserve.LitAPI):
    def setup(self, device):
        self.session = peer_onnx.open_session()

    def decode_request(self, request):
        return peer_onnx.rows_of(request)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, rows):
        return self.session.run(None, {"x": rows})

    def unbatch(self, output):
        return list(zip(*output, strict=True))

    def encode_response(self, output):
        label, probabilities = output
        return {"model_name": "gbm", "model_version": "1", "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [int(label)]},
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 2],
             "data": probabilities.tolist()}]}


if __name__ == "__main__":
    api = Gbm(max_batch_size=64, batch_timeout=0.001, api_path="/v2/models/gbm/infer")
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False,
        num_api_servers=1, access_log=False)
