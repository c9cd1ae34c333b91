"""Videos follow their script to the frame, and their files tell what is in them."""

import itertools

import cv2
import numpy as np
import pytest

from jaxbed.data.crib import (
    DANGERS,
    FACES,
    LIGHTS,
    POSTURES,
    UNKNOWN,
    Episode,
    read_frames,
    read_truth,
    truth_paths,
)
from jaxbed.errors import InputError
from jaxbed.simulate.crib import sample_subject, sample_surroundings
from jaxbed.simulate.crib_acts import move
from jaxbed.simulate.crib_script import (
    LEADS_S,
    OVERLAYS,
    Script,
    check_script,
    first_frame,
    sample_script,
)
from jaxbed.simulate.crib_video import simulate_crib_video, write_crib_videos
from jaxbed.simulate.infant_poses import Wish, sample_infant_poses
from jaxbed.simulate.night import stream

SMALL = {"frame_hz": 5.0, "size": (96, 128), "seed": 3}
SCRIPT = Script(
    14.0,
    (
        Episode("glitch", 0.4, 0.5),
        Episode("occluded", 2.2, 3.4),
        Episode("pacifier", 4.8, 5.6),
        Episode("hand", 5.8, 6.6),
        Episode("stomach", 8.2, 9.05),
        Episode("shake", 11.0, 12.0),
        Episode("night", 13.0, 14.0),
    ),
)


@pytest.fixture(scope="module")
def video():
    return list(simulate_crib_video(SCRIPT, view="above", **SMALL))


def test_dangers_begin_and_end_to_the_frame(video):
    assert len(video) == 70
    time = np.array([frame.time_s for frame in video])
    np.testing.assert_allclose(time, np.arange(70) / 5)
    occluded = (time >= 2.2 - 1e-9) & (time < 3.4 - 1e-9)
    stomach = (time >= 8.2 - 1e-9) & (time < 9.05)
    for frame, one, other in zip(video, occluded, stomach, strict=True):
        expected = ("occluded",) * int(one) + ("stomach",) * int(other)
        assert frame.truth.dangers == expected, frame.time_s
    assert SCRIPT.dangers(5.0) == [
        Episode("occluded", 2.2, 3.4),
        Episode("stomach", 8.2, 9.2),  # the first frame after 9.05 s
    ]


def test_a_face_is_half_covered_from_onset_to_end(video):
    covered = np.array([frame.truth.covered for frame in video])
    first = np.flatnonzero(covered >= 0.5)[0]
    last = np.flatnonzero(covered[:20] >= 0.5)[-1]
    assert (first, last) == (11, 16)
    assert covered[:5].max() < 0.1 and covered[22:24].max() < 0.1
    state = [frame.truth.face for frame in video]
    assert state[11:17] == [FACES.index("occluded")] * 6
    assert set(state[:4]) == {FACES.index("clear")}
    assert state[25] == FACES.index("pacifier")  # the hand is not there yet


def test_a_hand_passes_in_less_than_a_second_and_is_no_danger(video):
    passing = np.array([f.truth.covered for f in video])[28:40]
    hidden = np.flatnonzero(np.nan_to_num(passing) >= 0.5)
    assert 1 <= len(hidden) < 5
    assert not any(video[28 + n].truth.dangers for n in hidden)


def test_the_infant_turns_over_smoothly(video):
    posture = [POSTURES[frame.truth.posture] for frame in video]
    turned = posture.index("stomach")
    assert 35 <= turned <= 41 and set(posture[turned:46]) == {"stomach"}
    assert set(posture[:turned]) == {"back"} and posture[-1] == "back"
    assert all(frame.truth.face == UNKNOWN for frame in video[41:45])  # seen from above
    change = changes(video)
    # Movement shows, and the picture does not jump when it begins or ends.
    assert change[36:40].min() > 1.5 * change[60:64].max()
    assert change[40:44].max() < change[36:40].max()


def changes(video):
    images = np.array([cv2.blur(frame.image, (9, 9)) for frame in video], int)
    return np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))


