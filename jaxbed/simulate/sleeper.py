"""How sleepers come to lie in bed, and how they turn over.

N bodies, D degrees of freedom. Metres and radians, the bed frame of `jaxbed.simulate.body`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from jaxbed.simulate.body import Bodies, Figure, forward_kinematics
from jaxbed.simulate.mattress import settle
from jaxbed.simulate.poses import sample_poses
from jaxbed.simulate.skeleton import FREEDOM_INDEX, FREEDOMS, JOINTS

_STEPS = 12  # of settling
_STIFFNESS = (90, 200)  # of the mattress, kPa per metre
_TRIES = 16  # poses on the side, of which one is taken
_HANDS = [JOINTS.index(f"{side}_wrist") for side in ("left", "right")]
_SHOULDERS = [JOINTS.index(f"{side}_shoulder") for side in ("left", "right")]
_CROWN = JOINTS.index("head_top")
_ROLL = FREEDOM_INDEX["roll"]
_KNOTS = 33  # of a turn
_SMOOTH = 2.0  # in knots
_TUCKED_DEG = {
    "shoulder_flexion": 25,
    "shoulder_abduction": 0,
    "shoulder_rotation": 45,
    "elbow_flexion": 125,
    "hip_flexion": 20,
    "hip_abduction": 2,
    "hip_rotation": 0,
    "knee_flexion": 35,
    "ankle_flexion": 20,
}
"""What the limbs do halfway through a turn; the trunk has no pose of its own there."""
_LIMBS = np.array([freedom.name.startswith(("left_", "right_")) for freedom in FREEDOMS])
_TUCKED = np.radians(
    [_TUCKED_DEG.get(freedom.name.partition("_")[2], 0) for freedom in FREEDOMS], dtype=float
)


class Rest(NamedTuple):
    """How N bodies lie in bed.

    Attributes:
        relaxed: f64[N,D], the pose that the muscles hold.
        stiffness: f64[N], of the mattress.
        angles: f64[N,D], the pose on the mattress.
        root_m: f64[N,3], where it is.
    """

    relaxed: np.ndarray
    stiffness: np.ndarray
    angles: np.ndarray
    root_m: np.ndarray


def lie_in_bed(
    rngs: Sequence[np.random.Generator],
    bodies: Bodies,
    postures: Sequence[str],
    lengths_m: np.ndarray,
) -> Rest:
    """Lays bodies to rest in their beds, each with a pose and a place of its own.

    The middle of a body comes to lie up to 10 cm beside that of the bed, its crown 8 to 22 cm
    below the end of the bed.

    Args:
        rngs: N, where the randomness comes from.
        bodies: N bodies.
        postures: N of "supine", "prone", "left" and "right".
        lengths_m: f64[N], of the beds.

    Returns:
        How they lie.
    """
    each = range(len(bodies))
    relaxed = np.concatenate([_pose(rngs[n], bodies[[n]], postures[n]) for n in each])
    stiffness = np.array([rng.uniform(*_STIFFNESS) for rng in rngs])
    angles, root = settle(bodies, relaxed, np.zeros((len(bodies), 3)), stiffness, steps=_STEPS)
    share = np.array([rng.random(2) for rng in rngs])
    figure = forward_kinematics(bodies, angles, root)
    across = figure.ends_m[..., 0].reshape(len(share), -1)
    root[:, 0] += 0.1 * (2 * share[:, 0] - 1) - (across.min(axis=1) + across.max(axis=1)) / 2
    root[:, 1] += lengths_m / 2 - 0.08 - 0.14 * share[:, 1] - figure.joints_m[:, _CROWN, 1]
    return Rest(relaxed, stiffness, angles, root)


def _pose(rng: np.random.Generator, body: Bodies, posture: str) -> np.ndarray:
    """f64[1,D], a pose of one body; on a side, the one of several that holds the hands lowest.

    What a hand does in the air does not matter to a mat, but sleepers do not hold hands up.
    """
    if posture not in ("left", "right"):
        return sample_poses(rng, [posture])
    angles = sample_poses(rng, [posture] * _TRIES)
    bodies = body[np.zeros(_TRIES, int)]
    height = forward_kinematics(bodies, angles, np.zeros((_TRIES, 3))).joints_m[..., 2]
    held = height[:, _HANDS].max(axis=1) - height[:, _SHOULDERS].max(axis=1)
    return angles[[held.argmin()]]


def turn_over(
    body: Bodies, first: Rest, last: Rest, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turns a sleeper from one rest to another.

    The pose that the muscles hold goes from one to the other, the trunk over the shorter side,
    with the limbs drawn in halfway. The body settles on the mattress all
    the while; what it does there by fits and starts is smoothed.

    Args:
        body: one body.
        first: where the turn begins, N = 1.
        last: where it ends, N = 1.
        share: f64[F], shares of its time, within [0, 1].

    Returns:
        Angles f64[F,D] and root f64[F,3].
    """
    change = last.relaxed - first.relaxed
    change[:, _ROLL] -= 2 * np.pi * np.rint(change[:, _ROLL] / (2 * np.pi))
    at = np.linspace(0, 1, _KNOTS)[:, None]
    relaxed = first.relaxed + at * change
    relaxed = relaxed + np.sin(np.pi * at) ** 2 * _LIMBS * (_TUCKED - relaxed)
    root = first.root_m + at * (last.root_m - first.root_m)
    stiffness = first.stiffness + at[:, 0] * (last.stiffness - first.stiffness)
    bodies = body[np.zeros(_KNOTS, int)]
    rough = np.hstack(settle(bodies, relaxed, root, stiffness, steps=_STEPS))
    path = gaussian_filter1d(rough, _SMOOTH, axis=0, mode="nearest")
    path += (1 - at) * (rough[0] - path[0]) + at * (rough[-1] - path[-1])
    path = PchipInterpolator(at[:, 0], path)(share**2 * (3 - 2 * share))
    return path[:, :-3], path[:, -3:]


def join(parts: Sequence[Bodies]) -> Bodies:
    """Puts bodies side by side."""
    names = [field.name for field in dataclasses.fields(Bodies)]
    return Bodies(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def split(figure: Figure) -> list[Figure]:
    """Takes N figures apart."""
    arrays = [getattr(figure, field.name) for field in dataclasses.fields(Figure)]
    return [Figure(*(a[n : n + 1] for a in arrays)) for n in range(len(figure.joints_m))]
