"""Depth recordings of simulated infants in motion, with exact joints.

An infant on its back moves under a depth camera; now and then an adult's hand comes between.
The pictures exercise a pipeline and carry exact labels; they say nothing about how well a
system works on infants.

F frames, H W height and width in pixels, C capsules. Lengths in metres unless a name says
otherwise, frames and pixels of `jaxbed.simulate.camera`.
"""

import dataclasses

import numpy as np

from jaxbed.data.depth import JOINTS, DepthFrames
from jaxbed.simulate.body import Figure
from jaxbed.simulate.camera import (
    MOUNT,
    Camera,
    Mount,
    capsule_cones,
    draw_capsules,
    first_hit,
    mattress_depth,
)
from jaxbed.simulate.hand import RADII_M as HAND_RADII_M
from jaxbed.simulate.hand import sample_visits
from jaxbed.simulate.infant import RATE_HZ, sample_infants, sample_movement
from jaxbed.simulate.lying import lie_down
from jaxbed.simulate.skeleton import JOINTS as BODY_JOINTS

_SHOWN = [BODY_JOINTS.index(name) for name in JOINTS]
_MIDDLE = 0.14  # of an infant with bent legs, above its hips, in lengths from crown to heel
_HIDES_M = 0.02  # a hand hides the joints that lie farther than this behind it


@dataclasses.dataclass(frozen=True)
class DepthSensor:
    """How a sensor distorts depth.

    The random error of triangulation grows with the square of the distance. Khoshelham and
    Elberink, "Accuracy and Resolution of Kinect Depth Data", Sensors 12(2), 2012, find 4 cm
    at 5 m: 1.6 mm at 1 m.

    Attributes:
        noise_mm: standard deviation at a distance of 1 m.
        steepest_deg: between neighbouring pixels, against the image plane; beyond a steeper
            step the farther pixel may be lost.
        edge_loss: share of such pixels that are lost.
        speckle: share of all pixels that are lost.
    """

    noise_mm: float = 1.6
    steepest_deg: float = 75.0
    edge_loss: float = 0.6
    speckle: float = 0.002

    def __post_init__(self):
        if self.noise_mm < 0 or not 0 < self.steepest_deg <= 90:
            raise ValueError(f"noise must not be negative, steepest within (0, 90] deg: {self}")
        if not (0 <= self.edge_loss <= 1 and 0 <= self.speckle <= 1):
            raise ValueError(f"edge loss and speckle are shares within [0, 1]: {self}")

    @np.errstate(invalid="ignore")  # of an infinite depth, which is lost in the end
    def read(self, rng: np.random.Generator, depth_m: np.ndarray, focal_px: float) -> np.ndarray:
        """Reads one image f32[H,W] > 0, metres, as u16[H,W], millimetres, 0 where lost."""
        noise = rng.standard_normal(depth_m.shape, np.float32)
        draw = rng.random(depth_m.shape, np.float32)
        lost = draw < self.speckle
        if self.edge_loss:
            lost |= self._shaded(depth_m, focal_px) & (draw > 1 - self.edge_loss)
        depth_mm = 1000 * depth_m + self.noise_mm * depth_m**2 * noise
        lost |= ~((depth_mm >= 0.5) & (depth_mm < 65535))
        return np.where(lost, 0, np.rint(depth_mm)).astype(np.uint16)

    def _shaded(self, depth_m: np.ndarray, focal_px: float) -> np.ndarray:
        """bool[H,W], the farther pixels of steep steps."""
        shaded = np.zeros(depth_m.shape, bool)
        least = np.float32(np.tan(np.radians(self.steepest_deg)) / focal_px) * depth_m
        for depth, step, far in ((depth_m, least, shaded), (depth_m.T, least.T, shaded.T)):
            rise = depth[1:] - depth[:-1]
            far[1:] |= rise > step[:-1]
            far[:-1] |= -rise > step[1:]
        return shaded


IDEAL = DepthSensor(noise_mm=0.0, edge_loss=0.0, speckle=0.0)
"""A sensor that reads the depth itself, to the millimetre."""


