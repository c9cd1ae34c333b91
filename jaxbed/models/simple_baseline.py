"""Simple baseline: heatmaps of joints from a residual network and three transposed convolutions.

B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, C channels, J joints.

Source: Xiao, Wu and Wei, "Simple baselines for human pose estimation and tracking", ECCV 2018,
section 2; with 101 layers and one input channel it is RESpose in Table 1 of Yu et al. (see
jaxbed.models.efd).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, Conv
from jaxbed.models.resnet import Backbone, BasicBlock, Bottleneck
from jaxbed.ops.conv2d import conv_general_dilated

_NHWC = ("NHWC", "HWIO", "NHWC")


class Double(nn.Module):
    """Doubles height and width: a transposed convolution of 4x4, stride 2, without bias.

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
        """Maps f32[B,h,w,C] to f32[B,2h,2w,features]."""
        # Every output pixel has 4 of the 16 taps.
        init = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        return double(x, kernel)


def double(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with the image spread out: zeros between its pixels and two around them.

    Output pixel 2i + p sees pixels i - 1 + p and i + p, through the taps p and p + 2. So each
    of the 2 x 2 phases of the output is a convolution of 2 x 2, which multiplies no zeros and
    whose gradients are those of an ordinary one: for f32[2,32,32,256] to 256 on a CPU, 50 ms
    where the spread out image takes 3.7 s (two cores).

    Args:
        x: f32[B,h,w,C].
        kernel: f32[4,4,C,features].

    Returns:
        f32[B,2h,2w,features].
    """
    conv = partial(conv_general_dilated, window_strides=(1, 1), dimension_numbers=_NHWC)

    def phase(p: int, q: int) -> jax.Array:
        return conv(x, kernel[p::2, q::2], padding=[(1 - p, p), (1 - q, q)])

    lines = [jnp.stack([phase(p, 0), phase(p, 1)], axis=3) for p in (0, 1)]
    batch, height, width, _ = x.shape
    return jnp.stack(lines, axis=2).reshape(batch, 2 * height, 2 * width, -1)


class SimpleBaseline(nn.Module):
    """Finds joints by enlarging the smallest features of a residual network.

    52,984,782 parameters; 11,977,883,648 MACs at 256x256 and one input channel.

    Attributes:
        joints: J.
        block: of the residual network, as in jaxbed.models.resnet.Backbone.
        depths: likewise.
        width: likewise.
        features: channels of the transposed convolutions.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the heatmaps are float32.
        param_dtype: storage type.
    """

    joints: int = 14
    block: type[BasicBlock] | type[Bottleneck] = Bottleneck
    depths: tuple[int, ...] = (3, 4, 23, 3)
    width: int = 64
    features: int = 256
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds heatmaps.

        Args:
            x: f32[B,H,W,C]; H and W are multiples of 2 ** (stages + 1), 32 by default.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `heatmaps` f32[B,h,w,J], not bounded.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        multiple = 2 ** (len(self.depths) + 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"height and width must be multiples of {multiple}, got {x.shape[1:3]}"
            )
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.axis_name, **types)
        backbone = Backbone(
            *(self.block, self.depths, self.width),
            axis_name=self.axis_name,
            name="backbone",
            **types,
        )
        *_, x = backbone(x, train=train).values()
        # One for every time that the stages after the first have halved the image.
        for i in range(1, len(self.depths)):
            x = Double(self.features, name=f"double{i}", **types)(x)
            x = nn.relu(norm(name=f"double{i}_norm")(x))
        heatmaps = Conv(self.joints, (1, 1), name="head", **types)(x)
        return {"heatmaps": heatmaps.astype(jnp.float32)}
