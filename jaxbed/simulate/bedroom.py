"""A bedroom at night: what stands in it, who lies in it, and its picture before the sensor.

h w height and width of an image, P points, J joints. Metres, the bed frame of
`jaxbed.simulate.body`; pixels of `jaxbed.simulate.camera`.
"""

import dataclasses

import cv2
import numpy as np

from jaxbed.simulate.bedding import Bed, Blanket, body_top, drape, make_bed
from jaxbed.simulate.body import Figure
from jaxbed.simulate.camera import Camera, draw_capsules
from jaxbed.simulate.infrared import Lamp, hang_camera
from jaxbed.simulate.looks import Look, find_on_body, reflect
from jaxbed.simulate.relief import meet
from jaxbed.simulate.skeleton import JOINTS

_FINE = 128  # smaller images are drawn twice as large

NECK, CROWN = JOINTS.index("neck"), JOINTS.index("head_top")


@dataclasses.dataclass(frozen=True)
class Room:
    """What stays the same through a recording.

    Attributes:
        camera: the camera.
        lamp: the lamp beside it.
        bed: the bed.
        corners_m: f64[2,3], the lowest and the highest corner of the room.
        surfaces: f64[3], reflectance of side walls, end walls, and floor and ceiling.
        exposure: mean light of a picture, 1 for white.
        blanket: the cloth that belongs to the bed, spread out over all of it.
    """

    camera: Camera
    lamp: Lamp
    bed: Bed
    corners_m: np.ndarray
    surfaces: np.ndarray
    exposure: float
    blanket: Blanket


@dataclasses.dataclass(frozen=True)
class Scene:
    """One moment: a room, the figure of one body, its look, and what there is of a blanket."""

    room: Room
    figure: Figure
    look: Look
    blanket: Blanket | None = None


def sample_room(rng: np.random.Generator, where: str, size: tuple[int, int]) -> Room:
    """Draws a room with a camera.

    Args:
        rng: where the randomness comes from.
        where: one of CAMERAS.
        size: (height, width) of the images.
    """
    bed = _sample_bed(rng)
    width, length = bed.width_m, bed.length_m
    camera = hang_camera(rng, where, size, (width, length))
    x, y, z = camera.position_m
    sides = width / 2 + rng.uniform(0.1, 1.2, 2)
    left, right = min(-sides[0], x - 0.3), max(sides[1], x + 0.3)
    ends = min(-length / 2 - 0.8, y - 0.3), length / 2 + rng.uniform(0.03, 0.15)
    corners = np.array([(left, ends[0], -bed.floor_m), (right, ends[1], z + 0.4)])
    lamp = Lamp(
        position_m=camera.position_m + rng.uniform(-0.05, 0.05, 3),
        ahead=camera.axes[2],
        lobe=rng.uniform(1.5, 6.0),
        ambient=rng.uniform(0.002, 0.02),
    )
    walls = np.append(rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.4))
    exposure = np.exp(rng.uniform(np.log(0.16), np.log(0.4)))
    return Room(camera, lamp, bed, corners, walls, exposure, _sample_blanket(rng, bed))


def _sample_bed(rng: np.random.Generator) -> Bed:
    width, length = rng.uniform((0.95, 1.96), (1.6, 2.1))
    pillow_width, pillow_length, height = rng.uniform((0.5, 0.35, 0.05), (0.8, 0.5, 0.12))
    pillow_width = min(pillow_width, width - 0.1)
    pillow = (rng.uniform(-0.06, 0.06), length / 2 - pillow_length / 2 - 0.03)
    pillow += (pillow_width, pillow_length, height * (rng.random() < 0.85))
    return Bed(
        width_m=width,
        length_m=length,
        floor_m=rng.uniform(0.4, 0.65),
        headboard_m=rng.uniform(0.15, 0.5) if rng.random() < 0.6 else 0.0,
        pillow_m=np.array(pillow),
        waves=_sample_waves(rng, 0.004, (0.15, 0.6)),
        sheet=rng.uniform(0.45, 0.8),
        pillow=rng.uniform(0.45, 0.85),
        frame=rng.uniform(0.1, 0.5),
    )


