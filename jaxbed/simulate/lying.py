"""An infant on its back: trunk and head rest on the mattress, limbs stay out of both.

A light stand-in for `jaxbed.simulate.mattress.settle` where only the outline counts and many
frames are wanted: the muscles hold the pose, and what reaches into something gives way.

F frames, D degrees of freedom, C capsules, P balls at their ends. Lengths in metres, the bed
frame of `jaxbed.simulate.body`; the mattress is the plane z = 0.
"""

import numpy as np

from jaxbed.simulate.body import Bodies, Figure, forward_kinematics
from jaxbed.simulate.skeleton import BONE_INDEX, FLESH, FREEDOM_INDEX, FREEDOMS, LIMITS_RAD


def _capsules(*bones: str) -> np.ndarray:
    """Indices of the capsules on some bones."""
    return np.array([c for c, flesh in enumerate(FLESH) if flesh.bone in bones])


def _freedoms(*bones: str) -> np.ndarray:
    """Indices of the degrees of freedom of some bones."""
    return np.array([d for d, freedom in enumerate(FREEDOMS) if freedom.bone in bones])


_TRUNK = _capsules("pelvis", "abdomen", "chest")
_OBSTACLES = _capsules("pelvis", "abdomen", "chest", "head")
_SKULL = _capsules("head")[:1]
_NECK = np.array([FREEDOM_INDEX["neck_flexion"]])
_LIMBS = tuple(
    (_freedoms(f"{side}_{upper}", f"{side}_{lower}"), _capsules(f"{side}_{lower}", f"{side}_foot"))
    for side in ("left", "right")
    for upper, lower in (("upper_arm", "forearm"), ("thigh", "shank"))
)
"""The joints that turn a limb, and its capsules beyond elbow or knee."""
_FREEDOM_BONE = np.array([BONE_INDEX[freedom.bone] for freedom in FREEDOMS])

_ROUNDS = 4
_SINK_M = 0.006  # how deep the trunk lies in the mattress
_SOFT_M = 0.005  # how deep limbs may press into what they touch
_SHORT_M = 0.01  # levers shorter than this hardly turn a joint


def lie_down(
    infant: Bodies, angles: np.ndarray, *, head_rests: bool = True
) -> tuple[np.ndarray, Figure]:
    """Lays a moving infant on the mattress.

    The trunk lies a little sunk in, the neck bends until the head touches the mattress, and
    limbs that reach into mattress, trunk or head are turned out. Limbs do not stop each other.

    Args:
        infant: one body.
        angles: f64[F,D], the movement.
        head_rests: whether the head comes down; not of those who sit.

    Returns:
        The angles f64[F,D] in which it lies, and F figures, the hips above the bed's origin.
    """
    if len(infant) != 1:
        raise ValueError(f"need one infant, found {len(infant)}")
    bodies, angles = infant[np.zeros(len(angles), int)], angles.copy()
    root = np.zeros((len(angles), 3))
    root[:, 2] = -_SINK_M - _lowest(forward_kinematics(bodies, angles, root), _TRUNK)[1]
    for _ in range(_ROUNDS):
        figure = forward_kinematics(bodies, angles, root)
        if head_rests:
            centre, height = _lowest(figure, _SKULL)
            up = np.broadcast_to([0.0, 0.0, 1.0], centre.shape)
            move_point(figure, angles, _NECK, centre, -height, up)
        for freedoms, capsules in _LIMBS:
            move_point(figure, angles, freedoms, *_deepest(figure, capsules))
    return angles, forward_kinematics(bodies, angles, root)


def _balls(figure: Figure, capsules: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres f64[F,P,3] and radii f64[F,P] of the balls at the ends of capsules."""
    frames = len(figure.ends_m)
    return (
        figure.ends_m[:, capsules].reshape(frames, -1, 3),
        figure.radii_m[:, capsules].reshape(frames, -1),
    )


def _lowest(figure: Figure, capsules: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre f64[F,3] of the lowest ball, and the height f64[F] of its lowest point."""
    centre, radius = _balls(figure, capsules)
    height = centre[..., 2] - radius
    frame, ball = np.arange(len(height)), height.argmin(axis=1)
    return centre[frame, ball], height[frame, ball]


def _deepest(figure: Figure, capsules: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ball that reaches deepest into mattress, trunk or head.

    Returns:
        Its centre f64[F,3], how deep it is, f64[F], 0 outside, and the way out, f64[F,3].
    """
    centre, radius = _balls(figure, capsules)
    start, end = np.moveaxis(figure.ends_m[:, None, _OBSTACLES], 3, 0)
    near, far = np.moveaxis(figure.radii_m[:, None, _OBSTACLES], 3, 0)
    axis = end - start
    share = ((centre[:, :, None] - start) * axis).sum(axis=-1) / (axis**2).sum(axis=-1)
    share = np.clip(share, 0, 1)
    away = centre[:, :, None] - start - share[..., None] * axis  # f64[F,P,O,3]
    distance = np.linalg.norm(away, axis=-1)
    depth = near + share * (far - near) - distance + radius[..., None]

    # The mattress is one obstacle more.
    depth = np.concatenate([depth, (radius - centre[..., 2])[..., None]], axis=-1)
    up = np.broadcast_to([0.0, 0.0, 1.0], (*centre.shape[:2], 1, 3))
    way = np.concatenate([away / distance[..., None], up], axis=2)
    frame = np.arange(len(depth))
    ball, obstacle = np.divmod(depth.reshape(len(frame), -1).argmax(axis=1), depth.shape[-1])
    most = np.maximum(depth[frame, ball, obstacle] - _SOFT_M, 0)
    return centre[frame, ball], most, way[frame, ball, obstacle]


def move_point(
    figure: Figure,
    angles: np.ndarray,
    freedoms: np.ndarray,
    centre: np.ndarray,
    distance: np.ndarray,
    way: np.ndarray,
) -> None:
    """Turns joints, together as little as possible, to move a point some distance some way."""
    lever = centre[:, None] - figure.origins_m[:, _FREEDOM_BONE[freedoms]]
    gain = (np.cross(figure.axes[:, freedoms], lever) @ way[..., None])[..., 0]
    turn = gain * (distance / ((gain**2).sum(axis=1) + _SHORT_M**2))[:, None]
    angles[:, freedoms] = np.clip(angles[:, freedoms] + turn, *LIMITS_RAD[freedoms].T)
