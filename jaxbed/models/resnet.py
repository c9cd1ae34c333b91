"""Residual networks of 18 to 101 layers, whole and in parts.

B batch, H W input pixels, h w pixels of a stage, C channels.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, as the published
ImageNet weights of torchvision compute it: a bottleneck has its stride on the 3x3 convolution
(the paper on the first 1x1) and every layer pads both sides alike. Attention is placed as in
Woo et al., CBAM, ECCV 2018, Fig. 3: at the end of the residual branch, before the addition.
Modules have the names of those weights, see jaxbed.weights.torchvision.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.cbam import CBAM
from jaxbed.models.layers import BatchNorm, Conv
from jaxbed.ops.pooling import max_pool

Layer = Callable[[jax.Array], jax.Array]

# As torchvision: normal with variance 2 / (taps x output channels). Normalisations start at
# scale 1 and bias 0, the last layer as Flax has it.
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Layers(NamedTuple):
    """How a network makes its layers.

    Attributes:
        conv: makes a convolution without bias from features, kernel size and stride; nothing
            is padded unless asked for.
        norm: makes a batch normalisation.
        dense: makes a linear layer.
        attention: makes what ends the residual branch of a block; None for none.
    """

    conv: Callable[..., Layer]
    norm: Callable[..., Layer]
    dense: Callable[..., Layer]
    attention: Callable[..., Layer] | None


def layers_of(network: nn.Module, *, train: bool, attention: bool) -> Layers:
    """Binds the types of a network and the axis of its statistics to its layers.

    Args:
        network: has the fields `axis_name`, `dtype` and `param_dtype`.
        train: normalise with the batch's own statistics and update the running ones.
        attention: give the layers CBAM.
    """
    types = {"dtype": network.dtype, "param_dtype": network.param_dtype}
    conv = partial(Conv, padding=0, use_bias=False, kernel_init=HE_FAN_OUT, **types)
    norm = partial(BatchNorm, use_running_average=not train, axis_name=network.axis_name, **types)
    return Layers(
        conv=conv,
        norm=norm,
        dense=partial(nn.Dense, **types),
        attention=partial(CBAM, conv, norm, **types) if attention else None,
    )


class Stem(nn.Module):
    """Shrinks the image to a quarter: convolution 7x7 and max pooling 3x3, both of stride 2.

    Attributes:
        features: output channels.
        layers: how layers are made.
    """

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,H/4,W/4,features], sizes rounded up."""
        x = self.layers.conv(self.features, (7, 7), 2, padding=3, name="conv1")(x)
        return max_pool(nn.relu(self.layers.norm(name="bn1")(x)), size=3, stride=2)


class BasicBlock(nn.Module):
    """Adds to the input two convolutions 3x3 of it.

    Attributes:
        features: channels of the convolutions; the output has `expansion` times as many.
        stride: 1 or 2, both ways.
        layers: how layers are made.
    """

    expansion: ClassVar[int] = 1

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,features], sizes rounded up."""
        conv, norm = self.layers.conv, self.layers.norm
        y = conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = conv(self.features, (3, 3), padding=1, name="conv2")(y)
        return _added(self, x, norm(name="bn2")(y))


class Bottleneck(nn.Module):
    """Adds to the input convolutions 1x1, 3x3 and 1x1 of it, the 3x3 of few channels.

    Attributes: as those of BasicBlock.
    """

    expansion: ClassVar[int] = 4

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,4*features], sizes rounded up."""
        conv, norm = self.layers.conv, self.layers.norm
        y = nn.relu(norm(name="bn1")(conv(self.features, (1, 1), name="conv1")(x)))
        y = conv(self.features, (3, 3), self.stride, padding=1, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y))
        y = conv(self.expansion * self.features, (1, 1), name="conv3")(y)
        return _added(self, x, norm(name="bn3")(y))


Block = type[BasicBlock] | type[Bottleneck]


def _added(block: BasicBlock | Bottleneck, x: jax.Array, y: jax.Array) -> jax.Array:
    """Ends a block: attention to y, x brought to the shape of y, sum, ReLU."""
    conv, norm, _, attention = block.layers
    if attention:
        y = attention(name="cbam")(y)
    if block.stride != 1 or x.shape[-1] != y.shape[-1]:
        x = conv(y.shape[-1], (1, 1), block.stride, name="downsample_conv")(x)
        x = norm(name="downsample_bn")(x)
    return nn.relu(x + y)


class Stage(nn.Module):
    """Applies blocks of one size, of which the first may shrink the image.

    Attributes:
        block: BasicBlock or Bottleneck.
        features: as in the block.
        depth: number of blocks.
        stride: of the first.
        layers: how layers are made.
    """

    block: Block
    features: int
    depth: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,expansion*features]."""
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = self.block(self.features, stride, self.layers, name=f"block{i}")(x)
        return x


class Backbone(nn.Module):
    """Reads features of four sizes from an image: stem and four stages.

    Attributes:
        block: BasicBlock (18 and 34 layers) or Bottleneck (50 and more).
        depths: blocks of the stages.
        width: channels of the stem and of the first stage's convolutions; each stage has
            twice those of the one before.
        cbam: attention in every block.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    block: Block
    depths: tuple[int, ...]
    width: int = 64
    cbam: bool = False
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
            `layer1` f32[B,H/4,W/4,C1], `layer2` of H/8, `layer3` of H/16 and `layer4` of
            H/32, sizes rounded up, of type `dtype`.
        """
        layers = layers_of(self, train=train, attention=self.cbam)
        x = Stem(self.width, layers, name="stem")(x)
        features = {}
        for i, depth in enumerate(self.depths):
            stride = 1 if i == 0 else 2
            stage = Stage(
                self.block, self.width * 2**i, depth, stride, layers, name=f"layer{i + 1}"
            )
            x = features[stage.name] = stage(x)
        return features


class ResNet(nn.Module):
    """Classifies images: backbone, mean over all places, linear layer.

    Parameters and MACs at 224x224, 3 channels and 1000 outputs | 1 channel and 4 outputs:

        resnet18            11,689,512   1.814 G  |  11,172,292   1.735 G
        resnet18, cbam      11,779,392   1.815 G  |  11,262,172   1.736 G
        resnet34            21,797,672   3.664 G  |  21,280,452   3.585 G
        resnet50            25,557,032   4.089 G  |  23,509,956   4.008 G
        resnet50, cbam      28,089,624   4.096 G  |  26,042,548   4.015 G
        resnet101           44,549,160   7.801 G  |  42,502,084   7.720 G

    Attributes:
        outputs: classes.
        The others are as those of Backbone.
    """

    block: Block
    depths: tuple[int, ...]
    outputs: int = 1000
    width: int = 64
    cbam: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps images f32[B,H,W,C] to `logits` f32[B,outputs]; `train` as in Backbone."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        backbone = Backbone(
            self.block,
            self.depths,
            width=self.width,
            cbam=self.cbam,
            axis_name=self.axis_name,
            **types,
            name="backbone",
        )
        *_, last = backbone(x, train=train).values()
        logits = nn.Dense(self.outputs, **types, name="fc")(last.mean((1, 2)))
        return {"logits": logits.astype(jnp.float32)}


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
