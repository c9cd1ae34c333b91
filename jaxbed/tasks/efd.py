"""What EFD optimises and measures in its two stages.

B batch, R C sensor rows and columns of the mat, H W network pixels. A batch holds `pressure`
f32[B,R,C] in [0, 1] at the mat's own resolution; enlarging it, augmentation and targets are
made on the device. Scores are computed at the mat's own resolution too: a map that was
enlarged first looks more alike.

Source: Yu et al. (see jaxbed.models.efd), sections 2.3 and 2.4, eqs. 1 and 2.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxbed import losses
from jaxbed.metrics import Average, FScore
from jaxbed.training.task import Batch, Outputs, Task


def contact_task(
    size: tuple[int, int], *, contact_threshold: float, max_shift: tuple[int, int]
) -> Task:
    """Stage 1: says for every pixel whether there is pressure.

    Args:
        size: (height, width) of the network's input and output.
        contact_threshold: scaled pressure above which a pixel is in contact, in [0, 1).
        max_shift: largest augmentation shift, (rows, columns) of the mat.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        prepared = _prepare(batch, keys, train, size=size, max_shift=max_shift)
        label = (prepared["input"][..., 0] > contact_threshold).astype(jnp.int32)
        return {**prepared, "label": label}

    def loss(outputs: Outputs, batch: Batch):
        return losses.pixel_cross_entropy(outputs["map"], batch["label"]), {}

    def metrics(outputs: Outputs, batch: Batch):
        fscore = FScore.from_model_output(
            logits=outputs["map"], label=batch["label"], mask=batch["mask"]
        )
        return {"fscore": fscore}

    return Task(prepare, loss, metrics)


def reconstruction_task(
    size: tuple[int, int], *, l2_weight: float, ssim_weight: float, max_shift: tuple[int, int]
) -> Task:
    """Stage 2: rebuilds the map.

    Args:
        size: (height, width) of the network's input and output.
        l2_weight: the paper's alpha.
        ssim_weight: the paper's beta; the loss is alpha L2 + beta (1 - SSIM).
        max_shift: largest augmentation shift, (rows, columns) of the mat.
    """

    def loss(outputs: Outputs, batch: Batch):
        l2 = losses.l2(outputs["map"], batch["input"])
        ssim = losses.ssim(outputs["map"], batch["input"])
        return l2_weight * l2 + ssim_weight * (1 - ssim), {"l2": l2, "ssim": ssim}

    def metrics(outputs: Outputs, batch: Batch):
        native = batch["pressure"]
        rebuilt = to_native(outputs["map"][..., 0], native.shape[1:])
        scores = reconstruction_scores(rebuilt, native)
        return {
            name: Average.from_model_output(values=value, mask=batch["mask"])
            for name, value in scores.items()
        }

    return Task(partial(_prepare, size=size, max_shift=max_shift), loss, metrics)


def reconstruction_scores(rebuilt: jax.Array, native: jax.Array) -> dict[str, jax.Array]:
    """Compares maps at the mat's own resolution.

    Args:
        rebuilt: f32[B,R,C].
        native: f32[B,R,C].

    Returns:
        `l1`, `l2` and `ssim`, each f32[B].
    """
    return {
        "l1": losses.l1(rebuilt, native),
        "l2": losses.l2(rebuilt, native),
        "ssim": losses.ssim(rebuilt[..., None], native[..., None]),
    }


def to_network(pressure: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Brings maps f32[B,R,C] to the network's input f32[B,H,W,1].

    Sensors are repeated where the size is a whole multiple, which loses nothing on the way
    back; otherwise they are interpolated.
    """
    _, rows, columns = pressure.shape
    height, width = size
    if height % rows == 0 and width % columns == 0:
        big = jnp.repeat(jnp.repeat(pressure, height // rows, 1), width // columns, 2)
        return big[..., None]
    return _interpolated(pressure, size)[..., None]


def to_native(image: jax.Array, native: tuple[int, int]) -> jax.Array:
    """Brings network images f32[B,H,W] back to the mat's resolution f32[B,R,C]."""
    batch, height, width = image.shape
    rows, columns = native
    if height % rows == 0 and width % columns == 0:
        blocks = image.reshape(batch, rows, height // rows, columns, width // columns)
        return jnp.mean(blocks, axis=(2, 4))
    return _interpolated(image, native)


def _interpolated(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    return jax.image.resize(image, (len(image), *size), "linear", antialias=True)


def _prepare(
    batch: Batch,
    keys: jax.Array,
    train: bool,
    *,
    size: tuple[int, int],
    max_shift: tuple[int, int],
) -> Batch:
    pressure = batch["pressure"]
    if train:
        pressure = jax.vmap(partial(augment, max_shift=max_shift))(pressure, keys)
    return {**batch, "pressure": pressure, "input": to_network(pressure, size)}


def augment(pressure: jax.Array, key: jax.Array, *, max_shift: tuple[int, int]) -> jax.Array:
    """Mirrors a map in half of the cases and shifts it by whole sensors.

    Mirroring a body is harmless here because nothing is learned about its sides.

    Args:
        pressure: f32[R,C].
        key: PRNG key.
        max_shift: largest shift, (rows, columns), either way; what leaves the mat is lost.

    Returns:
        f32[R,C].
    """
    flip_key, shift_key = jax.random.split(key)
    pressure = jnp.where(jax.random.bernoulli(flip_key), pressure[:, ::-1], pressure)
    limit = jnp.asarray(max_shift)
    start = jax.random.randint(shift_key, (2,), 0, 2 * limit + 1)
    padded = jnp.pad(pressure, [(n, n) for n in max_shift])
    return jax.lax.dynamic_slice(padded, start, pressure.shape)


def code_statistics(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Tells whether the keypoints collapsed: spread out, alike, or hardly moving.

    Args:
        outputs: the network's `heatmaps` f32[N,h,w,K], `keypoints` f32[N,K,3] and
            `keypoint_features` f32[N,K,F] on N different maps.

    Returns:
        `heatmap_entropy`, mean entropy of a heatmap over that of a uniform one, in [0, 1];
        `cells_used`, number of heatmap pixels where the mean of some keypoint's heatmap has
        its peak, at most K; `effective_rank` of the centred keypoints and features, the
        exponential of the entropy of their normalised variances along principal axes (Roy
        and Vetterli, EUSIPCO 2007).
    """
    heatmaps = outputs["heatmaps"]
    count, height, width, keypoints = heatmaps.shape
    heatmaps = heatmaps.reshape(count, height * width, keypoints)
    logs = np.log(np.maximum(heatmaps, np.finfo(np.float32).tiny))
    entropy = -np.sum(heatmaps * logs, axis=1) / np.log(height * width)

    code = [outputs[name].reshape(count, -1) for name in ("keypoints", "keypoint_features")]
    code = np.concatenate(code, axis=1).astype(np.float64)
    variance = np.linalg.svd(code - code.mean(axis=0), compute_uv=False) ** 2
    share = variance / max(variance.sum(), np.finfo(np.float64).tiny)
    rank = np.exp(-np.sum(share * np.log(np.maximum(share, 1e-300))))
    return {
        "heatmap_entropy": float(entropy.mean()),
        "cells_used": float(len(np.unique(heatmaps.mean(axis=0).argmax(axis=0)))),
        "effective_rank": float(rank),
    }
