"""Stacked hourglass: heatmaps of joints that are refined from stack to stack.

B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, C channels, J joints, S stacks. `pyranet`
and `pose_attention` are this network with other blocks or other heads.

Source: Newell, Yang and Deng, "Stacked hourglass networks for human pose estimation", ECCV 2016,
sections 3.1 to 3.3; sizes and the order of layers are those of the network in Table 1 of Yu et
al. (see jaxbed.models.efd). Differs from that network: what its last stack computes for a next
one is neither computed nor, unless `hold_dead`, allocated.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, Conv

Layer = Callable[[jax.Array], jax.Array]

HEATMAP_STRIDE = 4
"""Input pixels per heatmap pixel."""


class Layers(NamedTuple):
    """How a network makes its layers.

    Attributes:
        conv: makes a convolution with biases from features, kernel size and more.
        norm: makes a batch normalisation.
    """

    conv: Callable[..., Layer]
    norm: Callable[..., Layer]


def layers_of(network: nn.Module, *, train: bool) -> Layers:
    """Binds the types of a network and the axis of its statistics to its layers.

    Args:
        network: has the fields `axis_name`, `dtype` and `param_dtype`.
        train: normalise with the batch's own statistics and update the running ones.
    """
    types = {"dtype": network.dtype, "param_dtype": network.param_dtype}
    norm = partial(BatchNorm, use_running_average=not train, axis_name=network.axis_name, **types)
    return Layers(partial(Conv, **types), norm)


def halve(x: jax.Array) -> jax.Array:
    """Keeps the maximum of every 2x2 pixels: f32[B,H,W,C] to f32[B,H/2,W/2,C].

    Windows do not overlap, so two maxima of neighbours do: on a CPU with a gradient 13 times as
    fast as a window reduction, whose gradient scatters.
    """
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


class BRC(nn.Module):
    """Batch normalisation, ReLU, convolution, in this order.

    Attributes:
        features: output channels.
        size: kernel height and width, odd.
        layers: how layers are made.
        stride: of the convolution.
    """

    features: int
    size: int
    layers: Layers
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,H/stride,W/stride,features]."""
        x = nn.relu(self.layers.norm(name="norm")(x))
        window, padding = (self.size, self.size), self.size // 2
        conv = self.layers.conv(self.features, window, self.stride, padding=padding, name="conv")
        return conv(x)


