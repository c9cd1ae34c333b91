"""Depthwise convolution: every channel is filtered by its own small window.

B batch, H height, W width, C channels, k window size (odd), s stride; Ho = ceil(H / s).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms

FORMS = ("lax", "shift")


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, form: str | None = None
) -> jax.Array:
    """Filters each channel with its own window, k // 2 zeros around the image.

    The padding is the same on both sides for every stride, as in PyTorch; "SAME" would pad
    even images unevenly when the stride is 2.

    Args:
        x: f32[B,H,W,C] images.
        kernel: f32[k,k,1,C], k odd.
        stride: step between windows, both ways.
        form: "lax" is the grouped convolution; "shift" is a sum of k * k shifted products.
            By default "shift" on CPU, whose grouped convolution is a scalar loop on one
            core, else "lax".

    Returns:
        f32[B,Ho,Wo,C].

    Raises:
        ValueError: the kernel is not odd, square and one window per channel.
    """
    size, channels = kernel.shape[0], x.shape[-1]
    if kernel.shape != (size, size, 1, channels) or size % 2 == 0:
        raise ValueError(
            f"a depthwise kernel for {channels} channels is (k, k, 1, {channels}) with odd k, "
            f"got {kernel.shape}"
        )
    auto = "shift" if jax.default_backend() == "cpu" else "lax"
    if forms.choose(form, offered=FORMS, auto=auto) == "lax":
        return _grouped(x, kernel, stride)
    return _shifted(x, kernel, stride)


def _grouped(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size = kernel.shape[0]
    total = sum(
        window.astype(jnp.float32) * kernel[i // size, i % size].astype(jnp.float32)[None, None]
        for i, window in enumerate(_windows(x, size, stride))
    )
    return total.astype(x.dtype)


def _windows(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """Returns the k * k shifted images [B,Ho,Wo,C], one per tap, row by row."""
    pad = size // 2
    height, width = x.shape[1], x.shape[2]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(size)
        for j in range(size)
    ]


def _shifted_fwd(x, kernel, stride):
    return _shifted(x, kernel, stride), (x, kernel)


def _shifted_bwd(stride, saved, g):
    x, kernel = saved
    size = kernel.shape[0]
    spread = _spread(g, x.shape, stride)
    dx = _shifted(spread, kernel[::-1, ::-1], 1)
    taps = [
        jnp.sum(window.astype(jnp.float32) * g.astype(jnp.float32), axis=(0, 1, 2))
        for window in _windows(x, size, stride)
    ]
    return dx.astype(x.dtype), jnp.stack(taps).reshape(kernel.shape).astype(kernel.dtype)


def _spread(g: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
    """Returns g with stride - 1 zeros between its pixels, as large as the input was."""
    if stride == 1:
        return g
    (_, height, width, _), (_, rows, columns, _) = shape, g.shape
    return lax.pad(
        g,
        jnp.zeros((), g.dtype),
        (
            (0, 0, 0),
            (0, height - (rows - 1) * stride - 1, stride - 1),
            (0, width - (columns - 1) * stride - 1, stride - 1),
            (0, 0, 0),
        ),
    )


_shifted.defvjp(_shifted_fwd, _shifted_bwd)
