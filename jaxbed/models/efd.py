"""EFD: keypoints of a pressure map that nobody annotated.

Encoder -> Fuser -> Decoder reconstructs the map it was given through K soft-argmax
keypoints. B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, K keypoints, F pixel
features.

Source: Yu et al., "A self-supervised pressure map human keypoint detection approach:
optimizing generalization and computational efficiency across datasets", sections 2.1-2.3.
Where the text contradicts itself, this is what the authors' published network computes.
Differs from it: batch normalisation keeps running statistics, the output is a plain
convolution (`official_head` restores the other), and parts of the decoder that no output
depends on are neither computed nor, unless `hold_dead`, allocated.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, ConvTranspose2x2, DepthwiseConv
from jaxbed.ops.resize import resize_bilinear

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
        conv = partial(nn.Conv, kernel_size=(1, 1), use_bias=False, dtype=self.dtype)
        y = conv(spec.expand, name="expand")(x)
        y = spec.act(self.norm(name="expand_norm")(y))
        y = DepthwiseConv(spec.kernel, spec.stride, dtype=self.dtype, name="depthwise")(y)
        y = spec.act(self.norm(name="depthwise_norm")(y))
        y = conv(spec.out, name="project")(y)
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
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)

        y = conv(16, (3, 3), padding=1, name="stem")(x)
        y = nn.hard_swish(norm(name="stem_norm")(y))
        for i, spec in enumerate(BLOCKS):
            y = InvertedResidual(spec, norm, self.dtype, name=f"block{i}")(y)
        y = conv(self.keypoints, (1, 1), name="head")(y)
        logits = nn.hard_swish(norm(name="head_norm")(y))

        stride = (HEATMAP_STRIDE, HEATMAP_STRIDE)
        f = nn.Conv(
            self.features, stride, stride, padding=0, dtype=self.dtype, name="pixel_features"
        )(x)
        f = nn.relu(norm(name="pixel_features_norm")(f))
        return {
            # The weights of a mean over thousands of positions: float32 whatever `dtype` is.
            "heatmaps": self._normalise(logits.astype(jnp.float32)),
            "features": f.astype(jnp.float32),
            "locations": pixel_locations(x.astype(jnp.float32)),
        }

    def _normalise(self, logits: jax.Array) -> jax.Array:
        logits = self.sharpness * logits
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


class ExpansionLayer(nn.Module):
    """Doubles a route's size: parallel dilated convolutions, then a transposed one."""

    features: int
    dilations: Sequence[int]
    norm: Callable[..., nn.Module]
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,2h,2w,features]."""
        branches = []
        for d in self.dilations:
            y = nn.Conv(
                self.features,
                (3, 3),
                padding=d,
                kernel_dilation=d,
                dtype=self.dtype,
                name=f"dilated{d}",
            )(x)
            branches.append(self.norm(name=f"dilated{d}_norm")(y))
        y = nn.leaky_relu(jnp.concatenate(branches, axis=-1), 0.01)
        y = ConvTranspose2x2(self.features, dtype=self.dtype, name="up")(y)
        y = nn.leaky_relu(self.norm(name="up_norm")(y), 0.01)
        y = nn.Conv(self.features, (3, 3), padding=1, dtype=self.dtype, name="conv")(y)
        return nn.leaky_relu(self.norm(name="conv_norm")(y), 0.01)


class ExchangeLayer(nn.Module):
    """Lets every route see all routes, at its own size.

    Attributes:
        outputs: indices of the routes whose output is wanted.
    """

    outputs: Sequence[int]
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, routes: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps routes f32[B,h_i,w_i,C_i] to the wanted ones, same shapes."""
        shrink = {}  # (source route, stride) -> convolution, shared by targets of one size
        exchanged = []
        for i in self.outputs:
            target = routes[i]
            seen = []
            for j, route in enumerate(routes):
                stride = route.shape[1] // target.shape[1]
                if stride > 1 and (j, stride) not in shrink:
                    name = f"route{j}_down{stride}"
                    shrink[j, stride] = strided(name, route.shape[-1], stride, self.dtype)(
                        route
                    )
                if stride > 1:
                    seen.append(shrink[j, stride])
                else:
                    seen.append(resize_bilinear(route, target.shape[1:3]))
            conv = nn.Conv(
                target.shape[-1], (3, 3), padding=1, dtype=self.dtype, name=f"route{i}"
            )
            exchanged.append(conv(jnp.concatenate(seen, axis=-1)))
        return exchanged


def strided(name: str, features: int, stride: int, dtype: DTypeLike | None = None) -> nn.Conv:
    """Builds the exchange layer's convolution that shrinks a route by `stride`."""
    return nn.Conv(features, (3, 3), strides=stride, padding=1, dtype=dtype, name=name)


