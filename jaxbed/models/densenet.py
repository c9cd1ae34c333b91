"""DenseNet-121: every layer of a block reads what all layers before it found.

B batch, H W input pixels, h w pixels of a block, C channels.

Source: Huang et al., "Densely connected convolutional networks", CVPR 2017 (DenseNet-BC), as
the published ImageNet weights of torchvision compute it. Modules have the names of those
weights, see jaxbed.weights.torchvision.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, Conv
from jaxbed.ops.pooling import max_pool

Layer = Callable[[jax.Array], jax.Array]

# As torchvision, which draws these convolutions by fan-in where its ResNets take fan-out.
HE_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class DenseLayer(nn.Module):
    """Appends `growth` new channels to those it reads.

    Attributes:
        growth: new channels; the 1x1 convolution before them has four times as many.
        conv: makes a convolution without bias and padding.
        norm: makes a normalisation from a name.
    """

    growth: int
    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,C+growth]."""
        y = nn.relu(self.norm(name="norm1")(x))
        y = self.conv(4 * self.growth, (1, 1), name="conv1")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(self.growth, (3, 3), padding=1, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class DenseBlock(nn.Module):
    """Applies dense layers one after the other.

    Attributes:
        depth: number of layers.
        The others are as those of DenseLayer.
    """

    depth: int
    growth: int
    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,C+depth*growth]."""
        for i in range(1, self.depth + 1):
            x = DenseLayer(self.growth, self.conv, self.norm, name=f"denselayer{i}")(x)
        return x


class Transition(nn.Module):
    """Halves channels, height and width.

    Attributes: as those of DenseLayer.
    """

    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h//2,w//2,C//2]."""
        y = self.conv(x.shape[-1] // 2, (1, 1), name="conv")(nn.relu(self.norm(name="norm")(x)))
        return nn.avg_pool(y, (2, 2), (2, 2))


class Features(nn.Module):
    """Shrinks the image to a 32nd: stem, dense blocks with transitions between them.

    Attributes:
        depths: layers of the blocks.
        width: channels of the stem, even.
        growth: as in DenseLayer.
        conv: as in DenseLayer.
        norm: as in DenseLayer.
    """

    depths: tuple[int, ...]
    width: int
    growth: int
    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,H/32,W/32,C']."""
        conv, norm = self.conv, self.norm
        x = nn.relu(norm(name="norm0")(conv(self.width, (7, 7), 2, padding=3, name="conv0")(x)))
        x = max_pool(x, size=3, stride=2)
        last = len(self.depths)
        for i, depth in enumerate(self.depths, start=1):
            x = DenseBlock(depth, self.growth, conv, norm, name=f"denseblock{i}")(x)
            if i < last:
                x = Transition(conv, norm, name=f"transition{i}")(x)
        return nn.relu(norm(name=f"norm{last + 1}")(x))


class DenseNet(nn.Module):
    """Classifies images: features, mean over all places, linear layer.

    With the defaults 7,978,856 parameters and 2.834 G MACs at 224x224, 3 channels and 1000
    outputs; 6,951,684 and 2.754 G with 1 channel and 4 outputs.

    Attributes:
        depths: layers of the blocks.
        outputs: classes.
        width: channels of the stem, even; each layer appends half as many.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    depths: tuple[int, ...] = (6, 12, 24, 16)
    outputs: int = 1000
    width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Classifies images.

        Args:
            x: f32[B,H,W,C].
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `logits` f32[B,outputs].

        Raises:
            ValueError: `width` is odd.
        """
        if self.width % 2:
            raise ValueError(f"width must be even, got {self.width}")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(Conv, padding=0, use_bias=False, kernel_init=HE_FAN_IN, **types)
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **types)
        growth = self.width // 2
        features = Features(self.depths, self.width, growth, conv, norm, name="features")(x)
        logits = nn.Dense(self.outputs, **types, name="classifier")(features.mean((1, 2)))
        return {"logits": logits.astype(jnp.float32)}
