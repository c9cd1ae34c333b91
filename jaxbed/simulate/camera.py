"""A pinhole camera that sees capsules and the mattress: exact depth images.

F frames, C capsules, H W height and width in pixels. The bed frame of `jaxbed.simulate.body`,
metres; the mattress is the plane z = 0. Camera frame: x to the right in the image, y down, z
ahead. Pixel coordinates are (x to the right, y down) with 0 at the centre of the first pixel.
"""

import dataclasses

import numpy as np

_CHUNK = 8  # frames drawn at once: keeps the arrays in the cache
_DOWN = np.diag([1.0, -1.0, -1.0])  # looks down; the head of the bed is up in the image


@dataclasses.dataclass(frozen=True)
class Camera:
    """Where a camera is and what it sees.

    Attributes:
        size: (height, width) in pixels.
        focal_px: focal length; the optical axis goes through the middle of the image.
        position_m: f64[3], in the bed frame.
        axes: f64[3,3], its right, down and ahead as rows, in the bed frame.
    """

    size: tuple[int, int]
    focal_px: float
    position_m: np.ndarray
    axes: np.ndarray

    def frame(self, points_m: np.ndarray) -> np.ndarray:
        """Points f64[...,3] of the bed frame in the camera frame."""
        return (points_m - self.position_m) @ self.axes.T

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """Pixels f64[...,2] of points f64[...,3] of the bed frame."""
        seen = self.frame(points_m)
        middle = (np.array(self.size[::-1]) - 1) / 2
        return middle + self.focal_px * seen[..., :2] / seen[..., 2:]

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels look: x f32[W] and y f32[H,1] per unit ahead."""
        y, x = ((np.arange(n) - (n - 1) / 2) / self.focal_px for n in self.size)
        return x.astype(np.float32), y.astype(np.float32)[:, None]


@dataclasses.dataclass(frozen=True)
class Mount:
    """How cameras hang over cribs, looking down; one is drawn for every recording.

    Attributes:
        height_m: least and greatest height above the mattress.
        view_deg: vertical angle of view.
        tilt_deg: greatest angle against the plumb line, forwards and sideways.
        turn_deg: greatest turn about the line of sight, each way.
        aside_m: greatest distance of the aim from the infant's middle, each way.
    """

    height_m: tuple[float, float] = (0.75, 0.95)
    view_deg: float = 35.0
    tilt_deg: float = 4.0
    turn_deg: float = 6.0
    aside_m: float = 0.03

    def __post_init__(self):
        low, high = self.height_m
        if not 0.6 <= low <= high:
            raise ValueError(f"heights must ascend from at least 0.6 m, found {self.height_m}")
        if not 0 < self.view_deg < 120 or not 0 <= self.tilt_deg <= 20:
            raise ValueError(f"view must be within (0, 120) deg, tilt [0, 20] deg: {self}")
        if min(self.turn_deg, self.aside_m) < 0:
            raise ValueError(f"turn and aside must not be negative: {self}")

    def hang(self, rng: np.random.Generator, size: tuple[int, int], middle_m: float) -> Camera:
        """Hangs a camera of a size (height, width) that aims near (0, middle_m, 0)."""
        height = rng.uniform(*self.height_m)
        most = np.radians([self.tilt_deg, self.tilt_deg, self.turn_deg])
        tilt, lean, turn = rng.uniform(-most, most)
        aside = rng.uniform(-1, 1, 2) * self.aside_m
        axes = _rotation(2, turn) @ _rotation(0, tilt) @ _rotation(1, lean) @ _DOWN
        position = np.array([0, middle_m, 0]) + np.append(aside, 0) + axes[2] * height / axes[2, 2]
        focal = size[0] / 2 / np.tan(np.radians(self.view_deg) / 2)
        return Camera(size, focal, position, axes)


MOUNT = Mount()
"""An infant fills most of the picture."""


def _rotation(axis: int, angle: float) -> np.ndarray:
    """f64[3,3], a rotation about one of the three axes."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[i, i] = rotation[j, j] = np.cos(angle)
    rotation[j, i] = np.sin(angle)
    rotation[i, j] = -rotation[j, i]
    return rotation


def mattress_depth(camera: Camera) -> np.ndarray:
    """f32[H,W], the depth of the empty mattress, metres; infinite above the horizon."""
    x, y = camera.rays()
    fall = -(camera.axes[0, 2] * x + camera.axes[1, 2] * y + camera.axes[2, 2])
    with np.errstate(divide="ignore"):
        return np.where(fall > 0, camera.position_m[2] / fall, np.inf).astype(np.float32)


