"""The tables of the body: bones, how they turn, the flesh on them, and the joints it shows.

B bones, D degrees of freedom, C capsules, J joints. Lengths in statures, that is as a share of
the standing height; axes right-handed.

Body frame: x to the person's left, y to the head, z to the front; origin midway between the
hips. In the neutral pose (all angles 0) the person stands straight, arms hanging, palms to
the thighs.

Sources: lengths of the bones, Drillis and Contini, "Body Segment Parameters", 1966; limits of
the joints, rounded from American Academy of Orthopaedic Surgeons, "Joint Motion", 1965; masses,
Winter, "Biomechanics and Motor Control of Human Movement", 4th ed., 2009, table 4.1. Thickness
and muscle tone are set by comparison with recorded pressure maps.
"""

from typing import NamedTuple

import numpy as np

REFERENCE_BMI = 22.0
"""Body-mass index, kg/m^2, at which the flesh has the thickness of its table."""


class Bone(NamedTuple):
    """A rigid bone; `origin` is its joint in the parent's frame, in statures."""

    name: str
    parent: str | None
    origin: tuple[float, float, float]


class Freedom(NamedTuple):
    """One way a bone turns against its parent.

    Attributes:
        name: joint and movement, in clinical terms.
        bone: the bone that turns; its freedoms apply in the order of the table.
        axis: positive sense of rotation, in the bone's frame.
        limits: smallest and largest angle, degrees.
        tone: stiffness that holds a relaxed pose, in weight times stature per radian.
    """

    name: str
    bone: str
    axis: tuple[int, int, int]
    limits: tuple[float, float]
    tone: float


class Flesh(NamedTuple):
    """A tapered capsule, the convex hull of two balls, fixed to a bone.

    Attributes:
        bone: the bone it belongs to.
        ends: centres of the two balls in the bone's frame, in statures.
        radii: radii of the two balls, in statures, at the reference BMI.
        growth: thickness grows as (BMI / reference) ** growth.
        mass: share of the body's weight, at the reference BMI.
    """

    bone: str
    ends: tuple[tuple[float, float, float], tuple[float, float, float]]
    radii: tuple[float, float]
    growth: float
    mass: float


def right_name(name: str) -> str:
    """Names the right counterpart of a bone, freedom or joint; the middle is its own."""
    return name.replace("left_", "right_")


