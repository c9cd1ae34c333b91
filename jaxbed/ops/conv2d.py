"""2-D convolution whose kernel gradient is a few matrix products.

B batch, H W height and width of the input, h w of the output, Ci and Co channels, kh kw kernel.
"""

import functools
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms
from jaxbed.ops.channel_blocks import apart
from jaxbed.ops.products import kernel_gradient

FORMS = ("lax", "products")

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

# Below this many weights in a row of the kernel, the products are too thin to win.
_FEWEST_WEIGHTS = 1024

Pair = tuple[int, int]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    *,
    blocks: int = 1,
    form: str | None = None,
    **options: Any,
) -> jax.Array:
    """Does what `lax.conv_general_dilated` does; `nn.Conv` takes it as its convolution.

    The forms differ where XLA:CPU is slow. It computes a kernel's gradient as a convolution
    whose window is the whole image, at 1 to 50 GFLOP/s where its matrix products reach 60 to
    130; a 1 x 1 convolution takes twice the time of the product it is. On two cores:
    f32[8,128,128,105] to 32 under 3 x 3, gradient 1283 -> 124 ms; f32[8,256,256,16] to 64
    under 1 x 1, gradient 983 -> 42 ms and values 62 -> 25 ms.

    Args:
        lhs: f32[B,H,W,Ci].
        rhs: f32[kh,kw,Ci,Co].
        window_strides: two.
        padding: as in lax.
        lhs_dilation: as in lax.
        rhs_dilation: as in lax.
        dimension_numbers: as in lax.
        blocks: of input channels, whose products are added up; as many as `depthwise_conv`
            made in the layer before, see jaxbed.ops.channel_blocks. A divisor of Ci. Only a
            1 x 1 convolution in form "products" does so, where no gradient is asked for.
        form: "lax", or "products": a 1 x 1 convolution is one product, one of a single input
            channel a sum of scaled images, and a kernel's gradient is a product for each row
            of the kernel. By default "products" on CPU, else
            "lax". Groups, dilated inputs, other layouts and other ranks are always "lax".
        **options: as in lax.

    Returns:
        f32[B,h,w,Co]. In form "products" only reverse-mode derivatives, of first order,
        exist.
    """
    ones = (1,) * (lhs.ndim - 2)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = numbers == _NHWC and tuple(lhs_dilation or ones) == ones
    plain = plain and not any(value not in (None, 1) for value in options.values())
    auto = "products" if jax.default_backend() == "cpu" else "lax"
    if forms.choose(form, offered=FORMS, auto=auto) == "lax" or not plain:
        return lax.conv_general_dilated(
            *(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers),
            **options,
        )
    strides, dilation = tuple(window_strides), tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        window = [(k - 1) * d + 1 for k, d in zip(rhs.shape, dilation, strict=False)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return _conv(lhs, rhs, strides, pads, dilation, blocks)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    pads: tuple[Pair, Pair],
    dilation: Pair,
    blocks: int,
) -> jax.Array:
    if blocks > 1 and _pointwise(kernel, pads):
        return _product_in_blocks(x[:, :: strides[0], :: strides[1]], kernel[0, 0], blocks)
    if kernel.shape[2] == 1 and x.dtype == jnp.float32 and not _pointwise(kernel, pads):
        return _summed_over_taps(x, kernel, strides, pads, dilation)
    return _plain(x, kernel, strides, pads, dilation)


def _plain(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair], dilation: Pair
) -> jax.Array:
    if _pointwise(kernel, pads):
        return x[:, :: strides[0], :: strides[1]] @ kernel[0, 0]
    return lax.conv_general_dilated(
        x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=_NHWC
    )


def _product_in_blocks(x: jax.Array, kernel: jax.Array, blocks: int) -> jax.Array:
    kernel = kernel.reshape(blocks, -1, kernel.shape[-1])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    parts = jnp.einsum("n...i,nio->n...o", apart(x, blocks), kernel, preferred_element_type=wide)
    # Not `sum(0)`: sums of two fuse into the loop that follows, a reduction does not.
    return functools.reduce(jnp.add, parts).astype(x.dtype)


def _summed_over_taps(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair], dilation: Pair
) -> jax.Array:
    """Adds up the taps of a kernel of one input channel, in one loop over the outputs.

    The first layer of a network on grey images is no product worth the name: f32[4,256,256,1]
    to 16 under 3 x 3 takes 2.0 ms so, 15.7 as a convolution and 10.8 as a product (two cores).
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    spans = [(k - 1) * d for k, d in zip(kernel.shape, dilation, strict=False)]
    sizes = [
        (n - span - 1) // s * s for n, span, s in zip(x.shape[1:], spans, strides, strict=False)
    ]
    y = None
    for row, column in itertools.product(*map(range, kernel.shape[:2])):
        first = (row * dilation[0], column * dilation[1])
        last = [at + size + 1 for at, size in zip(first, sizes, strict=True)]
        reached = lax.slice(x, (0, *first, 0), (len(x), *last, 1), (1, *strides, 1))
        part = reached * kernel[row, column][None, None]
        y = part if y is None else y + part
    return y


def _conv_fwd(x, kernel, strides, pads, dilation, blocks):
    return _conv(x, kernel, strides, pads, dilation, 1), (x, kernel)


def _conv_bwd(strides, pads, dilation, blocks, saved, g):
    x, kernel = saved
    conv = partial(_plain, strides=strides, pads=pads, dilation=dilation)
    (dx,) = jax.linear_transpose(partial(conv, kernel=kernel), x)(g)
    if not _pointwise(kernel, pads) and kernel[0].size < _FEWEST_WEIGHTS:
        return dx, *jax.linear_transpose(partial(conv, x), kernel)(g)
    window = kernel.shape[:2]
    dk = kernel_gradient(x, g, window, strides=strides, pads=pads, dilation=dilation)
    return dx, dk.astype(kernel.dtype)


_conv.defvjp(_conv_fwd, _conv_bwd)


def _pointwise(kernel: jax.Array, pads: tuple[Pair, Pair]) -> bool:
    return kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0))
