"""A body on an elastic mattress: how it comes to rest, and where it presses.

The mattress is a Winkler foundation, a bed of independent springs: the pressure at a point is
its stiffness times the depth to which the body pushes the surface down.

N bodies, D degrees of freedom, C capsules, S contact points, H and W grid points down and across.
Lengths in metres, stiffness in kPa per metre, bed frame of `jaxbed.simulate.body`; the surface of
the empty mattress is z = 0.
"""

import numpy as np
from scipy.fft import dctn, idctn

from jaxbed.simulate.body import (
    BONE_INDEX,
    DENSITY,
    FREEDOMS,
    GRAVITY,
    LIMITS_RAD,
    Bodies,
    Figure,
    forward_kinematics,
    moved_by,
)

_ALONG = np.array([0.0, 1 / 3, 2 / 3, 1.0])
_TONE = np.array([freedom.tone for freedom in FREEDOMS])
_MOVED_BY = np.repeat(moved_by(), len(_ALONG), axis=1)


def settle(
    bodies: Bodies, angles: np.ndarray, root_m: np.ndarray, stiffness: np.ndarray, *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lets posed bodies sink into the mattress under their own weight.

    Finds the rest of a body whose joints are springs (its muscle tone) about the given pose and
    stop at their limits: Gauss-Newton steps on gravity plus the elastic energy of mattress and joints.
    Contact is taken at a few points along every capsule.

    Args:
        bodies: N bodies.
        angles: f64[N,D], the relaxed pose.
        root_m: f64[N,3], where the pelvis is; its height does not matter.
        stiffness: f64[N], of the mattress.
        steps: number of Gauss-Newton steps.

    Returns:
        Angles and root after settling, like `angles` and `root_m`.
    """
    tone = _TONE * (bodies.load_n.sum(axis=1) * bodies.stature_m)[:, None]
    load, radius, length = _contacts(bodies)
    relaxed, root_m = angles, root_m.copy()
    for step in range(steps):
        figure = forward_kinematics(bodies, angles, root_m)
        first, last = figure.ends_m[:, :, 0], figure.ends_m[:, :, 1]
        at = (first[:, :, None] + _ALONG[:, None] * (last - first)[:, :, None]).reshape(
            len(bodies), -1, 3
        )
        if step == 0:  # start from the height at which the body just touches
            rise = np.max(radius - at[..., 2], axis=1)
            root_m[:, 2] += rise
            at[..., 2] += rise[:, None]
        depth = np.maximum(radius - at[..., 2], 0)
        spring = 2e3 * stiffness[:, None] * length * np.sqrt(2 * radius * np.maximum(depth, 1e-3))
        force = 2 / 3 * spring * depth  # of a cylinder pushed in, per Hertz's chord 2 sqrt(2rd)

        lift = _lift(figure, at)
        pull = load - force
        slope = np.concatenate(
            [
                np.sum(pull, axis=1, keepdims=True),
                (lift @ pull[..., None])[..., 0] + tone * (angles - relaxed),
            ],
            axis=1,
        )
        jacobian = np.concatenate([np.ones_like(lift[:, :1]), lift], axis=1)
        curvature = (jacobian * spring[:, None]) @ jacobian.swapaxes(1, 2)
        diagonal = np.einsum("nii->ni", curvature)
        diagonal += np.concatenate([1e-3 * diagonal[:, :1], tone], axis=1)
        move = np.linalg.solve(curvature, -slope[..., None])[..., 0]
        move *= np.minimum(1, 0.25 / np.max(np.abs(move), axis=1, keepdims=True))
        root_m[:, 2] += move[:, 0]
        angles = np.clip(angles + move[:, 1:], *LIMITS_RAD.T)
    return angles, root_m


def _contacts(bodies: Bodies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight (N), radius and length of contact of every contact point, f64[N,S] each.

    The length is that of the cylinder which holds the point's mass, so that capsules which
    overlap do not bear twice.
    """
    near, far = bodies.radii_m[..., :1], bodies.radii_m[..., 1:]
    radius = (near + _ALONG * (far - near)).reshape(len(bodies), -1)
    load = np.repeat(bodies.load_n / len(_ALONG), len(_ALONG), axis=1)
    return load, radius, load / (GRAVITY * DENSITY * np.pi * radius**2)


def _lift(figure: Figure, at: np.ndarray) -> np.ndarray:
    """f64[N,D,S], the rise of every contact point per radian of every degree of freedom."""
    bone = [freedom.bone for freedom in FREEDOMS]
    origin = figure.origins_m[:, [BONE_INDEX[name] for name in bone]]
    x, y = (at[:, None, :, i] - origin[:, :, None, i] for i in (0, 1))
    axis = figure.axes[:, :, None]
    return np.where(_MOVED_BY, axis[..., 0] * y - axis[..., 1] * x, 0)


def underside(figure: Figure, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """Finds the lowest point of the body above every point of a grid.

    Args:
        figure: N bodies.
        x_m: f64[W], columns of the grid, ascending.
        y_m: f64[H], rows of the grid, descending: the first is nearest to the head.

    Returns:
        f32[N,H,W], heights; infinite where there is no body.
    """
    low = np.full((len(figure.ends_m), len(y_m), len(x_m)), np.inf, np.float32)
    reach = figure.radii_m.max(axis=-1)[..., None]
    near = figure.ends_m.min(axis=2)[..., :2] - reach
    far = figure.ends_m.max(axis=2)[..., :2] + reach
    left, right = np.searchsorted(x_m, near[..., 0]), np.searchsorted(x_m, far[..., 0])
    top, bottom = np.searchsorted(-y_m, -far[..., 1]), np.searchsorted(-y_m, -near[..., 1])
    x_m, y_m = np.float32(x_m), np.float32(y_m)[:, None]
    for n, c in np.ndindex(reach.shape[:2]):  # one capsule covers little of the grid
        rows, columns = slice(top[n, c], bottom[n, c]), slice(left[n, c], right[n, c])
        part = low[n, rows, columns]
        if part.size:
            ends, radii = figure.ends_m[n, c], figure.radii_m[n, c]
            np.minimum(part, _capsule_underside(ends, radii, x_m[columns], y_m[rows]), out=part)
    return low


def _capsule_underside(
    ends: np.ndarray, radii: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """f32[H,W], lowest height of a tapered capsule over a grid; infinite beside it.

    The capsule is swept by balls of radius r(t) centred a distance t along its axis a. Below
    (x, y) the ball's bottom, z(t) - sqrt(r(t)^2 - d(t)^2), is convex in t, and r^2 - d^2 is the
    parabola (spread - (m t - b)^2) / m, so the lowest ball follows in closed form.
    """
    start, axis = ends[0], ends[1] - ends[0]
    length = max(float(np.linalg.norm(axis)), 1e-6)
    ax, ay, az = (float(v) / length for v in axis)
    radius, taper = float(radii[0]), float(radii[1] - radii[0]) / length
    m = max(1 - az * az - taper * taper, 1e-6)

    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    b = ax * x + (ay * y + radius * taper)
    gap = radius * radius - (x * x + y * y)
    spread = np.maximum(b * b + m * gap, 0)
    t = np.clip((b - az / (m + az * az) ** 0.5 * np.sqrt(spread)) / m, 0, length)
    inside = gap + t * (2 * b - m * t)  # r^2 - d^2
    with np.errstate(invalid="ignore"):
        height = (float(start[2]) + az * t) - np.sqrt(inside)
    return np.where(inside > 0, height, np.float32(np.inf))


def contact_pressure(
    height_m: np.ndarray,
    weight_n: np.ndarray,
    stiffness: np.ndarray,
    *,
    cell_m: float,
    spread_m: float,
) -> np.ndarray:
    """Presses an underside into the mattress until the mattress carries the weight.

    Args:
        height_m: f32[N,H,W], the underside; infinite where there is no body.
        weight_n: f64[N], newtons.
        stiffness: f64[N], kPa per metre.
        cell_m: size of a square cell of the grid.
        spread_m: distance over which the cover of the mattress spreads the load.

    Returns:
        f32[N,H,W], kPa. The sum of pressure times area is the weight.
    """
    if not np.isfinite(height_m).any(axis=(1, 2)).all():
        raise ValueError("a body lies wholly beside the mat, which cannot carry it")
    height = height_m.reshape(len(height_m), -1)
    total = weight_n / (1e3 * stiffness * cell_m**2)  # metres of depth, summed over cells
    # The sum of depths is convex and piecewise linear in the sink: Newton's method from above
    # falls monotonically onto the root and stops there.
    sink = height.min(axis=1) + total
    for _ in range(100):
        depth = np.maximum(sink.astype(np.float32)[:, None] - height, 0)
        excess = depth.sum(axis=1, dtype=np.float64) - total
        if np.all(excess <= 1e-6 * total):
            break
        sink = sink - excess / np.count_nonzero(depth, axis=1)
    pressure = depth * (stiffness[:, None] * total[:, None] / (excess + total)[:, None])
    pressure = pressure.reshape(height_m.shape).astype(np.float32)
    return _spread(pressure, spread_m / cell_m)


def _spread(pressure: np.ndarray, cells: float) -> np.ndarray:
    """Spreads load as a membrane does: solves p - (cells)^2 laplace(p) = load, no flux out."""
    wave = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in pressure.shape[1:]]
    damping = 1 + cells**2 * (wave[0][:, None] + wave[1])
    modes = dctn(pressure, axes=(1, 2)) / damping.astype(np.float32)
    return np.maximum(idctn(modes, axes=(1, 2)), 0)
