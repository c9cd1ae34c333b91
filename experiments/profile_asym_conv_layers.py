"""The layers of the regression networks one by one: what each computes, moves and takes at least.

B clips, T frames, H W height and width, Ci and Co channels. A layer is a convolution and what
follows it: its bias and, for most, batch normalisation and ReLU.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.bench_networks import Pass
from jaxbed.efficiency.ceilings import Ceilings, time_bound
from jaxbed.efficiency.count import count
from jaxbed.models.layers import BatchNorm
from jaxbed.models.preterm_pose import Kind, stage_layers
from jaxbed.ops.conv3d import conv3d

FRAMES, INPUTS, MAPS = 3, 21, 20

# Bytes of a parameter, which is stored in float32 whatever is computed in.
_STORED = 4


class Layer(NamedTuple):
    """One convolution and what follows it.

    Attributes:
        name: of the module, below the network.
        kernel: taps in frames, height and width.
        inputs: channels Ci.
        outputs: channels Co.
        normalised: whether batch normalisation and ReLU follow.
        first: whether it reads the network's input, whose gradient nobody asks for.
    """

    name: str
    kernel: tuple[int, int, int]
    inputs: int
    outputs: int
    normalised: bool
    first: bool

    @property
    def weights(self) -> int:
        """Elements of the kernel."""
        return math.prod(self.kernel) * self.inputs * self.outputs

    @property
    def params(self) -> int:
        """Kernel, bias, and scale and shift of the normalisation."""
        return self.weights + self.outputs * (3 if self.normalised else 1)


@dataclass(frozen=True)
class Work:
    """What a layer has to do in one call.

    Attributes:
        macs_nominal: every kernel tap.
        macs_exact: taps on padding left out.
        conv_bytes: that the convolution has to move: in the forward pass it reads input and
            kernel and writes the output; in the backward pass it reads input, kernel and the
            output's gradient and writes the gradients of input and kernel.
        norm_bytes: that normalisation and ReLU move when they are not fused with the
            convolutions beside them. Prediction reads and writes the output once. Training
            reads it for the statistics, then reads and writes it; backward it reads output
            and gradient for two sums, then reads both and writes the gradient.
    """

    macs_nominal: int
    macs_exact: int
    conv_bytes: int
    norm_bytes: int

    @property
    def intensity(self) -> float:
        """Exact FLOPs of the convolution per byte it has to move."""
        return 2 * self.macs_exact / self.conv_bytes

    def least_ms(
        self, limits: Ceilings, dtype: str, *, fused: bool, nominal: bool = False
    ) -> float:
        """Returns the time that no program, one layer after the other, can go below.

        Args:
            limits: the machine's ceilings.
            dtype: computed in.
            fused: whether normalisation and ReLU move nothing of their own.
            nominal: whether taps on padding are computed too, as kernels of GPUs do.
        """
        macs = self.macs_nominal if nominal else self.macs_exact
        ceiling = {"flop_per_s": limits.flop_per_s[dtype], "bytes_per_s": limits.bytes_per_s}
        conv = time_bound(2 * macs, self.conv_bytes, **ceiling)
        norm = time_bound(0, 0 if fused else self.norm_bytes, **ceiling)
        return conv.ms + norm.ms


def network_layers(kind: Kind, widths: Iterable[int]) -> list[Layer]:
    """Lists the layers of RegressionCNN in their order.

    Args:
        kind: of the network.
        widths: channels of its stages; the last is that of its head too.
    """
    layers: list[Layer] = []
    ends = [INPUTS, *widths]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(ends), start=1):
        for spec in stage_layers(kind, outputs):
            name = f"stage{number}/{spec.name}"
            layers.append(
                Layer(name, spec.kernel, inputs, spec.out, spec.normalise, first=not layers)
            )
            inputs = spec.out
    head = Layer("head", (1, 1, 1), ends[-1], ends[-1], normalised=True, first=False)
    output = Layer("output", (1, 1, 1), ends[-1], MAPS, normalised=False, first=False)
    return [*layers, head, output]


def work_of(layer: Layer, pass_: Pass, clips: tuple[int, int, int, int], dtype: str) -> Work:
    """Counts what a layer has to do.

    Args:
        layer: which.
        pass_: "forward", or "train" for forward and backward.
        clips: B, T, H, W.
        dtype: of the activations.
    """
    x, kernel, g = (
        jax.ShapeDtypeStruct(shape, jnp.dtype(of))
        for shape, of in zip(conv_shapes(layer, clips), (dtype, "float32", dtype), strict=True)
    )
    arguments = (x, kernel) if pass_ == "forward" else (x, kernel, g)
    macs = count(convolution(layer, pass_), *arguments)
    element = jnp.dtype(dtype).itemsize
    read, written = x.size * element, g.size * element
    stored = _STORED * layer.weights
    conv_bytes = read + stored + written
    if pass_ == "train":
        conv_bytes += read + written + stored
        conv_bytes += 0 if layer.first else read + stored
    times_moved = 0 if not layer.normalised else 2 if pass_ == "forward" else 8
    return Work(macs.macs_nominal, macs.macs_exact, conv_bytes, times_moved * written)


def conv_shapes(layer: Layer, clips: tuple[int, int, int, int]) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of input, kernel and output."""
    return (
        (*clips, layer.inputs),
        (*layer.kernel, layer.inputs, layer.outputs),
        (*clips, layer.outputs),
    )


