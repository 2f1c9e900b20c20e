# SPDX-License-Identifier: Apache-2.0
"""LitServe as its documentation has it: one worker, up to 64 requests or 1 ms together."""
import sys

import litserve
import numpy as np

import peer_onnx


class Onnx(litserve.LitAPI):
    def setup(self, device):
        self.session = peer_onnx.open_session()

    def decode_request(self, request):
        return peer_onnx.rows_of(self.session, request)

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return np.concatenate(inputs)

    def predict(self, rows):
        return self.session.run(None, {"x": rows})

    def unbatch(self, outputs):
        ends = np.cumsum(self.sizes)[:-1]
        return list(zip(*(np.split(output, ends) for output in outputs), strict=True))

    def encode_response(self, output):
        return peer_onnx.answer_of(self.session, output)


if __name__ == "__main__":
    api = Onnx(max_batch_size=64, batch_timeout=0.001, api_path=peer_onnx.PATH)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False,
        num_api_servers=1, access_log=False)
