"""RetinaFace: boxes, five landmarks and scores of faces at every place of three sizes.

B batch, H W input pixels, h w pixels of a level, C channels, A anchors: two at every place of
the levels of H/8, H/16 and H/32. What the outputs mean in pixels is jaxbed.codecs.boxes.

Source: Deng et al., "RetinaFace: single-shot multi-level face localisation in the wild", CVPR
2020, section 3, with a feature pyramid (Lin et al., CVPR 2017) and the context modules of SSH
(Najibi et al., ICCV 2017). As its published PyTorch weights have it, which differ from the paper:
three levels and two anchors at a place instead of five and three, plain convolutions instead of
deformable ones, no dense regression.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import Conv
from jaxbed.models.mobilenet import ConvNorm, MobileNet
from jaxbed.models.resnet import Backbone, Bottleneck, Layers, layers_of

MEAN_BGR = (104.0, 117.0, 123.0)
"""What the published weights have subtracted from blue, green and red."""

ANCHORS_PER_PLACE = 2

OUTPUTS = {"boxes": 4, "landmarks": 10, "logits": 2}
"""Numbers for every anchor."""


def network_input(image: jax.Array, mean_bgr: tuple[float, ...] = MEAN_BGR) -> jax.Array:
    """Exchanges red and blue and removes the mean: RGB u8[B,H,W,3] to f32[B,H,W,3]."""
    return image[..., ::-1].astype(jnp.float32) - jnp.float32(mean_bgr).reshape(1, 1, 1, 3)


class Pyramid(nn.Module):
    """Brings levels to the same channels and adds to each what the smaller ones have seen.

    Attributes:
        features: output channels.
        slope: of the activations below 0.
        layers: how layers are made.
    """

    features: int
    slope: float
    layers: Layers

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps f32[B,hi,wi,Ci], the largest first, to f32[B,hi,wi,features]."""
        conv = partial(ConvNorm, slope=self.slope, layers=self.layers)
        fused = [
            conv(self.features, 1, name=f"output{i}")(level)
            for i, level in enumerate(levels, start=1)
        ]
        for i in range(len(fused) - 1, 0, -1):
            seen = fused[i - 1] + _doubled(fused[i], fused[i - 1].shape[1:3])
            fused[i - 1] = conv(self.features, 3, name=f"merge{i}")(seen)
        return fused


def _doubled(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Repeats every pixel, without the last row or column where the larger level is odd."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


class Context(nn.Module):
    """Looks at windows of 3x3, 5x5 and 7x7 pixels, the larger ones as stacks of 3x3.

    Attributes:
        features: output channels, a multiple of 4.
        slope: of the activations below 0.
        layers: how layers are made.
    """

    features: int
    slope: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,features]."""
        quarter, slope = self.features // 4, self.slope

        def conv(name: str, features: int, slope: float | None, x: jax.Array) -> jax.Array:
            return ConvNorm(features, 3, slope, self.layers, name=name)(x)

        seen3 = conv("conv3x3", 2 * quarter, None, x)
        shared = conv("conv5x5_1", quarter, slope, x)
        seen5 = conv("conv5x5_2", quarter, None, shared)
        seen7 = conv("conv7x7_2", quarter, slope, shared)
        seen7 = conv("conv7x7_3", quarter, None, seen7)
        return nn.relu(jnp.concatenate([seen3, seen5, seen7], axis=-1))


class RetinaFace(nn.Module):
    """Detects faces: backbone, pyramid, context and three heads at each of three sizes.

    Parameters, MACs and anchors at 640x640:

        retinaface_mobilenet       426,608    0.981 G    16,800
        retinaface_edge            426,608    0.981 G    16,800
        retinaface_resnet50     27,293,600   44.265 G    16,800

    The two small ones differ in their activations and, in jaxbed.codecs.boxes, their anchors.

    Attributes:
        body: makes the backbone from `axis_name`, `dtype`, `param_dtype` and `name`; the last
            three of its features have strides 8, 16 and 32.
        features: channels of the pyramid, a multiple of 4.
        slope: of the activations below 0 in pyramid and context.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the outputs are float32.
        param_dtype: storage type.
    """

    body: Callable[..., nn.Module]
    features: int
    slope: float = 0.0
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Looks for faces.

        Args:
            x: f32[B,H,W,3], as of `network_input`.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            For every anchor, rows of the largest level first and the two of a place side by
            side: `boxes` f32[B,A,4] and `landmarks` f32[B,A,10] (x and y of the eye and, after
            the nose, the mouth's corner on the left of an upright image before those on its
            right), both offsets as in jaxbed.codecs.boxes; `logits` f32[B,A,2] of no face and
            face.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layers = layers_of(self, train=train, attention=False)
        body = self.body(axis_name=self.axis_name, **types, name="body")
        levels = list(body(x, train=train).values())[-3:]
        levels = Pyramid(self.features, self.slope, layers, name="fpn")(levels)
        levels = [
            Context(self.features, self.slope, layers, name=f"ssh{i}")(level)
            for i, level in enumerate(levels, start=1)
        ]

        def head(name: str, numbers: int) -> jax.Array:
            channels = ANCHORS_PER_PLACE * numbers
            read = [
                Conv(channels, (1, 1), **types, name=f"{name}_head{i}")(level)
                for i, level in enumerate(levels)
            ]
            rows = [level.reshape(len(x), -1, numbers) for level in read]
            return jnp.concatenate(rows, axis=1).astype(jnp.float32)

        return {name: head(name, numbers) for name, numbers in OUTPUTS.items()}


# Thin networks are published with leaky activations, the one for small devices and the thick one
# without: with them the weights for small devices find 32 of 43 faces, without them all.
retinaface_mobilenet = partial(RetinaFace, partial(MobileNet, slope=0.1), 64, slope=0.1)
retinaface_edge = partial(RetinaFace, MobileNet, 64)
retinaface_resnet50 = partial(RetinaFace, partial(Backbone, Bottleneck, (3, 4, 6, 3)), 256)
