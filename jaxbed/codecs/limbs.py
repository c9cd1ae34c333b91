"""Limbs as maps, and back: joints become discs, connections rectangles.

B batch, h w height and width of the maps, K candidates for a joint. Coordinates are in pixels,
(x to the right, y down) with 0 at the centre of the first pixel. A limb is a chain of 3 joints
and 2 connections, from the trunk outwards; the maps of all joints come first, then those of
the connections. A joint that is missing is NaN.

Source: Migliorelli et al. (see jaxbed.models.preterm_pose), ground truth and joint linking.
The paper gives neither window, threshold nor samples, nor how a place between pixels is found.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxbed.codecs.limbs_linking import link

LIMBS, JOINTS, CONNECTIONS = 4, 12, 8


def encode(
    joints_px: jax.Array,
    size: tuple[int, int],
    *,
    radius_px: float,
    sigma_px: float | None = None,
) -> jax.Array:
    """Draws the maps of joints and connections.

    A joint is a disc of that radius, a connection a rectangle of that thickness that ends at
    its two joints. One shorter than a pixel is drawn a pixel long, so that it does not fall
    between the centres of pixels.

    Args:
        joints_px: f32[...,12,2]. Missing are those that are not finite or not in the image,
            which ends half a pixel beyond the centres of its outermost pixels.
        size: (h, w).
        radius_px: > 0.
        sigma_px: standard deviation of the Gaussian that fills the shapes, of the distance to
            the joint or to the connection's axis. None fills them with 1.

    Returns:
        f32[...,h,w,20] in [0, 1], 0 outside the shapes. The maps of a missing joint and of its
        connections are 0.
    """
    draw = partial(_draw, size=size, radius_px=radius_px, sigma_px=sigma_px)
    return jnp.vectorize(draw, signature="(j,c)->(h,w,m)")(joints_px)


def _draw(
    joints: jax.Array, *, size: tuple[int, int], radius_px: float, sigma_px: float | None
) -> jax.Array:
    """Returns f32[h,w,20] for f32[12,2]."""
    height, width = size
    corner = jnp.array([[width, height]], jnp.float32) - 0.5
    visible = jnp.all((joints >= -0.5) & (joints <= corner), axis=1, keepdims=True)
    joints = jnp.where(visible, joints, jnp.nan)
    inner, outer = _ends(joints)
    length = jnp.linalg.norm(outer - inner, axis=1, keepdims=True)
    right = jnp.array([[1.0, 0.0]])

    # All 20 shapes in one expression, which XLA computes in one pass over the maps: a disc is
    # a rectangle without ends in which the distance along the axis counts too.
    centre = jnp.concatenate([joints, (inner + outer) / 2])
    heading = jnp.where(length > 0, (outer - inner) / length, right)
    heading = jnp.concatenate([jnp.repeat(right, JOINTS, axis=0), heading])
    half_length = jnp.concatenate([jnp.full(JOINTS, jnp.inf), jnp.maximum(length[:, 0], 1) / 2])
    is_joint = np.arange(JOINTS + CONNECTIONS) < JOINTS
    reach = np.where(is_joint, radius_px, radius_px / 2)

    x = jnp.arange(width).reshape(1, -1, 1) - centre[None, None, :, 0]
    y = jnp.arange(height).reshape(-1, 1, 1) - centre[None, None, :, 1]
    cos, sin = heading[None, None, :, 0], heading[None, None, :, 1]
    along, across = x * cos + y * sin, x * sin - y * cos
    squared = across**2 + along**2 * is_joint[None, None].astype(np.float32)
    # The distances to a missing joint are NaN, which compares as false.
    inside = (jnp.abs(along) <= half_length[None, None]) & (squared <= reach[None, None] ** 2)
    value = jnp.float32(1) if sigma_px is None else jnp.exp(-squared / (2 * sigma_px**2))
    return jnp.where(inside, value, 0.0)


def _ends(joints: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the joint that every connection leads from and the one it leads to.

    [8,...] each, for [12,...]; slices and no indices, which would slow the drawing down.
    """
    chains = joints.reshape(LIMBS, 3, *joints.shape[1:])
    shape = (CONNECTIONS, *joints.shape[1:])
    return chains[:, :2].reshape(shape), chains[:, 1:].reshape(shape)


class Candidates(NamedTuple):
    """Where each joint may be, the best place first.

    Attributes:
        xy_px: f32[B,12,K,2]; NaN where there is none.
        score: f32[B,12,K], how far the mean of the window lies above the threshold; -inf where
            there is none.
    """

    xy_px: jax.Array
    score: jax.Array


def candidates(
    joint_maps: jax.Array, *, window_px: int, threshold: float, count: int
) -> Candidates:
    """Finds the peaks of joint maps by non-maximum suppression.

    A candidate is a place where the mean of a square window is above the threshold and highest
    among its neighbours; the best is taken, all less than a window away are dropped, and so on.
    A disc is flat or nearly so, and the peak of its map says little, but a window holds most of
    it when it is centred on it. Between pixels the place is the vertex of a parabola through
    the means beside the highest.

    What lies beyond the image is worth as much as the threshold. With that a window of 1.8
    radii stays centred on a disc that the border cuts: on exact maps (radius 6, window 11,
    threshold 0.3; radius 3, window 5, threshold 0.5) x and y are within 0.3 px of the joint
    where the disc lies in the image, 0.5 px where a border cuts it and 0.75 px in a corner.

    Args:
        joint_maps: f32[B,h,w,12]. No window with a value that is not finite is a candidate.
        window_px: side of the window, odd; 1.8 radii of a disc.
        threshold: what the mean of a window must exceed.
        count: K, most candidates of a joint.

    Raises:
        ValueError: the window is even.
    """
    if window_px % 2 == 0:
        raise ValueError(f"window_px must be odd, got {window_px}")
    excess = joint_maps - threshold
    for axis in (1, 2):
        # The border of one place beyond the image is for the parabola.
        excess = _pool(excess, lax.add, 0.0, window_px, axis, border=1)
    peaks = partial(_peaks, window_px=window_px, count=count)
    return Candidates(*jax.vmap(jax.vmap(peaks, in_axes=-1))(excess / window_px**2))


