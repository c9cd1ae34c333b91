"""What is true of videos from a crib is read as it was written, and mistakes are told by line."""

import csv

import numpy as np
import pytest

from jaxbed.data.crib import (
    UNKNOWN,
    CribTruth,
    Episode,
    read_frames,
    read_truth,
    truth_paths,
    write_truth,
)
from jaxbed.errors import InputError


def some_frames():
    """Four frames, of which the last one shows no face."""
    rng = np.random.default_rng(0)
    box, points = (np.float32(rng.uniform(0, 99, (4, *shape))) for shape in ((4,), (5, 2)))
    box[3], points[3] = np.nan, np.nan
    covered, face = (0.0, 0.7, 0.2, np.nan), (0, 2, 1, UNKNOWN)
    dangers = ((), ("occluded",), (), ("stomach", "standing"))
    return [
        (0.2 * n, CribTruth(n, face[n], covered[n], box[n], points[n], n % 2, dangers[n]))
        for n in range(4)
    ]


def test_truth_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "some.mp4"
    episodes, frames = [Episode("occluded", 0.2, 0.4)], some_frames()
    write_truth(path, episodes, frames)
    assert read_truth(path) == read_truth(truth_paths(path)[0]) == episodes
    times, back = read_frames(path)
    np.testing.assert_allclose(times, [time_s for time_s, _ in frames])
    for (_, one), other in zip(frames, back, strict=True):
        assert (one.posture, one.face, one.light, one.dangers) == (
            *(other.posture, other.face, other.light, other.dangers),
        )
        np.testing.assert_allclose(one.face_box, other.face_box, atol=0.01)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.01)
        np.testing.assert_allclose(one.covered, other.covered, atol=0.01)


def test_episodes_may_be_written_by_hand_in_any_order(tmp_path):
    path = tmp_path / "mine.episodes.csv"
    path.write_text("kind,onset_s,end_s\nstanding, 7, 9.5\noccluded,0,3\n")
    expected = [Episode("occluded", 0, 3), Episode("standing", 7, 9.5)]
    assert read_truth(tmp_path / "mine.mp4") == expected
    path.write_text("kind,onset_s,end_s\n")
    assert read_truth(path) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("", "first line"),
        ("kind,onset,end\n", "kind,onset_s,end_s"),
        ("kind,onset_s,end_s\nfalling,1,2\n", "line 2: the kind"),
        ("kind,onset_s,end_s\nstanding,1,2\nstanding,one,2\n", "line 3: onset_s"),
        ("kind,onset_s,end_s\nstanding,5,2\n", "ends later"),
        ("kind,onset_s,end_s\nstanding,nan,2\n", "ends later"),
        ("kind,onset_s,end_s\nstanding,5\n", "line 2: expected 3 values"),
        ("kind,onset_s,end_s\nstanding,5,6,7\n", "line 2: expected 3 values"),
    ],
)
def test_bad_episodes_are_told_by_line(tmp_path, text, told):
    path = tmp_path / "a.episodes.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told) as error:
        read_truth(tmp_path / "a.mp4")
    assert "a.episodes.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.episodes.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read"):
        read_truth(path)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("time_s", "0.0", "times must ascend"),
        ("posture", "flying", "posture is one of"),
        ("face", "hidden", "face is one of"),
        ("light", "", "light is one of"),
        ("dangers", "fire", "dangers are some of"),
        ("left", "far", "left must be a number"),
    ],
)
def test_bad_frames_are_told_by_line(tmp_path, column, value, told):
    path = tmp_path / "a.mp4"
    write_truth(path, [], some_frames())
    table = truth_paths(path)[1]
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[3][rows[0].index(column)] = value
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(InputError, match=f"line 4: {told}"):
        read_frames(path)
