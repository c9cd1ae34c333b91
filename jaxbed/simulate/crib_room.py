"""A crib in a nursery: mattress, rails, walls, and where rays meet them.

h w height and width of an image, K bands of colour. Metres, the bed frame of
`jaxbed.simulate.body`: the middle of the mattress is the origin, its surface z = 0. Colours are
reflectances in the bands red, green, blue and near infrared; K of them are drawn.
"""

import dataclasses

import numpy as np

from jaxbed.simulate.camera import Camera

PATTERNS = ("plain", "stripes", "checks", "dots")
"""Of sheets and blankets."""

_MATTRESS_M = 0.10  # its thickness
_TOP_RAIL_M = 0.035  # its height
_BELOW_M = 0.14  # how far bars reach below the surface of the mattress
_PLANK_M = 0.24  # two planks of the floor
_ROUND = 0.8  # how far the surface of a bar turns away at its edges


@dataclasses.dataclass(frozen=True)
class Crib:
    """A crib and the room around it.

    Attributes:
        width_m: of the mattress.
        length_m: of the mattress.
        rail_m: how high the rails reach above the mattress.
        spacing_m: distance of the bars.
        bar_m: their width.
        board: whether the head end is a solid board.
        floor_m: how far the floor lies below the mattress.
        walls_m: f64[2,3], the lowest and the highest corner of the room.
        pattern: index into PATTERNS, of the sheet.
        pitch_m: its size.
        sheet: f64[2,4], the colours of the pattern.
        frame: f64[4], the colour of rails and boards.
        walls: f64[4], the colour of the walls.
        floor: f64[2,4], the colours of its planks.
    """

    width_m: float
    length_m: float
    rail_m: float
    spacing_m: float
    bar_m: float
    board: bool
    floor_m: float
    walls_m: np.ndarray
    pattern: int
    pitch_m: float
    sheet: np.ndarray
    frame: np.ndarray
    walls: np.ndarray
    floor: np.ndarray


