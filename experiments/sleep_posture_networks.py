"""The networks of `python -m experiments.sleep_posture`, and what they start from."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.sleep_posture import Arm, Config
from jaxbed.data.night import POSTURES
from jaxbed.errors import InputError
from jaxbed.models.densenet import DenseNet
from jaxbed.models.resnet import resnet18, resnet34, resnet50
from jaxbed.models.sleep_posture import DLModel, PostureOnly
from jaxbed.training.state import initialise
from jaxbed.weights.state_dict import StateDict, read_state_dict
from jaxbed.weights.torchvision import Loaded, from_torchvision

_CLASSIFIERS = {
    "resnet": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "densenet": DenseNet,
}
_PUBLISHED = {
    "resnet34": "resnet34-b627a593",
    "resnet50": "resnet50-0676ba61",
    "densenet": "densenet121-a639ec97",
}
_RESNET18 = "resnet18-f37072fd"


class Weights(NamedTuple):
    """A file of published weights.

    Attributes:
        source: its path.
        tensors: in torchvision's layout.
    """

    source: str
    tensors: StateDict


def network_of(config: Config, arm: Arm, axis_name: str | None = None) -> nn.Module:
    """Builds an arm's network of the configured width."""
    settings = {
        "width": config.width,
        "axis_name": axis_name,
        "dtype": jnp.dtype(config.dtype),
    }
    if arm in _CLASSIFIERS:
        return PostureOnly(_CLASSIFIERS[arm](outputs=len(POSTURES), **settings))
    return DLModel(
        attention=arm != "multi_task",
        blanket=arm != "attention",
        postures=len(POSTURES),
        **settings,
    )


def example(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """Returns the shape of one input."""
    return jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)


def shapes_of(network: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the shapes of a network's variables; nothing is computed."""
    init = partial(network.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), example(size))


def read_weights(config: Config) -> dict[Arm, Weights]:
    """Reads the published weights that the arms start from, and sees that they fit.

    Returns:
        By arm; empty with --init random.

    Raises:
        InputError: a file is missing, damaged or of another network.
    """
    if config.init == "random":
        return {}
    read: dict[Path, Weights] = {}
    given: dict[Arm, Weights] = {}
    for arm in config.arms:
        path = _file_for(config, arm)
        if path not in read:
            read[path] = Weights(str(path), read_state_dict(path))
        given[arm] = read[path]
        shapes = shapes_of(network_of(config, arm), config.image_size)
        _loaded(given[arm], jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    return given


def initial_variables(
    network: nn.Module, size: tuple[int, int], key: jax.Array, weights: Weights | None
) -> tuple[dict[str, Any], Loaded | None]:
    """Draws a network's variables, and puts published weights where there are any.

    Returns:
        The variables, and the account of the weights.
    """
    variables = initialise(network, key, example(size))
    return _loaded(weights, variables) if weights else (variables, None)


def _loaded(weights: Weights, variables: Mapping[str, Any]) -> tuple[dict[str, Any], Loaded]:
    return from_torchvision(weights.tensors, variables, replace_head=True, source=weights.source)


def _file_for(config: Config, arm: Arm) -> Path:
    published = _PUBLISHED.get(arm, _RESNET18)
    kind = published.partition("-")[0]
    for path in config.weights:
        if path.name.startswith(kind):
            return path
    raise InputError(
        f"--init imagenet: the arm {arm} starts from {kind}, but no file in --weights has a name "
        f"that begins so; download https://download.pytorch.org/models/{published}.pth, convert "
        "it where PyTorch is installed (safetensors.torch.save_file(torch.load("
        f"'{published}.pth', weights_only=True), '{published}.safetensors')) and name it, or "
        "take --init random."
    )
