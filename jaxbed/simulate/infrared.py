"""A night camera: the lamp beside it, where it stands, and how its sensor reads the light.

h w height and width of an image, P points. Metres, the bed frame of `jaxbed.simulate.body`;
cameras of `jaxbed.simulate.camera`, upright. Light is linear, in arbitrary units.
"""

import dataclasses

import cv2
import numpy as np

from jaxbed.simulate.camera import Camera

CAMERAS = ("end", "side")
"""Where cameras stand: beyond the foot of the bed, or beside it."""

_UP = np.array([0.0, 0.0, 1.0])
_ROOM_ABOVE_M = 0.35  # of a bed, that should be in the picture


@dataclasses.dataclass(frozen=True)
class Lamp:
    """An infrared lamp.

    Attributes:
        position_m: f64[3].
        ahead: f64[3], of length 1, where it shines.
        lobe: its light falls off as the cosine to this power.
        ambient: light from everywhere, relative to that of the lamp 1 m ahead.
    """

    position_m: np.ndarray
    ahead: np.ndarray
    lobe: float
    ambient: float

    def light(self, points_m: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Lights surfaces: the inverse square, the cosine to the normal, and the lobe.

        Args:
            points_m: f32[3,...].
            normals: f32[3,...], of length 1.

        Returns:
            f32[...], 1 for a surface that faces the lamp 1 m ahead, without ambient light.
        """
        ray = points_m - self.position_m.astype(np.float32).reshape(3, *[1] * (points_m.ndim - 1))
        square = (ray**2).sum(axis=0)
        distance = np.sqrt(square)
        facing = np.maximum(-(ray * normals).sum(axis=0) / distance, 0)
        ahead = np.maximum(np.tensordot(self.ahead.astype(np.float32), ray, 1) / distance, 0)
        return ahead**self.lobe * facing / square + np.float32(self.ambient)


@dataclasses.dataclass(frozen=True)
class NightSensor:
    """How a sensor reads light.

    Attributes:
        electrons: a pixel holds when it is white; shot noise is the root of their number.
        read_noise: standard deviation, in electrons.
        blur_px: standard deviation of the blur.
        gamma: grey is light to the power of 1 / gamma.
    """

    electrons: float = 900.0
    read_noise: float = 4.0
    blur_px: float = 0.45
    gamma: float = 1.8

    def __post_init__(self):
        if min(self.read_noise, self.blur_px) < 0 or min(self.electrons, self.gamma) <= 0:
            raise ValueError(f"noise and blur must not be negative, the rest positive: {self}")

    def read(self, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
        """Reads an image f32[h,w], 1 where it is white, as u8[h,w]."""
        if self.blur_px:
            light = cv2.GaussianBlur(light, (0, 0), self.blur_px)
        variance = light / self.electrons + (self.read_noise / self.electrons) ** 2
        noise = rng.standard_normal(light.shape, np.float32) * np.sqrt(variance)
        grey = np.clip(light + noise, 0, 1) ** np.float32(1 / self.gamma)
        return np.rint(255 * grey).astype(np.uint8)


SENSOR = NightSensor()
"""A sensor with the noise of a cheap camera."""

IDEAL = NightSensor(electrons=np.inf, read_noise=0.0, blur_px=0.0)
"""A sensor without noise and blur."""


def look_at(
    size: tuple[int, int], position_m: np.ndarray, target_m: np.ndarray, focal_px: float
) -> Camera:
    """Makes an upright camera whose optical axis goes through a target."""
    ahead = target_m - position_m
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, _UP)
    right = right / np.linalg.norm(right)
    return Camera(size, focal_px, position_m, np.stack([right, np.cross(ahead, right), ahead]))


def frame_bed(
    size: tuple[int, int], position_m: np.ndarray, bed_m: tuple[float, float], margin: float
) -> Camera:
    """Makes an upright camera that just sees a bed and what lies in it.

    Args:
        size: (height, width) of the images.
        position_m: f64[3], where it stands.
        bed_m: width and length of the bed.
        margin: how much larger the picture is than the bed in it; 1 for not at all.
    """
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [0, 1])).reshape(3, -1).T
    corners = signs * (bed_m[0] / 2, bed_m[1] / 2, _ROOM_ABOVE_M)
    target = np.zeros(3)
    for _ in range(4):  # brings the bed to the middle of the picture
        camera = look_at(size, position_m, target, 1.0)
        seen = camera.frame(corners)
        slope = seen[:, :2] / seen[:, 2:]
        middle = (slope.min(axis=0) + slope.max(axis=0)) / 2
        target = position_m + np.append(middle, 1) @ camera.axes
    reach = np.abs(slope).max(axis=0)
    return dataclasses.replace(camera, focal_px=min(size[::-1] / (2 * reach)) / margin)


def hang_camera(
    rng: np.random.Generator, where: str, size: tuple[int, int], bed_m: tuple[float, float]
) -> Camera:
    """Draws a camera that sees a bed.

    Args:
        rng: where the randomness comes from.
        where: one of CAMERAS; "side" is either side.
        size: (height, width) of the images.
        bed_m: width and length of the bed.
    """
    if where not in CAMERAS:
        raise ValueError(f"a camera is one of {CAMERAS}, found {where!r}")
    side = rng.choice([-1, 1])
    away, along, height = rng.uniform((0.5, -0.35, 1.6), (1.2, 0.35, 2.4))
    end, beside = (along, -bed_m[1] / 2 - away), (side * (bed_m[0] / 2 + away), along)
    position = np.array([*(end if where == "end" else beside), height])
    return frame_bed(size, position, bed_m, rng.uniform(1.0, 1.12))
