"""The five supervised keypoint networks: the published counts and shapes, and what is their own."""

import collections
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxbed.efficiency.count import count, count_params
from jaxbed.models import hourglass, pyranet
from jaxbed.models.hourglass import StackedHourglass
from jaxbed.models.hrnet import Fusion, HRNet
from jaxbed.models.pose_attention import Gate, PoseAttention
from jaxbed.models.pyranet import PyraNet
from jaxbed.models.resnet import BasicBlock, layers_of
from jaxbed.models.simple_baseline import SimpleBaseline, double
from jaxbed.ops import forms

IMAGE = jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32)
DEAD = 256 * 256 + 256 + 14 * 256 + 256  # what the last stack computes for a next one

# Kernels of the published networks, height x width x input x output channels, and how many.
KERNELS = {
    StackedHourglass: """
        7x7x1x64 1, 3x3x64x64 2, 3x3x128x128 57, 1x1x64x64 1, 1x1x64x128 3, 1x1x128x64 1,
        1x1x128x128 1, 1x1x128x256 58, 1x1x256x128 56, 1x1x256x256 4, 1x1x256x14 2, 1x1x14x256 2""",
    PoseAttention: """
        7x7x1x64 1, 3x3x64x64 2, 3x3x128x128 57, 1x1x64x64 1, 1x1x64x128 3, 1x1x128x64 1,
        1x1x128x128 1, 1x1x128x256 58, 1x1x256x128 56, 1x1x256x256 4, 1x1x256x14 1, 1x1x14x256 2,
        3x3x256x1 14, 1x1x1x1 42, 1x1x256x1 14""",
    PyraNet: """
        7x7x1x64 1, 3x3x64x64 2, 3x3x128x128 57, 1x1x64x64 1, 1x1x64x128 3, 1x1x128x64 1,
        1x1x128x128 1, 1x1x128x256 58, 1x1x256x128 56, 1x1x256x256 4, 1x1x256x14 2, 1x1x14x256 2,
        1x1x64x21 1, 1x1x128x21 1, 3x3x21x21 60, 1x1x21x64 2,
        1x1x128x42 1, 1x1x256x42 28, 3x3x42x42 870, 1x1x42x128 29""",
    HRNet: """
        3x3x1x64 1, 3x3x32x32 74, 3x3x32x64 7, 3x3x32x128 6, 3x3x32x256 2, 3x3x64x64 71,
        3x3x64x128 7, 3x3x64x256 2, 3x3x128x128 56, 3x3x128x256 3, 3x3x256x32 1, 3x3x256x64 1,
        3x3x256x256 24, 1x1x64x32 8, 1x1x128x32 7, 1x1x256x32 3, 1x1x128x64 6, 1x1x256x128 2,
        1x1x64x64 1, 1x1x64x256 5, 1x1x256x64 5, 1x1x32x14 1""",
    SimpleBaseline: """
        7x7x1x64 1, 3x3x64x64 3, 3x3x128x128 4, 3x3x256x256 23, 3x3x512x512 3, 1x1x64x64 1,
        1x1x64x256 4, 1x1x256x64 2, 1x1x256x128 1, 1x1x256x512 1, 1x1x128x512 4, 1x1x512x128 3,
        1x1x512x256 1, 1x1x512x1024 1, 1x1x256x1024 23, 1x1x1024x256 22, 1x1x1024x512 1,
        1x1x1024x2048 1, 1x1x512x2048 3, 1x1x2048x512 2, 4x4x2048x256 1, 4x4x256x256 2,
        1x1x256x14 1""",
}
PUBLISHED = pytest.mark.parametrize("make", KERNELS, ids=lambda make: make.__name__)
WITH_DEAD = (StackedHourglass, PoseAttention, PyraNet)

TINY = [
    StackedHourglass(width=8, joints=2, depth=1, repeats=1),
    PoseAttention(width=8, joints=2, stacks=1, depth=1, repeats=1, steps=2),
    PyraNet(width=24, joints=2, stacks=1, depth=1, repeats=1, scales=2, random_pooling=False),
    HRNet(widths=(4, 6, 8), modules=(1, 1), blocks=1, stem_width=4, joints=2),
    SimpleBaseline(block=BasicBlock, depths=(1, 1, 1), width=4, features=5, joints=2),
]
TINY_NETWORKS = pytest.mark.parametrize("network", TINY, ids=lambda network: type(network).__name__)


