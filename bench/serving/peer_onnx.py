# SPDX-License-Identifier: Apache-2.0
"""What the Python peers share: the model on ONNX Runtime, with the settings that serve one row fastest."""
import os

import numpy as np
import onnxruntime

NAME = os.environ["BENCH_NAME"]
PATH = f"/v2/models/{NAME}/infer"


class Refused(ValueError):
    pass


def open_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options,
                                        providers=["CPUExecutionProvider"])


def rows_of(session, body):
    """The tensor of an Open Inference Protocol request, checked against the model's signature."""
    row = session.get_inputs()[0].shape[1:]
    try:
        tensor, = body["inputs"]
        if tensor["name"] != "x" or tensor["datatype"] != "FP32" or tensor["shape"][1:] != row:
            raise Refused(f"input x FP32 [-1, {row}] is wanted")
        return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    except (KeyError, TypeError, ValueError) as why:
        raise Refused(str(why)) from None


TYPES = {"float32": "FP32", "int64": "INT64"}


def answer_of(session, arrays):
    outputs = [{"name": output.name, "datatype": TYPES[array.dtype.name], "shape": list(array.shape),
                "data": array.ravel().tolist()}
               for output, array in zip(session.get_outputs(), arrays, strict=True)]
    return {"model_name": NAME, "model_version": "1", "outputs": outputs}


def answer(session, rows):
    return answer_of(session, session.run(None, {"x": rows}))
