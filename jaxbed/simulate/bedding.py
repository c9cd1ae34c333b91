"""A bed with its pillow, and blankets that drape over whoever lies there.

H W rows and columns of the grid, K waves. Metres, the bed frame of `jaxbed.simulate.body`: the
middle of the mattress is the origin, its surface z = 0.

A blanket is not computed as a cloth: it is the least surface above body and bed that falls no
more steeply than the cloth allows, smoothed, and never below what it covers.
"""

import dataclasses

import cv2
import numpy as np

from jaxbed.simulate.body import Figure
from jaxbed.simulate.mattress import underside
from jaxbed.simulate.relief import Grid, Relief

_CELL_M = 0.0175
_HALF_WIDTH, _HALF_LENGTH = 68, 80  # of the grid, in cells: 2.38 m and 2.80 m in all
_HANG = 3.0  # slope of what hangs over the edge of the bed
_HEAD_M = 0.09  # size of the hollow that a head makes in the pillow
_HOLLOW = 0.8  # how deep it is, of the pillow's height
_STEEPEST = 4.0  # that a cloth may fall
_KERNELS = tuple(
    cv2.getStructuringElement(shape, (3, 3)) for shape in (cv2.MORPH_RECT, cv2.MORPH_CROSS)
)

_BUMP = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
_BUMP_CELLS = 1.5  # what still sticks out is rounded over so many cells

GRID = Grid(
    np.float32(_CELL_M * np.arange(-_HALF_WIDTH, _HALF_WIDTH + 1)),
    np.float32(_CELL_M * np.arange(_HALF_LENGTH, -_HALF_LENGTH - 1, -1)),
)
"""Covers every bed, with some floor around it; symmetric about its middle."""


@dataclasses.dataclass(frozen=True)
class Bed:
    """A bed and its linen.

    Attributes:
        width_m: of the mattress.
        length_m: of the mattress.
        floor_m: how far the floor lies below the mattress.
        headboard_m: how high a board on the wall behind it stands above the mattress.
        pillow_m: f64[5], middle (x, y), width, length and height; height 0 for none.
        waves: f64[K,4], wrinkles of the sheet, see `ripple`.
        sheet: reflectance.
        pillow: reflectance.
        frame: reflectance.
    """

    width_m: float
    length_m: float
    floor_m: float
    headboard_m: float
    pillow_m: np.ndarray
    waves: np.ndarray
    sheet: float
    pillow: float
    frame: float


@dataclasses.dataclass(frozen=True)
class Blanket:
    """A blanket, spread out or folded.

    Attributes:
        left_m: where it ends, seen from above.
        right_m: the same.
        foot_m: the same.
        head_m: the same, along the middle of the bed.
        slant: rise of the upper edge per metre to the right.
        thickness_m: how far its surface lies above what it covers, at least.
        softness_m: over which distance it bridges hollows.
        fall: the steepest slope it takes on the bed.
        waves: f64[K,4], its folds, see `ripple`.
        reflectance: of the cloth.
        stripes: f64[4], a wave, see `ripple`: bands brighter and darker by a share of the
            reflectance, its amplitude.
        turned_m: width of a strip along the upper edge that is turned over.
        lining: reflectance of that strip.
    """

    left_m: float
    right_m: float
    foot_m: float
    head_m: float
    slant: float
    thickness_m: float
    softness_m: float
    fall: float
    waves: np.ndarray
    reflectance: float
    stripes: np.ndarray
    turned_m: float
    lining: float

    def __post_init__(self):
        if min(self.thickness_m, self.softness_m) <= 0 or not 0 < self.fall <= _STEEPEST:
            raise ValueError(f"a blanket needs thickness, softness, fall in (0, 4]: {self}")


def blend(first: Blanket, last: Blanket, share: float) -> Blanket:
    """Makes the blanket on the way from one to another, at a share within [0, 1]."""
    pairs = (
        (field.name, getattr(first, field.name), getattr(last, field.name))
        for field in dataclasses.fields(Blanket)
    )
    return Blanket(**{name: a + share * (b - a) for name, a, b in pairs})


def ripple(waves: np.ndarray, grid: Grid) -> np.ndarray:
    """Adds up plane waves.

    Args:
        waves: f64[K,4], amplitude, radians per metre in x and y, and phase.
        grid: where.

    Returns:
        f32[H,W], the sum of amplitude * cos(x kx + y ky + phase).
    """
    size, kx, ky, phase = np.asarray(waves, np.float32).reshape(-1, 4).T
    across, down = np.outer(kx, grid.x_m) + phase[:, None], np.outer(grid.y_m, ky)
    return size * np.cos(down) @ np.cos(across) - size * np.sin(down) @ np.sin(across)


