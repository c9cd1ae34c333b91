"""Bilinear resizing with half-pixel centres.

B batch, H height, W width, C channels; h, w the new size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbed.ops import forms

FORMS = ("lax", "matmul")


def resize_bilinear(x: jax.Array, size: tuple[int, int], *, form: str | None = None) -> jax.Array:
    """Resizes by interpolating between the four nearest pixels, edges clamped.

    Pixel i covers [i, i + 1), so its centre is i + 1/2: PyTorch's `align_corners=False` and
    `jax.image.resize` when the image grows.

    Args:
        x: f32[B,H,W,C] images.
        size: (height, width) of the result in pixels, none smaller than the image's.
        form: "lax" is `jax.image.resize`; "matmul" multiplies by one interpolation matrix
            along each axis. By default "lax".

    Returns:
        f32[B,h,w,C].

    Raises:
        ValueError: the result is smaller than the image, which would need smoothing first.
    """
    if size[0] < x.shape[1] or size[1] < x.shape[2]:
        raise ValueError(f"resize_bilinear enlarges; got {x.shape[1:3]} to {tuple(size)}")
    if forms.choose(form, offered=FORMS, auto="lax") == "lax":
        return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")
    rows, columns = (
        jnp.asarray(_interpolation(old, new), x.dtype)
        for old, new in zip(x.shape[1:3], size, strict=True)
    )
    x = jnp.einsum("ph,bhwc->bpwc", rows, x)
    return jnp.einsum("qw,bpwc->bpqc", columns, x)


def _interpolation(old: int, new: int) -> np.ndarray:
    """Returns f64[new, old], the weight of every old pixel in every new one."""
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(old)))
