# SPDX-License-Identifier: Apache-2.0
"""Small models for tests and measurements, made here and now; all take a batch of any size.

The plain ones return ONNX bytes. `gbm` and `xgb` are trained from a fixed seed and also return rows
and the answers of the library that trained them, to compare with.
"""
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
IR_VERSION = 10


class Trained(NamedTuple):
    model: bytes
    rows: np.ndarray  # float32 [n, features]
    answers: np.ndarray  # probability of class 1, [n]


def onnx_bytes(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, producer_name="weir-tests", ir_version=IR_VERSION,
                              opset_imports=OPSETS)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def value(name, element, *shape):
    return helper.make_tensor_value_info(name, element, list(shape))


def identity(width=2, element=TensorProto.FLOAT):
    """x [batch, width] -> y, the same."""
    return onnx_bytes([helper.make_node("Identity", ["x"], ["y"])],
                      [value("x", element, "batch", width)], [value("y", element, "batch", width)])


def named_columns(width):
    """x DOUBLE [batch, width] -> y0, y1, … [batch, 1], its columns as they are."""
    split = numpy_helper.from_array(np.ones(width, dtype=np.int64), "split")
    names = [f"y{i}" for i in range(width)]
    return onnx_bytes([helper.make_node("Split", ["x", "split"], names, axis=1)],
                      [value("x", TensorProto.DOUBLE, "batch", width)],
                      [value(name, TensorProto.DOUBLE, "batch", 1) for name in names], [split])


def linear(weights, bias=0.0):
    """x [batch, n] -> score [batch, 1] = x . weights + bias."""
    column = np.asarray(weights, dtype=np.float32).reshape(-1, 1)
    return onnx_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["score"])],
        [value("x", TensorProto.FLOAT, "batch", len(column))],
        [value("score", TensorProto.FLOAT, "batch", 1)],
        [numpy_helper.from_array(column, "w"), numpy_helper.from_array(np.float32([bias]), "b")])


def brittle(weights=(4, 4, 0), fails_above=50.0, drops=False):
    """x [batch, n] -> label INT64 [batch], probabilities FP32 [batch, 2]: a logistic model that does not
    bear rows whose last column is above `fails_above`. Its run fails there, as one with a table does; or,
    if it `drops`, label is a text and has no row for them."""
    column = np.asarray(weights, dtype=np.float32).reshape(-1, 1)
    last = np.zeros_like(column)
    last[-1] = 1
    constants = {"w": column, "last": last, "limit": np.float32([fails_above]), "zero": np.int64([0]),
                 "table": np.float32([1] * (8 if drops else 1)), "far": np.int64([7]),
                 "one": np.float32([1]), "half": np.float32([0.5]), "axis": np.int64([1])}
    steps = [("MatMul", "x w", "xw"), ("Sigmoid", "xw", "p"), ("MatMul", "x last", "xl"),
             ("Greater", "xl limit", "beyond"), ("Where", "beyond far zero", "place"),
             ("Gather", "table place", "ones"), ("Mul", "p ones", "p1"), ("Sub", "one p1", "p0"),
             ("Greater", "p1 half", "yes"), ("Squeeze", "beyond axis", "gone"), ("Not", "gone", "kept")]
    nodes = [helper.make_node(op, inputs.split(), [output]) for op, inputs, output in steps]
    nodes += [helper.make_node("Concat", ["p0", "p1"], ["probabilities"], axis=1),
              helper.make_node("Cast", ["yes"], ["codes"], to=TensorProto.INT64),
              helper.make_node("Squeeze", ["codes", "axis"], ["code" if drops else "label"])]
    if drops:
        nodes += [helper.make_node("LabelEncoder", ["code"], ["text"], domain="ai.onnx.ml",
                                   keys_int64s=[0, 1], values_strings=["0", "1"], default_string="?"),
                  helper.make_node("Compress", ["text", "kept"], ["label"], axis=0)]
    return onnx_bytes(nodes, [value("x", TensorProto.FLOAT, "batch", len(column))],
                      [value("label", TensorProto.STRING if drops else TensorProto.INT64, "batch"),
                       value("probabilities", TensorProto.FLOAT, "batch", 2)],
                      [numpy_helper.from_array(v, k) for k, v in constants.items()])


