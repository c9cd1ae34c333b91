"""Boxes and points as offsets from anchors, and back.

A anchors, G true faces of an image, N boxes that are found, P points of a face, K candidates.
Coordinates are in pixels, (x to the right, y down), with 0 at the left and upper edge of the first
pixel. A box is (left, top, right, bottom), an anchor (x, y, width, height) with its centre at x
and y. A face or point that is missing is NaN.

Source: Liu et al., SSD (see jaxbed.models.ssd), sections 2.1 and 2.2, and Deng et al., RetinaFace
(see jaxbed.models.retinaface), section 4.2, with the sizes of the published weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
"""Offsets of places and of the logarithms of sizes are divided by these."""


class Level(NamedTuple):
    """The anchors of one feature map.

    Attributes:
        shapes_px: (width, height) of the anchors at every place.
        stride_px: image pixels per pixel of the map, whose size is rounded up.
        step_px: distance of the places; None: as far apart as the map's pixels.
    """

    shapes_px: tuple[tuple[float, float], ...]
    stride_px: int
    step_px: int | None = None


Levels = tuple[Level, ...]


def _squares(stride_px: int, *sides_px: float) -> Level:
    return Level(tuple((side, side) for side in sides_px), stride_px)


def _ssd(
    stride_px: int, side_px: int, next_px: int, ratios: tuple[int, ...], step_px: int | None = None
) -> Level:
    """A small square, one between it and the next map's, and wide and tall ones of its area."""
    shapes = [(side_px, side_px), ((side_px * next_px) ** 0.5,) * 2]
    for ratio in ratios:
        long, short = side_px * ratio**0.5, side_px / ratio**0.5
        shapes += [(long, short), (short, long)]
    return Level(tuple(shapes), stride_px, step_px)


RETINAFACE: Levels = (_squares(8, 16, 32), _squares(16, 64, 128), _squares(32, 256, 512))
"""Of the paper's authors' weights: 16,800 anchors at 640x640."""

RETINAFACE_EDGE: Levels = (_squares(8, 10, 20), _squares(16, 32, 64), _squares(32, 128, 256))
"""Of the weights published for small devices, for smaller faces: as many."""

SSD300: Levels = (
    _ssd(8, 30, 60, (2,)),
    _ssd(16, 60, 111, (2, 3)),
    _ssd(32, 111, 162, (2, 3)),
    _ssd(64, 162, 213, (2, 3)),
    _ssd(100, 213, 264, (2,)),
    _ssd(300, 264, 315, (2,)),
)
"""8,732 anchors at 300x300. They are not cut at the image's edges."""

# The last maps kept 5x5 places, but their steps became those of SSD300's 3x3 and 1x1: most of
# the 200 anchors lie beyond the image. So the network was trained.
LIGHT_SSD300: Levels = (
    *SSD300[:4],
    _ssd(64, 213, 264, (2,), step_px=100),
    _ssd(64, 264, 315, (2,), step_px=300),
)
"""8,892 anchors at 300x300, some far outside of it."""


