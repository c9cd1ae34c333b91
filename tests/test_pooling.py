"""Max pooling: both forms against the written-out maximum, and against each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxbed.ops.pooling import FORMS, max_pool

SHAPES = pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((1, 1, 1, 2), 3, 2),
        ((2, 9, 6, 3), 3, 2),
        ((2, 8, 7, 3), 3, 2),
        ((1, 7, 10, 2), 3, 1),
        ((2, 11, 8, 2), 5, 3),
        ((2, 6, 5, 1), 1, 2),
    ],
)


def flax_max_pool(x, size, stride):
    pads = ((size // 2, size // 2),) * 2
    return nn.max_pool(x, (size, size), (stride, stride), padding=pads)


def value_and_gradient(f, x, cotangent):
    value, pull_back = jax.vjp(f, x)
    return value, *pull_back(cotangent)


def assert_same_as_flax(x, size, stride, rng, tolerance=1e-6):
    """Compares values exactly and gradients up to the order of a sum."""
    want = jax.eval_shape(partial(flax_max_pool, size=size, stride=stride), x)
    cotangent = jnp.asarray(rng.normal(size=want.shape), x.dtype)
    (value, gradient), (got_value, got_gradient) = (
        jax.jit(partial(value_and_gradient, f))(x, cotangent)
        for f in (
            partial(flax_max_pool, size=size, stride=stride),
            partial(max_pool, size=size, stride=stride, form="index"),
        )
    )
    assert got_value.dtype == got_gradient.dtype == x.dtype
    np.testing.assert_array_equal(got_value, value)
    np.testing.assert_allclose(
        np.float32(got_gradient), np.float32(gradient), rtol=tolerance, atol=4 * tolerance
    )


@SHAPES
def test_values_and_gradients_are_those_of_flax(shape, size, stride, rng):
    assert_same_as_flax(jnp.asarray(rng.normal(size=shape), jnp.float32), size, stride, rng)


def test_the_first_of_equal_maxima_gets_the_gradient_as_in_flax(rng):
    x = jnp.asarray(rng.integers(0, 2, (4, 12, 13, 3)), jnp.float32)
    assert_same_as_flax(x, 3, 2, rng)


def test_bfloat16_is_followed(rng):
    assert_same_as_flax(jnp.asarray(rng.normal(size=(2, 9, 8, 3)), jnp.bfloat16), 3, 2, rng, 2e-2)


@pytest.mark.parametrize("form", FORMS)
def test_a_window_has_the_maximum_of_what_it_sees_and_padding_is_no_value(form, rng):
    x = rng.normal(size=(2, 7, 10, 3)).astype(np.float32) - 10  # a padding of zeros would win
    got = max_pool(jnp.asarray(x), size=3, stride=2, form=form)
    assert got.shape == (2, 4, 5, 3)
    for i in range(4):
        for j in range(5):
            seen = x[:, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
            np.testing.assert_array_equal(got[:, i, j], seen.max((1, 2)))


def test_gradients_of_single_examples_are_those_of_the_batch(rng):
    x = jnp.asarray(rng.normal(size=(3, 6, 7, 2)), jnp.float32)

    def loss(x):
        return jnp.sum(max_pool(x, size=3, stride=2, form="index") ** 2)

    alone = jax.vmap(jax.grad(loss))(x[:, None])[:, 0]
    np.testing.assert_allclose(alone, jax.grad(loss)(x), rtol=1e-6)


def test_a_nan_is_not_hidden():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    value, _ = jax.vjp(partial(max_pool, size=3, stride=2, form="index"), x)
    assert np.isnan(value).all()


@pytest.mark.parametrize("size", [0, 2, 17])
def test_an_even_or_large_window_is_refused(size):
    with pytest.raises(ValueError, match=f"odd and 1 to 15, got {size}"):
        max_pool(jnp.zeros((1, 8, 8, 1)), size=size, stride=2)
