"""Channels in blocks that a core's first-level cache can hold.

A loop over pixels and then channels reads what belongs to all channels of a pixel before it
comes to the next. A large window over many channels has left the cache by then: 5 x 5 taps
of 288 channels take 29 KB, and the pixels under them as much again. A loop over one block of
channels, and then the next, keeps both.

`apart` and `together` only say in which order a loop runs: XLA fuses them into the loops
before and after. A product that follows must take its channels by block too, or they are
copied back into their order first.

B batch, H height, W width, C channels, n blocks.
"""

import jax
import jax.numpy as jnp

# Most bytes of a block's taps and pixels: three quarters of the 32 KB that is common.
_CACHE_BYTES = 3 * 2**13
# Powers of two: cores share a loop by its outermost axis, here the blocks. More than 8 would
# leave too little to multiply in each.
_NUMBERS = (1, 2, 4, 8)
_VECTOR = 8


def blocks_in_cache(size: int, channels: int) -> int:
    """Returns the fewest blocks whose taps and pixels stay in the cache: 1, 2, 4 or 8.

    A block is whole vectors of 8 float32. 1 where no such number divides so.

    Args:
        size: of the window, in pixels both ways.
        channels: C.
    """
    most = _CACHE_BYTES // (2 * 4 * size * size)
    for blocks in _NUMBERS:
        if channels % (blocks * _VECTOR) == 0 and channels // blocks <= most:
            return blocks
    return 1


def apart(x: jax.Array, blocks: int) -> jax.Array:
    """Returns f32[n,...,C/n]: block after block of the last axis of f32[...,C]."""
    x = x.reshape(*x.shape[:-1], blocks, -1)
    return jnp.moveaxis(x, -2, 0)


def together(x: jax.Array) -> jax.Array:
    """Undoes `apart`: f32[n,...,C/n] to f32[...,C]."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)
