"""Transposed convolution that doubles the image: window 2 x 2, stride 2.

B batch, H height, W width, Ci input channels, Co output channels.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms

FORMS = ("lax", "subpixel")


def conv_transpose_2x2(x: jax.Array, kernel: jax.Array, *, form: str | None = None) -> jax.Array:
    """Doubles the image: y[2i+a, 2j+b] = x[i, j] @ kernel[a, b].

    Args:
        x: f32[B,H,W,Ci] images.
        kernel: f32[2,2,Ci,Co]; that of `torch.nn.ConvTranspose2d` with its axes moved, that
            of `flax.linen.ConvTranspose` turned by half a turn.
        form: "lax" is the input-dilated convolution; "subpixel" is one matmul per pixel to
            4 Co values that are then laid out as 2 x 2 blocks. Windows do not overlap, so
            nothing is added. By default "subpixel" on CPU: values come about as fast, but
            the dilated convolution's gradients are not known to be sparse, which makes a
            training step 20 to 30 times slower (f32[16,32,32,128] to 64, two cores). Else
            "lax".

    Returns:
        f32[B,2H,2W,Co].

    Raises:
        ValueError: the kernel is not (2, 2, Ci, Co).
    """
    if kernel.ndim != 4 or kernel.shape[:3] != (2, 2, x.shape[-1]):
        raise ValueError(
            f"a kernel that doubles {x.shape[-1]} channels is (2, 2, {x.shape[-1]}, Co), "
            f"got {kernel.shape}"
        )
    auto = "subpixel" if jax.default_backend() == "cpu" else "lax"
    if forms.choose(form, offered=FORMS, auto=auto) == "lax":
        return _dilated(x, kernel)
    return _subpixel(x, kernel)


def _dilated(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=[(1, 1), (1, 1)],
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _subpixel(x: jax.Array, kernel: jax.Array) -> jax.Array:
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    kernel = jnp.moveaxis(kernel, 2, 0).reshape(inputs, 4 * outputs)
    # One flat matmul: with the axes left apart XLA transposes more in the gradient.
    blocks = (x.reshape(-1, inputs) @ kernel).reshape(batch, height, width, 2, 2 * outputs)
    return jnp.swapaxes(blocks, 2, 3).reshape(batch, 2 * height, 2 * width, outputs)
