"""What networks that find joints on pressure maps optimise, and how they are scored.

B maps, R C rows and columns of sensors, J joints, H W input pixels, h w = H/4 W/4 heatmap pixels,
S stacks. A batch holds `pressure` f32[B,R,C] in [0, 1] and `joints_mm` f32[B,J,2], (x to the
right, y to the feet) from the outer corner of the mat's first sensor, NaN where not annotated.
Size, augmentation and targets are made on the device.

Source: targets, loss and decoding are those of Xiao, Wu and Wei, "Simple baselines for human pose
estimation and tracking", ECCV 2018, section 2; the loss of every stack is that of Newell, Yang and
Deng, "Stacked hourglass networks for human pose estimation", ECCV 2016, section 3.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from clu import metrics

from jaxbed.codecs import heatmaps
from jaxbed.metrics import Average
from jaxbed.training.task import Batch, Outputs, Task

STRIDE = 4
"""Input pixels per heatmap pixel."""

TORSO_SHARES = (0.05, 0.1, 0.2)
"""Distances of PCK, in lengths of the torso."""
HEAD_SHARE = 0.5
"""Distance of PCKh, in lengths of the head."""


class Skeleton(NamedTuple):
    """What scores and mirror images have to know of J joints.

    Attributes:
        mirror: for every joint its counterpart on the other side; the middle is its own.
        torso: pairs of joints, of which the longer distance is the length of the torso.
        head: the two joints whose distance is the length of the head.
    """

    mirror: tuple[int, ...]
    torso: tuple[tuple[int, int], ...]
    head: tuple[int, int]


def skeleton_of(names: Sequence[str]) -> Skeleton:
    """Finds the parts of a skeleton by the names of its joints.

    The torso reaches from a shoulder to the opposite hip: lying on a side brings shoulders (and
    hips) together, but neither diagonal to nothing. The head reaches from `neck` to `head_top`,
    as annotations of the Leeds Sports Pose layout have no box around it.

    Args:
        names: of the joints, with `left_shoulder`, `right_shoulder`, `left_hip`, `right_hip`,
            `neck` and `head_top` among them; those of a side begin with `left_` or `right_`.
    """
    sides = {"left": "right", "right": "left"}

    def other(name: str) -> str:
        side, _, part = name.partition("_")
        return f"{sides[side]}_{part}" if side in sides else name

    at = {name: i for i, name in enumerate(names)}
    return Skeleton(
        mirror=tuple(at[other(name)] for name in names),
        torso=tuple((at[f"{side}_shoulder"], at[f"{sides[side]}_hip"]) for side in sides),
        head=(at["neck"], at["head_top"]),
    )


class Frame(NamedTuple):
    """How a mat is shown to a network: squeezed into the input, whatever its shape.

    Attributes:
        size: (H, W) of the input.
        mat_mm: height and width of the mat.
    """

    size: tuple[int, int]
    mat_mm: tuple[float, float]

    @property
    def _mm(self) -> jax.Array:
        """f32[2], millimetres of an input pixel along x and y."""
        (height, width), (tall, broad) = self.size, self.mat_mm
        return jnp.array([broad / width, tall / height], jnp.float32)

    def to_px(self, joints_mm: jax.Array) -> jax.Array:
        """Places f32[B,J,2] on the mat in input pixels, 0 at the centre of the first."""
        return joints_mm / self._mm.reshape(1, 1, 2) - 0.5

    def to_mm(self, joints_px: jax.Array) -> jax.Array:
        """The inverse of `to_px`."""
        return (joints_px + 0.5) * self._mm.reshape(1, 1, 2)

    def on_mat(self, joints_mm: jax.Array) -> jax.Array:
        """Makes joints f32[B,J,2] that are not on the mat NaN."""
        end = jnp.array(self.mat_mm[::-1], jnp.float32).reshape(1, 1, 2)
        inside = jnp.all((joints_mm >= 0) & (joints_mm <= end), axis=-1, keepdims=True)
        return jnp.where(inside, joints_mm, jnp.nan)


class View(NamedTuple):
    """How an augmented input lies on the mat.

    A place on the mat is a share of its sides, from its upper left corner; `mirror` comes first,
    then `zoom` from the middle, then `shift`.

    Attributes:
        mirror: bool[B], whether left and right change places.
        zoom: f32[B], above 1 enlarges.
        shift: f32[B,2], (x, y) shares of the mat's sides.
    """

    mirror: jax.Array
    zoom: jax.Array
    shift: jax.Array


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training maps undergo.

    Attributes:
        mirror: mirror half of them, left and right joints exchanged.
        max_shift_mm: largest shift along either side of the mat.
        max_zoom: the logarithm of the zoom is drawn uniformly within that of this and its
            negative; 1 leaves the size alone.
    """

    mirror: bool = True
    max_shift_mm: float = 80.0
    max_zoom: float = 1.15


NO_AUGMENTATION = Augmentation(mirror=False, max_shift_mm=0.0, max_zoom=1.0)


