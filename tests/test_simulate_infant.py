"""Simulated infants have the sizes of newborns, move smoothly, and lie on their mattress."""

import numpy as np
import pytest

from jaxbed.data.depth import JOINTS
from jaxbed.simulate.body import forward_kinematics
from jaxbed.simulate.camera import MOUNT, draw_capsules, mattress_depth
from jaxbed.simulate.infant import RATE_HZ, sample_infants, sample_movement
from jaxbed.simulate.lying import lie_down
from jaxbed.simulate.skeleton import FLESH, FREEDOM_INDEX, FREEDOMS, LIMITS_RAD
from jaxbed.simulate.skeleton import JOINTS as BODY_JOINTS

BODY_JOINT = {name: i for i, name in enumerate(BODY_JOINTS)}


@pytest.fixture(scope="module")
def lying():
    """Infants in motion: angles asked for, angles taken, figures."""
    rng = np.random.default_rng(3)
    bodies = sample_infants(rng, 6)
    asked = [sample_movement(rng, 120) for _ in range(6)]
    return [(a, *lie_down(bodies[[n]], a)) for n, a in enumerate(asked)]


def test_infants_have_the_sizes_and_proportions_of_newborns(rng):
    bodies = sample_infants(rng, 200)
    length, weight = bodies.stature_m, bodies.weight_kg
    assert length.min() >= 0.40 and length.max() <= 0.52 and length.std() > 0.02
    assert weight.min() >= 1.5 and weight.max() <= 4.0
    assert 11 < np.median(weight / length**2) < 13

    figure = forward_kinematics(bodies, np.zeros((200, len(FREEDOMS))), np.zeros((200, 3)))
    top = (figure.ends_m[..., 1] + figure.radii_m).max(axis=(1, 2))
    bottom = (figure.ends_m[..., 1] - figure.radii_m).min(axis=(1, 2))
    np.testing.assert_allclose(top - bottom, length, rtol=0.03)
    assert np.mean(-bottom / length) == pytest.approx(1 / 2.7, abs=0.02)  # hips above the heels

    share = figure.joints_m / length[:, None, None]
    for a, b, shaft_cm in (
        ("shoulder", "elbow", 6.5),
        ("elbow", "wrist", 5.9),
        ("hip", "knee", 7.4),
        ("knee", "ankle", 6.5),
    ):
        bone = share[:, BODY_JOINT[f"left_{a}"]] - share[:, BODY_JOINT[f"left_{b}"]]
        longer = np.linalg.norm(bone, axis=1) / (shaft_cm / 51)
        assert 1.1 < longer.mean() < 1.3, (a, b)  # cartilage

    skull = [flesh.bone for flesh in FLESH].index("head")
    across = np.linalg.norm(np.diff(bodies.ends_m[:, skull], axis=1)[:, 0], axis=1)
    around = 2 * np.pi * bodies.radii_m[:, skull, 0] + 2 * across
    assert np.mean(around / length) == pytest.approx(33 / 48, abs=0.04)


def test_an_infant_floats_more_or_less(rng):
    """Its flesh has about the volume of its weight in water."""
    bodies = sample_infants(rng, 3)
    for body in range(3):
        figure = forward_kinematics(bodies[[body]], np.zeros((1, len(FREEDOMS))), np.zeros((1, 3)))
        ends, radii = figure.ends_m[0], figure.radii_m[0]
        low, high = (ends.min(axis=(0, 1)) - 0.06, ends.max(axis=(0, 1)) + 0.06)
        points = rng.uniform(low, high, (20000, 1, 3))
        axis = ends[:, 1] - ends[:, 0]
        share = ((points - ends[:, 0]) * axis).sum(axis=-1) / (axis**2).sum(axis=-1)
        share = np.clip(share, 0, 1)
        away = np.linalg.norm(points - ends[:, 0] - share[..., None] * axis, axis=-1)
        inside = (away < radii[:, 0] + share * (radii[:, 1] - radii[:, 0])).any(axis=1)
        litres = 1e3 * inside.mean() * np.prod(high - low)
        assert 0.75 < litres / bodies.weight_kg[body] < 1.25


def test_movement_stays_within_the_limits_before_and_after_lying_down(lying):
    low, high = LIMITS_RAD.T
    for asked, taken, _ in lying:
        for angles in (asked, taken):
            assert np.all((low <= angles) & (angles <= high))


def test_movement_is_smooth_in_time(rng):
    """Ten times as many frames a second: steps shrink tenfold, no jump is left."""
    angles = sample_movement(rng, 3000, rate_hz=10 * RATE_HZ)
    speed = np.abs(np.diff(angles, axis=0)) * 10 * RATE_HZ
    assert 0.5 < np.max(speed) < 8  # rad/s
    assert np.abs(np.diff(speed, axis=0)).max() < 0.15 * speed.max()


