"""Gradients of convolution kernels as matrix products.

B batch, S and s spatial sizes of the input and the output (two or three of each), Ci and Co
channels, K taps.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Products that a sum over positions is cut into, at most; and positions of each, at least, for
# every channel.
_PRODUCTS = 8
_POSITIONS = 4


def kernel_gradient(
    x: jax.Array,
    g: jax.Array,
    window: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> jax.Array:
    """Computes the gradient of a convolution's kernel.

    A tap's gradient is the product of what it sees of x with g. Along the last axis of
    stride 1, the taps share a product: g as each of them sees it is laid side by side in the
    channels. Wider products run faster: f32[8,56,56,64] to 64 under 3 x 3 takes 30 ms so,
    61 ms tap by tap and 86 ms as XLA:CPU's own convolution (two cores).

    Args:
        x: f32[B,*S,Ci], the input.
        g: f32[B,*s,Co], the cotangent of the output.
        window: taps along each spatial axis.
        strides: along each.
        pads: zeros before and after, along each, >= 0.
        dilation: distance of neighbouring taps, along each.

    Returns:
        f32[*window,Ci,Co], at least float32.
    """
    rank, outputs = len(window), g.shape[-1]
    apart, around = list(window), list(pads)
    axis = max((a for a in range(rank) if window[a] > 1 and strides[a] == 1), default=None)
    if axis is not None:
        g = _side_by_side(g, axis, x.shape[1 + axis], window[axis], pads[axis], dilation[axis])
        apart[axis], around[axis] = 1, (0, 0)
    x = jnp.pad(x, ((0, 0), *around, (0, 0)))
    products = []
    for tap in np.ndindex(*apart):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        spans = zip(starts, g.shape[1:-1], strides, strict=True)
        seen = tuple(slice(first, first + (n - 1) * s + 1, s) for first, n, s in spans)
        products.append(over_positions(x[:, *seen], g))
    gradient = jnp.stack(products).reshape(*apart, x.shape[-1], -1, outputs)
    gradient = jnp.moveaxis(gradient, rank + 1, axis or 0)
    return gradient.reshape(*window, x.shape[-1], outputs)


def over_positions(x: jax.Array, g: jax.Array) -> jax.Array:
    """Sums the outer products of two arrays' channels over examples and positions.

    XLA:CPU copies an operand with its axes exchanged for one product over all positions, and
    with what computes it fused into the copy, which then runs against the order of memory. It
    takes a batch of products as it is, and shares it out between cores: 22 instead of 33 ms
    at 36,864 positions of 256 and 256 channels on two cores, 725 instead of 1,190 ms for the
    training step of a whole network. More products only write more results: the gradient of
    3x3x256x256 under 14x14 pixels of 16 images takes 14 ms with one, 62 with eight.

    Args:
        x: f32[B,*s,Ci].
        g: f32[B,*s,Co].

    Returns:
        f32[Ci,Co], at least float32.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    positions = math.prod(x.shape[:-1])
    most = min(_PRODUCTS, max(1, positions // (_POSITIONS * max(x.shape[-1], g.shape[-1]))))
    products = max(n for n in range(1, most + 1) if positions % n == 0)
    x, g = (a.reshape(products, -1, a.shape[-1]) for a in (x, g))
    return jnp.einsum("bpi,bpo->bio", x, g, preferred_element_type=wide).sum(0)


def _side_by_side(
    g: jax.Array, axis: int, length: int, taps: int, pads: tuple[int, int], dilation: int
) -> jax.Array:
    """Lays g in the channels as often as there are taps, shifted as each of them sees it.

    Returns f32[B,*s,taps*Co] with `length` positions along `axis`: those of the input.
    """
    reach = (taps - 1) * dilation
    border = [(0, 0)] * g.ndim
    border[1 + axis] = tuple(max(0, reach - pad) for pad in pads)
    g = jnp.pad(g, border)
    first = [border[1 + axis][0] + pads[0] - tap * dilation for tap in range(taps)]
    views = [lax.slice_in_dim(g, start, start + length, axis=1 + axis) for start in first]
    return jnp.concatenate(views, axis=-1)
