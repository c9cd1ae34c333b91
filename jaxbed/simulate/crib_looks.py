"""What an infant wears and what lies in its crib: colours by day, reflectances by night.

K bands, P points. Colours are f64[4], reflectances in red, green, blue and near infrared. Set by
eye: cloth is bright in near infrared whatever its colour, as in `jaxbed.simulate.looks`.
"""

import colorsys
import dataclasses

import numpy as np

from jaxbed.simulate.body import Figure
from jaxbed.simulate.crib_room import PATTERNS, Crib
from jaxbed.simulate.face import Face
from jaxbed.simulate.looks import Look, Skin, reflect

DAY, NIGHT = (0, 1, 2), (3,)
"""The bands that a camera sees by day and by night."""


@dataclasses.dataclass(frozen=True)
class InfantLook:
    """What one infant looks like.

    Attributes:
        face: its face.
        bands: its skin and clothes in every band; as of `jaxbed.simulate.looks`.
    """

    face: Face
    bands: tuple[Look, Look, Look, Look]

    def body(self, figure: Figure, points_m: np.ndarray, skin: Skin, bands) -> np.ndarray:
        """f32[K,P], the colours of points f32[3,P] of the body."""
        return np.stack([reflect(self.bands[band], figure, points_m, skin) for band in bands])


def sample_cloth(rng: np.random.Generator) -> np.ndarray:
    """Draws f64[4], the colour of a cloth: white, pale or bright."""
    saturation = rng.choice([0.04, 0.25, 0.7], p=[0.3, 0.4, 0.3]) * rng.uniform(0.6, 1.3)
    value = rng.uniform(0.35, 0.95)
    colour = colorsys.hsv_to_rgb(rng.random(), min(saturation, 1.0), value)
    return np.append(np.power(colour, 1.8), rng.uniform(0.25, 0.8))


def sample_look(rng: np.random.Generator, face: Face) -> InfantLook:
    """Draws the clothes of an infant with some face."""
    shirt, trousers, socks = (sample_cloth(rng) for _ in range(3))
    if rng.random() < 0.6:  # one piece
        trousers = shirt
    bare = rng.random() < 0.4
    shared = {
        "sleeve": rng.choice([0.3, 0.6, 1.9, 2.0]),
        "leg": rng.choice([0.1, 0.8, 1.9, 2.0]),
        "hairline": -0.1,
        "stripe": rng.uniform(0.1, 0.35) if rng.random() < 0.4 else 0.0,
        "stripes_per_m": rng.uniform(15, 45),
    }
    bands = [
        Look(
            skin=face.skin[band],
            hair=face.hair[band],
            shirt=shirt[band],
            trousers=trousers[band],
            socks=face.skin[band] if bare else socks[band],
            **shared,
        )
        for band in range(4)
    ]
    return InfantLook(face, tuple(bands))


def sample_crib(rng: np.random.Generator) -> Crib:
    """Draws a crib and the room around it."""
    wood = np.array([(0.75, 0.73, 0.70, 0.7), (0.35, 0.2, 0.1, 0.5), (0.1, 0.05, 0.03, 0.35)])
    planks = wood[rng.integers(3)] * rng.uniform(0.6, 1.1)
    walls = sample_cloth(rng)
    sheet = np.stack([sample_cloth(rng), sample_cloth(rng)])
    if rng.random() < 0.5:
        sheet[0] = rng.uniform(0.6, 0.9)
    sides = rng.uniform(1.05, 2.0, (2, 2)) + (0.3, 0.7)
    floor = rng.uniform(0.3, 0.55)
    return Crib(
        width_m=rng.uniform(0.58, 0.72),
        length_m=rng.uniform(1.05, 1.3),
        rail_m=rng.uniform(0.40, 0.54),
        spacing_m=rng.uniform(0.065, 0.09),
        bar_m=rng.uniform(0.014, 0.024),
        board=rng.random() < 0.4,
        floor_m=floor,
        walls_m=np.array([(*-sides[0], -floor), (*sides[1], 2.3)]),
        pattern=rng.integers(len(PATTERNS)),
        pitch_m=rng.uniform(0.04, 0.14),
        sheet=sheet,
        frame=wood[rng.integers(3)] * rng.uniform(0.7, 1.2),
        walls=walls,
        floor=np.stack([planks, 0.8 * planks]),
    )
