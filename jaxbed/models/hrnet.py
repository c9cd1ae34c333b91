"""HRNet: heatmaps of joints from routes of several sizes that never give up the largest.

B batch, H W input pixels, h w = H/4 W/4 heatmap pixels, J joints. Route i has the size h / 2**i,
w / 2**i and Ci channels.

Source: Sun et al., "Deep high-resolution representation learning for human pose estimation",
CVPR 2019, section 3 and Fig. 1; HRNet-W32, with one input channel, is HRpose in Table 1 of Yu et
al. (see jaxbed.models.efd).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jaxbed.models.resnet import BasicBlock, Bottleneck, Layers, Stage, layers_of


class Halvings(nn.Module):
    """Convolutions 3x3 of stride 2 in a row; all but the last keep the channels.

    Attributes:
        times: how many.
        features: output channels.
        layers: how layers are made.
        relu: whether the last one, too, ends in ReLU.
    """

    times: int
    features: int
    layers: Layers
    relu: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B,h,w,C] to f32[B,h/2**times,w/2**times,features]."""
        for i in range(1, self.times + 1):
            last = i == self.times
            features = self.features if last else x.shape[-1]
            x = self.layers.conv(features, (3, 3), 2, padding=1, name=f"conv{i}")(x)
            x = self.layers.norm(name=f"bn{i}")(x)
            if self.relu or not last:
                x = nn.relu(x)
        return x


class Fusion(nn.Module):
    """Lets routes see all others: each is the sum of all, brought to its size and channels.

    Attributes:
        outputs: how many routes go on, the largest first.
        layers: how layers are made.
    """

    outputs: int
    layers: Layers

    @nn.compact
    def __call__(self, routes: list[jax.Array]) -> list[jax.Array]:
        """Maps routes f32[B,hi,wi,Ci] to the first of them, same shapes."""
        fused = []
        for i, target in enumerate(routes[: self.outputs]):
            seen = (self._seen(route, j, i, target.shape[-1]) for j, route in enumerate(routes))
            fused.append(nn.relu(sum(seen)))
        return fused

    def _seen(self, route: jax.Array, source: int, target: int, features: int) -> jax.Array:
        """Brings a route to the size and the channels of another."""
        name, factor = f"from{source}_to{target}", 2 ** (source - target)
        if source == target:
            return route
        if source < target:
            return Halvings(target - source, features, self.layers, relu=False, name=name)(route)
        y = self.layers.conv(features, (1, 1), name=name)(route)
        y = self.layers.norm(name=f"{name}_bn")(y)
        return y.repeat(factor, axis=1).repeat(factor, axis=2)


class Exchange(nn.Module):
    """Applies basic blocks to every route, then fuses the routes.

    Attributes:
        blocks: per route.
        outputs: as in Fusion.
        layers: how layers are made.
    """

    blocks: int
    outputs: int
    layers: Layers

    @nn.compact
    def __call__(self, routes: list[jax.Array]) -> list[jax.Array]:
        """Maps routes f32[B,hi,wi,Ci] to the first of them, same shapes."""
        stage = partial(Stage, BasicBlock, depth=self.blocks, stride=1, layers=self.layers)
        routes = [stage(route.shape[-1], name=f"route{i}")(route) for i, route in enumerate(routes)]
        return Fusion(self.outputs, self.layers, name="fusion")(routes)


class HRNet(nn.Module):
    """Finds joints without ever leaving the size of the heatmaps.

    28,534,862 parameters; 10,174,070,784 MACs at 256x256 and one input channel.

    Attributes:
        joints: J.
        widths: channels of the routes, the largest route first. The first stage has one route,
            every further stage one more.
        modules: exchanges in each of the further stages.
        blocks: basic blocks per route and exchange, and bottlenecks of the first stage.
        stem_width: channels of the stem and of the bottlenecks' 3x3 convolutions.
        axis_name: mapped axis over which batch statistics are shared; None under jit.
        dtype: compute type; the heatmaps are float32.
        param_dtype: storage type.
    """

    joints: int = 14
    widths: tuple[int, ...] = (32, 64, 128, 256)
    modules: tuple[int, ...] = (1, 4, 3)
    blocks: int = 4
    stem_width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Finds heatmaps.

        Args:
            x: f32[B,H,W,C]; H and W are multiples of 2 ** (routes + 1), 32 by default.
            train: normalise with the batch's own statistics and update the running ones.

        Returns:
            `heatmaps` f32[B,h,w,J], not bounded.

        Raises:
            ValueError: H or W is not such a multiple.
        """
        multiple = 2 ** (len(self.widths) + 1)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"height and width must be multiples of {multiple}, got {x.shape[1:3]}"
            )
        layers = layers_of(self, train=train, attention=False)
        for i in (1, 2):
            x = layers.conv(self.stem_width, (3, 3), 2, padding=1, name=f"stem{i}")(x)
            x = nn.relu(layers.norm(name=f"stem{i}_bn")(x))
        routes = [Stage(Bottleneck, self.stem_width, self.blocks, 1, layers, name="stage1")(x)]
        for stage, modules in enumerate(self.modules, start=2):
            routes = self._widened(routes, stage, layers)
            for module in range(1, modules + 1):
                # The heatmaps are read from the largest route alone.
                end = stage == len(self.widths) and module == modules
                name = f"stage{stage}_exchange{module}"
                routes = Exchange(self.blocks, 1 if end else stage, layers, name=name)(routes)
        head = layers.conv(self.joints, (1, 1), use_bias=True, name="head")
        return {"heatmaps": head(routes[0]).astype(jnp.float32)}

    def _widened(self, routes: list[jax.Array], stage: int, layers: Layers) -> list[jax.Array]:
        """Adds a route, made of the smallest, and gives the others their channels."""
        widened = []
        for i, (route, width) in enumerate(zip(routes, self.widths, strict=False)):
            if route.shape[-1] != width:
                name = f"stage{stage}_route{i}"
                route = layers.conv(width, (3, 3), padding=1, name=name)(route)
                route = nn.relu(layers.norm(name=f"{name}_bn")(route))
            widened.append(route)
        name = f"stage{stage}_route{len(routes)}"
        smaller = Halvings(1, self.widths[len(routes)], layers, relu=True, name=name)
        return [*widened, smaller(routes[-1])]
