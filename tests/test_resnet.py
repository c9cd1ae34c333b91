"""ResNets, DenseNet and attention: the published counts, and what the parts compute and keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.cbam import CBAM
from jaxbed.models.densenet import DenseNet
from jaxbed.models.resnet import (
    Backbone,
    BasicBlock,
    Bottleneck,
    ResNet,
    layers_of,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)

TINY = {
    "basic": ResNet(BasicBlock, (1, 2), outputs=3, width=4),
    "bottleneck, attention": ResNet(Bottleneck, (1, 2), outputs=3, width=4, cbam=True),
    "dense": DenseNet((1, 2), outputs=3, width=4),
}
EVERY_TINY = pytest.mark.parametrize("network", TINY.values(), ids=TINY)


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


def image(channels, height=224, width=224):
    return jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)


def filled(network, example, seed=0):
    """Draws variables of a plausible scale; compiling the real initialiser takes seconds."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape, leaf.dtype)
        fan_in = leaf.size / leaf.shape[-1] if path[-1].key == "kernel" else 100
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    shape = jax.ShapeDtypeStruct(example.shape, example.dtype)
    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, shape))


@pytest.mark.parametrize(
    ("network", "colour", "grey"),
    [
        (resnet18, (11_689_512, 1_814_073_344), (11_172_292, 1_734_887_424)),
        (
            functools.partial(resnet18, cbam=True),
            (11_779_392, 1_815_063_764),
            (11_262_172, 1_735_877_844),
        ),
        (resnet34, (21_797_672, 3_663_761_408), (21_280_452, 3_584_575_488)),
        (resnet50, (25_557_032, 4_089_184_256), (23_509_956, 4_008_468_480)),
        (
            functools.partial(resnet50, cbam=True),
            (28_089_624, 4_095_573_110),
            (26_042_548, 4_014_857_334),
        ),
        (resnet101, (44_549_160, 7_801_405_440), (42_502_084, 7_720_689_664)),
        (DenseNet, (7_978_856, 2_834_161_664), (6_951_684, 2_754_465_792)),
    ],
    ids=["18", "18 cbam", "34", "50", "50 cbam", "101", "dense 121"],
)
def test_networks_have_the_published_parameters_and_macs(network, colour, grey):
    for built, example, expected in (
        (network(), image(3), colour),
        (network(outputs=4), image(1), grey),
    ):
        variables = shapes_of(built, example)
        counted = count(lambda v, x, n=built: n.apply(v, x, train=False), variables, example)
        assert (count_params(variables["params"]), counted.macs_nominal) == expected
        assert counted.macs_exact < counted.macs_nominal


def test_a_backbone_gives_every_stage_at_its_size_rounded_up():
    network = Backbone(Bottleneck, (3, 4, 6, 3))
    example = image(3, 225, 130)
    out = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=False), shapes_of(network, example), example
    )
    assert {name: value.shape for name, value in out.items()} == {
        "layer1": (1, 57, 33, 256),
        "layer2": (1, 29, 17, 512),
        "layer3": (1, 15, 9, 1024),
        "layer4": (1, 8, 5, 2048),
    }


