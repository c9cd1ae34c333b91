"""Preparing videos of sleepers: small ones, written here."""

import itertools
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep.moving_frames import Box, Looks, Rule, frame_times, target_region
from data_prep.night_images import resized
from data_prep.sleep_video import Config, main
from jaxbed.data.night import POSTURES
from jaxbed.data.prepared_night import read_night_images
from jaxbed.errors import InputError

FPS, HEIGHT, WIDTH, SIDE = 10, 48, 64, 14
RULE = Rule(t1=25, t2=0.01, interval_s=1, lag_s=1.5)
SMALL = {"size": (16, 24)}


def place(time_s):
    """Where the sleeper's left edge is: at rest, on the way from 3 to 4 s, at rest."""
    return round(4 + 40 * min(max(time_s - 3, 0), 1))


def scene(seconds=8.0, where=place):
    """u8[n,48,64]: a bright patch on a dim, uneven bed."""
    bed = np.random.default_rng(1).integers(20, 60, (6, 8), np.uint8)
    bed = cv2.resize(bed, (WIDTH, HEIGHT))
    frames = np.repeat(bed[None], round(seconds * FPS), axis=0)
    for number, frame in enumerate(frames):
        left = where(number / FPS)
        frame[20 : 20 + SIDE, left : left + SIDE] = 200
    return frames


def record(path, frames, fps=FPS, codec="MJPG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, frames.shape[:0:-1])
    for frame in frames:
        video.write(np.repeat(frame[..., None], 3, axis=-1))
    video.release()


def decoded(path):
    """Every frame of a video, u8[n,h,w]."""
    video, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    return np.stack(frames)


def restated(times, frames, rule):
    """Eqs. 1 and 2 for one who holds every frame: (index, D or None) of those looked at."""
    times, found = np.asarray(times), []
    first_s = math.ceil(rule.lag_s / rule.interval_s - 1e-3) * rule.interval_s - rule.lag_s
    for turn in range(math.floor(times[-1] / rule.interval_s + 1e-3) + 1):
        (after,) = np.nonzero(times >= turn * rule.interval_s - 5e-4)
        i = after[0]
        if times[i] >= (turn + 1) * rule.interval_s - 5e-4:
            continue  # no frame in this interval
        earlier_s = max(turn * rule.interval_s - rule.lag_s, first_s)
        j = np.nonzero(times >= earlier_s - 5e-4)[0][0]
        known = rule.lag_s / 2 <= times[i] - times[j] <= 2 * rule.lag_s
        changed = np.abs(frames[i].astype(int) - frames[j].astype(int))
        found.append((i, changed > rule.t1 if known else None))
    return found


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "videos"
    record(folder / "anna" / "left" / "on_01.avi", scene())
    return folder


def prepared(tmp_path, folder, **options):
    main(Config(raw=folder, out=tmp_path / "out", **SMALL | options))
    return read_night_images(tmp_path / "out", "sleep_video")


def refused(tmp_path, folder, match, **options):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=folder, out=tmp_path / "new" / "out", **options))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_frames_kept_are_those_after_movement(tmp_path, folder):
    images = prepared(tmp_path, folder)
    # The frames of 4 and 5 s differ from those of 2.5 and 3.5 s, and no other from its earlier.
    np.testing.assert_array_equal(images.extra["time_s"], np.float32([4, 5]))
    assert [POSTURES[i] for i in images.posture] == ["left", "left"]
    assert images.blanket.tolist() == [1, 1]
    assert images.subject.tolist() == ["anna", "anna"]
    assert set(images.recording) == {"anna/left/on_01.avi"}


