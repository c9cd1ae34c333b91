"""A landscape of heights over the bed, and where rays meet it.

H W rows and columns of the grid, h w height and width of an image, P points, K levels. Metres,
the bed frame of `jaxbed.simulate.body`; rows descend in y, so that the head of the bed is first.
"""

import dataclasses

import cv2
import numpy as np

_STEP_M = 0.012  # between planes above the mattress
_LEVELS_BELOW = 12  # planes between the mattress and the floor
_HALVINGS = 3  # between two planes
_CHUNK = 1 << 17  # heights looked up at once: keeps the arrays in the cache
_WIDE = 1024
_MARGIN_M = 0.004


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where heights are given: x f32[W] ascending, y f32[H] descending, square cells."""

    x_m: np.ndarray
    y_m: np.ndarray

    @property
    def cell_m(self) -> float:
        """Distance between neighbours."""
        return float(self.x_m[1] - self.x_m[0])

    def look_up(self, field: np.ndarray, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
        """Interpolates a field f32[H,W] at points f32[P]; beyond the rim it stays the same."""
        if not len(x_m):
            return np.empty(0, np.float32)
        column = np.float32(x_m - self.x_m[0]) / np.float32(self.cell_m)
        row = np.float32(self.y_m[0] - y_m) / np.float32(self.cell_m)
        shape = -(-len(x_m) // _WIDE), _WIDE  # OpenCV allows no longer rows than 32767
        found = _interpolate(field, np.resize(column, shape), np.resize(row, shape))
        return found.reshape(-1)[: len(x_m)]


def _interpolate(field: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return cv2.remap(field, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclasses.dataclass(frozen=True)
class Relief:
    """What lies on the bed, and the bed.

    Attributes:
        grid: where.
        height_m: f32[H,W]; the mattress is 0, lowest on the rim.
        reflectance: f32[H,W], within [0, 1].
    """

    grid: Grid
    height_m: np.ndarray
    reflectance: np.ndarray

    def normals(self, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
        """f32[3,P], the upward normals at points f32[P]."""
        down, across = np.gradient(self.height_m, np.float32(self.grid.cell_m))
        slope = [self.grid.look_up(field, x_m, y_m) for field in (across, -down)]
        normal = np.stack([-slope[0], -slope[1], np.ones_like(x_m)])
        return normal / np.sqrt((normal**2).sum(axis=0))


def meet(
    relief: Relief, origin_m: np.ndarray, rays: np.ndarray, step_m: float = _STEP_M
) -> np.ndarray:
    """Finds where rays from above first meet a relief.

    Horizontal planes cut the relief. Where a ray crosses a plane it is either above the ground
    or under it; between the last plane above and the first one under, the meeting is found by
    halving and, in the end, the rule of false position.

    Args:
        relief: the relief.
        origin_m: f64[3], where the rays start, higher than the relief.
        rays: f32[3,h,w], their directions.
        step_m: between planes above the mattress; the flatter rays are, the farther apart they
            cross these and the more they miss of what is narrow.

    Returns:
        f32[h,w], the distance in lengths of the ray; infinite where a ray misses.
    """
    top, base = float(relief.height_m.max()), float(relief.height_m.min())
    if origin_m[2] <= top:
        raise ValueError(f"rays start at {origin_m[2]:.2f} m, below the highest point, {top:.2f} m")
    high = np.linspace(top + _MARGIN_M, 0, 2 + int(top / step_m))
    low = np.linspace(0, base + _MARGIN_M, _LEVELS_BELOW)
    levels = np.concatenate([high, low[1:]]).astype(np.float32)
    origin = np.float32(origin_m)
    distance = np.full(rays.shape[1:], np.inf, np.float32)
    rows, columns = _window(relief, origin, rays, (levels[0], levels[-1]))
    wide = max(columns.stop - columns.start, 32)
    step = max(1, _CHUNK // (len(levels) * wide))
    for first in range(rows.start, rows.stop, step):
        part = slice(first, min(first + step, rows.stop)), columns
        distance[part] = _meet(relief, origin, rays[:, *part], levels)
    return distance


def _downwards(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rays fall, bool[h,w], and the upward part of all, f32[h,w] < 0."""
    falls = rays[2] < -1e-4
    return falls, np.where(falls, rays[2], np.float32(-1e-4))


def _window(
    relief: Relief, origin: np.ndarray, rays: np.ndarray, levels: tuple[float, float]
) -> tuple[slice, slice]:
    """Rows and columns of the rays that may meet the box around all that rises above the base."""
    rises = relief.height_m > levels[1]
    x, y = relief.grid.x_m[rises.any(axis=0)], relief.grid.y_m[rises.any(axis=1)]
    if not len(x):
        return slice(0, 0), slice(0, 0)
    middle = (x[0] + x[-1]) / 2, (y[0] + y[-1]) / 2
    reach = (x[-1] - x[0]) / 2 + relief.grid.cell_m, (y[0] - y[-1]) / 2 + relief.grid.cell_m
    falls, down = _downwards(rays)
    within = np.zeros(falls.shape, bool)
    for level in levels:
        for_each = (level - origin[2]) / down
        across, along = (origin[i] + for_each * rays[i] for i in (0, 1))
        inside = (np.abs(across - middle[0]) <= reach[0]) & (np.abs(along - middle[1]) <= reach[1])
        within |= falls & inside
    if not within.any():
        return slice(0, 0), slice(0, 0)
    row, column = (np.flatnonzero(within.any(axis=axis)) for axis in (1, 0))
    return slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1)


def _meet(relief: Relief, origin: np.ndarray, rays: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """f32[h,w], see `meet`."""
    falls, down = _downwards(rays)
    grid = relief.grid
    # Column and row of the grid where a ray is at a height of 0, and how they go per metre up.
    slope = rays[:2] / down / np.float32(grid.cell_m)
    column, row = (origin[i] / np.float32(grid.cell_m) - origin[2] * slope[i] for i in (0, 1))
    column -= grid.x_m[0] / np.float32(grid.cell_m)
    row = grid.y_m[0] / np.float32(grid.cell_m) - row

    def height(z):
        """The relief, f32[...,h,w], where the rays are at heights f32[...,h,w]."""
        across, along = column + slope[0] * z, row - slope[1] * z
        flat = (a.reshape(-1, a.shape[-1]) for a in (across, along))
        return _interpolate(relief.height_m, *flat).reshape(across.shape)

    gap = levels[:, None, None] - height(levels[:, None, None])
    under = gap <= 0
    first = under.argmax(axis=0)
    met = falls & under.any(axis=0)
    after = np.take_along_axis(gap, first[None], 0)[0]
    before = np.take_along_axis(gap, np.maximum(first - 1, 0)[None], 0)[0]
    upper, lower = levels[np.maximum(first - 1, 0)], levels[first]
    for _ in range(_HALVINGS):
        z = (upper + lower) / 2
        now = z - height(z)
        above = now > 0
        upper, before = np.where(above, z, upper), np.where(above, now, before)
        lower, after = np.where(above, lower, z), np.where(above, after, now)
    z = upper + before / np.where(met, before - after, 1) * (lower - upper)
    return np.where(met, (z - origin[2]) / down, np.float32(np.inf))
