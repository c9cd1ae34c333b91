"""PyraNet: a stacked hourglass whose blocks see their input at many scales.

B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, C channels, D channels of the pyramid,
L and l length of an image along an axis before and after pooling, J joints, S stacks.

Source: Yang et al., "Learning feature pyramids for human pose estimation", ICCV 2017, section
3; sizes are those of the network in Table 1 of Yu et al. (see jaxbed.models.efd). Fractional max
pooling is that of Graham, arXiv 1412.6071, section 2.
Differs from that network: its pooling draws offsets for every image and channel, in evaluation
too; here they are fixed in evaluation, and in training drawn once for all images and channels, so
that a step does not depend on how many devices share its batch. Else as StackedHourglass.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.hourglass import BRC, Layers, Residual, layers_of, stacked

FIXED_OFFSET = 0.5
"""The offset of windows in evaluation, in the middle of what training draws from."""


def window_starts(
    length: int, pooled: int, offset: np.float32 | jax.Array
) -> np.ndarray | jax.Array:
    """Lays windows of two as evenly as whole places allow.

    Args:
        length: L.
        pooled: l < L.
        offset: f32[] in [0, 1); decides where the wider steps are.

    Returns:
        i32[l], from 0 to L - 2, with which the last window ends at the border. Of NumPy where
        the offset is.
    """
    step = np.float32((length - 2) / max(pooled - 1, 1))
    places = np.arange(pooled, dtype=np.float32)
    starts = ((places + offset) * step).astype(np.int32) - (offset * step).astype(np.int32)
    last = places == pooled - 1  # exact, but for rounding
    return starts * ~last + (length - 2) * last


def fractional_max_pool(
    x: jax.Array, size: tuple[int, int], offsets: np.ndarray | jax.Array
) -> jax.Array:
    """Shrinks to any smaller size: the maximum of 2x2 windows, which may overlap or leave gaps.

    Args:
        x: f32[B,h,w,C].
        size: (height, width) of the result, smaller than those of x.
        offsets: f32[2], for rows and columns as in `window_starts`.
    """
    for axis, (pooled, offset) in enumerate(zip(size, offsets, strict=True), start=1):
        starts = window_starts(x.shape[axis], pooled, offset)
        first, second = (jnp.take(x, starts + i, axis, mode="clip") for i in (0, 1))
        x = jnp.maximum(first, second)
    return x


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Enlarges f32[B,h,w,C]: place i of l shows place floor(i L / l) of the L before it."""
    for axis, length in enumerate(size, start=1):
        x = jnp.take(x, np.arange(length) * x.shape[axis] // length, axis, mode="clip")
    return x


class Pyramid(nn.Module):
    """Sums 3x3 convolutions of its input at sizes between itself and half of it.

    Attributes:
        scales: how many sizes.
        layers: how layers are made.
        random: whether to draw the offsets of the pooling windows.
    """

    scales: int
    layers: Layers
    random: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,D] to the same shape."""
        size, channels = x.shape[1:3], x.shape[-1]
        offsets = np.full((self.scales, 2), FIXED_OFFSET, np.float32)
        if self.random:
            offsets = jax.random.uniform(self.make_rng("dropout"), offsets.shape)
        total = jnp.zeros_like(x)
        for scale in range(1, self.scales + 1):
            # The last of 30 comes out a little below a half, as it does in the published network,
            # and its image one place smaller.
            ratio = (2 ** (-1 / self.scales)) ** scale
            smaller = tuple(int(n * ratio) for n in size)
            y = fractional_max_pool(x, smaller, offsets[scale - 1])
            y = self.layers.conv(channels, (3, 3), padding=1, name=f"scale{scale}")(y)
            total = total + resize_nearest(y, size)
        return total


class PyramidResidual(nn.Module):
    """A Residual with a second branch that has a pyramid in place of its 3x3 convolution.

    Attributes:
        features: output channels.
        layers: how layers are made.
        scales: as in Pyramid.
        share: the pyramid has features // share channels.
        random: as in Pyramid.
    """

    features: int
    layers: Layers
    scales: int
    share: int
    random: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,features]."""

        def brc(features: int, size: int, name: str) -> BRC:
            return BRC(features, size, self.layers, name=name)

        half = self.features // 2
        y = brc(half, 3, "spatial")(brc(half, 1, "reduce")(x))
        z = brc(self.features // self.share, 1, "pyramid_reduce")(x)
        z = nn.relu(self.layers.norm(name="pyramid_norm")(z))
        z = Pyramid(self.scales, self.layers, self.random, name="pyramid")(z)
        z = brc(half, 1, "pyramid_expand")(z)
        y = brc(self.features, 1, "expand")(y + z)
        if x.shape[-1] != self.features:
            x = self.layers.conv(self.features, (1, 1), name="skip")(x)
        return x + y


class PyraNet(nn.Module):
    """Finds joints with a row of hourglasses of pyramids.

    27,221,110 parameters, 69,632 of them dead and absent without `hold_dead`; 24,066,171,734
    MACs at 256x256 and one input channel.

    Pyramids stand in the stem and in the hourglasses where these have halved the size at most
    `depth` - 2 times; Residuals stand in the two smallest sizes and after the hourglasses.

    Attributes: as those of StackedHourglass, and
        scales: sizes in a pyramid.
        share: a pyramid has one of so many parts of its block's channels.
        random_pooling: draw the pooling windows in training, from the `dropout` stream of
            random numbers.
    """

    joints: int = 14
    width: int = 256
    stacks: int = 2
    depth: int = 4
    repeats: int = 2
    scales: int = 30
    share: int = 6
    random_pooling: bool = True
    hold_dead: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds heatmaps: Args, Returns and Raises as StackedHourglass."""
        layers = layers_of(self, train=train)
        random = self.random_pooling and train

        def block(features: int, *, halvings: int, name: str) -> Residual | PyramidResidual:
            if halvings > self.depth - 2:
                return Residual(features, layers, name=name)
            return PyramidResidual(features, layers, self.scales, self.share, random, name=name)

        head = partial(layers.conv, self.joints, (1, 1))
        return stacked(self, x, layers, block=block, heads=[head] * self.stacks)