def test_the_images_are_what_one_who_holds_every_frame_would_choose(tmp_path, folder):
    images = prepared(tmp_path, folder, crop=False)
    frames = decoded(folder / "anna/left/on_01.avi")
    kept = [
        (i, moving.mean())
        for i, moving in restated(np.arange(len(frames)) / FPS, frames, RULE)
        if moving is not None and moving.sum() >= 0.01 * moving.size
    ]
    assert len(kept) == 2
    expected = [resized(frames[i], (16, 24)) for i, _ in kept]
    np.testing.assert_array_equal(images.image, expected)
    np.testing.assert_allclose(images.extra["moving_share"], [share for _, share in kept])


@pytest.mark.parametrize("interval_s", [0.3, 1, 4])
@pytest.mark.parametrize("lag_s", [0.2, 1, 1.5, 5])
@pytest.mark.parametrize("seed", range(3))
def test_looks_are_those_of_the_plain_form_whatever_the_frame_rate(interval_s, lag_s, seed):
    rng = np.random.default_rng(seed)
    rule = Rule(t1=25, t2=0.01, interval_s=interval_s, lag_s=lag_s)
    steps = rng.choice([0.04, 0.1, 0.11, 0.5, 2.0, 9.0], 200, p=[0.3, 0.3, 0.3, 0.06, 0.02, 0.02])
    times = np.cumsum(steps) - steps[0]
    frames = rng.integers(0, 256, (200, 3, 4), np.uint8)
    looks, found = Looks(rule), []
    for i, time_s in enumerate(times):
        look = looks.offer(time_s, lambda i=i: frames[i])
        # What is held is bounded, however long the video is.
        assert len(looks.earlier) <= lag_s / interval_s + 2
        if look is not None:
            np.testing.assert_array_equal(look.frame, frames[i])
            found.append((i, look.moving))
    expected = restated(times, frames, rule)
    assert [i for i, _ in found] == [i for i, _ in expected]
    for (_, moving), (_, wanted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(moving, wanted)
    assert any(moving is not None for _, moving in found) or lag_s == 0.2


def test_only_the_wanted_frames_are_decoded():
    looks, decoded = Looks(RULE), []
    for i in range(100):
        looks.offer(i / 10, lambda i=i: decoded.append(i) or np.zeros((2, 2), np.uint8))
    assert decoded == [x for x in range(100) if x % 10 == 0 or x % 10 == 5]


def test_the_next_frame_stands_in_for_a_damaged_one():
    looks = Looks(RULE)
    looked = [
        look.time_s
        for i in range(30)
        if (look := looks.offer(i / 10, lambda i=i: None if i in (10, 11) else np.eye(2)))
    ]
    assert looked == [0, 1.2, 2]


def test_t2_is_a_share_or_a_number_of_pixels():
    def needed(t2, pixels):
        return Rule(t1=25, t2=t2, interval_s=1, lag_s=1.5).needed_px(pixels)

    assert [needed(0.01, 3072), needed(0.25, 400), needed(1, 400), needed(70, 400)] == [
        *(31, 100, 1, 70)
    ]


@pytest.mark.parametrize(("extra", "kept"), [(0, [4, 5]), (1, [4])])
def test_a_frame_with_exactly_t2_moving_pixels_is_kept(tmp_path, extra, kept):
    path = tmp_path / "videos/anna/left/on_1.avi"
    record(path, scene(where=lambda time_s: place(time_s) // 4), codec="FFV1")  # loses nothing
    frames = decoded(path)
    (fewest,) = {
        int(moving.sum())
        for i, moving in restated(np.arange(len(frames)) / FPS, frames, RULE)
        if i == 5 * FPS
    }
    images = prepared(tmp_path, tmp_path / "videos", t2=fewest + extra)
    assert images.extra["time_s"].tolist() == kept


def test_a_crop_covers_what_moved(tmp_path, folder):
    images = prepared(tmp_path, folder, least_crop=0.1)
    top, left, height, width = (images.extra[f"crop_{name}_px"] for name in Box._fields)
    assert (top <= 20).all()
    assert (top + height >= 20 + SIDE).all()
    # The sleeper lies at 44 px in both; at 2.5 s he lay at 4 px and at 3.5 s at 24 px.
    assert (left <= [4, 24]).all()
    assert (left + width >= 44 + SIDE).all()
    assert ((left >= 0) & (left + width <= WIDTH) & (top >= 0) & (top + height <= HEIGHT)).all()
    assert height[1] == width[1] < HEIGHT  # a square, where there is room
    frames = decoded(folder / "anna/left/on_01.avi")
    for image, time_s, *box in zip(
        images.image, images.extra["time_s"], top, left, height, width, strict=True
    ):
        frame = frames[round(time_s * FPS)]
        np.testing.assert_array_equal(image, resized(Box(*box).cut(frame), (16, 24)))


def test_the_region_leaves_specks_out_and_keeps_both_places():
    moving = np.zeros((200, 300), bool)
    moving[100:120, 60:75] = moving[100:120, 140:155] = True
    moving[3, 290] = moving[190:192, 5:8] = True
    box = target_region(moving, margin=0.1, least=0)
    assert box == Box(top=53, left=50, height=114, width=115) or box == Box(53, 50, 114, 114)
    cut = box.cut(moving)
    assert cut.sum() == 2 * 20 * 15


@pytest.mark.parametrize("corner", [*itertools.product((0, 90), (0, 190))])
def test_a_region_stays_within_the_frame_and_large_enough(corner):
    moving = np.zeros((100, 200), bool)
    moving[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    box = target_region(moving, margin=0.15, least=0.5)
    assert (box.height, box.width) == (50, 50)
    assert box.cut(moving).sum() == 100
    assert (box.top, box.left) == (min(corner[0], 50), min(corner[1], 150))


def test_a_region_is_never_larger_than_the_frame():
    assert target_region(np.ones((30, 40), bool), margin=1, least=1) == Box(0, 0, 30, 40)


class Stamped:
    """Stands for a cv2.VideoCapture with these time stamps and this frame rate."""

    def __init__(self, stamps_ms, fps):
        self.left, self.fps, self.now = list(stamps_ms), fps, 0.0

    def grab(self):
        if not self.left:
            return False
        self.now = self.left.pop(0)
        return True

    def get(self, prop):
        return self.fps if prop == cv2.CAP_PROP_FPS else self.now


@pytest.mark.parametrize(
    ("stamps_ms", "fps", "expected"),
    [
        ([0, 100, 200], 10, [0, 0.1, 0.2]),
        ([0, 40, 500, 540], 0, [0, 0.04, 0.5, 0.54]),  # varies; no frame rate is needed
        ([70, 110], math.nan, [0, 0.04]),
        ([0, 0, 0], 5, [0, 0.2, 0.4]),  # no stamps
        ([math.nan] * 3, 5, [0, 0.2, 0.4]),
        ([0, 100, 0, 100], 20, [0, 0.1, 0.15, 0.25]),  # begun anew
        ([], 0, []),
    ],
)
def test_times_are_the_files_own_or_else_the_frame_rates(stamps_ms, fps, expected):
    np.testing.assert_allclose(list(frame_times(Stamped(stamps_ms, fps))), expected)


@pytest.mark.parametrize("fps", [0, -1, math.nan, 90000])
def test_a_video_without_times_is_refused(fps):
    with pytest.raises(ValueError, match="neither the times of its frames nor a frame rate"):
        list(frame_times(Stamped([0, 0, 0], fps)))


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("mkv", "MJPG"), ("webm", "VP80")])
def test_other_containers_and_frame_rates_give_the_same_times(tmp_path, suffix, codec):
    where = tmp_path / "videos" / "anna" / "Left side" / f"with_blanket_7.{suffix.upper()}"
    frames = scene()
    record(where.with_suffix(f".{suffix}"), np.repeat(frames, 2, axis=0), fps=20, codec=codec)
    where.with_suffix(f".{suffix}").rename(where)
    images = prepared(tmp_path, tmp_path / "videos")
    np.testing.assert_allclose(images.extra["time_s"], [4, 5], atol=1e-3)
    assert images.blanket.tolist() == [1, 1]


def half_an_mp4(path):
    whole = path.with_name("whole.mp4")
    record(whole, scene(2), codec="mp4v")
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("no video" * 50), "is not a video"),
    "half an mp4": (half_an_mp4, "is not a video"),
    "sound": (lambda path: path.write_bytes(b"ID3\x04" + bytes(400)), "is not a video"),
}


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_video_is_left_out_and_listed(tmp_path, folder, spoil, capsys):
    make, reason = BAD[spoil]
    (folder / "ben" / "prone").mkdir(parents=True)
    make(folder / "ben/prone/off_01.avi")
    images = prepared(tmp_path, folder)
    assert len(images) == 2
    assert images.skipped[0].startswith("ben/prone/off_01.avi: ")
    assert reason in images.skipped[0]
    assert "left out: ben/prone/off_01.avi: " in capsys.readouterr().out


