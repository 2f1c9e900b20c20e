# SPDX-License-Identifier: Apache-2.0
"""The tree engine against ONNX Runtime: random ensembles of every mode, and what converters write."""

import conftest
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn import ensemble, tree

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
POSTS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
SUMS = ["SUM", "AVERAGE", "MIN", "MAX"]
FEATURES = 5
GRID = np.arange(-3, 4) / 2
MEMBERS = [1, 2, 3, 31, 32, 33, 60]


def grow(rng, depth, leaf):
    """A random tree as nested tuples: (feature, mode, value, missing_true, yes, no) or a leaf."""
    if depth == 0 or rng.random() < 0.15:
        return leaf()
    return (
        int(rng.integers(FEATURES)),
        int(rng.integers(6)) if rng.random() < 0.5 else 0,
        float(np.float32(rng.choice(GRID) if rng.random() < 0.7 else rng.normal())),
        int(rng.random() < 0.3),
        grow(rng, depth - 1, leaf),
        grow(rng, depth - 1, leaf),
    )


def chain(rng, depth, leaf):
    """An unbalanced one."""
    node = leaf()
    for _ in range(depth):
        sides = [node, leaf()]
        rng.shuffle(sides)
        node = (int(rng.integers(FEATURES)), 0, float(np.float32(rng.normal())), 0, *sides)
    return node


def flat(trees, kind, wide):
    a = {
        k: []
        for k in [
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_values",
            "nodes_modes",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_missing_value_tracks_true",
            f"{kind}_treeids",
            f"{kind}_nodeids",
            f"{kind}_ids",
            f"{kind}_weights",
        ]
    }

    keys = list(a)[:8]

    def put(tree_id, node):
        number = a["nodes_treeids"].count(tree_id)
        at = len(a["nodes_treeids"])
        is_leaf = isinstance(node, dict)
        values = [tree_id, number, 0, 0.0, "LEAF", 0, 0, 0]
        if not is_leaf:
            values = [tree_id, number, node[0], node[2], MODES[node[1]], 0, 0, node[3]]
        for key, value in zip(keys, values, strict=True):
            a[key].append(value)
        if is_leaf:
            for group, weight in node.items():
                a[f"{kind}_treeids"].append(tree_id)
                a[f"{kind}_nodeids"].append(number)
                a[f"{kind}_ids"].append(group)
                a[f"{kind}_weights"].append(weight)
        else:
            a["nodes_truenodeids"][at] = put(tree_id, node[4])
            a["nodes_falsenodeids"][at] = put(tree_id, node[5])
        return number

    for i, t in enumerate(trees):
        put(i, t)
    if wide:
        for key in ("nodes_values", f"{kind}_weights"):
            a[key + "_as_tensor"] = numpy_helper.from_array(np.array(a.pop(key), np.float64), key)
    return a


def model_of(op, attributes, outputs, wide, version=3):
    node = helper.make_node(op, ["x"], [o.name for o in outputs], domain="ai.onnx.ml", **attributes)
    kind = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", kind, [None, FEATURES])], outputs
    )
    return helper.make_model(
        graph,
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", version)],
    ).SerializeToString()


def rows_for(rng, wide, n=200):
    x = rng.normal(size=(n, FEATURES))
    near = rng.random(x.shape) < 0.5
    x[near] = rng.choice(np.concatenate([GRID, MEMBERS]), near.sum())
    odd = rng.random(x.shape) < 0.1
    x[odd] = rng.choice([np.nan, np.inf, -np.inf, 1e-45, -1e-45, 0.0, -0.0, 3e38], odd.sum())
    return x if wide else x.astype(np.float32).astype(float)


def theirs_of(model, x, wide):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return session.run(None, {name: x.astype(np.float64 if wide else np.float32)})


