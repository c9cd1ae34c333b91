"""SSD: the published counts, and what belongs to which anchor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs import boxes
from jaxbed.efficiency.count import count, count_params
from jaxbed.models.ssd import SIZE, SSD300, L2Norm, LightSSD

IMAGE = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
EVERY_KIND = pytest.mark.parametrize(
    ("kind", "levels"),
    [(SSD300, boxes.SSD300), (LightSSD, boxes.LIGHT_SSD300)],
    ids=["vgg", "light"],
)


@functools.lru_cache
def shapes_of(network):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), IMAGE)


def applied(network, variables, x):
    return jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, x)


@pytest.mark.parametrize(
    ("network", "params", "nominal", "exact"),
    [
        (SSD300(), 23_745_908, 30_427_713_536, 29_074_376_448),
        (LightSSD(), 2_660_154, 1_178_874_752, 1_116_355_584),
    ],
    ids=["vgg", "light"],
)
def test_networks_have_the_published_parameters_and_macs(network, params, nominal, exact):
    variables = shapes_of(network)
    counted = count(lambda v, x: network.apply(v, x, train=False), variables, IMAGE)
    assert count_params(variables["params"]) == params
    assert (counted.macs_nominal, counted.macs_exact) == (nominal, exact)


@EVERY_KIND
def test_outputs_stand_in_the_order_of_the_anchors(kind, levels):
    """Heads that know nothing but their map and the shape at a place: map + shape / 10."""
    network = kind(width=2)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes_of(network))
    heads = variables["params"]["heads"]
    for i, level in enumerate(levels):
        shapes = jnp.arange(len(level.shapes_px)) / 10
        heads[f"boxes{i}"]["bias"] = jnp.repeat(i + shapes, 4)
        heads[f"logits{i}"]["bias"] = jnp.repeat(i + shapes, 2)
    outputs = applied(network, variables, jnp.zeros(IMAGE.shape))
    want = []
    for i, level in enumerate(levels):
        places = (-(-300 // level.stride_px)) ** 2
        want += places * [i + n / 10 for n in range(len(level.shapes_px))]
    assert len(want) == len(boxes.anchors_of(levels, SIZE))
    np.testing.assert_allclose(outputs["boxes"][0], np.tile(np.transpose([want]), 4), rtol=1e-6)
    np.testing.assert_allclose(outputs["logits"][0], np.tile(np.transpose([want]), 2), rtol=1e-6)


@EVERY_KIND
def test_a_place_sees_the_image_around_its_anchors(kind, levels, rng):
    """A changed patch changes anchors of the first map around it, and none far from it."""
    network = kind(width=2)
    variables = jax.tree.map(
        lambda leaf: jnp.float32(rng.uniform(0.5, 1, leaf.shape)), shapes_of(network)
    )
    x = rng.random((1, *SIZE, 3)).astype(np.float32)
    changed = x.copy()
    changed[:, 172:180, 140:148] += 5
    before, after = (applied(network, variables, jnp.asarray(image)) for image in (x, changed))
    count = 38 * 38 * len(levels[0].shapes_px)
    moved = np.abs(after["boxes"] - before["boxes"])[0, :count].max(axis=1) > 0
    centre = boxes.anchors_of(levels, SIZE)[:count][moved, :2]
    np.testing.assert_allclose(centre.mean(axis=0), (144, 176), atol=6)
    assert np.abs(centre - np.float32([[144, 176]])).max() < 90


def test_the_norm_scales_every_pixel_to_its_factor(rng):
    x = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    scale = rng.random(6).astype(np.float32)
    want = x / np.sqrt((x**2).sum(-1, keepdims=True)) * scale.reshape(1, 1, 1, -1)
    module = L2Norm()
    np.testing.assert_allclose(module.apply({"params": {"scale": scale}}, x), want, rtol=1e-5)
    started = module.init(jax.random.key(0), x)["params"]["scale"]
    np.testing.assert_array_equal(started, np.full(6, 20))
    half = L2Norm(dtype=jnp.float16).apply({"params": {"scale": scale}}, 1e3 * x)
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(half, want, rtol=1e-2, atol=1e-3)


@EVERY_KIND
def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32(kind, levels):
    network = kind(dtype=jnp.bfloat16)
    outputs, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=True, capture_intermediates=True),
        shapes_of(network),
        IMAGE,
    )
    inside = updates.pop("intermediates")
    for part in ("__call__", "heads"):
        inside.pop(part)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, updates))} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(inside)} == {jnp.dtype(jnp.bfloat16)}


@EVERY_KIND
def test_another_size_is_refused(kind, levels):
    with pytest.raises(ValueError, match=r"images of \(300, 300\) pixels, got \(300, 299\)"):
        kind().init(jax.random.key(0), jnp.zeros((1, 300, 299, 3)), train=False)
