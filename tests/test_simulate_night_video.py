"""Night videos follow their script, and their files show what they are named after."""

import itertools

import cv2
import numpy as np
import pytest

from jaxbed.data.night import POSTURES
from jaxbed.errors import InputError
from jaxbed.simulate.body import forward_kinematics, sample_subjects
from jaxbed.simulate.infrared import IDEAL
from jaxbed.simulate.night_video import (
    Phase,
    sample_schedule,
    simulate_night_video,
    write_night_videos,
)
from jaxbed.simulate.skeleton import FREEDOM_INDEX, JOINTS
from jaxbed.simulate.sleeper import lie_in_bed, turn_over

ROLL = FREEDOM_INDEX["roll"]
SMALL = {"size": (36, 48), "frame_hz": 8.0}
SCHEDULE = [
    Phase("supine", False, 0.0, 1.0),
    Phase("left", False, 2.0, 1.5),
    Phase("left", True, 1.5, 1.0),
    Phase("prone", True, 2.0, 1.0),
]


@pytest.fixture(scope="module")
def video():
    return list(simulate_night_video(schedule=SCHEDULE, sensor=IDEAL, seed=4, **SMALL))


def changes(frames):
    images = np.array([frame.image for frame in frames], int)
    return np.abs(np.diff(images, axis=0)).mean(axis=(1, 2))


def test_the_truth_follows_the_script(video):
    assert len(video) == 80 and video[0].image.shape == (36, 48)
    assert video[0].image.dtype == np.uint8
    time = np.array([frame.time_s for frame in video])
    np.testing.assert_allclose(time, np.arange(80) / 8)
    moving = (time >= 1) & (time < 3) | (time >= 4.5) & (time < 6) | (time >= 7) & (time < 9)
    np.testing.assert_array_equal([frame.moving for frame in video], moving)
    posture = np.select([time < 2, time < 8], [0, 2], 1)
    np.testing.assert_array_equal([frame.posture for frame in video], posture)
    np.testing.assert_array_equal([frame.blanket for frame in video], time >= 5.25)


def test_pictures_change_when_something_moves_and_hardly_otherwise(video):
    change = changes(video)
    moving = np.array([frame.moving for frame in video])
    still = ~moving[1:] & ~moving[:-1]
    assert change[still].max() < 0.5
    assert np.median(change[moving[1:] & moving[:-1]]) > 0.7
    # From the last moving frame into stillness the picture does not jump.
    assert change[moving[:-1] & ~moving[1:]].max() < 3


def test_breathing_is_seen_when_the_noise_is_not():
    frames = simulate_night_video(
        schedule=SCHEDULE[:1], seconds=4, sensor=IDEAL, size=(120, 160), frame_hz=4
    )
    images = np.array([frame.image for frame in frames], int)
    swing = np.ptp(images, axis=0)
    assert swing.max() >= 2 and np.mean(swing > 2) < 0.05


def test_a_longer_video_begins_with_the_shorter_one_and_seeds_differ():
    def images(**changed):
        wanted = {"seconds": 1.5, "seed": 1, **SMALL, **changed}
        return np.array([frame.image for frame in simulate_night_video(**wanted)])

    short = images()
    assert len(short) == 12
    np.testing.assert_array_equal(short, images(seconds=2.5)[:12])
    for changed in ({"seed": 2}, {"subject": 1}, {"recording": 1}, {"camera": "side"}):
        assert not np.array_equal(short, images(**changed))


def test_a_night_is_made_frame_by_frame():
    frames = simulate_night_video(seconds=1e9, **SMALL)
    assert len(list(itertools.islice(frames, 3))) == 3


def test_the_last_phase_lasts_until_the_end():
    frames = list(simulate_night_video(schedule=SCHEDULE[:1], seconds=3, **SMALL))
    assert len(frames) == 24 and not any(frame.moving for frame in frames)


def test_drawn_schedules_change_something_in_every_phase(rng):
    phases = list(itertools.islice(sample_schedule(rng), 200))
    assert phases[0].turn_s == 0 and all(1.5 <= phase.turn_s <= 3 for phase in phases[1:])
    assert all(4 <= phase.still_s <= 30 for phase in phases)
    for before, after in itertools.pairwise(phases):
        assert before.posture != after.posture or before.blanket != after.blanket
    assert {phase.posture for phase in phases} == set(POSTURES)
    assert 0.2 < np.mean([phase.blanket for phase in phases]) < 0.8