def test_bad_videos_alone_stop(tmp_path, folder):
    for number, (make, _) in enumerate(BAD.values()):
        make(folder / f"anna/left/off_{number}.avi")
    (folder / "anna/left/on_01.avi").write_bytes(b"")
    refused(tmp_path, folder, r"holds no readable video among 5 \(anna/left/off_0.avi: is empty\)")


def test_a_video_that_ends_early_gives_what_it_holds(tmp_path, folder):
    path = folder / "anna/left/on_02.mkv"
    record(path, scene(10))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    images = prepared(tmp_path, folder)
    assert images.recording.tolist() == ["anna/left/on_01.avi"] * 2 + ["anna/left/on_02.mkv"] * 2


def test_the_counts_tell_why_frames_were_left_out(tmp_path, folder, capsys):
    record(folder / "ben" / "supine" / "off_1.avi", scene(3.0))
    images = prepared(tmp_path, folder)
    assert images.skipped == (
        "99 frames: not looked at, one each 1 s is",
        "4 frames: without a frame 1.5 s earlier",
        "5 frames: without movement in 1.5 s",
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "sleep_video: 110 frames read, 2 kept, 108 left out; 1 subjects, 1 recordings, "
        "16 x 24 pixels"
    )
    assert (
        "  looked at 11 of 110 frames: 2 after movement, 5 without movement, 4 without a frame "
        "1.5 s earlier; 0 damaged"
    ) in lines
    assert "warning: no image shows supine or prone or right; nothing can learn it here" in lines
    assert any(line.startswith("warning: anna is the only subject") for line in lines)
    assert lines[-1] == str(tmp_path / "out")


