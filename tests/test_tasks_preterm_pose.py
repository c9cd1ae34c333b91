"""Targets, augmentation and scores of limb poses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs import limbs
from jaxbed.tasks import preterm_pose as task

LIMBS = ("right_arm", "left_arm", "right_leg", "left_leg")
SIZE = (32, 48)


@pytest.fixture
def clip(rng):
    """Depth u16[3,32,48] and joints f32[3,12,2] well inside the image."""
    depth = rng.integers(500, 900, (3, *SIZE)).astype(np.uint16)
    joints = rng.uniform((12, 10), (35, 21), (3, 12, 2)).astype(np.float32)
    return jnp.asarray(depth), jnp.asarray(joints)


def marked(joints_px):
    """Depth in which every joint's pixel holds 1000 plus its number."""
    depth = np.zeros((3, *SIZE), np.uint16)
    for frame, joints in enumerate(np.rint(joints_px).astype(int)):
        for number, (x, y) in enumerate(joints):
            depth[frame, y, x] = 1000 + number
    return depth


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_moves_image_and_joints_together(seed):
    places = np.random.default_rng(seed).permutation(20 * 10)[:36].reshape(3, 12)
    joints = np.stack([13 + places % 20, 10 + places // 20], axis=-1).astype(np.float32)
    depth, moved = task.augment(
        jnp.asarray(marked(joints)),
        jnp.asarray(joints),
        jax.random.key(seed),
        max_shift=(3, 4),
        mirror=True,
    )
    depth, at = np.asarray(depth), np.asarray(moved)
    x, y = np.rint(at).astype(int)[..., 0], np.rint(at).astype(int)[..., 1]
    seen = depth[np.arange(3)[:, None], y, x]
    straight = np.arange(12)
    exchanged = straight.reshape(2, 2, 3)[:, ::-1].reshape(-1)
    assert all((row - 1000 == straight).all() or (row - 1000 == exchanged).all() for row in seen)


def test_augmentation_mirrors_about_half_of_the_clips_and_shifts_to_both_limits(clip):
    depth, joints = clip
    keys = jax.random.split(jax.random.key(0), 200)
    change = jax.vmap(lambda key: task.augment(depth, joints, key, max_shift=(2, 1), mirror=True))
    _, moved = jax.device_get(change(keys))
    order = np.sign(joints[0, 0, 0] - joints[0, 1, 0])  # mirroring turns it, for left and right
    mirrored = np.sign(moved[:, 0, 3, 0] - moved[:, 0, 4, 0]) == -order
    assert 0.35 < mirrored.mean() < 0.65
    down = moved[~mirrored][:, 0, 0, 1] - joints[0, 0, 1]
    assert {round(float(v)) for v in down} == {-2, -1, 0, 1, 2}


def test_the_input_is_metres_without_each_images_mean(clip):
    depth, _ = clip
    got = task.network_input(depth[None])
    want = np.asarray(depth, np.float64) / 1e3
    want -= want.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(got[0, ..., 0], want, atol=1e-6)


def test_regression_learns_gaussian_maps_and_detection_binary_ones(clip):
    depth, joints = clip
    batch = {"depth_mm": depth[None], "joints_px": joints[None], "mask": jnp.ones(1)}
    keys = jax.random.split(jax.random.key(0), 1)
    common = {"radius_px": 3.0, "max_shift": (1, 1), "mirror": False}
    detection = task.detection_task(**common)
    regression = task.regression_task(**common, sigma_px=9.0)
    rough = detection.prepare(batch, keys, False)["target"]
    fine = regression.prepare(batch, keys, False)["target"]
    assert set(np.unique(rough)) == {0, 1}
    np.testing.assert_array_equal(rough, limbs.encode(joints[None], SIZE, radius_px=3.0))
    np.testing.assert_array_equal(np.asarray(fine) > 0, np.asarray(rough) > 0)
    assert 0.9 < np.asarray(fine)[np.asarray(fine) > 0].min() < 1

    logits = 20 * (2 * rough - 1)
    scores = detection.metrics({"logits": logits}, {**batch, "target": rough})
    assert scores["dice"].compute() == 1
    assert detection.loss({"logits": logits}, {"target": rough})[0][0] < 1e-6
    assert regression.loss({"maps": fine}, {"target": fine})[0][0] == 0


def test_rmsd_is_the_root_of_the_mean_square_over_a_limbs_joints():
    true = np.zeros((1, 12, 2), np.float32)
    found = true.copy()
    found[0, 0] = 3, 4  # one joint of three, 5 px away
    found[0, 7] = np.nan
    np.testing.assert_allclose(task.limb_rmsd(found, true), [[5 / np.sqrt(3), 0, np.nan, 0]])


def test_scores_count_missing_limbs_apart():
    true = np.zeros((4, 12, 2), np.float32)
    true[3, :3] = np.nan  # hidden in the truth: does not count
    found = np.zeros((4, 12, 2), np.float32)
    found[:, 0, 0] = 3, 6, 9, 0
    found[0, 3:6] = np.nan
    scores = task.pose_scores(found, true, limb_names=LIMBS, near_px=4)
    root = np.sqrt(3)
    assert scores["right_arm/rmsd_px"] == pytest.approx(6 / root)
    assert scores["right_arm/rmsd_iqr_px"] == pytest.approx(3 / root)
    assert scores["right_arm/missing"] == 0
    assert scores["left_arm/missing"] == 0.25
    assert scores["missing"] == pytest.approx(1 / 15)
    assert scores["pck"] == pytest.approx((45 - 2 - 3) / 45)


def test_scores_of_nothing_are_nan():
    nothing = np.full((2, 12, 2), np.nan, np.float32)
    scores = task.pose_scores(nothing, nothing, limb_names=LIMBS, near_px=4)
    assert all(np.isnan(value) for value in scores.values())
