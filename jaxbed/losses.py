"""Losses per example, unreduced: masks, weights and means are applied once, by the caller.

B batch, H W height and width, C channels or classes.
"""

import jax
import jax.numpy as jnp
import optax

from jaxbed.ops.fusion import materialized
from jaxbed.ops.gaussian import gaussian_filter


def l1(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Averages the absolute error over all but the first axis.

    Args:
        prediction: f32[B,...].
        target: same shape.

    Returns:
        f32[B].
    """
    _same_shape(prediction, target)
    return jnp.mean(jnp.abs(prediction - target), axis=range(1, prediction.ndim))


def l2(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Averages the squared error over all but the first axis.

    Args:
        prediction: f32[B,...].
        target: same shape.

    Returns:
        f32[B].
    """
    _same_shape(prediction, target)
    return jnp.mean(jnp.square(prediction - target), axis=range(1, prediction.ndim))


def ssim(a: jax.Array, b: jax.Array, *, data_range: float = 1.0) -> jax.Array:
    """Measures structural similarity with an 11x11 Gaussian window, sigma 1.5.

    Args:
        a: f32[B,H,W,C], H and W at least 11.
        b: same shape.
        data_range: difference between the largest and smallest possible value.

    Returns:
        f32[B], mean over the positions whose window lies inside the image; 1 for equal
        images.

    Source: Wang et al., "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, eqs. 13 and 15 to 17, K1 0.01, K2 0.03. (Eq. 2 of the
    EFD paper calls 1 minus this value SSIM and its eq. 1 subtracts it from 1 once more,
    which taken literally rewards dissimilarity.)
    """
    _same_shape(a, b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Stacked along an axis of its own: along the batch, a batch split over devices would be
    # exchanged between them, and along the channels one-channel maps lose their layout.
    moments = jnp.stack([a, b, a * a, b * b, a * b])
    mean_a, mean_b, aa, bb, ab = jax.vmap(gaussian_filter)(moments)
    variances = (aa - mean_a * mean_a) + (bb - mean_b * mean_b)
    covariance = ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    # Reduced straight from the fusion, every window would be computed once per output row.
    return jnp.mean(materialized(luminance * structure), axis=(1, 2, 3))


def pixel_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Averages the softmax cross-entropy over the pixels of an image.

    Args:
        logits: f32[B,H,W,C].
        label: i32[B,H,W] in [0, C).

    Returns:
        f32[B].
    """
    if logits.shape[:-1] != label.shape:
        raise ValueError(f"label must be {logits.shape[:-1]}, got {label.shape}")
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.mean(entropy, axis=(1, 2))


def _same_shape(a: jax.Array, b: jax.Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes must be equal, got {a.shape} and {b.shape}")
