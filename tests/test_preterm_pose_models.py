"""Detection and regression of limb maps: the published counts, what they see, what they keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.preterm_pose import DetectionCNN, RegressionCNN
from jaxbed.ops import forms

STACK = jax.ShapeDtypeStruct((1, 3, 96, 128, 21), jnp.float32)
CLIP = jax.ShapeDtypeStruct((1, 3, 96, 128, 1), jnp.float32)
KINDS = ("standard", "asymmetric", "lean")
TINY = {"widths": (4,), "head_width": 5, "maps": 3}


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


def shape_of(array):
    return jax.ShapeDtypeStruct(array.shape, jnp.float32)


def filled(network, example, seed=0):
    """Draws variables of a plausible scale; compiling the real initialiser takes seconds."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape, leaf.dtype)
        fan_in = leaf.size / leaf.shape[-1] if path[-1].key == "kernel" else 100
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, shape_of(example)))


def clip_of(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def macs_of(network, example):
    variables = shapes_of(network, example)
    return count(lambda v, x: network.apply(v, x, train=False), variables, example)


@pytest.mark.parametrize(
    ("network", "params", "nominal", "exact"),
    [
        (RegressionCNN(kind="standard"), 2_985_236, 109_940_834_304, 85_076_812_544),
        (RegressionCNN(kind="asymmetric"), 1_310_612, 48_051_781_632, 44_157_124_608),
        (RegressionCNN(kind="lean"), 577_012, 21_138_112_512, 19_212_607_488),
        (DetectionCNN(), 31_530_708, 20_995_375_104, 16_514_070_272),
    ],
    ids=lambda value: getattr(value, "kind", type(value).__name__),
)
def test_networks_have_the_published_parameters_and_macs(network, params, nominal, exact):
    example = STACK if isinstance(network, RegressionCNN) else CLIP
    counted = macs_of(network, example)
    assert count_params(shapes_of(network, example)["params"]) == params
    assert (counted.macs_nominal, counted.macs_exact) == (nominal, exact)


def test_without_biases_before_normalisations_the_other_published_parameters_remain():
    for kind, published in {"standard": 2_984_276, "asymmetric": 1_308_244}.items():
        params = shapes_of(RegressionCNN(kind=kind), STACK)["params"]
        leaves = jax.tree_util.tree_leaves_with_path(params)
        idle = [
            leaf.size
            for path, leaf in leaves
            if path[-1].key == "bias"
            and not path[-2].key.endswith("_norm")
            and path[-2].key != "output"
        ]
        assert count_params(params) - sum(idle) == published


def test_the_lean_network_has_the_weights_it_promises():
    leaves = jax.tree_util.tree_leaves_with_path(shapes_of(RegressionCNN(kind="lean"), STACK))
    assert sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel") == 573_408


def test_every_stage_of_the_asymmetric_network_is_a_row_of_table_1():
    params = shapes_of(RegressionCNN(), STACK)["params"]
    shapes = {
        f"{stage}/{layer}": params[stage][layer]["kernel"].shape
        for stage in ("stage1", "stage2", "stage3", "stage4")
        for layer in ("height", "width", "time")
    }
    inputs, outputs = (21, 64, 128, 256), (64, 128, 256, 256)
    for number, (before, after) in enumerate(zip(inputs, outputs, strict=True), start=1):
        assert shapes[f"stage{number}/height"] == (1, 3, 1, before, after)
        assert shapes[f"stage{number}/width"] == (1, 1, 3, after, after)
        assert shapes[f"stage{number}/time"] == (3, 1, 1, after, after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_sees_nine_frames_nine_rows_and_nine_columns(kind, rng):
    """Four stages; positive weights and inputs, so that no path is cut by a ReLU or cancels."""
    network = RegressionCNN(kind=kind, widths=(2, 2, 2, 2), head_width=2, maps=1)
    x = jnp.abs(clip_of(rng, 1, 11, 12, 13, 2))
    variables = jax.tree.map(jnp.abs, filled(network, x))
    # A running mean would push activations below 0.
    variables["batch_stats"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (path[-1].key == "var"), variables["batch_stats"]
    )

    def centre(x):
        return network.apply(variables, x, train=False)["maps"][0, 5, 6, 6, 0]

    seen = np.asarray(jax.jit(jax.grad(centre))(x)).any((0, 4))
    want = np.zeros(seen.shape, bool)
    want[1:10, 2:11, 2:11] = True
    np.testing.assert_array_equal(seen, want)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_keep_the_size_of_the_clip(kind):
    network = RegressionCNN(kind=kind, **TINY)
    x = jax.ShapeDtypeStruct((2, 3, 6, 10, 21), jnp.float32)
    variables = shapes_of(network, x)
    out = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, x)
    assert {name: value.shape for name, value in out.items()} == {"maps": (2, 3, 6, 10, 3)}


@pytest.mark.parametrize("kind", ["standard", "asymmetric"])
def test_every_form_gives_the_same_values_and_gradients(kind, rng):
    network = RegressionCNN(kind=kind, **TINY)
    x = clip_of(rng, 2, 3, 6, 8, 3)
    variables = filled(network, x)

    def loss(params):
        outputs, updates = network.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(outputs["maps"] ** 2), updates

    results = []
    for form in ("lax", "slices"):
        with forms.forced(form):
            results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(1e-2, np.abs(a).max())),
        *results,
    )


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="got 'separable'"):
        RegressionCNN(kind="separable").init(jax.random.key(0), jnp.zeros((1, 1, 4, 4, 2)), train=0)


