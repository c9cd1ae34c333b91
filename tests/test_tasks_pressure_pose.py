"""Targets, augmentation, loss and scores of keypoints on pressure maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs import heatmaps
from jaxbed.simulate.skeleton import JOINTS
from jaxbed.tasks import pressure_pose as task
from jaxbed.tasks.pressure_pose import NO_AUGMENTATION, PCK, Augmentation, Frame, View

SKELETON = task.skeleton_of(JOINTS)
FRAME = Frame(size=(64, 32), mat_mm=(1600.0, 800.0))  # 25 mm a pixel


def batch_of(joints_mm, pressure=None, mask=None):
    count = len(joints_mm)
    pressure = np.zeros((count, 16, 8), np.float32) if pressure is None else pressure
    return {
        "pressure": jnp.asarray(pressure),
        "joints_mm": jnp.asarray(joints_mm, jnp.float32),
        "index": jnp.arange(count),
        "mask": jnp.ones(count) if mask is None else jnp.asarray(mask, jnp.float32),
    }


def keys(count):
    return jax.random.split(jax.random.key(3), count)


def some_joints(rng, count):
    return rng.uniform((100, 200), (700, 1400), (count, 14, 2)).astype(np.float32)


def prepared(joints_mm, *, train=False, augmentation=NO_AUGMENTATION, **rest):
    made = task.pose_task(FRAME, SKELETON, sigma_px=1.0, augmentation=augmentation)
    return made, made.prepare(batch_of(joints_mm, **rest), keys(len(joints_mm)), train)


# Skeleton and frame


def test_the_skeleton_knows_counterparts_torso_and_head():
    for i, name in enumerate(JOINTS):
        other = JOINTS[SKELETON.mirror[i]]
        if name.startswith(("left_", "right_")):
            assert {name, other} == {f"{s}_{name.split('_')[1]}" for s in ("left", "right")}
        else:
            assert other == name
    told = {frozenset((JOINTS[i], JOINTS[j])) for i, j in SKELETON.torso}
    assert told == {
        frozenset(("left_shoulder", "right_hip")),
        frozenset(("right_shoulder", "left_hip")),
    }
    assert [JOINTS[i] for i in SKELETON.head] == ["neck", "head_top"]


def test_millimetres_become_pixels_of_a_squeezed_map_and_back(rng):
    frame = Frame(size=(64, 64), mat_mm=(1600.0, 800.0))
    np.testing.assert_allclose(frame.to_px(jnp.array([[[12.5, 25.0]]])), [[[0.5, 0.5]]])
    joints = jnp.asarray(some_joints(rng, 2))
    np.testing.assert_allclose(frame.to_mm(frame.to_px(joints)), joints, rtol=1e-5)


# Input and augmentation


def oracle_show(pressure, size, mirror, zoom, shift):
    """Interpolates pixel by pixel."""
    sensors = pressure.shape
    drawn = np.zeros(size)
    for i, j in np.ndindex(*size):
        at, weights = [], []
        for axis, (k, length) in enumerate(zip((i, j), size, strict=True)):
            seen = ((k + 0.5) / length - 0.5 - shift[1 - axis]) / zoom + 0.5
            if not 0 <= seen <= 1:
                break
            if axis == 1 and mirror:
                seen = 1 - seen
            place = np.clip(seen * sensors[axis] - 0.5, 0, sensors[axis] - 1)
            low = min(int(place), sensors[axis] - 2)
            at.append((low, low + 1))
            weights.append((1 - (place - low), place - low))
        else:
            drawn[i, j] = sum(
                weights[0][a] * weights[1][b] * pressure[at[0][a], at[1][b]]
                for a in (0, 1)
                for b in (0, 1)
            )
    return drawn


@pytest.mark.parametrize(
    ("mirror", "zoom", "shift"),
    [(False, 1.0, (0, 0)), (True, 1.0, (0, 0)), (True, 1.3, (0.1, -0.2)), (False, 0.8, (-0.15, 0))],
)
def test_maps_are_drawn_by_linear_interpolation(rng, mirror, zoom, shift):
    pressure = rng.random((1, 16, 8)).astype(np.float32)
    views = View(jnp.array([mirror]), jnp.array([zoom]), jnp.array([shift], jnp.float32))
    got = task.show(jnp.asarray(pressure), views, (40, 24))
    want = oracle_show(pressure[0], (40, 24), mirror, zoom, shift)
    np.testing.assert_allclose(got[0], want, atol=1e-5)


def test_smaller_inputs_average_and_keep_the_mean(rng):
    pressure = rng.random((1, 48, 24)).astype(np.float32)
    small = task.show(jnp.asarray(pressure), task.plain_views(1), (12, 6))
    assert np.std(small) < 0.5 * np.std(pressure)
    assert float(jnp.mean(small)) == pytest.approx(pressure.mean(), abs=0.02)


@pytest.mark.parametrize("mirror", [False, True])
def test_joints_lie_where_the_map_is_drawn(mirror):
    """A single loaded sensor under the right knee, which is the left one in a mirror."""
    row, column, knee = 10, 2, JOINTS.index("right_knee")
    pressure = np.zeros((1, 16, 8), np.float32)
    pressure[0, row, column] = 1
    joints = np.full((1, 14, 2), np.nan, np.float32)
    joints[0, knee] = (column + 0.5) * 100, (row + 0.5) * 100  # sensors of 100 mm
    views = View(jnp.array([mirror]), jnp.array([1.2]), jnp.array([[0.05, -0.04]]))
    image = np.asarray(task.show(jnp.asarray(pressure), views, FRAME.size)[0], np.float64)
    placed = np.asarray(task.place(jnp.asarray(joints), views, FRAME, SKELETON)[0])
    (found,) = np.flatnonzero(np.isfinite(placed).all(axis=-1))
    assert found == (SKELETON.mirror[knee] if mirror else knee)
    weights = image / image.sum()
    centre = [(weights.sum(0) * np.arange(32)).sum(), (weights.sum(1) * np.arange(64)).sum()]
    np.testing.assert_allclose(placed[found], centre, atol=0.02)


def test_views_mirror_half_of_the_maps_within_the_limits():
    limits = Augmentation(mirror=True, max_shift_mm=80.0, max_zoom=1.2)
    views = jax.device_get(task.draw_views(keys(400), limits, FRAME))
    assert 0.4 < views.mirror.mean() < 0.6
    assert 1 / 1.2 <= views.zoom.min() < 0.86 and 1.16 < views.zoom.max() <= 1.2
    assert np.abs(views.shift[:, 0]).max() == pytest.approx(80 / 800, rel=0.05)
    assert np.abs(views.shift[:, 1]).max() == pytest.approx(80 / 1600, rel=0.05)
    still = jax.device_get(task.draw_views(keys(4), NO_AUGMENTATION, FRAME))
    assert not still.mirror.any() and not still.shift.any() and (still.zoom == 1).all()


def test_training_draws_and_evaluation_does_not(rng):
    joints, pressure = some_joints(rng, 4), rng.random((4, 16, 8)).astype(np.float32)
    _, plain = prepared(joints, pressure=pressure, augmentation=Augmentation())
    _, drawn = prepared(joints, pressure=pressure, augmentation=Augmentation(), train=True)
    np.testing.assert_allclose(plain["joints_px"], joints / 25 - 0.5, atol=1e-4)
    assert np.abs(drawn["input"] - plain["input"]).max() > 0.1
    assert np.abs(drawn["joints_px"] - plain["joints_px"]).max() > 0.5


# Targets


def test_missing_joints_and_those_beside_the_mat_do_not_count(rng):
    joints = some_joints(rng, 1)
    joints[0, 0] = np.nan
    joints[0, 1] = -10, 500
    joints[0, 2] = 400, 1601
    joints[0, 3] = 800, 1600  # just on it
    _, batch = prepared(joints)
    np.testing.assert_array_equal(batch["weight"][0], [0, 0, 0, *[1] * 11])
    assert not np.asarray(batch["target"][0, ..., :3]).any()
    assert np.asarray(batch["target"][0, ..., 4:]).max((0, 1)).min() > 0.6


def test_a_joint_beside_the_mat_stays_out_when_the_map_shrinks():
    joints = np.full((1, 14, 2), 400.0, np.float32)
    joints[0, 5] = 400, 1650
    views = View(jnp.array([False]), jnp.array([0.5]), jnp.zeros((1, 2)))
    placed = task.place(jnp.asarray(joints), views, FRAME, SKELETON)
    assert np.isnan(placed[0, 5]).all()
    assert np.isfinite(placed[0, 4]).all()


def test_targets_decode_to_the_joints(rng):
    joints = some_joints(rng, 5)
    _, batch = prepared(joints)
    found = heatmaps.decode(batch["target"], refine="taylor")
    np.testing.assert_allclose(FRAME.to_mm(found.joints_px), joints, atol=1.0)


# Loss


def oracle_loss(stages, target, weight):
    total = np.zeros(stages.shape[:2])
    batch, stacks, height, width, joints = stages.shape
    for b, s, j in np.ndindex(batch, stacks, joints):
        error = (stages[b, s, :, :, j] - target[b, :, :, j]) ** 2
        total[b, s] += weight[b, j] * 0.5 * error.sum() / (height * width) / joints
    return total


def test_the_loss_is_half_of_the_masked_square_error_of_every_stack(rng):
    joints = some_joints(rng, 3)
    joints[1, 4:9] = np.nan
    made, batch = prepared(joints)
    stages = rng.normal(size=(3, 2, 16, 8, 14)).astype(np.float32)
    want = oracle_loss(stages, np.asarray(batch["target"]), np.asarray(batch["weight"]))
    outputs = {"stages": jnp.asarray(stages), "heatmaps": jnp.asarray(stages[:, -1])}
    loss, parts = made.loss(outputs, batch)
    np.testing.assert_allclose(loss, want.sum(1), rtol=1e-5)
    np.testing.assert_allclose(parts["last_stack"], want[:, -1], rtol=1e-5)
    alone, _ = made.loss({"heatmaps": outputs["heatmaps"]}, batch)
    np.testing.assert_allclose(alone, want[:, -1], rtol=1e-5)


def test_a_positive_weight_counts_pixels_by_their_target(rng):
    stages = rng.normal(size=(1, 1, 6, 5, 2)).astype(np.float32)
    target = rng.random((1, 6, 5, 2)).astype(np.float32)
    weight = np.array([[1, 0]], np.float32)
    got = task.heatmap_loss(*map(jnp.asarray, (stages, target, weight)), positive_weight=11.0)
    error = (1 + 10 * target[0, ..., 0]) * (stages[0, 0, ..., 0] - target[0, ..., 0]) ** 2
    np.testing.assert_allclose(got, [[0.5 * error.mean() / 2]], rtol=1e-5)


def test_a_masked_joint_has_no_gradient(rng):
    joints = some_joints(rng, 2)
    joints[0, 3] = np.nan
    made, batch = prepared(joints)
    maps = jnp.asarray(rng.normal(size=(2, 16, 8, 14)), jnp.float32)
    slope = jax.grad(lambda m: made.loss({"heatmaps": m}, batch)[0].sum())(maps)
    assert np.isfinite(slope).all()
    assert not np.asarray(slope[0, ..., 3]).any()
    assert np.asarray(slope[1, ..., 3]).any()


# Scores


def oracle_pck(found, true, share):
    """Hits and counts with the torso, in loops; a missing diagonal leaves the other one."""
    at = {name: i for i, name in enumerate(JOINTS)}
    hits = counts = 0
    for f, t in zip(found, true, strict=True):
        sides = [
            np.linalg.norm(t[at["left_shoulder"]] - t[at["right_hip"]]),
            np.linalg.norm(t[at["right_shoulder"]] - t[at["left_hip"]]),
        ]
        sides = [side for side in sides if np.isfinite(side)]
        for j in range(14):
            if sides and np.isfinite(t[j]).all():
                counts += 1
                hits += bool(np.linalg.norm(f[j] - t[j]) <= share * max(sides))
    return hits, counts


@pytest.fixture
def guesses(rng):
    """True and found joints, some of them missing, one map without a torso."""
    true = some_joints(rng, 6)
    found = true + rng.normal(scale=80, size=true.shape).astype(np.float32)
    true[0, JOINTS.index("left_hip")] = np.nan
    true[1, [JOINTS.index("left_shoulder"), JOINTS.index("right_shoulder")]] = np.nan
    true[2, JOINTS.index("neck")] = np.nan
    found[3, 5] = np.nan
    return found, true


@pytest.mark.parametrize("share", task.TORSO_SHARES)
def test_pck_counts_joints_within_a_share_of_the_torso(guesses, share):
    found, true = guesses
    hits, counts = oracle_pck(found, true, share)
    torso = task.torso_length(jnp.asarray(true), SKELETON)
    got = PCK.from_model_output(
        jnp.asarray(found), jnp.asarray(true), share * torso, mask=jnp.ones(6)
    )
    assert (int(got.hits.sum()), int(got.counts.sum())) == (hits, counts)
    assert float(got.compute()) == pytest.approx(hits / counts)


def test_parts_of_the_data_merge_to_the_whole_and_padding_does_not_count(guesses):
    found, true = map(jnp.asarray, guesses)
    limit = 0.1 * task.torso_length(true, SKELETON)
    whole = PCK.from_model_output(found, true, limit, mask=jnp.ones(6))
    first = PCK.from_model_output(found[:4], true[:4], limit[:4], mask=jnp.array([1, 1, 0, 0.0]))
    rest = PCK.from_model_output(found[2:], true[2:], limit[2:], mask=jnp.ones(4))
    jax.tree.map(np.testing.assert_array_equal, first.merge(rest), whole)


def test_the_head_reaches_from_the_neck_to_its_top(guesses):
    _, true = guesses
    got = task.head_length(jnp.asarray(true), SKELETON)
    want = np.linalg.norm(true[:, 12] - true[:, 13], axis=-1)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.isnan(got[2])


def test_metrics_of_exact_heatmaps_are_perfect_and_of_shifted_ones_tell_the_distance(rng):
    joints = some_joints(rng, 3)
    made, batch = prepared(joints, mask=[1, 1, 0])
    scores = made.metrics({"heatmaps": batch["target"]}, batch)
    assert float(scores["error_mm"].compute()) < 1
    assert {n: float(scores[n].compute()) for n in ("pck05", "pck10", "pck20", "pckh50")} == {
        "pck05": 1,
        "pck10": 1,
        "pck20": 1,
        "pckh50": 1,
    }
    assert float(scores["pck20"].counts.sum()) == 28
    down = jnp.roll(batch["target"], 1, axis=1)  # a heatmap pixel is 100 mm
    assert float(made.metrics({"heatmaps": down}, batch)["error_mm"].compute()) == pytest.approx(
        100, abs=2
    )
    nothing = made.metrics({"heatmaps": -batch["target"]}, batch)
    assert float(nothing["pck20"].compute()) == 0