def test_a_glitch_is_one_frame(video):
    change = changes(video)
    assert change[[1, 2]].min() > 5 and change[[0, 3, 4]].max() < 3
    np.testing.assert_allclose(
        video[1].truth.face_box, video[2].truth.face_box, atol=1.5
    )  # the world goes on


def test_night_falls_and_the_camera_adapts(video):
    light = np.array([frame.truth.light for frame in video])
    np.testing.assert_array_equal(light == LIGHTS.index("night"), np.arange(70) >= 65)
    spread = np.array([np.ptp(frame.image.astype(int), axis=-1).max() for frame in video])
    assert spread[65:].max() == 0 and spread[10:65].min() > 10
    bright = [frame.image.mean() for frame in video[65:]]
    assert bright[0] < 0.75 * bright[-1]


def test_a_shaking_camera_shifts_picture_and_box(video):
    box = np.array([frame.truth.face_box for frame in video])
    shaken = np.abs(np.diff(box[55:60], axis=0)).max()
    assert shaken > 0.7 and np.abs(np.diff(box[60:65], axis=0)).max() < 1
    assert changes(video)[55:59].max() > 2 * changes(video)[61:64].max()


def test_noise_is_new_in_every_frame_and_breathing_is_small(video):
    for first, second in itertools.pairwise(video[60:64]):
        difference = np.abs(first.image.astype(int) - second.image)
        assert 0 < difference.mean() < 8


def test_a_video_depends_on_seed_subject_and_recording_only(video):
    again = itertools.islice(simulate_crib_video(SCRIPT, view="above", **SMALL), 4)
    for one, other in zip(again, video, strict=False):
        np.testing.assert_array_equal(one.image, other.image)
    for changed in ({"seed": 4}, {"subject": 1}, {"recording": 1}, {"view": "side"}):
        settings = {**SMALL, "view": "above", **changed}
        first = next(simulate_crib_video(SCRIPT, **settings))
        assert not np.array_equal(first.image, video[0].image)


def test_standing_up_goes_by_sitting():
    script = Script(6.0, (Episode("standing", 2.8, 3.2),))
    frames = list(simulate_crib_video(script, view="foot", **{**SMALL, "size": (24, 32)}))
    posture = [POSTURES[frame.truth.posture] for frame in frames]
    order = [name for name, _ in itertools.groupby(posture)]
    assert order == ["back", "sitting", "standing", "sitting", "back"]
    held = [n for n, frame in enumerate(frames) if frame.truth.dangers == ("standing",)]
    assert held == [14, 15] and posture[14:16] == ["standing"] * 2


@pytest.mark.parametrize(
    ("first", "last"), [("back", "stomach"), ("back", "sitting"), ("sitting", "standing")]
)
def test_movements_join_their_ends_and_stay_out_of_the_mattress(first, last):
    infant, face = sample_subject(0, 0)
    crib = sample_surroundings(0, 0, 0, face)[1]
    rngs = [np.random.default_rng(n) for n in range(2)]
    poses = sample_infant_poses(rngs, infant, [Wish(first), Wish(last)], crib)
    ends = [type(poses)(poses.angles[[n]], poses.root_m[[n]]) for n in range(2)]
    path = [move(infant, *ends, share).figures(infant)[0] for share in np.linspace(0, 1, 31)]
    for at, end in ((0, ends[0]), (-1, ends[1])):
        np.testing.assert_allclose(path[at].joints_m, end.figures(infant)[0].joints_m, atol=1e-9)
    joints = np.array([figure.joints_m[0] for figure in path])
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 0.12
    low = [(figure.ends_m[..., 2] - figure.radii_m).min() for figure in path]
    assert min(low) > -0.06
    if last == "stomach":  # rests on its trunk all the way, at most on the side of it
        assert max(figure.origins_m[0, 0, 2] for figure in path) < 0.17


# ---------------------------------------------------------------------------- scripts


