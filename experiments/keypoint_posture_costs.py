"""What the six keypoint networks of Table 1 cost: counted, as the paper counts, and measured."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.bench_networks import Bench, Runner, mean_square
from experiments.keypoint_posture import Config
from experiments.keypoint_posture_networks import (
    SmallCNN,
    Variables,
    classifier_of,
    efd_of,
    find_nodes,
)
from experiments.keypoint_posture_readers import CNN
from experiments.keypoint_posture_system import System
from jaxbed import report
from jaxbed.efficiency import ceilings
from jaxbed.efficiency.clocks import compare
from jaxbed.efficiency.count import count, count_params
from jaxbed.models.efd import EFD, Encoder
from jaxbed.models.hourglass import StackedHourglass
from jaxbed.models.hrnet import HRNet
from jaxbed.models.pose_attention import PoseAttention
from jaxbed.models.pyranet import PyraNet
from jaxbed.models.simple_baseline import Double, SimpleBaseline
from jaxbed.ops import forms

SIZE = (256, 256)
ENCODER = "SPMKD encoder"
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    ENCODER: Encoder,
    "SHGlass": StackedHourglass,
    "PoseAttention": PoseAttention,
    "PyraNet": PyraNet,
    "HRpose": HRNet,
    "RESpose": SimpleBaseline,
}
_DROPPING = ("SHGlass", "PoseAttention", "PyraNet")
_THROUGHPUT_BATCH = 8
_ROUNDS = 30
_BATCH_ROUNDS = 5


class Cost(NamedTuple):
    """What one network costs.

    Attributes:
        counted: parameters and MACs.
        as_printed: operations in the paper's convention.
    """

    counted: report.ModelCost
    as_printed: int


class Speed(NamedTuple):
    """How fast something runs.

    Attributes:
        p50_ms: median of one map alone.
        p95_ms: 95th percentile.
        maps_per_s: of a batch of eight.
    """

    p50_ms: float
    p95_ms: float
    maps_per_s: float


class Costs(NamedTuple):
    """What all of them cost.

    Attributes:
        networks: counted at 256x256, by name.
        readers: the system's own parts, at the trained size.
        speeds: measured in turns; empty where only counted.
        peak_flop_per_s: of a large matrix product; 0 where nothing was measured.
    """

    networks: dict[str, Cost]
    readers: dict[str, report.ModelCost]
    speeds: dict[str, Speed]
    peak_flop_per_s: float


def measure(config: Config, system: System | None) -> Costs:
    """Counts the networks, and measures them with --costs measured."""
    networks = {name: cost_of(make(), (*SIZE, 1)) for name, make in NETWORKS.items()}
    networks |= {name: with_dropped(networks[name]) for name in _DROPPING}
    speeds, peak = {}, 0.0
    if config.costs == "measured":
        print("measuring six keypoint networks at 256x256, some minutes", file=sys.stderr)
        speeds = speeds_of(config, system)
        peak = ceilings.measure((jnp.float32,)).flop_per_s["float32"]
    return Costs(networks, _system_costs(config, system), speeds, peak)


def cost_of(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Counts one call of a network on one example."""
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    init = jax.jit(lambda x: network.init(jax.random.key(0), x, train=False))
    # The form that `count` asks for: both look at one trace.
    with forms.forced("lax"), extra_operations() as extra:
        params = jax.eval_shape(init, example)["params"]
        macs = count(init, example)
    counted = report.ModelCost(count_params(params), macs.macs_nominal, macs.macs_exact)
    return Cost(counted, macs.macs_nominal + sum(extra.values()))


