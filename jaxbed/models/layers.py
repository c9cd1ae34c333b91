"""Layers that more than one network uses.

B batch, H W height and width, C channels; all arrays are channels-last.
"""

from functools import partial

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.ops.conv2d import conv_general_dilated
from jaxbed.ops.depthwise import depthwise_conv
from jaxbed.ops.transposed_conv import conv_transpose_2x2

BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
"""Batch normalisation with the constants all four papers inherit from PyTorch, which
writes the same momentum as 0.1. Statistics are kept, so evaluation is independent of the
other images of a batch."""


Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)
"""`nn.Conv` whose kernel gradient is fast on CPU too."""


class DepthwiseConv(nn.Module):
    """Convolves every channel with a kernel of its own, padded by half a kernel.

    Attributes:
        size: kernel height and width, odd.
        stride: 1 or 2, both ways.
        blocks: of channels, computed one after the other in inference on CPU; changes no
            value. See jaxbed.ops.channel_blocks.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    size: int
    stride: int = 1
    blocks: int = 1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,ceil(H/stride),ceil(W/stride),C]."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, self.param_dtype)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        return depthwise_conv(x, kernel, stride=self.stride, blocks=self.blocks)


class ConvTranspose2x2(nn.Module):
    """Doubles height and width: every pixel becomes a 2x2 patch, linear in its channels.

    Attributes:
        features: output channels.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,H,W,C] to f32[B,2H,2W,features]."""
        # Every output pixel has one tap, so the fan-in is the number of input channels.
        init = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")
        shape = (2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv_transpose_2x2(x, kernel) + bias.reshape(1, 1, 1, -1)