def body_top(figure: Figure, grid: Grid = GRID) -> np.ndarray:
    """f32[N,H,W], the highest point of N bodies above every point; minus infinite beside them."""
    upside_down = dataclasses.replace(figure, ends_m=figure.ends_m * (1, 1, -1))
    return -underside(upside_down, grid.x_m, grid.y_m)


def make_bed(bed: Bed, head_m: np.ndarray, grid: Grid = GRID) -> Relief:
    """Makes a bed without a blanket.

    All of it lies within the box under the mattress, wrinkles and pillow apart.

    Args:
        bed: the bed.
        head_m: f64[>=2], where a head (x, y) makes a hollow in the pillow.
        grid: where heights are wanted.
    """
    pillow, wrinkles = _pillow(bed, head_m, grid), ripple(bed.waves, grid)
    inside = np.clip(-_beside(bed, grid) / grid.cell_m, 0, 1)
    return Relief(
        grid,
        _mix(-bed.floor_m - 0.01, wrinkles - wrinkles.min() + pillow, inside),
        _mix(bed.frame, np.where(pillow > 0.005, bed.pillow, bed.sheet), inside),
    )


def drape(relief: Relief, bed: Bed, blanket: Blanket, top_m: np.ndarray) -> Relief:
    """Lays a blanket over a bed and the body in it.

    Args:
        relief: the bed, from `make_bed`.
        bed: the same.
        blanket: the blanket.
        top_m: f32[H,W], the highest point of the body, from `body_top`.

    Returns:
        The bed with the blanket on it. Wherever the blanket lies, apart from the cells of its
        rim, it is at least its thickness above bed and body.
    """
    grid = relief.grid
    # A cell farther than the body, so that it does not show between the points of the grid.
    beneath = np.maximum(relief.height_m, cv2.dilate(top_m, _KERNELS[0]))
    surface = _spread(beneath, blanket.fall * grid.cell_m)
    surface = _smooth(surface, blanket.softness_m / grid.cell_m)
    surface += _smooth(cv2.dilate(np.maximum(beneath - surface, 0), _BUMP), _BUMP_CELLS)
    surface = surface - _HANG * np.maximum(_beside(bed, grid), 0)
    folds = ripple(blanket.waves, grid)
    surface = np.maximum(surface, beneath) + blanket.thickness_m + folds - folds.min()

    from_edge = blanket.head_m + blanket.slant * grid.x_m + 3 * folds[len(folds) // 2]
    from_edge = from_edge - grid.y_m[:, None]
    x, y = grid.x_m, grid.y_m[:, None]
    room = np.minimum(np.minimum(x - blanket.left_m, blanket.right_m - x), y - blanket.foot_m)
    cover = np.clip(np.minimum(room, from_edge) / grid.cell_m + 0.5, 0, 1)
    stripe = blanket.stripes[0]
    bands = np.clip(3 * ripple(blanket.stripes, grid), -stripe, stripe)
    cloth = blanket.reflectance * (1 + bands)
    cloth = np.where(from_edge < blanket.turned_m, blanket.lining, cloth)
    return Relief(
        grid,
        _mix(relief.height_m, surface, cover),
        _mix(relief.reflectance, np.clip(cloth, 0, 1), cover),
    )


def _mix(outside: np.ndarray | float, inside: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (outside + share * (inside - outside)).astype(np.float32)


def _smooth(field: np.ndarray, cells: float) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), cells)


def _beside(bed: Bed, grid: Grid) -> np.ndarray:
    """f32[H,W], how far a point lies beside the mattress; negative on it."""
    across = np.abs(grid.x_m) - bed.width_m / 2
    along = np.abs(grid.y_m) - bed.length_m / 2
    return np.maximum(across, along[:, None])


def _pillow(bed: Bed, head_m: np.ndarray, grid: Grid) -> np.ndarray:
    """f32[H,W], its height."""
    x, y, width, length, height = bed.pillow_m
    across = np.clip(1 - (2 * (grid.x_m - x) / width) ** 4, 0, None)
    along = np.clip(1 - (2 * (grid.y_m - y) / length) ** 4, 0, None)
    near = [
        np.exp(-((at - head) ** 2) / (2 * _HEAD_M**2))
        for at, head in ((grid.x_m, head_m[0]), (grid.y_m, head_m[1]))
    ]
    full = height * np.sqrt(along)[:, None] * np.sqrt(across)
    return full * (1 - _HOLLOW * near[1][:, None] * near[0])


def _spread(height: np.ndarray, step: float) -> np.ndarray:
    """Raises heights until none is lower than a neighbour by more than `step` a cell."""
    low = float(height.min())
    for n in range(int(np.ceil((float(height.max()) - max(low, 0.0)) / step))):
        height = np.maximum(height, cv2.dilate(height, _KERNELS[n % 2]) - np.float32(step))
    return height