def _right_point(point: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = point
    return -x, y, z


def _right_bone(bone: Bone) -> Bone:
    return Bone(right_name(bone.name), right_name(bone.parent), _right_point(bone.origin))


def _right_freedom(freedom: Freedom) -> Freedom:
    x, y, z = freedom.axis  # a mirror reverses rotations about axes that lie in it
    name, bone = right_name(freedom.name), right_name(freedom.bone)
    return freedom._replace(name=name, bone=bone, axis=(x, -y, -z))


def _right_flesh(flesh: Flesh) -> Flesh:
    ends = tuple(_right_point(end) for end in flesh.ends)
    return flesh._replace(bone=right_name(flesh.bone), ends=ends)


_LEFT_BONES = (
    Bone("left_upper_arm", "chest", (0.108, 0.135, 0.0)),
    Bone("left_forearm", "left_upper_arm", (0.0, -0.172, 0.0)),
    Bone("left_thigh", "pelvis", (0.052, 0.0, 0.0)),
    Bone("left_shank", "left_thigh", (0.0, -0.245, 0.0)),
    Bone("left_foot", "left_shank", (0.0, -0.246, 0.0)),
)
BONES = (
    Bone("pelvis", None, (0.0, 0.0, 0.0)),
    Bone("abdomen", "pelvis", (0.0, 0.060, 0.0)),
    Bone("chest", "abdomen", (0.0, 0.090, 0.0)),
    Bone("head", "chest", (0.0, 0.155, -0.005)),
    *_LEFT_BONES,
    *(_right_bone(bone) for bone in _LEFT_BONES),
)
"""The skeleton, parents first."""

_LEFT_FREEDOMS = (
    Freedom("left_shoulder_flexion", "left_upper_arm", (-1, 0, 0), (-60, 180), 0.012),
    Freedom("left_shoulder_abduction", "left_upper_arm", (0, 0, 1), (-40, 180), 0.012),
    Freedom("left_shoulder_rotation", "left_upper_arm", (0, -1, 0), (-90, 80), 0.008),
    Freedom("left_elbow_flexion", "left_forearm", (-1, 0, 0), (0, 150), 0.006),
    Freedom("left_hip_flexion", "left_thigh", (-1, 0, 0), (-30, 125), 0.02),
    Freedom("left_hip_abduction", "left_thigh", (0, 0, 1), (-30, 50), 0.02),
    Freedom("left_hip_rotation", "left_thigh", (0, -1, 0), (-60, 45), 0.02),
    Freedom("left_knee_flexion", "left_shank", (1, 0, 0), (0, 140), 0.016),
    Freedom("left_ankle_flexion", "left_foot", (1, 0, 0), (-20, 60), 0.004),
)
FREEDOMS = (
    Freedom("yaw", "pelvis", (0, 0, 1), (-np.inf, np.inf), 0.04),
    Freedom("pitch", "pelvis", (1, 0, 0), (-np.inf, np.inf), 0.04),
    Freedom("roll", "pelvis", (0, 1, 0), (-np.inf, np.inf), 0.04),
    Freedom("waist_flexion", "abdomen", (1, 0, 0), (-15, 45), 0.08),
    Freedom("waist_bend", "abdomen", (0, 0, -1), (-20, 20), 0.08),
    Freedom("waist_twist", "abdomen", (0, 1, 0), (-20, 20), 0.08),
    Freedom("back_flexion", "chest", (1, 0, 0), (-15, 40), 0.08),
    Freedom("back_bend", "chest", (0, 0, -1), (-20, 20), 0.08),
    Freedom("back_twist", "chest", (0, 1, 0), (-30, 30), 0.08),
    Freedom("neck_flexion", "head", (1, 0, 0), (-45, 50), 0.006),
    Freedom("neck_bend", "head", (0, 0, -1), (-45, 45), 0.006),
    Freedom("neck_twist", "head", (0, 1, 0), (-80, 80), 0.02),
    *_LEFT_FREEDOMS,
    *(_right_freedom(freedom) for freedom in _LEFT_FREEDOMS),
)
"""Degrees of freedom. Bend and twist are positive to the left, rotation inwards, flexion of
the ankle downwards; the pelvis turns freely against the bed."""

_LEFT_FLESH = (
    Flesh("chest", ((0.038, 0.105, -0.003), (0.036, 0.0, 0.0)), (0.058, 0.058), 0.45, 0.055),
    Flesh("chest", ((0.045, 0.105, -0.016), (0.100, 0.135, 0.0)), (0.042, 0.036), 0.4, 0.020),
    Flesh("abdomen", ((0.034, 0.090, 0.002), (0.036, 0.0, 0.004)), (0.055, 0.055), 0.7, 0.047),
    Flesh("pelvis", ((0.036, 0.050, 0.002), (0.050, -0.010, 0.0)), (0.055, 0.060), 0.5, 0.030),
    Flesh("pelvis", ((0.042, 0.020, -0.018), (0.046, -0.035, -0.016)), (0.054, 0.050), 0.5, 0.025),
    Flesh("left_upper_arm", ((0.0, 0.0, 0.0), (0.0, -0.172, 0.0)), (0.034, 0.024), 0.4, 0.028),
    Flesh("left_forearm", ((0.0, -0.005, 0.0), (0.0, -0.146, 0.0)), (0.026, 0.016), 0.3, 0.016),
    Flesh("left_forearm", ((0.0, -0.165, 0.0), (0.0, -0.225, 0.012)), (0.019, 0.013), 0.1, 0.006),
    Flesh("left_thigh", ((0.006, -0.015, -0.006), (0.0, -0.235, 0.0)), (0.052, 0.034), 0.5, 0.100),
    Flesh("left_shank", ((0.0, 0.0, 0.004), (0.0, -0.080, -0.008)), (0.031, 0.034), 0.35, 0.0190),
    Flesh("left_shank", ((0.0, -0.080, -0.008), (0.0, -0.235, 0.0)), (0.034, 0.021), 0.3, 0.0275),
    Flesh("left_foot", ((0.0, -0.018, -0.018), (0.0, -0.026, 0.095)), (0.021, 0.013), 0.1, 0.0145),
)
FLESH = (
    Flesh("head", ((0.0, 0.118, -0.006), (0.0, 0.114, 0.014)), (0.046, 0.046), 0.05, 0.058),
    Flesh("head", ((0.0, 0.085, 0.018), (0.0, 0.062, 0.030)), (0.036, 0.024), 0.1, 0.010),
    Flesh("head", ((0.0, -0.015, -0.002), (0.0, 0.080, 0.0)), (0.036, 0.033), 0.3, 0.013),
    Flesh("chest", ((0.0, 0.105, -0.003), (0.0, 0.0, 0.0)), (0.060, 0.060), 0.45, 0.066),
    Flesh("abdomen", ((0.0, 0.090, 0.002), (0.0, 0.0, 0.004)), (0.057, 0.057), 0.7, 0.045),
    Flesh("pelvis", ((0.0, 0.050, 0.0), (0.0, -0.005, -0.012)), (0.058, 0.058), 0.5, 0.032),
    *_LEFT_FLESH,
    *(_right_flesh(flesh) for flesh in _LEFT_FLESH),
)
"""The soft parts, all at once the outline of the body."""

_LEFT_POINTS = {
    "left_ankle": ("left_foot", (0.0, 0.0, 0.0)),
    "left_knee": ("left_shank", (0.0, 0.0, 0.0)),
    "left_hip": ("left_thigh", (0.0, 0.0, 0.0)),
    "left_wrist": ("left_forearm", (0.0, -0.146, 0.0)),
    "left_elbow": ("left_forearm", (0.0, 0.0, 0.0)),
    "left_shoulder": ("left_upper_arm", (0.0, 0.0, 0.0)),
}
JOINT_POINTS = {
    **_LEFT_POINTS,
    **{right_name(name): (right_name(bone), at) for name, (bone, at) in _LEFT_POINTS.items()},
    "neck": ("head", (0.0, 0.0, 0.0)),
    "head_top": ("head", (0.0, 0.165, 0.0)),
}
JOINTS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder"),
    *("left_shoulder", "left_elbow", "left_wrist"),
    *("neck", "head_top"),
)
"""The 14 joints of the Leeds Sports Pose set, in its order."""

BONE_INDEX = {bone.name: i for i, bone in enumerate(BONES)}
FREEDOM_INDEX = {freedom.name: i for i, freedom in enumerate(FREEDOMS)}
LIMITS_RAD = np.radians([freedom.limits for freedom in FREEDOMS])
"""f64[D,2], smallest and largest angle of every degree of freedom."""