@contextlib.contextmanager
def extra_operations() -> Iterator[dict[tuple[str, ...], int]]:
    """Counts what the paper's counter adds to the MACs of a network that is traced inside.

    That is four operations for every element of a batch normalisation, and for a transposed
    convolution of 4x4 and stride 2 all 16 taps at every output pixel, which has 4.

    Yields:
        Operations by path of the module.
    """
    operations = {}

    def counting(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.BatchNorm):
            operations[module.path] = 4 * math.prod(args[0].shape)
        elif context.method_name == "__call__" and isinstance(module, Double):
            operations[module.path] = 4 * (16 - 4) * math.prod(args[0].shape) * module.features
        return call(*args, **kwargs)

    with nn.intercept_methods(counting):
        yield operations


def with_dropped(cost: Cost) -> Cost:
    """Adds what the published hourglasses compute after their last stack and drop.

    Two convolutions of 1x1, from 256 features and from 14 maps to 256 channels, at 64x64.
    """
    counted, weights = cost.counted, (256 + 14) * 256
    held = dataclasses.replace(counted, params=counted.params + weights + 2 * 256)
    return Cost(held, cost.as_printed + 64 * 64 * weights)


def speeds_of(config: Config, system: System | None) -> dict[str, Speed]:
    """Measures one map and a batch through everything, in turns."""
    timed = {}
    for batch_size, rounds in ((1, _ROUNDS), (_THROUGHPUT_BATCH, _BATCH_ROUNDS)):
        variants: dict[str, Callable] = {}
        for name, make in NETWORKS.items():
            bench = Bench(lambda dtype, make=make: make(dtype=dtype), (*SIZE, 1), mean_square)
            runner = Runner(bench, "forward", batch_size=batch_size, dtype="float32")
            runner.compile(lowering="auto")
            variants[name] = runner
        variants |= _system_variants(config, system, batch_size)
        compared = compare(variants, rounds=rounds, warm_up=1)
        for name, one in compared.items():
            timed.setdefault(name, {})[batch_size] = np.array(one.timing.durations_ms)
    return {
        name: Speed(
            *np.percentile(of[1], [50, 95]).tolist(),
            1e3 * _THROUGHPUT_BATCH / float(np.median(of[_THROUGHPUT_BATCH])),
        )
        for name, of in timed.items()
    }


def _system_variants(config: Config, system: System | None, batch_size: int) -> dict[str, Callable]:
    """Returns the system from a map to a posture, at the trained size and at the paper's."""
    if system is None:
        return {}
    variants = {}
    sizes = {"": config.image_size, " 256x256": SIZE}
    for reader, variables in system.classifiers.items():
        for told, size in sizes.items():
            network = efd_of(config, config.arms[0])
            network = network.clone(size=size)
            classifier = classifier_of(reader, len(system.classes.names))
            apply = jax.jit(partial(_read, network, classifier, config.ask_mirrored))
            held = jax.device_put((system.encoder, variables))
            image = jax.device_put(
                np.random.default_rng(0).random((batch_size, *size, 1), np.float32)
            )
            variants[f"map to posture, {reader}{told}"] = partial(apply, *held, image)
    return variants


def _read(
    network: EFD,
    classifier: nn.Module,
    mirrored: bool,
    encoder: Variables,
    variables: Variables,
    image: jax.Array,
) -> jax.Array:
    image = jnp.concatenate([image, image[:, :, ::-1]]) if mirrored else image
    nodes = network.apply(encoder, image, method=find_nodes)
    return classifier.apply(variables, nodes, train=False)["logits"]


def _system_costs(config: Config, system: System | None) -> dict[str, report.ModelCost]:
    """Counts the encoder at the trained size, and the classifiers."""
    height, width = config.image_size
    costs = {f"encoder_{height}x{width}": cost_of(Encoder(), (height, width, 1)).counted}
    if system is None:
        return costs
    efd = efd_of(config, config.arms[0])
    nodes = (efd.keypoints, 3 + efd.features)
    for reader in system.classifiers:
        network = classifier_of(reader, len(system.classes.names))
        costs[reader] = cost_of(network, nodes).counted
    costs[CNN] = cost_of(SmallCNN(len(system.classes.names)), (height, width, 1)).counted
    return costs
