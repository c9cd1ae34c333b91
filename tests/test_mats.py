"""The canonical frame of pressure mats."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs.mats import Mounting, from_canonical, to_canonical

# A supine person seen from above, head up: the right arm (1) on the left of the image, the
# left arm (2) on the right, then the right foot (3) and the left one (4).
CANONICAL = np.array([[1, 2], [0, 0], [3, 4]], np.float32)

# The same person as four mats store them: turned by half a turn, mirrored, or both.
STORED = {
    ("up", False): [[1, 2], [0, 0], [3, 4]],
    ("down", False): [[4, 3], [0, 0], [2, 1]],
    ("up", True): [[2, 1], [0, 0], [4, 3]],
    ("down", True): [[3, 4], [0, 0], [1, 2]],
}


@pytest.mark.parametrize(("head", "mirrored"), STORED)
def test_every_mounting_comes_to_the_same_person(head, mirrored):
    stored = np.array(STORED[head, mirrored])
    np.testing.assert_array_equal(to_canonical(stored, Mounting(head, mirrored)), CANONICAL)


@pytest.mark.parametrize(("head", "mirrored"), STORED)
def test_a_canonical_map_is_stored_the_way_the_mat_does(head, mirrored):
    stored = from_canonical(CANONICAL, Mounting(head, mirrored, baseline=48.0))
    np.testing.assert_array_equal(stored, np.array(STORED[head, mirrored]) + 48.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
def test_what_reads_below_the_baseline_becomes_zero(dtype):
    raw = np.array([[47, 48], [49, 0]], dtype)
    pressure = to_canonical(raw, Mounting("up", mirrored=False, baseline=48.0))
    np.testing.assert_array_equal(pressure, [[0, 0], [1, 0]])
    assert pressure.dtype == np.float32


@pytest.mark.parametrize(("head", "mirrored"), STORED)
def test_going_there_and_back_returns_the_readings_above_the_baseline(head, mirrored, rng):
    raw = rng.integers(0, 4096, (2, 3, 6, 4))
    mounting = Mounting(head, mirrored, baseline=48.0)
    back = from_canonical(to_canonical(raw, mounting), mounting)
    np.testing.assert_array_equal(back, np.maximum(raw, 48))


def test_jax_and_numpy_arrays_give_the_same_numbers(rng):
    raw = rng.integers(0, 4096, (2, 6, 4))
    mounting = Mounting("down", mirrored=True, baseline=48.0)
    on_device = to_canonical(jnp.asarray(raw), mounting)
    assert isinstance(on_device, jnp.ndarray)
    np.testing.assert_array_equal(on_device, to_canonical(raw, mounting))


def test_another_end_of_the_bed_is_refused():
    with pytest.raises(ValueError, match="'up' or 'down', got 'left'"):
        Mounting("left", mirrored=False)