def anchors_of(levels: Levels, size: tuple[int, int]) -> np.ndarray:
    """Lays out anchors in the order of a detector's outputs.

    Args:
        levels: of its feature maps, in their order.
        size: (height, width) of its input.

    Returns:
        f32[A,4]: level by level, row by row, place by place, shape by shape.
    """
    laid = []
    for shapes_px, stride_px, step_px in levels:
        rows, columns = (-(-length // stride_px) for length in size)
        step = step_px or stride_px
        x, y = (np.arange(columns) + 0.5) * step, (np.arange(rows) + 0.5) * step
        shape = (rows, columns, len(shapes_px))
        width, height = np.asarray(shapes_px).T
        parts = x[None, :, None], y[:, None, None], width[None, None], height[None, None]
        laid.append(np.stack([np.broadcast_to(part, shape) for part in parts], -1).reshape(-1, 4))
    return np.concatenate(laid).astype(np.float32)


def corners(anchors: Any) -> Any:
    """Returns the boxes f32[A,4] of anchors f32[A,4]."""
    centre, size = anchors[:, :2], anchors[:, 2:]
    xp = np if isinstance(anchors, np.ndarray) else jnp
    return xp.concatenate([centre - size / 2, centre + size / 2], axis=1)


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns offsets f32[A,4], a box for each anchor: of the centre, of the size's logarithm.

    Args:
        boxes: f32[A,4], of positive size.
        anchors: f32[A,4].
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    centre = ((low + high) / 2 - anchors[:, :2]) / (CENTRE_VARIANCE * anchors[:, 2:])
    size = jnp.log((high - low) / anchors[:, 2:]) / SIZE_VARIANCE
    return jnp.concatenate([centre, size], axis=1)


def decode(offsets: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns the boxes f32[A,4] of offsets f32[A,4]; undoes `encode`."""
    centre = anchors[:, :2] + CENTRE_VARIANCE * offsets[:, :2] * anchors[:, 2:]
    size = anchors[:, 2:] * jnp.exp(SIZE_VARIANCE * offsets[:, 2:])
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=1)


def encode_points(points: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns the offsets f32[A,2P] of points f32[A,P,2], those of a face for each anchor."""
    centre, size = anchors[:, None, :2], anchors[:, None, 2:]
    return ((points - centre) / (CENTRE_VARIANCE * size)).reshape(len(points), -1)


def decode_points(offsets: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns the points f32[A,P,2] of offsets f32[A,2P]; undoes `encode_points`."""
    centre, size = anchors[:, None, :2], anchors[:, None, 2:]
    return centre + CENTRE_VARIANCE * size * offsets.reshape(len(offsets), -1, 2)


def iou(a: Any, b: Any, xp: Any = jnp) -> Any:
    """Divides the intersection of boxes by their union.

    Args:
        a: f32[N,4].
        b: f32[M,4].
        xp: jax.numpy, or numpy where shapes differ from call to call.

    Returns:
        f32[N,M]; NaN where a box is missing, 0 where neither has an area.
    """
    low = xp.maximum(a[:, None, :2], b[None, :, :2])
    high = xp.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = xp.maximum(high - low, 0).prod(axis=-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=-1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    return shared / xp.where(union == 0, 1, union)


class Match(NamedTuple):
    """What the anchors are trained towards.

    Attributes:
        face: i32[A], the face that an anchor is for; of no meaning where it is for none.
        positive: bool[A], whether it is for one.
    """

    face: jax.Array
    positive: jax.Array


def match(
    faces: jax.Array, anchors: jax.Array, *, threshold: float, forced_threshold: float
) -> Match:
    """Gives anchors to faces: by overlap, and to every face its best anchor.

    An anchor that is the best of several faces goes to the one it overlaps most.

    Args:
        faces: f32[G,4], NaN where there is none. A box without an area has no anchor.
        anchors: f32[A,4].
        threshold: IoU from which on an anchor is for the face it overlaps most.
        forced_threshold: IoU from which on the best anchor of a face is for it; 0 for any
            overlap.
    """
    there = jnp.all(faces[:, 2:] > faces[:, :2], axis=1) & jnp.all(jnp.isfinite(faces), axis=1)
    overlap = jnp.where(there[None], iou(corners(anchors), faces), -1.0)
    nearest, positive = jnp.argmax(overlap, axis=1), jnp.max(overlap, axis=1) >= threshold

    best, best_overlap = jnp.argmax(overlap, axis=0), jnp.max(overlap, axis=0)
    claimed = (best_overlap >= forced_threshold) & (best_overlap > 0)
    mine = claimed[None] & (best[None] == jnp.arange(len(anchors))[:, None])
    forced = jnp.any(mine, axis=1)
    claimant = jnp.argmax(jnp.where(mine, best_overlap[None], -1.0), axis=1)
    return Match(jnp.where(forced, claimant, nearest), positive | forced)


class Kept(NamedTuple):
    """What suppression leaves, the best first.

    Attributes:
        index: i32[N], places among the boxes given; of no meaning where nothing is left.
        valid: bool[N].
    """

    index: jax.Array
    valid: jax.Array


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    iou_threshold: float,
    score_threshold: float = -np.inf,
    candidates: int = 1000,
    count: int = 200,
) -> Kept:
    """Keeps the best box, drops all that overlap it too much, and so on with those left.

    All at once instead of one by one: a candidate is kept if none of the better ones that
    overlap it is. Repeated until nothing changes this has greed's only result, after as many
    rounds as the longest chain of boxes of which each depends on the one before (a few).

    Args:
        boxes: f32[A,4]. One that is not finite is not kept.
        scores: f32[A]. Of equal scores the first goes first.
        iou_threshold: overlap above which the worse box is dropped.
        score_threshold: what a score must exceed.
        candidates: K, how many of the best boxes take part.
        count: N, most boxes that are kept, at most K.
    """
    usable = jnp.all(jnp.isfinite(boxes), axis=1) & (scores > score_threshold)
    k = min(candidates, len(scores))
    best, order = lax.top_k(jnp.where(usable, scores, -jnp.inf), k)
    boxes, there = boxes[order], best > -jnp.inf
    rank = jnp.arange(k)
    threatens = (iou(boxes, boxes) > iou_threshold) & (rank[:, None] < rank[None])

    def settle(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        new = there & ~jnp.any(threatens & kept[:, None], axis=0)
        return new, jnp.any(new != kept)

    kept, _ = lax.while_loop(lambda state: state[1], settle, (there, jnp.bool(True)))
    first = jnp.argsort(~kept, stable=True)[:count]
    return Kept(order[first], kept[first])
