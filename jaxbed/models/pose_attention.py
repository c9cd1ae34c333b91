"""Pose attention: a stacked hourglass that looks where a joint may be before it says so.

B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, C channels, J joints, S stacks.

Source: Chu et al., "Multi-context attention for human pose estimation", CVPR 2017, as far as the
network in Table 1 of Yu et al. (see jaxbed.models.efd) has it: of its attention maps those of the
single joints, refined pixel by pixel and without a softmax. Differs from that network as
StackedHourglass does.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.hourglass import Layers, Residual, layers_of, stacked


class Gate(nn.Module):
    """Multiplies features by one attention map, refined in a few steps.

    Attributes:
        steps: how often the map is refined.
        layers: how layers are made.
    """

    steps: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        conv, norm = self.layers
        x = norm(name="norm")(x)
        evidence = conv(1, (3, 3), padding=1, name="evidence")(x)
        attention = evidence
        for i in range(1, self.steps + 1):
            y = norm(name=f"step{i}_norm")(attention)
            attention = evidence + nn.sigmoid(conv(1, (1, 1), name=f"step{i}")(y))
        return x * attention


class NormHead(nn.Module):
    """Reads heatmaps from normalised features.

    Attributes:
        joints: J.
        layers: how layers are made.
    """

    joints: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,J]."""
        conv, norm = self.layers
        return conv(self.joints, (1, 1), name="conv")(norm(name="norm")(x))


class AttentionHead(nn.Module):
    """Reads the heatmap of every joint through a gate of its own.

    Attributes: as those of NormHead and Gate.
    """

    joints: int
    steps: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h,w,J]."""
        heatmaps = []
        for joint in range(self.joints):
            y = Gate(self.steps, self.layers, name=f"joint{joint}_gate")(x)
            heatmaps.append(NormHead(1, self.layers, name=f"joint{joint}")(y))
        return jnp.concatenate(heatmaps, axis=-1)


class PoseAttention(nn.Module):
    """Finds joints with a row of hourglasses, the last of which attends to every joint apart.

    12,686,164 parameters, 69,632 of them dead and absent without `hold_dead`; 13,585,522,688
    MACs at 256x256 and one input channel.

    Attributes: as those of StackedHourglass, and
        steps: how often an attention map is refined.
    """

    joints: int = 14
    width: int = 256
    stacks: int = 2
    depth: int = 4
    repeats: int = 2
    steps: int = 3
    hold_dead: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds heatmaps: Args, Returns and Raises as StackedHourglass."""
        layers = layers_of(self, train=train)

        def block(features: int, *, halvings: int, name: str) -> Residual:
            return Residual(features, layers, name=name)

        plain = partial(NormHead, self.joints, layers)
        attentive = partial(AttentionHead, self.joints, self.steps, layers)
        heads = [plain] * (self.stacks - 1) + [attentive]
        return stacked(self, x, layers, block=block, heads=heads)