def lengthy():
    """x [batch, 3] -> label INT64 [batch], probabilities FP32 [batch, 2], after a loop of 100,000 rounds
    times the greatest of the last column."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "one"], ["v2"])], "body",
        [value("i", TensorProto.INT64), value("c", TensorProto.BOOL),
         value("v", TensorProto.FLOAT, "batch", 3)],
        [value("c2", TensorProto.BOOL), value("v2", TensorProto.FLOAT, "batch", 3)])
    numbers = [numpy_helper.from_array(v, k) for k, v in {
        "last": np.float32([[0], [0], [100_000]]), "yes": np.bool_(True), "one": np.float32(1),
        "w": np.zeros((3, 2), np.float32)}.items()]
    nodes = [helper.make_node("MatMul", ["x", "last"], ["xl"]),
             helper.make_node("ReduceMax", ["xl"], ["most"], keepdims=0),
             helper.make_node("Cast", ["most"], ["n"], to=TensorProto.INT64),
             helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=body),
             helper.make_node("MatMul", ["y", "w"], ["z"]),
             helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
             helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)]
    return onnx_bytes(nodes, [value("x", TensorProto.FLOAT, "batch", 3)],
                      [value("label", TensorProto.INT64, "batch"),
                       value("probabilities", TensorProto.FLOAT, "batch", 2)], numbers)


def two_inputs():
    """a FP32 [batch], b INT64 [batch] -> sum FP32 [batch]."""
    return onnx_bytes(
        [helper.make_node("Cast", ["b"], ["bf"], to=TensorProto.FLOAT),
         helper.make_node("Add", ["a", "bf"], ["sum"])],
        [value("a", TensorProto.FLOAT, "batch"), value("b", TensorProto.INT64, "batch")],
        [value("sum", TensorProto.FLOAT, "batch")])


def strings(known=("no", "yes")):
    """x strings [batch] -> code INT64 [batch]: the position in `known`, -1 for any other text."""
    encoder = helper.make_node("LabelEncoder", ["x"], ["code"], domain="ai.onnx.ml", default_int64=-1,
                               keys_strings=list(known), values_int64s=list(range(len(known))))
    return onnx_bytes([encoder], [value("x", TensorProto.STRING, "batch")],
                      [value("code", TensorProto.INT64, "batch")])


def network(layers, shape, seed=7):
    """x [batch, *shape] through `layers`, each (operator, shapes of its weights, attributes) -> y."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for i, (op, shapes, attributes) in enumerate(layers):
        names = [f"w{i}_{k}" for k in range(len(shapes))]
        for name, dims in zip(names, shapes, strict=True):
            fan_in = np.prod(dims[1:] if op == "Conv" else dims[:-1]) if len(dims) > 1 else 8
            values = random.normal(scale=1 / np.sqrt(fan_in), size=dims).astype(np.float32)
            weights.append(numpy_helper.from_array(values, name))
        output = "y" if i == len(layers) - 1 else f"h{i}"
        nodes.append(helper.make_node(op, [last, *names], [output], **attributes))
        last = output
    width = layers[-2][1][-1][0]
    return onnx_bytes(nodes, [value("x", TensorProto.FLOAT, "batch", *shape)],
                      [value("y", TensorProto.FLOAT, "batch", width)], weights)


def mlp():
    """x [batch, 30] -> y [batch, 1]: a network of two hidden layers of 64."""
    return network([("Gemm", [(30, 64), (64,)], {}), ("Relu", [], {}), ("Gemm", [(64, 64), (64,)], {}),
                    ("Relu", [], {}), ("Gemm", [(64, 1), (1,)], {}), ("Sigmoid", [], {})], (30,))


def cnn():
    """x [batch, 1, 28, 28] -> y [batch, 10]: two convolutions and a dense layer on a small image."""
    half = {"kernel_shape": [2, 2], "strides": [2, 2]}
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return network([("Conv", [(8, 1, 3, 3), (8,)], same), ("Relu", [], {}), ("MaxPool", [], half),
                    ("Conv", [(16, 8, 3, 3), (16,)], same), ("Relu", [], {}), ("MaxPool", [], half),
                    ("Flatten", [], {}), ("Gemm", [(784, 10), (10,)], {}), ("Softmax", [], {})], (1, 28, 28))


def two_classes(features, rows, seed):
    """Rows and labels with interactions and noise, so that trees have something to split on."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features)).astype(np.float32)
    signal = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3:].sum(axis=1) / features
    return x, (signal + random.normal(scale=0.5, size=rows) > 0).astype(np.int64)


def gbm(features=30, trees=100, depth=6, rows=20_000, seed=7):
    """The model of the serving measurements: scikit-learn's histogram boosting, as ONNX.

    x [batch, features] -> label INT64 [batch], probabilities FP32 [batch, 2]."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    x, y = two_classes(features, rows, seed)
    classifier = HistGradientBoostingClassifier(max_iter=trees, max_depth=depth, max_leaf_nodes=2**depth,
                                                early_stopping=False, random_state=seed)
    with threadpool_limits(1):  # on a busy machine its threads wait for each other, spinning
        classifier.fit(x, y)
    model = to_onnx(classifier, x[:1], target_opset={"": 17, "ai.onnx.ml": 3},
                    options={"zipmap": False})
    model.graph.input[0].name, old = "x", model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["x" if name == old else name for name in node.input]
    return Trained(model.SerializeToString(), x[:256], classifier.predict_proba(x[:256])[:, 1])


def xgb(features=30, trees=100, depth=6, rows=20_000, seed=7, **parameters):
    """The same data learnt by XGBoost; the model is its JSON file."""
    import xgboost

    x, y = two_classes(features, rows, seed)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": depth, "seed": seed,
                             "nthread": 1, **parameters}, xgboost.DMatrix(x, y), trees)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        booster.save_model(path)
        return Trained(path.read_bytes(), x[:256], booster.predict(xgboost.DMatrix(x[:256])))