@dataclasses.dataclass(frozen=True)
class Surfaces:
    """What the pixels of an image show; changed in place as things are drawn.

    Attributes:
        camera: the camera.
        rays: f32[3,h,w], where the pixels look, a length of 1 along the optical axis.
        bands: which of the four bands are drawn, K of them.
        depth: f32[h,w], in lengths of the rays.
        normal: f32[3,h,w].
        colour: f32[K,h,w].
    """

    camera: Camera
    rays: np.ndarray
    bands: tuple[int, ...]
    depth: np.ndarray
    normal: np.ndarray
    colour: np.ndarray

    def nearer(self, depth: np.ndarray) -> np.ndarray:
        """i64[P], the pixels in which something at a depth f32[h,w] is before all the rest."""
        return np.flatnonzero(depth < self.depth)

    def points(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """f32[3,P], where the rays of pixels i64[P] are at a depth f32[P]."""
        origin = np.float32(self.camera.position_m)[:, None]
        return origin + depth * self.rays.reshape(3, -1)[:, pixels]

    def paint(self, pixels: np.ndarray, depth: np.ndarray, normal, colour: np.ndarray) -> None:
        """Draws a surface into pixels i64[P]: depth f32[P], normal f32[3,P], colour f32[4,P]."""
        self.depth.reshape(-1)[pixels] = depth
        for band, row in zip(self.bands, self.colour.reshape(len(self.bands), -1), strict=True):
            row[pixels] = colour[band]
        for axis, row in enumerate(self.normal.reshape(3, -1)):
            row[pixels] = normal[axis]


def pattern(kind: int, pitch_m: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """f32[...] within [0, 1], which of two colours a printed cloth has at points."""
    if PATTERNS[kind] == "plain":
        return np.zeros_like(x)
    wave = np.float32(2 * np.pi / pitch_m)
    across = np.sin(wave * x)
    if PATTERNS[kind] == "stripes":
        return np.clip(0.5 + 4 * across, 0, 1)
    along = np.sin(wave * y)
    if PATTERNS[kind] == "checks":
        return (np.clip(0.5 + 4 * across, 0, 1) + np.clip(0.5 + 4 * along, 0, 1)) / 2
    return np.clip(4 * (across * along - 0.5), 0, 1)


def draw_room(camera: Camera, crib: Crib, bands: tuple[int, ...]) -> Surfaces:
    """Draws the room and the empty crib without its rails."""
    x, y = camera.rays()
    rays = np.stack([a * x + b * y + c for a, b, c in np.float32(camera.axes.T)])
    rays[np.abs(rays) < 1e-6] = 1e-6
    per_metre = 1 / rays
    leave = _cross(crib.walls_m - camera.position_m, per_metre)[1]
    depth, plane = leave.min(axis=0), leave.argmin(axis=0)
    far = np.array([crib.width_m / 2, crib.length_m / 2, 0])
    box = np.array([far * (-1, -1, 1) - (0, 0, _MATTRESS_M), far])
    enter, leave = _cross(box - camera.position_m, per_metre)
    near = enter.max(axis=0)
    hit = (near <= leave.min(axis=0)) & (near < depth)
    depth, plane = np.where(hit, near, depth), np.where(hit, enter.argmax(axis=0), plane)

    colour = np.empty((len(bands), *camera.size), np.float32)
    normal = np.where(np.arange(3)[:, None, None] == plane, -np.sign(rays), np.float32(0))
    surfaces = Surfaces(camera, rays, bands, depth, normal, colour)
    tone = np.float32([0.9, 1.0, 1.0])[plane]  # two walls meet in a visible corner
    colour[:] = np.float32(crib.walls[list(bands)])[:, None, None] * tone
    ground = (plane == 2) & (rays[2] < 0) & ~hit
    for pixels, kind, pitch, colours in (
        (np.flatnonzero(ground), PATTERNS.index("stripes"), _PLANK_M, crib.floor),
        (np.flatnonzero(hit), crib.pattern, crib.pitch_m, crib.sheet),
    ):
        x, y, _ = surfaces.points(pixels, depth.reshape(-1)[pixels])
        share = pattern(kind, pitch, x, y)
        colour.reshape(len(bands), -1)[:, pixels] = mix(colours[:, list(bands)], share)
    return surfaces


def draw_rails(surfaces: Surfaces, crib: Crib) -> None:
    """Draws the rails in front of, between and behind what is there."""
    half = crib.width_m / 2 + 0.02, crib.length_m / 2 + 0.02
    origin, rays = np.float32(surfaces.camera.position_m), surfaces.rays
    for axis in (0, 1):
        per_metre = 1 / rays[axis]
        for sign in (-1, 1):
            depth = (np.float32(sign * half[axis]) - origin[axis]) * per_metre
            z = origin[2] + depth * rays[2]
            seen = (depth > 0) & (depth < surfaces.depth) & (z < crib.rail_m) & (z > -_BELOW_M)
            pixels = np.flatnonzero(seen)
            x, y, z = surfaces.points(pixels, depth.reshape(-1)[pixels])
            solid = crib.board and axis == 1 and sign == 1
            part, out = _rail(crib, (y, x)[axis], z, half[1 - axis], solid)
            pixels = pixels[part]
            normal = np.zeros((3, len(out)), np.float32)
            normal[axis] = -np.sign(rays[axis].reshape(-1)[pixels]) * np.sqrt(1 - out**2)
            normal[1 - axis] = out
            depth = depth.reshape(-1)[pixels]
            surfaces.paint(pixels, depth, normal, np.float32(crib.frame))


def _rail(
    crib: Crib, along: np.ndarray, z: np.ndarray, half_m: float, solid: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which points between its top and bottom a rail fills, bool[P], and how it turns aside."""
    across = (along / np.float32(crib.spacing_m) + 0.5) % 1 - 0.5
    across *= np.float32(2 * crib.spacing_m / crib.bar_m)
    flat = (z > crib.rail_m - _TOP_RAIL_M) | (z < -_BELOW_M / 2) | solid
    part = (np.abs(along) < half_m) & (flat | (np.abs(across) < 1))
    return part, np.where(flat, 0, _ROUND * across)[part]


def _cross(corners_m: np.ndarray, per_metre: np.ndarray) -> np.ndarray:
    """f32[2,3,h,w], where rays from the origin enter and leave three slabs f64[2,3]."""
    first, second = np.float32(corners_m)[..., None, None] * per_metre
    return np.stack([np.minimum(first, second), np.maximum(first, second)])


def mix(colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    """f32[K,P], between two colours f64[2,K]."""
    first, second = np.float32(colours)[..., None]
    return first + share * (second - first)
