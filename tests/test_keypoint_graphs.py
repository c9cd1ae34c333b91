"""Graph classifiers: the published counts, the layers' formulas, and what they cannot know."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.keypoint_graphs import (
    GAT,
    GCN,
    GATLayer,
    GCNLayer,
    GraphClassifier,
    GraphSAGE,
    SAGELayer,
    neighbourhoods,
)

KINDS = ("gcn", "gat", "sage")
TINY = {"widths": (8, 6), "heads": 2, "gate_width": 4}
EDGES = ((0, 1), (1, 2), (3, 4))  # of 6 nodes; the last has none


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


def filled(network, example, seed=0):
    """Draws variables of a plausible scale, none of them 0."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        value = rng.normal(size=leaf.shape) / np.sqrt(max(leaf.shape[0], 4))
        if path[-1].key in ("scale", "var"):
            value = 1 + 0.1 * rng.random(leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    shape = jax.ShapeDtypeStruct(example.shape, example.dtype)
    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, shape))


@functools.partial(jax.jit, static_argnames="network")
def evaluate(network, variables, x):
    return network.apply(variables, x, train=False)


@functools.partial(jax.jit, static_argnames="network")
def trained(network, variables, x):
    """Logits, statistics and gradients of one training step."""

    def loss(params):
        outputs, updates = network.apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.sum(outputs["logits"] ** 2), (outputs, updates)

    gradients, (outputs, updates) = jax.grad(loss, has_aux=True)(variables["params"])
    return outputs, updates, gradients


def nodes_of(rng, nodes=6, features=5, batch=4):
    return jnp.asarray(rng.normal(size=(batch, nodes, features)), jnp.float32)


@pytest.mark.parametrize(
    ("make", "features", "params"),
    [
        (GCN, 19, 55_750),
        (GCN, 3, 53_702),
        (GAT, 19, 307_590),
        (GAT, 3, 291_206),
        (GraphSAGE, 19, 109_382),
        (GraphSAGE, 3, 105_286),
    ],
)
def test_classifiers_have_the_published_parameters(make, features, params):
    nodes = jax.ShapeDtypeStruct((1, 128, features), jnp.float32)
    for shortcut in (True, False):
        assert count_params(shapes_of(make(shortcut=shortcut), nodes)["params"]) == params


def test_layers_have_the_published_shapes():
    nodes = jax.ShapeDtypeStruct((1, 128, 19), jnp.float32)
    gcn, gat, sage = (shapes_of(GraphClassifier(kind), nodes)["params"] for kind in KINDS)
    widths = ((19, 128), (128, 256), (256, 64), (64, 32))
    for number, (before, after) in enumerate(widths, start=1):
        name = f"layer{number}"
        assert gcn[name]["linear"]["kernel"].shape == (before, after)
        assert sage[name]["neighbours"]["kernel"].shape == (before, after)
        assert sage[name]["itself"]["kernel"].shape == (before, after)
        heads = 8 if number == 1 else 1
        assert gat[name]["attend_source"].shape == (heads, after)
        joined = 1024 if number == 2 else before
        assert gat[name]["linear"]["kernel"].shape == (joined, heads * after)
    for params in (gcn, gat, sage):
        assert params["gate1"]["kernel"].shape == (32, 16)
        assert params["gate2"]["kernel"].shape == (16, 1)
        assert params["output"]["kernel"].shape == (32, 3)


def test_shortcuts_save_most_of_the_work():
    nodes = jax.ShapeDtypeStruct((1, 128, 19), jnp.float32)

    def macs(kind, shortcut):
        network = GraphClassifier(kind, shortcut=shortcut)
        variables = shapes_of(network, nodes)
        counted = count(lambda v, x: network.apply(v, x, train=False), variables, nodes)
        return counted.macs_nominal

    layers = 19 * 128 + 128 * 256 + 256 * 64 + 64 * 32
    gate, output = 32 * 16 + 16, 32 * 3

    def gcn(nodes):
        mixing = nodes**2 * (128 + 256 + 64 + 32)
        return nodes * (layers + gate) + mixing + output

    assert (macs("gcn", True), macs("gcn", False)) == (gcn(1), gcn(128)) == (54_736, 14_796_896)
    assert macs("sage", True) == 129 * layers + 128 * gate + output


