"""Losses against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed import losses


def ssim_oracle(a, b):
    """Every window by itself, in float64."""
    offset = np.arange(11) - 5
    weight = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(weight, weight) / weight.sum() ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            top = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
            values.append(top / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)))
    return np.mean(values)


@pytest.mark.parametrize("size", [(11, 11), (17, 23)])
def test_ssim_is_the_mean_over_windows(size, rng):
    a, b = rng.random((2, 3, *size))
    ours = losses.ssim(*(jnp.asarray(x[..., None], jnp.float32) for x in (a, b)))
    expected = [ssim_oracle(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_equal_images_have_similarity_one_and_no_gradient(rng):
    image = jnp.asarray(rng.random((2, 16, 16, 1)), jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: losses.ssim(x, image).sum())(image)
    assert value == pytest.approx(2.0, abs=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_ssim_of_several_channels_is_the_mean_of_the_channels(rng):
    a, b = jnp.asarray(rng.random((2, 2, 15, 15, 3)), jnp.float32)
    apart = [losses.ssim(a[..., c : c + 1], b[..., c : c + 1]) for c in range(3)]
    np.testing.assert_allclose(losses.ssim(a, b), np.mean(apart, axis=0), rtol=1e-5)


def test_training_on_ssim_raises_it(rng):
    """Guards the sign: the paper's own definition rewards dissimilarity."""
    target = jnp.asarray(rng.random((1, 16, 16, 1)), jnp.float32)
    image = jnp.asarray(rng.random((1, 16, 16, 1)), jnp.float32)
    loss = lambda x: jnp.sum(1 - losses.ssim(x, target))  # noqa: E731
    before = loss(image)
    for _ in range(20):
        image -= 5.0 * jax.grad(loss)(image)
    assert loss(image) < 0.5 * before


def test_l1_and_l2_are_means_per_example(rng):
    a, b = rng.random((2, 3, 4, 5))
    np.testing.assert_allclose(losses.l1(a, b), np.abs(a - b).mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(losses.l2(a, b), ((a - b) ** 2).mean((1, 2)), rtol=1e-6)


def test_pixel_cross_entropy_is_the_mean_log_probability_of_the_label(rng):
    logits = rng.normal(size=(2, 3, 4, 2))
    label = rng.integers(0, 2, (2, 3, 4))
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(probability, label[..., None], axis=-1)[..., 0]
    expected = -np.log(chosen).mean((1, 2))
    np.testing.assert_allclose(losses.pixel_cross_entropy(logits, label), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.l1, losses.l2, losses.ssim])
def test_different_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=r"shapes must be equal, got \(1, 12, 12, 1\)"):
        loss(jnp.zeros((1, 12, 12, 1)), jnp.zeros((1, 12, 13, 1)))
