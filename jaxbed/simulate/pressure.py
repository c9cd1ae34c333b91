"""Pressure maps of simulated sleepers, with exact joints.

The maps show what a mat under a body of known pose and weight reads. They exercise a pipeline
and carry exact labels; they say nothing about how well a system works on people.
"""

import dataclasses

import numpy as np

from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.simulate.body import Bodies, Figure, forward_kinematics, sample_subjects
from jaxbed.simulate.mattress import contact_pressure, settle, underside
from jaxbed.simulate.poses import sample_poses
from jaxbed.simulate.skeleton import JOINTS

MAT = Mat(rows=64, columns=32, pitch_mm=25.4, unit="kpa", full_scale=8.5)
"""A mat like that of the PMD recordings, whose 500 counts are about 8.5 kPa: the value that
makes the sum of its maps the weight of its subjects."""

_CHUNK = 64  # bodies worked on at once: keeps the arrays in the cache
_POINT_M = 0.013  # spacing of the points at which the body is sampled, at most
_SPREAD_M = 0.032  # how far the mat's cover spreads the load
_STEPS = 16  # of settling


@dataclasses.dataclass(frozen=True)
class Sensor:
    """How a mat distorts the pressure.

    Attributes:
        gain: standard deviation of the logarithm of a sensor's gain.
        noise_kpa: standard deviation of the additive noise of a loaded sensor.
        threshold_kpa: pressure below which a sensor reads 0.
        saturation_kpa: pressure above which the reading stays the same.
        dead: share of sensors that always read 0.
    """

    gain: float = 0.4
    noise_kpa: float = 0.03
    threshold_kpa: float = 0.03
    saturation_kpa: float = 70.0
    dead: float = 0.0

    def __post_init__(self):
        if min(self.gain, self.noise_kpa, self.threshold_kpa) < 0:
            raise ValueError(f"gain, noise and threshold must not be negative: {self}")
        if self.saturation_kpa <= 0 or not 0 <= self.dead <= 1:
            raise ValueError(f"saturation must be positive and dead within [0, 1]: {self}")

    def read(self, rng: np.random.Generator, pressure_kpa: np.ndarray) -> np.ndarray:
        """Reads one map f32[R,C], kPa."""
        gain, noise = rng.normal(size=(2, *pressure_kpa.shape))
        alive = rng.random(pressure_kpa.shape) >= self.dead
        reading = pressure_kpa * np.exp(self.gain * gain) + self.noise_kpa * noise
        loaded = alive & (pressure_kpa > self.threshold_kpa)
        return np.where(loaded, np.clip(reading, 0, self.saturation_kpa), 0)


IDEAL = Sensor(gain=0.0, noise_kpa=0.0, threshold_kpa=0.0, saturation_kpa=np.inf)
"""A sensor that reads the pressure itself."""


def simulate_pressure_maps(
    *,
    subjects: int,
    maps_per_subject: int,
    mat: Mat = MAT,
    postures: tuple[str, ...] = POSTURES,
    sensor: Sensor = Sensor(),
    seed: int = 0,
) -> PressureMaps:
    """Simulates sleepers on a mat.

    Every subject is an adult of its own size, every map a pose, a place and a firmness of
    the mattress of its own. What hangs over the edge of the mat is carried by the rest, so
    that an ideal sensor's pressure times area always sums to the subject's weight. A map
    depends only on seed, subject and its number, not on how many are asked for.

    Args:
        subjects: number of subjects.
        maps_per_subject: maps of each.
        mat: the mat, its unit "kpa".
        postures: what to draw from, uniformly; some of POSTURES.
        sensor: how the mat distorts the pressure.
        seed: of all randomness.

    Returns:
        The maps, subject by subject, with joints in the order of JOINTS.
    """
    if subjects < 1 or maps_per_subject < 1:
        raise ValueError(
            f"need at least 1 subject and 1 map, found {subjects} and {maps_per_subject}"
        )
    if not postures or set(postures) - set(POSTURES):
        raise ValueError(f"postures must be some of {POSTURES}, found {postures}")
    if mat.unit != "kpa":
        raise ValueError(f"simulated maps are in kpa, found a mat in {mat.unit!r}")
    if min(mat.rows, mat.columns) < 1 or mat.pitch_mm <= 0:
        raise ValueError(f"a mat needs sensors and a positive pitch, found {mat}")

    count = subjects * maps_per_subject
    owner, number = np.divmod(np.arange(count), maps_per_subject)
    sizes = [sample_subjects(_rng(seed, s), 1) for s in range(subjects)]
    bodies = Bodies(
        *(
            np.concatenate([getattr(body, field.name) for body in sizes])
            for field in dataclasses.fields(Bodies)
        )
    )
    pressure = np.empty((count, *mat.size), np.float32)
    posture = np.empty(count, np.int32)
    joints = np.empty((count, len(JOINTS), 2), np.float32)
    for first in range(0, count, _CHUNK):
        part = slice(first, min(first + _CHUNK, count))
        rngs = [_rng(seed, s, m) for s, m in zip(owner[part], number[part], strict=True)]
        chosen = [postures[rng.integers(len(postures))] for rng in rngs]
        ideal, joints[part] = _lay_down(rngs, bodies[owner[part]], chosen, mat)
        pressure[part] = [sensor.read(rng, p) for rng, p in zip(rngs, ideal, strict=True)]
        posture[part] = [POSTURES.index(name) for name in chosen]
    return PressureMaps(
        name="simulated",
        mat=mat,
        pressure=pressure,
        subject=np.array([f"sim-{s:03d}" for s in range(subjects)])[owner],
        posture=posture,
        label=posture.copy(),
        label_names=POSTURES,
        joints_mm=joints,
    )


