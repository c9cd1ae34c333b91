"""What lies over an infant's face, or elsewhere in its crib: toys, hands, pillows and blankets.

C capsules. Metres, the bed frame of `jaxbed.simulate.body`; colours as in
`jaxbed.simulate.crib_room`. Toys, hands and pillows are capsules in a frame of their own, which
`put` brings to its place: x to the right, y to the top, z away from what they lie on.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.simulate.bedding import Blanket
from jaxbed.simulate.body import Figure
from jaxbed.simulate.crib_looks import sample_cloth
from jaxbed.simulate.crib_room import PATTERNS, Crib
from jaxbed.simulate.face import SKULL_AND_JAW, Face, Part, head_axes, on_surface
from jaxbed.simulate.hand import ENDS_M as HAND_ENDS_M
from jaxbed.simulate.hand import RADII_M as HAND_RADII_M
from jaxbed.simulate.skeleton import BONE_INDEX, FLESH, JOINTS

_PALM_M = np.array([0.0, 0.09, 0.0])  # of the hand, that comes to lie on the face
_NECK = JOINTS.index("neck")
_CHEST = [c for c, flesh in enumerate(FLESH) if flesh.bone == "chest"]
_CHEST_BONE = BONE_INDEX["chest"]
_HEM_UP = {"half": 0.34, "chin": -1.0, "whole": 9.0}
"""How far a cloth reaches up the head, in radii of it: over nose and mouth, below, or over all."""


class Cloth(NamedTuple):
    """What a blanket is made of: colours f64[2,4] of a pattern, its kind and size in metres."""

    colours: np.ndarray
    pattern: int
    pitch_m: float


@dataclasses.dataclass(frozen=True)
class Shroud:
    """A cloth over the head or the shoulders of who sits or stands.

    Attributes:
        ends_m: f64[C,2,3], what the cloth lies over, a hull of capsules.
        radii_m: f64[C,2].
        middle_m: f64[3], of the face.
        crown: f64[3], upwards in the head.
        hem_m: how far above the middle of the face it ends.
        folds: how many there are around the head.
        depth: how far they turn its surface.
    """

    ends_m: np.ndarray
    radii_m: np.ndarray
    middle_m: np.ndarray
    crown: np.ndarray
    hem_m: float
    folds: float
    depth: float


def put(part: Part, axes: np.ndarray, at_m: np.ndarray) -> Part:
    """Brings a part to a place f64[3], its x, y and z along the rows of f64[3,3]."""
    return part._replace(ends_m=part.ends_m @ axes + at_m)


def frame_on(out: np.ndarray, top: np.ndarray, turn: float = 0.0) -> np.ndarray:
    """f64[3,3], rows x, y, z: z along `out`, y as near to `top` as it goes, then turned."""
    z = out / np.linalg.norm(out)
    x = np.cross(top, z)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([cos * x + sin * y, cos * y - sin * x, z])


def sample_toy(rng: np.random.Generator) -> Part:
    """Draws a plush animal, 20 to 30 cm tall, on its back; its middle is between its arms."""
    fur, other = sample_cloth(rng), sample_cloth(rng)
    dark = np.array([0.02, 0.02, 0.02, 0.1])
    size = rng.uniform(0.9, 1.25)
    ear = rng.uniform(0.01, 0.07)  # of a bear or of a rabbit
    rows = [
        ((0, -0.03, 0.055), (0, 0.02, 0.05), 0.055, 0.05, fur),
        ((-0.012, 0.09, 0.055), (0.012, 0.09, 0.055), 0.052, 0.052, fur),
        ((0, 0.08, 0.105), (0, 0.078, 0.112), 0.018, 0.015, other),
        ((0, 0.086, 0.124), (0.001, 0.086, 0.124), 0.007, 0.007, dark),
        ((0, -0.03, 0.075), (0, 0.0, 0.075), 0.04, 0.036, other),
    ]
    for side in (-1, 1):
        rows += [
            ((side * 0.035, 0.13, 0.05), (side * 0.045, 0.135 + ear, 0.045), 0.018, 0.014, fur),
            ((side * 0.04, 0.03, 0.05), (side * 0.10, 0.05, 0.05), 0.02, 0.018, fur),
            ((side * 0.035, -0.07, 0.045), (side * 0.06, -0.12, 0.05), 0.026, 0.022, fur),
            ((side * 0.02, 0.105, 0.102), (side * 0.021, 0.105, 0.102), 0.006, 0.006, dark),
        ]
    ends = size * np.array([row[:2] for row in rows], float)
    radii = size * np.array([row[2:4] for row in rows])
    return Part(ends, radii, np.array([row[4] for row in rows]))


def sample_pillow(rng: np.random.Generator) -> Part:
    """Draws a small pillow, about 25 cm by 30 cm and 7 cm thick."""
    cloth, size = sample_cloth(rng), rng.uniform(0.85, 1.15)
    x = np.linspace(-0.11, 0.11, 9)
    ends = np.stack([np.stack([x, 0 * x - 0.10, 0 * x + 0.03], 1)] * 2, axis=1)
    ends[:, 1, 1] = 0.10
    radii = np.repeat(0.022 + 0.012 * np.cos(x / 0.08)[:, None], 2, axis=1)
    return Part(size * ends, size * radii, np.repeat(cloth[None], len(x), axis=0))


def sample_hand(rng: np.random.Generator, face: Face) -> Part:
    """Draws an adult's hand and sleeve; the middle of the palm is the origin, fingers along y."""
    ends = (HAND_ENDS_M - _PALM_M) * (rng.choice([-1, 1]), 1, 1)
    skin = face.skin * np.array([0.9, 0.88, 0.86, 0.95])
    colours = np.repeat(skin[None], len(ends), axis=0)
    if rng.random() < 0.6:
        colours[0] = sample_cloth(rng)
    size = rng.uniform(0.95, 1.15)
    return Part(size * (ends + (0, 0, 0.012)), size * HAND_RADII_M, colours)


