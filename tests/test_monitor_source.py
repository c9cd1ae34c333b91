"""Sources: files, folders, a camera that stalls and comes back, frames of every kind."""

import math
import os
import threading
import time

import cv2
import numpy as np
import pytest

from jaxbed.errors import InputError
from jaxbed.monitor.captures import MediaTime, Origin, find_origin, without_password
from jaxbed.monitor.frames import Normaliser, fit, signature
from jaxbed.monitor.remarks import Remarks
from jaxbed.monitor.source import BackOff, Source, open_source
from tests.monitor_camera import Acted, MjpegCamera, jpeg, number_of, picture, write_video

SOON = 5.0  # long enough for a busy machine, never waited out when all is well


def hasty():
    return BackOff(first_s=0.02, cap_s=0.05)


def live(*captures):
    """A live source that opens one capture after the other, the last one again and again."""
    left = list(captures)
    return Source(
        Origin("cot", True, lambda: left.pop(0) if len(left) > 1 else left[0]), back_off=hasty()
    )


def taken(source, count):
    """Takes frames, no two of them the same."""
    frames = []
    while len(frames) < count:
        frame = source.newest(SOON)
        assert frame is not None, f"{len(frames)} frames only"
        frames.append(frame)
    return frames


def until(found, *, wait_s=SOON):
    deadline = time.monotonic() + wait_s
    while not found():
        assert time.monotonic() < deadline, "never came"
        time.sleep(0.005)


def all_of(source):
    frames = []
    with source:
        while not source.ended:
            frame = source.newest(SOON)
            if frame is not None:
                frames.append(frame)
    return frames


# ---- Files


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v"), ("MKV", "FFV1")]
)
def test_a_file_read_fast_gives_every_frame_at_its_own_time(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"night.{suffix}", [picture(n) for n in range(30)], codec=codec)
    source = open_source(str(path), pace="fast", clock=lambda: 1000.0)
    assert (source.live, source.name) == (False, str(path))
    frames = all_of(source)
    assert [number_of(f.image) for f in frames] == list(range(30))
    np.testing.assert_allclose([f.time_s for f in frames], 1000 + np.arange(30) / 10, atol=1e-6)
    assert source.now_s() == frames[-1].time_s
    assert {f.captured_s for f in frames} == {1000.0}
    assert (source.dropped, source.damaged, source.remarks.take()) == (0, 0, [])
    assert all(f.changed for f in frames)


def test_a_file_at_its_own_pace_takes_its_time_and_drops_what_nobody_takes(tmp_path):
    path = write_video(tmp_path / "a.avi", [picture(n) for n in range(20)], fps=25, codec="MJPG")
    with open_source(str(path)) as source:
        begun_s, frames = time.monotonic(), []
        while not source.ended:
            frame = source.newest(SOON)
            if frame is not None:
                frames.append(frame)
                time.sleep(0.1)  # as a slow observer
    assert time.monotonic() - begun_s >= 19 / 25
    assert len(frames) + source.dropped == 20
    assert source.dropped >= 5
    numbers = [number_of(f.image) for f in frames]
    assert numbers == sorted(set(numbers)) == [f.number for f in frames]
    assert all(begun_s <= f.captured_s == f.time_s for f in frames)
    assert frames[-1].number == 19


def test_a_torn_file_gives_what_it_holds_and_says_so_once(tmp_path):
    path = write_video(tmp_path / "a.avi", [picture(n) for n in range(40)], codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    source = open_source(str(path), pace="fast")
    frames = all_of(source)
    assert 10 < len(frames) < 30
    (told,) = source.remarks.take()
    assert told == f"{path}: ends after {len(frames)} of 40 frames."


def test_a_damaged_stretch_is_left_out(tmp_path):
    path = write_video(
        tmp_path / "a.avi",
        [np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8) for n in range(40)],
        codec="MJPG",
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 9000] = bytes(9000)  # some frames, not the file's index
    path.write_bytes(content)
    source = open_source(str(path), pace="fast")
    frames = all_of(source)
    assert 30 < len(frames) < 40
    assert np.all(np.diff([f.time_s for f in frames]) > 0)


