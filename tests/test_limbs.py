"""Limbs as maps and back: what is drawn is found again, and nothing that was not drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxbed.codecs import limbs
from jaxbed.codecs.limbs import Candidates, decode
from jaxbed.codecs.limbs_linking import link, match
from jaxbed.data import depth

encode = jax.jit(limbs.encode, static_argnames=("size", "radius_px", "sigma_px"))
candidates = jax.jit(limbs.candidates, static_argnames=("window_px", "count"))
pair_scores = jax.jit(limbs.pair_scores, static_argnames="samples")

BATCH = 12  # one for all tests, which compile what they call for every shape
SMALL = (48, 64)  # (height, width), with discs of radius 3
FULL = (96, 128)  # with discs of radius 6
FITTED = {
    SMALL: {"window_px": 5, "threshold": 0.5},
    FULL: {"window_px": 11, "threshold": 0.3},
}
RADIUS_PX = {SMALL: 3, FULL: 6}
CASES = pytest.mark.parametrize(
    ("size", "sigma_px"), [(SMALL, None), (SMALL, 9), (FULL, None), (FULL, 18)]
)


def drawn_and_found(joints, size, sigma_px):
    joints = np.asarray(joints, np.float32)
    maps = encode(joints, size, radius_px=RADIUS_PX[size], sigma_px=sigma_px)
    return decode(maps, **FITTED[size])


def errors_px(found, joints):
    """Largest error in x or y of every joint; each must be found."""
    assert np.isfinite(found).all()
    return np.abs(found - joints).max(axis=-1)


def somewhere(rng, size, *, border=0.0, images=BATCH):
    """Joints at least `border` pixels within the image."""
    far = np.array(size[::-1]) - 1 - border
    return rng.uniform(border, far, (images, 12, 2)).astype(np.float32)


# encode


def drawn_by_hand(joints, size, radius, sigma):
    """The maps, and how far every pixel is from changing sides at the rim of a shape."""
    maps, margin = np.zeros((*size, 20)), np.full((*size, 20), np.inf)
    for (row, column), channel in itertools.product(np.ndindex(*size), range(20)):
        pixel = np.array([column, row], float)
        if channel < 12:
            gaps = [radius - np.linalg.norm(pixel - joints[channel])]
            distance = radius - gaps[0]
        else:
            limb, k = divmod(channel - 12, 2)
            a, b = joints[3 * limb + k], joints[3 * limb + k + 1]
            length = np.linalg.norm(b - a)
            along, across = (b - a) / length, np.array([a[1] - b[1], b[0] - a[0]]) / length
            distance = abs((pixel - a) @ across)
            gaps = [radius / 2 - distance, (pixel - a) @ along, (b - pixel) @ along]
        if np.isnan(gaps).any():
            continue
        if min(gaps) >= 0:
            maps[row, column, channel] = np.exp(-(distance**2) / (2 * sigma**2)) if sigma else 1
        margin[row, column, channel] = np.abs(gaps).min()
    return maps, margin


@pytest.mark.parametrize("sigma_px", [None, 2.0, 9.0])
def test_maps_are_discs_and_rectangles(rng, sigma_px):
    joints = somewhere(rng, (20, 26))[0]
    joints[[1, 6]] = np.nan
    want, margin = drawn_by_hand(joints.astype(float), (20, 26), 3, sigma_px)
    got = encode(joints, (20, 26), radius_px=3, sigma_px=sigma_px)
    clear = margin > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_allclose(np.asarray(got)[clear], want[clear], atol=1e-5)


@pytest.mark.parametrize(
    "where", [(np.nan, 5), (5, np.inf), (-np.inf, 5), (-0.6, 5), (5, 47.6), (63.6, 5)]
)
def test_a_missing_joint_leaves_its_map_and_connections_empty(rng, where):
    joints = somewhere(rng, SMALL)[0]
    joints[4] = where
    drawn = np.asarray(encode(joints, SMALL, radius_px=3, sigma_px=9.0)).any((0, 1))
    assert np.flatnonzero(~drawn).tolist() == [4, 12 + 2, 12 + 3]


def test_leading_axes_are_drawn_one_by_one(rng):
    joints = somewhere(rng, SMALL, images=6)
    together = encode(joints.reshape(2, 3, 12, 2), SMALL, radius_px=3)
    alone = jnp.stack([encode(one, SMALL, radius_px=3) for one in joints])
    np.testing.assert_allclose(together.reshape(alone.shape), alone, atol=1e-6)


coordinates = st.floats(0, 1, width=32)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, (12, 2), elements=coordinates), st.floats(0, 3))
def test_no_connection_falls_between_pixels(inner, length):
    """Inner joints anywhere in the image, and a limb that may have no length at all."""
    joints = -0.5 + inner * np.array(SMALL[::-1], np.float32)
    joints[1::3] = joints[::3] + length * np.array([0.6, -0.8], np.float32)
    joints = joints.clip(-0.5, np.array(SMALL[::-1]) - 0.5).astype(np.float32)
    drawn = np.asarray(encode(joints, SMALL, radius_px=3)).any((0, 1))
    assert drawn.all()


def test_joints_are_ordered_as_those_of_the_data():
    assert len(depth.JOINTS) == limbs.JOINTS
    assert len(depth.LIMBS) == limbs.LIMBS
    for limb, name in enumerate(depth.LIMBS):
        side, part = name.split("_")
        chain = {"arm": ("shoulder", "elbow", "wrist"), "leg": ("hip", "knee", "ankle")}[part]
        assert depth.JOINTS[3 * limb : 3 * limb + 3] == tuple(f"{side}_{joint}" for joint in chain)


# there and back


@CASES
def test_joints_in_the_image_come_back_within_a_third_of_a_pixel(rng, size, sigma_px):
    joints = somewhere(rng, size, border=RADIUS_PX[size])
    assert errors_px(drawn_and_found(joints, size, sigma_px), joints).max() < 0.3


@CASES
def test_joints_at_the_border_come_back_within_the_limits_that_the_docstring_gives(
    rng, size, sigma_px
):
    far = np.array(size[::-1]) - 1
    joints = somewhere(rng, size, border=-0.5)
    error = errors_px(drawn_and_found(joints, size, sigma_px), joints)
    cut = (np.minimum(joints, far - joints) < RADIUS_PX[size]).sum(axis=-1)
    assert error[cut == 1].max() < 0.5
    assert error[cut == 2].max() < 0.75


@settings(max_examples=20, deadline=None)
@given(
    arrays.arrays(np.float32, (BATCH, 12, 2), elements=coordinates),
    arrays.arrays(bool, (BATCH, 12), elements=st.booleans()),
    st.sampled_from([None, 9.0]),
)
def test_exactly_the_whole_limbs_come_back(places, hidden, sigma_px):
    joints = 3 + places * (np.array(SMALL[::-1], np.float32) - 7)
    joints[hidden] = np.nan
    found = drawn_and_found(joints, SMALL, sigma_px).reshape(BATCH, 4, 3, 2)
    joints = joints.reshape(found.shape)
    whole = np.isfinite(joints).all((2, 3))
    assert np.isnan(found[~whole]).all()
    np.testing.assert_allclose(found[whole], joints[whole], atol=0.3)


@pytest.mark.parametrize("sigma_px", [None, 18])
def test_two_joints_of_a_limb_may_be_two_pixels_apart(sigma_px):
    angles = np.linspace(0, 2 * np.pi, BATCH, endpoint=False)
    step = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    joints = np.tile(np.array([[60.3, 40.7]]), (BATCH, 12, 1))
    joints[:, 1::3] += step[:, None]
    joints[:, 2::3] += step[:, None] + (15, 0)
    assert errors_px(drawn_and_found(joints, FULL, sigma_px), joints).max() < 0.2


def test_noise_moves_joints_little(rng):
    joints = somewhere(rng, FULL, border=6)
    maps = 0.8 * encode(joints, FULL, radius_px=6, sigma_px=18)
    noisy = maps + 0.15 * rng.normal(size=maps.shape).astype(np.float32)
    assert errors_px(decode(noisy), joints).mean() < 0.3


def test_an_image_is_read_alike_alone_and_among_others(rng):
    joints = somewhere(rng, SMALL)
    joints[1, 4] = np.nan
    maps = encode(joints, SMALL, radius_px=3)
    together = decode(maps, **FITTED[SMALL])
    alone = np.concatenate([decode(maps[i : i + 1], **FITTED[SMALL]) for i in range(3)])
    np.testing.assert_array_equal(together[:3], alone)


def test_decoding_is_compiled_once_per_shape(rng):
    joints = somewhere(rng, SMALL)
    limbs._find.clear_cache()
    for sigma_px, threshold in [(None, 0.5), (9, 0.2)]:
        maps = encode(joints, SMALL, radius_px=3, sigma_px=sigma_px)
        decode(maps, window_px=5, threshold=threshold)
    decode(jnp.asarray(rng.random(maps.shape), jnp.float32), window_px=5)
    assert limbs._find._cache_size() == 1


# candidates


def find(maps):
    """Candidates in the maps f32[n,h,w], n <= 12; the maps of other joints are empty."""
    joint_maps = np.zeros((1, *maps.shape[1:], 12), np.float32)
    joint_maps[0, ..., : len(maps)] = np.moveaxis(maps, 0, -1)
    found = candidates(joint_maps, window_px=5, threshold=0.5, count=4)
    return np.asarray(found.xy_px)[0, : len(maps)], np.asarray(found.score)[0, : len(maps)]


def test_several_peaks_of_a_joint_come_best_first_and_a_window_apart(rng):
    maps = np.zeros((1, *SMALL))
    maps[0, 10:15, 20:25] = 0.8
    maps[0, 10:15, 40:45] = 1.0
    maps[0, 10:15, 46:48] = 0.7  # beside the one before: part of its flank
    xy, score = find(maps)
    np.testing.assert_allclose(xy[0, 1], (22, 12))
    assert abs(xy[0, 0] - (42, 12)).max() < 0.5
    assert score[0, 0] > score[0, 1] > 0
    assert np.isnan(xy[0, 2:]).all()
    assert (score[0, 2:] == -np.inf).all()


def test_of_equal_places_side_by_side_one_is_taken():
    maps = np.stack([np.ones(SMALL), np.zeros(SMALL), np.full(SMALL, 0.5)])
    xy, score = find(maps)
    assert np.isfinite(xy[0]).all()
    for a, b in itertools.combinations(xy[0], 2):
        assert np.abs(a - b).max() >= 5 - 1  # each may move half a pixel
    assert np.isnan(xy[1:]).all()
    assert (score[1:] == -np.inf).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_windows_with_a_value_that_is_not_finite_are_no_candidates(value):
    maps = np.zeros((2, *SMALL))
    maps[:, 10:15, 20:25] = 1
    maps[:, 30:35, 40:45] = 1
    maps[0, 12, 22] = value
    xy, _ = find(maps)
    np.testing.assert_allclose(xy[0, 0], (42, 32))
    assert np.isnan(xy[0, 1:]).all()
    assert np.isfinite(xy[1, :2]).all()


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="window_px must be odd, got 4"):
        candidates(jnp.zeros((1, 8, 8, 12)), window_px=4, threshold=0.5, count=1)


# pair scores


def interpolated(image, x, y):
    x, y = (np.clip(v, 0, n - 1) for v, n in ((x, image.shape[1]), (y, image.shape[0])))
    left, top = min(int(x), image.shape[1] - 2), min(int(y), image.shape[0] - 2)
    x, y = x - left, y - top
    (a, b), (c, d) = image[top : top + 2, left : left + 2]
    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)


def test_a_pair_scores_the_mean_of_its_connection_between_its_joints(rng):
    maps = rng.random((2, 10, 14, 8)).astype(np.float32)
    xy = rng.uniform(-0.5, (13.5, 9.5), (2, 12, 3, 2)).astype(np.float32)
    xy[1, 4, 2] = np.nan
    got = pair_scores(Candidates(xy, np.ones((2, 12, 3))), maps, samples=5)
    for b, c, i, j in np.ndindex(2, 8, 3, 3):
        inner = xy[b, 3 * (c // 2) + c % 2, i]
        outer = xy[b, 3 * (c // 2) + c % 2 + 1, j]
        want = -np.inf
        if np.isfinite([inner, outer]).all():
            points = [inner + (s + 0.5) / 5 * (outer - inner) for s in range(5)]
            want = np.mean([interpolated(maps[b, ..., c], *point) for point in points])
        np.testing.assert_allclose(got[b, c, i, j], want, atol=1e-5)


def test_a_connection_map_that_is_not_finite_supports_no_pair():
    maps = np.ones((2, 10, 14, 8), np.float32)
    maps[0, ..., 3] = np.nan
    found = Candidates(np.full((2, 12, 3, 2), 4.0, np.float32), np.ones((2, 12, 3)))
    supported = np.isfinite(pair_scores(found, maps, samples=5)).all((2, 3))
    assert np.argwhere(~supported).tolist() == [[0, 3]]


# linking

FORBIDDEN = -np.inf


def test_matching_weighs_all_pairs_where_greed_takes_the_best_first():
    upper = np.array([[0.9, 0.8], [0.8, FORBIDDEN]])
    lower = np.array([[0.5, FORBIDDEN], [FORBIDDEN, 0.5]])
    # Greedily 0 - 0 is taken, which leaves no chain for the inner joint 1.
    assert sorted(match(upper, lower)) == [
        (pytest.approx(1.3), [0, 1, 1]),
        (pytest.approx(1.3), [1, 0, 0]),
    ]


def test_both_connections_of_a_limb_agree_on_the_joint_between_them():
    """Matched apart, the upper connection would take one middle joint, the lower the other."""
    upper = np.array([[0.9, 0.8], [FORBIDDEN, FORBIDDEN]])
    lower = np.array([[0.1, FORBIDDEN], [0.9, FORBIDDEN]])
    assert match(upper, lower) == [(pytest.approx(1.7), [0, 1, 0])]


weight = st.one_of(st.just(FORBIDDEN), st.floats(0.0625, 1, width=32))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3).flatmap(lambda k: arrays.arrays(np.float32, (2, k, k), elements=weight)))
def test_no_set_of_separate_chains_weighs_more_than_the_matching(weights):
    upper, lower = weights
    count = len(upper)
    chains = match(upper, lower)
    for joints in zip(*(chosen for _, chosen in chains), strict=True):
        assert len(set(joints)) == len(joints)
    for total, (i, j, k) in chains:
        assert total == pytest.approx(upper[i, j] + lower[j, k])
        assert np.isfinite(total)

    best = 0.0
    order = list(itertools.permutations(range(count)))
    for middles, outers in itertools.product(order, order):
        totals = [
            upper[i, j] + lower[j, k]
            for i, (j, k) in enumerate(zip(middles, outers, strict=True))
            if np.isfinite(upper[i, j] + lower[j, k])
        ]
        best = max(best, sum(totals))
    assert sum(total for total, _ in chains) == pytest.approx(best, rel=1e-5)


def test_the_best_chain_of_candidates_becomes_the_limb():
    xy = np.arange(48, dtype=np.float32).reshape(1, 12, 2, 2)
    scores = np.full((1, 8, 2, 2), 0.1)
    scores[0, :2] = [[[0.2, 0.9], [0.6, 0.2]], [[0.6, 0.2], [0.2, 0.8]]]  # limb 0: two chains
    scores[0, 2] = 0.9  # limb 1: no lower connection
    joints, limb_scores = link(xy, scores, threshold=0.3)
    np.testing.assert_array_equal(joints[0, :3], [xy[0, 0, 0], xy[0, 1, 1], xy[0, 2, 1]])
    assert np.isnan(joints[0, 3:]).all()
    np.testing.assert_allclose(limb_scores, [[0.85, 0, 0, 0]])