def compare(trees, tmp_path, model, x, wide=False, labels=None):
    (tmp_path / "m.onnx").write_bytes(model)
    own = trees.score(tmp_path / "m.onnx", x)
    theirs = theirs_of(model, x, wide)
    np.testing.assert_allclose(own.scores, theirs[-1].reshape(own.scores.shape), rtol=1e-6, atol=1e-12)
    if labels is not None:
        np.testing.assert_array_equal(np.asarray(labels)[own.classes], theirs[0])
    return own


@pytest.mark.parametrize("seed", range(60))
def test_regressors(trees, tmp_path, seed):
    rng = np.random.default_rng(seed)
    targets, wide = int(rng.choice([1, 1, 2, 4])), bool(rng.random() < 0.25)
    total, post = str(rng.choice(SUMS)), str(rng.choice(POSTS[:4])) if targets > 1 else "NONE"
    every, has_base = rng.random() < 0.5, rng.random() < 0.5

    def leaf():
        groups = range(targets) if every or has_base else [int(rng.integers(targets))]
        return {g: float(np.float32(rng.normal())) for g in groups}

    shape = chain if rng.random() < 0.2 else grow
    forest = [
        shape(rng, int(rng.choice([0, 1, 3, 5, 8, 9])), leaf) for _ in range(int(rng.choice([1, 3, 20])))
    ]
    attributes = flat(forest, "target", wide)
    attributes.update(n_targets=targets, aggregate_function=total, post_transform=post)
    if has_base:
        base = rng.normal(size=targets).astype(np.float32).tolist()
        if wide:
            attributes["base_values_as_tensor"] = numpy_helper.from_array(np.array(base, np.float64), "b")
        else:
            attributes["base_values"] = base
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, targets])
    compare(
        trees, tmp_path, model_of("TreeEnsembleRegressor", attributes, [out], wide), rows_for(rng, wide), wide
    )


@pytest.mark.parametrize("seed", range(60))
def test_classifiers(trees, tmp_path, seed):
    rng = np.random.default_rng([seed, 1])
    classes, texts = int(rng.choice([2, 2, 3, 5])), bool(rng.random() < 0.4)
    positive, every = rng.random() < 0.5, rng.random() < 0.5
    post = str(rng.choice(POSTS[:4]))

    def leaf_of(group):
        def leaf():
            groups = [0] if classes == 2 else range(classes) if every else [group]
            return {g: float(np.float32(rng.random() if positive else rng.normal())) for g in groups}

        return leaf

    forest = [
        grow(rng, int(rng.choice([0, 1, 3, 5])), leaf_of(g))
        for _ in range(int(rng.choice([1, 3, 20])))
        for g in range(1 if classes == 2 else classes)
    ]
    attributes = flat(forest, "class", False)
    attributes["post_transform"] = post
    labels = [f"c{i}" for i in range(classes)] if texts else (10 * np.arange(classes) + 7).tolist()
    attributes["classlabels_strings" if texts else "classlabels_int64s"] = labels
    if rng.random() < 0.5:
        attributes["base_values"] = (
            rng.normal(size=1 if classes == 2 else classes).astype(np.float32).tolist()
        )
    outputs = [
        helper.make_tensor_value_info("l", TensorProto.STRING if texts else TensorProto.INT64, [None]),
        helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, classes]),
    ]
    compare(
        trees,
        tmp_path,
        model_of("TreeEnsembleClassifier", attributes, outputs, False),
        rows_for(rng, False),
        labels=labels,
    )