def test_a_contact_sheet_lies_beside_the_set(tmp_path, folder):
    prepared(tmp_path, folder)
    with Image.open(tmp_path / "out" / "sleep_video_contact_sheet.png") as sheet:
        levels = np.asarray(sheet)
    assert levels.shape[1] == 2 * 164
    assert len(np.unique(levels)) > 20


def test_still_videos_stop_and_tell_how_little_moved(tmp_path):
    record(tmp_path / "videos/anna/left/on_1.avi", scene(4, where=lambda _: 9))
    refused(
        tmp_path,
        tmp_path / "videos",
        r"shows no movement: of 4 frames looked at, 2 had no frame 1.5 s earlier, and in the "
        r"others at most 0.00% of the pixels changed by more than 25 levels",
    )


CSV = """video,subject,posture,blanket,start_s,end_s
anna/left/on_01.avi,anna,back,0,,4.5
anna/left/on_01.avi,ben,stomach,,4.5,60
anna/left/on_01.avi,ben,right,1,60,
"""


def test_a_csv_tells_what_is_seen_when(tmp_path, folder):
    (folder / "labels.csv").write_text(CSV)
    images = prepared(tmp_path, folder, labels=folder / "labels.csv")
    assert images.subject.tolist() == ["anna", "ben"]
    assert [POSTURES[i] for i in images.posture] == ["supine", "prone"]
    assert images.blanket.tolist() == [0, -1]
    assert images.skipped[0] == "anna/left/on_01.avi: no frame was looked at from 60 s on"


