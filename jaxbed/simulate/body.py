"""An articulated human body: rigid bones, joint limits and tapered capsules for the flesh.

N bodies, B bones, D degrees of freedom, C capsules, J joints. Lengths in metres, angles in
radians, axes right-handed.

Body frame: x to the person's left, y to the head, z to the front; origin midway between the
hips. In the neutral pose (all angles 0) the person stands straight, arms hanging, palms to
the thighs. Bed frame: seen from above, x to the right, y to the head of the bed, z up. The two
agree for a person who lies supine, head up.

Sources: lengths of the bones, Drillis and Contini, "Body Segment Parameters", 1966; limits of
the joints, rounded from American Academy of Orthopaedic Surgeons, "Joint Motion", 1965.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

REFERENCE_BMI = 22.0
"""Body-mass index, kg/m^2, at which the flesh has the thickness of its table."""


GRAVITY = 9.80665
"""m/s^2."""
DENSITY = 1000.0
"""Of the body, kg/m^3."""


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


def _right_name(name: str) -> str:
    return name.replace("left_", "right_")


def _right_point(point: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = point
    return -x, y, z


def _right_bone(bone: Bone) -> Bone:
    return Bone(_right_name(bone.name), _right_name(bone.parent), _right_point(bone.origin))


def _right_freedom(freedom: Freedom) -> Freedom:
    x, y, z = freedom.axis  # a mirror reverses rotations about axes that lie in it
    name, bone = _right_name(freedom.name), _right_name(freedom.bone)
    return freedom._replace(name=name, bone=bone, axis=(x, -y, -z))


def _right_flesh(flesh: Flesh) -> Flesh:
    ends = tuple(_right_point(end) for end in flesh.ends)
    return flesh._replace(bone=_right_name(flesh.bone), ends=ends)


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
    Freedom("left_shoulder_flexion", "left_upper_arm", (-1, 0, 0), (-60, 180), 0.006),
    Freedom("left_shoulder_abduction", "left_upper_arm", (0, 0, 1), (-40, 180), 0.006),
    Freedom("left_shoulder_rotation", "left_upper_arm", (0, -1, 0), (-90, 80), 0.004),
    Freedom("left_elbow_flexion", "left_forearm", (-1, 0, 0), (0, 150), 0.003),
    Freedom("left_hip_flexion", "left_thigh", (-1, 0, 0), (-30, 125), 0.02),
    Freedom("left_hip_abduction", "left_thigh", (0, 0, 1), (-30, 50), 0.02),
    Freedom("left_hip_rotation", "left_thigh", (0, -1, 0), (-60, 45), 0.02),
    Freedom("left_knee_flexion", "left_shank", (1, 0, 0), (0, 140), 0.008),
    Freedom("left_ankle_flexion", "left_foot", (1, 0, 0), (-20, 60), 0.002),
)
FREEDOMS = (
    Freedom("yaw", "pelvis", (0, 0, 1), (-np.inf, np.inf), 0.02),
    Freedom("pitch", "pelvis", (1, 0, 0), (-np.inf, np.inf), 0.02),
    Freedom("roll", "pelvis", (0, 1, 0), (-np.inf, np.inf), 0.02),
    Freedom("waist_flexion", "abdomen", (1, 0, 0), (-15, 45), 0.04),
    Freedom("waist_bend", "abdomen", (0, 0, -1), (-20, 20), 0.04),
    Freedom("waist_twist", "abdomen", (0, 1, 0), (-20, 20), 0.04),
    Freedom("back_flexion", "chest", (1, 0, 0), (-15, 40), 0.04),
    Freedom("back_bend", "chest", (0, 0, -1), (-20, 20), 0.04),
    Freedom("back_twist", "chest", (0, 1, 0), (-30, 30), 0.04),
    Freedom("neck_flexion", "head", (1, 0, 0), (-45, 50), 0.003),
    Freedom("neck_bend", "head", (0, 0, -1), (-45, 45), 0.003),
    Freedom("neck_twist", "head", (0, 1, 0), (-80, 80), 0.01),
    *_LEFT_FREEDOMS,
    *(_right_freedom(freedom) for freedom in _LEFT_FREEDOMS),
)
"""Degrees of freedom. Bend and twist are positive to the left, rotation inwards, flexion of
the ankle downwards; the pelvis turns freely against the bed."""

_LEFT_FLESH = (
    Flesh("chest", ((0.036, 0.105, 0.0), (0.034, 0.0, 0.004)), (0.058, 0.058), 0.45, 0.055),
    Flesh("chest", ((0.045, 0.105, -0.016), (0.100, 0.135, 0.0)), (0.042, 0.036), 0.4, 0.020),
    Flesh("abdomen", ((0.034, 0.090, 0.006), (0.036, 0.0, 0.008)), (0.055, 0.055), 0.7, 0.047),
    Flesh("pelvis", ((0.036, 0.050, 0.002), (0.050, -0.010, 0.0)), (0.055, 0.060), 0.5, 0.030),
    Flesh("pelvis", ((0.040, 0.015, -0.026), (0.044, -0.030, -0.026)), (0.052, 0.048), 0.5, 0.025),
    Flesh("left_upper_arm", ((0.0, 0.0, 0.0), (0.0, -0.172, 0.0)), (0.034, 0.024), 0.4, 0.028),
    Flesh("left_forearm", ((0.0, -0.005, 0.0), (0.0, -0.146, 0.0)), (0.026, 0.016), 0.3, 0.016),
    Flesh("left_forearm", ((0.0, -0.165, 0.0), (0.0, -0.225, 0.012)), (0.019, 0.013), 0.1, 0.006),
    Flesh("left_thigh", ((0.006, -0.015, 0.002), (0.0, -0.235, 0.004)), (0.050, 0.033), 0.5, 0.100),
    Flesh("left_shank", ((0.0, 0.0, 0.004), (0.0, -0.080, -0.008)), (0.031, 0.034), 0.35, 0.0190),
    Flesh("left_shank", ((0.0, -0.080, -0.008), (0.0, -0.235, 0.0)), (0.034, 0.021), 0.3, 0.0275),
    Flesh("left_foot", ((0.0, -0.018, -0.018), (0.0, -0.026, 0.095)), (0.021, 0.013), 0.1, 0.0145),
)
FLESH = (
    Flesh("head", ((0.0, 0.118, -0.006), (0.0, 0.114, 0.014)), (0.046, 0.046), 0.05, 0.058),
    Flesh("head", ((0.0, 0.085, 0.018), (0.0, 0.062, 0.030)), (0.036, 0.024), 0.1, 0.010),
    Flesh("head", ((0.0, -0.015, -0.002), (0.0, 0.080, 0.0)), (0.036, 0.033), 0.3, 0.013),
    Flesh("chest", ((0.0, 0.105, 0.0), (0.0, 0.0, 0.004)), (0.060, 0.060), 0.45, 0.066),
    Flesh("abdomen", ((0.0, 0.090, 0.006), (0.0, 0.0, 0.008)), (0.057, 0.057), 0.7, 0.045),
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
_POINTS = {
    **_LEFT_POINTS,
    **{_right_name(name): (_right_name(bone), at) for name, (bone, at) in _LEFT_POINTS.items()},
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

_PARENT = tuple(BONE_INDEX.get(bone.parent, -1) for bone in BONES)
_FLESH_BONE = np.array([BONE_INDEX[flesh.bone] for flesh in FLESH])
_JOINT_BONE = np.array([BONE_INDEX[_POINTS[name][0]] for name in JOINTS])
_FREEDOM_BONE = np.array([BONE_INDEX[freedom.bone] for freedom in FREEDOMS])


@dataclasses.dataclass(frozen=True)
class Bodies:
    """The sizes of N people.

    Attributes:
        stature_m: f64[N], standing height.
        weight_kg: f64[N].
        bones_m: f64[N,B,3], the origin of every bone in its parent's frame.
        joints_m: f64[N,J,3], the joints in the frame of their bone.
        ends_m: f64[N,C,2,3], the ends of the capsules in the frame of their bone.
        radii_m: f64[N,C,2], the radii of the capsules.
        load_n: f64[N,C], the weight of the capsules, newtons; its sum is the body's.
    """

    stature_m: np.ndarray
    weight_kg: np.ndarray
    bones_m: np.ndarray
    joints_m: np.ndarray
    ends_m: np.ndarray
    radii_m: np.ndarray
    load_n: np.ndarray

    def __len__(self) -> int:
        return len(self.stature_m)

    def __getitem__(self, index) -> "Bodies":
        """Selects people with any one-dimensional index that keeps the axis."""
        return Bodies(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Figure:
    """N bodies in a pose, in the bed frame.

    Attributes:
        joints_m: f64[N,J,3].
        ends_m: f64[N,C,2,3], the ends of the capsules.
        radii_m: f64[N,C,2].
        origins_m: f64[N,B,3], the origins of the bones.
        rotations: f64[N,B,3,3], the axes of the bones, as columns.
        axes: f64[N,D,3], the axis of every degree of freedom.
    """

    joints_m: np.ndarray
    ends_m: np.ndarray
    radii_m: np.ndarray
    origins_m: np.ndarray
    rotations: np.ndarray
    axes: np.ndarray


def make_bodies(
    stature_m: np.ndarray, weight_kg: np.ndarray, lengths: np.ndarray, girths: np.ndarray
) -> Bodies:
    """Makes bodies of given stature, weight and proportions.

    Args:
        stature_m: f64[N] > 0.
        weight_kg: f64[N] > 0.
        lengths: f64[N,B], length of every bone relative to an adult of the same stature; only
            ratios count, for the whole is scaled to the stature.
        girths: f64[N,B], thickness of the flesh on every bone relative to an adult of the same
            body-mass index.
    """
    if np.any(stature_m <= 0) or np.any(weight_kg <= 0):
        raise ValueError(f"stature and weight must be positive: {stature_m} m, {weight_kg} kg")
    upright = [BONE_INDEX[name] for name in ("pelvis", "abdomen", "chest", "head")]
    legs = [BONE_INDEX[name] for name in ("left_thigh", "left_shank", "left_foot")]
    share = np.array([0.060, 0.090, 0.155, 0.165, 0.245, 0.246, 0.039])
    lengths = lengths / (lengths[:, upright + legs] @ share)[:, None]
    scale = lengths * stature_m[:, None]  # metres for one stature of the tables, by bone

    bones = np.array([bone.origin for bone in BONES]) * scale[:, _PARENT, None]
    joints = np.array([_POINTS[name][1] for name in JOINTS]) * scale[:, _JOINT_BONE, None]
    bmi = weight_kg / stature_m**2
    growth = np.array([flesh.growth for flesh in FLESH])
    girth = girths[:, _FLESH_BONE] * (bmi[:, None] / REFERENCE_BMI) ** growth
    radii = np.array([flesh.radii for flesh in FLESH]) * (girth * stature_m[:, None])[..., None]
    thicker = np.stack([girth, np.ones_like(girth), girth], axis=-1)[:, :, None]
    ends = np.array([flesh.ends for flesh in FLESH]) * thicker
    ends = ends * scale[:, _FLESH_BONE, None, None]

    mass = np.array([flesh.mass for flesh in FLESH]) * lengths[:, _FLESH_BONE] * girth**2
    load = mass * (GRAVITY * weight_kg / mass.sum(axis=1))[:, None]
    return Bodies(stature_m, weight_kg, bones, joints, ends, radii, load)


def sample_subjects(rng: np.random.Generator, count: int) -> Bodies:
    """Draws adults: 1.50 to 1.95 m, body-mass index 17 to 35, individual proportions.

    The two sides of a body are alike.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, found {count}")
    stature = np.clip(rng.normal(1.72, 0.10, count), 1.50, 1.95)
    bmi = np.clip(22.5 * np.exp(rng.normal(0.05, 0.16, count)), 17.0, 35.0)
    side_of = np.array([BONE_INDEX[_right_name(bone.name)] for bone in BONES])
    lengths = np.exp(rng.normal(0.0, 0.03, (count, len(BONES))))[:, side_of]
    girths = np.exp(rng.normal(0.0, 0.06, (count, len(BONES))))[:, side_of]
    return make_bodies(stature, bmi * stature**2, lengths, girths)