# Formulas, node by node


def heard_by(t, edges=EDGES, nodes=6):
    return sorted({t} | {b for a, b in edges if a == t} | {a for a, b in edges if b == t})


@functools.cache
def layer_and_inputs(layer):
    rng = np.random.default_rng(2)
    x, heard = nodes_of(rng), neighbourhoods(6, EDGES)
    variables = layer.init(jax.random.key(0), x, heard)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), variables)
    return params["params"], np.asarray(x, float), np.asarray(layer.apply(params, x, heard))


def test_gcn_averages_neighbours_by_their_degrees():
    params, x, got = layer_and_inputs(GCNLayer(3))
    weights, bias = np.asarray(params["linear"]["kernel"]), np.asarray(params["bias"])
    for b, t in np.ndindex(4, 6):
        want = bias.astype(float)
        for s in heard_by(t):
            want = want + x[b, s] @ weights / np.sqrt(len(heard_by(t)) * len(heard_by(s)))
        np.testing.assert_allclose(got[b, t], want, rtol=1e-4, atol=1e-5)


def test_gat_weighs_neighbours_by_attention():
    params, x, got = layer_and_inputs(GATLayer(3, heads=2))
    weights = np.asarray(params["linear"]["kernel"]).reshape(5, 2, 3)
    source, target = np.asarray(params["attend_source"]), np.asarray(params["attend_target"])
    for b, t, head in np.ndindex(4, 6, 2):
        h = x[b] @ weights[:, head]
        scores = np.array([target[head] @ h[t] + source[head] @ h[s] for s in heard_by(t)])
        scores = np.where(scores > 0, scores, 0.2 * scores)
        attention = np.exp(scores) / np.exp(scores).sum()
        want = attention @ h[heard_by(t)] + np.asarray(params["bias"])[3 * head : 3 * head + 3]
        np.testing.assert_allclose(got[b, t, 3 * head : 3 * head + 3], want, rtol=1e-3, atol=1e-4)


def test_sage_adds_a_node_and_the_mean_of_its_neighbours():
    params, x, got = layer_and_inputs(SAGELayer(3))
    neighbours, itself = params["neighbours"], params["itself"]
    for b, t in np.ndindex(4, 6):
        want = x[b, heard_by(t)].mean(0) @ np.asarray(neighbours["kernel"], float)
        want += np.asarray(neighbours["bias"]) + x[b, t] @ np.asarray(itself["kernel"], float)
        np.testing.assert_allclose(got[b, t], want, rtol=1e-4, atol=1e-5)