def flat_5(rng, forest, wide, members):
    kind = np.float64 if wide else np.float32
    nodes, leaves, roots, membership = [], [], [], []

    def put(node):
        if isinstance(node, dict):
            leaves.append(next(iter(node.items())))
            return len(leaves) - 1, 1
        at = len(nodes)
        nodes.append(None)
        mode = 6 if node[1] == 4 and members else node[1]
        if mode == 6:
            membership.append((at, [float(rng.choice(MEMBERS)), np.nan]))
        yes, yes_leaf = put(node[4])
        no, no_leaf = put(node[5])
        nodes[at] = (node[0], mode, node[2], node[3], yes, yes_leaf, no, no_leaf)
        return at, 0

    for t in forest:
        if isinstance(t, dict):
            t = (0, 0, 0.0, 0, t, t)
        roots.append(put(t)[0])
    columns = list(zip(*nodes, strict=True))
    a = {
        "nodes_featureids": columns[0],
        "nodes_missing_value_tracks_true": columns[3],
        "nodes_truenodeids": columns[4],
        "nodes_trueleafs": columns[5],
        "nodes_falsenodeids": columns[6],
        "nodes_falseleafs": columns[7],
        "tree_roots": roots,
        "leaf_targetids": [g for g, _ in leaves],
        "nodes_modes": numpy_helper.from_array(np.array(columns[1], np.uint8), "m"),
        "nodes_splits": numpy_helper.from_array(np.array(columns[2], kind), "s"),
        "leaf_weights": numpy_helper.from_array(np.array([w for _, w in leaves], kind), "w"),
    }
    if membership:
        values = np.concatenate([v for _, v in sorted(membership)]).astype(kind)
        a["membership_values"] = numpy_helper.from_array(values, "v")
    return a


@pytest.mark.parametrize("seed", range(60))
def test_version_5(trees, tmp_path, seed):
    rng = np.random.default_rng([seed, 5])
    targets, wide = int(rng.choice([1, 1, 3])), bool(rng.random() < 0.3)

    def leaf():
        return {int(rng.integers(targets)): float(np.float32(rng.normal()))}

    forest = [grow(rng, int(rng.choice([1, 3, 5, 8])), leaf) for _ in range(int(rng.choice([1, 3, 20])))]
    attributes = flat_5(rng, forest, wide, members=rng.random() < 0.5)
    attributes.update(
        n_targets=targets,
        aggregate_function=int(rng.choice([0, 1, 2, 3])),
        post_transform=int(rng.choice([0, 3])) if targets > 1 else 0,
    )
    out = helper.make_tensor_value_info(
        "y", TensorProto.DOUBLE if wide else TensorProto.FLOAT, [None, targets]
    )
    model = model_of("TreeEnsemble", attributes, [out], wide, version=5)
    compare(trees, tmp_path, model, rows_for(rng, wide), wide)


SKLEARN = [
    ensemble.RandomForestClassifier(8, max_depth=6, random_state=0),
    ensemble.RandomForestClassifier(8, random_state=0),
    ensemble.ExtraTreesClassifier(8, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
    ensemble.RandomForestRegressor(8, random_state=0),
    ensemble.ExtraTreesRegressor(8, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0),
    tree.DecisionTreeClassifier(random_state=0),
    tree.DecisionTreeRegressor(random_state=0),
]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    "estimator", SKLEARN, ids=lambda e: f"{type(e).__name__}-{e.get_params().get('max_depth')}"
)
def test_scikit_learn(trees, tmp_path, estimator, classes):
    from skl2onnx import to_onnx

    rng = np.random.default_rng(classes)
    x = rng.normal(size=(800, FEATURES)).astype(np.float32)
    s = x[:, 0] - x[:, 1] * x[:, 2] + rng.normal(size=800) * 0.3
    is_classifier = hasattr(estimator, "predict_proba")
    y = (np.abs(s) * 2).astype(int) % classes if is_classifier else s
    estimator.fit(x, y)
    model = to_onnx(
        estimator,
        x[:1],
        target_opset={"": 15, "ai.onnx.ml": 3},
        options={"zipmap": False} if is_classifier else None,
    ).SerializeToString()
    p = rng.normal(size=(300, FEATURES)).astype(np.float32).astype(float)
    try:
        compare(trees, tmp_path, model, p, labels=range(classes) if is_classifier else None)
    except conftest.Refused as refused:
        assert "not a lone tree ensemble" in str(refused)
        pytest.skip(str(refused))
