"""Published RetinaFace weights as variables of our networks.

They are those of the usual PyTorch version, with ResNet-50 or with MobileNet, and of its variant
with MobileNet for small devices ("edge"). The latter two have the same tensors but other
activations and anchors, so which of them a file is for must be known: `retinaface_mobilenet` in
jaxbed.models.retinaface with RETINAFACE in jaxbed.codecs.boxes, or `retinaface_edge` with
RETINAFACE_EDGE.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from jaxbed.weights.state_dict import StateDict, read_state_dict
from jaxbed.weights.torchvision import Loaded, Variables, from_torchvision, torchvision_name

# Layers that PyTorch numbers, activations included, and names that it writes otherwise.
_RENAMED = {
    "conv": "0",
    "norm": "1",
    "depthwise": "0",
    "depthwise_norm": "1",
    "pointwise": "3",
    "pointwise_norm": "4",
    "conv3x3": "conv3X3",
    "conv5x5_1": "conv5X5_1",
    "conv5x5_2": "conv5X5_2",
    "conv7x7_2": "conv7X7_2",
}
_HEADS = {"logits": "ClassHead", "boxes": "BboxHead", "landmarks": "LandmarkHead"}


def load_retinaface(path: Path, variables: Variables) -> tuple[Variables, Loaded]:
    """Reads published weights into variables; see `read_state_dict` and `from_retinaface`."""
    return from_retinaface(read_state_dict(path), variables, source=str(path))


def from_retinaface(
    tensors: Mapping[str, np.ndarray], variables: Variables, *, source: str
) -> tuple[Variables, Loaded]:
    """Gives every variable its tensor.

    Args:
        tensors: name to f32 array, convolutions OIHW.
        variables: of the network as initialised.
        source: what messages call the tensors, such as the file.

    Returns:
        Variables as host arrays, and the account, in the tensors' names.

    Raises:
        InputError: as `from_torchvision`.
    """
    theirs = {torchvision_name(path): retinaface_name(path) for path in flatten_dict(variables)}
    ours = {there: here for here, there in theirs.items()}
    given: StateDict = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("module.")
        given[ours.get(name, name)] = tensor
    new, loaded = from_torchvision(given, variables, source=source)
    taken = tuple(theirs[name] for name in loaded.taken)
    return new, dataclasses.replace(loaded, taken=taken)


def retinaface_name(path: tuple[str, ...]) -> str:
    """Names a variable as the published weights do.

    Args:
        path: collection, modules and variable, such as ("params", "ssh1", "conv3x3", "conv",
            "kernel").

    Returns:
        Such as "ssh1.conv3X3.0.weight".
    """
    return torchvision_name((path[0], *(_part(name) for name in path[1:])))


def _part(name: str) -> str:
    head = re.fullmatch(r"(logits|boxes|landmarks)_head(\d)", name)
    if head:
        return f"{_HEADS[head[1]]}.{head[2]}.conv1x1"
    return _RENAMED.get(name, name)