def draw_views(keys: jax.Array, augmentation: Augmentation, frame: Frame) -> View:
    """Draws a view for each of B keys."""

    def draw(key: jax.Array) -> View:
        mirror_key, zoom_key, shift_key = jax.random.split(key, 3)
        zoom = jax.random.uniform(zoom_key, (), minval=-1.0) * jnp.log(augmentation.max_zoom)
        limit = augmentation.max_shift_mm / jnp.array(frame.mat_mm[::-1], jnp.float32)
        return View(
            mirror=jax.random.bernoulli(mirror_key) & augmentation.mirror,
            zoom=jnp.exp(zoom),
            shift=jax.random.uniform(shift_key, (2,), minval=-1.0) * limit,
        )

    return jax.vmap(draw)(keys)


def plain_views(count: int) -> View:
    """Returns the views that show B mats as they are."""
    return View(jnp.zeros(count, bool), jnp.ones(count), jnp.zeros((count, 2)))


def show(pressure: jax.Array, views: View, size: tuple[int, int]) -> jax.Array:
    """Draws maps as a network sees them; beside the mat there is no pressure.

    Interpolates linearly, and averages where the input has fewer pixels than the mat has sensors.
    Mirror, shift and zoom move rows and columns each on their own, so that two products with small
    matrices do it all, the change of size included; gathering pixels takes longer.

    Args:
        pressure: f32[B,R,C].
        views: of the B maps.
        size: (H, W).

    Returns:
        f32[B,H,W].
    """
    rows, columns = (
        _along(length, views.zoom, views.shift[:, 1 - axis], sensors)
        for axis, (length, sensors) in enumerate(zip(size, pressure.shape[1:], strict=True))
    )
    columns = jnp.where(views.mirror.reshape(-1, 1, 1), columns[:, :, ::-1], columns)
    return jnp.einsum("bhr,brc,bwc->bhw", rows, pressure, columns)


def _along(length: int, zoom: jax.Array, shift: jax.Array, sensors: int) -> jax.Array:
    """Returns f32[B,length,sensors]: the weights of a line's sensors in each of its pixels."""
    pixel = (jnp.arange(length, dtype=jnp.float32) + 0.5) / length
    zoom, shift = zoom.reshape(-1, 1), shift.reshape(-1, 1)
    seen = (pixel[None] - 0.5 - shift) / zoom + 0.5
    place = jnp.clip(seen * sensors - 0.5, 0, sensors - 1)
    reach = jnp.maximum(sensors / (length * zoom), 1.0)[..., None]
    away = jnp.abs(place[..., None] - jnp.arange(sensors, dtype=jnp.float32).reshape(1, 1, -1))
    weights = jnp.maximum(1 - away / reach, 0.0)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.where(((seen >= 0) & (seen <= 1))[..., None], weights, 0.0)


def place(joints_mm: jax.Array, views: View, frame: Frame, skeleton: Skeleton) -> jax.Array:
    """Finds joints where `show` draws them, left and right exchanged in mirrored maps.

    Args:
        joints_mm: f32[B,J,2].
        views: of the B maps.
        frame: the mat and the input.
        skeleton: who is whose counterpart.

    Returns:
        f32[B,J,2], in input pixels; NaN where a joint is missing or not on the mat.
    """
    sides = jnp.array(frame.mat_mm[::-1], jnp.float32).reshape(1, 1, 2)
    at = frame.on_mat(joints_mm) / sides
    turned = at[:, jnp.array(skeleton.mirror)] * jnp.array([[[-1.0, 1.0]]])
    turned = turned + jnp.array([[[1.0, 0.0]]])
    at = jnp.where(views.mirror.reshape(-1, 1, 1), turned, at)
    at = (at - 0.5) * views.zoom.reshape(-1, 1, 1) + 0.5 + views.shift[:, None]
    return frame.to_px(at * sides)


