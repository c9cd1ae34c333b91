"""Limb joints of preterm infants in short depth clips: detection, then regression of maps.

The detection network finds rough maps of 12 joints and 8 connections in a clip; the
regression network reads the clip together with them and refines them. B batch, T frames,
H W height and width, C channels, 20 maps; a kernel is written frames x height x width.

Source: Migliorelli et al., "Asymmetric three-dimensional convolutions for preterm infants'
pose estimation", Table I (regression), and Moccia et al., "Preterm infants' pose estimation
with spatio-temporal features", IEEE TBME 67(8), 2020 (detection).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.layers import BatchNorm, ConvTranspose2x2
from jaxbed.ops.conv3d import conv3d

Kind = Literal["standard", "asymmetric", "lean"]

Layer = Callable[[jax.Array], jax.Array]

FACTORS = {"height": (1, 3, 1), "width": (1, 1, 3), "time": (3, 1, 1)}
"""The three layers that stand for one of 3x3x3, in their order."""


class Conv3d(nn.Module):
    """Convolves over frames, height and width, stride 1, and keeps their sizes.

    Attributes:
        features: output channels.
        kernel_size: taps in frames, height and width, all odd.
        dtype: compute type; None follows the input.
        param_dtype: storage type.
    """

    features: int
    kernel_size: tuple[int, int, int]
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,T,H,W,C] to f32[B,T,H,W,features]."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv3d(x, kernel) + bias.reshape(1, 1, 1, 1, -1)


class Halve(nn.Module):
    """Halves height and width of every frame: a convolution of 1x2x2 with that stride.

    Attributes: as those of Conv3d.
    """

    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,T,H,W,C] to f32[B,T,H/2,W/2,features]."""
        batch, frames, height, width, channels = x.shape
        shape = (2, 2, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        # Windows do not overlap, so this is a matmul per window. On a CPU its gradients come
        # 1.6 to 3 times as fast as those of a convolution with a stride.
        windows = x.reshape(batch * frames, height // 2, 2, width // 2, 2, channels)
        y = jnp.einsum("nhawbi,abio->nhwo", windows, kernel)
        y = y.reshape(batch, frames, *y.shape[1:])
        return y + bias.reshape(1, 1, 1, 1, -1)


class Double(nn.Module):
    """Doubles height and width of every frame: a transposed convolution of 1x2x2.

    Attributes: as those of Conv3d.
    """

    features: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,T,H,W,C] to f32[B,T,2H,2W,features]."""
        frames = x.reshape(-1, *x.shape[2:])
        y = ConvTranspose2x2(self.features, self.dtype, self.param_dtype, name="frames")(frames)
        return y.reshape(*x.shape[:2], *y.shape[1:])


class LayerSpec(NamedTuple):
    """One convolution of a stage."""

    name: str
    kernel: tuple[int, int, int]
    out: int
    normalise: bool


def stage_layers(kind: Kind, outputs: int) -> list[LayerSpec]:
    """Lists the convolutions of a stage, which together see 3x3x3.

    Args:
        kind: "standard" is one layer of 3x3x3. "asymmetric" is the paper's 1x3x1, 1x1x3,
            3x1x1, of which the first changes the channels. "lean" (not of the paper) computes
            the first two at half of the stage's channels, and normalises only after the last:
            the three layers are then one linear map of 3x3x3, factorised.
        outputs: channels after the stage.

    Raises:
        ValueError: another kind.
    """
    if kind == "standard":
        return [LayerSpec("conv", (3, 3, 3), outputs, True)]
    if kind == "asymmetric":
        return [LayerSpec(name, kernel, outputs, True) for name, kernel in FACTORS.items()]
    if kind == "lean":
        return [
            LayerSpec("height", FACTORS["height"], outputs // 2, False),
            LayerSpec("width", FACTORS["width"], outputs // 2, False),
            LayerSpec("time", FACTORS["time"], outputs, True),
        ]
    raise ValueError(f"kind must be 'standard', 'asymmetric' or 'lean', got {kind!r}")


class Stage(nn.Module):
    """One row of Table I: convolutions that see 3x3x3, each with normalisation and ReLU.

    Attributes:
        features: output channels.
        kind: as in RegressionCNN.
        conv: makes a convolution from features, kernel_size and name.
        norm: makes a normalisation from a name.
    """

    features: int
    kind: Kind
    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,T,H,W,C] to f32[B,T,H,W,features]."""
        for spec in stage_layers(self.kind, self.features):
            x = self.conv(spec.out, spec.kernel, name=spec.name)(x)
            if spec.normalise:
                x = nn.relu(self.norm(name=f"{spec.name}_norm")(x))
        return x


class RegressionCNN(nn.Module):
    """Refines rough maps. Every output pixel sees 9x9x9 of the input.

    On a clip of 3x96x128, MACs with every tap and without the taps that fall on padding:

        standard      2,985,236 parameters    109.94 G     85.08 G
        asymmetric    1,310,612                48.05 G     44.16 G
        lean            577,012                21.14 G     19.21 G

    Attributes:
        kind: how a 3x3x3 layer is built, see `stage_layers`.
        widths: output channels of the stages.
        head_width: channels of the 1x1x1 layer before the output.
        maps: output channels.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the output is float32.
        param_dtype: storage type.
    """

    kind: Kind = "asymmetric"
    widths: tuple[int, ...] = (64, 128, 256, 256)
    head_width: int = 256
    maps: int = 20
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Regresses maps.

        Args:
            x: f32[B,T,H,W,21], depth and the 20 rough maps.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `maps` f32[B,T,H,W,maps], not bounded.
        """
        conv = partial(Conv3d, dtype=self.dtype, param_dtype=self.param_dtype)
        norm = _norm(self, train)
        for number, width in enumerate(self.widths, start=1):
            x = Stage(width, self.kind, conv, norm, name=f"stage{number}")(x)
        x = nn.relu(norm(name="head_norm")(conv(self.head_width, (1, 1, 1), name="head")(x)))
        maps = conv(self.maps, (1, 1, 1), name="output")(x)
        return {"maps": maps.astype(jnp.float32)}


class TwoBranches(nn.Module):
    """Resamples and convolves for joints and for connections apart, then merges the two.

    Attributes:
        features: channels of each branch; the merged output has twice as many.
        resample: makes the layer that halves or doubles height and width.
        conv: as in Stage.
        norm: as in Stage.
    """

    features: int
    resample: Callable[..., Layer]
    conv: Callable[..., Layer]
    norm: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,T,H,W,C] to f32[B,T,H',W',2 features]."""

        def activated(layer: Layer, x: jax.Array) -> jax.Array:
            return nn.relu(self.norm(name=f"{layer.name}_norm")(layer(x)))

        branches = []
        for branch in ("joints", "connections"):
            y = activated(self.resample(self.features, name=f"{branch}_resample"), x)
            conv = self.conv(self.features, (3, 3, 3), name=f"{branch}_conv")
            branches.append(activated(conv, y))
        merge = self.conv(2 * self.features, (1, 1, 1), name="merge")
        return activated(merge, jnp.concatenate(branches, axis=-1))


class DetectionCNN(nn.Module):
    """Finds rough maps: an encoder and a decoder of two-branch blocks, no pooling over time.

    31,530,708 parameters; 20.995 G MACs on a clip of 3x96x128, 16.514 G without the taps that
    fall on padding.

    The first paper only names it. Layers and widths are a reading that agrees with its words;
    what the encoder had at a size joins the decoder block's output of that size.

    Attributes:
        width: channels of the stem and of each branch of the first block; even.
        blocks: blocks of the encoder, and of the decoder. Each halves or doubles height and
            width, and each of the encoder has twice the channels of the one before.
        maps: output channels.
        axis_name: as in RegressionCNN.
        dtype: as in RegressionCNN.
        param_dtype: as in RegressionCNN.
    """

    width: int = 64
    blocks: int = 4
    maps: int = 20
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Detects joints and connections.

        Args:
            x: f32[B,T,H,W,1], depth; H and W are multiples of 2**blocks, 16 by default.
            train: as in RegressionCNN.

        Returns:
            `logits` f32[B,T,H,W,maps] and `maps`, their sigmoid.

        Raises:
            ValueError: H or W is not such a multiple, or `width` is odd.
        """
        multiple = 2**self.blocks
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"height and width must be multiples of {multiple}, got {x.shape[2:4]}"
            )
        if self.width % 2:
            raise ValueError(f"width must be even, got {self.width}")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv, halve, double = (partial(layer, **types) for layer in (Conv3d, Halve, Double))
        norm = _norm(self, train)

        x = nn.relu(norm(name="stem_norm")(conv(self.width, (3, 3, 3), name="stem")(x)))
        widths = [self.width * 2**block for block in range(self.blocks)]
        skips = []
        for number, width in enumerate(widths, start=1):
            skips.append(x)
            x = TwoBranches(width, halve, conv, norm, name=f"down{number}")(x)
        for number, width in enumerate(reversed(widths), start=1):
            x = TwoBranches(width // 2, double, conv, norm, name=f"up{number}")(x)
            x = jnp.concatenate([x, skips.pop()], axis=-1)
        logits = conv(self.maps, (1, 1, 1), name="output")(x).astype(jnp.float32)
        return {"logits": logits, "maps": nn.sigmoid(logits)}


def _norm(network: RegressionCNN | DetectionCNN, train: bool) -> Callable[..., Layer]:
    return partial(
        BatchNorm,
        use_running_average=not train,
        axis_name=network.axis_name,
        dtype=network.dtype,
        param_dtype=network.param_dtype,
    )
