"""Baselines against closed forms."""

import numpy as np
import pytest

from jaxbed import baselines


def test_mean_map_is_the_mean():
    train = np.stack([np.zeros((2, 3)), np.ones((2, 3))])
    assert (baselines.mean_map(train, 4) == 0.5).all()
    assert baselines.mean_map(train, 4).shape == (4, 2, 3)


@pytest.mark.parametrize("count", [6, 40])  # fewer and more maps than sensors
def test_pca_rebuilds_what_lies_in_its_components(count, rng):
    basis = rng.random((3, 12))
    maps = (rng.random((count, 3)) @ basis).reshape(count, 3, 4) + 1
    np.testing.assert_allclose(baselines.pca(maps, maps, components=3), maps, atol=1e-6)


def test_pca_is_the_best_linear_reconstruction(rng):
    maps = rng.random((30, 4, 5))
    centred = maps.reshape(30, -1) - maps.reshape(30, -1).mean(0)
    left_over = (np.linalg.svd(centred, compute_uv=False)[7:] ** 2).sum() / maps.size
    rebuilt = baselines.pca(maps, maps, components=7)
    error = ((rebuilt - maps) ** 2).mean()
    # The clip at 0 can only bring a non-negative map closer.
    assert error <= left_over + 1e-12
    assert error == pytest.approx(left_over, rel=0.05)


def test_more_components_than_the_data_have_are_refused(rng):
    with pytest.raises(ValueError, match=r"in \[1, 4\], got 5"):
        baselines.pca(rng.random((5, 3, 3)), rng.random((1, 3, 3)), components=5)


def test_the_majority_is_the_commonest_label_and_of_several_the_smallest():
    assert baselines.majority(np.array([3, 1, 3, 0, 1, 3]), 4).tolist() == [3] * 4
    assert baselines.majority(np.array([2, 1]), 1).tolist() == [1]


def test_the_nearest_neighbour_ignores_brightness_and_contrast(rng):
    train = rng.integers(0, 100, (300, 13, 10), np.uint8)
    order = rng.permutation(300)
    test = 2.5 * train[order] + 40
    assert baselines.nearest_neighbour(train, test, size=(24, 24)).tolist() == order.tolist()


def test_the_nearest_neighbour_is_found_among_block_means(rng):
    """13x10 pixels in 4x5 blocks of 3 or 4 by 2 pixels."""
    train, test = rng.random((20, 13, 10)), rng.random((7, 13, 10))
    rows = [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 13)]

    def small(image):
        block = [[image[r, 2 * c : 2 * c + 2].mean() for c in range(5)] for r in rows]
        flat = np.ravel(block) - np.mean(block)
        return flat / np.linalg.norm(flat)

    known, asked = (np.array([small(i) for i in images]) for images in (train, test))
    want = np.linalg.norm(asked[:, None] - known, axis=2).argmin(axis=1)
    found = baselines.nearest_neighbour(train, test, size=(4, 5))
    assert found.tolist() == want.tolist()
