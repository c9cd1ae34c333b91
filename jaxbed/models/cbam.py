"""CBAM: gates that weigh first the channels of an image, then its places.

B batch, h w height and width, C channels.

Source: Woo et al., "CBAM: convolutional block attention module", ECCV 2018, section 3.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

Layer = Callable[[jax.Array], jax.Array]

# Slim networks have less than 64 channels. One hidden unit of theirs would be dead from the
# start in every other network: what it sees of all images is positive and much alike.
_FEWEST_HIDDEN = 4


class ChannelGate(nn.Module):
    """Scales channels by sigmoid(MLP(mean) + MLP(max)), one MLP for both (equation 2).

    Attributes:
        reduction: channels per hidden unit, of which there are at least 4.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    reduction: int = 16
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        channels = x.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        pooled = jnp.stack([x.mean((1, 2)), x.max((1, 2))], axis=1)
        hidden = max(_FEWEST_HIDDEN, channels // self.reduction)
        hidden = nn.relu(dense(hidden, name="reduce")(pooled))
        gate = nn.sigmoid(dense(channels, name="expand")(hidden).sum(1))
        return x * gate[:, None, None, :]


class SpatialGate(nn.Module):
    """Scales places by sigmoid(BN(conv 7x7([max, mean] over channels))) (equation 3).

    Attributes:
        conv: makes a convolution without bias.
        norm: makes a normalisation from a name.
    """

    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        pooled = jnp.stack([x.max(-1), x.mean(-1)], axis=-1)
        gate = self.conv(1, (7, 7), padding=3, name="conv")(pooled)
        return x * nn.sigmoid(self.norm(name="bn")(gate))


class CBAM(nn.Module):
    """Applies the channel gate, then the spatial gate.

    2 C (C / 16) + C / 16 + C + 100 parameters with the default reduction: 2,284 for 128
    channels, 33,412 for 512.

    Attributes: as those of ChannelGate and SpatialGate.
    """

    conv: Callable[..., Layer]
    norm: Callable[..., Layer]
    reduction: int = 16
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = ChannelGate(self.reduction, **types, name="channel_gate")(x)
        return SpatialGate(self.conv, self.norm, name="spatial_gate")(x)
