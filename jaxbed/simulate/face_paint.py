"""Paints an infant's face: skin, eyes, nose, mouth and hair.

P points. Places and colours as in `jaxbed.simulate.face`; both are set by eye.
"""

from typing import NamedTuple

import numpy as np

from jaxbed.simulate.face import (
    EYE_UP,
    EYES,
    MOUTH_UP,
    MOUTH_WIDTH,
    NOSE_UP,
    Expression,
    Face,
)

_BROW_UP = 0.27
_HAIR_AXIS = np.array([0.0, 0.5, -0.87])  # hair grows on this side of the head
_HAIR_EDGE = 0.07
_HAIR_SIDES = 0.25  # it reaches farther to the front at the temples

_SHADOW = np.array([0.10, 0.05, 0.05, 0.12])  # of nostrils and an open mouth
_LASHES = np.array([0.06, 0.04, 0.04, 0.10])
_WHITE = np.array([0.78, 0.76, 0.76, 0.55])
_PUPIL = np.array([0.01, 0.01, 0.01, 0.25])  # in the light beside the lens it is not black
_GLINT = np.array([0.95, 0.95, 0.95, 0.95])
_BLUSH = np.array([1.10, 0.80, 0.78, 1.0])  # of the skin's colour
_LIPS = np.array([0.92, 0.58, 0.58, 0.9])


class _Spot(NamedTuple):
    """An ellipse on the face, bent upwards at its sides by `bend` times the square of x."""

    left: float
    up: float
    width: float
    height: float
    colour: np.ndarray
    share: float
    bend: float = 0.0


def paint_head(
    face: Face, expression: Expression, out: np.ndarray, footprint: np.ndarray
) -> np.ndarray:
    """Paints skin, features and hair.

    Args:
        face: whose it is.
        expression: what it does.
        out: f64[P,3], where on the head.
        footprint: f32[P], the size of a pixel there, in radii of the head; what is finer fades.

    Returns:
        f32[4,P], colours.
    """
    colour = np.repeat(face.skin[:, None], len(out), axis=1).astype(np.float32)
    front = np.flatnonzero(out[:, 2] > 0.1)
    x, y = np.float32(out[front, 0]), np.float32(out[front, 1])
    soft = np.float32(np.maximum(footprint[front], 0.02))
    part = colour[:, front]
    for spot in _spots(face, expression):
        near = (np.abs(x - spot.left) < spot.width + 0.3) & (np.abs(y - spot.up) < 0.5)
        share = _spot_share(spot, x[near], y[near], soft[near])
        part[:, near] += share * (np.float32(spot.colour)[:, None] - part[:, near])
    colour[:, front] = part

    behind = out @ _HAIR_AXIS + 0.12 + _HAIR_SIDES * out[:, 0] ** 2 + face.hairline
    hairy = face.fuzz / (1 + np.exp(-behind / np.maximum(_HAIR_EDGE, footprint)))
    return (colour + hairy * (face.hair[:, None] - colour)).astype(np.float32)


def _spot_share(spot: _Spot, x: np.ndarray, y: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """f32[P], how much of a pixel a spot fills."""
    width, height = np.maximum(spot.width, soft / 2), np.maximum(spot.height, soft / 2)
    across, up = x - spot.left, y - spot.up
    up = up - spot.bend * across * across
    away = np.sqrt((across / width) ** 2 + (up / height) ** 2)
    inside = np.clip((1 - away) * np.minimum(width, height) / soft + 0.5, 0, 1)
    return spot.share * (spot.width * spot.height / (width * height)) * inside


def _spots(face: Face, expression: Expression) -> list[_Spot]:
    """What is painted on the skin, one after the other."""
    skin, brow = face.skin, 0.7 * face.hair + 0.3 * face.skin * 0.5
    blush, lips = skin * _BLUSH, skin * _LIPS
    spots = []
    for side in (1, -1):
        eye = side * EYES * face.apart
        spots.append(_Spot(side * 0.50, -0.28, 0.24, 0.20, blush, face.blush))
        spots.append(_Spot(eye, _BROW_UP, 0.19, 0.035, brow, face.brows, -0.8))
        spots.append(_Spot(eye, EYE_UP + 0.02, 0.23, 0.15, skin * (0.82, 0.76, 0.76, 0.8), 0.6))
        spots += _eye(eye, face, expression.eyes_open)
        spots.append(_Spot(side * 0.065, NOSE_UP - 0.085, 0.035, 0.025, _SHADOW, 0.75))
    spots.append(_Spot(0.0, NOSE_UP - 0.10, 0.15, 0.03, skin * 0.75, 0.6))
    spots.append(_Spot(0.0, NOSE_UP + 0.02, 0.08, 0.07, skin * (1.1, 0.95, 0.95, 1.1), 0.5))
    width, gape = MOUTH_WIDTH * face.mouth, expression.mouth_open
    spots.append(_Spot(0.0, MOUTH_UP, width, 0.065 + 0.12 * gape, lips, 0.9, 0.25))
    spots.append(_Spot(0.0, MOUTH_UP, 0.9 * width, 0.014 + 0.12 * gape, _SHADOW, 0.85, 0.35))
    spots.append(_Spot(0.0, MOUTH_UP - 0.15 - 0.1 * gape, 0.13, 0.03, skin * 0.8, 0.5))
    return spots


def _eye(left: float, face: Face, opened: float) -> list[_Spot]:
    width, height = 0.165 * face.eyes, 0.11 * face.eyes * opened
    up = EYE_UP
    if opened < 0.15:
        return [_Spot(left, up - 0.04, width, 0.025, _LASHES, 0.8, 1.6)]
    iris = min(0.095 * face.eyes, height)
    return [
        _Spot(left, up + 0.5 * height, width * 1.06, 0.75 * height, _LASHES, 0.7, -0.5),
        _Spot(left, up, width, height, _WHITE, 0.95),
        _Spot(left, up, 0.095 * face.eyes, iris, face.iris, 1.0),
        _Spot(left, up, 0.045 * face.eyes, min(0.045 * face.eyes, height), _PUPIL, 1.0),
        _Spot(left + 0.03, up + 0.03, 0.018, 0.018, _GLINT, 0.9),
    ]