def pose_task(
    frame: Frame,
    skeleton: Skeleton,
    *,
    sigma_px: float,
    augmentation: Augmentation,
    positive_weight: float = 1.0,
    refine: heatmaps.Refinement = "taylor",
) -> Task:
    """Makes the task that all networks share.

    Args:
        frame: the mat and the input.
        skeleton: of the annotated joints.
        sigma_px: standard deviation of a joint's Gaussian, in heatmap pixels.
        augmentation: what training maps undergo.
        positive_weight: as in `heatmap_loss`.
        refine: how joints are read from heatmaps, as in jaxbed.codecs.heatmaps.
    """

    def prepare(batch: Batch, keys: jax.Array, train: bool) -> Batch:
        pressure = batch["pressure"]
        views = draw_views(keys, augmentation, frame) if train else plain_views(len(pressure))
        joints_px = place(batch["joints_mm"], views, frame, skeleton)
        height, width = frame.size
        size = (height // STRIDE, width // STRIDE)
        target = heatmaps.encode(joints_px, size, stride=STRIDE, sigma_px=sigma_px)
        return {
            **batch,
            "input": show(pressure, views, frame.size)[..., None],
            "joints_px": joints_px,
            "target": target.heatmaps,
            "weight": target.weights,
        }

    def loss(outputs: Outputs, batch: Batch):
        stages = stages_of(outputs)
        each = heatmap_loss(
            stages, batch["target"], batch["weight"], positive_weight=positive_weight
        )
        return jnp.sum(each, axis=1), {"last_stack": each[:, -1]}

    def measure(outputs: Outputs, batch: Batch):
        decoded = heatmaps.decode(outputs["heatmaps"], stride=STRIDE, refine=refine)
        found_mm, true_mm = frame.to_mm(decoded.joints_px), frame.to_mm(batch["joints_px"])
        error_mm = distances(found_mm, true_mm)
        counts = batch["mask"][:, None] * jnp.isfinite(error_mm)
        torso, head = torso_length(true_mm, skeleton), head_length(true_mm, skeleton)
        score = partial(PCK.from_model_output, found_mm, true_mm, mask=batch["mask"])
        return {
            "error_mm": Average.from_model_output(values=error_mm, mask=counts),
            **{pck_name(share): score(share * torso) for share in TORSO_SHARES},
            "pckh50": score(HEAD_SHARE * head),
        }

    return Task(prepare, loss, measure)


def pck_name(share: float) -> str:
    """Names the PCK at a share of the torso, such as "pck20"."""
    return f"pck{round(100 * share):02d}"


def stages_of(outputs: Outputs) -> jax.Array:
    """Returns f32[B,S,h,w,J], the heatmaps of all stacks of a network, or of its only one."""
    return outputs["stages"] if "stages" in outputs else outputs["heatmaps"][:, None]


def heatmap_loss(
    stages: jax.Array, target: jax.Array, weight: jax.Array, *, positive_weight: float = 1.0
) -> jax.Array:
    """Compares the heatmaps of every stack with the same targets.

    Args:
        stages: f32[B,S,h,w,J].
        target: f32[B,h,w,J].
        weight: f32[B,J], 0 for joints that do not count.
        positive_weight: how much more the pixel at a joint counts than one far from it, and
            those between in proportion to the target. It is 1 in the papers, whose networks
            take long to find that heatmaps are not 0 everywhere.

    Returns:
        f32[B,S]: half of the squared error, averaged over pixels and then over all joints, of
        which one that does not count adds nothing.
    """
    importance = 1 + (positive_weight - 1) * target[:, None]
    error = jnp.mean(importance * jnp.square(stages - target[:, None]), axis=(2, 3))
    return 0.5 * jnp.mean(weight[:, None] * error, axis=-1)


def distances(found: jax.Array, true: jax.Array) -> jax.Array:
    """Returns f32[B,J] between places f32[B,J,2]; NaN where either is missing."""
    return jnp.sqrt(jnp.sum(jnp.square(found - true), axis=-1))


def torso_length(joints: jax.Array, skeleton: Skeleton) -> jax.Array:
    """Returns f32[B], the longer diagonal of the torso; NaN where neither is annotated."""
    diagonals = [distances(joints[:, i : i + 1], joints[:, j : j + 1]) for i, j in skeleton.torso]
    return jnp.nanmax(jnp.concatenate(diagonals, axis=1), axis=1)


def head_length(joints: jax.Array, skeleton: Skeleton) -> jax.Array:
    """Returns f32[B], from neck to top of the head; NaN where either is not annotated."""
    neck, top = skeleton.head
    return distances(joints[:, neck : neck + 1], joints[:, top : top + 1])[:, 0]


@flax.struct.dataclass
class PCK(metrics.Metric):
    """Share of joints found no farther away than a limit ("percentage of correct keypoints").

    Attributes:
        hits: f32[J], joints found near enough.
        counts: f32[J], joints that count.
    """

    hits: jax.Array
    counts: jax.Array

    @classmethod
    def from_model_output(
        cls, found: jax.Array, true: jax.Array, limit: jax.Array, *, mask: jax.Array
    ) -> "PCK":
        """Counts joints.

        Args:
            found: f32[B,J,2]; a NaN is not found.
            true: f32[B,J,2]; a NaN does not count.
            limit: f32[B], in the unit of the places; where it is NaN or 0 no joint counts.
            mask: f32[B], 1 for real examples and 0 for padding.
        """
        counts = countable(true, limit) * mask[:, None]
        hits = counts * (distances(found, true) <= limit[:, None])
        return cls(hits=jnp.sum(hits, axis=0), counts=jnp.sum(counts, axis=0))

    def merge(self, other: "PCK") -> "PCK":
        """Adds the counts of another part of the data."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> jax.Array:
        """Returns f32[], in which every joint that counts counts once; NaN if none does."""
        return jnp.sum(self.hits) / jnp.sum(self.counts)


def countable(true: jax.Array, limit: jax.Array) -> jax.Array:
    """Returns bool[B,J]: joints f32[B,J,2] that are there, in maps with a limit f32[B] above 0."""
    return jnp.isfinite(true).all(axis=-1) & (limit > 0)[:, None]
