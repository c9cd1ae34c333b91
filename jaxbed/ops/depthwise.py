"""Depthwise convolution: every channel is filtered by its own small window.

B batch, H height, W width, C channels, k window size (odd), s stride; Ho = ceil(H / s).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxbed.ops import forms
from jaxbed.ops.channel_blocks import apart, together
from jaxbed.ops.fusion import padded

FORMS = ("lax", "shift")
_BLOCK_ROWS = 8


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, blocks: int = 1, form: str | None = None
) -> jax.Array:
    """Filters each channel with its own window, k // 2 zeros around the image.

    The padding is the same on both sides for every stride, as in PyTorch; "SAME" would pad
    even images unevenly when the stride is 2.

    Args:
        x: f32[B,H,W,C] images.
        kernel: f32[k,k,1,C], k odd.
        stride: step between windows, both ways.
        blocks: of channels, computed one after the other; see jaxbed.ops.channel_blocks. A
            divisor of C. Only "shift" does so, and only where no gradient is asked for:
            f32[1,64,64,288], k = 5, between its two 1 x 1 convolutions takes 6.2 instead of
            7.7 ms with them in four blocks (one core).
        form: "lax" is the grouped convolution; "shift" is a sum of k * k shifted products.
            By default "shift" on CPU, whose grouped convolution is a scalar loop on one
            core: 30 times slower forward, 40 times with gradients (f32[16,64,64,72], k = 3,
            two cores). Else "lax".

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
    return _shifted(x, kernel, stride, blocks)


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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(x: jax.Array, kernel: jax.Array, stride: int, blocks: int) -> jax.Array:
    taps = partial(_sum_of_taps, stride=stride)
    if blocks == 1:
        return taps(x, kernel)
    kernel = kernel.reshape(*kernel.shape[:3], blocks, -1)
    return together(jax.vmap(taps, in_axes=(0, 3))(apart(x, blocks), kernel))


def _sum_of_taps(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size = kernel.shape[0]
    rows, columns = (-(-length // stride) for length in x.shape[1:3])
    x = _bordered(x, size // 2)
    # A sum for each row of taps: one long sum would wait for itself at every tap.
    y = sum(
        sum(_window(x, i, j, rows, columns, stride) * _tap(kernel, i, j) for j in range(size))
        for i in range(size)
    )
    return y.astype(x.dtype)


def _shifted_fwd(x, kernel, stride, blocks):
    return _sum_of_taps(x, kernel, stride), (x, kernel)


def _shifted_bwd(stride, blocks, saved, g):
    x, kernel = saved
    size = kernel.shape[0]
    rows, columns = g.shape[1:3]
    border = (size // 2 + stride - 1) // stride
    blocks = -(-rows // _BLOCK_ROWS)
    block = -(-rows // blocks)
    extra = blocks * block - rows
    g = _bordered(g, border, extra_rows=extra)

    dx = _image_gradient(g, kernel, stride, border, rows, columns)
    dx = dx[:, : x.shape[1], : x.shape[2]].astype(x.dtype)

    x = _bordered(x, size // 2, extra_rows=extra * stride)
    inside = _window(g, border, border, rows + extra, columns, 1)
    dkernel = _kernel_gradient(x, inside, size, stride, block)
    return dx, dkernel.astype(kernel.dtype)


_shifted.defvjp(_shifted_fwd, _shifted_bwd)


def _image_gradient(
    g: jax.Array, kernel: jax.Array, stride: int, border: int, rows: int, columns: int
) -> jax.Array:
    """Returns f32[B,s Ho,s Wo,C]: at u the sum over taps i of g[(u + k // 2 - i) / s].

    Only taps with a whole quotient count, so each of the s * s phases of u has its own few
    taps: a quarter of the products that a g with zeros in between would need at stride 2.
    """
    size = kernel.shape[0]

    def taps(phase: int) -> list[tuple[int, int]]:
        """Returns (tap, first row of the bordered g) for the rows u = phase, phase + s, ..."""
        reach = phase + size // 2
        return [(i, (reach - i) // stride + border) for i in range(reach % stride, size, stride)]

    def phase(m: int, n: int) -> jax.Array:
        products = [
            _window(g, u, v, rows, columns, 1) * _tap(kernel, i, j)
            for i, u in taps(m)
            for j, v in taps(n)
        ]
        return sum(products, start=jnp.zeros_like(_window(g, 0, 0, rows, columns, 1)))

    lines = [jnp.stack([phase(m, n) for n in range(stride)], axis=3) for m in range(stride)]
    whole = jnp.stack(lines, axis=2)
    return whole.reshape(-1, stride * rows, stride * columns, g.shape[-1])


def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, stride: int, block: int) -> jax.Array:
    """Returns f32[k,k,1,C]: for each tap the sum of its shifted image times g.

    One reduction of several operands adds blocks of rows for up to 9 taps: XLA makes it a
    single loop whose short inner sum unrolls, so neither shifted images nor products reach
    memory and g is read once for all of them. More taps than 9 run out of registers.
    """
    batch, rows, columns, channels = g.shape

    def product(i: int, j: int) -> jax.Array:
        shifted = _window(x, i, j, rows, columns, stride)
        return (shifted * g).reshape(batch, rows // block, block, columns, channels)

    taps = [(i, j) for i in range(size) for j in range(size)]
    step = size * max(1, 9 // size)
    sums = []
    for first in range(0, len(taps), step):
        products = [product(i, j) for i, j in taps[first : first + step]]
        zeros = [jnp.zeros((), g.dtype)] * len(products)
        sums += lax.reduce(products, zeros, _add_all, (2,))
    return jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(size, size, 1, channels)


def _add_all(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
    return [u + v for u, v in zip(a, b, strict=True)]


def _bordered(x: jax.Array, border: int, *, extra_rows: int = 0) -> jax.Array:
    return padded(x, ((0, 0), (border, border + extra_rows), (border, border), (0, 0)))


def _window(x: jax.Array, i: int, j: int, rows: int, columns: int, stride: int) -> jax.Array:
    """Returns f32[B,rows,columns,C], every s-th pixel of x from (i, j) on."""
    height, width = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return _wide(x[:, i : i + height : stride, j : j + width : stride])


def _tap(kernel: jax.Array, i: int, j: int) -> jax.Array:
    return _wide(kernel[i, j])[None, None]


def _wide(x: jax.Array) -> jax.Array:
    """Returns x in the precision of sums: at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
