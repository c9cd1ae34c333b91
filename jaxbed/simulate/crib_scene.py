"""One moment in a crib, its picture before the sensor, and what is true of the face in it.

h w height and width of an image, K bands, P points. Metres, the bed frame of
`jaxbed.simulate.body`; pixels of `jaxbed.data.crib`.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from jaxbed.simulate.bedding import Blanket, body_top
from jaxbed.simulate.body import Figure
from jaxbed.simulate.camera import Camera
from jaxbed.simulate.crib_covers import Cloth, Shroud
from jaxbed.simulate.crib_draw import (
    capsules_of,
    depth_of,
    draw_blanket,
    draw_part,
    draw_shroud,
    grid_over_cribs,
)
from jaxbed.simulate.crib_light import Daylight
from jaxbed.simulate.crib_looks import DAY, NIGHT, InfantLook
from jaxbed.simulate.crib_room import Crib, Surfaces, draw_rails, draw_room
from jaxbed.simulate.face import (
    SKULL_AND_JAW,
    Expression,
    Part,
    directions,
    features,
    head_axes,
    head_capsules,
    is_turned_to,
    on_face,
    on_surface,
)
from jaxbed.simulate.face_paint import paint_head
from jaxbed.simulate.infrared import Lamp
from jaxbed.simulate.looks import find_on_body
from jaxbed.simulate.skeleton import FLESH

_COVERS_M = 0.004  # what lies this far before the face covers it
_FEWEST_PX, _LEAST = 12, 0.6  # of a face that is visible: pixels, and their share of it
_BELOW = np.setdiff1d(np.arange(len(FLESH)), SKULL_AND_JAW)  # all but the head
_SHADE_M, _SHADOW_M = 0.03, 0.12  # how soft shadows on the mattress are, and what throws all
_SHADOWS = grid_over_cribs(0.025)


@dataclasses.dataclass(frozen=True)
class Scene:
    """One moment.

    Attributes:
        crib: the crib.
        camera: the camera.
        figure: one body.
        look: what the infant looks like.
        expression: what its face does.
        light: day, or the lamp of a night camera.
        pacifier: in the mouth, or None.
        parts: toys, hands and pillows, wherever they are.
        blanket: over who lies there or over the legs, or None.
        shroud: a cloth over the head or shoulders of who sits or stands, or None.
        cloth: what both are made of.
    """

    crib: Crib
    camera: Camera
    figure: Figure
    look: InfantLook
    expression: Expression
    light: Daylight | Lamp
    pacifier: Part | None = None
    parts: tuple[Part, ...] = ()
    blanket: Blanket | None = None
    shroud: Shroud | None = None
    cloth: Cloth | None = None


class FaceTruth(NamedTuple):
    """What is true of the face in a picture, as in CribImages of jaxbed.data.crib."""

    visible: bool
    covered: float
    box: np.ndarray
    landmarks: np.ndarray


def render_scene(scene: Scene) -> tuple[np.ndarray, FaceTruth]:
    """Draws what a camera sees, before its sensor, and looks for the face.

    Args:
        scene: the moment.

    Returns:
        The light f32[h,w,K], K 3 by day and 1 by night, and what is true of the face.
    """
    by_day = isinstance(scene.light, Daylight)
    surfaces = draw_room(scene.camera, scene.crib, DAY if by_day else NIGHT)
    truth = _draw_things(surfaces, scene)
    if scene.pacifier:
        draw_part(surfaces, scene.pacifier)
    draw_rails(surfaces, scene.crib)

    points = np.float32(scene.camera.position_m)[:, None, None] + surfaces.depth * surfaces.rays
    if by_day:
        light = scene.light.light(surfaces.normal, _openness(scene, points))
    else:
        light = scene.light.light(points, surfaces.normal)[None]
    return np.moveaxis(surfaces.colour * light, 0, -1), truth


def find_face(scene: Scene) -> FaceTruth:
    """Tells what is true of the face, without a picture."""
    surfaces = draw_room(scene.camera, scene.crib, NIGHT)
    return _draw_things(surfaces, scene)


def _draw_things(surfaces: Surfaces, scene: Scene) -> FaceTruth:
    """Draws all but pacifier and rails, and looks for the face."""
    head = _see_head(scene, surfaces.depth)
    if scene.blanket:
        draw_blanket(surfaces, scene.blanket, scene.cloth, scene.crib, scene.figure)
    _draw_body(surfaces, scene)
    _draw_head(surfaces, scene, head)
    for part in scene.parts:
        draw_part(surfaces, part)
    if scene.shroud:
        draw_shroud(surfaces, scene.shroud, scene.cloth)
    return _truth(scene, head, surfaces.depth)


class _Head(NamedTuple):
    """A head when nothing is before it.

    Attributes:
        capsules: its ends f64[C,2,3] and radii f64[C,2].
        depth: f32[h,w].
        pixels: i64[P], those of the face, apart from what is in the mattress.
        free: share of the face's pixels that these are.
    """

    capsules: tuple[np.ndarray, np.ndarray]
    depth: np.ndarray
    pixels: np.ndarray
    free: float


def _see_head(scene: Scene, room: np.ndarray) -> _Head:
    """Sees a head before a room of a depth f32[h,w]."""
    figure, camera = scene.figure, scene.camera
    capsules = head_capsules(figure)
    depth = depth_of(camera, *capsules)
    pixels = np.flatnonzero(np.isfinite(depth))
    x, y = camera.rays()
    far = depth.reshape(-1)[pixels]
    row, column = np.divmod(pixels, camera.size[1])
    seen = np.stack([far * x[column], far * y[row, 0], far])
    points = np.float32(camera.position_m)[:, None] + np.float32(camera.axes).T @ seen
    pixels = pixels[on_face(directions(figure, points))]
    above = depth.reshape(-1)[pixels] < room.reshape(-1)[pixels] + _COVERS_M
    return _Head(capsules, depth, pixels[above], above.mean() if len(above) else 0.0)


def _truth(scene: Scene, head: _Head, depth: np.ndarray) -> FaceTruth:
    camera, figure = scene.camera, scene.figure
    points = on_surface(figure, features(scene.look.face), head.capsules)
    landmarks = camera.project(points) + 0.5
    seen = (
        is_turned_to(figure, camera.position_m)
        and len(head.pixels) >= _FEWEST_PX
        and head.free >= _LEAST
        and np.all(landmarks > 0)
        and np.all(landmarks < camera.size[::-1])
    )
    if not seen:
        nan = np.full((7, 2), np.nan, np.float32)
        return FaceTruth(False, np.nan, nan[:2].ravel(), nan[2:])
    before = head.depth.reshape(-1)[head.pixels] - _COVERS_M
    covered = np.mean(depth.reshape(-1)[head.pixels] < before)
    rows, columns = np.divmod(head.pixels, camera.size[1])
    low = np.minimum((columns.min(), rows.min()), landmarks.min(axis=0))
    high = np.maximum((columns.max() + 1, rows.max() + 1), landmarks.max(axis=0))
    box = np.concatenate([low, high]).astype(np.float32)
    return FaceTruth(True, float(covered), box, landmarks.astype(np.float32))


def _draw_body(surfaces: Surfaces, scene: Scene) -> None:
    """Draws all but the head."""
    figure = scene.figure
    ends, radii = figure.ends_m[0, _BELOW], figure.radii_m[0, _BELOW]
    depth = depth_of(surfaces.camera, ends, radii)
    pixels = surfaces.nearer(depth)
    depth = depth.reshape(-1)[pixels]
    points = surfaces.points(pixels, depth)
    skin = find_on_body(capsules_of(ends, radii), points)
    known = skin._replace(capsule=_BELOW[skin.capsule])
    colour = np.empty((4, len(pixels)), np.float32)
    colour[list(surfaces.bands)] = scene.look.body(figure, points, known, surfaces.bands)
    surfaces.paint(pixels, depth, skin.normal, colour)


def _draw_head(surfaces: Surfaces, scene: Scene, head: _Head) -> None:
    pixels = surfaces.nearer(head.depth)
    depth = head.depth.reshape(-1)[pixels]
    points = surfaces.points(pixels, depth)
    normal = find_on_body(capsules_of(*head.capsules), points).normal
    _, _, radius = head_axes(scene.figure)
    footprint = depth / np.float32(surfaces.camera.focal_px * radius)
    out = directions(scene.figure, points)
    colour = paint_head(scene.look.face, scene.expression, out, footprint)
    surfaces.paint(pixels, depth, normal, colour)


def _openness(scene: Scene, points: np.ndarray) -> np.ndarray:
    """f32[h,w], 1 where light comes in, less on the mattress beside and behind a body."""
    high = np.clip(body_top(scene.figure, _SHADOWS)[0] / np.float32(_SHADOW_M), 0, 1)
    shade = cv2.GaussianBlur(high, (0, 0), _SHADE_M / _SHADOWS.cell_m)
    toward = scene.light.towards
    aside = np.float32(toward[:2] / max(toward[2], 0.3) * 0.04)
    x, y, z = points
    out = np.ones(z.shape, np.float32)
    low = np.abs(z) < 0.06
    dark = _SHADOWS.look_up(shade, x[low] + aside[0], y[low] + aside[1])
    out[low] = 1 - np.float32(scene.light.depth) * dark * np.clip(1 - z[low] / 0.06, 0, 1)
    return out
