"""Weights in torchvision's layout as variables of our networks, and back.

For ResNet-18 to 101, DenseNet-121 and what is built from their parts: our modules have
torchvision's names, except those listed here. Attention has the names of its authors' weights.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxbed.errors import InputError
from jaxbed.weights.state_dict import StateDict, few, read_state_dict

Variables = dict[str, Any]
"""The collections `params` and `batch_stats`."""

Shape = tuple[int, ...]

# Our modules that only hold others. The last two have the same layers, which one set of
# published weights starts in both.
_HOLDERS = {"network", "backbone", "stem", "shared", "posture", "blanket"}

_RENAMED = {
    "downsample_conv": "downsample.0",
    "downsample_bn": "downsample.1",
    "channel_gate": "ChannelGate",
    "reduce": "mlp.1",
    "expand": "mlp.3",
    "spatial_gate": "SpatialGate.spatial",
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_HEADS = ("fc", "classifier")
_STEMS = ("conv1.weight", "features.conv0.weight")
_GATES = ("ChannelGate.", "SpatialGate.")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What happened to every tensor and every variable.

    Attributes:
        taken: tensors that a variable got its values from.
        dropped: tensors not used, as expected: counters, and the head if so asked.
        fresh: variables that keep their values: attention and the head where there is none.
        summed: tensors summed over the colours.
    """

    taken: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]
    summed: tuple[str, ...]

    def __str__(self) -> str:
        grey = f", {self.summed[0]} summed over the colours" if self.summed else ""
        return (
            f"{len(self.taken)} tensors taken{grey}; dropped: {few(self.dropped)}; "
            f"not in the file: {few(self.fresh)}"
        )


def load_torchvision(
    path: Path, variables: Variables, *, replace_head: bool = False
) -> tuple[Variables, Loaded]:
    """Reads published weights into variables; see `read_state_dict` and `from_torchvision`."""
    tensors = read_state_dict(path)
    return from_torchvision(tensors, variables, replace_head=replace_head, source=str(path))


def from_torchvision(
    tensors: Mapping[str, np.ndarray],
    variables: Variables,
    *,
    replace_head: bool = False,
    source: str = "the state dict",
) -> tuple[Variables, Loaded]:
    """Puts every tensor in its place.

    Keys of old files ("norm.1" for "norm1", "module." in front) are understood. A network for
    grey images gets the sum of the stem's weights over the colours, which does to a grey image
    what the published stem does to that image in three equal channels. Attention keeps its
    values where the tensors have none.

    Args:
        tensors: name to f32 array, convolutions OIHW.
        variables: of the network as initialised, or of a part such as its backbone.
        replace_head: drop the tensors' last layer (`fc`, `classifier`); the network's own, if it
            has one, keeps its values.
        source: what messages call the tensors, such as the file.

    Returns:
        Variables as host arrays, and the account.

    Raises:
        InputError: a tensor has no place, a place no tensor, or they differ in shape; or
            values are not finite. The message lists both sides.
    """
    own = flatten_dict(variables)
    names = {path: torchvision_name(path) for path in own}
    given = {_modern(name): array for name, array in tensors.items()}
    given, summed = _greyed(given, {names[path]: own[path].shape for path in own})

    gates_given = any(map(_is_gate, given))
    fresh = {
        path: np.asarray(own[path])
        for path, name in names.items()
        if (replace_head and _is_head(name)) or (_is_gate(name) and not gates_given)
    }
    dropped = [
        name
        for name in given
        if name.endswith("num_batches_tracked") or (replace_head and _is_head(name))
    ]
    wanted = [(names[path], _outside(own[path].shape)) for path in own if path not in fresh]
    _check({name: given[name] for name in given if name not in dropped}, wanted, source)

    new = {
        path: _to_ours(given[name]).astype(own[path].dtype)
        for path, name in names.items()
        if path not in fresh
    }
    loaded = Loaded(
        taken=tuple(dict(wanted)),
        dropped=tuple(dropped),
        fresh=tuple("/".join(path) for path in fresh),
        summed=summed,
    )
    return unflatten_dict({path: (fresh | new)[path] for path in own}), loaded


def _check(given: StateDict, wanted: list[tuple[str, Shape]], source: str) -> None:
    """Raises where tensors and places differ, or values are not finite."""
    told = {
        "other shapes": [
            f"{name} {given[name].shape} for {shape}"
            for name, shape in wanted
            if name in given and given[name].shape != shape
        ],
        "missing": [f"{name} {shape}" for name, shape in wanted if name not in given],
        "without a place": [
            f"{name} {array.shape}" for name, array in given.items() if name not in dict(wanted)
        ],
    }
    if any(told.values()):
        heading = "; ".join(f"{what}: {few(which)}" for what, which in told.items() if which)
        raise InputError(
            f"{source} does not fit the network: {heading}; take the weights of this network, or "
            "replace the head if only fc or classifier differs"
        )
    with np.errstate(over="ignore"):  # variables are f32: more is infinite there
        broken = [n for n, x in given.items() if not np.isfinite(x.astype(np.float32)).all()]
    if broken:
        raise InputError(
            f"{source} holds values that are not finite in {few(broken)}; expected trained weights"
        )


def _greyed(given: StateDict, shapes: dict[str, Shape]) -> tuple[StateDict, tuple[str, ...]]:
    """Sums the stem's weights over the colours where the network's stem reads one channel."""
    grey = tuple(
        name
        for name in _STEMS
        if name in given and name in shapes
        if given[name].ndim == 4 and given[name].shape[1] == 3 and shapes[name][2] == 1
    )
    with np.errstate(over="ignore", invalid="ignore"):  # refused later
        return given | {name: given[name].sum(1, np.float32, keepdims=True) for name in grey}, grey


def to_torchvision(variables: Variables) -> StateDict:
    """Returns variables as tensors in torchvision's layout, float32.

    Raises:
        ValueError: two variables have one name there, as the branches of several tasks do.
    """
    tensors = {}
    for path, own in flatten_dict(variables).items():
        name = torchvision_name(path)
        if name in tensors:
            raise ValueError(f"{name} is in more than one branch of this network")
        tensors[name] = _to_theirs(np.asarray(own, np.float32))
    return tensors


def torchvision_name(path: tuple[str, ...]) -> str:
    """Names a variable as torchvision does.

    Args:
        path: collection, modules and variable, such as ("params", "backbone", "layer1",
            "block0", "bn1", "scale").

    Returns:
        Such as "layer1.0.bn1.weight".
    """
    kept = [part for part in path[1:] if part not in _HOLDERS]
    return ".".join(_RENAMED.get(part, re.sub(r"^block(\d+)$", r"\1", part)) for part in kept)


def _is_head(name: str) -> bool:
    return name.split(".")[0] in _HEADS


def _is_gate(name: str) -> bool:
    return any(gate in name for gate in _GATES)


def _modern(name: str) -> str:
    name = name.removeprefix("module.")
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _outside(shape: Shape) -> Shape:
    """Returns the shape there of a variable: OIHW for HWIO, outputs before inputs."""
    return (*shape[:-3:-1], *shape[:-2])


def _to_ours(tensor: np.ndarray) -> np.ndarray:
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim))
    return np.ascontiguousarray(tensor.transpose(*axes))


def _to_theirs(array: np.ndarray) -> np.ndarray:
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim))
    return np.ascontiguousarray(array.transpose(*axes))
