"""The canonical frame of pressure mats, and the steps between one mat and another."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbed.codecs.mats import (
    Mounting,
    centred,
    centring_corner,
    centring_shift,
    from_canonical,
    median_filtered,
    resampled,
    shifted,
    square_rooted,
    to_canonical,
)

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


def body(size, pitch, at, spread=(150.0, 90.0)):
    """A smooth load around a place, (down, across) from the middle of the mat in mm."""
    down, across = (
        (np.arange(cells) - (cells - 1) / 2) * each - place
        for cells, each, place in zip(size, pitch, at, strict=True)
    )
    load = np.exp(-((down[:, None] / spread[0]) ** 2) - (across / spread[1]) ** 2)
    return (100 * load).astype(np.float32)


def centre_mm(maps, pitch):
    """Centre of pressure, (down, across) from the middle of the mat in mm."""
    return [
        np.average((np.arange(n) - (n - 1) / 2) * each, weights=maps.sum(axis=1 - axis))
        for axis, (n, each) in enumerate(zip(maps.shape, pitch, strict=True))
    ]


def test_a_mat_of_the_same_pitch_is_padded_or_cropped(rng):
    maps = rng.integers(0, 500, (3, 64, 27))
    wider = resampled(maps, 25.4, (64, 32), 25.4)
    np.testing.assert_array_equal(wider, np.pad(maps, ((0, 0), (0, 0), (2, 3))))
    np.testing.assert_array_equal(resampled(wider, 25.4, (64, 27), 25.4), maps)
    assert wider.dtype == np.float32


def test_corner_on_corner_leaves_the_readings_where_they_are(rng):
    maps = rng.random((2, 6, 4), np.float32)
    out = resampled(maps, 30.0, (8, 3), 30.0, corner_mm=(0, 0))
    np.testing.assert_array_equal(out, np.pad(maps, ((0, 0), (0, 2), (0, 0)))[..., :3])
    out = resampled(maps, 30.0, (6, 4), 30.0, corner_mm=(60, -30))
    np.testing.assert_array_equal(out[:, :4, 1:], maps[:, 2:, :3])
    assert not out[:, 4:].any()
    assert not out[..., 0].any()


@pytest.mark.parametrize("size", [(16, 9), (12, 6), (10, 7)])
def test_a_coarser_mat_reads_means_over_areas(rng, size):
    maps = rng.random((64, 27), np.float32)
    pitch = (64 / size[0], 27 / size[1])
    expected = cv2.resize(maps, size[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(resampled(maps, 1.0, size, pitch), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 12), (30, 14), (64, 27)])
def test_a_finer_mat_reads_between_the_cells(rng, size):
    maps = rng.random((12, 6), np.float32)
    pitch = (12 / size[0], 6 / size[1])
    expected = cv2.resize(maps, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resampled(maps, 1.0, size, pitch), expected, atol=1e-5)


@pytest.mark.parametrize(("size", "pitch"), [((64, 32), (25.4, 25.4)), ((12, 6), (130.0, 111.0))])
def test_another_mat_finds_the_body_in_the_same_place(size, pitch):
    own = body((80, 40), (20.0, 20.0), (120.0, -40.0))
    other = resampled(own, 20.0, size, pitch)
    # The middles meet to half a cell of the finer mat.
    corner = np.array(centring_corner((80, 40), 20.0, size, pitch))
    apart = np.array([800.0, 400.0]) - (corner + np.multiply(size, pitch) / 2)
    assert (abs(apart) < 12.71).all()
    found = centre_mm(other, pitch) - apart
    np.testing.assert_allclose(found, centre_mm(own, (20.0, 20.0)), atol=1.0)


def test_a_coarser_mat_carries_the_same_weight():
    own = body((80, 40), (20.0, 20.0), (0.0, 0.0))
    other = resampled(own, 20.0, (14, 9), (130.0, 111.0))
    np.testing.assert_allclose(other.sum() * 130 * 111, own.sum() * 20 * 20, rtol=1e-5)


def test_an_even_load_stays_even_on_the_mat_and_ends_with_it():
    maps = np.full((12, 6), 7.0, np.float32)
    fine = resampled(maps, 100.0, (60, 40), 25.0, corner_mm=(0, -200))
    np.testing.assert_allclose(fine[:48, 8:32], 7.0, rtol=1e-6)
    assert fine.sum() == pytest.approx(48 * 24 * 7)


def test_a_place_moves_along_with_its_reading():
    maps = np.zeros((12, 6), np.float32)
    maps[3, 4] = 1
    down, across = centring_corner((12, 6), 30.0, (20, 20), 30.0)
    row, column = np.argwhere(resampled(maps, 30.0, (20, 20), 30.0))[0]
    assert ((row + 0.5) * 30, (column + 0.5) * 30) == (3.5 * 30 - down, 4.5 * 30 - across)


def test_the_median_removes_single_cells_and_keeps_bodies(rng):
    maps = np.zeros((2, 9, 7), np.float32)
    maps[:, 2:7, 2:5] = 50
    hot = maps.copy()
    hot[0, 0, 5], hot[1, 4, 3] = 4095, 0
    filtered = median_filtered(hot)
    np.testing.assert_array_equal(filtered, median_filtered(maps))
    assert (filtered[:, 3:6, 2:5] == 50).all()
    noise = rng.random((9, 7))
    window = np.median(noise[3:6, 1:4])
    assert median_filtered(noise)[4, 2] == np.float32(window)


def test_the_centre_of_pressure_comes_to_the_middle(rng):
    maps = np.zeros((3, 9, 7), np.float32)
    maps[0, 1:4, 0:3] = rng.random((3, 3)).astype(np.float32) * 0.1 + 1
    maps[1, 8, 6] = 3
    np.testing.assert_array_equal(centring_shift(maps), [[2, 2], [-4, -3], [0, 0]])
    moved = centred(maps)
    np.testing.assert_array_equal(moved[0, 3:6, 2:5], maps[0, 1:4, 0:3])
    assert moved[1, 4, 3] == 3
    np.testing.assert_allclose(moved.sum((1, 2)), maps.sum((1, 2)))
    assert moved.dtype == np.float32


def test_centring_again_changes_nothing():
    maps = np.stack([body((64, 32), (25.4, 25.4), (at, -at / 4)) for at in (-300.0, 0.0, 250.0)])
    once = centred(maps)
    np.testing.assert_array_equal(centred(once), once)


def test_what_leaves_the_mat_does_not_come_back_on_the_other_side(rng):
    maps = rng.random((2, 5, 4))
    moved = shifted(maps, np.array([[2, -1], [0, 9]]))
    expected = np.zeros_like(maps)
    expected[0, 2:, :3] = maps[0, :3, 1:]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(shifted(maps[0], np.array([2, -1])), expected[0])


def test_the_root_evens_out_the_readings():
    np.testing.assert_array_equal(square_rooted(np.array([[0, 4], [9, 16]])), [[0, 2], [3, 4]])
