"""RebuildNet, the decoder of EFD: from a code of keypoints to a pressure map.

Routes of four sizes exchange what they know, as in HRNet, but grow from the smallest. B batch,
H W output pixels, h w = H/4 W/4 pixels of the first route.

Source: Yu et al. (see jaxbed.models.efd), section 2.2. Differs from the published network:
batch normalisation keeps running statistics, the output is a plain convolution
(`official_head` restores the other), and parts that no output depends on are neither computed
nor, unless `hold_dead`, allocated.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, Conv, ConvTranspose2x2
from jaxbed.ops.resize import resize_bilinear

START_STRIDE = 4
"""Output pixels per pixel of the first route."""


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
            y = Conv(
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
        y = Conv(self.features, (3, 3), padding=1, dtype=self.dtype, name="conv")(y)
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
                    shrink[j, stride] = strided(name, route.shape[-1], stride, self.dtype)(route)
                if stride > 1:
                    seen.append(shrink[j, stride])
                else:
                    seen.append(resize_bilinear(route, target.shape[1:3]))
            conv = Conv(target.shape[-1], (3, 3), padding=1, dtype=self.dtype, name=f"route{i}")
            exchanged.append(conv(jnp.concatenate(seen, axis=-1)))
        return exchanged


def strided(name: str, features: int, stride: int, dtype: DTypeLike | None = None) -> nn.Conv:
    """Builds the exchange layer's convolution that shrinks a route by `stride`."""
    return Conv(features, (3, 3), strides=stride, padding=1, dtype=dtype, name=name)


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
        fourth = ExpansionLayer(self.features[3] // 2, self.dilations, self.norm, name="expand4")
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
            conv = Conv(channels, (3, 3), name=f"exchange4_route{route}")
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
        conv3x3 = partial(Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        dilations = (1, 3, 5) if self.dilation else (1,)
        h, w = (n // START_STRIDE for n in self.size)

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