class Residual(nn.Module):
    """Three convolutions at half of the channels, plus the input.

    Attributes: as those of BRC.
    """

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,features]."""
        brc = partial(BRC, layers=self.layers)
        y = brc(self.features // 2, 1, name="reduce")(x)
        y = brc(self.features // 2, 3, name="spatial")(y)
        y = brc(self.features, 1, name="expand")(y)
        if x.shape[-1] != self.features:
            x = self.layers.conv(self.features, (1, 1), name="skip")(x)
        return x + y


class Stem(nn.Module):
    """Brings the image to the size of the heatmaps.

    Attributes:
        features: output channels.
        block: makes a block from its features, its name and `halvings`: how many times smaller
            than the heatmaps its input is, in powers of two.
        layers: how layers are made.
    """

    features: int
    block: Callable[..., Layer]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,h,w,features]."""
        x = BRC(self.features // 4, 7, self.layers, stride=2, name="start")(x)
        x = self.block(self.features // 2, halvings=-1, name="block1")(x)
        x = self.block(self.features // 2, halvings=0, name="block2")(halve(x))
        return self.block(self.features, halvings=0, name="block3")(x)


class Hourglass(nn.Module):
    """Looks at an image at half its size, and smaller, and adds what it saw to it.

    Attributes:
        depth: how often the size is halved.
        repeats: blocks wherever there are some.
        block: as in Stem.
        halvings: as in Stem, of the input.
    """

    depth: int
    repeats: int
    block: Callable[..., Layer]
    halvings: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        features, below = x.shape[-1], self.halvings + 1

        def blocks(x: jax.Array, name: str, halvings: int) -> jax.Array:
            for i in range(1, self.repeats + 1):
                x = self.block(features, halvings=halvings, name=f"{name}{i}")(x)
            return x

        y = blocks(halve(x), "down", below)
        if self.depth > 1:
            y = Hourglass(self.depth - 1, self.repeats, self.block, below, name="inner")(y)
        else:
            y = blocks(y, "inner", below)
        y = blocks(y, "up", below)
        return blocks(x, "skip", self.halvings) + y.repeat(2, axis=1).repeat(2, axis=2)


class Stack(nn.Module):
    """An hourglass, the heatmaps read from it, and what the next stack sees.

    Attributes:
        hourglass: makes the hourglass from a name.
        head: makes what reads heatmaps from features, from a name.
        repeats: Residuals after the hourglass.
        layers: how layers are made.
        last: there is no next stack.
        hold_dead: as in StackedHourglass.
    """

    hourglass: Callable[..., Layer]
    head: Callable[..., Layer]
    repeats: int
    layers: Layers
    last: bool
    hold_dead: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps f32[B,h,w,C] to the next stack's input, of this shape, and f32[B,h,w,J]."""
        width = x.shape[-1]
        y = self.hourglass(name="hourglass")(x)
        for i in range(1, self.repeats + 1):
            y = Residual(width, self.layers, name=f"residual{i}")(y)
        features = BRC(width, 1, self.layers, name="features")(y)
        heatmaps = self.head(name="head")(features)
        if not self.last or (self.hold_dead and self.is_initializing()):
            x = x + self.layers.conv(width, (1, 1), name="features_back")(features)
            x = x + self.layers.conv(width, (1, 1), name="heatmaps_back")(heatmaps)
        return x, heatmaps


class StackedHourglass(nn.Module):
    """Finds joints with a row of hourglasses.

    12,638,878 parameters, 69,632 of them dead and absent without `hold_dead`; 13,453,230,080
    MACs at 256x256 and one input channel.

    Attributes:
        joints: J.
        width: channels, a multiple of 4; the stem starts with a quarter of them.
        stacks: S.
        depth: how often an hourglass halves its size.
        repeats: blocks wherever an hourglass has some.
        hold_dead: also allocate what the published network's last stack computes for a next
            one, so that its checkpoint has a place for every tensor. Not computed.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the heatmaps are float32.
        param_dtype: storage type.
    """

    joints: int = 14
    width: int = 256
    stacks: int = 2
    depth: int = 4
    repeats: int = 2
    hold_dead: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds heatmaps.

        Args:
            x: f32[B,H,W,C]; H and W are multiples of 4 * 2**depth, 64 by default.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `heatmaps` f32[B,h,w,J], not bounded, of the last stack; `stages` f32[B,S,h,w,J] of
            all of them, each of which is trained towards the same targets.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        layers = layers_of(self, train=train)

        def block(features: int, *, halvings: int, name: str) -> Residual:
            return Residual(features, layers, name=name)

        head = partial(layers.conv, self.joints, (1, 1))
        return stacked(self, x, layers, block=block, heads=[head] * self.stacks)


def stacked(
    network: nn.Module,
    x: jax.Array,
    layers: Layers,
    *,
    block: Callable[..., Layer],
    heads: list[Callable[..., Layer]],
) -> dict[str, jax.Array]:
    """Evaluates stem and stacks inside a network's `__call__`.

    Args:
        network: whose fields give sizes, and whose parameters they are.
        x: as in StackedHourglass.
        layers: how layers are made.
        block: as in Stem.
        heads: for every stack as in Stack.

    Returns:
        As StackedHourglass.

    Raises:
        ValueError: as StackedHourglass.
    """
    multiple = HEATMAP_STRIDE * 2**network.depth
    if x.shape[1] % multiple or x.shape[2] % multiple:
        raise ValueError(f"height and width must be multiples of {multiple}, got {x.shape[1:3]}")
    x = Stem(network.width, block, layers, name="stem")(x)
    hourglass = partial(Hourglass, network.depth, network.repeats, block)
    stages = []
    for number, head in enumerate(heads, start=1):
        last = number == len(heads)
        stack = Stack(
            *(hourglass, head, network.repeats, layers, last, network.hold_dead),
            name=f"stack{number}",
        )
        x, heatmaps = stack(x)
        stages.append(heatmaps.astype(jnp.float32))
    return {"heatmaps": stages[-1], "stages": jnp.stack(stages, axis=1)}
