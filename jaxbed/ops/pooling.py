"""Max pooling with overlapping windows.

B batch, H height, W width, C channels, k window size (odd), s stride; Ho = ceil(H / s).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms
from jaxbed.ops.fusion import padded

FORMS = ("lax", "index")

# Where a window's maximum is not: a tap number no window has.
_NOWHERE = 255


def max_pool(x: jax.Array, *, size: int, stride: int, form: str | None = None) -> jax.Array:
    """Takes the maximum of every window; k // 2 elements of -inf surround the image.

    The padding is the same on both sides for every stride, as in PyTorch; "SAME" would pad
    even images unevenly when the stride is 2.

    Args:
        x: f32[B,H,W,C] images.
        size: k, 1 to 15.
        stride: step between windows, both ways.
        form: "lax" is the window reduction, whose gradient scatters. "index" has the same
            values; its gradient keeps the place of each window's maximum, a byte, and gathers.
            Where a window has its maximum twice, both give the gradient to the first in
            reading order. By default "index" on CPU: values with the gradient take 12 instead
            of 101 ms (f32[16,112,112,64], k = 3, s = 2, two cores, freed memory kept;
            otherwise 34 instead of 165). Else "lax".

    Returns:
        f32[B,Ho,Wo,C]. In form "index" only reverse-mode derivatives, of first order, exist.

    Raises:
        ValueError: the size is even or above 15.
    """
    if size % 2 == 0 or not 1 <= size <= 15:
        raise ValueError(f"the window's size is odd and 1 to 15, got {size}")
    auto = "index" if jax.default_backend() == "cpu" else "lax"
    if forms.choose(form, offered=FORMS, auto=auto) == "lax":
        return _reduced(x, size, stride)
    return _indexed(x, size, stride, x.shape[1:3])


def _reduced(x: jax.Array, size: int, stride: int) -> jax.Array:
    pad = size // 2
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _indexed(x: jax.Array, size: int, stride: int, image: tuple[int, int]) -> jax.Array:
    return _reduced(x, size, stride)


def _indexed_fwd(x, size, stride, image):
    rows, columns = (-(-length // stride) for length in image)
    pad = size // 2
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    # The barrier for the reason that `padded` has one; its own padding is zeros.
    x = lax.optimization_barrier(jnp.pad(x, border, constant_values=-jnp.inf))
    highest = _window(x, 0, 0, rows, columns, stride)
    place = jnp.zeros(highest.shape, jnp.uint8)
    for tap in range(1, size * size):
        seen = _window(x, *divmod(tap, size), rows, columns, stride)
        place = jnp.where(seen > highest, jnp.uint8(tap), place)
        highest = jnp.maximum(seen, highest)
    return highest, place


def _indexed_bwd(size, stride, image, place, g):
    """Returns f32[B,H,W,C]: at u the sum of those g whose window has its maximum there.

    Only taps i with a whole (u + k // 2 - i) / s see u, so each of the s * s phases of u has
    its own few taps.
    """
    rows, columns = g.shape[1:3]
    border = (size // 2 + stride - 1) // stride
    widths = ((0, 0), (border, border), (border, border), (0, 0))
    wide = jnp.promote_types(g.dtype, jnp.float32)
    g = padded(g, widths)
    place = lax.optimization_barrier(jnp.pad(place, widths, constant_values=_NOWHERE))

    def taps(phase: int) -> list[tuple[int, int]]:
        """Returns (tap, first row of the bordered g) for the rows u = phase, phase + s, ..."""
        reach = phase + size // 2
        return [(i, (reach - i) // stride + border) for i in range(reach % stride, size, stride)]

    def phase(m: int, n: int) -> jax.Array:
        total = jnp.zeros((g.shape[0], rows, columns, g.shape[3]), wide)
        for i, u in taps(m):
            for j, v in taps(n):
                here = _window(place, u, v, rows, columns, 1) == size * i + j
                total += jnp.where(here, _window(g, u, v, rows, columns, 1).astype(wide), 0)
        return total

    lines = [jnp.stack([phase(m, n) for n in range(stride)], axis=3) for m in range(stride)]
    whole = jnp.stack(lines, axis=2).reshape(-1, stride * rows, stride * columns, g.shape[3])
    return (whole[:, : image[0], : image[1]].astype(g.dtype),)


_indexed.defvjp(_indexed_fwd, _indexed_bwd)


def _window(x: jax.Array, i: int, j: int, rows: int, columns: int, stride: int) -> jax.Array:
    """Returns f32[B,rows,columns,C], every s-th pixel of x from (i, j) on."""
    height, width = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return x[:, i : i + height : stride, j : j + width : stride]
