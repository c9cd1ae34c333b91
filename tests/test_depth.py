"""Clips of depth recordings, and sets made smaller."""

import numpy as np
import pytest

from jaxbed.data.depth import Clips, DepthFrames, clips, resized
from jaxbed.errors import InputError


def frames(count=6, size=(6, 8)) -> DepthFrames:
    rng = np.random.default_rng(0)
    return DepthFrames(
        name="simulated",
        depth_mm=rng.integers(1, 900, (count, *size)).astype(np.uint16),
        joints_px=rng.uniform(0, 5, (count, 12, 2)).astype(np.float32),
        subject=np.array(["a"] * count),
        recording=np.array(["r"] * count),
    )


def test_training_clips_begin_at_every_frame_and_stay_within_a_recording():
    recording = np.array(["a"] * 4 + ["b"] * 2 + ["c"] * 3)
    got = clips(recording, length=3, shift=1)
    np.testing.assert_array_equal(got, [[0, 1, 2], [1, 2, 3], [6, 7, 8]])


def test_test_clips_share_no_frame():
    got = clips(np.array(["a"] * 7 + ["b"] * 3), length=3, shift=3)
    np.testing.assert_array_equal(got, [[0, 1, 2], [3, 4, 5], [7, 8, 9]])


def test_recordings_shorter_than_a_clip_are_refused():
    with pytest.raises(InputError, match="3 frames long and the longest recording 2"):
        clips(np.array(["a", "a", "b"]), length=3, shift=1)


def test_clips_are_indexed_like_an_array_of_clips():
    values = np.arange(10) ** 2
    index = clips(np.array(["a"] * 10), length=3, shift=1)
    held = Clips(values, index)
    assert len(held) == 8
    np.testing.assert_array_equal(held[np.array([5, 0])], values[index[[5, 0]]])
    np.testing.assert_array_equal(held[:2], values[index][:2])


def test_shrinking_keeps_joints_on_the_same_pixel():
    big = frames()
    rows, columns = np.mgrid[0:6, 0:8]
    numbered = np.broadcast_to((10 * rows + columns).astype(np.uint16), (6, 6, 8))
    small = resized(DepthFrames(**{**vars(big), "depth_mm": numbered}), (3, 4))
    assert small.size == (3, 4)
    # A pixel of the small image covers two by two; its centre lies half a pixel off each.
    np.testing.assert_allclose(small.joints_px, (big.joints_px + 0.5) / 2 - 0.5, atol=1e-6)
    np.testing.assert_array_equal(small.depth_mm[0], numbered[0][1::2, 1::2])


def test_images_cannot_be_made_larger():
    with pytest.raises(InputError, match="--image-size is 12 16"):
        resized(frames(), (12, 16))
