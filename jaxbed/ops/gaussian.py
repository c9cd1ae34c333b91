"""Gaussian window over the two image axes, borders not padded.

B batch, H height, W width, C channels, n window size.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbed.ops import forms
from jaxbed.ops.fusion import materialized, padded

FORMS = ("lax", "shift", "band")


def gaussian_filter(
    x: jax.Array, *, size: int = 11, sigma: float = 1.5, form: str | None = None
) -> jax.Array:
    """Averages each channel under a Gaussian window that stays inside the image.

    Args:
        x: f32[B,H,W,C] images, at least `size` high and wide.
        size: window size n in pixels; the weights sum to one.
        sigma: standard deviation of the window in pixels.
        form: "lax" is the n x n depthwise convolution; "shift" adds n shifted images along
            each axis; "band" multiplies by a banded matrix along each axis. By default
            "shift" on CPU: at f32[20,256,256,1] 70 to 90 times faster than "lax" and 7 times
            faster than "band", in the gradient too (two cores). Else "lax".

    Returns:
        f32[B,H-n+1,W-n+1,C].

    Raises:
        ValueError: the image is smaller than the window.
    """
    if min(x.shape[1:3]) < size:
        raise ValueError(f"an image of {x.shape[1:3]} is smaller than the window of {size}")
    window = gaussian_window(size, sigma)
    auto = "shift" if jax.default_backend() == "cpu" else "lax"
    match forms.choose(form, offered=FORMS, auto=auto):
        case "lax":
            return _depthwise(x, window)
        case "shift":
            return _shifted(x, tuple(window.tolist()))
        case _:
            return _banded(x, window)


def gaussian_window(size: int, sigma: float) -> np.ndarray:
    """Returns f64[n], a sampled Gaussian about the middle that sums to one."""
    offset = np.arange(size) - (size - 1) / 2
    weight = np.exp(-(offset**2) / (2 * sigma**2))
    return weight / weight.sum()


def _depthwise(x: jax.Array, window: np.ndarray) -> jax.Array:
    channels = x.shape[-1]
    kernel = jnp.asarray(np.outer(window, window), x.dtype)[:, :, None, None]
    return lax.conv_general_dilated(
        x,
        jnp.tile(kernel, (1, 1, 1, channels)),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _shifted(x: jax.Array, window: tuple[float, ...]) -> jax.Array:
    return _rows_then_columns(x, window, border=0)


def _shifted_fwd(x, window):
    return _shifted(x, window), None


def _shifted_bwd(window, _, g):
    # The window is symmetric, so spreading g back is filtering it, borders included.
    return (_rows_then_columns(g, window, border=len(window) - 1),)


_shifted.defvjp(_shifted_fwd, _shifted_bwd)


def _rows_then_columns(x: jax.Array, window: tuple[float, ...], *, border: int) -> jax.Array:
    """Returns x, with `border` zeros around it, filtered where the window fits.

    Width and channels are one axis, so that loops are long for one channel as for many.
    Zeros to the right, dropped at the end, keep the two passes apart (see fusion.py).
    """
    size = len(window)
    batch, height, width, channels = x.shape
    rows, columns = height + 2 * border - size + 1, width + 2 * border - size + 1

    y = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(batch, height, -1)
    y = padded(y, ((0, 0), (border, border), (0, 0)))
    y = sum(weight * y[:, i : i + rows] for i, weight in enumerate(window))

    y = padded(y, ((0, 0), (0, 0), (border * channels, (size - 1) * channels)))
    length = (width + border) * channels
    starts = range(0, size * channels, channels)
    y = sum(weight * y[:, :, j : j + length] for j, weight in zip(starts, window, strict=True))
    y = materialized(y.astype(x.dtype))
    return y.reshape(batch, rows, -1, channels)[:, :, :columns]


def _banded(x: jax.Array, window: np.ndarray) -> jax.Array:
    rows, columns = (_band(n, window).astype(x.dtype) for n in x.shape[1:3])
    x = jnp.einsum("pi,bijc->bpjc", rows, x)
    return jnp.einsum("qj,bpjc->bpqc", columns, x)


def _band(length: int, window: np.ndarray) -> np.ndarray:
    """Returns f64[length-n+1, length] whose row p holds the window at columns p..p+n-1."""
    band = np.zeros((length - len(window) + 1, length))
    for i, weight in enumerate(window):
        np.fill_diagonal(band[:, i:], weight)
    return band