def by_hand(x, variables, edges):
    """A whole GCN in evaluation."""
    params, stats = (jax.tree.map(np.asarray, variables[k]) for k in ("params", "batch_stats"))

    def norm(name, y):
        p, s = params[name], stats[name]
        return (y - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def dense(name, y):
        return y @ params[name]["kernel"] + params[name]["bias"]

    heard = neighbourhoods(x.shape[1], edges)
    degree = heard.sum(1)
    mixing = heard / np.sqrt(np.outer(degree, degree))
    for name in ("layer1", "layer2"):
        y = mixing @ x @ params[name]["linear"]["kernel"] + params[name]["bias"]
        x = norm(f"{name}_norm", np.maximum(y, 0))
    gate = np.maximum(norm("gate_norm1", dense("gate1", x)), 0)
    gate = np.exp(np.maximum(norm("gate_norm2", dense("gate2", gate)), 0))
    weights = gate / gate.sum(1, keepdims=True)
    return dense("output", (weights * x).sum(1)), weights[..., 0]


@pytest.mark.parametrize("edges", [None, EDGES])
def test_the_whole_classifier_is_layers_pooling_and_a_linear_map(rng, edges):
    network, x = GCN(**TINY, edges=edges), nodes_of(rng)
    variables = filled(network, x)
    got = evaluate(network, variables, x)
    logits, weights = by_hand(np.asarray(x, float), variables, edges)
    np.testing.assert_allclose(got["logits"], logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got["node_weights"], weights, rtol=1e-3)


# Shortcuts


def close(a, b):
    # What is 0 in one route is rounding in the other.
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize(("kind", "id_width"), [("gcn", 0), ("gcn", 7), ("sage", 0)])
def test_shortcuts_are_equal_to_the_dense_graph(rng, kind, id_width):
    x = nodes_of(rng)
    short = GraphClassifier(kind, **TINY, id_width=id_width)
    dense = short.clone(shortcut=False)
    variables = filled(short, x)
    jax.tree.map(close, evaluate(short, variables, x), evaluate(dense, variables, x))
    jax.tree.map(close, trained(short, variables, x), trained(dense, variables, x))


# Identity


@pytest.mark.parametrize("kind", KINDS)
def test_without_identities_no_classifier_can_tell_nodes_apart(rng, kind):
    x = nodes_of(rng)
    turned = jnp.roll(x, 2, axis=1)
    blind, seeing = GraphClassifier(kind, **TINY), GraphClassifier(kind, **TINY, id_width=7)
    same = [evaluate(blind, filled(blind, x), nodes)["logits"] for nodes in (x, turned)]
    np.testing.assert_allclose(*same, rtol=1e-3, atol=1e-5)
    other = [evaluate(seeing, filled(seeing, x), nodes)["logits"] for nodes in (x, turned)]
    assert np.abs(other[0] - other[1]).max() > 1e-3


def test_a_complete_gcn_sees_the_mean_node_only(rng):
    """Also when every node has features of its own, unless they pass a ReLU before the mean."""
    x = nodes_of(rng)
    mean = jnp.broadcast_to(x.mean(1, keepdims=True), x.shape)
    blind, seeing = GCN(**TINY, shortcut=False), GCN(**TINY, shortcut=False, id_width=7)
    same = [evaluate(blind, filled(blind, x), nodes)["logits"] for nodes in (x, mean)]
    np.testing.assert_allclose(*same, rtol=1e-3, atol=1e-5)
    other = [evaluate(seeing, filled(seeing, x), nodes)["logits"] for nodes in (x, mean)]
    assert np.abs(other[0] - other[1]).max() > 1e-3


# Training, types, refusals


@pytest.mark.parametrize(
    ("kind", "edges"), [("gcn", None), ("gcn", EDGES), ("gat", None), ("sage", EDGES)]
)
def test_training_reaches_every_parameter_and_statistic(rng, kind, edges):
    network = GraphClassifier(kind, **TINY, edges=edges, id_width=7, dropout=0.1)
    x = nodes_of(rng)
    variables = filled(network, x)
    _, updates, gradients = trained(network, variables, x)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        # The weight of a single node is 1 whatever its gate says.
        if not (kind == "gcn" and edges is None and name.startswith("gate")):
            assert np.abs(gradient).max() > 0, name
    kept = jax.tree.map(np.array_equal, updates["batch_stats"], variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32(kind):
    network = GraphClassifier(kind, **TINY, id_width=7, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((4, 6, 5), jnp.float32)
    variables = shapes_of(network, x)
    outputs, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=True, rngs={"dropout": KEY}),
        variables,
        x,
    )
    kept = {leaf.dtype for leaf in jax.tree.leaves((variables, outputs, updates))}
    assert kept == {jnp.dtype(jnp.float32)}
    assert outputs["logits"].shape == (4, 3)
    assert outputs["node_weights"].shape == (4, 6)


KEY = jax.random.key(0)


def test_an_edge_to_nowhere_is_refused():
    with pytest.raises(ValueError, match="nodes 0 to 5, got"):
        GCN(edges=((0, 6),)).init(KEY, jnp.zeros((1, 6, 3)), train=False)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="got 'gin'"):
        GraphClassifier("gin").init(KEY, jnp.zeros((1, 6, 3)), train=False)
