"""Where a camera hangs over a crib, and what it brings into the picture.

Metres, the bed frame of `jaxbed.simulate.body`; the foot of the crib is at negative y.
"""

import dataclasses

import numpy as np

from jaxbed.data.crib import VIEWS
from jaxbed.simulate.body import Figure
from jaxbed.simulate.camera import Camera
from jaxbed.simulate.crib_room import Crib
from jaxbed.simulate.face import head_axes
from jaxbed.simulate.infrared import look_at
from jaxbed.simulate.skeleton import JOINTS

_SIDES = ("left", "right")
_TRUNK = [JOINTS.index(f"{side}_{name}") for name in ("shoulder", "hip") for side in _SIDES]
_HEAD_ROOM = 1.2  # a cube around a head, in its radii
_UPRIGHT_TURN_DEG, _ABOVE_TURN_DEG = 4.0, 12.0  # of cameras on a wall, and over the crib


def sample_position(rng: np.random.Generator, view: str, crib: Crib) -> np.ndarray:
    """Draws f64[3], where a camera of one of VIEWS hangs."""
    side = rng.choice([-1, 1])
    far, along, height, slide = rng.random(4)
    beside = crib.width_m / 2 + 0.35 + 0.5 * far
    beyond = crib.length_m / 2 + 0.35 + 0.5 * far
    if view == "above":
        return np.array([0.2 * (along - 0.5), 0.3 * (slide - 0.6), 1.25 + 0.4 * height])
    if view == "foot":
        return np.array([0.6 * (along - 0.5), -beyond, 0.9 + 0.7 * height])
    if view == "side":
        return np.array([side * beside, 0.6 * (along - 0.5), 0.9 + 0.7 * height])
    if view == "corner":
        end = 1 if slide < 0.3 else -1
        return np.array([side * (beside - 0.1), end * (beyond - 0.1), 0.9 + 0.6 * height])
    if view == "low":
        level = 0.33 + 0.17 * height  # above any blanket
        if slide < 0.4:
            return np.array([0.5 * (along - 0.5), -beyond - 0.1, level])
        return np.array([side * (beside + 0.1), 0.6 * (along - 0.5), level])
    raise ValueError(f"a view is one of {VIEWS}, found {view!r}")


def sample_turn(rng: np.random.Generator, view: str) -> float:
    """Draws by how far a camera is turned about its line of sight, radians."""
    if view == "above":  # whoever screws it to the ceiling does not care which way is up
        quarter = rng.integers(4)
        return np.pi / 2 * quarter + np.radians(rng.uniform(-1, 1) * _ABOVE_TURN_DEG)
    return np.radians(rng.uniform(-1, 1) * _UPRIGHT_TURN_DEG)


def sample_camera(
    rng: np.random.Generator,
    view: str,
    crib: Crib,
    position_m: np.ndarray,
    figures: list[Figure],
    framing: str,
    size: tuple[int, int],
) -> Camera:
    """Draws a camera that sees infants.

    Args:
        rng: where the randomness comes from.
        view: one of VIEWS.
        crib: what it looks into.
        position_m: f64[3], where it hangs.
        figures: bodies that are to be in the picture.
        framing: "crib" to show its mattress, too, "body" to show these bodies, "head" for no
            more than heads, shoulders and hips.
        size: (height, width) of the images.
    """
    points = []
    for figure in figures:
        middle, _, radius = head_axes(figure)
        signs = np.array(np.meshgrid(*[[-_HEAD_ROOM, _HEAD_ROOM]] * 3)).reshape(3, -1).T
        points.append(middle + radius * signs)
        chosen = slice(None) if framing != "head" else _TRUNK
        points.append(figure.joints_m[0, chosen])
    if framing == "crib":
        signs = np.array([(-1, -1, 0), (-1, 1, 0), (1, -1, 0), (1, 1, 0)])
        points.append(signs * (crib.width_m / 2, crib.length_m / 2, 0))
    margin = rng.uniform(1.03, 1.25)
    return frame_points(size, position_m, sample_turn(rng, view), np.concatenate(points), margin)


def frame_points(
    size: tuple[int, int],
    position_m: np.ndarray,
    turn: float,
    points_m: np.ndarray,
    margin: float,
) -> Camera:
    """Makes a camera that just sees some points.

    Args:
        size: (height, width) of the images.
        position_m: f64[3], where it hangs.
        turn: about its line of sight, radians.
        points_m: f64[P,3].
        margin: how much larger the picture is than the points in it; 1 for not at all.
    """
    target = points_m.mean(axis=0)
    for _ in range(4):  # brings the points to the middle of the picture
        camera = look_at(size, position_m, target, 1.0)
        axes = _about_line_of_sight(turn) @ camera.axes
        seen = (points_m - position_m) @ axes.T
        slope = seen[:, :2] / np.maximum(seen[:, 2:], 0.05)
        middle = (slope.min(axis=0) + slope.max(axis=0)) / 2
        target = position_m + np.append(middle, 1) @ axes
    reach = np.abs(slope - middle).max(axis=0)
    focal = min((np.array(size[::-1]) - 1) / (2 * reach)) / margin
    return dataclasses.replace(camera, focal_px=focal, axes=axes)


def _about_line_of_sight(turn: float) -> np.ndarray:
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