def _sample_blanket(rng: np.random.Generator, bed: Bed) -> Blanket:
    reflectance = rng.uniform(0.2, 0.8)
    kx, ky = 2 * np.pi * rng.uniform(3, 12) * np.eye(2)[rng.integers(2)]
    thickness = rng.uniform(0.008, 0.03)
    return Blanket(
        left_m=-bed.width_m / 2 - rng.uniform(-0.1, 0.15),
        right_m=bed.width_m / 2 + rng.uniform(-0.1, 0.15),
        foot_m=-bed.length_m / 2 - rng.uniform(-0.1, 0.12),
        head_m=bed.length_m / 2,
        slant=rng.normal(0, 0.12),
        thickness_m=thickness,
        softness_m=0.012 + thickness,
        fall=rng.uniform(0.9, 2.0),
        waves=_sample_waves(rng, rng.uniform(0.004, 0.012), (0.12, 0.5)),
        reflectance=reflectance,
        stripes=np.array([rng.uniform(0.05, 0.3) * (rng.random() < 0.5), kx, ky, 0.0]),
        turned_m=rng.uniform(0.08, 0.25) if rng.random() < 0.3 else 0.0,
        lining=np.clip(reflectance * rng.uniform(0.7, 1.5), 0.1, 0.9),
    )


def _sample_waves(
    rng: np.random.Generator, spread_m: float, lengths_m: tuple[float, float]
) -> np.ndarray:
    """f64[10,4], waves of all directions whose sum has a standard deviation of `spread_m`."""
    count = 10
    number = 2 * np.pi / rng.uniform(*lengths_m, count)
    heading, phase = rng.uniform(0, 2 * np.pi, (2, count))
    size = spread_m * np.sqrt(2 / count) * np.ones(count)
    return np.stack([size, number * np.cos(heading), number * np.sin(heading), phase], axis=1)


def pull_up(rng: np.random.Generator, room: Room, figure: Figure) -> Blanket:
    """Draws a blanket over a body, from somewhere between chin and hips to beyond the feet.

    Args:
        rng: where the randomness comes from.
        room: the room.
        figure: one body.
    """
    neck, crown = figure.joints_m[0, [NECK, CROWN], 1]
    head = min(neck, (neck + crown) / 2 - 0.12) + 0.03 - 0.4 * rng.random() ** 1.5
    waves = room.blanket.waves.copy()
    waves[:, 3] = rng.uniform(0, 2 * np.pi, len(waves))
    slant = room.blanket.slant + rng.normal(0, 0.08)
    return dataclasses.replace(room.blanket, head_m=head, slant=slant, waves=waves)


def put_aside(rng: np.random.Generator, room: Room) -> Blanket | None:
    """Draws where a blanket is that covers nobody: gone, or folded at the foot or at a side."""
    where = rng.choice(["gone", "foot", "left", "right"], p=[0.45, 0.3, 0.125, 0.125])
    return None if where == "gone" else fold(rng, room, where)


def fold(rng: np.random.Generator, room: Room, where: str) -> Blanket:
    """Draws a folded blanket at the "foot", or the "left" or "right" side seen from above."""
    bed, size = room.bed, rng.uniform(0.2, 0.4)
    folded = dataclasses.replace(
        room.blanket,
        thickness_m=rng.uniform(0.05, 0.11),
        softness_m=0.05,
        slant=0.0,
        waves=room.blanket.waves * (0.5, 1, 1, 1),
        turned_m=0.0,
    )
    if where == "foot":
        return dataclasses.replace(folded, head_m=size - bed.length_m / 2)
    edge = bed.width_m / 2 - 0.7 * size
    beside = {"left_m": edge} if where == "right" else {"right_m": -edge}
    head, foot = rng.uniform((-0.3, -0.9), (0.5, -0.6))
    return dataclasses.replace(folded, **beside, head_m=head, foot_m=foot)