def lay_on_face(
    rng: np.random.Generator, figure: Figure, part: Part, position_m: np.ndarray
) -> Part:
    """Lays a part over the face: upon it, or a little before it on the side of a camera.

    Args:
        rng: where the randomness comes from.
        figure: one body.
        part: what to lay there; the height of its z tells how thick it is.
        position_m: f64[3], of the camera.
    """
    middle, axes, radius = head_axes(figure)
    way = position_m - middle
    out = axes[:, 2] + rng.uniform(0.1, 0.6) * way / np.linalg.norm(way)
    spot = out / np.linalg.norm(out) + axes[:, 1] * rng.uniform(-0.35, 0.05)
    local = (spot / np.linalg.norm(spot)) @ axes
    at = on_surface(figure, local[None])[0]
    side = axes[:, 1] if np.abs(out @ axes[:, 1]) < 0.9 * np.linalg.norm(out) else axes[:, 0]
    frame = frame_on(out, side, rng.uniform(-np.pi, np.pi))
    if frame[1, 2] > 0.2:  # a forearm comes from above, not out of the mattress
        frame = np.stack([-frame[0], -frame[1], frame[2]])
    return put(part, frame, at)


def lay_beside(rng: np.random.Generator, crib: Crib, figure: Figure, part: Part) -> Part:
    """Lays a part on the mattress, where it is away from the head."""
    middle = head_axes(figure)[0]
    half = np.array([crib.width_m, crib.length_m]) / 2 - 0.15
    for _ in range(8):
        at = np.append(rng.uniform(-half, half), 0.0)
        if np.linalg.norm(at[:2] - middle[:2]) > 0.24:
            break
    return put(part, frame_on(np.array([0, 0, 1.0]), np.array([0, 1.0, 0]), rng.uniform(-3, 3)), at)


def sample_cloth_of_blanket(rng: np.random.Generator) -> Cloth:
    """Draws what a blanket is made of."""
    colours = np.stack([sample_cloth(rng), sample_cloth(rng)])
    return Cloth(colours, int(rng.integers(len(PATTERNS))), rng.uniform(0.03, 0.12))


