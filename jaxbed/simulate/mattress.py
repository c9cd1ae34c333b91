"""A body on an elastic mattress: how it comes to rest, and where it presses.

The mattress is a Winkler foundation, a bed of independent springs: the pressure at a point is
its stiffness times the depth to which the body pushes the surface down. A cover that spreads
the load lies on it.

N bodies, D degrees of freedom, C capsules, S contact points, H x W grid points. Lengths in
metres, stiffness in kPa per metre, bed frame of `jaxbed.simulate.body`; the surface of the
empty mattress is z = 0.
"""

import numpy as np
from scipy.fft import dctn, idctn

from jaxbed.simulate.body import GRAVITY, Bodies, Figure, forward_kinematics, moved_by
from jaxbed.simulate.skeleton import BONE_INDEX, FREEDOMS, LIMITS_RAD

_LONGEST_MOVE = 0.4  # of a step: metres of the root, radians of a joint
_FREEDOM_BONE = [BONE_INDEX[freedom.bone] for freedom in FREEDOMS]
_ALONG = np.array([0.0, 1 / 3, 2 / 3, 1.0])
_DENSITY = 1000.0  # of the body, kg/m^3
_BEARING = 1.3  # length of contact per length of cylinder; agrees best with the full surface
_TONE = np.array([freedom.tone for freedom in FREEDOMS])
_MOVED_BY = np.repeat(moved_by(), len(_ALONG), axis=1)


def settle(
    bodies: Bodies, angles: np.ndarray, root_m: np.ndarray, stiffness: np.ndarray, *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lets posed bodies sink into the mattress under their own weight.

    Finds the rest of a body whose joints are springs (its muscle tone) about the given pose and
    stop at their limits: projected Gauss-Newton steps on gravity plus the elastic energy of
    mattress and joints. Contact is taken at a few points along every capsule; limbs do not
    stop each other.

    Args:
        bodies: N bodies.
        angles: f64[N,D], the relaxed pose.
        root_m: f64[N,3], where the pelvis is; its height does not matter.
        stiffness: f64[N], of the mattress.
        steps: number of Gauss-Newton steps.

    Returns:
        Angles and root after settling, like `angles` and `root_m`.
    """
    load, radius, length = _contacts(bodies)
    tone = _TONE * (load.sum(axis=1) * bodies.stature_m)[:, None]
    spring_scale = 2e3 * stiffness[:, None] * length
    relaxed, root_m = angles, root_m.copy()
    for step in range(steps):
        figure = forward_kinematics(bodies, angles, root_m)
        at = _contact_points(figure)
        if step == 0:  # start from the height at which the body just touches
            rise = np.max(radius - at[..., 2], axis=1)
            root_m[:, 2] += rise
            at[..., 2] += rise[:, None]
        # A cylinder pushed in by d rests on a chord of about 2 sqrt(2 r d). The least depth
        # keeps some stiffness in what hovers just above the mattress.
        depth = np.maximum(radius - at[..., 2], 0)
        spring = spring_scale * np.sqrt(2 * radius * np.maximum(depth, 1e-3))
        pull = load - 2 / 3 * spring * depth

        lift = _lift(figure, at)
        slope = (lift @ pull[..., None])[..., 0]
        slope[:, 1:] += tone * (angles - relaxed)
        curvature = (lift * spring[:, None]) @ lift.swapaxes(1, 2)
        diagonal = np.einsum("nii->ni", curvature)  # a view
        diagonal[:, 0] *= 1.001
        diagonal[:, 1:] += tone
        held = _at_limit(angles, slope)
        curvature[held[:, :, None] | held[:, None, :]] = 0
        diagonal[held], slope[held] = 1, 0
        move = np.linalg.solve(curvature, -slope[..., None])[..., 0]
        move *= np.minimum(1, _LONGEST_MOVE / np.max(np.abs(move), axis=1, keepdims=True))
        root_m[:, 2] += move[:, 0]
        angles = np.clip(angles + move[:, 1:], *LIMITS_RAD.T)
    return angles, root_m


def _contact_points(figure: Figure) -> np.ndarray:
    """f64[N,S,3], points along the axes of the capsules."""
    first, last = figure.ends_m[:, :, :1], figure.ends_m[:, :, 1:]
    return (first + _ALONG[:, None] * (last - first)).reshape(len(first), -1, 3)


def _at_limit(angles: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """bool[N,1+D], which coordinates the slope of the energy presses against a limit."""
    low, high = LIMITS_RAD.T
    held = np.zeros(slope.shape, bool)
    held[:, 1:] = (angles <= low) & (slope[:, 1:] > 0) | (angles >= high) & (slope[:, 1:] < 0)
    return held


def _contacts(bodies: Bodies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight (N), radius and length of contact of every contact point, f64[N,S] each.

    The length is that of the cylinder which holds the point's mass, so that capsules which
    overlap do not bear twice.
    """
    near, far = bodies.radii_m[..., :1], bodies.radii_m[..., 1:]
    radius = (near + _ALONG * (far - near)).reshape(len(bodies), -1)
    load = np.repeat(bodies.load_n / len(_ALONG), len(_ALONG), axis=1)
    return load, radius, _BEARING * load / (GRAVITY * _DENSITY * np.pi * radius**2)


def _lift(figure: Figure, at: np.ndarray) -> np.ndarray:
    """f64[N,1+D,S], the rise of every contact point per metre of the root and per radian."""
    origin = figure.origins_m[:, _FREEDOM_BONE]
    x, y = (at[:, None, :, i] - origin[:, :, None, i] for i in (0, 1))
    axis = figure.axes[:, :, None]
    turn = np.where(_MOVED_BY, axis[..., 0] * y - axis[..., 1] * x, 0)
    return np.concatenate([np.ones_like(turn[:, :1]), turn], axis=1)


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
        done = excess <= 1e-6 * total
        if done.all():
            break
        sink = np.where(done, sink, sink - excess / np.count_nonzero(depth, axis=1))
    pressure = depth * (stiffness[:, None] * total[:, None] / (excess + total)[:, None])
    pressure = pressure.reshape(height_m.shape).astype(np.float32)
    return _spread(pressure, spread_m / cell_m)


def _spread(pressure: np.ndarray, cells: float) -> np.ndarray:
    """Spreads load as a membrane does: solves p - (cells)^2 laplace(p) = load, no flux out."""
    wave = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in pressure.shape[1:]]
    damping = 1 + cells**2 * (wave[0][:, None] + wave[1])
    modes = dctn(pressure, axes=(1, 2)) / damping.astype(np.float32)
    return np.maximum(idctn(modes, axes=(1, 2)), 0)
