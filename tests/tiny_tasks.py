"""The tasks of all four systems, with networks small enough to compile in a second."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxbed.models.layers import BatchNorm, Conv
from jaxbed.models.preterm_pose import RegressionCNN
from jaxbed.tasks import efd, infant_danger, keypoint_posture, preterm_pose, sleep_posture
from jaxbed.training.task import Task

TX = optax.flatten(optax.trace(0.9))
"""Not Adam, which turns gradients of 1e-9 into steps as large as any."""


class System(NamedTuple):
    """A tiny network, what it is trained for and on.

    Attributes:
        network: with batch normalisation; its `axis_name` is to be set.
        task: of the real system.
        arrays: of 24 examples.
        example: shape of one input.
    """

    network: nn.Module
    task: Task
    arrays: dict[str, np.ndarray]
    example: tuple[int, ...]


class Maps(nn.Module):
    """Makes a map of a map."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = Conv(4, (3, 3), padding=1, use_bias=False)(x)
        x = nn.relu(BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x))
        return {"map": nn.sigmoid(Conv(1, (3, 3), padding=1)(x))}


class Names(nn.Module):
    """Names what an image shows, in several ways."""

    heads: tuple[tuple[str, int], ...]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = Conv(4, (3, 3), padding=1, strides=(2, 2), use_bias=False)(x)
        x = nn.relu(BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x))
        x = x.mean(axis=(1, 2))
        named = {name: nn.Dense(max(size, 1), name=name)(x) for name, size in self.heads}
        return {name: named[name] if size else named[name][:, 0] for name, size in self.heads}


def systems() -> dict[str, System]:
    """Builds every system, its examples always the same."""
    rng = np.random.default_rng(0)
    count, size = 24, (16, 16)
    pressure = rng.random((count, *size)).astype(np.float32)
    image = rng.integers(0, 256, (count, 20, 24, 3), np.uint8)
    label = rng.integers(0, 3, count).astype(np.int32)
    night = {
        "image": image[..., 0],
        "posture": rng.integers(0, 4, count).astype(np.int32),
        "blanket": rng.integers(-1, 2, count).astype(np.int32),
        "blanket_weight": np.full(count, 0.5, np.float32),
    }
    clip = {
        "depth_mm": rng.integers(500, 900, (count, 3, *size)).astype(np.uint16),
        "joints_px": rng.uniform(3, 12, (count, 3, 12, 2)).astype(np.float32),
    }
    crib = {
        "image": image,
        "box_px": np.tile(np.float32([4, 3, 18, 15]), (count, 1)),
        "label": label,
    }
    names = {name: i for i, name in enumerate(("supine", "prone", "left", "right"))}
    return {
        "efd": System(
            Maps(),
            efd.reconstruction_task(size, l2_weight=1, ssim_weight=0.1, max_shift=(2, 2)),
            {"pressure": pressure},
            (*size, 1),
        ),
        "sleep_posture": System(
            Names((("posture", 4), ("blanket", 0))),
            sleep_posture.posture_task(size, min_scale=0.8, flips="both", classes=names),
            night,
            (*size, 1),
        ),
        "preterm_pose": System(
            RegressionCNN("asymmetric", (4,), 4),
            preterm_pose.regression_task(radius_px=3, sigma_px=1, max_shift=(2, 2), mirror=True),
            clip,
            (3, *size, 1),
        ),
        "infant_danger": System(
            Names((("logits", 3),)),
            infant_danger.classification_task(
                size,
                ("clear", "covered", "pacifier"),
                network_input=lambda crop: crop / 255,
                margin=0.1,
                augmentation=infant_danger.FACE,
            ),
            crib,
            (*size, 3),
        ),
        "keypoint_posture": System(
            Names((("logits", 3),)),
            keypoint_posture.maps_task(
                size, keypoint_posture.Jitter(), pitch_mm=50, mirrored_label=(0, 2, 1)
            ),
            {"pressure": pressure, "label": label},
            (*size, 1),
        ),
    }


def variables(system: System) -> dict:
    """Fills the network's variables with numbers that do not depend on JAX."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(
        lambda x: system.network.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, *system.example), jnp.float32),
    )

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(leaf.size)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
