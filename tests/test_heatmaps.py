"""Joints as heatmaps and back: what is drawn is found again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxbed.codecs.heatmaps import decode, encode

SIZE, STRIDE = (12, 16), 4  # heatmaps; the image is 48 high and 64 wide
BATCH, JOINTS = 3, 5  # one for all tests, which compile what they call for every shape
REFINEMENTS = pytest.mark.parametrize("refine", ["none", "quarter", "taylor"])

unit = arrays.arrays(np.float32, (BATCH, JOINTS, 2), elements=st.floats(0, 1, width=32))


def within_image(unit, *, border_px=0.0):
    """Moves numbers between 0 and 1 to places at least so far inside the image."""
    width_height = np.array(SIZE[::-1], np.float32) * STRIDE
    return -0.5 + border_px + unit * (width_height - 2 * border_px)


def drawn_by_hand(joints, sigma):
    maps, weights = np.zeros((BATCH, *SIZE, JOINTS)), np.zeros((BATCH, JOINTS))
    for b, j in np.ndindex(BATCH, JOINTS):
        x, y = joints[b, j]
        if not (-0.5 <= x <= SIZE[1] * STRIDE - 0.5 and -0.5 <= y <= SIZE[0] * STRIDE - 0.5):
            continue
        weights[b, j] = 1
        for row, column in np.ndindex(*SIZE):
            # The centre of the pixels 4i to 4i + 3 is 4i + 1.5; distances in heatmap pixels.
            away = [(column * STRIDE + 1.5 - x) / STRIDE, (row * STRIDE + 1.5 - y) / STRIDE]
            maps[b, row, column, j] = np.exp(-np.square(away).sum() / (2 * sigma**2))
    return maps, weights


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_heatmaps_are_gaussians_of_the_joints_that_can_be_seen(rng, sigma):
    joints = within_image(rng.random((BATCH, JOINTS, 2)).astype(np.float32))
    joints[0, 1] = np.nan
    joints[1, 2, 0] = np.inf
    joints[1, 3] = (-0.6, 20)
    joints[2, 4] = (20, SIZE[0] * STRIDE - 0.4)
    got = encode(joints, SIZE, stride=STRIDE, sigma_px=sigma)
    maps, weights = drawn_by_hand(joints, sigma)
    np.testing.assert_allclose(got.heatmaps, maps, atol=1e-6)
    np.testing.assert_array_equal(got.weights, weights)
    assert weights.sum() == BATCH * JOINTS - 4


def test_gradients_of_a_loss_ignore_missing_joints(rng):
    joints = within_image(rng.random((BATCH, JOINTS, 2)).astype(np.float32))
    joints[0, 1] = np.nan
    targets = encode(joints, SIZE, stride=STRIDE)

    def loss(maps):
        error = jnp.square(maps - targets.heatmaps).mean((1, 2))
        return jnp.mean(error * targets.weights)

    gradient = np.asarray(jax.grad(loss)(jnp.ones((BATCH, *SIZE, JOINTS))))
    assert np.isfinite(gradient).all()
    assert not gradient[0, ..., 1].any()
    assert gradient[0, ..., 0].any()


def decoded_by_hand(maps, refine):
    """Place and score of one joint f32[h,w], in heatmap pixels."""
    height, width = maps.shape
    row, column = np.unravel_index(maps.argmax(), maps.shape)
    place = np.array([column, row], float)
    for axis, (at, end) in enumerate(((column, width), (row, height))):
        if not 0 < at < end - 1 or refine == "none":
            continue
        line = maps[row] if axis == 0 else maps[:, column]
        before, peak, after = (float(v) for v in line[at - 1 : at + 2])
        if refine == "quarter":
            place[axis] += 0.25 * np.sign(after - before)
        else:
            b, p, a = np.log(np.maximum([before / peak, 1, after / peak], 1e-6))
            shift = (b - a) / (2 * (b - 2 * p + a)) if b - 2 * p + a else 0
            place[axis] += np.clip(shift, -0.5, 0.5)
    return place, maps.max()


@REFINEMENTS
def test_any_heatmap_is_read_as_by_hand(rng, refine):
    maps = rng.normal(size=(BATCH, *SIZE, JOINTS)).astype(np.float32)
    maps[0, 0, 3, 0] = maps[0, 5, 0, 1] = maps[1, -1, -1, 2] = maps[1, 4, -1, 3] = 9  # borders
    maps[2, 4:6, 7:9, 4] = 9  # equal places side by side
    maps[0, ..., 4] = 0
    maps[0, 5, 5, 4] = 9  # a peak alone
    got = decode(maps, stride=STRIDE, refine=refine)
    for b, j in np.ndindex(BATCH, JOINTS):
        place, score = decoded_by_hand(maps[b, ..., j], refine)
        np.testing.assert_allclose(got.joints_px[b, j], (place + 0.5) * STRIDE - 0.5, atol=1e-3)
        assert got.scores[b, j] == score


@settings(max_examples=25, deadline=None)
@given(unit, st.sampled_from([("none", 0.5), ("quarter", 0.25), ("taylor", 1e-3)]))
def test_joints_come_back_within_the_limits_that_the_docstring_gives(unit, case):
    refine, limit = case
    # In the outermost heatmap pixels nothing is refined.
    joints = within_image(unit, border_px=1.01 * STRIDE)
    maps = encode(joints, SIZE, stride=STRIDE, sigma_px=1.5).heatmaps
    found = decode(maps, stride=STRIDE, refine=refine)
    assert np.abs(found.joints_px - joints).max() <= limit * STRIDE + 1e-3


@settings(max_examples=25, deadline=None)
@given(unit, st.sampled_from(["none", "quarter", "taylor"]))
def test_joints_at_the_border_come_back_within_half_a_heatmap_pixel(unit, refine):
    joints = within_image(np.round(unit))  # corners
    maps = encode(joints, SIZE, stride=STRIDE, sigma_px=1.5).heatmaps
    found = decode(maps, stride=STRIDE, refine=refine)
    assert np.abs(found.joints_px - joints).max() <= 0.5 * STRIDE + 1e-3


@REFINEMENTS
def test_a_heatmap_without_a_peak_is_a_missing_joint(rng, refine):
    maps = rng.random((BATCH, *SIZE, JOINTS)).astype(np.float32)
    maps[0, ..., 0] = 0
    maps[0, ..., 1] *= -1
    maps[0, 3, 3, 2] = np.nan
    found = decode(maps, stride=STRIDE, refine=refine)
    missing = np.isnan(np.asarray(found.joints_px)).all(-1)
    assert missing[0].tolist() == [True, True, True, False, False]
    assert np.isfinite(found.joints_px[1:]).all()


def test_a_missing_joint_comes_back_missing():
    joints = np.full((BATCH, JOINTS, 2), np.nan, np.float32)
    targets = encode(joints, SIZE, stride=STRIDE)
    assert not np.any(targets.weights)
    assert np.isnan(decode(targets.heatmaps, stride=STRIDE).joints_px).all()


def test_another_refinement_is_refused():
    with pytest.raises(ValueError, match="got 'half'"):
        decode(jnp.ones((1, 4, 4, 1)), refine="half")
