"""EFD: the published counts, the soft-argmax, and what its switches change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.efd import EFD, Encoder, Fuser, pixel_locations
from jaxbed.models.efd_decoder import Decoder
from jaxbed.ops import forms

MAP = jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32)
CODE = jax.ShapeDtypeStruct((1, 4096), jnp.float32)
SMALL = {"size": (32, 64), "keypoints": 8, "features": 4, "decoder_features": (8, 8, 4, 4)}


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


@functools.partial(jax.jit, static_argnames=("network", "train"))
def apply(network, variables, image, train=False):
    return network.apply(variables, image, train=train, mutable=["batch_stats"] if train else False)


def filled(network, example, seed=0):
    """Draws variables of a plausible scale; compiling the real initialiser takes seconds."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.ones(leaf.shape)
        spread = 1 / np.sqrt(leaf.size / leaf.shape[-1]) if name == "kernel" else 0.01
        return jnp.asarray(rng.normal(size=leaf.shape) * spread, jnp.float32)

    shape = jax.ShapeDtypeStruct(example.shape, example.dtype)
    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, shape))


def params_of(network, example):
    return count_params(shapes_of(network, example)["params"])


def macs_of(network, example):
    variables = shapes_of(network, example)
    return count(lambda v, x: network.apply(v, x, train=False), variables, example)


def test_encoder_has_the_published_parameters_and_macs():
    counted = macs_of(Encoder(), MAP)
    assert params_of(Encoder(), MAP) == 138_400
    assert counted.macs_nominal == 557_096_256
    assert counted.macs_exact < counted.macs_nominal


def test_every_encoder_block_has_the_parameters_of_its_row():
    params = shapes_of(Encoder(), MAP)["params"]
    rows = [count_params(params[f"block{i}"]) for i in range(7)]
    assert rows == [920, 3_864, 5_416, 10_948, 27_140, 17_424, 59_664]
    head = count_params(params["head"]) + count_params(params["head_norm"])
    features = count_params(params["pixel_features"]) + count_params(params["pixel_features_norm"])
    assert (head, features) == (12_544, 304)


def test_fuser_has_the_published_parameters():
    shapes = jax.eval_shape(
        lambda: Fuser().init(
            jax.random.key(0),
            jnp.zeros((1, 64, 64, 128)),
            jnp.zeros((1, 64, 64, 16)),
            jnp.zeros((1, 64, 64, 3)),
        )
    )
    assert count_params(shapes["params"]) == 788_480


@pytest.mark.parametrize(
    ("switches", "params"),
    [
        ({"official_head": True, "hold_dead": True}, 17_464_277),
        ({"official_head": True, "hold_dead": True, "outputs": 2}, 17_464_424),
        ({"official_head": True}, 17_309_727),
        ({"official_head": True, "outputs": 2}, 17_309_874),
        ({"official_head": True, "hold_dead": True, "dilation": False}, 17_404_077),
        ({"official_head": True, "hold_dead": True, "exchange": False}, 17_031_925),
        # A plain convolution at the end has two parameters less per output channel.
        ({}, 17_309_725),
        ({"outputs": 2}, 17_309_870),
        ({"normalise_code": True}, 17_309_725),
    ],
)
def test_decoder_has_the_published_parameters(switches, params):
    assert params_of(Decoder(**switches), CODE) == params


def test_decoder_parts_have_the_published_parameters():
    decoder = Decoder(official_head=True, hold_dead=True)
    params = shapes_of(decoder, CODE)["params"]

    def part(prefix):
        dead = params["dead"]
        return sum(
            count_params(tree[name])
            for tree in (params, dead)
            for name in tree
            if name.startswith(prefix)
        )

    assert count_params(params["linear"]) == 16_781_312
    assert count_params(params["linear_norm"]) == 2
    assert [part(f"expand{n}") for n in (1, 2, 3, 4)] == [77_280, 19_440, 4_920, 1_260]
    assert [part(f"conv{n}_") for n in (1, 2, 3)] == [46_380, 48_732, 49_332]
    assert [part(f"exchange{n}") for n in (1, 2, 3, 4)] == [53_730, 100_418, 130_674, 147_530]
    assert (part("head"), part("output")) == (2_352, 147)


# Three downsampling convolutions whose result two routes of one size share; counted twice, as a
# program without that sharing executes them, they make up the published 6.926 and 6.935 GMACs.
SHARED = 84_934_656


@pytest.mark.parametrize(
    ("outputs", "macs", "gmacs"), [(1, 6_840_672_256, 6.926), (2, 6_850_109_440, 6.935)]
)
def test_decoder_computes_its_live_parts_once(outputs, macs, gmacs):
    counted = macs_of(Decoder(outputs=outputs, official_head=True), CODE)
    assert counted.macs_nominal == macs
    assert round((macs + SHARED) / 1e9, 3) == gmacs


