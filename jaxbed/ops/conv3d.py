"""3-D convolution of short clips, stride 1, zero padding that keeps the size.

B batch, D depth (frames), H height, W width, Ci and Co channels; kd, kh, kw odd.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms
from jaxbed.ops.products import kernel_gradient

FORMS = ("lax", "slices")

# From so many weights in a tap on, a product for each of 3 taps along depth, height or width beats
# a 2-D convolution on two cores, in milliseconds at f32[1,3,96,128,Ci]: 256 to 256 channels 37,
# 44 and 43 to 51, 58 and 55; 128 to 128 12, 14 and 13 to 13, 15 and 14; 64 to 64 4.0, 4.1 and 3.9
# to 3.6, 6.5 and 6.4.
_WIDE = (128 * 128, 64 * 64, 64 * 64)

Product = Callable[[jax.Array, jax.Array], jax.Array]


def conv3d(x: jax.Array, kernel: jax.Array, *, form: str | None = None) -> jax.Array:
    """Convolves over depth, height and width and keeps their sizes.

    Args:
        x: f32[B,D,H,W,Ci] clips.
        kernel: f32[kd,kh,kw,Ci,Co], all three sizes odd.
        form: "lax" is the 3-D convolution; "slices" is a sum of 2-D convolutions, one for
            each depth tap and only on the slices that it reaches, so depth padding is not
            multiplied: a 3-frame clip under 3 taps needs 7 products of 9. A wide kernel
            along one axis is a sum of matrix products in the same way. By default
            "slices" on CPU, whose 3-D convolution runs at a fraction of the speed of its
            2-D one: 5 times slower forward, 4 times with gradients at
            f32[1,3,96,128,64] and 3 x 3 x 3 (two cores). Else "lax".

    Returns:
        f32[B,D,H,W,Co].

    Raises:
        ValueError: a kernel size is even or the channels do not fit.
    """
    if kernel.ndim != 5 or kernel.shape[3] != x.shape[-1] or 0 in (k % 2 for k in kernel.shape[:3]):
        raise ValueError(
            f"a kernel for {x.shape[-1]} channels is (kd, kh, kw, {x.shape[-1]}, Co) with odd "
            f"kd, kh, kw, got {kernel.shape}"
        )
    auto = "slices" if jax.default_backend() == "cpu" else "lax"
    if forms.choose(form, offered=FORMS, auto=auto) == "lax":
        return lax.conv_general_dilated(
            x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )
    return _sliced(x, kernel)


@jax.custom_vjp
def _sliced(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = [axis for axis in range(3) if kernel.shape[axis] > 1]
    shape = (*x.shape[:4], kernel.shape[-1])
    if not axes:
        return _pointwise(x, kernel)
    if len(axes) == 1 and kernel[0, 0, 0].size >= _WIDE[axes[0]]:
        return _summed_over_taps(x, kernel, axes[0], _tap)
    if kernel.shape[0] == 1:
        return _conv2d(x.reshape(-1, *x.shape[2:]), kernel[0]).reshape(shape)
    if axes == [0]:
        flat = x.reshape(*x.shape[:2], -1, x.shape[-1])
        return _conv2d(flat, kernel[:, 0]).reshape(shape)
    return _summed_over_taps(x, kernel, 0, _conv2d_of_slices)


def _summed_over_taps(x: jax.Array, kernel: jax.Array, axis: int, product: Product) -> jax.Array:
    """Sums, over the taps along one axis, the product of each with the slices that it reaches.

    Args:
        x: f32[B,D,H,W,Ci].
        kernel: f32[kd,kh,kw,Ci,Co].
        axis: of depth, height and width.
        product: of slices of x and one tap of the kernel.
    """
    y = jnp.zeros((*x.shape[:4], kernel.shape[-1]), x.dtype)
    for tap, source, target in _taps(kernel.shape[axis], x.shape[1 + axis]):
        weights = lax.index_in_dim(kernel, tap, axis, keepdims=False)
        reached = partial(
            lax.slice_in_dim, start_index=source.start, limit_index=source.stop, axis=1 + axis
        )
        # Fewer slices of depth are fewer products. Elsewhere a slice of the result joins the sum,
        # where one of x would be a copy.
        part = product(reached(x), weights) if axis == 0 else reached(product(x, weights))
        border = [(0, 0)] * 5
        border[1 + axis] = (target.start, x.shape[1 + axis] - target.stop)
        y += jnp.pad(part, border)
    return y


def _tap(slices: jax.Array, tap: jax.Array) -> jax.Array:
    return _pointwise(slices, tap[None])


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies channels by a kernel f32[1,1,1,Ci,Co].

    Written as a 3-D convolution, XLA:CPU hands the product to Eigen, at 393 GFLOP/s of 256
    channels on two cores of an Intel Xeon; written as a product, to YNNPACK, at 318.
    """
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _conv2d_of_slices(slices: jax.Array, kernel: jax.Array) -> jax.Array:
    flat = slices.reshape(-1, *slices.shape[2:])
    return _conv2d(flat, kernel).reshape(*slices.shape[:4], -1)


def _sliced_fwd(x, kernel):
    return _sliced(x, kernel), (x, kernel)


def _sliced_bwd(saved, g):
    x, kernel = saved
    turned = jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
    gradient = kernel_gradient(
        x,
        g,
        kernel.shape[:3],
        strides=(1, 1, 1),
        pads=[(size // 2, size // 2) for size in kernel.shape[:3]],
        dilation=(1, 1, 1),
    )
    return _sliced(g, turned), gradient.astype(kernel.dtype)


_sliced.defvjp(_sliced_fwd, _sliced_bwd)


def _taps(count: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Yields (tap, slices it reads, slices it adds to) for the taps that reach any slice."""
    for tap in range(count):
        shift = tap - count // 2
        first, last = max(0, -shift), min(length, length - shift)
        if first < last:
            yield tap, slice(first + shift, last + shift), slice(first, last)


def _conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
