"""Poses of people at rest: which way they lie, and what their limbs do.

N poses, D degrees of freedom. A pose is a vector of joint angles. The tables give, for every
posture, habits: ranges in degrees from which the angles are drawn uniformly. Angles that no
habit names stay at 0. The limbs may point into the bed a little: there the mattress stops them
when the pose settles.
"""

import numpy as np

from jaxbed.simulate.skeleton import FREEDOM_INDEX, FREEDOMS, LIMITS_RAD

ROLL_DEG = {"supine": 0.0, "prone": 180.0, "left": 90.0, "right": -90.0}
"""How far the pelvis is turned about the body's long axis in each posture."""

_ON_LEFT = np.array([freedom.name.startswith("left_") for freedom in FREEDOMS])
_ON_RIGHT = np.array([freedom.name.startswith("right_") for freedom in FREEDOMS])
_OTHER_SIDE = np.arange(len(FREEDOMS))
_OTHER_SIDE[_ON_LEFT], _OTHER_SIDE[_ON_RIGHT] = np.where(_ON_RIGHT)[0], np.where(_ON_LEFT)[0]
_SIDEWAYS = np.array([freedom.axis[0] == 0 for freedom in FREEDOMS]) & ~_ON_LEFT & ~_ON_RIGHT

_SUPINE_TRUNK = {
    "roll": (-8, 8),
    "waist_flexion": (-3, 3),
    "waist_bend": (-6, 6),
    "back_flexion": (-3, 3),
    "back_bend": (-6, 6),
    "neck_flexion": (-20, -5),
    "neck_bend": (-12, 12),
    "neck_twist": (-50, 50),
}
_PRONE_TRUNK = {**_SUPINE_TRUNK, "neck_flexion": (-25, -5), "neck_twist": (45, 80)}
_SIDE_TRUNK = {
    **_SUPINE_TRUNK,
    "roll": (-20, 20),
    "waist_flexion": (0, 15),
    "back_flexion": (0, 15),
    "back_twist": (-10, 10),
    "neck_flexion": (0, 20),
    "neck_bend": (12, 35),
    "neck_twist": (-15, 15),
}
_FETAL_TRUNK = {
    **_SIDE_TRUNK,
    "waist_flexion": (5, 22),
    "back_flexion": (5, 22),
    "neck_flexion": (10, 35),
}

_ARM_BESIDE = {
    "shoulder_flexion": (-15, 0),
    "shoulder_abduction": (5, 25),
    "shoulder_rotation": (0, 60),
    "elbow_flexion": (5, 50),
}
_ARM_ON_BELLY = {
    "shoulder_flexion": (0, 15),
    "shoulder_abduction": (15, 40),
    "shoulder_rotation": (45, 70),
    "elbow_flexion": (70, 115),
}
_ARM_OUT = {
    "shoulder_flexion": (-10, 0),
    "shoulder_abduction": (35, 65),
    "shoulder_rotation": (-80, -60),
    "elbow_flexion": (20, 120),
}
_ARM_RAISED = {
    "shoulder_flexion": (-5, 5),
    "shoulder_abduction": (90, 165),
    "shoulder_rotation": (-90, -65),
    "elbow_flexion": (30, 120),
}
_ARM_BESIDE_PRONE = {**_ARM_BESIDE, "shoulder_flexion": (-5, 10)}
_ARM_RAISED_PRONE = {
    **_ARM_RAISED,
    "shoulder_flexion": (-8, 0),
    "shoulder_rotation": (-90, -80),
}
_LOWER_ARM = {
    "shoulder_flexion": (35, 80),
    "shoulder_abduction": (0, 15),
    "shoulder_rotation": (-15, 15),
    "elbow_flexion": (40, 130),
}
_UPPER_ARM = {**_LOWER_ARM, "shoulder_flexion": (20, 80), "shoulder_abduction": (-25, -5)}
_ARM_ALONG_SIDE = {
    "shoulder_flexion": (-10, 30),
    "shoulder_abduction": (-10, 5),
    "shoulder_rotation": (0, 40),
    "elbow_flexion": (5, 60),
}

