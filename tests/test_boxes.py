"""Anchors, offsets, matching and suppression of boxes, against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxbed.codecs import boxes
from jaxbed.codecs.boxes import LIGHT_SSD300, RETINAFACE, RETINAFACE_EDGE, SSD300, Level

NOWHERE = np.full(4, np.nan, np.float32)


# anchors


@pytest.mark.parametrize(
    ("levels", "size", "count"),
    [
        (RETINAFACE, (640, 640), 16_800),
        (RETINAFACE_EDGE, (640, 640), 16_800),
        (RETINAFACE, (33, 1), 2 * (5 + 3 + 2)),
        (SSD300, (300, 300), 8_732),
        (LIGHT_SSD300, (300, 300), 8_892),
    ],
)
def test_there_are_as_many_anchors_as_published(levels, size, count):
    laid = boxes.anchors_of(levels, size)
    assert laid.shape == (count, 4) and laid.dtype == np.float32


def test_anchors_stand_in_the_middle_of_their_pixels_row_by_row():
    levels = (Level(((10, 10), (20, 5)), 8), Level(((40, 41),), 16, step_px=30))
    want = []
    for y in (4, 12, 20):
        for x in (4, 12):
            want += [(x, y, 10, 10), (x, y, 20, 5)]
    want += [(15, 15, 40, 41), (15, 45, 40, 41)]
    np.testing.assert_array_equal(boxes.anchors_of(levels, (17, 16)), want)


def test_the_sizes_are_the_published_ones():
    for levels, sides in (
        (RETINAFACE, [16, 32, 64, 128, 256, 512]),
        (RETINAFACE_EDGE, [10, 20, 32, 64, 128, 256]),
    ):
        laid = boxes.anchors_of(levels, (64, 64))
        assert list(dict.fromkeys(laid[:, 2])) == sides
        np.testing.assert_array_equal(laid[:, 2], laid[:, 3])
    laid = boxes.anchors_of(SSD300, (300, 300))
    np.testing.assert_allclose(
        laid[38 * 38 * 4 :][:6],  # the first place of the second map
        [
            (8, 8, 60, 60),
            (8, 8, 81.608, 81.608),
            (8, 8, 84.853, 42.426),
            (8, 8, 42.426, 84.853),
            (8, 8, 103.923, 34.641),
            (8, 8, 34.641, 103.923),
        ],
        atol=1e-3,
    )
    np.testing.assert_allclose(laid[-4:, :2], 150)
    assert laid[:, 2:].min() == pytest.approx(30 / 2**0.5)
    light = boxes.anchors_of(LIGHT_SSD300, (300, 300))
    np.testing.assert_array_equal(light[:-200], laid[: len(light) - 200])
    np.testing.assert_array_equal(light[-1, :2], 4.5 * 300)


# offsets

place, length = st.floats(-500, 500, width=32), st.floats(1, 500, width=32)
box = st.tuples(place, place, length, length).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
anchor = st.tuples(place, place, length, length)


@settings(max_examples=50, deadline=None)
@given(box, anchor, arrays.arrays(np.float32, (5, 2), elements=place))
def test_boxes_and_points_survive_their_offsets(box, anchor, points):
    box, anchor = np.float32([box]), np.float32([anchor])
    again = boxes.decode(boxes.encode(box, anchor), anchor)
    np.testing.assert_allclose(again, box, atol=5e-3)
    again = boxes.decode_points(boxes.encode_points(points[None], anchor), anchor)
    np.testing.assert_allclose(again[0], points, atol=5e-3)


def test_offsets_are_tenths_of_the_size_and_fifths_of_its_logarithm():
    anchor = np.float32([[50, 60, 20, 40]])
    box = boxes.decode(np.float32([[1, -1, 0, 5 * np.log(2)]]), anchor)
    np.testing.assert_allclose(box, [[42, 16, 62, 96]], rtol=1e-6)
    points = boxes.decode_points(np.float32([[1, 1, -2, 0]]), anchor)
    np.testing.assert_allclose(points, [[[52, 64], [46, 60]]], rtol=1e-6)
    np.testing.assert_array_equal(boxes.corners(anchor), [[40, 40, 60, 80]])
    np.testing.assert_array_equal(boxes.encode(boxes.corners(anchor), anchor), np.zeros((1, 4)))


# overlap


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.int8, (2, 2, 2), elements=st.integers(0, 9)))
def test_overlap_is_shared_pixels_by_all_pixels(ends):
    """Oracle: boxes at whole pixels, their pixels counted."""
    ends = np.sort(ends, axis=1)
    a, b = (np.float32([[*low, *high]]) for low, high in ends)
    drawn = np.zeros((2, 9, 9), bool)
    for grid, (low, high) in zip(drawn, ends, strict=True):
        grid[low[1] : high[1], low[0] : high[0]] = True
    want = drawn.all(0).sum() / max(drawn.any(0).sum(), 1)
    assert boxes.iou(a, b)[0, 0] == pytest.approx(want, abs=1e-6)
    assert boxes.iou(a, b, np)[0, 0] == pytest.approx(want, abs=1e-6)


def test_a_missing_box_has_no_overlap():
    assert np.isnan(boxes.iou(np.float32([[0, 0, 1, 1]]), NOWHERE[None])).all()


# matching


def matched(faces, anchors, threshold=0.35, forced=0.2):
    found = boxes.match(
        jnp.float32(faces), jnp.float32(anchors), threshold=threshold, forced_threshold=forced
    )
    return np.where(found.positive, found.face, -1)


def matched_by_loops(faces, anchors, threshold, forced):
    overlap = boxes.iou(boxes.corners(anchors), faces, np)
    faces = range(len(faces))
    there = [g for g in faces if np.isfinite(overlap[:, g]).all() and overlap[:, g].max() > 0]
    face, claim = np.full(len(anchors), -1), np.full(len(anchors), -1.0)
    for a, row in enumerate(overlap):
        best = max(there, key=lambda g, row=row: row[g], default=None)
        if best is not None and row[best] >= threshold:
            face[a] = best
    for g in there:
        a = overlap[:, g].argmax()
        if overlap[a, g] >= forced and overlap[a, g] > claim[a]:
            face[a], claim[a] = g, overlap[a, g]
    return face


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thresholds", [(0.35, 0.2), (0.5, 0.0)])
def test_matching_is_what_loops_find(seed, thresholds):
    rng = np.random.default_rng(seed)
    anchors = boxes.anchors_of(RETINAFACE_EDGE, (96, 128))
    low = rng.uniform(-10, 100, (7, 2))
    faces = np.concatenate([low, low + rng.uniform(2, 60, (7, 2))], 1).astype(np.float32)
    faces[4] = faces[2] + 0.5  # two that want the same anchors
    faces[5], faces[6] = NOWHERE, faces[0, [0, 1, 0, 3]]
    want = matched_by_loops(faces, anchors, *thresholds)
    np.testing.assert_array_equal(matched(faces, anchors, *thresholds), want)
    assert {0, 1, 2, 3, 4} >= set(want) - {-1} and len(set(want)) > 3


def test_a_face_gets_its_best_anchor_unless_that_is_too_bad():
    anchors = [[50, 50, 40, 40], [90, 50, 40, 40]]
    small = [40, 40, 60, 60]  # a quarter of the first anchor
    np.testing.assert_array_equal(matched([small], anchors), [0, -1])
    np.testing.assert_array_equal(matched([small], anchors, forced=0.3), [-1, -1])
    np.testing.assert_array_equal(matched([[500, 500, 510, 510]], anchors, forced=0.0), [-1, -1])


def test_an_anchor_that_two_faces_want_goes_to_the_one_it_overlaps_most():
    anchors, faces = [[50, 50, 40, 40]], [[30, 30, 70, 60], [30, 30, 70, 65], [30, 30, 70, 55]]
    np.testing.assert_array_equal(matched(faces, anchors), [1])


def test_without_faces_no_anchor_is_positive():
    anchors = boxes.anchors_of(RETINAFACE, (64, 64))
    assert (matched([NOWHERE, [5, 5, 5, 9], [9, 9, 5, 5], [1, 1, np.inf, 9]], anchors) == -1).all()


# suppression

suppress = functools.partial(jax.jit, static_argnames=("candidates", "count"))(boxes.nms)


def greedy(found, scores, iou_threshold, score_threshold=-np.inf):
    """Plain: the best of those left, and away with all it overlaps."""
    overlap = boxes.iou(found, found, np)
    left = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > score_threshold]
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if not overlap[best, i] > np.float32(iou_threshold)]
    return kept


def crowd(seed, count=150):
    """Boxes in clusters, of which many overlap; some have the same score."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2)) + 10 * rng.integers(0, 3, (count, 2))
    found = np.concatenate([low, low + rng.uniform(5, 40, (count, 2))], axis=1)
    return found.astype(np.float32), rng.integers(0, 60, count).astype(np.float32) / 60


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.4, 0.7, 1.0])
def test_suppression_keeps_what_greed_keeps(seed, threshold):
    found, scores = crowd(seed)
    kept = suppress(found, scores, iou_threshold=threshold, score_threshold=0.05)
    index = np.asarray(kept.index)[np.asarray(kept.valid)]
    assert index.tolist() == greedy(found, scores, threshold, 0.05)
    assert kept.valid.shape == (150,) and not kept.valid[len(index) :].any()