def test_drawn_scripts_can_be_played_and_hold_every_kind():
    for seed in range(30):
        script = sample_script(np.random.default_rng(seed), 6.0)
        check_script(script)
        kinds = {episode.kind for episode in script.episodes}
        assert {*DANGERS, "sitting", "hand"} <= kinds <= {*LEADS_S, *OVERLAYS}
        assert all(episode.end_s <= 360 for episode in script.episodes)
        passes = [e.end_s - e.onset_s for e in script.episodes if e.kind == "hand"]
        assert max(passes) < 1
        assert all(e.end_s - e.onset_s > 4 for e in script.dangers(10.0))
    assert sample_script(np.random.default_rng(0), 0.01).episodes == ()


def test_short_scripts_are_filled_as_far_as_there_is_room():
    held = 0
    for seed in range(30):
        script = sample_script(np.random.default_rng(seed), 0.4)
        check_script(script)
        assert all(episode.end_s <= 24 for episode in script.episodes)
        held += len(script.dangers(10.0)) > 0
    assert held > 15


def test_frames_are_counted_from_the_first_at_or_after_a_time():
    assert [first_frame(time_s, 10.0) for time_s in (0.0, 0.1, 0.11, 0.3, 1.7)] == [0, 1, 2, 3, 17]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (Script(0.0, ()), "length"),
        (Script(9.0, (Episode("flying", 3, 4),)), "kind"),
        (Script(9.0, (Episode("stomach", 4, 4),)), "ends later"),
        (Script(9.0, (Episode("stomach", 1, 4),)), "too early"),
        (Script(9.0, (Episode("sitting", 2, 4), Episode("occluded", 6, 7))), "too early"),
    ],
)
def test_senseless_scripts_are_refused_at_once(script, text):
    with pytest.raises(ValueError, match=text):
        simulate_crib_video(script)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [({"frame_hz": 0}, "rate"), ({"size": (0, 5)}, "size"), ({"view": "low"}, "view")],
)
def test_senseless_videos_are_refused_at_once(wrong, text):
    with pytest.raises(ValueError, match=text):
        simulate_crib_video(SCRIPT, **wrong)


def test_a_script_needs_a_length():
    with pytest.raises(ValueError, match="length"):
        sample_script(np.random.default_rng(0), 0)


# ---------------------------------------------------------------------------- files


def test_files_hold_the_frames_and_the_truth_beside_them(tmp_path):
    scripts = {seed: sample_script(stream(seed, 5, 31), 0.35) for seed in range(9)}
    seed, script = next(pair for pair in scripts.items() if pair[1].dangers(4.0))
    settings = {"frame_hz": 4.0, "size": (48, 64), "seed": seed}
    (path,) = write_crib_videos(
        tmp_path / "new", videos=1, minutes=0.35, first_subject=5, **settings
    )
    assert path.name == "sim-005.mp4"
    assert set(path.parent.iterdir()) == {path, *truth_paths(path)}
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(4)
    seen = []
    while (read := video.read())[0]:
        seen.append(read[1])
    assert len(seen) == 84 and seen[0].shape == (48, 64, 3)

    times, frames = read_frames(path)
    np.testing.assert_allclose(times, np.arange(84) / 4)
    episodes = read_truth(path)
    assert episodes and all(episode.kind in DANGERS for episode in episodes)
    for time_s, truth in zip(times, frames, strict=True):
        held = tuple(e.kind for e in episodes if e.onset_s - 1e-6 <= time_s < e.end_s - 1e-6)
        assert truth.dangers == held
        assert (truth.face == UNKNOWN) == np.isnan(truth.covered)

    assert episodes == script.dangers(4.0)
    frame = next(simulate_crib_video(script, subject=5, **settings))
    difference = np.abs(seen[0][..., ::-1].astype(int) - frame.image)
    assert difference.mean() < 12  # the codec loses some; red and blue are not swapped


def test_a_folder_that_cannot_be_written_is_told_by_name(tmp_path):
    (tmp_path / ".sim-000.mp4").mkdir()
    with pytest.raises(InputError, match=r"sim-000\.mp4"):
        write_crib_videos(tmp_path, videos=1, minutes=0.02, size=(24, 32), frame_hz=2.0)
    with pytest.raises(ValueError, match="video"):
        write_crib_videos(tmp_path, videos=0)
