"""How a sleeper looks in near infrared: skin, hair, clothes, and a face of a few strokes.

C capsules, P points. Metres, the bed frame of `jaxbed.simulate.body`. Reflectances are within
[0, 1], set by eye: cloth is bright in near infrared whatever its colour, skin less so, hair dark.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.simulate.body import Figure
from jaxbed.simulate.skeleton import BONE_INDEX, FLESH

_BLEND_M = 0.008  # flesh and clothes bridge the creases between capsules over this distance
_CHUNK = 8192  # points worked on at once: keeps the arrays in the cache
_HEAD = BONE_INDEX["head"]
_SKULL = [flesh.bone for flesh in FLESH].index("head")
_HAIR_AXIS = np.array([0.0, 0.5, -0.87])  # hair grows on this side of the head
_AROUND, _TEMPLES = 0.2, 0.25  # and so far around it to the front, farther at the temples
_HAIR_EDGE = 0.05  # over which it thins out

# How far along its limb a capsule begins, and how much of the limb it covers: 0 at shoulder or
# hip, 1 at elbow or knee, 2 at wrist or ankle. The trunk is always dressed, the head never.
_ALONG = {
    "pelvis": [(-1, 0)] * 5,
    "abdomen": [(-1, 0)] * 3,
    "chest": [(-1, 0)] * 5,
    "head": [(3, 0)] * 3,
    "upper_arm": [(0, 1)],
    "forearm": [(1, 1), (2, 1)],
    "thigh": [(0, 1)],
    "shank": [(1, 0.34), (1.34, 0.66)],
    "foot": [(2, 1)],
}
_BELOW_WAIST = ("pelvis", "thigh", "shank", "foot")


class _Stroke(NamedTuple):
    """A spot on the face, seen from the middle of the skull.

    Attributes:
        left: its direction to the person's left, of a vector of length 1.
        up: its direction to the crown.
        width: its extent to the sides.
        height: its extent upwards.
        shade: by which share it is brighter.
    """

    left: float
    up: float
    width: float
    height: float
    shade: float


_FACE = (
    *(_Stroke(side * 0.33, -0.24, 0.14, 0.07, -0.55) for side in (1, -1)),  # eyes
    *(_Stroke(side * 0.34, 0.02, 0.18, 0.05, -0.40) for side in (1, -1)),  # brows
    _Stroke(0.0, -0.40, 0.09, 0.16, 0.25),  # nose
    _Stroke(0.0, -0.58, 0.14, 0.04, -0.35),  # nostrils
    _Stroke(0.0, -0.76, 0.22, 0.05, -0.45),  # mouth
)


def _table() -> np.ndarray:
    """f64[C,2], where along its limb every capsule begins and what it covers."""
    rest = {name: list(parts) for name, parts in _ALONG.items()}
    for side in ("left_", "right_"):
        rest.update({side + name: list(parts) for name, parts in _ALONG.items()})
    return np.array([rest[flesh.bone].pop(0) for flesh in FLESH], float)


_LIMB = _table().astype(np.float32)
_BONE = np.array([BONE_INDEX[flesh.bone] for flesh in FLESH])
_IS_HEAD = _BONE == _HEAD
_IS_FOOT = np.array([flesh.bone.endswith("foot") for flesh in FLESH])
_IS_BELOW = np.array([flesh.bone.endswith(_BELOW_WAIST) for flesh in FLESH])


@dataclasses.dataclass(frozen=True)
class Look:
    """How one sleeper looks tonight.

    Attributes:
        skin: reflectance.
        hair: the same.
        shirt: the same.
        trousers: the same.
        socks: the same; equal to the skin for bare feet.
        sleeve: how far the sleeves reach: 0 none, 1 to the elbow, 2 to the wrist.
        leg: how far the trousers reach: 0 none, 1 to the knee, 2 to the ankle.
        hairline: how far hair grows into the face, within about -0.2 and 0.2.
        stripe: how much the stripes of the clothes differ, a share of their reflectance.
        stripes_per_m: how many there are.
    """

    skin: float
    hair: float
    shirt: float
    trousers: float
    socks: float
    sleeve: float
    leg: float
    hairline: float
    stripe: float
    stripes_per_m: float


def sample_look(rng: np.random.Generator) -> Look:
    """Draws the look of one adult."""
    skin = rng.uniform(0.42, 0.62)
    return Look(
        skin=skin,
        hair=rng.uniform(0.04, 0.16),
        shirt=rng.uniform(0.2, 0.8),
        trousers=rng.uniform(0.2, 0.8),
        socks=skin if rng.random() < 0.7 else rng.uniform(0.2, 0.8),
        sleeve=rng.choice([0.5, 0.6, 1.9, 2.0]),
        leg=rng.choice([0.5, 0.8, 1.9, 2.0]),
        hairline=rng.uniform(-0.15, 0.1),
        stripe=rng.uniform(0.1, 0.3) if rng.random() < 0.4 else 0.0,
        stripes_per_m=rng.uniform(8, 30),
    )


class Skin(NamedTuple):
    """Where points lie on a body: capsule i64[P], share f32[P] of its length, normal f32[3,P]."""

    capsule: np.ndarray
    share: np.ndarray
    normal: np.ndarray


def find_on_body(figure: Figure, points_m: np.ndarray) -> Skin:
    """Finds which capsule every point of the surface belongs to, and the normal there.

    Args:
        figure: one body.
        points_m: f32[3,P], on its surface.

    Returns:
        The capsules, and outward normals, a mean over the capsules that are about as near.
    """
    parts = [
        _find(figure, points_m[:, first : first + _CHUNK])
        for first in range(0, max(points_m.shape[1], 1), _CHUNK)
    ]
    return Skin(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def _find(figure: Figure, points_m: np.ndarray) -> Skin:
    middle = figure.ends_m[0].mean(axis=(0, 1))
    points = points_m.T - np.float32(middle)
    start, end = np.float32(figure.ends_m[0] - middle).swapaxes(0, 1)
    near, far = np.float32(figure.radii_m[0]).T
    axis = end - start
    square = np.maximum((axis**2).sum(axis=1), 1e-9)
    along = points @ axis.T - (start * axis).sum(axis=1)  # f32[P,C]
    share = np.clip(along / square, 0, 1)
    distance = (points**2).sum(axis=1)[:, None] - 2 * points @ start.T + (start**2).sum(axis=1)
    distance = np.sqrt(np.maximum(distance + share * (share * square - 2 * along), 1e-8))
    above = distance - near - share * (far - near)
    capsule = above.argmin(axis=1)
    weight = np.exp((above.min(axis=1, keepdims=True) - above) / np.float32(_BLEND_M)) / distance
    normal = points * weight.sum(axis=1, keepdims=True) - weight @ start - (weight * share) @ axis
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return Skin(capsule, np.take_along_axis(share, capsule[:, None], 1)[:, 0], normal.T)


def reflect(look: Look, figure: Figure, points_m: np.ndarray, skin: Skin) -> np.ndarray:
    """Tells how bright a body is at points of its surface.

    Args:
        look: how the sleeper looks.
        figure: one body.
        points_m: f32[3,P].
        skin: where they lie on it, from `find_on_body`.

    Returns:
        f32[P], reflectance.
    """
    capsule = skin.capsule
    begin, length = _LIMB[capsule].T
    reach = np.where(_IS_BELOW, look.leg, look.sleeve)[capsule]
    dressed = begin + skin.share * length < reach

    bone = _BONE[capsule]
    upwards = figure.rotations[0, bone, :, 1]
    height = ((points_m.T - figure.origins_m[0, bone]) * upwards).sum(axis=1)
    stripes = 1 + look.stripe * np.sign(np.sin(2 * np.pi * look.stripes_per_m * height))
    cloth = np.where(_IS_BELOW, look.trousers, look.shirt)[capsule] * stripes

    bare = np.where(_IS_FOOT, look.socks, look.skin)[capsule]
    head = _IS_HEAD[capsule]
    bare[head] = _head(look, figure, points_m[:, head])
    return np.clip(np.where(dressed, cloth, bare), 0, 1).astype(np.float32)


def _head(look: Look, figure: Figure, points_m: np.ndarray) -> np.ndarray:
    """f64[P], reflectance of face and hair."""
    out = (points_m.T - figure.ends_m[0, _SKULL, 0]) @ figure.rotations[0, _HEAD]
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    face = np.full(len(out), look.skin)
    for stroke in _FACE:
        away = ((out[:, 0] - stroke.left) / stroke.width) ** 2
        away += ((out[:, 1] - stroke.up) / stroke.height) ** 2
        face *= 1 + stroke.shade * np.exp(-away / 2) * (out[:, 2] > 0)
    behind = out @ _HAIR_AXIS + _AROUND + _TEMPLES * out[:, 0] ** 2 + look.hairline
    hairy = 1 / (1 + np.exp(-behind / _HAIR_EDGE))
    return face + hairy * (look.hair - face)
