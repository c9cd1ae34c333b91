"""A depth camera sees what is there, hands hide what is behind them, labels are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbed.data.depth import JOINTS
from jaxbed.simulate.camera import MOUNT, Camera, Mount, draw_capsules, mattress_depth
from jaxbed.simulate.depth import IDEAL, DepthSensor, simulate_depth_frames
from jaxbed.simulate.hand import sample_visits
from jaxbed.simulate.infant import RATE_HZ

JOINT = {name: i for i, name in enumerate(JOINTS)}
SMALL = Camera((24, 32), 34.0, np.array([0.05, -0.02, 0.8]), np.diag([1.0, -1.0, -1.0]))
SCENE = {"infants": 3, "frames_per_recording": 40, "seed": 7, "sensor": IDEAL}


@pytest.fixture(scope="module")
def clean():
    """Perfect pictures of infants alone."""
    return simulate_depth_frames(**SCENE, visits_per_minute=0)


@pytest.fixture(scope="module")
def visited():
    """The same infants, with hands most of the time."""
    return simulate_depth_frames(**SCENE, visits_per_minute=100)


# --- the camera


def balls_depth(camera, centres, radii):
    """f64[H,W] of balls f64[K,3], f64[K]: the nearer root of |t d - c|^2 = r^2 on every ray."""
    middle = (np.array(camera.size) - 1)[:, None, None] / 2
    y, x = (np.indices(camera.size) - middle) / camera.focal_px
    ray = np.stack([x, y, np.ones(camera.size)], axis=-1)
    along, square = ray @ centres.T, (ray**2).sum(axis=-1)[..., None]
    root = along**2 - square * ((centres**2).sum(axis=-1) - radii**2)
    depth = (along - np.sqrt(np.maximum(root, 0))) / square
    return np.where(root >= 0, depth, np.inf).min(axis=-1)


def drawn(camera, ends, radii):
    """f32[H,W] of one capsule given in the camera frame, f64[2,3] and f64[2]."""
    depth = np.full((1, *camera.size), np.inf, np.float32)
    ends = ends @ camera.axes + camera.position_m
    draw_capsules(depth, camera, ends[None, None], np.asarray(radii, float)[None, None])
    return depth[0]


def assert_same_depth(found, expected, atol):
    both = np.isfinite(found) & np.isfinite(expected)
    assert np.count_nonzero(np.isfinite(found) != np.isfinite(expected)) <= 2  # on the rim
    np.testing.assert_allclose(found[both], expected[both], atol=atol)


@pytest.mark.parametrize(
    ("centre", "radius"), [((0.03, -0.02, 0.7), 0.05), ((0.3, 0.2, 0.6), 0.1), ((0, 0, 0.3), 0.2)]
)
def test_a_ball_has_the_depth_of_the_textbook(centre, radius):
    centre = np.array(centre, float)
    expected = balls_depth(SMALL, centre[None], np.array([radius]))
    assert np.isfinite(expected).sum() > 10
    found = drawn(SMALL, np.stack([centre, centre]), [radius, radius])
    assert_same_depth(found, expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    centre=st.tuples(*[st.floats(-0.2, 0.2)] * 2, st.floats(0.35, 0.8)),
    direction=st.tuples(*[st.floats(-1, 1)] * 3),
    length=st.floats(0.0, 0.15),
    radii=st.tuples(*[st.floats(0.01, 0.07)] * 2),
)
def test_a_capsule_is_the_nearest_of_the_balls_that_sweep_it(centre, direction, length, radii):
    axis = np.array(direction) + (1e-3, 0, 0)
    ends = np.array(centre) + np.outer([0, length / np.linalg.norm(axis)], axis)
    share = np.linspace(0, 1, 301)
    centres = ends[0] + share[:, None] * (ends[1] - ends[0])
    expected = balls_depth(SMALL, centres, radii[0] + share * (radii[1] - radii[0]))
    assert_same_depth(drawn(SMALL, ends, radii), expected, atol=1e-3)


@pytest.mark.parametrize("towards", [1, -1])
def test_a_cone_seen_from_its_end_shows_the_right_ball(towards):
    """Along the axis, within the taper, no ball between the ends is met first."""
    ends = np.array([[0.02, 0.01, 0.6], [0.02, 0.01, 0.6 + 0.05 * towards]])
    share = np.linspace(0, 1, 2001)
    centres = ends[0] + share[:, None] * (ends[1] - ends[0])
    expected = balls_depth(SMALL, centres, 0.02 + 0.04 * share)
    assert_same_depth(drawn(SMALL, ends, [0.02, 0.06]), expected, atol=1e-4)


def test_what_is_drawn_hides_only_what_is_behind_it():
    depth = np.full((2, *SMALL.size), 0.5, np.float32)
    ends = np.array([[[0.05, -0.02, 0.1]] * 2, [[0.05, -0.02, 0.5]] * 2])
    draw_capsules(depth, SMALL, ends[:, None], np.full((2, 1, 2), 0.05))
    assert (depth[0] == 0.5).all()  # 0.65 m away
    assert depth[1].min() == pytest.approx(0.25, abs=1e-3) and depth[1].max() == 0.5


def test_capsules_behind_the_camera_are_refused():
    with pytest.raises(ValueError, match="ahead"):
        drawn(SMALL, np.array([[0, 0, 0.02], [0, 0, 0.5]]), [0.03, 0.03])


def test_every_pixel_of_the_mattress_lies_on_its_plane(rng):
    camera = Mount(tilt_deg=15, turn_deg=40).hang(rng, (48, 64), 0.1)
    depth = mattress_depth(camera).astype(float)
    y, x = np.indices(camera.size)
    seen = np.stack([x - 31.5, y - 23.5, np.full(camera.size, camera.focal_px)], axis=-1)
    points = seen * (depth / camera.focal_px)[..., None] @ camera.axes + camera.position_m
    np.testing.assert_allclose(points[..., 2], 0, atol=1e-6)
    np.testing.assert_allclose(camera.project(points), np.stack([x, y], axis=-1), atol=1e-3)


def test_a_point_is_seen_at_the_pixel_it_projects_to(rng):
    camera = MOUNT.hang(rng, (96, 128), 0.1)
    for point in rng.uniform((-0.15, -0.05, 0), (0.15, 0.25, 0.2), (20, 3)):
        depth = np.full((1, 96, 128), np.inf, np.float32)
        draw_capsules(depth, camera, np.tile(point, (1, 1, 2, 1)), np.full((1, 1, 2), 0.02))
        row, column = np.nonzero(np.isfinite(depth[0]))
        middle = np.array([column.mean(), row.mean()])
        np.testing.assert_allclose(middle, camera.project(point), atol=0.5)


def test_cameras_hang_as_told_with_the_head_of_the_bed_up(rng):
    for _ in range(20):
        camera = MOUNT.hang(rng, (96, 128), 0.1)
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.axes) == pytest.approx(1)
        assert 0.75 <= camera.position_m[2] <= 0.95
        assert np.degrees(np.arccos(-camera.axes[2, 2])) <= np.hypot(4, 4) + 1e-9
        here, head, left = camera.project(np.array([[0, 0.1, 0], [0, 0.2, 0], [0.1, 0.1, 0]]))
        assert head[1] < here[1] - 10 and left[0] > here[0] + 10


# --- the recordings


def at_joints(depth_mm, joints_px):
    """f64[N,12], the depth at the pixels nearest to joints; NaN where a joint is NaN."""
    found = np.full(joints_px.shape[:2], np.nan)
    n, j = np.nonzero(np.isfinite(joints_px).all(axis=-1))
    column, row = np.rint(joints_px[n, j]).astype(int).T
    found[n, j] = depth_mm[n, row, column]
    return found


def test_frames_follow_the_contract(clean):
    assert clean.depth_mm.shape == (120, 96, 128) and clean.depth_mm.dtype == np.uint16
    assert clean.joints_px.shape == (120, 12, 2) and clean.joints_px.dtype == np.float32
    assert list(np.unique(clean.subject)) == ["infant-000", "infant-001", "infant-002"]
    assert len(np.unique(clean.recording)) == 3 and len(clean) == 120
    assert clean.depth_mm.min() > 450 and clean.depth_mm.max() < 1050
    assert np.isfinite(clean.joints_px).mean() > 0.97


def test_right_limbs_lie_on_the_left_and_the_head_is_up(clean):
    for name in ("shoulder", "hip"):
        right, left = (clean.joints_px[:, JOINT[f"{side}_{name}"], 0] for side in ("right", "left"))
        assert np.all(right < left)
    y = clean.joints_px[..., 1]
    assert np.all(y[:, JOINT["left_shoulder"]] < y[:, JOINT["left_hip"]])


def test_an_infant_fills_most_of_the_picture(clean):
    joints = clean.joints_px
    tall = np.nanmax(joints[..., 1], axis=1) - np.nanmin(joints[..., 1], axis=1)
    assert np.median(tall) > 40 and np.nanmin(joints[..., 0]) > 0


def test_joints_outside_the_image_are_missing():
    frames = simulate_depth_frames(
        infants=8, frames_per_recording=1, size=(24, 32), mount=Mount(aside_m=0.4)
    )
    joints = frames.joints_px
    missing = np.isnan(joints)
    assert 0.1 < missing.mean() < 0.9 and np.all(missing[..., 0] == missing[..., 1])
    assert np.nanmin(joints) >= -0.5 and np.all(np.nanmax(joints, axis=(0, 1)) <= (31.5, 23.5))


def test_joints_move_smoothly_in_the_image(clean):
    path = clean.joints_px.reshape(3, 40, 12, 2)
    step = np.linalg.norm(np.diff(path, axis=1), axis=-1)
    bend = np.linalg.norm(np.diff(path, n=2, axis=1), axis=-1)
    assert 2 < np.nanmax(step) < 16 and np.nanpercentile(step, 99) < 8
    assert np.nanmax(bend) < 16 and np.nanpercentile(bend, 99) < 6
    trunk = [JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("shoulder", "hip")]
    assert np.nanmax(step[:, :, trunk]) < 2


def test_a_recording_depends_only_on_seed_infant_and_number():
    size = {"size": (24, 32), "visits_per_minute": 30}
    many = simulate_depth_frames(
        infants=3, recordings_per_infant=2, frames_per_recording=20, seed=3, **size
    )
    few = simulate_depth_frames(infants=2, frames_per_recording=12, seed=3, **size)
    same = [40 * i + f for i in range(2) for f in range(12)]
    np.testing.assert_array_equal(few.depth_mm, many.depth_mm[same])
    np.testing.assert_array_equal(few.joints_px, many.joints_px[same])
    np.testing.assert_array_equal(few.subject, many.subject[same])
    np.testing.assert_array_equal(few.recording, many.recording[same])
    other = simulate_depth_frames(infants=2, frames_per_recording=12, seed=4, **size)
    assert not np.array_equal(few.joints_px, other.joints_px)
    assert not np.array_equal(many.joints_px[:20], many.joints_px[20:40])


def test_sizes_agree_in_scaled_joints_and_depth(clean):
    half = simulate_depth_frames(**SCENE, visits_per_minute=0, size=(48, 64))
    np.testing.assert_allclose(2 * half.joints_px + 0.5, clean.joints_px, atol=1e-3)
    blocks = clean.depth_mm.reshape(120, 48, 2, 64, 2).astype(int)
    low, high = blocks.min(axis=(2, 4)), blocks.max(axis=(2, 4))
    smooth = high - low < 4
    assert smooth.mean() > 0.7
    middle = blocks.mean(axis=(2, 4))
    assert np.abs(middle - half.depth_mm)[smooth].max() <= 4


# --- what hides and disturbs


def test_a_hand_hides_the_joints_behind_it_and_no_others(clean, visited):
    """By the pictures alone: the hand is where the two recordings differ."""
    inside = np.isfinite(clean.joints_px).all(axis=-1)
    hidden = inside & np.isnan(visited.joints_px).any(axis=-1)
    assert 0.02 < hidden.mean() < 0.5
    shown = inside & ~hidden
    np.testing.assert_array_equal(visited.joints_px[shown], clean.joints_px[shown])

    nearer = clean.depth_mm.astype(int) - visited.depth_mm
    assert nearer.min() >= 0
    around = np.pad(nearer, ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
    assert np.all(at_joints(windows.max(axis=(-2, -1)), clean.joints_px)[hidden] > 0)
    # Wholly covered, and by far: even a joint right under the skin is hidden.
    covered = at_joints(windows.min(axis=(-2, -1)), clean.joints_px) > 20
    assert covered.sum() > 30 and np.all(hidden[covered])


def test_hands_come_as_often_as_told_and_glide(rng):
    time = np.arange(6 * 3600) / RATE_HZ
    spots = np.zeros((len(time), 2, 3)) + (0, 0, 0.05)
    frames, ends = sample_visits(rng, time, spots, per_minute=4)
    starts = np.count_nonzero(np.diff(frames) > 1) + 1
    assert starts / 60 == pytest.approx(60 / (15 + 2.1), rel=0.15)
    together = np.diff(frames) == 1
    step = np.linalg.norm(np.diff(ends[:, 0, 1], axis=0), axis=-1)[together]
    assert 0.05 < step.max() < 0.25  # metres in a sixth of a second
    assert len(sample_visits(rng, time, spots, per_minute=0)[0]) == 0
    assert ends[..., 2].min() > 0


def test_the_ideal_sensor_reads_the_depth_itself(rng):
    depth = rng.uniform(0.5, 1.2, (9, 11)).astype(np.float32)
    depth[0, 0] = np.inf
    found = IDEAL.read(rng, depth, 100.0)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found.ravel()[1:], 1000 * depth.ravel()[1:], atol=0.501)


def test_noise_grows_with_the_square_of_the_distance(rng):
    sensor = DepthSensor(noise_mm=4.0, edge_loss=0.0, speckle=0.0)
    for distance in (0.5, 1.0, 2.0):
        found = sensor.read(rng, np.full((200, 200), distance, np.float32), 200.0)
        assert found.mean() == pytest.approx(1000 * distance, abs=0.2)
        expected = np.hypot(4.0 * distance**2, 12**-0.5)  # and rounding
        assert found.std() == pytest.approx(expected, rel=0.03)


def test_the_far_side_of_a_steep_step_is_lost(rng):
    sensor = DepthSensor(noise_mm=0.0, edge_loss=1.0, speckle=0.0, steepest_deg=60)
    depth = np.full((20, 30), 1.0, np.float32)
    depth[5:15, 10:20] = 0.9
    found = sensor.read(rng, depth, 100.0)
    ring = np.zeros(depth.shape, bool)
    ring[[4, 15], 10:20] = ring[5:15, [9, 20]] = True
    np.testing.assert_array_equal(found == 0, ring)
    slope = np.cumsum(np.full((20, 30), 0.009, np.float32), axis=1) + 1  # 42 deg at 1 m
    assert (sensor.read(rng, slope, 100.0) > 0).all()


def test_speckle_loses_its_share(rng):
    sensor = DepthSensor(edge_loss=0.0, speckle=0.1)
    found = sensor.read(rng, np.full((200, 200), 0.8, np.float32), 200.0)
    assert np.mean(found == 0) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"infants": 0}, "at least 1 infant"),
        ({"recordings_per_infant": 0}, "at least 1 infant"),
        ({"frames_per_recording": 0}, "at least 1 infant"),
        ({"size": (0, 64)}, "size"),
        ({"size": (64,)}, "size"),
        ({"visits_per_minute": -1}, "visits"),
        ({"rate_hz": 0}, "rate"),
    ],
)
def test_senseless_arguments_are_refused_by_name(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_depth_frames(**{"infants": 1, "frames_per_recording": 1, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [{"noise_mm": -1}, {"edge_loss": 2}, {"speckle": -0.1}, {"steepest_deg": 0}],
)
def test_senseless_sensors_are_refused(wrong):
    with pytest.raises(ValueError):
        DepthSensor(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"height_m": (0.9, 0.8)}, {"height_m": (0.3, 0.8)}, {"view_deg": 0}, {"tilt_deg": 45}]
    + [{"turn_deg": -1}, {"aside_m": -1}],
)
def test_senseless_mounts_are_refused(wrong):
    with pytest.raises(ValueError):
        Mount(**wrong)
