"""The networks of `python -m experiments.pressure_pose`, in three sizes, and what they cost."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.pressure_pose import Arm, Config, Networks
from jaxbed import report
from jaxbed.data.depth import Size
from jaxbed.efficiency.count import count, count_params
from jaxbed.models.hourglass import StackedHourglass
from jaxbed.models.hrnet import HRNet
from jaxbed.models.pose_attention import PoseAttention
from jaxbed.models.pyranet import PyraNet
from jaxbed.models.simple_baseline import SimpleBaseline

PUBLISHED_SIZE = (256, 256)

_QUIET = 0.01

NETWORKS: dict[Arm, type[nn.Module]] = {
    "shglass": StackedHourglass,
    "poseattention": PoseAttention,
    "pyranet": PyraNet,
    "hrpose": HRNet,
    "respose": SimpleBaseline,
}

_STACKED = {"width": 64, "depth": 3, "repeats": 1}
_TINY_STACKED = {"width": 8, "depth": 2, "repeats": 1}
_FIELDS: dict[Networks, dict[Arm, dict[str, Any]]] = {
    "full": {arm: {} for arm in NETWORKS},
    "slim": {
        "shglass": _STACKED,
        "poseattention": _STACKED | {"steps": 1},
        "pyranet": _STACKED | {"scales": 3, "share": 4},
        "hrpose": {
            "widths": (16, 32, 64, 128),
            "modules": (1, 1, 1),
            "blocks": 2,
            "stem_width": 16,
        },
        "respose": {"depths": (2, 2, 2, 2), "width": 16, "features": 64},
    },
    "tiny": {
        "shglass": _TINY_STACKED,
        "poseattention": _TINY_STACKED | {"steps": 1},
        "pyranet": _TINY_STACKED | {"scales": 2, "share": 2},
        "hrpose": {"widths": (4, 4, 4), "modules": (1, 1), "blocks": 1, "stem_width": 4},
        "respose": {"depths": (1, 1, 1), "width": 4, "features": 4},
    },
}


def network_of(config: Config, arm: Arm, axis_name: str | None = None) -> nn.Module:
    """Builds an arm's network of the configured size."""
    fields = _FIELDS[config.networks][arm]
    return NETWORKS[arm](axis_name=axis_name, dtype=jnp.dtype(config.dtype), **fields)


def quiet_heads(variables: dict[str, Any]) -> dict[str, Any]:
    """Shrinks the kernels of the layers that end in heatmaps, so that these begin near 0.

    As the published HRNet and SimpleBaseline begin; drawn like the other kernels, heatmaps are
    many times larger than any target, and the first hundred steps do nothing but shrink them.
    """

    def shrunk(path, leaf):
        names = [key.key for key in path]
        ends = "head" in names and names[-1] == "kernel" and "gate" not in "/".join(names)
        return _QUIET * leaf if ends else leaf

    params = jax.tree_util.tree_map_with_path(shrunk, variables["params"])
    return {**variables, "params": params}


def example(size: Size) -> jax.ShapeDtypeStruct:
    """Returns the shape of one input."""
    return jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)


def cost_of(network: nn.Module, size: Size) -> report.ModelCost:
    """Counts a network at one size of its input."""
    init = partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), example(size))
    macs = count(lambda v, x: network.apply(v, x, train=False), variables, example(size))
    params = count_params(variables["params"])
    return report.ModelCost(params, macs.macs_nominal, macs.macs_exact)


def published_cost(arm: Arm) -> report.ModelCost:
    """Counts an arm's network as published, for one map of 256x256."""
    return cost_of(NETWORKS[arm](), PUBLISHED_SIZE)


def slimmer(config: Config) -> str:
    """Tells how the networks differ from the published ones."""
    if config.networks == "full":
        return "The networks are the published ones."
    changes = []
    for arm in config.arms:
        fields = ", ".join(f"{k} {v}" for k, v in _FIELDS[config.networks][arm].items())
        changes.append(f"{arm} ({fields})")
    return "The networks are slimmer than the published ones: " + "; ".join(changes) + "."
