"""The networks whose cost is measured, and one forward pass and training step of each.

Needs nothing but jax, flax, optax and numpy, which is what accelerator images have.
B batch, S the shape of one example.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxbed import losses
from jaxbed.errors import InputError
from jaxbed.models import (
    densenet,
    efd,
    infant_danger,
    preterm_pose,
    resnet,
    retinaface,
    sleep_posture,
    ssd,
)
from jaxbed.ops import forms
from jaxbed.training.state import start
from jaxbed.training.step import Devices, train_step
from jaxbed.training.task import Batch, Task

Pass = Literal["forward", "train"]


@dataclass(frozen=True)
class Bench:
    """A network and what it takes to train it.

    Attributes:
        network: makes the module, given `dtype`.
        example: shape S of one input.
        loss: (outputs, f32[B,*S]) -> f32[B].
    """

    network: Callable[..., nn.Module]
    example: tuple[int, ...]
    loss: Callable[[Any, jax.Array], jax.Array]


def mean_square(outputs: Any, x: jax.Array) -> jax.Array:
    """Makes every output matter: the loss of a part that has none of its own."""
    per_output = [losses.l2(y, jnp.zeros_like(y)) for y in jax.tree.leaves(outputs)]
    return sum(per_output)


def reconstruction(outputs: Any, x: jax.Array) -> jax.Array:
    """Compares the rebuilt map with the input, as the second stage of EFD does."""
    return losses.l2(outputs["map"], x) + 1 - losses.ssim(outputs["map"], x)


def no_maps(outputs: Any, x: jax.Array) -> jax.Array:
    """Compares the detection network's maps, pixel by pixel, with maps that show nothing."""
    logits = outputs["logits"]
    entropy = optax.sigmoid_binary_cross_entropy(logits, jnp.zeros_like(logits))
    return jnp.mean(entropy, axis=range(1, logits.ndim))


def preterm_regression(
    kind: preterm_pose.Kind,
    *,
    size: tuple[int, int] = (96, 128),
    widths: tuple[int, ...] = (64, 128, 256, 256),
) -> Bench:
    """Returns a regression network on clips of 3 frames: depth and 20 rough maps."""
    network = partial(preterm_pose.RegressionCNN, kind=kind, widths=widths, head_width=widths[-1])
    return Bench(network, (3, *size, 21), mean_square)


def _efd(size: int) -> Bench:
    return Bench(partial(efd.EFD, size=(size, size)), (size, size, 1), reconstruction)


def _encoder(size: int) -> Bench:
    return Bench(efd.Encoder, (size, size, 1), mean_square)


def _decoder(size: int) -> Bench:
    code = 2 * 128 * 16  # 2 K F with EFD's defaults
    return Bench(partial(efd.Decoder, size=(size, size)), (code,), mean_square)


def _night(network: Callable[..., nn.Module]) -> Bench:
    """Returns a network on grey images of the size of ImageNet's."""
    return Bench(network, (224, 224, 1), mean_square)


NETWORKS = {
    "efd_64": _efd(64),
    "efd_128": _efd(128),
    "efd_256": _efd(256),
    "efd_encoder_64": _encoder(64),
    "efd_encoder_256": _encoder(256),
    "efd_decoder_64": _decoder(64),
    "efd_decoder_256": _decoder(256),
    "preterm_standard": preterm_regression("standard"),
    "preterm_asymmetric": preterm_regression("asymmetric"),
    "preterm_lean": preterm_regression("lean"),
    "preterm_detection": Bench(preterm_pose.DetectionCNN, (3, 96, 128, 1), no_maps),
    "sleep_posture": _night(sleep_posture.DLModel),
    "resnet18": _night(partial(resnet.resnet18, outputs=4)),
    "resnet50": _night(partial(resnet.resnet50, outputs=4)),
    "densenet121": _night(partial(densenet.DenseNet, outputs=4)),
    "retinaface_mobilenet": Bench(retinaface.retinaface_mobilenet, (640, 640, 3), mean_square),
    "ssd300": Bench(ssd.SSD300, (*ssd.SIZE, 3), mean_square),
    "light_ssd": Bench(ssd.LightSSD, (*ssd.SIZE, 3), mean_square),
    "infant_posture": Bench(infant_danger.posture_resnet50, (224, 224, 3), mean_square),
}


def named(name: str, *, flag: str) -> Bench:
    """Returns a network by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in NETWORKS:
        raise InputError(f"{flag} names {name!r}, but there are only {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def check_batch_size(batch_size: int, *, flag: str) -> None:
    """Raises InputError if the devices cannot share a batch equally."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise InputError(
            f"{flag} is {batch_size}, which {devices} devices cannot share equally; take a "
            f"multiple of {devices}, or on a CPU fewer --cpu-devices."
        )


class Runner:
    """One pass of one network, compiled, with the arrays it works on.

    A batch is split over all devices. A training step donates its state and keeps what it
    got back, so every call is the next step.

    Attributes:
        fn: the function that is compiled.
        args: what it takes first.
        params: the network's parameters, as they were at first.
        compiled: the executable, once `compile` was called.
    """

    def __init__(
        self,
        bench: Bench,
        pass_: Pass,
        *,
        batch_size: int,
        dtype: str,
        tx: optax.GradientTransformation | None = None,
    ):
        network = bench.network(dtype=jnp.dtype(dtype))
        devices = Devices("jit")
        rng = np.random.default_rng(0)
        image = rng.random((batch_size, *bench.example), np.float32)
        variables = {"batch_stats": {}, **plausible_variables(network, image, rng)}
        self._trains = pass_ == "train"
        if self._trains:
            task = Task(_as_input, lambda out, batch: (bench.loss(out, batch["input"]), {}), dict)
            tx = tx or optax.flatten(optax.scale_by_adam())
            state = devices.put_state(start(variables, tx))
            batch = devices.put_batch({"image": image}, train=True)
            self.fn = partial(train_step, network=network, task=task, tx=tx)
            self.args = (state, batch, jax.random.key(0), np.float32(1e-3))
            self._jitted = devices.train_step(network, task, tx)
        else:
            self.fn = partial(network.apply, train=False)
            self.args = jax.device_put((variables, image), (devices.replicated, devices.split))
            self._jitted = jax.jit(
                self.fn,
                in_shardings=(devices.replicated, devices.split),
                out_shardings=devices.split,
            )
        self.params = variables["params"]
        self.compiled: jax.stages.Compiled | None = None

    def compile(self, *, lowering: str, options: dict[str, Any] | None = None) -> None:
        """Compiles with every operation that has the form `lowering` in that form."""
        with forms.forced(lowering):
            self.compiled = self._jitted.lower(*self.args).compile(compiler_options=options)

    def __call__(self) -> Any:
        """Runs it once and returns what it made."""
        result = self.compiled(*self.args)
        if self._trains:
            self.args = (result[0], *self.args[1:])
        return result


def _as_input(batch: Batch, keys: jax.Array, train: bool) -> Batch:
    return {**batch, "input": batch["image"]}


def plausible_variables(network: nn.Module, batch: np.ndarray, rng: np.random.Generator) -> Any:
    """Fills a network's variables so that activations stay of order one.

    Their values do not matter here, and the network's own initialisers take longer to compile
    than what is measured.
    """
    init = partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), batch)

    def fill(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) > 1:
            fan_in = np.prod(leaf.shape[:-1])
            return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)
        is_scale = path[-1].key in ("scale", "var")
        return np.full(leaf.shape, float(is_scale), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)
