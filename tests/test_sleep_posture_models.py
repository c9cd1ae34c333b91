"""The sleep posture network: the published counts, what its tasks share and what they do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.efficiency.count import count, count_params
from jaxbed.models.densenet import DenseNet
from jaxbed.models.resnet import resnet18
from jaxbed.models.sleep_posture import DLModel, PostureOnly
from jaxbed.weights.torchvision import from_torchvision, to_torchvision

WIDTH = 4


@functools.lru_cache
def shapes_of(network, example):
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)


def image(channels, size=224):
    return jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)


def filled(network, example, seed=0):
    """Draws variables of a plausible scale; compiling the real initialiser takes seconds."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape, leaf.dtype)
        fan_in = leaf.size / leaf.shape[-1] if path[-1].key == "kernel" else 100
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(network, example))


@functools.partial(jax.jit, static_argnums=0)
def apply(network, variables, x):
    return network.apply(variables, x, train=False)


@pytest.mark.parametrize(
    ("network", "channels", "params", "macs"),
    [
        (DLModel(), 1, 21_735_353, 2_557_193_124),
        (DLModel(), 3, 21_741_625, 2_635_869_092),
        (DLModel(attention=False), 1, 21_666_245, 2_556_971_520),
        (DLModel(blanket=False), 1, 11_207_988, 1_735_038_690),
        (DLModel(attention=False, blanket=False), 1, 11_172_292, 1_734_887_424),
        (PostureOnly(resnet18(outputs=4)), 1, 11_172_292, 1_734_887_424),
        (PostureOnly(DenseNet(outputs=4)), 1, 6_951_684, 2_754_465_792),
    ],
)
def test_networks_have_the_published_parameters_and_macs(network, channels, params, macs):
    example = image(channels)
    variables = shapes_of(network, example)
    counted = count(lambda v, x: network.apply(v, x, train=False), variables, example)
    assert count_params(variables["params"]) == params
    assert counted.macs_nominal == macs


@pytest.mark.parametrize(
    ("network", "outputs"),
    [
        (DLModel(width=WIDTH), {"posture": (1, 4), "blanket": (1,)}),
        (DLModel(width=WIDTH, blanket=False, postures=3), {"posture": (1, 3)}),
        (PostureOnly(resnet18(outputs=4, width=WIDTH)), {"posture": (1, 4)}),
    ],
)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_every_task_has_its_float32_logits(network, outputs, dtype):
    if isinstance(network, DLModel):
        network = network.clone(dtype=dtype)
    else:
        network = PostureOnly(network.network.clone(dtype=dtype))
    x = image(1, 64)
    out = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), shapes_of(network, x), x)
    assert {name: value.shape for name, value in out.items()} == outputs
    assert {value.dtype for value in out.values()} == {jnp.dtype(jnp.float32)}


def test_bfloat16_keeps_parameters_and_statistics_in_float32():
    network, x = DLModel(width=WIDTH, dtype=jnp.bfloat16), image(1, 64)
    variables = shapes_of(network, x)
    _, updates = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]), variables, x
    )
    kinds = {leaf.dtype for leaf in jax.tree.leaves((variables, updates))}
    assert kinds == {jnp.dtype(jnp.float32)}


def test_each_task_trains_the_shared_part_and_its_own_branch_only(rng):
    network = DLModel(width=WIDTH)
    x = jnp.asarray(rng.normal(size=(2, 64, 64, 1)), jnp.float32)
    variables = filled(network, image(1, 64))

    @jax.jit
    def gradients(params):
        def loss(params, task):
            outputs, updates = network.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(outputs[task] ** 2), updates["batch_stats"]

        blanket, _ = jax.grad(loss, has_aux=True)(params, "blanket")
        posture, statistics = jax.grad(loss, has_aux=True)(params, "posture")
        return {"posture": posture, "blanket": blanket}, statistics

    found, statistics = gradients(variables["params"])
    other = {"posture": "blanket", "blanket": "posture"}
    for task, tree in found.items():
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(tree[other[task]]))
        for path, leaf in jax.tree_util.tree_leaves_with_path([tree["shared"], tree[task]]):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            assert np.isfinite(leaf).all() and np.any(leaf), (task, name)
    kept = jax.tree.map(np.array_equal, statistics, variables["batch_stats"])
    assert not any(jax.tree.leaves(kept))


def test_without_attention_and_blanket_it_is_a_resnet18(rng):
    x = jnp.asarray(rng.normal(size=(2, 64, 48, 1)), jnp.float32)
    plain = PostureOnly(resnet18(outputs=4, width=WIDTH))
    network = DLModel(attention=False, blanket=False, width=WIDTH)
    theirs = filled(plain, image(1, 64))
    ours, _ = from_torchvision(to_torchvision(theirs), filled(network, image(1, 64), seed=1))
    got, want = apply(network, ours, x)["posture"], apply(plain, theirs, x)["posture"]
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_attention_stands_behind_the_shared_part_and_each_branch_and_nowhere_else():
    params = shapes_of(DLModel(), image(1))["params"]
    places = {
        "/".join(str(key.key) for key in path).partition("/cbam")[0]
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if any(key.key == "cbam" for key in path)
    }
    assert places == {"shared", "posture", "blanket"}
    sizes = [count_params(params[place]["cbam"]) for place in ("shared", "posture", "blanket")]
    assert sizes == [2_284, 33_412, 33_412]