def sample_blanket(rng: np.random.Generator, crib: Crib) -> Blanket:
    """Draws a blanket spread over all of a crib."""
    thickness = rng.uniform(0.005, 0.014)
    count, spread = 8, rng.uniform(0.002, 0.006)
    number = 2 * np.pi / rng.uniform(0.08, 0.3, count)
    heading, phase = rng.uniform(0, 2 * np.pi, (2, count))
    size = np.full(count, spread * np.sqrt(2 / count))
    waves = np.stack([size, number * np.cos(heading), number * np.sin(heading), phase], axis=1)
    return Blanket(
        left_m=-crib.width_m / 2 + rng.uniform(0.0, 0.06),
        right_m=crib.width_m / 2 - rng.uniform(0.0, 0.06),
        foot_m=-crib.length_m / 2 + 0.01,
        head_m=crib.length_m / 2,
        slant=0.0,
        thickness_m=thickness,
        softness_m=0.012 + thickness,
        fall=rng.uniform(1.2, 2.5),
        waves=waves,
        reflectance=1.0,
        stripes=np.zeros(4),
        turned_m=0.0,
        lining=1.0,
    )


def pull_to(
    blanket: Blanket, figure: Figure, place_m: np.ndarray, length_m: float = np.inf
) -> Blanket:
    """Pulls a blanket of some length up to a place (x, y), its edge across who lies there."""
    axis = figure.joints_m[0, _NECK] - figure.origins_m[0, 0]
    slant = float(np.clip(-axis[0] / max(axis[1], 0.1), -0.5, 0.5))
    head = place_m[1] - slant * place_m[0]
    foot = max(blanket.foot_m, head - length_m)
    return dataclasses.replace(blanket, slant=slant, head_m=head, foot_m=foot)


def length_to_hips(figure: Figure, place_m: np.ndarray) -> float:
    """How long a blanket is that reaches from a place to the hips: legs show who lies how."""
    return place_m[1] - figure.origins_m[0, 0, 1]


def edge_places(figure: Figure) -> dict[str, np.ndarray]:
    """Where the edge of a blanket goes, f64[3] each: to "chest", "half" the face, "whole" head."""
    middle, axes, radius = head_axes(figure)
    neck = figure.joints_m[0, _NECK]
    along = neck - figure.origins_m[0, 0]
    along = along * (1, 1, 0) / np.linalg.norm(along[:2])
    crown = ((figure.ends_m[0, SKULL_AND_JAW] - middle).reshape(-1, 3) @ along).max()
    return {
        "chest": neck - 0.05 * along,
        "half": middle + 0.4 * radius * along,
        "whole": middle + (crown + 1.5 * radius) * along,
    }


def sample_shroud(rng: np.random.Generator, figure: Figure, reach: str) -> Shroud:
    """Hangs a cloth over who sits or stands: over the "whole" head, to "half" the face or "chin".

    Args:
        rng: where the randomness comes from.
        figure: one body.
        reach: how far up it is.
    """
    middle, axes, radius = head_axes(figure)
    loose = rng.uniform(1.12, 1.3)
    head = figure.ends_m[0, SKULL_AND_JAW]
    skull, jaw = head.mean(axis=1)
    ends, radii = figure.ends_m[0, _CHEST], figure.radii_m[0, _CHEST] * 1.15
    if reach != "chin":
        below = figure.origins_m[0, _CHEST_BONE] - 0.05 * figure.rotations[0, _CHEST_BONE, :, 1]
        front = jaw + 0.012 * axes[:, 2]
        ends = np.concatenate([ends, head[:1], [(front, jaw), (skull, below)]])
        thick = loose * radius * np.array([(0.62, 0.62), (0.8, 0.8)])
        thick[1, 1] = 0.11
        radii = np.concatenate([radii, figure.radii_m[0, SKULL_AND_JAW[:1]] * loose, thick])
    hem = _HEM_UP[reach] + (rng.uniform(-0.08, 0.12) if reach == "half" else 0.0)
    return Shroud(
        ends, radii, middle, axes[:, 1], hem * radius, rng.uniform(6, 14), rng.uniform(0.15, 0.4)
    )
