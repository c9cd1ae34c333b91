"""Newborn infants: their sizes, and how they move while they lie on their back.

F frames, D degrees of freedom.

Sources: length, weight and girth of the head, Keen and Pearse, "Weight, length, and head
circumference curves for boys and girls of between 20 and 42 weeks' gestation", Archives of
Disease in Childhood 63, 1988 (48 cm, 2.7 kg and 33 cm at 36 weeks); where the legs begin, Hall
et al., "Handbook of Physical Measurements", 2007 (the upper part of the body is 1.7 times the
lower one); limb bones, Fazekas and Kosa, "Forensic Fetal Osteology", 1978 (at a length of 51 cm,
shafts of humerus, ulna, femur and tibia of 6.5, 5.9, 7.4 and 6.5 cm, here longer by a fifth for
the cartilage at their ends). Movement is set by eye after descriptions of spontaneous movement:
limbs bent and turned outwards, legs that kick, every limb in bouts of its own.
"""

import dataclasses

import numpy as np
from scipy.interpolate import PchipInterpolator

from jaxbed.simulate.body import Bodies, make_bodies
from jaxbed.simulate.skeleton import (
    BONE_INDEX,
    BONES,
    FREEDOM_INDEX,
    FREEDOMS,
    LIMITS_RAD,
    right_name,
)

RATE_HZ = 6.0
"""Every fifth frame of a camera at 30 frames per second."""

# Length and girth of every bone of an infant relative to an adult of the same length and BMI.
_PROPORTIONS = {
    "pelvis": (1.28, 1.45),
    "abdomen": (1.50, 1.78),
    "chest": (1.05, 1.64),
    "head": (1.31, 2.20),
    "left_upper_arm": (0.90, 1.46),
    "left_forearm": (0.90, 1.36),
    "left_thigh": (0.72, 1.42),
    "left_shank": (0.66, 1.24),
    "left_foot": (1.03, 1.06),
}
_HEAD_TOP = 0.967  # where the joint of this name is, of the length: a round skull is higher

_TRUNK = {
    "yaw": (-6, 6),
    "roll": (-8, 8),
    "waist_flexion": (0, 8),
    "waist_bend": (-8, 8),
    "back_flexion": (0, 8),
    "back_bend": (-6, 6),
    "neck_bend": (-12, 12),
    "neck_twist": (-55, 55),
}
_ARM_BESIDE_HEAD = {
    "shoulder_flexion": (-45, -5),
    "shoulder_abduction": (45, 100),
    "shoulder_rotation": (-90, -65),
    "elbow_flexion": (40, 125),
}
_ARM_BESIDE_TRUNK = {
    "shoulder_flexion": (-35, 0),
    "shoulder_abduction": (15, 50),
    "shoulder_rotation": (-85, -30),
    "elbow_flexion": (15, 80),
}
_ARM_UP = {
    "shoulder_flexion": (0, 65),
    "shoulder_abduction": (15, 70),
    "shoulder_rotation": (-60, 40),
    "elbow_flexion": (40, 130),
}
_LEG_FROG = {
    "hip_flexion": (5, 60),
    "hip_abduction": (30, 50),
    "hip_rotation": (-60, -40),
    "knee_flexion": (70, 130),
    "ankle_flexion": (-20, 35),
}
_LEG_STRETCHED = {
    "hip_flexion": (-15, 20),
    "hip_abduction": (5, 30),
    "hip_rotation": (-55, -10),
    "knee_flexion": (10, 50),
    "ankle_flexion": (0, 35),
}
_LEG_UP = {
    "hip_flexion": (50, 100),
    "hip_abduction": (10, 40),
    "hip_rotation": (-45, -5),
    "knee_flexion": (50, 125),
    "ankle_flexion": (-20, 35),
}
_ARMS = (*[_ARM_BESIDE_HEAD] * 3, *[_ARM_BESIDE_TRUNK] * 2, _ARM_UP)
_LEGS = (_LEG_FROG, _LEG_FROG, _LEG_STRETCHED, _LEG_UP)
_GROUPS = (
    ("", (_TRUNK,), 0.2),
    *((side, habits, 1.0) for habits in (_ARMS, _LEGS) for side in ("left_", "right_")),
)
"""What moves as one: side, habits of which all are equally likely, and mean poses a second."""