_LEG_STRAIGHT = {
    "hip_flexion": (-6, 2),
    "hip_abduction": (-1, 12),
    "hip_rotation": (-40, -5),
    "knee_flexion": (0, 10),
    "ankle_flexion": (10, 45),
}
_LEG_CROSSED = {**_LEG_STRAIGHT, "hip_abduction": (-14, -6), "hip_flexion": (2, 6)}
_LEG_KNEE_UP = {
    "hip_flexion": (35, 60),
    "hip_abduction": (0, 12),
    "knee_flexion": (75, 120),
    "ankle_flexion": (0, 40),
}
_LEG_KNEE_OUT = {
    "hip_flexion": (5, 35),
    "hip_abduction": (30, 50),
    "hip_rotation": (-60, -40),
    "knee_flexion": (50, 110),
    "ankle_flexion": (10, 40),
}
_LEG_STRAIGHT_PRONE = {
    **_LEG_STRAIGHT,
    "hip_rotation": (-30, 20),
    "knee_flexion": (0, 20),
    "ankle_flexion": (25, 60),
}
_LEG_KNEE_OUT_PRONE = {**_LEG_KNEE_OUT, "hip_flexion": (0, 15)}
_LEG_SIDE = {
    "hip_flexion": (5, 45),
    "hip_abduction": (3, 9),
    "hip_rotation": (0, 20),
    "knee_flexion": (15, 80),
    "ankle_flexion": (0, 40),
}
_LEG_FETAL = {
    "hip_flexion": (60, 110),
    "hip_abduction": (3, 9),
    "hip_rotation": (0, 20),
    "knee_flexion": (60, 130),
    "ankle_flexion": (0, 30),
}

TRUNKS = {
    "supine": (_SUPINE_TRUNK,),
    "prone": (_PRONE_TRUNK,),
    "left": (_SIDE_TRUNK, _SIDE_TRUNK, _FETAL_TRUNK),
}
ARMS = {
    "supine": (_ARM_BESIDE, _ARM_BESIDE, _ARM_BESIDE, _ARM_ON_BELLY, _ARM_OUT, _ARM_RAISED),
    "prone": (_ARM_BESIDE_PRONE, _ARM_RAISED_PRONE, _ARM_RAISED_PRONE),
    "left": (_LOWER_ARM,),
}
LEGS = {
    "supine": (*[_LEG_STRAIGHT] * 5, _LEG_CROSSED, _LEG_KNEE_UP, _LEG_KNEE_OUT),
    "prone": (*[_LEG_STRAIGHT_PRONE] * 3, _LEG_KNEE_OUT_PRONE),
    "left": (_LEG_SIDE, _LEG_SIDE, _LEG_FETAL),
}
UPPER_ARMS = (_UPPER_ARM, _UPPER_ARM, _ARM_ALONG_SIDE)
"""Habits by posture, all equally likely. On the side, arms and legs are those of the lower
side; the upper arm has its own habits and the upper leg follows the lower one."""


def sample_poses(rng: np.random.Generator, postures: list[str]) -> np.ndarray:
    """Draws one pose for every posture asked for.

    Args:
        rng: where the randomness comes from.
        postures: N of "supine", "prone", "left" (on the left side) and "right".

    Returns:
        f64[N,D], angles in radians within the joint limits, in the order of FREEDOMS. The yaw
        is spread by 4 degrees about "head straight up the bed".
    """
    unknown = sorted(set(postures) - set(ROLL_DEG))
    if unknown:
        raise ValueError(f"unknown posture {unknown[0]!r}, expected one of {tuple(ROLL_DEG)}")
    angles = np.zeros((len(postures), len(FREEDOMS)))
    for row, posture in zip(angles, postures, strict=True):
        on_side = posture in ("left", "right")
        table = "left" if on_side else posture
        _draw(rng, row, "", TRUNKS[table])
        _draw(rng, row, "left_", ARMS[table])
        _draw(rng, row, "right_", UPPER_ARMS if on_side else ARMS[table])
        _draw(rng, row, "left_", LEGS[table])
        if on_side:
            _rest_on_lower_leg(rng, row)
        else:
            _draw(rng, row, "right_", LEGS[table])
        row[FREEDOM_INDEX["roll"]] += ROLL_DEG[table]
        row[FREEDOM_INDEX["yaw"]] = rng.normal(0, 4)
        # Right is left in a mirror; the face of the prone turns to either side, for air.
        if posture == "right" or (posture == "prone" and rng.random() < 0.5):
            row[:] = mirrored(row)
    return np.clip(np.radians(angles), *LIMITS_RAD.T)


def mirrored(angles: np.ndarray) -> np.ndarray:
    """Swaps left and right of poses f64[...,D]."""
    return np.where(_SIDEWAYS, -angles, angles[..., _OTHER_SIDE])


def _draw(rng: np.random.Generator, row: np.ndarray, side: str, habits: tuple) -> None:
    """Writes the angles of one habit, drawn at random, into a row of degrees."""
    habit = habits[rng.integers(len(habits))]
    for (name, (low, high)), share in zip(habit.items(), rng.random(len(habit)), strict=True):
        row[FREEDOM_INDEX[side + name]] = low + share * (high - low)


def _rest_on_lower_leg(rng: np.random.Generator, row: np.ndarray) -> None:
    """Lays the right leg on the left one, a little beside it, in a row of degrees."""
    for name in ("hip_flexion", "knee_flexion", "ankle_flexion"):
        lower = row[FREEDOM_INDEX["left_" + name]]
        row[FREEDOM_INDEX["right_" + name]] = lower + rng.normal(0, 10)
    row[FREEDOM_INDEX["right_hip_abduction"]] = rng.uniform(-12, -2)