@pytest.mark.parametrize(
    ("first", "last", "degrees"),
    [("supine", "left", 90), ("left", "right", 180), ("right", "prone", 90), ("prone", "left", 90)],
)
def test_turns_are_smooth_join_their_ends_and_take_the_shorter_way(rng, first, last, degrees):
    body = sample_subjects(rng, 1)
    rests = [lie_in_bed([rng], body, [posture], np.array([2.0])) for posture in (first, last)]
    angles, root = turn_over(body, *rests, np.linspace(0, 1, 61))
    path = forward_kinematics(body[np.zeros(61, int)], angles, root).joints_m
    for at, rest in ((0, rests[0]), (-1, rests[1])):
        expected = forward_kinematics(body, rest.angles, rest.root_m).joints_m[0]
        np.testing.assert_allclose(path[at], expected, atol=1e-6)
    assert abs(np.degrees(angles[-1] - angles[0])[ROLL]) == pytest.approx(degrees, abs=75)
    step = np.linalg.norm(np.diff(path, axis=0), axis=-1)
    assert 0.005 < step.max() < 0.25 and step[[0, -1]].max() < 0.01
    trunk = path[:, [JOINTS.index(name) for name in ("left_hip", "right_hip", "neck")], 2]
    assert trunk.min() > -0.1 and path[..., 2].max() < 0.9


def test_files_show_a_turn_into_what_they_are_named_after(tmp_path):
    settings = {"still_s": (0.5, 1.0), "frame_hz": 4.0, "size": (48, 64), "cameras": ("side",)}
    paths = write_night_videos(tmp_path, subjects=1, clips=1, seed=3, **settings)
    names = {str(path.relative_to(tmp_path)) for path in paths}
    assert names == {f"sim-000/{p}/{b}_00.avi" for p in POSTURES for b in ("on", "off")}
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*paths, tmp_path / "turns.csv"}
    for path in paths[:3]:
        video = cv2.VideoCapture(str(path))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(4)
        frames = []
        while (read := video.read())[0]:
            frames.append(read[1][..., 0].astype(int))
        assert 9 <= len(frames) <= 20 and frames[0].shape == (48, 64)
        turned = np.abs(frames[-1] - frames[0])
        calm = np.abs(frames[-1] - frames[-2])
        assert np.mean(turned > 40) > 2 * np.mean(calm > 40) + 0.002

    again = write_night_videos(tmp_path / "again", subjects=1, clips=1, seed=3, **settings)
    assert [path.read_bytes() for path in paths[:2]] == [path.read_bytes() for path in again[:2]]


def test_a_file_in_the_way_is_told_by_name(tmp_path):
    (tmp_path / "sim-000" / "supine").mkdir(parents=True)
    (tmp_path / "sim-000" / "supine" / ".on_00.avi").mkdir()
    with pytest.raises(InputError, match="on_00.avi"):
        write_night_videos(tmp_path, subjects=1, clips=1, size=(24, 32), frame_hz=2)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "length"),
        ({"seconds": 0}, "positive"),
        ({"seconds": 1, "frame_hz": 0}, "positive"),
        ({"seconds": 1, "camera": "ceiling"}, "cameras"),
        ({"seconds": 1, "size": (0, 5)}, "size"),
        ({"schedule": []}, "phase"),
        ({"schedule": [Phase("sitting", False, 0, 1)]}, "posture"),
        ({"schedule": [Phase("supine", False, 1, 1)]}, "first phase"),
        ({"schedule": [Phase("supine", False, 0, 1), Phase("left", False, 0, 1)]}, "first phase"),
        ({"schedule": [Phase("supine", False, 0, -1)]}, "stillness"),
    ],
)
def test_senseless_videos_are_refused_at_once(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_night_video(**wrong)


@pytest.mark.parametrize("wrong", [{"subjects": 0}, {"clips": 0}, {"still_s": (2, 1)}])
def test_senseless_files_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        write_night_videos(tmp_path, **{"subjects": 1, **wrong})
