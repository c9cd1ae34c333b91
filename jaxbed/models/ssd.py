"""SSD: boxes and scores of faces from feature maps of six sizes, in one pass.

B batch, h w pixels of a map, C channels, A anchors. What the outputs mean in pixels is
jaxbed.codecs.boxes. Both networks read 300x300 pixels.

Source: Liu et al., "SSD: single shot multibox detector", ECCV 2016, section 2 and Fig. 2, with 2
classes. The light network has the layers of the face detector that OpenCV is published with: ten
layers of He et al., "Identity mappings in deep residual networks", ECCV 2016, under SSD's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.resnet import Layers, layers_of
from jaxbed.ops.pooling import max_pool

SIZE = (300, 300)
"""Height and width of the input."""

SSD300_MEAN_BGR = (104.0, 117.0, 123.0)
LIGHT_MEAN_BGR = (104.0, 177.0, 123.0)
"""Means of blue, green and red, for `jaxbed.models.retinaface.network_input`; the 177 is no slip
of this line but what the published light network was trained with."""

ANCHORS_PER_PLACE = (4, 6, 6, 6, 4, 4)

VGG = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of the convolutions, in multiples of the first's, by blocks between poolings."""

SSD300_EXTRAS = ((4, 8, 2, 1), (2, 4, 2, 1), (2, 4, 1, 0), (2, 4, 1, 0))
LIGHT_EXTRAS = ((4, 8, 2, 1), (2, 4, 2, 1), (2, 4, 1, 1), (2, 4, 1, 1))
"""Of the four smallest maps: channels of the convolutions 1x1 and 3x3, in multiples of the first
layer's, and stride and padding of the latter."""


class L2Norm(nn.Module):
    """Scales the channels of every pixel to the length 1, and each channel by its own factor.

    Attributes:
        start: value of the factors before training.
        dtype: compute type; None follows the input.
        param_dtype: storage type.

    Source: Liu, Rabinovich and Berg, "ParseNet: looking wider to see better", 2015, section 3.2.
    """

    start: float = 20.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,C]."""
        init = nn.initializers.constant(self.start)
        scale = self.param("scale", init, (x.shape[-1],), self.param_dtype)
        x, scale = nn.dtypes.promote_dtype(x, scale, dtype=self.dtype)
        # The sum of 512 squares overflows in half precision.
        squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(squares + 1e-10).astype(x.dtype) * scale.reshape(1, 1, 1, -1)


class MultiBox(nn.Module):
    """Reads boxes and scores from maps by convolutions 3x3.

    Attributes:
        layers: how layers are made.
    """

    layers: Layers

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """Maps six f32[B,hi,wi,Ci] to `boxes` f32[B,A,4] and `logits` f32[B,A,2]."""

        def head(name: str, numbers: int) -> jax.Array:
            rows = []
            for i, (seen, anchors) in enumerate(zip(maps, ANCHORS_PER_PLACE, strict=True)):
                conv = _biased(self.layers, f"{name}{i}", anchors * numbers, size=3, pad=1)
                rows.append(conv(seen).reshape(len(seen), -1, numbers))
            return jnp.concatenate(rows, axis=1).astype(jnp.float32)

        return {"boxes": head("boxes", 4), "logits": head("logits", 2)}


class SSD300(nn.Module):
    """The paper's network: VGG-16, whose linear layers became convolutions, and eight more.

    23,745,908 parameters, 30.428 G MACs, 8,732 anchors.

    Attributes:
        width: channels of the first layer; the paper's 64 gives 512 and 1024 in the middle.
        axis_name: not used, since nothing is normalised over the batch.
        dtype: compute type; the outputs are float32.
        param_dtype: storage type.
    """

    width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Looks for faces.

        Args:
            x: f32[B,300,300,3].
            train: not used.

        Returns:
            For every anchor, rows of the largest map first and those of a place side by side:
            `boxes` f32[B,A,4], offsets as in jaxbed.codecs.boxes; `logits` f32[B,A,2] of no
            face and face.

        Raises:
            ValueError: the image has another size.
        """
        _check_size(x)
        layers = layers_of(self, train=train, attention=False)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def conv(name: str, multiple: int, x: jax.Array, **geometry: int) -> jax.Array:
            return nn.relu(_biased(layers, name, self.width * multiple, **geometry)(x))

        maps = []
        for i, block in enumerate(VGG, start=1):
            for j, multiple in enumerate(block, start=1):
                x = conv(f"conv{i}_{j}", multiple, x, size=3, pad=1)
            if i == 4:
                maps.append(L2Norm(**types, name="conv4_3_norm")(x))
            if i < 5:
                # Rounded up, which at this size only the third pooling has to.
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
        x = max_pool(x, size=3, stride=1)
        x = conv("conv6", 16, x, size=3, pad=6, dilation=6)
        x = conv("conv7", 16, x)
        maps.append(x)
        maps += _smaller_maps(layers, x, self.width, SSD300_EXTRAS, first=8)
        return MultiBox(layers, name="heads")(maps)


