# SPDX-License-Identifier: Apache-2.0
"""What the Python peers share: the model on ONNX Runtime, with the settings that serve one row fastest."""
import os

import numpy as np
import onnxruntime

FEATURES = 30


class Refused(ValueError):
    pass


def open_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options,
                                        providers=["CPUExecutionProvider"])


def rows_of(body):
    """The tensor of an Open Inference Protocol request, checked against the model's signature."""
    try:
        tensor, = body["inputs"]
        if tensor["name"] != "x" or tensor["datatype"] != "FP32" or tensor["shape"][1:] != [FEATURES]:
            raise Refused("input x FP32 [-1,30] is wanted")
        return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    except (KeyError, TypeError, ValueError) as why:
        raise Refused(str(why)) from None


def answer(session, rows):
    label, probabilities = session.run(None, {"x": rows})
    return {"model_name": "gbm", "model_version": "1", "outputs": [
        {"name": "label", "datatype": "INT64", "shape": list(label.shape), "data": label.tolist()},
        {"name": "probabilities", "datatype": "FP32", "shape": list(probabilities.shape),
         "data": probabilities.ravel().tolist()}]}