def test_the_stride_of_a_bottleneck_is_on_its_3x3():
    network = Backbone(Bottleneck, (1, 1), width=4)
    example = image(1, 32, 32)
    _, state = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=False, capture_intermediates=True, mutable=True),
        shapes_of(network, example),
        example,
    )
    block = state["intermediates"]["layer2"]["block0"]
    sizes = [block[f"conv{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)]
    assert sizes == [8, 4, 4]


def cbam(channels, reduction=16):
    network = Backbone(BasicBlock, (1,))  # lends its types
    return layers_of(network, train=False, attention=True).attention(reduction=reduction)


@pytest.mark.parametrize(("channels", "params"), [(128, 2_284), (512, 33_412)])
def test_attention_has_the_published_parameters(channels, params):
    x = jnp.zeros((1, 7, 7, channels))
    variables = jax.eval_shape(cbam(channels).init, jax.random.key(0), x)
    assert count_params(variables["params"]) == params


def test_attention_is_the_two_gates_written_out(rng):
    """Oracle: equations 2 and 3 in NumPy, the 7x7 window as loops."""
    x = rng.normal(size=(2, 5, 6, 8)).astype(np.float32)
    module = cbam(8, reduction=4)
    assert isinstance(module, CBAM)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape), shapes)
    got = module.apply(jax.tree.map(jnp.float32, variables), jnp.asarray(x))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    gate = variables["params"]["channel_gate"]

    def mlp(a):
        hidden = np.maximum(0, a @ gate["reduce"]["kernel"] + gate["reduce"]["bias"])
        return hidden @ gate["expand"]["kernel"] + gate["expand"]["bias"]

    y = x * sigmoid(mlp(x.mean((1, 2))) + mlp(x.max((1, 2))))[:, None, None, :]
    pooled = np.pad(np.stack([y.max(-1), y.mean(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    params = variables["params"]["spatial_gate"]
    statistics = variables["batch_stats"]["spatial_gate"]["bn"]
    kernel = params["conv"]["kernel"][..., 0]
    for i in range(5):
        for j in range(6):
            seen = (pooled[:, i : i + 7, j : j + 7] * kernel).sum((1, 2, 3))
            seen = (seen - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
            weight = sigmoid(seen * params["bn"]["scale"] + params["bn"]["bias"])
            np.testing.assert_allclose(got[:, i, j], y[:, i, j] * weight[:, None], rtol=1e-4)


def test_attention_ends_the_residual_branch_and_does_not_touch_the_shortcut(rng):
    """A closed gate (sigmoid of -10,000) leaves of a block what its shortcut brings."""
    backbone = Backbone(BasicBlock, (1,), width=4, cbam=True)
    layers = layers_of(backbone, train=False, attention=True)
    block = BasicBlock(4, 1, layers)
    x = jnp.asarray(rng.random((1, 6, 5, 4)), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    bias = variables["params"]["cbam"]["channel_gate"]["expand"]["bias"]
    variables["params"]["cbam"]["channel_gate"]["expand"]["bias"] = bias - 1e4
    np.testing.assert_allclose(block.apply(variables, x), x, rtol=1e-6)


def test_convolutions_start_normal_with_torchvisions_variance():
    """Stem 7x7 from 1 to 32 channels: by fan-out in a ResNet, by fan-in in a DenseNet."""
    x, key = jnp.zeros((1, 8, 8, 1)), jax.random.key(0)
    init = jax.jit(lambda network: network.init(key, x, train=False), static_argnums=0)
    resnet = init(Backbone(BasicBlock, (), width=32))["params"]["stem"]["conv1"]["kernel"]
    dense = init(DenseNet((1,), width=32, outputs=1))["params"]["features"]["conv0"]["kernel"]
    np.testing.assert_allclose(resnet.std(), np.sqrt(2 / (49 * 32)), rtol=0.1)
    np.testing.assert_allclose(dense.std(), np.sqrt(2 / 49), rtol=0.1)
    assert np.abs(resnet).max() > 2.5 * resnet.std()  # not truncated at two deviations


@EVERY_TINY
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(network):
    network = network.clone(dtype=jnp.bfloat16)
    x = image(1, 32, 32)
    variables = shapes_of(network, x)
    outputs, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=True, capture_intermediates=True),
        variables,
        x,
    )
    inside = updates.pop("intermediates")
    del inside["__call__"]  # the outputs
    kept = {leaf.dtype for leaf in jax.tree.leaves((variables, outputs, updates))}
    assert kept == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(inside)} == {jnp.dtype(jnp.bfloat16)}


@EVERY_TINY
def test_training_changes_every_statistic_and_reaches_every_parameter(network, rng):
    x = jnp.asarray(rng.normal(size=(2, 33, 30, 1)), jnp.float32)
    variables = filled(network, x)

    @jax.jit
    def gradients(params):
        def loss(params):
            outputs, updates = network.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(outputs["logits"] ** 2), updates["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    found, batch_stats = gradients(variables["params"])
    for path, gradient in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, name
    kept = jax.tree.map(np.array_equal, batch_stats, variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))


def test_an_odd_width_of_a_densenet_is_refused():
    with pytest.raises(ValueError, match="width must be even, got 5"):
        DenseNet(width=5).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)
