"""Outlines of body parts, and what lies in them."""

import cv2
import numpy as np
import pytest

from jaxbed.data.body_parts import PARTS, Outline, part_at, read_outlines, write_outlines
from jaxbed.errors import InputError


def rectangle(part, left, top, right, bottom):
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return Outline("2", "left1", part, np.array(corners, np.float32))


def test_a_point_lies_in_the_smallest_outline_around_it():
    outlines = [rectangle("upper_arms", 30, 40, 50, 80), rectangle("torso", 0, 0, 100, 200)]
    points = np.array([[40, 60], [60, 60], [60, 201], [-1, 10], [np.nan, 60]], np.float32)
    expected = [PARTS.index("upper_arms"), PARTS.index("torso"), -1, -1, -1]
    assert part_at(points, outlines).tolist() == expected
    assert part_at(points, outlines[::-1]).tolist() == expected
    assert part_at(points, []).tolist() == [-1] * 5
    assert part_at(points[:0], outlines).shape == (0,)


def test_insides_are_those_that_opencv_finds(rng):
    corners = rng.uniform(0, 100, (9, 2)).astype(np.float32)
    angle = np.argsort(np.arctan2(*(corners - corners.mean(0)).T))
    star = Outline("", "left1", "head", corners[angle])
    points = rng.uniform(-10, 110, (500, 2)).astype(np.float32)
    expected = [cv2.pointPolygonTest(star.corners_mm, p.tolist(), False) > 0 for p in points]
    assert 50 < sum(expected) < 450
    np.testing.assert_array_equal(part_at(points, [star]) == 0, expected)


def test_outlines_are_read_as_they_were_written(tmp_path):
    outlines = [rectangle("head", 0.5, 1, 2, 3.25), rectangle("torso", -3, 0, 4, 5)]
    write_outlines(outlines, tmp_path)
    for read, written in zip(read_outlines(tmp_path), outlines, strict=True):
        assert (read.subject, read.pose, read.part) == ("2", "left1", written.part)
        np.testing.assert_allclose(read.corners_mm, written.corners_mm, atol=0.051)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"segments": 3}',
        '{"segments": [{"subject": "", "pose": "left1", "part": "tail", "corners_mm": []}]}',
        '{"segments": [{"subject": "", "pose": "left1", "part": "head", "corners_mm": [[1, 2]]}]}',
    ],
)
def test_damaged_outlines_are_refused(tmp_path, text):
    (tmp_path / "segments.json").write_text(text)
    with pytest.raises(InputError, match="does not hold outlines of body parts"):
        read_outlines(tmp_path)
    (tmp_path / "segments.json").unlink()
    with pytest.raises(InputError, match="holds no segments.json; make it with"):
        read_outlines(tmp_path)