@functools.lru_cache
def shapes_of(network, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)


def filled(shapes, *, biased=True):
    """Draws variables of a plausible scale; compiling the real initialiser takes seconds."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape, leaf.dtype)
        kernel = path[-1].key == "kernel"
        spread = np.sqrt(leaf.shape[-1] / leaf.size) if kernel else 0.1 * biased
        return jnp.asarray(rng.normal(size=leaf.shape) * spread, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def images(rng, batch=2, size=(16, 32)):
    return jnp.asarray(rng.random((batch, *size, 1)), jnp.float32)


# Most of the time of these tests is spent compiling; so it is halved.
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(quickly, static_argnames="network")
def evaluate(network, variables, x):
    return network.apply(variables, x, train=False)


# Counts


@functools.lru_cache
def published(make):
    """Shapes and cost at 256x256, of one trace: the form is the one that `count` asks for."""
    init = jax.jit(lambda x: make().init(jax.random.key(0), x, train=False))
    with forms.forced("lax"):
        variables = jax.eval_shape(init, IMAGE)
    return variables["params"], count(init, IMAGE)


@pytest.mark.parametrize(
    ("make", "params", "nominal", "exact"),
    [
        (StackedHourglass, 12_638_878, 13_453_230_080, 13_192_071_424),
        (PoseAttention, 12_686_164, 13_585_522_688, 13_321_625_856),
        (PyraNet, 27_221_110, 24_066_171_734, 23_393_517_742),
        (HRNet, 28_534_862, 10_174_070_784, 9_663_680_576),
        (SimpleBaseline, 52_984_782, 11_977_883_648, 11_493_345_536),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_networks_have_the_published_parameters_and_macs(make, params, nominal, exact):
    shapes, counted = published(make)
    assert count_params(shapes) + (DEAD if make in WITH_DEAD else 0) == params
    assert (counted.macs_nominal, counted.macs_exact) == (nominal, exact)


@PUBLISHED
def test_kernels_have_the_published_shapes(make):
    want = collections.Counter()
    for entry in KERNELS[make].split(","):
        shape, number = entry.split()
        want[tuple(int(n) for n in shape.split("x"))] = int(number)
    if make in WITH_DEAD:
        want -= collections.Counter([(1, 1, 256, 256), (1, 1, 14, 256)])
    shapes, _ = published(make)
    assert collections.Counter(p.shape for p in jax.tree.leaves(shapes) if p.ndim > 1) == want


def test_dead_parts_are_held_but_not_computed():
    network = StackedHourglass(hold_dead=True)
    held = shapes_of(network, IMAGE.shape)
    live, counted = published(StackedHourglass)
    assert count_params(held["params"]) - count_params(live) == DEAD
    computed = count(lambda v, x: network.apply(v, x, train=False), held, IMAGE)
    assert computed.macs_nominal == counted.macs_nominal


def test_pyramids_stand_where_the_image_is_large_enough():
    _, counted = published(PyraNet)
    blocks = {
        path.split("/pyramid/")[0].removeprefix("PyraNet/")
        for path in counted.by_module
        if "/pyramid/" in path
    }
    inside = [
        f"{where}{kind}{i}"
        for where, kinds in [
            ("", ("skip", "down", "up")),
            ("inner/", ("skip", "down", "up")),
            ("inner/inner/", ("skip",)),
        ]
        for kind in kinds
        for i in (1, 2)
    ]
    hourglasses = {f"stack{n}/hourglass/{name}" for n in (1, 2) for name in inside}
    assert blocks == {"stem/block1", "stem/block2", "stem/block3"} | hourglasses


# Every network, tiny


@TINY_NETWORKS
def test_heatmaps_have_a_quarter_of_the_size_and_no_batch_mates(network, rng):
    x, half = images(rng), jnp.array([1, 0.5]).reshape(2, 1, 1, 1)
    variables = filled(shapes_of(network, x.shape))
    outputs, others = (evaluate(network, variables, x) for x in (x, x * half))
    assert outputs["heatmaps"].shape == (2, 4, 8, 2)
    np.testing.assert_allclose(outputs["heatmaps"][0], others["heatmaps"][0], atol=1e-5)
    assert np.abs(outputs["heatmaps"][1] - others["heatmaps"][1]).max() > 1e-3
    if isinstance(network, WITH_DEAD):
        assert outputs["stages"].shape == (2, network.stacks, 4, 8, 2)
        np.testing.assert_array_equal(outputs["stages"][:, -1], outputs["heatmaps"])


@TINY_NETWORKS
def test_training_reaches_every_parameter_and_statistic(network, rng):
    x = images(rng, batch=4)
    variables = filled(shapes_of(network, x.shape))

    @quickly
    @functools.partial(jax.grad, has_aux=True)
    def step(params):
        outputs, updates = network.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return sum(jnp.mean(y**2) for y in outputs.values()), updates["batch_stats"]

    gradients, batch_stats = step(variables["params"])
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, name
    kept = jax.tree.map(np.array_equal, batch_stats, variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))


@TINY_NETWORKS
def test_bfloat16_keeps_parameters_statistics_and_heatmaps_in_float32(network):
    network = network.clone(dtype=jnp.bfloat16)
    shape = (2, 16, 16, 1)
    variables = shapes_of(network, shape)
    outputs, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=True, capture_intermediates=True),
        variables,
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    inside = updates.pop("intermediates")
    del inside["__call__"]  # the outputs
    kept = {leaf.dtype for leaf in jax.tree.leaves((variables, outputs, updates))}
    assert kept == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(inside)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("make", "multiple"), [(make, 64) for make in WITH_DEAD] + [(HRNet, 32), (SimpleBaseline, 32)]
)
def test_a_size_that_cannot_be_halved_often_enough_is_refused(make, multiple):
    for size in ((multiple, multiple + 16), (multiple // 2, multiple)):
        with pytest.raises(ValueError, match=f"multiples of {multiple}, got"):
            make().init(jax.random.key(0), jnp.zeros((1, *size, 1)), train=False)


# What is a network's own


def test_halving_keeps_the_maximum_of_four(rng):
    x = rng.normal(size=(2, 6, 8, 3)).astype(np.float32)
    want = x.reshape(2, 3, 2, 4, 2, 3).max((2, 4))
    np.testing.assert_array_equal(hourglass.halve(jnp.asarray(x)), want)


def test_a_gate_multiplies_by_a_map_refined_in_steps(rng):
    layers = hourglass.layers_of(StackedHourglass(), train=False)
    gate, x = Gate(2, layers), rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
    shapes = jax.eval_shape(lambda: gate.init(jax.random.key(0), x))
    variables = jax.tree.map(lambda v: rng.uniform(0.5, 1, v.shape).astype(np.float32), shapes)
    params, stats = variables["params"], variables["batch_stats"]

    def norm(name, y):
        p, s = params[name], stats[name]
        return (y - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    y = norm("norm", x)
    padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    evidence = np.zeros((1, 3, 4, 1))
    for i, j in np.ndindex(3, 4):
        window = padded[0, i : i + 3, j : j + 3]
        evidence[0, i, j] = np.sum(window * params["evidence"]["kernel"][..., 0])
    evidence += params["evidence"]["bias"]
    attention = evidence
    for name in ("step1", "step2"):
        z = norm(f"{name}_norm", attention) * params[name]["kernel"][0] + params[name]["bias"]
        attention = evidence + 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(gate.apply(variables, x), y * attention, rtol=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 130), st.integers(1, 64), st.floats(0, 0.9375, width=32))
def test_pooling_windows_lie_evenly_and_end_at_the_border(length, removed, offset):
    pooled = max(length - removed, length // 2)
    starts = pyranet.window_starts(length, pooled, np.float32(offset))
    assert starts[-1] == length - 2
    step = Fraction(length - 2, max(pooled - 1, 1))
    for n, start in enumerate(starts[:-1]):
        exact = int((n + Fraction(offset)) * step) - int(Fraction(offset) * step)
        assert abs(start - exact) <= 1  # of rounding
        assert 0 <= start <= length - 2


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5])
def test_fractional_pooling_takes_the_maximum_of_its_windows(rng, offset):
    """Sizes of which the steps are exact in float32."""
    x = rng.normal(size=(2, 8, 14, 3)).astype(np.float32)
    size, steps = (5, 9), (6 / 4, 12 / 8)
    got = pyranet.fractional_max_pool(jnp.asarray(x), size, np.full(2, offset, np.float32))
    for i, j in np.ndindex(*size):
        row, column = (
            int((n + offset) * a) - int(offset * a) for n, a in zip((i, j), steps, strict=True)
        )
        want = x[:, row : row + 2, column : column + 2].max((1, 2))
        np.testing.assert_array_equal(got[:, i, j], want)


def test_enlarging_shows_the_place_that_covers_a_pixels_first_corner(rng):
    x = rng.normal(size=(1, 3, 5, 2)).astype(np.float32)
    got = pyranet.resize_nearest(jnp.asarray(x), (7, 8))
    for i, j in np.ndindex(7, 8):
        np.testing.assert_array_equal(got[:, i, j], x[:, int(i * 3 / 7), int(j * 5 / 8)])


def test_pyramids_draw_their_windows_in_training_only(rng):
    network = PyraNet(width=24, stacks=1, depth=1, repeats=1, scales=2)
    shape = (1, 16, 16, 1)
    variables = shapes_of(network, shape)

    def draws(network, *, train):
        jaxpr = jax.make_jaxpr(
            lambda v, x, key: network.apply(
                v, x, train=train, mutable=["batch_stats"], rngs={"dropout": key}
            )
        )(variables, jax.ShapeDtypeStruct(shape, jnp.float32), jax.random.key(0))
        return "random_bits" in str(jaxpr)

    assert draws(network, train=True)
    assert not draws(network, train=False)
    assert not draws(network.clone(random_pooling=False), train=True)

    layers = hourglass.layers_of(network, train=False)
    x = jnp.asarray(rng.normal(size=(1, 12, 12, 2)), jnp.float32)
    drawn, fixed = (pyranet.Pyramid(2, layers, random) for random in (True, False))
    variables = fixed.init(jax.random.key(0), x)
    apply = jax.jit(lambda key: drawn.apply(variables, x, rngs={"dropout": key}))
    first, again, other = (apply(jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_fusion_sums_all_routes_at_the_size_of_each(rng):
    """Oracle for what goes up: 1x1, then nearest neighbours; what goes down has its own size."""
    layers = layers_of(HRNet(), train=False, attention=False)
    fusion = Fusion(3, layers)
    routes = [
        jnp.asarray(rng.normal(size=(1, 8 // 2**i, 12 // 2**i, 2 + i)), jnp.float32)
        for i in range(3)
    ]
    shapes = jax.eval_shape(lambda: fusion.init(jax.random.key(0), routes))
    variables = filled(shapes, biased=False)
    fused = jax.jit(fusion.apply)(variables, routes)
    assert [y.shape for y in fused] == [x.shape for x in routes]
    want = np.asarray(routes[0], float)
    for source in (1, 2):
        kernel = variables["params"][f"from{source}_to0"]["kernel"][0, 0]
        y = np.asarray(routes[source] @ kernel) / np.sqrt(1 + 1e-5)
        want = want + np.kron(y, np.ones((1, 2**source, 2**source, 1)))
    np.testing.assert_allclose(fused[0], np.maximum(want, 0), atol=1e-4)
    downward = variables["params"]["from0_to2"]
    assert [downward[f"conv{i}"]["kernel"].shape for i in (1, 2)] == [(3, 3, 2, 2), (3, 3, 2, 4)]


def test_doubling_is_the_transposed_convolution(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(4, 4, 4, 6)), jnp.float32)

    def spread(x, kernel):
        numbers, around = ("NHWC", "HWIO", "NHWC"), [(2, 2), (2, 2)]
        return lax.conv_general_dilated(
            x, kernel, (1, 1), around, lhs_dilation=(2, 2), dimension_numbers=numbers
        )

    def results(function):
        return function(x, kernel), jax.grad(lambda *args: jnp.sum(function(*args) ** 2), (0, 1))(
            x, kernel
        )

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        results(double),
        results(spread),
    )
