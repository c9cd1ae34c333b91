"""Finds faces in an image by a trained detector, at any rotation of the head.

H W image pixels, h w pixels of the canvas, R rotations, A anchors, N faces. Coordinates are in
pixels as in jaxbed.codecs.boxes. Detectors are trained on upright heads, but infants lie sideways
and upside down to a camera: the image is turned by several angles, which go through the network
as one batch, and what is found is turned back and merged.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.scipy.ndimage import map_coordinates

from jaxbed.codecs import boxes

QUARTER_TURNS = (0.0, 90.0, 180.0, 270.0)


class Faces(NamedTuple):
    """Faces of an image, the surest first.

    Attributes:
        boxes_px: f32[N,4], NaN beyond the last face.
        landmarks_px: f32[N,5,2], likewise; NaN, too, where the network finds none.
        scores: f32[N] in [0, 1]; 0 beyond the last face.
        angles_deg: f32[N], how far the image was turned when the face was found: about as far
            as the head is turned clockwise. NaN beyond the last face.
    """

    boxes_px: jax.Array
    landmarks_px: jax.Array
    scores: jax.Array
    angles_deg: jax.Array


@partial(
    jax.jit,
    static_argnames=(
        *("network", "network_input", "levels", "angles_deg"),
        *("network_size", "candidates", "count"),
    ),
)
def detect(
    variables: dict,
    image: jax.Array,
    *,
    network: nn.Module,
    network_input: Callable[[jax.Array], jax.Array],
    levels: boxes.Levels,
    angles_deg: tuple[float, ...] = (0.0,),
    network_size: tuple[int, int] | None = None,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.4,
    candidates: int = 1000,
    count: int = 100,
) -> Faces:
    """Finds faces, compiled once per size of the image.

    Args:
        variables: of the network.
        image: u8[H,W,3], RGB.
        network: gives `boxes`, `logits` and, if it has them, `landmarks` of the anchors.
        network_input: what the network is to see of u8[B,H,W,3]; 0 is its neutral value.
        levels: of the network's anchors.
        angles_deg: how far the image is turned anticlockwise, each in turn.
        network_size: (height, width) that the image, once turned, is brought to, whatever its
            proportions: (300, 300) for SSD; None for its own size.
        score_threshold: what a score must exceed.
        iou_threshold: overlap above which the less sure of two boxes is dropped; 0.45 in the
            paper of SSD.
        candidates: most boxes that are compared with each other.
        count: N, most faces.
    """
    seen = network_input(image[None])[0]
    size = canvas_size(image.shape[:2], angles_deg)
    seen = jnp.stack([turned(seen, angle, size) for angle in angles_deg])
    network_size = network_size or size
    seen = jax.image.resize(seen, (len(seen), *network_size, 3), "linear")
    # Larger anchors stand for boxes of the larger image.
    factor = np.float32([[size[1] / network_size[1], size[0] / network_size[0]]])
    anchors = jnp.asarray(boxes.anchors_of(levels, network_size) * np.tile(factor, 2))
    outputs = network.apply(variables, seen, train=False)
    found_boxes, found_landmarks = [], []
    for i, angle in enumerate(angles_deg):
        box = boxes.decode(outputs["boxes"][i], anchors)
        points = jnp.full((len(anchors), 5, 2), jnp.nan)
        if "landmarks" in outputs:
            points = boxes.decode_points(outputs["landmarks"][i], anchors)
        found_boxes.append(boxes_turned_back(box, angle, image.shape[:2]))
        found_landmarks.append(turned_back(points, angle, image.shape[:2]))
    found_boxes, found_landmarks = map(jnp.concatenate, (found_boxes, found_landmarks))
    scores = nn.softmax(outputs["logits"])[..., 1].reshape(-1)
    kept, valid = boxes.nms(
        found_boxes,
        scores,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        candidates=candidates,
        count=count,
    )
    angle = jnp.repeat(jnp.float32(angles_deg), len(anchors))[kept]
    return Faces(
        jnp.where(valid[:, None], found_boxes[kept], jnp.nan),
        jnp.where(valid[:, None, None], found_landmarks[kept], jnp.nan),
        jnp.where(valid, scores[kept], 0.0),
        jnp.where(valid, angle, jnp.nan),
    )


def padded(image: np.ndarray, size: tuple[int, int], fill: tuple[int, int, int]) -> np.ndarray:
    """Extends an image to the right and downwards, so that images of many sizes share a program.

    Args:
        image: u8[H,W,3].
        size: (height, width) of the result, at least the image's.
        fill: the colour of what is added; the network's mean is neutral.

    Raises:
        ValueError: the image is larger.
    """
    if image.shape[0] > size[0] or image.shape[1] > size[1]:
        raise ValueError(f"an image of {image.shape[:2]} pixels does not fit into {size}")
    canvas = np.empty((*size, 3), image.dtype)
    canvas[:] = np.asarray(fill).reshape(1, 1, 3)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def canvas_size(size: tuple[int, int], angles_deg: tuple[float, ...]) -> tuple[int, int]:
    """Returns (h, w) of a canvas that holds an image of that size, turned by any of the angles."""
    extents = [_extent(size, angle) for angle in angles_deg]
    # A little less than a pixel too much is rounding and no pixel.
    height, width = (int(np.ceil(max(lengths) - 1e-6)) for lengths in zip(*extents, strict=True))
    return height, width


def turned(image: jax.Array, angle_deg: float, size: tuple[int, int]) -> jax.Array:
    """Turns an image anticlockwise and lays it into the upper left corner of a canvas of zeros.

    Quarter turns move pixels; other angles interpolate between four.

    Args:
        image: f32[H,W,C].
        angle_deg: known when compiling.
        size: (h, w), as of `canvas_size`.

    Returns:
        f32[h,w,C].
    """
    quarters, rest = divmod(angle_deg, 90)
    if rest == 0:
        image = jnp.rot90(image, int(quarters) % 4)
        return jnp.pad(
            image, (*((0, n - m) for n, m in zip(size, image.shape, strict=False)), (0, 0))
        )
    x, y = jnp.meshgrid(jnp.arange(size[1]) + 0.5, jnp.arange(size[0]) + 0.5)
    places = turned_back(jnp.stack([x, y], axis=-1), angle_deg, image.shape[:2]) - 0.5
    read = partial(map_coordinates, coordinates=[places[..., 1], places[..., 0]], order=1)
    return jax.vmap(read, in_axes=-1, out_axes=-1)(image)


def turned_back(points: jax.Array, angle_deg: float, size: tuple[int, int]) -> jax.Array:
    """Finds in an image the points of what `turned` made of it.

    Args:
        points: f32[...,2].
        angle_deg: how far the image was turned.
        size: (H, W) of the image.

    Returns:
        f32[...,2].
    """
    cos, sin = _cos_sin(angle_deg)
    height, width = _extent(size, angle_deg)
    x, y = points[..., 0] - width / 2, points[..., 1] - height / 2
    return jnp.stack([cos * x - sin * y + size[1] / 2, sin * x + cos * y + size[0] / 2], axis=-1)


def boxes_turned_back(found: jax.Array, angle_deg: float, size: tuple[int, int]) -> jax.Array:
    """Does to boxes f32[A,4] what `turned_back` does to points.

    A box stands for the ellipse in it, which a head resembles more than the box: turned, an
    ellipse does not grow as the box around a turned box does.
    """
    cos, sin = _cos_sin(angle_deg)
    centre = turned_back((found[:, :2] + found[:, 2:]) / 2, angle_deg, size)
    width, height = ((found[:, 2:] - found[:, :2]) / 2).T
    half = jnp.stack(
        [jnp.hypot(cos * width, sin * height), jnp.hypot(sin * width, cos * height)], 1
    )
    return jnp.concatenate([centre - half, centre + half], axis=1)


def _extent(size: tuple[int, int], angle_deg: float) -> tuple[float, float]:
    """Returns height and width of what an image of that size, turned, takes up."""
    cos, sin = map(abs, _cos_sin(angle_deg))
    height, width = size
    return height * cos + width * sin, width * cos + height * sin


def _cos_sin(angle_deg: float) -> tuple[float, float]:
    """Returns both without the rounding that a quarter turn in radians has."""
    exact = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0), 270: (0.0, -1.0)}
    angle = angle_deg % 360
    return exact.get(angle, (np.cos(np.radians(angle)), np.sin(np.radians(angle))))
