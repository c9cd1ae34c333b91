"""What the posture study optimises: jittered maps against NumPy, targets, labels in a mirror."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs import mats
from jaxbed.tasks import efd
from jaxbed.tasks import keypoint_posture as tasks
from jaxbed.tasks.keypoint_posture import STILL, Jitter, jittered

PITCH = 25.4
SIZE = (16, 8)
ONLY_MIRROR = dataclasses.replace(STILL, mirror=True)


@pytest.fixture
def pressure(rng):
    return rng.random((12, *SIZE)).astype(np.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def changed(pressure, jitter, seed=0):
    def change(one, key):
        return jittered(one, key, jitter, pitch_mm=PITCH)

    return [np.asarray(x) for x in jax.vmap(change)(pressure, keys(len(pressure), seed))]


def moved(one, *, shift=(0.0, 0.0), turn=0.0, stretch=(1.0, 1.0)):
    return np.asarray(tasks._moved(jnp.asarray(one), jnp.array(shift), turn, jnp.array(stretch)))


def test_a_still_map_stays_as_it_was_measured(pressure):
    same, mirrored = changed(pressure, STILL)
    np.testing.assert_allclose(same, pressure, atol=1e-6)
    assert not mirrored.any()


@pytest.mark.parametrize("shift", [(3, -2), (-5, 0), (0, 7), (16, 0)])
def test_a_shift_by_whole_cells_is_numpys(pressure, shift):
    """What leaves the mat is lost and what enters reads 0, as in the canonical frame."""
    wanted = mats.shifted(pressure[0], np.array(shift))
    np.testing.assert_allclose(moved(pressure[0], shift=shift), wanted, atol=1e-6)


def test_a_shift_by_half_a_cell_is_a_mean(pressure):
    one = pressure[0]
    wanted = (one + mats.shifted(one, np.array([1, 0]))) / 2
    np.testing.assert_allclose(moved(one, shift=(0.5, 0))[1:], wanted[1:], atol=1e-6)


def test_a_turn_by_a_right_angle_is_numpys(rng):
    square = rng.random((9, 9)).astype(np.float32)
    turned = moved(square, turn=np.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(square), atol=1e-5)


def test_a_stretch_doubles_lengths_about_the_middle():
    line = np.zeros((17, 9), np.float32)
    line[6:11, 4] = 1
    long = moved(line, stretch=(2.0, 1.0))
    assert (long[:, 4] > 0.99).sum() == 9
    assert (long[4:13, 4] > 0.99).all()
    assert not long[:, [3, 5]].any()


def test_half_of_the_maps_are_mirrored_and_say_so(rng):
    pressure = rng.random((200, 4, 6)).astype(np.float32)
    seen, mirrored = changed(pressure, ONLY_MIRROR)
    wanted = np.where(mirrored[:, None, None], pressure[..., ::-1], pressure)
    np.testing.assert_allclose(seen, wanted, atol=1e-6)
    assert 70 < mirrored.sum() < 130


def test_no_shift_is_larger_than_asked_and_means_the_same_on_every_mat():
    """One pressed cell in the middle: how far it goes is how far the map was shifted."""
    dot = np.zeros((300, 21, 21), np.float32)
    dot[:, 10, 10] = 1
    jitter = dataclasses.replace(STILL, shift_mm=(2.5 * PITCH, 1.5 * PITCH))
    seen, _ = changed(dot, jitter)
    total = seen.sum(axis=(1, 2))
    np.testing.assert_allclose(total, 1, atol=1e-5)
    cells = np.arange(21) - 10
    down = seen.sum(axis=2) @ cells
    across = seen.sum(axis=1) @ cells
    assert 2.3 < abs(down).max() <= 2.5 + 1e-5
    assert 1.3 < abs(across).max() <= 1.5 + 1e-5
    coarse, _ = jittered(jnp.asarray(dot[0]), keys(1)[0], jitter, pitch_mm=2 * PITCH)
    assert float(coarse.sum(axis=1) @ cells) == pytest.approx(down[0] / 2, abs=1e-4)


def test_dead_sensors_read_nothing_and_the_others_what_they_did(pressure):
    seen, _ = changed(pressure + 0.1, dataclasses.replace(STILL, dead=0.5))
    dead = seen == 0
    np.testing.assert_allclose(seen[~dead], np.clip(pressure + 0.1, 0, 1)[~dead], atol=1e-6)
    assert 0.05 < dead.mean() < 0.45


def test_jittered_maps_stay_within_the_scale_and_differentiable(pressure):
    seen, _ = changed(pressure, Jitter())
    assert seen.min() >= 0
    assert seen.max() <= 1
    empty = jnp.zeros(SIZE)
    gradient = jax.grad(lambda p: jittered(p, keys(1)[0], Jitter(), pitch_mm=PITCH)[0].sum())(empty)
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize("make", [tasks.looking_through, tasks.rebuilding_as_seen])
def test_what_a_network_sees_and_what_it_is_to_rebuild(make, pressure):
    inner = efd.reconstruction_task((32, 16), l2_weight=1, ssim_weight=0, max_shift=(0, 0))
    jitter = Jitter()
    task = make(inner, (32, 16), jitter, pitch_mm=PITCH)
    batch = {"pressure": jnp.asarray(pressure)}
    prepared = task.prepare(batch, keys(len(pressure)), True)
    seen, mirrored = changed(pressure, jitter)
    big = np.repeat(np.repeat(seen, 2, 1), 2, 2)[..., None]
    np.testing.assert_allclose(prepared["input"], big, atol=1e-6)
    asked = pressure
    if make is tasks.looking_through:
        asked = np.where(mirrored[:, None, None], pressure[..., ::-1], pressure)
        want = np.repeat(np.repeat(asked, 2, 1), 2, 2)[..., None]
    else:
        want = big
    zero = {"map": jnp.zeros_like(prepared["input"])}
    loss, _ = task.loss(zero, prepared)
    np.testing.assert_allclose(loss, (want**2).mean(axis=(1, 2, 3)), rtol=1e-4)

    still = task.prepare(batch, keys(len(pressure)), False)
    plain = np.repeat(np.repeat(pressure, 2, 1), 2, 2)[..., None]
    np.testing.assert_allclose(still["input"], plain, atol=1e-6)
    loss, _ = task.loss(zero, still)
    np.testing.assert_allclose(loss, (plain**2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_left_and_right_change_places_in_a_mirror_and_nothing_else_does(rng):
    """Every map presses on the left edge alone: where that ends up tells what was mirrored."""
    pressure = np.zeros((64, *SIZE), np.float32)
    pressure[..., 0] = 1
    label = rng.integers(0, 3, 64).astype(np.int32)
    task = tasks.maps_task(SIZE, ONLY_MIRROR, pitch_mm=PITCH, mirrored_label=(0, 2, 1))
    batch = {"pressure": jnp.asarray(pressure), "label": jnp.asarray(label)}
    prepared = task.prepare(batch, keys(64), True)
    turned = np.asarray(prepared["input"])[:, 0, 0, 0] == 0
    assert 0 < turned.sum() < 64
    wanted = np.where(turned, np.array([0, 2, 1])[label], label)
    np.testing.assert_array_equal(prepared["label"], wanted)
    still = task.prepare(batch, keys(64), False)
    np.testing.assert_array_equal(still["label"], label)


def test_nodes_hold_keypoints_then_features(rng):
    keypoints, features = rng.random((2, 5, 3)), rng.random((2, 5, 4))
    nodes = tasks.nodes_of({"keypoints": keypoints, "keypoint_features": features})
    assert nodes.shape == (2, 5, 7)
    np.testing.assert_allclose(nodes[..., :3], keypoints, rtol=1e-6)
    np.testing.assert_allclose(nodes[..., 3:], features, rtol=1e-6)


def test_accuracy_leaves_out_what_only_fills_a_batch():
    task = tasks.nodes_task()
    logits = jnp.asarray([[2.0, 0], [0, 1], [1, 0], [0, 9]])
    batch = {"label": jnp.asarray([0, 0, 0, 1]), "mask": jnp.asarray([1.0, 1, 1, 0])}
    metric = task.metrics({"logits": logits}, batch)["accuracy"]
    assert float(metric.compute()) == pytest.approx(2 / 3)
    loss, _ = task.loss({"logits": logits}, batch)
    np.testing.assert_allclose(loss[0], np.log(1 + np.exp(-2)), rtol=1e-6)
