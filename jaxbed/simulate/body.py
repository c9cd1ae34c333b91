"""An articulated human body: sizes of people, and their figure in a pose.

N bodies, B bones, D degrees of freedom, C capsules, J joints. Lengths in metres, angles in
radians, axes right-handed.

Body frame: x to the person's left, y to the head, z to the front; origin midway between the
hips. Bed frame: seen from above, x to the right, y to the head of the bed, z up. The two agree
for a person who lies supine, head up.
"""

import dataclasses

import numpy as np

from jaxbed.simulate.skeleton import (
    BONE_INDEX,
    BONES,
    FLESH,
    FREEDOMS,
    JOINT_POINTS,
    JOINTS,
    REFERENCE_BMI,
    right_name,
)

GRAVITY = 9.80665
"""m/s^2."""

# Share of the standing height that lies along each bone, the pelvis from the hips upwards.
_HEIGHT = {
    **{"head": 0.165, "chest": 0.155, "abdomen": 0.090, "pelvis": 0.060},
    **{"left_thigh": 0.245, "left_shank": 0.246, "left_foot": 0.039},
}
_PARENT = tuple(BONE_INDEX.get(bone.parent, -1) for bone in BONES)
_FLESH_BONE = np.array([BONE_INDEX[flesh.bone] for flesh in FLESH])
_JOINT_BONE = np.array([BONE_INDEX[JOINT_POINTS[name][0]] for name in JOINTS])
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
    upright = np.array([lengths[:, BONE_INDEX[name]] for name in _HEIGHT]).T
    lengths = lengths / (upright @ np.array([*_HEIGHT.values()]))[:, None]
    scale = lengths * stature_m[:, None]  # metres for one stature of the tables, by bone

    bones = np.array([bone.origin for bone in BONES]) * scale[:, _PARENT, None]
    joints = np.array([JOINT_POINTS[name][1] for name in JOINTS]) * scale[:, _JOINT_BONE, None]
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
    side_of = np.array([BONE_INDEX[right_name(bone.name)] for bone in BONES])
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
        for d in np.flatnonzero(b == _FREEDOM_BONE):
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
    return np.eye(3) + sine[..., None, None] * cross + versine[..., None, None] * (cross @ cross)


def moved_by() -> np.ndarray:
    """bool[D,C], whether a degree of freedom moves a capsule."""
    moves = np.zeros((len(BONES), len(BONES)), bool)  # bone, and every bone it hangs from
    for b, parent in enumerate(_PARENT):
        moves[b, b] = True
        if parent >= 0:
            moves[b] |= moves[parent]
    return moves[_FLESH_BONE][:, _FREEDOM_BONE].T