def test_limbs_move_in_bouts_of_their_own(rng):
    angles = sample_movement(rng, 3000)
    sides = ("left_elbow", "right_elbow", "left_knee", "right_knee")
    column = [[f.name for f in FREEDOMS].index(f"{name}_flexion") for name in sides]
    speed = np.abs(np.diff(angles[:, column], axis=0))
    assert np.all((speed < 1e-3).mean(axis=0) > 0.1) and np.all((speed > 0.02).mean(axis=0) > 0.2)
    assert np.abs(np.corrcoef(speed.T) - np.eye(4)).max() < 0.3


def test_a_longer_movement_begins_with_the_shorter_one():
    short, long = (sample_movement(np.random.default_rng(5), n) for n in (37, 90))
    np.testing.assert_allclose(long[:37], short, atol=1e-12)


def test_infants_rest_on_the_mattress_and_hardly_in_it(lying):
    trunk = [flesh.bone in ("pelvis", "abdomen", "chest") for flesh in FLESH]
    skull = [flesh.bone for flesh in FLESH].index("head")
    for _, _, figure in lying:
        lowest = (figure.ends_m[..., 2] - figure.radii_m).min(axis=2)
        assert lowest.min() > -0.01
        np.testing.assert_allclose(lowest[:, trunk].min(axis=1), -0.006, atol=1e-9)
        np.testing.assert_allclose(lowest[:, skull], 0, atol=2e-3)


def depth_in_body(figure):
    """f64[F], how far fingertips and toes reach into trunk or head, metres."""
    bones = [flesh.bone for flesh in FLESH]
    tips = [c for c, bone in enumerate(bones) if bone.endswith(("forearm", "foot"))]
    body = [bone in ("pelvis", "abdomen", "chest", "head") for bone in bones]
    tip, radius = figure.ends_m[:, tips][:, :, None, 1], figure.radii_m[:, tips][:, :, None, 1]
    start, end = np.moveaxis(figure.ends_m[:, body][:, None], 3, 0)
    share = ((tip - start) * (end - start)).sum(axis=-1) / ((end - start) ** 2).sum(axis=-1)
    nearest = start + np.clip(share, 0, 1)[..., None] * (end - start)
    apart = np.linalg.norm(tip - nearest, axis=-1) - radius
    return (figure.radii_m[:, body].min(axis=-1)[:, None] - apart).max(axis=(1, 2))


def test_limbs_stay_out_of_trunk_and_head(lying):
    for _, _, figure in lying:
        assert depth_in_body(figure).max() < 0.008


def test_limbs_that_point_into_bed_or_body_are_turned_out(rng):
    infant, asked = sample_infants(rng, 1), np.zeros((2, len(FREEDOMS)))
    into_body = {"shoulder_flexion": -5, "shoulder_abduction": 20, "shoulder_rotation": 75}
    into_body |= {"elbow_flexion": 95, "hip_abduction": 20, "hip_flexion": 30, "knee_flexion": 10}
    into_bed = {"shoulder_flexion": -30, "shoulder_abduction": 30, "elbow_flexion": 10}
    into_bed |= {"hip_flexion": -15, "hip_abduction": 25, "knee_flexion": 40}
    for frame, pose in enumerate((into_body, into_bed)):
        for name, degrees in pose.items():
            for side in ("left_", "right_"):
                asked[frame, FREEDOM_INDEX[side + name]] = np.radians(degrees)
    _, figure = lie_down(infant, asked)
    before = forward_kinematics(infant[np.zeros(2, int)], asked, np.zeros((2, 3)))
    assert depth_in_body(before)[0] > 0.02 and depth_in_body(figure)[0] < 0.008
    heights = [(f.ends_m[1, ..., 2] - f.radii_m[1]).min() for f in (before, figure)]
    assert heights[0] < heights[1] - 0.03 and heights[1] > -0.01


def test_lying_down_is_for_one_infant(rng):
    with pytest.raises(ValueError, match="one infant"):
        lie_down(sample_infants(rng, 2), sample_movement(rng, 2))


def test_joints_lie_just_under_the_skin(lying):
    """Between the joint and what the camera sees of it is flesh, seldom another limb."""
    camera = MOUNT.hang(np.random.default_rng(0), (96, 128), 0.06)
    for _, _, figure in lying:
        depth = np.tile(mattress_depth(camera), (len(figure.ends_m), 1, 1))
        draw_capsules(depth, camera, figure.ends_m, figure.radii_m)
        joints_m = figure.joints_m[:, [BODY_JOINT[name] for name in JOINTS]]
        joints_px = camera.project(joints_m)
        column, row = np.moveaxis(np.rint(joints_px).astype(int), -1, 0)
        frame, joint = np.nonzero((row >= 0) & (row < 96) & (column >= 0) & (column < 128))
        seen = depth[frame, row[frame, joint], column[frame, joint]]
        flesh = camera.frame(joints_m)[frame, joint, 2] - seen
        assert flesh.min() > 0
        assert np.median(flesh) < 0.03 and np.mean(flesh < 0.05) > 0.9


def test_no_infants_and_no_frames_are_refused(rng):
    with pytest.raises(ValueError, match="at least 1"):
        sample_infants(rng, 0)
    with pytest.raises(ValueError, match="frames"):
        sample_movement(rng, 0)