def render_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draws what a camera sees, before its sensor.

    Args:
        scene: the moment.

    Returns:
        The light f32[h,w] in units of the lamp, and the pixels of the joints, f64[J,2], in the
        order of JOINTS, whatever hides them.
    """
    room, camera = scene.room, _finer(scene.room.camera)
    relief = make_bed(room.bed, scene.figure.joints_m[0, [NECK, CROWN]].mean(axis=0))
    if scene.blanket:
        relief = drape(relief, room.bed, scene.blanket, body_top(scene.figure)[0])
    x, y = camera.rays()
    rays = np.stack([a * x + b * y + c for a, b, c in np.float32(camera.axes.T)])
    origin = np.float32(camera.position_m)[:, None, None]

    depth, normal, reflectance = _see_room(room, rays)
    on_bed = meet(relief, camera.position_m, rays)
    body = np.full((1, *camera.size), np.inf, np.float32)
    draw_capsules(body, camera, scene.figure.ends_m, scene.figure.radii_m)
    seen = on_bed < depth
    depth = np.where(seen, on_bed, depth)
    is_body = body[0] < depth
    depth = np.where(is_body, body[0], depth)
    points = origin + depth * rays

    seen &= ~is_body
    at = points[:, seen]
    normal[:, seen] = relief.normals(*at[:2])
    reflectance[seen] = relief.grid.look_up(relief.reflectance, *at[:2])
    skin = find_on_body(scene.figure, points[:, is_body])
    normal[:, is_body] = skin.normal
    reflectance[is_body] = reflect(scene.look, scene.figure, points[:, is_body], skin)
    light = reflectance * room.lamp.light(points, normal)
    height, width = room.camera.size
    light = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
    return light, room.camera.project(scene.figure.joints_m[0])


def _finer(camera: Camera) -> Camera:
    """The same camera with more pixels, whose mean shows small images without steps."""
    times = 2 if min(camera.size) < _FINE else 1
    size = (times * camera.size[0], times * camera.size[1])
    return dataclasses.replace(camera, size=size, focal_px=times * camera.focal_px)


def _see_room(room: Room, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth f32[h,w], normal f32[3,h,w] and reflectance f32[h,w] of the room and the bare bed."""
    rays = np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)
    at, bed = room.camera.position_m, room.bed
    leave = _slabs(room.corners_m - at, rays).max(axis=0)
    depth, plane = leave.min(axis=0), leave.argmin(axis=0)
    reflectance = np.float32(room.surfaces)[plane]
    x, y, z = np.float32(at)[:, None, None] + depth * rays
    board = (np.abs(x) <= bed.width_m / 2) & (y > 0) & (z <= bed.headboard_m)
    reflectance[board & (plane == 1)] = bed.frame

    far = np.array([bed.width_m / 2, bed.length_m / 2, 0])
    through = _slabs(np.array([far * (-1, -1, 1) - (0, 0, bed.floor_m), far]) - at, rays)
    enter = through.min(axis=0)
    near = enter.max(axis=0)
    hit = (near <= through.max(axis=0).min(axis=0)) & (near < depth)
    side = enter.argmax(axis=0)
    depth, plane = np.where(hit, near, depth), np.where(hit, side, plane)
    reflectance = np.where(hit, np.float32([bed.frame, bed.frame, bed.sheet])[side], reflectance)
    normal = np.where(np.arange(3)[:, None, None] == plane, -np.sign(rays), np.float32(0))
    return depth, normal, reflectance


def _slabs(corners_m: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """f32[2,3,h,w], where rays from the origin cross the six planes of a box f64[2,3]."""
    return np.float32(corners_m)[..., None, None] / rays


def measure(light: np.ndarray) -> float:
    """The mean light of the middle of a picture f32[h,w], which a camera exposes for."""
    height, width = light.shape
    return float(
        light[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None].mean()
    )
