"""What sleep posture networks optimise and measure: the posture, and beside it the blanket.

B images, h w their height and width, H W those of the network's input. A batch holds `image`
u8[B,h,w] as the camera saw it, `posture` i32[B] in the order supine, prone, left, right,
`blanket` i32[B] (1 on, 0 off, -1 not known) and `blanket_weight` f32[B]; augmentation and
standardisation are made on the device.

Source: Wang et al. (see jaxbed.models.sleep_posture), equations 3 to 6. The blanket's weight,
w1 of equation 6, comes with every image: it is then data like any other, and networks that are
trained with different weights share a program.
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxbed.metrics import Average
from jaxbed.training.task import Batch, Outputs, Task

MIRRORED = (0, 1, 3, 2)
"""What every posture is in a mirror: who lies on the left side there lies on the right."""

Flips = Literal["none", "horizontal", "vertical", "both"]
"""Which axes training images are turned over: left and right, top and bottom."""


def posture_task(
    size: tuple[int, int],
    *,
    min_scale: float,
    flips: Flips,
    classes: Mapping[str, int],
) -> Task:
    """Cross-entropy of the posture plus that of the blanket times its weight (equation 6).

    An image whose blanket is not known counts in the posture's part only, and so does every
    image for a network without the auxiliary task.

    Args:
        size: (height, width) of the network's input.
        min_scale: smallest part of the height and width that a training crop keeps, in (0, 1].
        flips: axes that half of the training images are turned over, each by itself.
        classes: index by name of the postures whose own accuracy is measured.
    """

    def loss(outputs: Outputs, batch: Batch):
        posture = optax.softmax_cross_entropy_with_integer_labels(
            outputs["posture"], batch["posture"]
        )
        if "blanket" not in outputs:
            return posture, {}
        on = (batch["blanket"] > 0).astype(jnp.float32)
        blanket = optax.sigmoid_binary_cross_entropy(outputs["blanket"], on)
        blanket = jnp.where(_known(batch), blanket, 0)
        total = posture + batch["blanket_weight"] * blanket
        return total, {"posture_loss": posture, "blanket_loss": blanket}

    def metrics(outputs: Outputs, batch: Batch):
        mask = batch["mask"]
        hit = (jnp.argmax(outputs["posture"], axis=-1) == batch["posture"]).astype(jnp.float32)
        share = {"posture": Average.from_model_output(values=hit, mask=mask)}
        for name, index in classes.items():
            of_class = mask * (batch["posture"] == index)
            share[name] = Average.from_model_output(values=hit, mask=of_class)
        if "blanket" in outputs:
            right = (outputs["blanket"] > 0) == (batch["blanket"] > 0)
            share["blanket"] = Average.from_model_output(
                values=right.astype(jnp.float32), mask=mask * _known(batch)
            )
        return share

    return Task(partial(_prepare, size=size, min_scale=min_scale, flips=flips), loss, metrics)


def augment(
    image: jax.Array,
    posture: jax.Array,
    key: jax.Array,
    *,
    size: tuple[int, int],
    min_scale: float,
    flips: Flips,
) -> tuple[jax.Array, jax.Array]:
    """Flips an image, and enlarges a random part of it to the network's size.

    Either flip alone makes a mirror image, in which left and right change places; both
    together turn the image by 180 degrees, in which they do not.

    Args:
        image: u8[h,w].
        posture: i32[].
        key: PRNG key.
        size: (H, W) of the result.
        min_scale: the part has this share of height and width, or more, up to 1.
        flips: as in posture_task.

    Returns:
        f32[H,W] and i32[].
    """
    flip_key, scale_key, place_key = jax.random.split(key, 3)
    allowed = jnp.array([flips in ("vertical", "both"), flips in ("horizontal", "both")])
    over, across = jax.random.bernoulli(flip_key, shape=(2,)) & allowed
    image = jnp.where(over, image[::-1], image)
    image = jnp.where(across, image[:, ::-1], image)
    posture = jnp.where(over ^ across, jnp.asarray(MIRRORED)[posture], posture)

    kept = jax.random.uniform(scale_key, minval=min_scale, maxval=1.0)
    whole = jnp.array(image.shape, jnp.float32)
    corner = jax.random.uniform(place_key, (2,)) * (1 - kept) * whole
    scale = jnp.array(size, jnp.float32) / (kept * whole)
    part = jax.image.scale_and_translate(
        image.astype(jnp.float32), size, (0, 1), scale, -corner * scale, "linear"
    )
    return part, posture


def resized(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Brings images u8[B,h,w] to f32[B,H,W], smoothed where they shrink."""
    image = image.astype(jnp.float32)
    if image.shape[1:] == tuple(size):
        return image
    return jax.image.resize(image, (len(image), *size), "linear", antialias=True)


def standardised(image: jax.Array) -> jax.Array:
    """Gives images f32[B,H,W] mean 0 and standard deviation 1 each; one of one grey stays flat.

    Source: equation 3, whose text divides by the variance.
    """
    away = image - jnp.mean(image, axis=(1, 2), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(away), axis=(1, 2), keepdims=True))
    return away / jnp.maximum(deviation, 0.1)  # of 256 levels: less is rounding


def _prepare(
    batch: Batch,
    keys: jax.Array,
    train: bool,
    *,
    size: tuple[int, int],
    min_scale: float,
    flips: Flips,
) -> Batch:
    image, posture = batch["image"], batch["posture"]
    if train:
        change = partial(augment, size=size, min_scale=min_scale, flips=flips)
        image, posture = jax.vmap(change)(image, posture, keys)
    else:
        image = resized(image, size)
    return {**batch, "posture": posture, "input": standardised(image)[..., None]}


def _known(batch: Batch) -> jax.Array:
    """Says which blankets are known, bool[B]."""
    return batch["blanket"] >= 0
