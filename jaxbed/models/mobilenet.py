"""MobileNet of a quarter width: features of three sizes from depthwise separable convolutions.

B batch, H W input pixels, h w pixels of a block, C channels.

Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
applications", 2017, Table 1, alpha 1/4, without its last layers, as the published weights of
RetinaFace have it (see jaxbed.models.retinaface).
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import DepthwiseConv
from jaxbed.models.resnet import Layer, Layers, layers_of

STAGES = (
    ((1, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)),
    ((16, 2), *5 * ((16, 1),)),
    ((32, 2), (32, 1)),
)
"""(channels in multiples of the first layer's, stride) of every block, by stage. The very first
is a plain convolution, the others are separable."""


class ConvNorm(nn.Module):
    """Convolves without bias, normalises, and activates if asked to.

    Attributes:
        features: output channels.
        size: kernel height and width, odd; half of it is padded.
        slope: of the activation below 0; None for no activation.
        layers: how layers are made.
        stride: 1 or 2, both ways.
    """

    features: int
    size: int
    slope: float | None
    layers: Layers
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,features], sizes rounded up."""
        window = (self.size, self.size)
        conv = self.layers.conv(
            self.features, window, self.stride, padding=self.size // 2, name="conv"
        )
        x = self.layers.norm(name="norm")(conv(x))
        return x if self.slope is None else nn.leaky_relu(x, self.slope)


class Separable(nn.Module):
    """Filters every channel by a window of its own, then mixes the channels of every pixel.

    Attributes:
        features: output channels.
        stride: 1 or 2, both ways.
        slope: of the activations below 0.
        depthwise: makes a depthwise convolution from its size and stride.
        layers: how layers are made.
    """

    features: int
    stride: int
    slope: float
    depthwise: Callable[..., Layer]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,features], sizes rounded up."""
        conv, norm = self.layers.conv, self.layers.norm
        x = self.depthwise(3, self.stride, name="depthwise")(x)
        x = nn.leaky_relu(norm(name="depthwise_norm")(x), self.slope)
        x = conv(self.features, (1, 1), name="pointwise")(x)
        return nn.leaky_relu(norm(name="pointwise_norm")(x), self.slope)


class Stage(nn.Module):
    """Applies blocks, the first of which may be the network's first layer.

    Attributes:
        blocks: (channels, stride) of each.
        starts: whether it is, and so a plain convolution 3x3.
        slope: as in Separable.
        depthwise: as in Separable.
        layers: how layers are made.
    """

    blocks: tuple[tuple[int, int], ...]
    starts: bool
    slope: float
    depthwise: Callable[..., Layer]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the size and channels of the last block."""
        for i, (features, stride) in enumerate(self.blocks):
            if self.starts and i == 0:
                block = ConvNorm(features, 3, self.slope, self.layers, stride, name="block0")
            else:
                block = Separable(
                    features, stride, self.slope, self.depthwise, self.layers, name=f"block{i}"
                )
            x = block(x)
        return x


class MobileNet(nn.Module):
    """Reads features of three sizes from an image.

    Attributes:
        width: channels of the first layer.
        slope: of the activations below 0; the paper's have none.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    width: int = 8
    slope: float = 0.0
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds features.

        Args:
            x: f32[B,H,W,C].
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `stage1` f32[B,H/8,W/8,8 width], `stage2` of H/16 and `stage3` of H/32, each with
            twice the channels of the one before; sizes rounded up, of type `dtype`.
        """
        layers = layers_of(self, train=train, attention=False)
        depthwise = partial(DepthwiseConv, dtype=self.dtype, param_dtype=self.param_dtype)
        features = {}
        for i, multiples in enumerate(STAGES):
            blocks = tuple((self.width * multiple, stride) for multiple, stride in multiples)
            name = f"stage{i + 1}"
            stage = Stage(blocks, i == 0, self.slope, depthwise, layers, name=name)
            x = features[name] = stage(x)
        return features