BAD = {
    "absent": (lambda path: None, "does not exist; name a video file, a folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("no video" * 50), "is not a video that can be read"),
    "fifo": (os.mkfifo, "is neither a file nor a folder"),
    "bare folder": (lambda path: path.mkdir(), "holds no image"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_can_never_work_is_refused_in_one_sentence(tmp_path, bad):
    make, told = BAD[bad]
    path = tmp_path / "night.mp4"
    make(path)
    with pytest.raises(InputError, match=told) as refused:
        find_origin(str(path))
    assert str(path) in str(refused.value)


def test_an_mp4_that_is_still_written_is_refused_with_the_reason(tmp_path):
    path = write_video(tmp_path / "a.mp4", [picture(n) for n in range(30)])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="an MP4 that is still being written"):
        find_origin(str(path))


def test_other_addresses_are_refused_and_passwords_never_shown():
    with pytest.raises(InputError, match=r"ftp://cam/x begins with ftp://") as refused:
        find_origin("ftp://anna:secret@cam/x?key=secret")
    assert "secret" not in str(refused.value)
    origin = find_origin("rtsp://anna:secret@192.168.1.9:554/live?pass=secret")
    assert (origin.name, origin.live) == ("rtsp://192.168.1.9:554/live", True)
    assert without_password("http://[::1") == "http://..."


@pytest.mark.parametrize("source", ["0", "12", "/dev/video3"])
def test_a_number_is_a_webcam(source):
    assert find_origin(source).live


def test_a_webcam_that_is_not_there_is_tried_again():
    with Source(find_origin("97"), back_off=hasty()) as source:
        said = []
        until(lambda: said.extend(source.remarks.take()) or said)
        assert source.newest(0.05) is None
        assert not source.ended
    assert said == ["webcam 97: cannot be opened or read; trying again."]


# ---- Folders of images


def write_images(folder, images):
    for name, image in images.items():
        if isinstance(image, bytes):
            (folder / name).write_bytes(image)
        else:
            cv2.imwrite(str(folder / name), image)


def test_a_folder_gives_its_images_in_the_order_people_count(tmp_path):
    write_images(tmp_path, {f"f_{n}.png": picture(n) for n in (2, 10, 1, 9)})
    (tmp_path / "notes.txt").write_text("no image")
    frames = all_of(open_source(str(tmp_path), pace="fast", folder_hz=4, clock=lambda: 0.0))
    assert [number_of(f.image) for f in frames] == [1, 2, 9, 10]
    assert [f.time_s for f in frames] == [0, 0.25, 0.5, 0.75]


def test_odd_and_damaged_images_are_converted_or_left_out_and_told_of_once(tmp_path):
    def plain(level, size=(48, 64), dtype=np.uint8):
        return np.full((*size, 3), level, dtype)

    whole = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    torn = jpeg(whole)[:1500]
    bits_12 = plain(16 * 110, dtype=np.uint16)
    bits_12[0, 0] = 4095
    images = {
        "00.png": plain(100),
        "01.jpg": torn,
        "02.jpg": torn[:700],
        "03.png": bits_12,
        "04.png": plain(120)[..., 0],
        "05.png": np.dstack([plain(130), np.zeros((48, 64), np.uint8)]),
        "06.png": plain(140, (96, 128)),
        "07.png": plain(150, (48, 32)),
        "08.png": b"",
        "09.png": plain(160, (4, 4)),
        **{f"1{n}.jpg": torn for n in range(10)},
        **{f"2{n}.jpg": torn for n in range(10)},
        **{f"3{n}.jpg": torn for n in range(10)},
        "40.png": plain(170),
    }
    write_images(tmp_path, images)
    source = open_source(str(tmp_path), pace="fast")
    frames = all_of(source)
    assert all(f.image.shape == (48, 64, 3) and f.image.dtype == np.uint8 for f in frames)
    assert [f.image[24, 32, 0] for f in frames] == [100, 110, 120, 130, 140, 150, 170]
    assert source.damaged == 34
    said = source.remarks.take()
    assert len(said) == 4
    for words in ("16 bits", "damaged frames", "change from 48 x 64 to 96 x 128", "4 x 4 pixels"):
        assert sum(words in sentence for sentence in said) == 1, said


def test_a_folder_of_damaged_images_alone_is_refused(tmp_path):
    write_images(tmp_path, {f"{n}.jpg": jpeg(picture(n))[:300] for n in range(3)})
    with pytest.raises(InputError, match="holds 3 images, but none can be read"):
        find_origin(str(tmp_path))


# ---- Frames


def test_16_bits_are_scaled_by_the_widest_seen_so_that_nothing_flickers():
    normaliser = Normaliser(Remarks(), "cot")
    dim = np.full((20, 20), 1000, np.uint16)
    bright = np.full((20, 20), 4000, np.uint16)
    levels = [normaliser.convert(x)[0, 0].tolist() for x in (dim, bright, dim)]
    assert levels == [[250] * 3, [250] * 3, [62] * 3]


@pytest.mark.parametrize(
    "frame",
    [
        None,
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((20, 20, 2), np.uint8),
        np.zeros((20, 20, 3), np.float32),
        np.zeros((1, 20, 20, 3), np.uint8),
        np.zeros((8, 200, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_left_out(frame):
    remarks = Remarks()
    normaliser = Normaliser(remarks, "cot")
    assert normaliser.convert(frame) is None
    assert normaliser.convert(frame) is None
    assert len(remarks.take()) == 1
    assert normaliser.convert(picture(1)) is not None


def test_a_frame_is_fitted_without_squeezing_it():
    square = np.full((30, 30, 3), 200, np.uint8)
    fitted = fit(square, (60, 100))
    assert fitted.shape == (60, 100, 3)
    assert (fitted[:, 20:80] == 200).all()
    assert not fitted[:, :20].any()
    assert not fitted[:, 80:].any()
    assert fit(np.full((1, 500, 3), 9, np.uint8), (20, 50)).shape == (20, 50, 3)


@pytest.mark.parametrize("size", [(48, 64), (1080, 1920)])
def test_noise_changes_the_signature(size):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 250, (*size, 3), np.uint8)
    noisy = frame + rng.integers(0, 2, frame.shape, np.uint8)
    assert signature(frame) == signature(frame.copy()) != signature(noisy)
    if size == (48, 64):
        frame2 = frame.copy()
        frame2[-1, -1, -1] ^= 1
        assert signature(frame2) != signature(frame)


# ---- Live sources


def test_the_newest_frame_wins_over_a_backlog():
    gate = threading.Event()
    acts = [picture(n) for n in range(40)] + [lambda: gate.wait(SOON) and picture(41)]
    with live(Acted(acts)) as source:
        until(lambda: source.dropped == 39)
        assert number_of(source.newest(SOON).image) == 39
        assert source.newest(0.02) is None
        gate.set()
        last = source.newest(SOON)
        assert (number_of(last.image), last.number, source.dropped) == (41, 40, 39)


def test_the_same_picture_again_is_no_change_but_a_change_between_two_takes_is():
    steps = [threading.Event() for _ in range(4)]

    def after(step, number):
        return lambda: steps[step].wait(SOON) and picture(number)

    # 1 | 1 | 2 1 | 3 2
    acts = [picture(1), after(0, 1), after(1, 2), picture(1), after(2, 3), picture(2)]
    acts.append(after(3, 4))
    with live(Acted(acts)) as source:
        changed = [source.newest(SOON).changed]
        for step, dropped in ((0, 0), (1, 1), (2, 2)):
            steps[step].set()
            until(lambda d=dropped: source.dropped == d and source._slot is not None)
            changed.append(source.newest(SOON).changed)
        steps[3].set()
    assert changed == [True, False, False, True]


def test_a_read_that_blocks_blocks_nobody_else():
    never = threading.Event()
    with live(Acted([picture(1), lambda: never.wait(60)])) as source:
        assert source.newest(SOON) is not None
        begun_s = time.monotonic()
        assert source.newest(0.05) is None
        source.close(wait_s=0.05)
        assert time.monotonic() - begun_s < 1
        never.set()


def test_a_lost_camera_is_opened_again_whatever_it_raised():
    captures = [
        Acted([], opened=False),
        Acted([picture(1), None, picture(2)]),
        Acted([cv2.error("no"), RuntimeError("driver")]),
        Acted([MemoryError("full")]),
        Acted([lambda n=n: time.sleep(0.002) or picture(3 + n) for n in range(2000)]),
    ]
    with live(*captures) as source:
        until(lambda: source.reconnects >= 1 and source.newest(SOON).number > 5)
        assert not source.ended
    assert source.damaged == 1
    assert all(capture.released for capture in captures[:4])
    said = source.remarks.take()
    assert [s for s in said if "cannot be opened" in s] == [
        "cot: cannot be opened or read; trying again."
    ]
    assert [s for s in said if "no frame comes any more" in s] == [
        "cot: no frame comes any more; trying again."
    ]
    assert len(said) <= 4


def test_pauses_grow_to_a_cap_and_a_seed_fixes_them():
    back_off = BackOff(first_s=0.5, cap_s=15, seed=3)
    pauses = [back_off.next_s() for _ in range(2000)]
    for attempt, pause_s in enumerate(pauses):
        whole_s = min(15, 0.5 * 2 ** min(attempt, 30))
        assert whole_s / 2 <= pause_s <= whole_s
    assert len({round(p, 3) for p in pauses}) > 1000
    again = BackOff(first_s=0.5, cap_s=15, seed=3)
    assert [again.next_s() for _ in range(5)] == pauses[:5]
    assert BackOff(seed=4).next_s() != BackOff(seed=5).next_s()
    back_off.reset()
    assert back_off.next_s() <= 0.5


def test_a_network_camera_that_stalls_and_comes_back():
    with MjpegCamera() as camera:
        origin = find_origin(camera.url, open_s=2, read_s=0.25)
        with Source(origin, back_off=hasty()) as source:
            first = taken(source, 5)
            assert [f.number for f in first] == sorted(f.number for f in first)
            camera.mode = "stall"
            until(lambda: source.newest(0.3) is None)
            until(lambda: source.reconnects)
            assert not source.ended
            camera.mode = "ok"
            seen = camera.sent
            taken(source, 3)
            until(lambda: camera.sent > seen + 5)
            # Right away the newest, nothing that waited in a queue.
            source.newest(0)
            newest = source.newest(SOON)
            assert (camera.sent - number_of(newest.image)) % 64 <= 3
            camera.mode = "gone"
            until(lambda: source.newest(0.2) is None)
            camera.size, camera.mode = (96, 64), "ok"
            assert {f.image.shape for f in taken(source, 3)} == {(48, 64, 3)}
            camera.mode = "frozen"
            until(lambda: not source.newest(SOON).changed)
    said = source.remarks.take()
    assert sum("no frame comes any more" in s for s in said) == 1
    assert sum("change from 48 x 64 to 96 x 64" in s for s in said) == 1


def test_damaged_frames_of_a_network_camera_are_left_out():
    with MjpegCamera() as camera:
        camera.mode = "torn"
        with Source(find_origin(camera.url), back_off=hasty()) as source:
            numbers = [number_of(f.image) for f in taken(source, 12)]
            assert all(n % 3 for n in numbers), numbers
            assert source.reconnects == 0
        assert source.damaged >= 4
        assert source.remarks.take() == [f"{camera.url}: damaged frames are left out."]


def test_a_camera_that_is_switched_on_later_is_found():
    with MjpegCamera() as camera:
        port, url = camera.port, camera.url
    with Source(find_origin(url), back_off=hasty()) as source:
        assert source.newest(0.2) is None
        with MjpegCamera(port=port):
            taken(source, 2)
    assert source.remarks.take()[0] == f"{url}: cannot be opened or read; trying again."


class Stamped:
    def __init__(self, stamps_ms, fps):
        self.left, self.fps = list(stamps_ms), fps

    def get(self, prop):
        return self.fps if prop == cv2.CAP_PROP_FPS else self.left.pop(0)


@pytest.mark.parametrize(
    ("stamps_ms", "fps", "expected"),
    [
        ([0, 40, 500, 540], 0, [0, 0.04, 0.5, 0.54]),
        ([70, 110], math.nan, [0, 0.04]),
        ([0, 0, 0], 5, [0, 0.2, 0.4]),
        ([math.nan] * 3, 5, [0, 0.2, 0.4]),
        ([0, 100, 0, 100], 20, [0, 0.1, 0.15, 0.25]),
        ([0, 0], 0, [0, 0.04]),
    ],
)
def test_times_are_the_files_own_or_else_the_frame_rates(stamps_ms, fps, expected):
    media = MediaTime(Stamped(stamps_ms, fps))
    np.testing.assert_allclose([media.next_s() for _ in stamps_ms], expected)