_BOUT_S = 1.5  # how long a group keeps its pace
_STILL = 0.35  # share of bouts in which it rests


def sample_infants(rng: np.random.Generator, count: int) -> Bodies:
    """Draws infants born near term: 40 to 52 cm long, 1.5 to 4 kg, individual proportions.

    Their `stature_m` is the length from crown to heel. The two sides of a body are alike.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, found {count}")
    length = np.clip(rng.normal(0.465, 0.028, count), 0.40, 0.52)
    weight = np.clip(25.0 * np.exp(rng.normal(0.0, 0.07, count)) * length**3, 1.5, 4.0)
    side_of = np.array([BONE_INDEX[right_name(bone.name)] for bone in BONES])
    mean = np.array([_PROPORTIONS[bone.name.replace("right_", "left_")] for bone in BONES])
    lengths = mean[:, 0] * np.exp(rng.normal(0.0, 0.03, (count, len(BONES))))[:, side_of]
    girths = mean[:, 1] * np.exp(rng.normal(0.0, 0.05, (count, len(BONES))))[:, side_of]
    infants = make_bodies(_HEAD_TOP * length, weight, lengths, girths)
    return dataclasses.replace(infants, stature_m=length)


def sample_movement(
    rng: np.random.Generator, frames: int, *, rate_hz: float = RATE_HZ
) -> np.ndarray:
    """Draws the spontaneous movement of an infant on its back.

    Trunk and limbs each wander, in bouts of their own, from pose to pose of their habits. The
    limbs may point into the bed a little: there the mattress stops them when the infant lies
    down. A longer movement begins with the shorter one.

    Args:
        rng: where the randomness comes from.
        frames: F >= 1.
        rate_hz: frames per second.

    Returns:
        f64[F,D], radians within the joint limits, continuous in time.
    """
    if frames < 1 or rate_hz <= 0:
        raise ValueError(f"need frames at a positive rate, found {frames} at {rate_hz} Hz")
    time_s = np.arange(frames) / rate_hz
    angles = np.zeros((frames, len(FREEDOMS)))
    for (side, habits, pace_hz), stream in zip(_GROUPS, rng.spawn(len(_GROUPS)), strict=True):
        column = [FREEDOM_INDEX[side + name] for name in habits[0]]
        pace_rng, pose_rng = stream.spawn(2)
        walked = _walk(pace_rng, time_s, pace_hz)
        angles[:, column] = np.radians(_wander(pose_rng, habits, walked))
    return np.clip(angles, *LIMITS_RAD.T)


def _walk(rng: np.random.Generator, time_s: np.ndarray, pace_hz: float) -> np.ndarray:
    """f64[F], how many poses a group has gone through; it changes pace, and at times rests."""
    bouts = int(time_s[-1] / _BOUT_S) + 3
    moves, faster = rng.random((bouts, 2)).T
    pace = np.where(moves < _STILL, 0, pace_hz * (0.4 + 1.2 * faster))
    return PchipInterpolator(np.arange(bouts) * _BOUT_S, pace).antiderivative()(time_s)


def _wander(rng: np.random.Generator, habits: tuple[dict, ...], walked: np.ndarray) -> np.ndarray:
    """f64[F,A], angles in degrees on a smooth curve through poses about a favourite one.

    The interpolation is local and never leaves the range of its knots.
    """
    low, high = np.array([[*habit.values()] for habit in habits]).transpose(2, 0, 1)
    vigour = rng.uniform(0.3, 1.0)
    draw = rng.random((int(walked[-1]) + 4, 1 + low.shape[1]))
    habit = (draw[:, 0] * len(habits)).astype(int)
    poses = low[habit] + draw[:, 1:] * (high - low)[habit]
    poses = poses[0] + vigour * (poses[1:] - poses[0])
    return PchipInterpolator(np.arange(len(poses)), poses)(walked)