def test_detection_gives_logits_and_their_sigmoid_at_the_size_of_the_clip(rng):
    network = DetectionCNN(width=2, blocks=2)
    clip = clip_of(rng, 1, 3, 8, 12, 1)
    out = jax.jit(lambda v, x: network.apply(v, x, train=False))(filled(network, clip), clip)
    assert out["logits"].shape == out["maps"].shape == (1, 3, 8, 12, 20)
    np.testing.assert_allclose(out["maps"], 1 / (1 + np.exp(-out["logits"])), rtol=1e-5)


@pytest.mark.parametrize("size", [(24, 32), (32, 40)])
def test_detection_refuses_a_size_that_is_not_a_multiple_of_16(size):
    with pytest.raises(ValueError, match="multiples of 16"):
        DetectionCNN(width=2).init(jax.random.key(0), jnp.zeros((1, 3, *size, 1)), train=False)


def test_detection_refuses_an_odd_width():
    with pytest.raises(ValueError, match="width must be even, got 3"):
        DetectionCNN(width=3).init(jax.random.key(0), jnp.zeros((1, 3, 16, 16, 1)), train=False)


TINY_NETWORKS = pytest.mark.parametrize(
    ("network", "channels"),
    [
        *((RegressionCNN(kind=kind, **TINY), 3) for kind in KINDS),
        (DetectionCNN(width=2, blocks=1), 1),
    ],
    ids=[*KINDS, "detection"],
)


@TINY_NETWORKS
def test_bfloat16_keeps_parameters_statistics_and_maps_in_float32(network, channels):
    network = network.clone(dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((1, 3, 6, 8, channels), jnp.float32)
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


@TINY_NETWORKS
def test_training_changes_every_statistic_and_evaluation_none(network, channels, rng):
    x = clip_of(rng, 2, 3, 6, 8, channels)
    variables = filled(network, x)

    @functools.partial(jax.jit, static_argnames="train")
    def statistics(train):
        _, updates = network.apply(variables, x, train=train, mutable=["batch_stats"])
        return updates["batch_stats"]

    kept = jax.tree.map(np.array_equal, statistics(train=False), variables["batch_stats"])
    assert all(jax.tree.leaves(kept))
    kept = jax.tree.map(np.array_equal, statistics(train=True), variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))