def forward_kinematics(bodies: Bodies, angles: np.ndarray, root_m: np.ndarray) -> Figure:
    """Poses bodies.

    Args:
        bodies: N bodies.
        angles: f64[N,D], radians, in the order of FREEDOMS. Limits are not applied here.
        root_m: f64[N,3], the point midway between the hips, in the bed frame.

    Returns:
        The figures, in the bed frame.
    """
    n, shape = len(bodies), (len(bodies), len(FREEDOMS))
    if angles.shape != shape or root_m.shape != (n, 3):
        raise ValueError(
            f"{n} bodies need angles {shape} and roots {(n, 3)}, "
            f"found {angles.shape} and {root_m.shape}"
        )
    turns = _turns(angles)
    origins = np.empty((n, len(BONES), 3))
    rotations = np.empty((n, len(BONES), 3, 3))
    axes = np.empty((n, len(FREEDOMS), 3))
    for b, parent in enumerate(_PARENT):
        if parent < 0:
            origins[:, b], frame = root_m, np.broadcast_to(np.eye(3), (n, 3, 3))
        else:
            frame = rotations[:, parent]
            offset = (frame @ bodies.bones_m[:, b, :, None])[..., 0]
            origins[:, b] = origins[:, parent] + offset
        for d in np.flatnonzero(_FREEDOM_BONE == b):
            axes[:, d] = frame @ np.asarray(FREEDOMS[d].axis, float)
            frame = frame @ turns[:, d]
        rotations[:, b] = frame

    at_joint, at_flesh = rotations[:, _JOINT_BONE], rotations[:, _FLESH_BONE]
    joints = origins[:, _JOINT_BONE] + (at_joint @ bodies.joints_m[..., None])[..., 0]
    ends = bodies.ends_m @ at_flesh.swapaxes(-1, -2) + origins[:, _FLESH_BONE, None]
    return Figure(joints, ends, bodies.radii_m, origins, rotations, axes)


def _turns(angles: np.ndarray) -> np.ndarray:
    """f64[N,D,3,3], the rotation of every degree of freedom, by Rodrigues' formula."""
    x, y, z = np.array([freedom.axis for freedom in FREEDOMS], float).T
    o = np.zeros_like(x)
    cross = np.moveaxis(np.array([[o, -z, y], [z, o, -x], [-y, x, o]]), -1, 0)
    sine, versine = np.sin(angles), 1 - np.cos(angles)
    return (
        np.eye(3)
        + sine[..., None, None] * cross
        + versine[..., None, None] * (cross @ cross)
    )


def moved_by() -> np.ndarray:
    """bool[D,C], whether a degree of freedom moves a capsule."""
    moves = np.zeros((len(BONES), len(BONES)), bool)  # bone, and every bone it hangs from
    for b, parent in enumerate(_PARENT):
        moves[b, b] = True
        if parent >= 0:
            moves[b] |= moves[parent]
    return moves[_FLESH_BONE][:, _FREEDOM_BONE].T