def test_a_long_chain_of_overlaps_is_settled():
    """Each overlaps the next too much, so every second one stays."""
    left = 2.0 * np.arange(40)
    found = np.stack([left, np.zeros(40), left + 10, np.full(40, 10.0)], 1).astype(np.float32)
    kept = suppress(found, np.linspace(1, 0.5, 40, dtype=np.float32), iou_threshold=0.6)
    assert np.asarray(kept.index)[kept.valid].tolist() == list(range(0, 40, 2))


def test_limits_keep_the_first_of_what_greed_keeps():
    found, scores = crowd(7)
    everything = greedy(found, scores, 0.3)
    kept = suppress(found, scores, iou_threshold=0.3, count=5)
    assert kept.index.tolist() == everything[:5] and kept.valid.all()
    few = suppress(found, scores, iou_threshold=0.3, candidates=30)
    taking_part = set(np.argsort(-scores, kind="stable")[:30].tolist())
    assert few.index[few.valid].tolist() == [i for i in everything if i in taking_part]


def test_what_is_not_finite_is_not_kept():
    found, scores = crowd(3, 8)
    found[1, 2], found[2, 0], scores[3], scores[4] = np.nan, -np.inf, np.nan, -np.inf
    kept = suppress(found, scores, iou_threshold=1.0)
    assert sorted(np.asarray(kept.index)[kept.valid].tolist()) == [0, 5, 6, 7]


def test_images_of_a_batch_are_suppressed_apart():
    found, scores = (np.stack(part) for part in zip(crowd(1), crowd(2), strict=True))
    kept = jax.vmap(functools.partial(boxes.nms, iou_threshold=0.4))(found, scores)
    for i in range(2):
        index = np.asarray(kept.index[i])[kept.valid[i]]
        assert index.tolist() == greedy(found[i], scores[i], 0.4)