def test_parts_held_for_published_weights_are_not_computed():
    held = macs_of(Decoder(size=(64, 64), official_head=True, hold_dead=True), CODE)
    live = macs_of(Decoder(size=(64, 64), official_head=True), CODE)
    assert held.macs_nominal == live.macs_nominal


def test_keypoints_are_the_expected_positions_under_the_heatmaps(rng):
    """Oracle: the soft-argmax written out as loops."""
    heatmaps = rng.random((2, 4, 6, 3)).astype(np.float32)
    heatmaps /= heatmaps.sum((1, 2), keepdims=True)
    features = rng.random((2, 4, 6, 5)).astype(np.float32)
    image = rng.random((2, 16, 24, 1)).astype(np.float32)
    locations = pixel_locations(jnp.asarray(image))
    fused, _ = Fuser().init_with_output(jax.random.key(0), heatmaps, features, locations)

    for b in range(2):
        for k in range(3):
            place, feature = np.zeros(3), np.zeros(5)
            for i in range(4):
                for j in range(6):
                    pressure = image[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].max()
                    weight = heatmaps[b, i, j, k]
                    place += weight * np.array([pressure, i / 4, j / 6])
                    feature += weight * features[b, i, j]
            np.testing.assert_allclose(fused["keypoints"][b, k], place, rtol=1e-5)
            np.testing.assert_allclose(fused["keypoint_features"][b, k], feature, rtol=1e-5)
    assert fused["code"].shape == (2, 2 * 3 * 5)


@pytest.mark.parametrize("normalisation", ["softmax", "sigmoid"])
def test_heatmaps_are_weights_that_sum_to_one(normalisation, rng):
    encoder = Encoder(keypoints=8, normalisation=normalisation)
    image = jnp.asarray(rng.random((2, 32, 32, 1)), jnp.float32)
    variables = filled(encoder, image)
    heatmaps = apply(encoder, variables, image)["heatmaps"]
    np.testing.assert_allclose(heatmaps.sum((1, 2)), 1, rtol=1e-5)
    assert heatmaps.min() >= 0


def test_the_forms_of_operations_change_no_output(rng):
    image = jnp.asarray(rng.random((2, 32, 32, 1)), jnp.float32)
    encoder = Encoder(keypoints=8)
    variables = filled(encoder, image)
    got = apply(encoder, variables, image)
    with forms.forced("lax"):
        want = apply(encoder, variables, image)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-5, err_msg=name)


def test_sharpness_concentrates_the_heatmaps(rng):
    image = jnp.asarray(rng.random((2, 32, 32, 1)), jnp.float32)
    variables = filled(Encoder(keypoints=8), image)

    def entropy(sharpness):
        encoder = Encoder(keypoints=8, sharpness=sharpness)
        h = apply(encoder, variables, image)["heatmaps"]
        return float(-jnp.mean(jnp.sum(h * jnp.log(h), axis=(1, 2))))

    assert entropy(4.0) < entropy(1.0)


@pytest.fixture(scope="module")
def small():
    network = EFD(**SMALL)
    image = jnp.asarray(np.random.default_rng(0).random((3, 32, 64, 1)), jnp.float32)
    return network, filled(network, image), image


def test_output_has_the_size_of_the_input_also_when_it_is_not_square(small):
    network, variables, image = small
    outputs = apply(network, variables, image)
    assert {name: value.shape for name, value in outputs.items()} == {
        "map": (3, 32, 64, 1),
        "heatmaps": (3, 8, 16, 8),
        "keypoints": (3, 8, 3),
        "keypoint_features": (3, 8, 4),
        "code": (3, 64),
    }


def test_evaluation_of_a_map_does_not_depend_on_its_batch(small):
    network, variables, image = small
    together = apply(network, variables, image)["map"]
    alone = apply(network, variables, image[:1])["map"]
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_training_updates_every_statistic_and_reaches_every_parameter(small):
    network, variables, image = small

    def loss(params):
        outputs, updates = network.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        return jnp.mean((outputs["map"] - image) ** 2), updates["batch_stats"]

    gradients, batch_stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        # A bias right before a batch normalisation has no effect: its gradient is rounding.
        if not (name.endswith("bias") and not name.endswith("norm/bias")):
            assert np.abs(gradient).max() > 0, name
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), batch_stats, variables["batch_stats"])
    assert all(jax.tree.leaves(changed))


def test_compute_in_bfloat16_keeps_parameters_and_output_in_float32(small):
    _, variables, image = small
    network = EFD(**SMALL, dtype=jnp.bfloat16)
    outputs, updates = apply(network, variables, image, train=True)
    kinds = {x.dtype for x in jax.tree.leaves((outputs, updates, variables))}
    assert kinds == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("size", [(48, 64), (64, 100)])
def test_a_size_that_is_not_a_multiple_of_32_is_refused(size):
    with pytest.raises(ValueError, match="multiples of 32"):
        Encoder().init(jax.random.key(0), jnp.zeros((1, *size, 1)), train=False)