def test_frames_beyond_the_last_scene_are_not_read(tmp_path, folder, capsys):
    text = "video,subject,posture,end_s\nanna/left/on_01.avi,anna,left,5\n"
    (folder / "labels.csv").write_text(text)
    images = prepared(tmp_path, folder, labels=folder / "labels.csv")
    np.testing.assert_array_equal(images.extra["time_s"], [4])
    assert "50 frames read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("anna/left/on_01.avi,anna,left,1,x,", "line 2 has start_s 'x', which must be a number"),
        ("anna/left/on_01.avi,anna,left,1,-1,", "line 2 has start_s '-1'"),
        ("anna/left/on_01.avi,anna,left,1,nan,", "line 2 has start_s 'nan'"),
        ("anna/left/on_01.avi,anna,left,1,3,2", "start_s 3 and end_s 2, but must end after"),
        ("anna/left/on_01.avi,anna,side,1,,", "line 2 names the posture 'side'"),
        ("anna/left/on_01.avi,anna,left,maybe,,", "line 2 names the blanket 'maybe'"),
        ("anna/left/on_01.avi,,left,1,,", "line 2 must name a subject"),
        ("nowhere.avi,anna,left,1,,", "line 2 names nowhere.avi, which is not in"),
        ("../x.avi,anna,left,1,,", "must be a file inside"),
        (",anna,left,1,,", "must be a file inside"),
        (
            "anna/left/on_01.avi,anna,left,1,0,5\n./anna/left/on_01.avi,anna,prone,1,4,9",
            "line 3 names a stretch of anna/left/on_01.avi that a line above it names as well",
        ),
    ],
)
def test_wrong_labels_stop(tmp_path, folder, line, sentence):
    labels = folder / "labels.csv"
    labels.write_text(f"video,subject,posture,blanket,start_s,end_s\n{line}\n")
    refused(tmp_path, folder, sentence, labels=labels)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("anna/asleep/on_1.avi", "asleep names the posture 'asleep'"),
        ("anna/left/quilt_1.avi", "quilt_1.avi names the blanket 'quilt'"),
    ],
)
def test_names_that_cannot_be_understood_stop(tmp_path, folder, name, sentence):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    refused(tmp_path, folder, sentence)


def test_a_folder_without_videos_stops(tmp_path, folder):
    refused(tmp_path, folder / "nowhere", "is not a folder")
    refused(tmp_path, folder / "anna", "holds no video such as SUBJECT/POSTURE/on_01.mp4")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"t1": -1.0}, "--t1 must be a number of 0 to 255 grey levels"),
        ({"t1": math.nan}, "--t1"),
        ({"t2": 0.0}, "--t2 must be a number above 0"),
        ({"t2": math.inf}, "--t2"),
        ({"interval_s": 0.0}, "--interval-s"),
        ({"lag_s": 0.0}, "--lag-s"),
        ({"size": (0, 24)}, "--size 0 24 must be"),
        ({"margin": -0.1}, "--margin"),
        ({"least_crop": 1.1}, "--least-crop"),
    ],
)
def test_impossible_flags_stop(tmp_path, folder, options, told):
    refused(tmp_path, folder, told, **options)


def test_the_command_prepares_and_tells_only_what_it_did(tmp_path, folder):
    half_an_mp4(folder / "anna/left/off_1.mp4")
    command = [sys.executable, "-m", "data_prep.sleep_video", "--raw", folder, "--no-crop"]
    done = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: anna/left/off_1.mp4: is not a video" in done.stdout
    again = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
