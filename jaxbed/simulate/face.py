"""An infant's face: where its features are on the head of the body, and a pacifier.

P points, K bands of colour, C capsules. Metres, the bed frame of `jaxbed.simulate.body`. A place
on a head is a direction from the middle of its face, of length 1: how far to the infant's left,
to the crown and to the front. So the face turns with the head and is foreshortened with it.
Shapes and colours are set by eye; colours as in `jaxbed.simulate.crib_room`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.simulate.body import Figure
from jaxbed.simulate.skeleton import BONE_INDEX, FLESH

SKULL_AND_JAW = np.array([c for c, flesh in enumerate(FLESH) if flesh.bone == "head"])[:2]
"""Their indices among the capsules."""

_HEAD_BONE = BONE_INDEX["head"]
_MIDDLE = 0.55  # of the face, on the way from the jaw to the skull
_RADIUS_M = 0.075  # of a head of the size that the parts below are made for

EYES, EYE_UP, NOSE_UP, MOUTH_UP, MOUTH_WIDTH = 0.40, 0.04, -0.25, -0.52, 0.24
"""How far the features of the mean face are to the left and to the crown; half the mouth."""
_FOREHEAD_UP, _CHIN_UP, _CHEEKS = 0.72, -0.86, 0.84  # where the face ends
_STEPS = 12  # to the surface of the head
_FACING_COS = np.cos(np.radians(62))  # turned farther away, a face cannot be made out


@dataclasses.dataclass(frozen=True)
class Face:
    """What an infant's face looks like.

    Attributes:
        skin: f64[4], its colour.
        hair: f64[4].
        iris: f64[4].
        hairline: how far hair grows into the face, within about -0.3 and 0.1.
        fuzz: how much the hair hides the skin, within [0, 1].
        apart: how far the eyes stand apart, relative to the mean.
        eyes: their size, likewise.
        mouth: its width, likewise.
        brows: how dark they are, within [0, 1].
        blush: how red the cheeks are, within [0, 1].
    """

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    hairline: float
    fuzz: float
    apart: float
    eyes: float
    mouth: float
    brows: float
    blush: float


class Expression(NamedTuple):
    """What a face does.

    Attributes:
        eyes_open: 0 for closed, 1 for wide.
        mouth_open: 0 for closed, 1 for a cry.
    """

    eyes_open: float = 1.0
    mouth_open: float = 0.0


class Part(NamedTuple):
    """Capsules of some colours: ends f64[C,2,3], radii f64[C,2], colours f64[C,4]."""

    ends_m: np.ndarray
    radii_m: np.ndarray
    colours: np.ndarray


def sample_face(rng: np.random.Generator) -> Face:
    """Draws the face of one infant."""
    fair, dark = np.array([(0.78, 0.54, 0.43, 0.60), (0.14, 0.07, 0.045, 0.44)])
    tone = rng.beta(1.1, 1.6)
    skin = fair ** (1 - tone) * dark**tone * np.exp(rng.normal(0, 0.05, 4))
    hair = np.array([(0.02, 0.015, 0.01, 0.08), (0.12, 0.06, 0.03, 0.2), (0.45, 0.3, 0.15, 0.35)])
    irises = np.array([(0.08, 0.03, 0.01, 0.4), (0.15, 0.25, 0.4, 0.5), (0.15, 0.16, 0.06, 0.45)])
    light_eyed = tone < 0.35
    return Face(
        skin=np.clip(skin, 0.02, 0.9),
        hair=hair[rng.choice(3, p=[0.3, 0.4, 0.3] if light_eyed else [0.85, 0.15, 0])],
        iris=irises[rng.choice(3, p=[0.4, 0.4, 0.2] if light_eyed else [0.95, 0, 0.05])],
        hairline=rng.uniform(-0.3, 0.05),
        fuzz=rng.uniform(0.15, 1.0),
        apart=rng.uniform(0.9, 1.08),
        eyes=rng.uniform(0.88, 1.15),
        mouth=rng.uniform(0.85, 1.15),
        brows=rng.uniform(0.15, 0.8),
        blush=rng.uniform(0, 0.8),
    )


def head_axes(figure: Figure) -> tuple[np.ndarray, np.ndarray, float]:
    """The middle of the face f64[3], left, crown and front as columns f64[3,3], and a radius."""
    skull, jaw = figure.ends_m[0, SKULL_AND_JAW].mean(axis=1)
    middle = jaw + _MIDDLE * (skull - jaw)
    return (
        middle,
        figure.rotations[0, _HEAD_BONE],
        float(figure.radii_m[0, SKULL_AND_JAW[0], 0]) * 1.19,
    )


def directions(figure: Figure, points_m: np.ndarray) -> np.ndarray:
    """f64[P,3], where points f32[3,P] are on the head."""
    middle, axes, _ = head_axes(figure)
    out = (points_m.T - middle) @ axes
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def on_face(out: np.ndarray) -> np.ndarray:
    """bool[P], which directions lie between forehead, chin and cheeks."""
    up = out[:, 1]
    reach = np.where(up > 0, up / _FOREHEAD_UP, up / _CHIN_UP)
    return (out[:, 2] > 0) & (reach**2 + (out[:, 0] / _CHEEKS) ** 2 < 1)


def is_turned_to(figure: Figure, position_m: np.ndarray) -> bool:
    """Whether a face can be made out from somewhere, unless it is covered."""
    middle, axes, _ = head_axes(figure)
    way = position_m - middle
    return bool(axes[:, 2] @ way > _FACING_COS * np.linalg.norm(way))


def features(face: Face) -> np.ndarray:
    """f64[5,3], the directions of LANDMARKS of jaxbed.data.crib."""
    eye, corner = EYES * face.apart, MOUTH_WIDTH * face.mouth
    level = MOUTH_UP + 0.02
    spots = [(-eye, EYE_UP), (eye, EYE_UP), (0, NOSE_UP), (-corner, level), (corner, level)]
    return np.array([(x, y, np.sqrt(1 - x * x - y * y)) for x, y in spots])


def on_surface(
    figure: Figure, out: np.ndarray, capsules: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """f64[P,3], the points of a head in some directions: of capsules, or of skull and jaw."""
    middle, axes, radius = head_axes(figure)
    ends, radii = capsules or (figure.ends_m[0, SKULL_AND_JAW], figure.radii_m[0, SKULL_AND_JAW])
    way = out @ axes.T
    start, axis = ends[:, 0], ends[:, 1] - ends[:, 0]
    length = np.maximum(np.linalg.norm(axis, axis=1), 1e-9)
    taper = np.clip((radii[:, 1] - radii[:, 0]) / length, -0.99, 0.99)
    distance = np.full(len(out), 2 * radius)
    for _ in range(_STEPS):  # comes in from outside by what is free
        from_start = middle + distance[:, None, None] * way[:, None] - start
        along = (from_start * axis).sum(axis=-1) / length
        aside = np.sqrt(np.maximum((from_start**2).sum(axis=-1) - along**2, 0))
        # Of the balls that sweep the capsule, the nearest one.
        nearest = np.clip(along + aside * taper / np.sqrt(1 - taper**2), 0, length)
        free = np.hypot(along - nearest, aside) - radii[:, 0] - nearest * taper
        distance -= free.min(axis=1)
    return middle + distance[:, None] * way


def _nose(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Ends f64[1,2,3] and radii f64[1,2], from bridge to tip."""
    middle, axes, radius = head_axes(figure)
    size = radius / _RADIUS_M
    out = np.array([(0.0, EYE_UP - 0.02, 1.0), (0.0, NOSE_UP, 0.95)])
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    low = on_surface(figure, out) - axes[:, 2] * size * np.array([[0.004], [0.001]])
    return low[None], size * np.array([[0.006, 0.0095]])


