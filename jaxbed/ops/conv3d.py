"""3-D convolution of short clips, stride 1, zero padding that keeps the size.

B batch, D depth (frames), H height, W width, Ci and Co channels; kd, kh, kw odd.
"""

import jax
from jax import lax

from jaxbed.ops import forms

FORMS = ("lax",)


def conv3d(x: jax.Array, kernel: jax.Array, *, form: str | None = None) -> jax.Array:
    """Convolves over depth, height and width and keeps their sizes.

    Args:
        x: f32[B,D,H,W,Ci] clips.
        kernel: f32[kd,kh,kw,Ci,Co], all three sizes odd.
        form: "lax".

    Returns:
        f32[B,D,H,W,Co].
    """
    forms.choose(form, offered=FORMS, auto="lax")
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