def _peaks(excess: jax.Array, *, window_px: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns f32[K,2] and f32[K] for f32[h+2,w+2], which has a border of one place."""
    here = excess[1:-1, 1:-1]
    height, width = here.shape
    highest = here
    for axis in (0, 1):
        highest = _pool(highest, lax.max, -jnp.inf, 3, axis)
    is_peak = (here == highest) & (here > 0) & (here < jnp.inf)

    rows, columns = jnp.arange(height).reshape(-1, 1), jnp.arange(width).reshape(1, -1)
    x = columns + _vertex(excess[1:-1, :-2], here, excess[1:-1, 2:])
    y = rows + _vertex(excess[:-2, 1:-1], here, excess[2:, 1:-1])
    places = jnp.stack([x, y], axis=-1).reshape(-1, 2)

    def take_best(left, _):
        best = jnp.argmax(left)
        score = left.reshape(-1)[best]
        # Of equal places side by side, all of them peaks, the first is taken.
        away = jnp.maximum(jnp.abs(rows - best // width), jnp.abs(columns - best % width))
        left = jnp.where(away < window_px, -jnp.inf, left)
        return left, (jnp.where(score > 0, places[best], jnp.nan), score)

    _, (xy_px, score) = lax.scan(take_best, jnp.where(is_peak, here, -jnp.inf), length=count)
    return xy_px, score


def _pool(
    x: jax.Array, reduce: Callable, start: float, size: int, axis: int, border: int = 0
) -> jax.Array:
    """Reduces windows along one axis, at every place and at `border` places beyond its ends."""
    window, padding = [1] * x.ndim, [(0, 0)] * x.ndim
    window[axis], padding[axis] = size, (size // 2 + border,) * 2
    return lax.reduce_window(x, start, reduce, window, [1] * x.ndim, padding)


def _vertex(before: jax.Array, peak: jax.Array, after: jax.Array) -> jax.Array:
    """Returns where a parabola through three values is highest, within half a place."""
    bend = 2 * peak - before - after
    curved = (bend > 0) & (bend < jnp.inf)
    return jnp.where(curved, jnp.clip((after - before) / (2 * bend), -0.5, 0.5), 0.0)


def pair_scores(found: Candidates, connection_maps: jax.Array, *, samples: int) -> jax.Array:
    """Scores how well the connection maps support every pair of candidates.

    Args:
        found: the candidates of all joints.
        connection_maps: f32[B,h,w,8].
        samples: points along the segment between two candidates.

    Returns:
        f32[B,8,K,K], [b, c, i, j] for the i-th candidate of the connection's inner joint and
        the j-th of its outer one: mean of the map, interpolated bilinearly, along the segment;
        -inf where a candidate is missing or the map along the segment is not finite.
    """
    share = (jnp.arange(samples) + 0.5).reshape(1, 1, 1, -1, 1) / samples

    def mean_along(connection_map, xy):
        values = map_coordinates(connection_map, [xy[..., 1], xy[..., 0]], order=1, mode="nearest")
        return values.mean(axis=-1)

    def score_pairs(xy, connection_maps):
        inner, outer = _ends(xy)
        inner, outer = inner[:, :, None, None], outer[:, None, :, None]
        xy = inner + share * (outer - inner)  # f32[8,K,K,samples,2]
        return jax.vmap(mean_along, in_axes=(-1, 0))(connection_maps, xy)

    means = jax.vmap(score_pairs)(found.xy_px, connection_maps)
    return jnp.where(jnp.isfinite(means), means, -jnp.inf)


def decode(
    maps: jax.Array,
    *,
    window_px: int = 11,
    threshold: float = 0.3,
    count: int = 5,
    samples: int = 20,
    link_threshold: float = 0.3,
) -> np.ndarray:
    """Reads the joints of one person per image from maps.

    Args:
        maps: f32[B,h,w,20], as of `encode`, exact or predicted.
        window_px: as in `candidates`; the default fits discs of radius 6.
        threshold: as in `candidates`.
        count: as in `candidates`.
        samples: as in `pair_scores`.
        link_threshold: what the score of a pair must exceed.

    Returns:
        f32[B,12,2]; the joints of a limb that is missing or not whole are NaN.
    """
    found, scores = _find(maps, threshold, window_px=window_px, count=count, samples=samples)
    joints_px, _ = link(*jax.device_get((found.xy_px, scores)), threshold=link_threshold)
    return joints_px


@partial(jax.jit, static_argnames=("window_px", "count", "samples"))
def _find(maps, threshold, *, window_px, count, samples) -> tuple[Candidates, jax.Array]:
    """Returns candidates and the scores of their pairs, compiled once per shape."""
    joint_maps, connection_maps = jnp.split(maps, [JOINTS], axis=-1)
    found = candidates(joint_maps, window_px=window_px, threshold=threshold, count=count)
    return found, pair_scores(found, connection_maps, samples=samples)
