"""The EFD task: what is made of a map on the device, and what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.tasks import efd


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (128, 96)])
def test_enlarging_by_whole_multiples_and_back_loses_nothing(size, rng):
    maps = jnp.asarray(rng.random((2, 64, 32)), jnp.float32)
    image = efd.to_network(maps, size)
    assert image.shape == (2, *size, 1)
    np.testing.assert_allclose(efd.to_native(image[..., 0], (64, 32)), maps, atol=1e-6)


def test_other_mats_are_interpolated_and_keep_their_mean(rng):
    maps = jnp.asarray(rng.random((2, 64, 27)), jnp.float32)
    image = efd.to_network(maps, (64, 64))
    assert image.shape == (2, 64, 64, 1)
    back = efd.to_native(image[..., 0], (64, 27))
    assert back.shape == maps.shape
    np.testing.assert_allclose(back.mean((1, 2)), maps.mean((1, 2)), atol=0.02)


def test_a_network_smaller_than_the_mat_averages_instead_of_skipping_sensors():
    stripes = jnp.tile(jnp.array([0.0, 1.0]), 32).reshape(1, 64, 1) * jnp.ones((1, 64, 32))
    image = efd.to_network(stripes, (32, 32))[0, 2:-2, 2:-2]
    np.testing.assert_allclose(image, 0.5, atol=1e-5)


def test_augmentation_only_mirrors_and_shifts():
    pressure = np.zeros((8, 6), np.float32)
    pressure[3:5, 2] = [1, 2]
    seen = set()
    for i in range(200):
        changed = np.asarray(
            efd.augment(jnp.asarray(pressure), jax.random.key(i), max_shift=(2, 1))
        )
        assert changed.sum() == 3
        (row, column) = np.argwhere(changed == 1)[0]
        assert changed[row + 1, column] == 2
        seen.add((int(row) - 3, int(column)))
    columns = {2 + d for d in (-1, 0, 1)} | {3 + d for d in (-1, 0, 1)}
    assert seen == {(r, c) for r in range(-2, 3) for c in columns}


def test_evaluation_sees_the_maps_as_they_are(rng):
    task = efd.reconstruction_task((64, 64), l2_weight=1, ssim_weight=1, max_shift=(4, 3))
    maps = jnp.asarray(rng.random((2, 64, 32)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    prepared = task.prepare({"pressure": maps}, keys, False)
    np.testing.assert_array_equal(prepared["pressure"], maps)


def test_a_perfect_reconstruction_has_no_loss_and_similarity_one(rng):
    task = efd.reconstruction_task((64, 64), l2_weight=100, ssim_weight=1, max_shift=(4, 3))
    maps = jnp.asarray(rng.random((3, 64, 32)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = {**task.prepare({"pressure": maps}, keys, False), "mask": jnp.array([1.0, 1, 0])}
    loss, _ = task.loss({"map": batch["input"]}, batch)
    np.testing.assert_allclose(loss, 0, atol=1e-5)
    scores = {
        k: float(v.compute()) for k, v in task.metrics({"map": batch["input"]}, batch).items()
    }
    assert scores == pytest.approx({"l1": 0, "l2": 0, "ssim": 1}, abs=1e-5)


def test_the_contact_label_is_where_there_is_pressure():
    task = efd.contact_task((32, 32), contact_threshold=0.01, max_shift=(0, 0))
    maps = jnp.zeros((1, 32, 32)).at[0, 4, 5].set(0.5).at[0, 6, 7].set(0.005)
    label = task.prepare({"pressure": maps}, jax.random.split(jax.random.key(0), 1), False)["label"]
    assert np.argwhere(label).tolist() == [[0, 4, 5]]


def test_code_statistics_tell_collapsed_keypoints_from_lively_ones(rng):
    def outputs(heatmaps, code):
        return {
            "heatmaps": heatmaps,
            "keypoints": code[..., :3],
            "keypoint_features": code[..., 3:],
        }

    flat = np.full((40, 4, 4, 6), 1 / 16)
    collapsed = efd.code_statistics(outputs(flat, np.ones((40, 6, 1)) * rng.random((40, 1, 5))))
    assert collapsed["heatmap_entropy"] == pytest.approx(1)
    assert collapsed["cells_used"] == 1
    assert collapsed["effective_rank"] < 6

    peaked = np.zeros((40, 16, 6))
    peaked[:, [0, 3, 5, 9, 12, 15], range(6)] = 1
    lively = efd.code_statistics(outputs(peaked.reshape(40, 4, 4, 6), rng.random((40, 6, 5))))
    assert lively["heatmap_entropy"] == pytest.approx(0, abs=1e-6)
    assert lively["cells_used"] == 6
    assert lively["effective_rank"] > 20