def _rng(seed: int, *index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=index))


def _lay_down(
    rngs: list[np.random.Generator], bodies: Bodies, postures: list[str], mat: Mat
) -> tuple[np.ndarray, np.ndarray]:
    """Pressure f32[N,R,C] (kPa) and joints f64[N,J,2] (mm from the mat's corner)."""
    angles = np.concatenate(
        [sample_poses(rng, [posture]) for rng, posture in zip(rngs, postures, strict=True)]
    )
    stiffness = np.array([np.exp(rng.uniform(np.log(80), np.log(220))) for rng in rngs])
    angles, root = settle(bodies, angles, np.zeros((len(bodies), 3)), stiffness, steps=_STEPS)
    figure = forward_kinematics(bodies, angles, root)
    size_m = np.array([mat.columns, mat.rows]) * mat.pitch_mm / 1e3
    share = np.array([rng.random(2) for rng in rngs])
    root[:, :2] += _place(figure, size_m, share)
    figure = forward_kinematics(bodies, angles, root)
    joints = 1e3 * (figure.joints_m[..., :2] * (1, -1) + size_m / 2)
    return mat_pressure(figure, bodies.load_n.sum(axis=1), stiffness, mat), joints


def _place(figure: Figure, size_m: np.ndarray, share: np.ndarray) -> np.ndarray:
    """f64[N,2], the shift that brings bodies to a random place on a mat centred on 0.

    The middle lies up to 8 cm beside the middle of the mat, the head up to 12 cm below its
    upper edge, less where there is no room.
    """
    reach = figure.radii_m[..., None]
    outline = [figure.ends_m[..., :2] - reach, figure.ends_m[..., :2] + reach]
    points = [part.reshape(len(share), -1, 2) for part in (*outline, figure.joints_m[..., :2])]
    low = np.concatenate(points, axis=1).min(axis=1)
    high = np.concatenate(points, axis=1).max(axis=1)
    room = np.maximum(size_m - (high - low), 0)
    across = (2 * share[:, 0] - 1) * np.minimum(room[:, 0] / 2, 0.08)
    down = share[:, 1] * np.minimum(room[:, 1], 0.12)
    return np.stack(
        [across - (low[:, 0] + high[:, 0]) / 2, size_m[1] / 2 - down - high[:, 1]], axis=1
    )


def mat_pressure(
    figure: Figure, weight_n: np.ndarray, stiffness: np.ndarray, mat: Mat
) -> np.ndarray:
    """Measures the pressure of resting bodies on a mat centred on the bed's origin.

    Args:
        figure: N settled bodies.
        weight_n: f64[N].
        stiffness: f64[N], of the mattress, kPa per metre.
        mat: the mat; only its sensors and pitch matter.

    Returns:
        f32[N,R,C], kPa, the mean over the cell of every sensor.
    """
    pitch = mat.pitch_mm / 1e3
    fine = int(np.ceil(pitch / _POINT_M))  # points in a cell, each way
    rows, columns = fine * mat.rows, fine * mat.columns
    cell = pitch / fine
    x = (np.arange(columns) + 0.5 - columns / 2) * cell
    y = (rows / 2 - 0.5 - np.arange(rows)) * cell
    pressure = contact_pressure(
        underside(figure, x, y), weight_n, stiffness, cell_m=cell, spread_m=_SPREAD_M
    )
    return pressure.reshape(-1, mat.rows, fine, mat.columns, fine).mean(axis=(2, 4))