class DeadParts(nn.Module):
    """Parameters the published decoder allocates and no output depends on.

    They exist so that a published checkpoint has a place for every tensor. Called while
    initialising only; nothing of it is computed in training or evaluation.
    """

    features: Sequence[int]
    exchange: bool
    dilations: Sequence[int]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self) -> None:
        """Creates the parameters."""
        fourth = ExpansionLayer(
            self.features[3] // 2, self.dilations, self.norm, name="expand4"
        )
        fourth(jnp.zeros((1, 1, 1, self.features[3])))
        if not self.exchange:
            return
        # (route, stride) of every downsampling an exchange layer allocates, and the live ones.
        allocated = {(2, 2), (3, 2), (4, 2), (3, 4), (4, 4), (4, 8)}
        live = ({}, {(2, 2)}, {(2, 2), (3, 2), (3, 4)}, {(4, 2)})
        for n, used in enumerate(live, start=1):
            for route, stride in sorted(allocated.difference(used)):
                channels = self.features[route - 1]
                conv = strided(f"exchange{n}_route{route}_down{stride}", channels, stride)
                conv(jnp.zeros((1, stride, stride, channels)))
        every = 1 + sum(self.features)
        for route in (0, 1, 2, 4):
            channels = 1 if route == 0 else self.features[route - 1]
            conv = nn.Conv(channels, (3, 3), name=f"exchange4_route{route}")
            conv(jnp.zeros((1, 1, 1, every)))


class Decoder(nn.Module):
    """Rebuilds the map from the code (the paper's RebuildNet).

    17,309,725 parameters at 256x256 with one output channel and the defaults; with
    `official_head` and `hold_dead` the published 17,464,277 (17,464,424 with two).

    Attributes:
        size: (height, width) of the output, multiples of 32.
        outputs: output channels: 2 for contact / no contact, 1 for the map.
        features: channels of the routes at h, 2h, 4h, 8h (the paper calls the sizes
            "widths" 64, 128, 256, 512).
        dilation: False keeps one undilated branch in every expansion layer.
        exchange: False lets every route see itself only.
        normalise_code: standardise every number of the code over the batch first (no
            parameters). A soft-argmax averages over all positions, so at the start its
            outputs differ between maps by a few hundredths, and the linear layer sees them
            as constants.
        official_head: end in BN + ReLU, as the published network does.
        hold_dead: also allocate what the published network allocates and never uses.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; parameters and statistics stay float32.
    """

    size: tuple[int, int] = (256, 256)
    outputs: int = 1
    features: Sequence[int] = (64, 32, 16, 8)
    dilation: bool = True
    exchange: bool = True
    normalise_code: bool = False
    official_head: bool = False
    hold_dead: bool = False
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, code: jax.Array, *, train: bool) -> jax.Array:
        """Maps a code f32[B,D] to f32[B,H,W,outputs]: the map, or class logits."""
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        conv3x3 = partial(nn.Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        dilations = (1, 3, 5) if self.dilation else (1,)
        h, w = (n // HEATMAP_STRIDE for n in self.size)

        if self.normalise_code:
            code = norm(use_scale=False, use_bias=False, name="code_norm")(code)
        y = nn.Dense(h * w, dtype=self.dtype, name="linear")(code).reshape(-1, h, w, 1)
        y = nn.relu(norm(name="linear_norm")(y))
        z = conv3x3(self.features[0], name="conv")(y)
        routes = [y, nn.relu(norm(name="conv_norm")(z))]

        for n in (1, 2, 3):
            if self.exchange:
                every = range(len(routes))
                routes = ExchangeLayer(every, self.dtype, name=f"exchange{n}")(routes)
            expand = ExpansionLayer(
                self.features[n], dilations, norm, self.dtype, name=f"expand{n}"
            )
            routes = [*routes, expand(routes[-1])]
            routes = [
                nn.relu(
                    norm(name=f"conv{n}_route{i}_norm")(
                        conv3x3(route.shape[-1], name=f"conv{n}_route{i}")(route)
                    )
                )
                for i, route in enumerate(routes)
            ]
        if self.exchange:
            (y,) = ExchangeLayer((3,), self.dtype, name="exchange4")(routes)
        else:
            y = routes[3]

        y = nn.relu(norm(name="head_norm")(conv3x3(self.features[2], name="head")(y)))
        y = conv3x3(self.outputs, name="output")(y)
        if self.official_head:
            y = nn.relu(norm(name="output_norm")(y))
        if self.hold_dead and self.is_initializing():
            DeadParts(self.features, self.exchange, dilations, norm, name="dead")()
        return y.astype(jnp.float32)


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