def convolution(layer: Layer, pass_: Pass) -> Callable[..., Any]:
    """Returns the layer's convolution alone.

    Returns:
        (x f[B,T,H,W,Ci], kernel f32[...,Ci,Co]) -> f[B,T,H,W,Co]; in training a third argument
        is the gradient of that, and the gradients of kernel and, but for the first layer, x
        are returned too.
    """

    def forward(x, kernel):
        return conv3d(x, kernel.astype(x.dtype))

    def train(x, kernel, g):
        if layer.first:
            y, backward = jax.vjp(lambda kernel: forward(x, kernel), kernel)
        else:
            y, backward = jax.vjp(forward, x, kernel)
        return y, backward(g)

    return forward if pass_ == "forward" else train


def epilogue(layer: Layer, pass_: Pass) -> Callable[..., Any]:
    """Returns what follows the layer's convolution: bias, normalisation and ReLU.

    Returns:
        (y f[B,T,H,W,Co], variables) -> f[B,T,H,W,Co], with the variables of
        `epilogue_variables`; in training a third argument is the gradient of that, and the
        gradients of y (unless it is g itself) and of the parameters are returned too.
    """
    trains = pass_ == "train"

    def forward(y, params, stats):
        y = y + params["bias"].astype(y.dtype).reshape(1, 1, 1, 1, -1)
        if not layer.normalised:
            return y, stats
        norm = BatchNorm(use_running_average=not trains, dtype=y.dtype)
        variables = {"params": params["norm"], "batch_stats": stats}
        y, updates = norm.apply(variables, y, mutable=["batch_stats"])
        return nn.relu(y), updates["batch_stats"]

    def train(y, variables, g):
        params, stats = variables
        if layer.normalised:
            z, backward, stats = jax.vjp(
                lambda y, params: forward(y, params, stats), y, params, has_aux=True
            )
        else:
            z, backward, stats = jax.vjp(
                lambda params: forward(y, params, stats), params, has_aux=True
            )
        return z, stats, backward(g)

    return train if trains else lambda y, variables: forward(y, *variables)[0]


def epilogue_variables(layer: Layer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters and the running statistics of what follows a convolution."""
    zeros, ones = np.zeros(layer.outputs, np.float32), np.ones(layer.outputs, np.float32)
    if not layer.normalised:
        return {"bias": zeros}, {}
    norm = {"scale": ones, "bias": zeros}
    return {"bias": zeros, "norm": norm}, {"mean": zeros, "var": ones}