def head_capsules(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Skull, jaw, nose and ears: ends f64[5,2,3] and radii f64[5,2]."""
    _, axes, radius = head_axes(figure)
    size = radius / _RADIUS_M
    nose = _nose(figure)
    skull = figure.ends_m[0, SKULL_AND_JAW[0]].mean(axis=0)
    side = figure.radii_m[0, SKULL_AND_JAW[0], 0] - 0.001
    ears = [
        skull + np.array([(sign * side, -0.002, -0.012), (sign * side, -0.024, -0.004)]) @ axes.T
        for sign in (1, -1)
    ]
    ends = np.concatenate([figure.ends_m[0, SKULL_AND_JAW], nose[0], ears])
    flesh = figure.radii_m[0, SKULL_AND_JAW]
    return ends, np.concatenate([flesh, nose[1], size * np.full((2, 2), (0.010, 0.007))])


def sample_pacifier(rng: np.random.Generator) -> np.ndarray:
    """Draws f64[4,4], the colours of a pacifier: shield, button, ring, and rim of the shield."""
    bright = rng.uniform(0.05, 0.85, (4, 3)) ** rng.choice([0.5, 1.0, 2.0], (4, 1))
    if rng.random() < 0.3:
        bright[0] = rng.uniform(0.7, 0.9)  # white, or nearly clear
    bright[3] = bright[0] * rng.uniform(0.7, 1.0)
    return np.column_stack([bright, rng.uniform(0.3, 0.85, 4)])


def pacifier(figure: Figure, colours: np.ndarray) -> Part:
    """Puts a pacifier of colours f64[4,4] into the mouth."""
    middle, axes, radius = head_axes(figure)
    size = radius / _RADIUS_M
    out = np.array([(0.0, MOUTH_UP, np.sqrt(1 - MOUTH_UP**2))])
    mouth = on_surface(figure, out)[0]
    front = axes @ out[0] * 0.6 + axes[:, 2] * 0.4
    front /= np.linalg.norm(front)
    left = axes[:, 0]
    frame = np.stack([left, np.cross(front, left), front])  # rows: left, up, front
    shield = [
        ((-reach, up, lift), (reach, up, lift), 0.0065)
        for reach, up, lift in ((0.017, 0.0, 0.006), (0.013, 0.010, 0.004), (0.013, -0.010, 0.004))
    ]
    knob = [((0.0, 0.0, 0.009), (0.0, 0.0, 0.017), 0.008)]
    angles = np.linspace(0, 2 * np.pi, 9)
    circle = np.stack([0.013 * np.sin(angles), -0.016 - 0.013 * np.cos(angles)], axis=1)
    ring = [
        ((*a, 0.019), (*b, 0.019), 0.0028) for a, b in zip(circle[:-1], circle[1:], strict=True)
    ]
    rows = shield + knob + ring
    ends = np.array([row[:2] for row in rows]) * size @ frame + mouth
    radii = size * np.array([[row[2]] * 2 for row in rows])
    colour = np.array([0, 3, 3, 1, *[2] * len(ring)])
    return Part(ends, radii, colours[colour])
