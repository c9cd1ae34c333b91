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