def draw_capsules(
    depth_m: np.ndarray, camera: Camera, ends_m: np.ndarray, radii_m: np.ndarray
) -> None:
    """Draws tapered capsules into depth images, in place.

    Args:
        depth_m: f32[F,H,W], contiguous, what is seen so far.
        camera: the camera.
        ends_m: f64[F,C,2,3], the centres of the balls at their ends, in the bed frame.
        radii_m: f64[F,C,2], the radii of these balls.
    """
    ends = camera.frame(ends_m)
    boxes = _boxes(camera, ends, radii_m)
    cones = capsule_cones(ends, radii_m)
    x, y = camera.rays()
    for first in range(0, len(ends), _CHUNK):
        part = slice(first, first + _CHUNK)
        frame = np.repeat(np.arange(len(ends))[part], ends.shape[1])
        left, top, width, height = boxes[part].reshape(-1, 4).T
        area = width * height
        # All pixels of all boxes, one after the other.
        number = np.arange(area.sum()) - np.repeat(np.cumsum(area) - area, area)
        row, column = np.divmod(number, np.repeat(width, area))
        row += np.repeat(top, area)
        column += np.repeat(left, area)
        cone = np.repeat(cones[:, part].reshape(len(cones), -1), area, axis=1)
        seen = first_hit(cone, x[column], y[row, 0])
        pixel = (np.repeat(frame, area) * camera.size[0] + row) * camera.size[1] + column
        np.minimum.at(depth_m.reshape(-1, copy=False), pixel, seen)


def _boxes(camera: Camera, ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """i64[F,C,4], (left, top, width, height) of the pixels that may see a capsule.

    Rays graze a ball of radius r at (x, z) at the slopes (x z +- r sqrt(x^2 + z^2 - r^2)) /
    (z^2 - r^2), and a capsule is the hull of its two balls.
    """
    at, z = ends[..., :2], ends[..., 2:]
    r = radii[..., None]
    if np.any(z <= r):
        raise ValueError("capsules must lie wholly ahead of the camera")
    spread = r * np.sqrt(at**2 + z**2 - r**2)
    pixels = np.array(camera.size[::-1])
    low = ((at * z - spread) / (z**2 - r**2)).min(axis=-2)
    high = ((at * z + spread) / (z**2 - r**2)).max(axis=-2)
    low = np.clip(np.ceil(camera.focal_px * low + (pixels - 1) / 2), 0, pixels)
    high = np.clip(np.floor(camera.focal_px * high + (pixels - 1) / 2) + 1, low, pixels)
    return np.concatenate([low, high - low], axis=-1).astype(int)


def capsule_cones(ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Coefficients of tapered capsules for `first_hit`.

    Args:
        ends: f64[...,2,3], in the camera frame.
        radii: f64[...,2].

    Returns:
        f32[10,...].
    """
    start, end = np.moveaxis(ends, -2, 0)
    near, far = np.moveaxis(radii, -1, 0)
    length = np.linalg.norm(end - start, axis=-1)
    first, last = near - far >= length, far - near > length  # this ball holds the other one
    start, near = np.where(last[..., None], end, start), np.where(last, far, near)
    end, far = np.where(first[..., None], start, end), np.where(first, near, far)

    length = np.linalg.norm(end - start, axis=-1)
    a = (end - start) / np.maximum(length, 1e-9)[..., None]
    k = (far - near) / np.maximum(length, 1e-9)
    along, square = (start * a).sum(axis=-1), (start**2).sum(axis=-1)
    rows = (*np.moveaxis(start, -1, 0), *np.moveaxis(a, -1, 0))
    rows += (length, 1 - k**2, near * k - along, square - near**2)
    return np.stack(rows).astype(np.float32)


@np.errstate(divide="ignore", invalid="ignore")
def first_hit(cones: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth at which rays meet tapered capsules.

    A capsule is swept by balls of radius r(s) = r0 + k s, centred at c(s) = p + s a. The depth
    t at which the ray t d enters the ball is convex in s, and the (s, t) within the balls are a
    conic, |t d - c(s)|^2 <= r(s)^2. Its lowest point tells which ball the ray meets first;
    where that lies beyond the capsule, it is the ball at the end.

    Args:
        cones: f32[10,...], from `capsule_cones`.
        x: f32[...], of the rays d = (x, y, 1).
        y: f32[...].

    Returns:
        f32[...], infinite where a ray misses.
    """
    px, py, pz, ax, ay, az, length, m, e, q = cones
    square = x * x + y * y + 1
    dp = px * x + py * y + pz
    da = ax * x + ay * y + az
    # The lowest t solves A t^2 - 2 B t + C = 0.
    A, B, C = m * square - da * da, m * dp + e * da, m * q - e * e
    t = C / (B + np.sqrt(np.maximum(B * B - A * C, 0)))
    s = np.minimum(np.maximum((t * da + e) / m, 0), length)

    def ball(s):
        b, c = dp + s * da, q + s * (m * s - 2 * e)
        inside = b * b - square * c
        return np.where(inside >= 0, (b - np.sqrt(inside)) / square, np.float32(np.inf))

    return np.minimum(ball(s), np.minimum(ball(np.float32(0)), ball(length)))
