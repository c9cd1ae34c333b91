"""An adult's hand that now and then reaches into a crib, between camera and infant.

F frames, C capsules. Metres, the bed frame of `jaxbed.simulate.body`.
"""

import numpy as np

# Forearm, palm, fingers and thumb: centres and radii of the two balls of every capsule. The
# wrist is at the origin, the fingers point along y, the palm looks down; 8 cm across and 18 cm
# from wrist to fingertip.
_CAPSULES = (
    ((0.0, -0.28, 0.0), (0.0, -0.02, 0.0), (0.042, 0.028)),
    ((-0.026, 0.015, 0.0), (-0.028, 0.085, 0.0), (0.016, 0.014)),
    ((-0.009, 0.015, 0.002), (-0.009, 0.090, 0.002), (0.016, 0.014)),
    ((0.009, 0.015, 0.002), (0.010, 0.088, 0.002), (0.016, 0.014)),
    ((0.024, 0.015, 0.0), (0.028, 0.080, 0.0), (0.016, 0.014)),
    ((-0.030, 0.090, 0.0), (-0.038, 0.150, -0.012), (0.009, 0.007)),
    ((-0.010, 0.095, 0.0), (-0.012, 0.170, -0.012), (0.009, 0.007)),
    ((0.010, 0.093, 0.0), (0.013, 0.162, -0.012), (0.009, 0.007)),
    ((0.029, 0.085, 0.0), (0.036, 0.135, -0.012), (0.008, 0.006)),
    ((-0.030, 0.025, -0.005), (-0.060, 0.075, -0.020), (0.012, 0.009)),
)
ENDS_M = np.array([capsule[:2] for capsule in _CAPSULES])
"""f64[C,2,3], the ends of the hand's capsules: wrist at the origin, fingers along y, palm down."""
RADII_M = np.array([capsule[2] for capsule in _CAPSULES])
"""f64[C,2], the radii of the hand's capsules."""

_PALM = np.array([0.0, 0.09, 0.0])  # what comes to lie above the spot
_REACH_M = 0.50  # how far away a hand is when it sets out
_RAMP_S = 0.6  # how long it takes to come, and to go
_STAY_S = (1.2, 3.0)  # from setting out to being gone
_ABOVE_M = (0.05, 0.10)  # how high the palm stays above the spot


def sample_visits(
    rng: np.random.Generator, time_s: np.ndarray, spots_m: np.ndarray, *, per_minute: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the visits of a hand, each above a spot of its own.

    Visits begin at random, on average `per_minute` a minute of the time without a hand.

    Args:
        rng: where the randomness comes from.
        time_s: f64[F], ascending.
        spots_m: f64[F,S,3], where the hand may go: some points of the infant.
        per_minute: >= 0.

    Returns:
        The frames with a hand i64[V], ascending, and the ends of its capsules f64[V,C,2,3].
    """
    frames, ends = [np.empty(0, int)], [np.empty((0, *ENDS_M.shape))]
    pause_s = 60 / per_minute if per_minute else np.inf
    start = rng.exponential(pause_s)
    while start < time_s[-1]:
        gone = start + rng.uniform(*_STAY_S)
        spot, draw = rng.integers(spots_m.shape[1]), rng.random(4)
        here = np.flatnonzero((time_s > start) & (time_s < gone))
        come = np.minimum(time_s[here] - start, gone - time_s[here]) / _RAMP_S
        away = _REACH_M * _ease(1 - come)
        frames.append(here)
        ends.append(_reach(draw, spots_m[here, spot], away))
        start = gone + rng.exponential(pause_s)
    return np.concatenate(frames), np.concatenate(ends)


def _ease(share: np.ndarray) -> np.ndarray:
    """Goes smoothly from 0 to 1, and stays there."""
    share = np.clip(share, 0, 1)
    return share**2 * (3 - 2 * share)


def _reach(draw: np.ndarray, spot_m: np.ndarray, away_m: np.ndarray) -> np.ndarray:
    """f64[V,C,2,3], a hand `away_m` f64[V] from above a spot f64[V,3], posed by four numbers."""
    heading, slope = 2 * np.pi * draw[0], np.radians(15 + 20 * draw[1])
    level = np.array([np.cos(heading), np.sin(heading), 0])
    fingers = np.cos(slope) * level - np.sin(slope) * np.array([0, 0, 1])
    across = np.array([level[1], -level[0], 0])
    axes = np.stack([across, fingers, np.cross(across, fingers)])  # rows
    mirror = np.array([1 if draw[2] < 0.5 else -1, 1, 1])  # left hand or right
    low, high = _ABOVE_M
    palm = spot_m + (0, 0, low + draw[3] * (high - low)) - away_m[:, None] * level
    return ((ENDS_M - _PALM) * mirror) @ axes + palm[:, None, None]
