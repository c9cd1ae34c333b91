"""EFD: keypoints of a pressure map that nobody annotated.

Encoder -> Fuser -> Decoder reconstructs the map it was given through K soft-argmax
keypoints. B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, K keypoints, F pixel
features.

Source: Yu et al., "A self-supervised pressure map human keypoint detection approach:
optimizing generalization and computational efficiency across datasets", sections 2.1-2.3.
Where the text contradicts itself, this is what the authors' published network computes.
Differs from it: batch normalisation keeps running statistics, so that evaluation does not
depend on the other maps of a batch; see jaxbed.models.efd_decoder for the decoder.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.efd_decoder import Decoder
from jaxbed.models.layers import BatchNorm, Conv, DepthwiseConv
from jaxbed.ops.channel_blocks import blocks_in_cache
from jaxbed.ops.conv2d import conv_general_dilated
from jaxbed.ops.fusion import materialized_on_cpu

HEATMAP_STRIDE = 4
"""Input pixels per heatmap pixel."""


class BlockSpec(NamedTuple):
    """One row of the encoder's table of inverted-residual blocks."""

    kernel: int
    expand: int
    out: int
    act: Callable[[jax.Array], jax.Array]
    squeeze: bool
    stride: int


BLOCKS = (
    BlockSpec(3, 16, 16, nn.relu, True, 2),
    BlockSpec(3, 72, 24, nn.relu, False, 2),
    BlockSpec(3, 88, 24, nn.relu, False, 1),
    BlockSpec(5, 96, 40, nn.hard_swish, True, 1),
    BlockSpec(5, 240, 40, nn.hard_swish, True, 1),
    BlockSpec(5, 120, 48, nn.hard_swish, True, 1),
    BlockSpec(5, 288, 96, nn.hard_swish, True, 1),
)


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means."""

    norm: Callable[..., nn.Module]
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to the same shape."""
        channels = x.shape[-1]
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype)
        gate = jnp.mean(x, axis=(1, 2))
        gate = dense(channels // 4, name="squeeze")(gate)
        gate = nn.relu(self.norm(name="squeeze_norm")(gate))
        gate = dense(channels, name="excite")(gate)
        gate = nn.hard_sigmoid(self.norm(name="excite_norm")(gate))
        return x * gate[:, None, None, :]


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, squeeze-excite; residual when the stride is 1."""

    spec: BlockSpec
    norm: Callable[..., nn.Module]
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/stride,w/stride,out]."""
        spec = self.spec
        conv = partial(Conv, kernel_size=(1, 1), use_bias=False, dtype=self.dtype)
        y = conv(spec.expand, name="expand")(x)
        y = spec.act(self.norm(name="expand_norm")(y))
        blocks = blocks_in_cache(spec.kernel, spec.expand)
        depthwise = partial(DepthwiseConv, spec.kernel, spec.stride, blocks, dtype=self.dtype)
        y = depthwise(name="depthwise")(y)
        y = spec.act(self.norm(name="depthwise_norm")(y))
        by_block = partial(conv_general_dilated, blocks=blocks)
        y = conv(spec.out, name="project", conv_general_dilated=by_block)(y)
        y = self.norm(name="project_norm")(y)
        if spec.squeeze:
            y = SqueezeExcite(self.norm, self.dtype, name="squeeze_excite")(y)
        if spec.stride != 1:
            return y
        if x.shape[-1] != spec.out:
            x = self.norm(name="shortcut_norm")(conv(spec.out, name="shortcut")(x))
        return x + y


class Encoder(nn.Module):
    """Finds where K keypoints lie and what the map looks like everywhere.

    138,400 parameters and 557,096,256 MACs at 256x256 with the defaults.

    Attributes:
        keypoints: K.
        features: F, channels of the pixel features.
        normalisation: how a heatmap becomes weights that sum to one over its positions.
            The paper's text says sigmoid, its network computes softmax.
        sharpness: factor on the heatmap logits; above 1 the keypoints concentrate.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; parameters and statistics stay float32.
    """

    keypoints: int = 128
    features: int = 16
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    sharpness: float = 1.0
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes maps.

        Args:
            x: f32[B,H,W,1] in [0, 1]; H and W are multiples of 32.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `heatmaps` f32[B,h,w,K], each summing to 1 over its positions; `features`
            f32[B,h,w,F]; `locations` f32[B,h,w,3]: pressure max-pooled to heatmap pixels,
            row / h, column / w.

        Raises:
            ValueError: H or W is not a multiple of 32.
        """
        if x.shape[1] % 32 or x.shape[2] % 32:
            raise ValueError(f"height and width must be multiples of 32, got {x.shape[1:3]}")
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        conv = partial(Conv, use_bias=False, dtype=self.dtype)

        y = conv(16, (3, 3), padding=1, name="stem")(x)
        y = nn.hard_swish(norm(name="stem_norm")(y))
        for i, spec in enumerate(BLOCKS):
            y = InvertedResidual(spec, norm, self.dtype, name=f"block{i}")(y)
        y = conv(self.keypoints, (1, 1), name="head")(y)
        logits = nn.hard_swish(norm(name="head_norm")(y))

        stride = (HEATMAP_STRIDE, HEATMAP_STRIDE)
        f = Conv(self.features, stride, stride, padding=0, dtype=self.dtype, name="pixel_features")(
            x
        )
        f = nn.relu(norm(name="pixel_features_norm")(f))
        return {
            # The weights of a mean over thousands of positions: float32 whatever `dtype` is.
            "heatmaps": self._normalise(logits.astype(jnp.float32)),
            "features": f.astype(jnp.float32),
            "locations": pixel_locations(x.astype(jnp.float32)),
        }

    def _normalise(self, logits: jax.Array) -> jax.Array:
        logits = materialized_on_cpu(self.sharpness * logits)
        if self.normalisation == "softmax":
            return jax.nn.softmax(logits, axis=(1, 2))
        weights = jax.nn.sigmoid(logits)
        return weights / jnp.sum(weights, axis=(1, 2), keepdims=True)


def pixel_locations(x: jax.Array) -> jax.Array:
    """Stacks pressure and position of every heatmap pixel.

    Args:
        x: f32[B,H,W,1].

    Returns:
        f32[B,h,w,3]: pressure max-pooled 4x4, row / h, column / w; rows count from the head,
        columns from the left.
    """
    stride = (HEATMAP_STRIDE, HEATMAP_STRIDE)
    pressure = nn.max_pool(x, stride, stride)
    _, h, w, _ = pressure.shape
    row = jnp.broadcast_to(jnp.arange(h).reshape(1, h, 1, 1) / h, pressure.shape)
    column = jnp.broadcast_to(jnp.arange(w).reshape(1, 1, w, 1) / w, pressure.shape)
    return jnp.concatenate([pressure, row, column], axis=-1)


class Fuser(nn.Module):
    """Reads features and locations at the keypoints and joins them into one code.

    788,480 parameters with 128 keypoints of 16 features.
    """

    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, heatmaps: jax.Array, features: jax.Array, locations: jax.Array
    ) -> dict[str, jax.Array]:
        """Applies the differentiable soft-argmax.

        Args:
            heatmaps: f32[B,h,w,K].
            features: f32[B,h,w,F].
            locations: f32[B,h,w,3].

        Returns:
            `keypoints` f32[B,K,3] (pressure, row / h, column / w), `keypoint_features`
            f32[B,K,F], `code` f32[B,2KF].
        """
        # Float32 at full precision, also on a TPU: a location is a mean over thousands of
        # positions and must resolve a fraction of one.
        expect = partial(jnp.einsum, "bhwk,bhwc->bkc", precision=jax.lax.Precision.HIGHEST)
        keypoints = expect(heatmaps, locations)
        keypoint_features = expect(heatmaps, features)
        batch, k, f = keypoint_features.shape
        lifted = nn.Dense(k * f, dtype=self.dtype, name="lift")(keypoints.reshape(batch, -1))
        code = jnp.concatenate([lifted, keypoint_features.reshape(batch, -1)], axis=-1)
        return {"keypoints": keypoints, "keypoint_features": keypoint_features, "code": code}


class EFD(nn.Module):
    """Encoder, Fuser and Decoder end to end.

    Attributes: as those of Encoder and Decoder.
    """

    size: tuple[int, int] = (256, 256)
    outputs: int = 1
    keypoints: int = 128
    features: int = 16
    decoder_features: Sequence[int] = (64, 32, 16, 8)
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    sharpness: float = 1.0
    dilation: bool = True
    exchange: bool = True
    normalise_code: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    def setup(self):
        """Names the parts as the paper does."""
        self.encoder = Encoder(
            keypoints=self.keypoints,
            features=self.features,
            normalisation=self.normalisation,
            sharpness=self.sharpness,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        self.fuser = Fuser(dtype=self.dtype)
        self.decoder = Decoder(
            size=self.size,
            outputs=self.outputs,
            features=self.decoder_features,
            dilation=self.dilation,
            exchange=self.exchange,
            normalise_code=self.normalise_code,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )

    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Reconstructs maps through their keypoints.

        Args:
            image: f32[B,H,W,1] in [0, 1]; (H, W) is `size`.
            train: as in Encoder.

        Returns:
            `map` f32[B,H,W,outputs], `keypoints` f32[B,K,3], `keypoint_features` f32[B,K,F],
            `code` f32[B,2KF] and `heatmaps` f32[B,h,w,K].
        """
        encoded = self.encoder(image, train=train)
        fused = self.fuser(**encoded)
        rebuilt = self.decoder(fused["code"], train=train)
        return {"map": rebuilt, "heatmaps": encoded["heatmaps"], **fused}
