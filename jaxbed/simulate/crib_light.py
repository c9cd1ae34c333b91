"""The light in a nursery by day and by night, and how a camera reads it.

h w height and width of an image, K channels: red, green and blue by day, infrared by night.
Metres, the bed frame of `jaxbed.simulate.body`. Light is linear, in arbitrary units.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbed.simulate.bedroom import measure
from jaxbed.simulate.camera import Camera
from jaxbed.simulate.infrared import SENSOR, Lamp, NightSensor

_BALANCE = 0.06  # spread of the gains of channels

DAY_SENSOR = NightSensor(electrons=2500.0, read_noise=5.0, blur_px=0.5, gamma=2.2)
"""The same cheap camera with more light."""


@dataclasses.dataclass(frozen=True)
class Daylight:
    """Light from a window and from everywhere.

    Attributes:
        towards: f64[3], of length 1, where the window is.
        window: f64[3], its light in red, green and blue.
        ambient: f64[3], the same of the rest.
        depth: how dark shadows on the mattress are, within [0, 1].
    """

    towards: np.ndarray
    window: np.ndarray
    ambient: np.ndarray
    depth: float

    def light(self, normals: np.ndarray, open_: np.ndarray) -> np.ndarray:
        """f32[3,...] on surfaces with normals f32[3,...]; `open_` f32[...] is 0 in shadow."""
        facing = np.maximum(np.tensordot(np.float32(self.towards), normals, 1), 0) * open_
        above = (0.65 + 0.35 * normals[2]) * (0.5 + 0.5 * open_)
        return np.stack(
            [
                np.float32(window) * facing + np.float32(ambient) * above
                for window, ambient in zip(self.window, self.ambient, strict=True)
            ]
        )


def sample_light(rng: np.random.Generator, light: str, camera: Camera) -> Daylight | Lamp:
    """Draws the light of a room, one of LIGHTS."""
    if light == "night":
        return Lamp(
            position_m=camera.position_m + rng.uniform(-0.05, 0.05, 3),
            ahead=camera.axes[2],
            lobe=rng.uniform(1.0, 5.0),
            ambient=rng.uniform(0.005, 0.06),
        )
    heading, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.3)
    towards = np.array([np.cos(heading), np.sin(heading), np.tan(height)])
    warm = rng.normal(0, 0.07, 2)
    return Daylight(
        towards=towards / np.linalg.norm(towards),
        window=rng.uniform(0.1, 0.9) * np.exp([warm[0], 0, -warm[0]]),
        ambient=rng.uniform(0.45, 0.8) * np.exp([warm[1], 0, -warm[1]]),
        depth=rng.uniform(0.3, 0.75),
    )


class Exposure(NamedTuple):
    """How bright a camera makes a picture.

    Attributes:
        bright: mean of its middle, 1 for white.
        gains: f32[K], of the channels: the balance of white.
    """

    bright: float
    gains: np.ndarray

    def gain(self, light: np.ndarray) -> np.ndarray:
        """f32[K], what light f32[h,w,K] is to be multiplied with."""
        return self.gains * np.float32(self.bright / measure(light.mean(axis=-1)))


def sample_exposure(rng: np.random.Generator, *, by_day: bool) -> Exposure:
    """Draws the brightness of a picture, and by day its balance of white."""
    if not by_day:
        return Exposure(float(np.exp(rng.uniform(*np.log((0.12, 0.36))))), np.ones(1, np.float32))
    gains = np.exp(rng.normal(0, _BALANCE, 3)).astype(np.float32)
    return Exposure(rng.uniform(0.14, 0.36), gains)


def develop(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Reads exposed light f32[h,w,K] as u8[h,w,3]."""
    if light.shape[-1] == 3:
        return DAY_SENSOR.read(rng, light)
    return np.repeat(SENSOR.read(rng, light[..., 0])[..., None], 3, axis=-1)
