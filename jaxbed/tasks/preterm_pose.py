"""What limb pose networks optimise, and how their poses are scored.

B clips, N frames, T frames of a clip, H W height and width. A batch holds `depth_mm`
u16[B,T,H,W] and `joints_px` f32[B,T,12,2]; targets and augmentation are made on the device.

Source: Migliorelli et al. (see jaxbed.models.preterm_pose), training and evaluation.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbed import losses
from jaxbed.codecs import limbs
from jaxbed.metrics import Average
from jaxbed.training.task import Batch, Outputs, Task


def detection_task(
    *, radius_px: float, max_shift: tuple[int, int], mirror: bool, positive_weight: float = 1.0
) -> Task:
    """Binary maps under per-pixel cross-entropy.

    Args:
        radius_px: of a joint's disc.
        max_shift: largest augmentation shift in pixels, (rows, columns).
        mirror: whether half of the training clips are mirrored, sides exchanged.
        positive_weight: how much more a pixel inside a shape counts than one outside, of
            which there are a hundred times as many; 1 in the paper.
    """

    def loss(outputs: Outputs, batch: Batch):
        entropy = optax.sigmoid_binary_cross_entropy(outputs["logits"], batch["target"])
        weight = 1 + (positive_weight - 1) * batch["target"]
        return jnp.mean(weight * entropy, axis=(1, 2, 3, 4)), {}

    def metrics(outputs: Outputs, batch: Batch):
        found = (outputs["logits"] > 0).astype(jnp.float32)
        axes = (1, 2, 3, 4)
        hits = jnp.sum(found * batch["target"], axes)
        both = jnp.sum(found, axes) + jnp.sum(batch["target"], axes)
        dice = jnp.where(both > 0, 2 * hits / jnp.maximum(both, 1), 1.0)
        return {"dice": Average.from_model_output(values=dice, mask=batch["mask"])}

    prepare = partial(_prepare, radius_px=radius_px, sigma_px=None)
    return Task(partial(prepare, max_shift=max_shift, mirror=mirror), loss, metrics)


def regression_task(
    *,
    radius_px: float,
    sigma_px: float,
    max_shift: tuple[int, int],
    mirror: bool,
    positive_weight: float = 1.0,
) -> Task:
    """Gaussian maps under the squared error.

    Args:
        radius_px: of a joint's disc.
        sigma_px: standard deviation of the Gaussian in it.
        max_shift: as in detection_task.
        mirror: as in detection_task.
        positive_weight: as in detection_task.
    """

    def loss(outputs: Outputs, batch: Batch):
        inside = batch["target"] > 0
        error = jnp.square(outputs["maps"] - batch["target"])
        error = jnp.where(inside, positive_weight * error, error)
        return jnp.mean(error, axis=(1, 2, 3, 4)), {}

    def metrics(outputs: Outputs, batch: Batch):
        error = losses.l1(outputs["maps"], batch["target"])
        return {"l1": Average.from_model_output(values=error, mask=batch["mask"])}

    prepare = partial(_prepare, radius_px=radius_px, sigma_px=sigma_px)
    return Task(partial(prepare, max_shift=max_shift, mirror=mirror), loss, metrics)


def network_input(depth_mm: jax.Array) -> jax.Array:
    """Removes every image's mean: u16[B,T,H,W] to f32[B,T,H,W,1], metres."""
    depth_m = depth_mm.astype(jnp.float32) / 1e3
    return (depth_m - jnp.mean(depth_m, axis=(2, 3), keepdims=True))[..., None]


