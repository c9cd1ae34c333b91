"""How an infant lies, sits and stands in its crib.

N poses, D degrees of freedom. Metres and radians, the bed frame of `jaxbed.simulate.body`; the
mattress is the plane z = 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxbed.data.crib import POSTURES
from jaxbed.simulate.body import Bodies, Figure, forward_kinematics
from jaxbed.simulate.crib_room import Crib
from jaxbed.simulate.infant import sample_infants, sample_movement
from jaxbed.simulate.infant_pose_ranges import RANGES_DEG, Ranges
from jaxbed.simulate.lying import lie_down, move_point
from jaxbed.simulate.poses import mirrored
from jaxbed.simulate.skeleton import FREEDOM_INDEX, FREEDOMS, JOINTS, LIMITS_RAD
from jaxbed.simulate.sleeper import split

_LENGTH_M = (0.62, 0.76)  # of infants who learn to sit and to stand
_EYES_M = 0.5  # above the mattress, of who sits or stands
_SINK_M = 0.006  # how deep they stand in the mattress
_REACH_STEPS = 8  # in which a hand comes to the rail
_LONGEST_M = 0.12  # of such a step
_HANDS_APART_M = (0.10, 0.22)
_BEFORE_RAIL_M = (0.11, 0.17)  # the hips of who stands there
_ASIDE_DEG, _DOWN_DEG = (62, 80), (-25, 25)  # twist of the neck on the stomach
_RIM_M = 0.04  # between a body and the rim of the mattress

_YAW, _NECK = FREEDOM_INDEX["yaw"], FREEDOM_INDEX["neck_flexion"]
_ARMS = {
    side: np.array([d for d, freedom in enumerate(FREEDOMS) if freedom.bone.startswith(bones)])
    for side, bones in (
        ("left", ("left_upper_arm", "left_forearm")),
        ("right", ("right_upper_arm", "right_forearm")),
    )
}


class Pose(NamedTuple):
    """N poses of one body and where they are: angles f64[N,D] and roots f64[N,3]."""

    angles: np.ndarray
    root_m: np.ndarray

    def figures(self, infant: Bodies) -> list[Figure]:
        """The infant in each of these poses."""
        bodies = infant[np.zeros(len(self.angles), int)]
        return split(forward_kinematics(bodies, self.angles, self.root_m))


class Wish(NamedTuple):
    """How an infant is to lie, sit or stand.

    Attributes:
        posture: one of POSTURES. Who stands holds a rail.
        towards_m: f64[3], a point that the face is turned to as far as the posture allows; None
            for any way.
        face_down: on the stomach, with the face in the mattress instead of aside.
    """

    posture: str
    towards_m: np.ndarray | None = None
    face_down: bool = False


def sample_crib_infants(rng: np.random.Generator, count: int) -> Bodies:
    """Draws infants of about six to twelve months: 62 to 76 cm long, 6 to 12 kg.

    They have the proportions of `jaxbed.simulate.infant.sample_infants`, larger as a whole.
    """
    infants = sample_infants(rng, count)
    length = rng.uniform(*_LENGTH_M, count)
    times = length / infants.stature_m
    grown = {
        field.name: getattr(infants, field.name)
        * times.reshape(-1, *[1] * (getattr(infants, field.name).ndim - 1))
        for field in dataclasses.fields(Bodies)
    }
    weights = {name: getattr(infants, name) for name in ("weight_kg", "load_n")}
    heavier = {name: (old.T * times**3).T for name, old in weights.items()}
    return Bodies(**{**grown, **heavier})


def sample_infant_poses(
    rngs: Sequence[np.random.Generator], infant: Bodies, wishes: Sequence[Wish], crib: Crib
) -> Pose:
    """Draws how and where an infant lies, sits or stands.

    Args:
        rngs: N, where the randomness comes from.
        infant: one body.
        wishes: N.
        crib: where.
    """
    if len(infant) != 1:
        raise ValueError(f"need one infant, found {len(infant)}")
    for wish in wishes:
        if wish.posture not in POSTURES:
            raise ValueError(f"a posture is one of {POSTURES}, found {wish.posture!r}")
    plans = [_plan(*pair, crib) for pair in zip(rngs, wishes, strict=True)]
    angles = np.stack([plan.angles for plan in plans])
    root = np.zeros((len(plans), 3))
    for postures, settle in ((("back", "stomach"), _lay), (("sitting",), _seat)):
        chosen = [n for n, wish in enumerate(wishes) if wish.posture in postures]
        if chosen:
            places = np.array([plans[n].place for n in chosen])
            angles[chosen], root[chosen] = settle(infant, angles[chosen], places, crib)
    chosen = [n for n, wish in enumerate(wishes) if wish.posture == "standing"]
    if chosen:
        root[chosen, :2] = [plans[n].place for n in chosen]
        hold = np.array([plans[n].hold_m for n in chosen])
        angles[chosen], root[chosen] = _stand(infant, Pose(angles[chosen], root[chosen]), hold)
    return Pose(angles, root)


def rise(infant: Bodies, pose: Pose) -> Pose:
    """Brings poses of any kind down, or up, to the mattress."""
    bodies = infant[np.zeros(len(pose.angles), int)]
    figure = forward_kinematics(bodies, pose.angles, pose.root_m)
    root = pose.root_m.copy()
    root[:, 2] -= (figure.ends_m[..., 2] - figure.radii_m).min(axis=(1, 2)) + _SINK_M
    return Pose(pose.angles, root)


class _Plan(NamedTuple):
    """What is drawn of a pose.

    Attributes:
        angles: f64[D], radians within the limits.
        place: f64[2], x and y: where the hips are to be, or, of who lies, by which share of the
            room that there is the body is beside the middle, within [-0.5, 0.5].
        hold_m: f64[2,3], where left and right hand hold a rail, of who stands.
    """

    angles: np.ndarray
    place: np.ndarray
    hold_m: np.ndarray | None = None


def _plan(rng: np.random.Generator, wish: Wish, crib: Crib) -> _Plan:
    half = np.array([crib.width_m, crib.length_m]) / 2
    if wish.posture == "back":
        angles = sample_movement(rng, 1)[0]
        angles[_YAW] += np.radians(rng.uniform(-14, 14))
    else:
        angles = _draw(rng, *RANGES_DEG[wish.posture])
    if wish.posture in ("back", "stomach"):
        if wish.posture == "stomach":
            angles = _turn_face(rng, angles, wish)
        return _Plan(angles, rng.uniform((-0.35, 0.1), (0.35, 0.5)))
    if wish.posture == "sitting":
        place = rng.uniform(-1, 1, 2) * np.maximum(half - (0.25, 0.35), 0)
        angles[_YAW] = rng.uniform(-np.pi, np.pi)
        if wish.towards_m is not None:
            angles[_YAW] = _heading(wish.towards_m[:2] - place) + np.radians(rng.uniform(-40, 40))
        _look_up(rng, angles, wish)
        return _Plan(angles, place)

    rails = np.array([(1, 0), (-1, 0), (0, -1), (0, 1)][: 3 if crib.board else 4], float)
    out = rails[rng.integers(len(rails))]
    if wish.towards_m is not None:
        out = rails[(rails @ (wish.towards_m[:2] / half)).argmax()]
    along = np.abs(out[::-1]) * rng.uniform(-1, 1) * (half - 0.25)
    angles[_YAW] = _heading(out) + np.radians(rng.uniform(-15, 15))
    _look_up(rng, angles, wish)
    apart = rng.uniform(*_HANDS_APART_M) / 2 * np.array([-out[1], out[0]])  # to the left
    hold = np.array([[*(out * half + along + sign * apart), crib.rail_m] for sign in (1, -1)])
    return _Plan(angles, out * (half - rng.uniform(*_BEFORE_RAIL_M)) + along, hold)


def _look_up(rng: np.random.Generator, angles: np.ndarray, wish: Wish) -> None:
    """Bends the neck of who sits or stands towards what is higher or lower than the head."""
    if wish.towards_m is not None:
        rises = np.arctan2(wish.towards_m[2] - _EYES_M, np.linalg.norm(wish.towards_m[:2]))
        low, high = LIMITS_RAD[_NECK]
        angles[_NECK] = np.clip(angles[_NECK] - rng.uniform(0.4, 0.9) * rises, low, high)


def _turn_face(rng: np.random.Generator, angles: np.ndarray, wish: Wish) -> np.ndarray:
    """Turns the head of who lies on the stomach; a twist to its left shows the face at -x."""
    angles[FREEDOM_INDEX["neck_twist"]] = np.radians(rng.uniform(*_ASIDE_DEG))
    right = rng.random() < 0.5 if wish.towards_m is None else wish.towards_m[0] > 0
    if wish.face_down:
        angles[FREEDOM_INDEX["neck_twist"]] = np.radians(rng.uniform(*_DOWN_DEG))
    return mirrored(angles) if right else angles


def _draw(rng: np.random.Generator, trunk: Ranges, arm: Ranges, leg: Ranges) -> np.ndarray:
    """f64[D], radians within the limits."""
    angles = np.zeros(len(FREEDOMS))
    for side, ranges in (
        ("", trunk),
        ("left_", arm),
        ("right_", arm),
        ("left_", leg),
        ("right_", leg),
    ):
        for name, (low, high) in ranges.items():
            angles[FREEDOM_INDEX[side + name]] = rng.uniform(low, high)
    return np.clip(np.radians(angles), *LIMITS_RAD.T)


def _lay(infant: Bodies, angles: np.ndarray, places: np.ndarray, crib: Crib) -> Pose:
    """Lays infants on the mattress, f64[N,2] telling where in the room that there is."""
    angles, figure = lie_down(infant, angles)
    low, high = _extent(figure)
    room = np.maximum((crib.width_m, crib.length_m) - (high - low) - 2 * _RIM_M, 0)
    root = figure.origins_m[:, 0].copy()
    root[:, :2] += room * places - (low + high) / 2
    return Pose(angles, root)


def _seat(infant: Bodies, angles: np.ndarray, places: np.ndarray, crib: Crib) -> Pose:
    """Seats infants at places f64[N,2], or as near as keeps their limbs on the mattress."""
    angles, figure = lie_down(infant, angles, head_rests=False)
    low, high = _extent(figure)
    far = np.array([crib.width_m, crib.length_m]) / 2 - _RIM_M
    root = figure.origins_m[:, 0].copy()
    root[:, :2] += np.clip(places, np.minimum(-far - low, 0), np.maximum(far - high, 0))
    return Pose(angles, root)


def _stand(infant: Bodies, pose: Pose, hold_m: np.ndarray) -> Pose:
    """Stands infants up; their wrists reach for places f64[N,2,3] as far as the arms go."""
    angles, root = rise(infant, pose)
    bodies = infant[np.zeros(len(angles), int)]
    for _ in range(_REACH_STEPS):
        figure = forward_kinematics(bodies, angles, root)
        for n, side in enumerate(("left", "right")):
            wrist = figure.joints_m[:, JOINTS.index(f"{side}_wrist")]
            way = hold_m[:, n] - wrist
            far = np.linalg.norm(way, axis=1)
            way = way / np.maximum(far, 1e-9)[:, None]
            move_point(figure, angles, _ARMS[side], wrist, np.minimum(far, _LONGEST_M), way)
    return Pose(angles, root)


def _heading(way: np.ndarray) -> float:
    """The yaw of who sits or stands and looks some way (x, y)."""
    return float(np.arctan2(way[0], -way[1]))


def _extent(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """f64[N,2] each, the least and the greatest x and y of figures."""
    reach = figure.radii_m[..., None]
    ends = figure.ends_m[..., :2]
    return (ends - reach).min(axis=(1, 2)), (ends + reach).max(axis=(1, 2))