def simulate_depth_frames(
    *,
    infants: int,
    recordings_per_infant: int = 1,
    frames_per_recording: int,
    size: tuple[int, int] = (96, 128),
    mount: Mount = MOUNT,
    sensor: DepthSensor = DepthSensor(),
    rate_hz: float = RATE_HZ,
    visits_per_minute: float = 4.0,
    seed: int = 0,
) -> DepthFrames:
    """Simulates infants that move under a depth camera, head up in the image.

    Every infant has a size of its own, every recording a camera, a movement and visits by a
    hand. A recording depends only on seed, infant and its number, not on how many are asked
    for, and a longer one begins with the shorter one.

    Args:
        infants: number of infants.
        recordings_per_infant: recordings of each.
        frames_per_recording: frames of each.
        size: (height, width) of the images.
        mount: how the cameras hang.
        sensor: how they distort depth.
        rate_hz: frames per second.
        visits_per_minute: how often an adult's hand comes into view for a second or two; 0 for
            never.
        seed: of all randomness.

    Returns:
        The frames, recording by recording. A joint is NaN outside the image and where the hand
        hides it; what the infant itself hides is given.
    """
    if min(infants, recordings_per_infant, frames_per_recording) < 1:
        raise ValueError(
            f"need at least 1 infant, recording and frame, found {infants}, "
            f"{recordings_per_infant} and {frames_per_recording}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), found {size}")
    if visits_per_minute < 0:
        raise ValueError(f"visits per minute must not be negative, found {visits_per_minute}")
    keys = [(i, r) for i in range(infants) for r in range(recordings_per_infant)]
    depth = np.empty((len(keys), frames_per_recording, *size), np.uint16)
    joints = np.empty((len(keys), frames_per_recording, len(JOINTS), 2), np.float32)
    for n, (i, r) in enumerate(keys):
        infant = sample_infants(_rng(seed, i), 1)
        camera_rng, movement_rng, hand_rng, sensor_rng = _rng(seed, i, r).spawn(4)
        camera = mount.hang(camera_rng, size, _MIDDLE * infant.stature_m[0])
        movement = sample_movement(movement_rng, frames_per_recording, rate_hz=rate_hz)
        figure = lie_down(infant, movement)[1]
        joints_m = figure.joints_m[:, _SHOWN]
        time_s = np.arange(frames_per_recording) / rate_hz
        visited, hand = sample_visits(hand_rng, time_s, joints_m, per_minute=visits_per_minute)

        joints[n] = _visible_joints(camera, joints_m, visited, hand)
        image_m = _images(camera, figure, visited, hand)
        depth[n] = [sensor.read(sensor_rng, image, camera.focal_px) for image in image_m]
    return DepthFrames(
        name="simulated",
        depth_mm=depth.reshape(-1, *size),
        joints_px=joints.reshape(-1, len(JOINTS), 2),
        subject=np.repeat([f"infant-{i:03d}" for i, _ in keys], frames_per_recording),
        recording=np.repeat([f"infant-{i:03d}-{r:02d}" for i, r in keys], frames_per_recording),
    )


def _rng(seed: int, *index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=index))


def _images(camera: Camera, figure: Figure, visited: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """f32[F,H,W], exact depth of mattress, infant and, in the frames `visited`, the hand."""
    depth = np.tile(mattress_depth(camera), (len(figure.ends_m), 1, 1))
    draw_capsules(depth, camera, figure.ends_m, figure.radii_m)
    behind = depth[visited]
    draw_capsules(behind, camera, hand, np.broadcast_to(HAND_RADII_M, hand.shape[:3]))
    depth[visited] = behind
    return depth


def _visible_joints(
    camera: Camera, joints_m: np.ndarray, visited: np.ndarray, hand: np.ndarray
) -> np.ndarray:
    """f64[F,12,2], the joints' pixels, NaN outside the image and behind the hand."""
    joints = camera.project(joints_m)
    outside = (joints < -0.5) | (joints > np.array(camera.size[::-1]) - 0.5)
    joints[outside.any(axis=-1)] = np.nan

    seen = camera.frame(joints_m[visited])[:, :, None]  # f64[V,12,1,3]
    cones = capsule_cones(camera.frame(hand), HAND_RADII_M)[:, :, None]
    cover = first_hit(cones, seen[..., 0] / seen[..., 2], seen[..., 1] / seen[..., 2])
    hidden = cover.min(axis=-1) < seen[..., 0, 2] - _HIDES_M
    joints[visited] = np.where(hidden[..., None], np.nan, joints[visited])
    return joints