def augment(
    depth_mm: jax.Array,
    joints_px: jax.Array,
    key: jax.Array,
    *,
    max_shift: tuple[int, int],
    mirror: bool,
) -> tuple[jax.Array, jax.Array]:
    """Shifts a clip, and mirrors it in half of the cases, which exchanges left and right.

    Args:
        depth_mm: u16[T,H,W]; what a shift uncovers repeats the image's edge.
        joints_px: f32[T,12,2]; those shifted out of the image become missing in the maps.
        key: PRNG key.
        max_shift: largest shift, (rows, columns), either way.
        mirror: whether to mirror at all.

    Returns:
        The same shapes.
    """
    mirror_key, shift_key = jax.random.split(key)
    if mirror:
        width = depth_mm.shape[-1]
        other_side = joints_px.reshape(-1, 2, 2, 3, 2)[:, :, ::-1].reshape(joints_px.shape)
        turned = jnp.stack([width - 1 - other_side[..., 0], other_side[..., 1]], axis=-1)
        chosen = jax.random.bernoulli(mirror_key)
        depth_mm = jnp.where(chosen, depth_mm[..., ::-1], depth_mm)
        joints_px = jnp.where(chosen, turned, joints_px)
    limit = jnp.asarray(max_shift)
    start = jax.random.randint(shift_key, (2,), 0, 2 * limit + 1)
    padded = jnp.pad(depth_mm, ((0, 0), *((n, n) for n in max_shift)), mode="edge")
    moved = jax.lax.dynamic_slice(padded, (0, start[0], start[1]), depth_mm.shape)
    return moved, joints_px + (limit - start)[::-1].reshape(1, 1, 2)


def _prepare(
    batch: Batch,
    keys: jax.Array,
    train: bool,
    *,
    radius_px: float,
    sigma_px: float | None,
    max_shift: tuple[int, int],
    mirror: bool,
) -> Batch:
    depth_mm, joints_px = batch["depth_mm"], batch["joints_px"]
    if train:
        change = partial(augment, max_shift=max_shift, mirror=mirror)
        depth_mm, joints_px = jax.vmap(change)(depth_mm, joints_px, keys)
    size = depth_mm.shape[2:]
    target = limbs.encode(joints_px, size, radius_px=radius_px, sigma_px=sigma_px)
    return {**batch, "input": network_input(depth_mm), "target": target}


def limb_rmsd(found_px: np.ndarray, true_px: np.ndarray) -> np.ndarray:
    """Returns f32[N,4]: root mean squared distance over a limb's joints, in pixels.

    Args:
        found_px: f32[N,12,2], NaN where missing.
        true_px: f32[N,12,2], likewise.

    Returns:
        NaN where a joint of the limb is missing on either side.
    """
    squared = np.sum(np.square(found_px - true_px), axis=-1).reshape(-1, limbs.LIMBS, 3)
    return np.sqrt(squared.mean(axis=-1))


def pose_scores(
    found_px: np.ndarray, true_px: np.ndarray, *, limb_names: tuple[str, ...], near_px: float
) -> dict[str, float]:
    """Scores poses of N frames.

    Args:
        found_px: f32[N,12,2], NaN where missing.
        true_px: f32[N,12,2], NaN where missing, which then does not count.
        limb_names: of the 4 limbs.
        near_px: distance up to which a joint counts as found in `pck`.

    Returns:
        For every limb the median of `rmsd_px` over the frames where it is found, its
        interquartile range `rmsd_iqr_px` and `missing`, the share of its frames in which it
        is not found; over all limbs `rmsd_px` (median over frames and limbs), `missing`, and
        `pck`, the share of joints found within `near_px`; a missing one is not.
    """
    rmsd = limb_rmsd(found_px, true_px)
    visible = np.isfinite(true_px).all(axis=-1)
    whole = visible.reshape(-1, limbs.LIMBS, 3).all(axis=-1)
    scores = {}
    for i, name in enumerate(limb_names):
        scores |= _limb_scores(rmsd[whole[:, i], i], prefix=f"{name}/")
    scores |= _limb_scores(rmsd[whole], prefix="")
    distance = np.sqrt(np.sum(np.square(found_px - true_px), axis=-1))[visible]
    scores["pck"] = float(np.mean(distance <= near_px)) if distance.size else np.nan
    return scores


def _limb_scores(rmsd: np.ndarray, *, prefix: str) -> dict[str, float]:
    """Sums up f32[n], NaN where the limb was not found."""
    found = rmsd[np.isfinite(rmsd)]
    low, median, high = np.percentile(found, [25, 50, 75]) if found.size else [np.nan] * 3
    return {
        f"{prefix}rmsd_px": float(median),
        f"{prefix}rmsd_iqr_px": float(high - low),
        f"{prefix}missing": 1 - found.size / rmsd.size if rmsd.size else np.nan,
    }