class Residual(nn.Module):
    """Adds to what was activated already two convolutions 3x3 of it.

    Attributes:
        features: output channels.
        inner: channels between the two.
        layers: how layers are made.
        stride: 1 or 2, of the first.
        dilation: of the second.
        project: convolve the input 1x1 before the addition.
    """

    features: int
    inner: int
    layers: Layers
    stride: int = 1
    dilation: int = 1
    project: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,features], sizes rounded up."""
        conv, norm = self.layers.conv, self.layers.norm
        y = conv(self.inner, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = nn.relu(norm(name="bn2")(y))
        spread = {"padding": self.dilation, "kernel_dilation": self.dilation}
        y = conv(self.features, (3, 3), **spread, name="conv2")(y)
        if self.project:
            x = conv(self.features, (1, 1), self.stride, name="expand")(x)
        return x + y


class LightSSD(nn.Module):
    """A tenth of SSD300: a thin residual network of ten layers instead of VGG-16.

    2,660,154 parameters, 1.179 G MACs, 8,892 anchors.

    Attributes:
        width: channels of the first layer.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the outputs are float32.
        param_dtype: storage type.
    """

    width: int = 32
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Looks for faces; as SSD300, `train` as in Backbone of jaxbed.models.resnet."""
        _check_size(x)
        layers = layers_of(self, train=train, attention=False)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = self.width

        def normalised(name: str, x: jax.Array) -> jax.Array:
            return nn.relu(layers.norm(name=name)(x))

        conv1 = _biased(layers, "conv1", width, size=7, pad=3, stride=2)
        x = layers.norm(name="data_bn")(x)
        x = normalised("conv1_bn", conv1(x))
        # The first window starts at the first pixel.
        x = nn.max_pool(x, (3, 3), (2, 2), ((0, 1), (0, 1)))
        x = Residual(width, width, layers, project=False, name="layer1")(x)
        x = normalised("layer2_bn1", x)
        x = Residual(4 * width, 4 * width, layers, stride=2, name="layer2")(x)
        x = normalised("layer3_bn1", x)
        maps = [L2Norm(**types, name="layer3_norm")(x)]
        x = Residual(8 * width, 8 * width, layers, stride=2, name="layer3")(x)
        x = normalised("layer4_bn1", x)
        x = Residual(8 * width, 4 * width, layers, dilation=2, name="layer4")(x)
        x = normalised("last_bn", x)
        maps.append(x)
        maps += _smaller_maps(layers, x, width, LIGHT_EXTRAS, first=6)
        return MultiBox(layers, name="heads")(maps)


def _smaller_maps(
    layers: Layers,
    x: jax.Array,
    width: int,
    extras: tuple[tuple[int, int, int, int], ...],
    *,
    first: int,
) -> list[jax.Array]:
    """Convolves 1x1 and 3x3, again and again; returns what each pair gives."""
    maps = []
    for i, (few, many, stride, pad) in enumerate(extras, start=first):
        x = nn.relu(_biased(layers, f"conv{i}_1", few * width)(x))
        conv = _biased(layers, f"conv{i}_2", many * width, size=3, pad=pad, stride=stride)
        x = nn.relu(conv(x))
        maps.append(x)
    return maps


def _biased(
    layers: Layers,
    name: str,
    features: int,
    size: int = 1,
    pad: int = 0,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Module:
    """Makes a convolution with bias."""
    options = {"padding": pad, "kernel_dilation": dilation, "use_bias": True}
    return layers.conv(features, (size, size), stride, **options, name=name)


def _check_size(x: jax.Array) -> None:
    if x.shape[1:3] != SIZE:
        raise ValueError(f"SSD reads images of {SIZE} pixels, got {x.shape[1:3]}")
