"""Draws capsules and cloth into the surfaces of `jaxbed.simulate.crib_room`.

h w height and width of an image, C capsules, H W rows and columns of a grid. Metres, the bed
frame of `jaxbed.simulate.body`.
"""

import dataclasses

import numpy as np

from jaxbed.simulate.bedding import Bed, Blanket, body_top, drape, make_bed, ripple
from jaxbed.simulate.body import Figure
from jaxbed.simulate.camera import Camera, draw_capsules
from jaxbed.simulate.crib_covers import Cloth, Shroud
from jaxbed.simulate.crib_room import Crib, Surfaces, mix, pattern
from jaxbed.simulate.face import Part, head_axes
from jaxbed.simulate.looks import find_on_body
from jaxbed.simulate.relief import Grid, Relief, meet


def grid_over_cribs(cell_m: float) -> Grid:
    """Covers every crib."""
    wide, long = int(0.45 / cell_m), int(0.75 / cell_m)
    return Grid(
        np.float32(cell_m * np.arange(-wide, wide + 1)),
        np.float32(cell_m * np.arange(long, -long - 1, -1)),
    )


_GRID = grid_over_cribs(0.0125)  # for blankets
_FAR_M = 9.0  # beyond every grid
_HIDDEN_M = -0.04  # where a blanket is not, its relief lies in the mattress
_FALL, _RIM_M = 5.0, 0.02  # slope of what hangs beyond its rim, and half the width of the bend
_UPRIGHT_M = 0.3  # the height of the head of who sits
_LOW_M = 0.15  # of such a body, what is higher sticks out of a blanket
_NEAR_M = 0.02  # what is nearer to the camera is not drawn


def depth_of(camera: Camera, ends_m: np.ndarray, radii_m: np.ndarray) -> np.ndarray:
    """f32[h,w], the depth of capsules f64[C,2,3]; infinite beside them."""
    depth = np.full((1, *camera.size), np.inf, np.float32)
    ahead = (camera.frame(ends_m)[..., 2] > radii_m + _NEAR_M).all(axis=1)
    draw_capsules(depth, camera, ends_m[None, ahead], radii_m[None, ahead])
    return depth[0]


def capsules_of(ends_m: np.ndarray, radii_m: np.ndarray) -> Figure:
    """Capsules without a body."""
    none = np.empty((1, 0, 3))
    return Figure(none, ends_m[None], radii_m[None], none, none, none)


def draw_part(surfaces: Surfaces, part: Part) -> None:
    """Draws a toy, a pillow, a hand or a pacifier."""
    depth = depth_of(surfaces.camera, part.ends_m, part.radii_m)
    pixels = surfaces.nearer(depth)
    depth = depth.reshape(-1)[pixels]
    points = surfaces.points(pixels, depth)
    skin = find_on_body(capsules_of(part.ends_m, part.radii_m), points)
    surfaces.paint(pixels, depth, skin.normal, np.float32(part.colours[skin.capsule]).T)


def draw_shroud(surfaces: Surfaces, shroud: Shroud, cloth: Cloth) -> None:
    """Draws a cloth over the head or the shoulders of who sits or stands."""
    depth = depth_of(surfaces.camera, shroud.ends_m, shroud.radii_m)
    pixels = surfaces.nearer(depth)
    points = surfaces.points(pixels, depth.reshape(-1)[pixels])
    away = points - np.float32(shroud.middle_m)[:, None]
    up = np.float32(shroud.crown) @ away
    under = up < shroud.hem_m
    pixels, points, away, up = pixels[under], points[:, under], away[:, under], up[under]
    normal = find_on_body(capsules_of(shroud.ends_m, shroud.radii_m), points).normal
    around = np.arctan2(away[1], away[0])
    fold = np.sin(shroud.folds * around + 14 * up) * np.minimum(0.3 + np.abs(up) / 0.1, 1)
    turned = np.stack([-normal[1], normal[0], 0 * normal[0]])
    normal = normal + np.float32(shroud.depth) * fold * turned
    normal /= np.linalg.norm(normal, axis=0)
    share = pattern(cloth.pattern, cloth.pitch_m, 0.1 * around, up)
    surfaces.paint(pixels, depth.reshape(-1)[pixels], normal, mix(cloth.colours, share))


def draw_blanket(
    surfaces: Surfaces, blanket: Blanket, cloth: Cloth, crib: Crib, figure: Figure
) -> None:
    """Draws a blanket over one body, all of it or, of who sits, the legs."""
    top = body_top(figure, _GRID)[0]
    if head_axes(figure)[0][2] > _UPRIGHT_M:
        top = np.where(top < _LOW_M, top, -np.inf).astype(np.float32)
    # Draped without end and then cut: it hangs down beyond its rim, evenly even where that slants.
    endless = dataclasses.replace(
        blanket, left_m=-_FAR_M, right_m=_FAR_M, foot_m=-_FAR_M, head_m=_FAR_M, slant=0.0
    )
    bed = _bed(crib)
    draped = drape(make_bed(bed, np.zeros(2), _GRID), bed, endless, top)
    inside = _inside(blanket, _GRID)
    beyond = np.clip(_RIM_M - inside, 0, 2 * _RIM_M) ** 2 / (4 * _RIM_M)
    beyond += np.maximum(-inside - _RIM_M, 0)
    height = np.maximum(draped.height_m - _FALL * beyond, _HIDDEN_M).astype(np.float32)
    relief = Relief(_GRID, height, draped.reflectance)
    depth = meet(relief, surfaces.camera.position_m, surfaces.rays, _step_m(surfaces.camera))
    pixels = surfaces.nearer(depth)
    depth = depth.reshape(-1)[pixels]
    x, y, _ = surfaces.points(pixels, depth)
    share = pattern(cloth.pattern, cloth.pitch_m, x, y)
    surfaces.paint(pixels, depth, relief.normals(x, y), mix(cloth.colours, share))


def _step_m(camera: Camera) -> float:
    """Distance of planes that a ray to the middle of the crib crosses less than a cell apart."""
    x, y, z = camera.position_m
    return min(z / np.hypot(x, y), 1.0) * 0.8 * _GRID.cell_m


def _inside(blanket: Blanket, grid: Grid) -> np.ndarray:
    """f32[H,W], how far the places of a grid are inside the rim of a blanket; negative outside."""
    x, y = grid.x_m, grid.y_m[:, None]
    folds = ripple(blanket.waves, grid)[len(grid.y_m) // 2]
    upper = blanket.head_m + blanket.slant * x + 3 * folds - y
    aside = np.minimum(x - blanket.left_m, blanket.right_m - x)
    return np.minimum(aside, np.minimum(y - blanket.foot_m, upper))


def _bed(crib: Crib) -> Bed:
    """The mattress as a bed without linen."""
    return Bed(
        width_m=crib.width_m,
        length_m=crib.length_m,
        floor_m=0.1,
        headboard_m=0.0,
        pillow_m=np.array([0.0, 0.0, 1.0, 1.0, 0.0]),
        waves=np.zeros((0, 4)),
        sheet=0.0,
        pillow=0.0,
        frame=0.0,
    )
