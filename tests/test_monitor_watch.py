"""The loop: what it decides, tells and survives, against made-up time and real processes."""

import contextlib
import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxbed.errors import InputError
from jaxbed.monitor.alerts import Rule
from jaxbed.monitor.captures import find_origin
from jaxbed.monitor.events import EventLog, read_events
from jaxbed.monitor.latency import Histogram
from jaxbed.monitor.notify import Notifier
from jaxbed.monitor.observation import Observation
from jaxbed.monitor.overlay import VideoFile, draw
from jaxbed.monitor.remarks import Remarks
from jaxbed.monitor.source import Frame, Source, open_source
from jaxbed.monitor.status import Status
from jaxbed.monitor.terminal import Terminal
from jaxbed.monitor.watch import watch
from tests.monitor_camera import MjpegCamera, number_of, picture, write_video

RULES = (
    Rule("stomach", "high", "the infant lies on the stomach", needed=3, of=5, delay_s=1.0),
    Rule("standing", "medium", "the infant stands", needed=3, of=5, delay_s=1.0, clear_s=0.5),
)
NO_FACES = np.zeros((0, 5), np.float32)


def seen(**scores):
    return Observation(
        {"stomach": 0.0, "standing": 0.0, **scores}, NO_FACES, {"back": 0.6, "stomach": 0.4}, {}
    )


def quiet():
    return Terminal(io.StringIO())


class Clock:
    def __init__(self, now_s=5000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


class RealClock(Clock):
    def __call__(self):
        return time.monotonic()


class Script:
    """A source that plays (passed_s, what) on a clock: a frame, None for no frame, or "same"."""

    def __init__(self, clock, steps):
        self.clock, self.steps = clock, iter(steps)
        self.name, self.live, self.remarks = "script", True, Remarks()
        self.dropped = self.damaged = self.reconnects = 0
        self.started_s, self.ended, self.closed = clock(), False, False
        self.numbers = itertools.count()

    def start(self):
        pass

    def close(self):
        self.closed = True

    def now_s(self):
        return self.clock()

    def newest(self, _):
        passed_s, what = next(self.steps, (0.0, "end"))
        self.clock.now_s += passed_s
        if isinstance(what, str) and what == "end":
            self.ended = True
            return None
        if what is None:
            return None
        same = isinstance(what, str)
        image = np.zeros((16, 16, 3), np.uint8) if same else what
        now_s = self.clock()
        return Frame(image, next(self.numbers), now_s, now_s, changed=not same)


class Page:
    """Notes what the page is shown."""

    def __init__(self, *, wants_picture=True):
        self.wants_picture, self.shown, self.events = wants_picture, [], []

    def show(self, **what):
        self.shown.append(what)

    def add_event(self, event):
        self.events.append(event)


def level(score):
    return np.full((16, 16, 3), round(score * 100), np.uint8)


def stomach_of(image):
    return seen(stomach=float(image[0, 0, 0]) / 100)


def played(steps, observer=stomach_of, *, clock=None, **options):
    """Watches a script; returns the summary and the page."""
    clock, page = clock or Clock(), Page()
    given = {"rules": RULES, "stale_s": 5.0, "status": page, "terminal": quiet(), **options}
    return watch(Script(clock, steps), observer, clock=clock, **given), page


def frames(seconds, score, hz=10):
    return [(1 / hz, level(score))] * round(seconds * hz)


# ---- What it decides


def test_an_episode_is_one_line_at_its_onset_and_one_at_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    steps = frames(3, 0.1) + frames(4, 0.9) + frames(5, 0.1)
    clock = Clock()
    summary, page = played(steps, clock=clock, events=EventLog(path, clock=clock))
    onset, end = read_events(path)
    assert (onset["what"], end["what"], onset["id"]) == ("onset", "end", end["id"])
    assert (onset["kind"], onset["priority"]) == ("stomach", "high")
    assert onset["onset_s"] == end["onset_s"] == pytest.approx(3.1)
    assert onset["raised_s"] == pytest.approx(4.1)
    assert end["end_s"] == pytest.approx(7.1)
    assert abs(datetime.fromisoformat(end["end"]).timestamp() - time.time()) < 3600
    assert [e.end_s is None for e in page.events] == [True, False]
    assert (summary.frames, summary.events, summary.unwritten) == (120, {"stomach": 1}, 0)
    assert summary.ended == "the source ended"
    states = [key for key, _ in itertools.groupby(shown["state"] for shown in page.shown)]
    assert states == ["OK", "stomach", "OK", "stopped"]


def test_the_end_of_a_source_ends_the_event(tmp_path):
    path = tmp_path / "events.jsonl"
    played(frames(5, 0.9), events=EventLog(path))
    (_, end) = read_events(path)
    assert end["rule"].endswith("; ended: the source ended")
    assert end["end_s"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([(0.1, None)] * 80, "no frame comes"),
        ([(0.1, "same")] * 80, "the picture does not change"),
    ],
)
def test_stale_is_raised_in_time_and_ends_when_frames_come_back(tmp_path, steps, why):
    path = tmp_path / "events.jsonl"
    summary, page = played(
        frames(2, 0.1) + steps + frames(3, 0.1), stale_s=5.0, events=EventLog(path)
    )
    onset, end = read_events(path)
    assert (onset["kind"], onset["priority"]) == ("stale", "high")
    assert onset["rule"].startswith(f"{why}: nothing new for 5.")
    assert onset["raised_s"] - onset["onset_s"] == pytest.approx(5.0, abs=0.11)
    assert end["end_s"] == pytest.approx(10.1)
    assert summary.stale_s == pytest.approx(8.1)
    assert summary.unchanged == (80 if why.startswith("the picture") else 0)
    states = [key for key, _ in itertools.groupby(shown["state"] for shown in page.shown)]
    assert states == ["OK", "STALE", "OK", "stopped"]


def test_the_same_picture_again_is_no_evidence():
    danger = frames(0.2, 0.9) + [(0.1, "same")] * 40
    summary, _ = played(frames(2, 0.1) + danger + frames(2, 0.1))
    assert summary.events == {}
    assert summary.frames == 42


def garbage():
    class Odd(dict):
        pass

    return [
        seen(stomach=math.nan),
        seen(stomach=math.inf),
        seen(stomach=7.0),
        seen(stomach="high"),
        seen(stomach=None),
        seen(stomach=np.array([0.9, 0.9])),
        seen()._replace(scores=None),
        seen()._replace(faces=None, posture=None, face_state=None),
        seen()._replace(faces=np.full((2, 5), np.nan)),
        seen()._replace(faces=np.array([[1e30, -1e30, 5, 5, 1]])),
        Observation(Odd(), NO_FACES, {}, {}),
        None,
        {"stomach": 0.99},
        ValueError("a network that returns nan"),
        RuntimeError("out of memory"),
    ]


def test_garbage_never_alerts_and_never_stops_the_watch():
    answers = itertools.cycle(garbage())

    def observer(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    terminal = quiet()
    summary, page = played(
        [(0.1, picture(n % 60)) for n in range(600)], observer, terminal=terminal
    )
    assert summary.events == {}
    assert summary.frames + summary.failed == 600
    assert summary.failed == 600 * 5 // 15
    said = terminal._stream.getvalue().splitlines()
    assert sum("could not be judged" in line for line in said) == 1
    assert len(said) <= 3


def test_a_monitor_that_can_judge_nothing_says_so():
    def broken(_):
        raise RuntimeError("device lost")

    summary, page = played(frames(7, 0.1), broken, stale_s=5.0)
    assert summary.events == {"stale": 1}
    assert "frames come but cannot be judged" in page.events[0].rule
    assert page.shown[0]["state"] == "STARTING"


def test_an_observer_that_hangs_raises_stale_and_does_not_keep_the_watch_from_ending():
    never, stop, page = threading.Event(), threading.Event(), Page()

    def hangs(image):
        if number_of(image) == 3:
            never.wait(60)
        return seen()

    def steps():
        yield from ((0.0, picture(n)) for n in range(20))

    def on_event(event):
        Page.add_event(page, event)
        stop.set()

    page.add_event = on_event
    begun_s = time.monotonic()
    source = Script(RealClock(), steps())
    summary = watch(
        source, hangs, rules=RULES, stale_s=0.3, status=page, terminal=quiet(), stop=stop
    )
    assert time.monotonic() - begun_s < 5
    never.set()
    assert page.events[0].kind == "stale"
    assert page.events[0].rule.startswith("judging a frame takes long: nothing new for 0.")
    assert (summary.frames, summary.ended, source.closed) == (3, "the monitor stopped", True)


def test_latency_is_from_capture_to_decision():
    clock = Clock()

    def observer(_):
        clock.now_s += 0.03
        return seen()

    summary, page = played(frames(10, 0.1), observer, clock=clock)
    assert summary.latency_p50_ms == pytest.approx(30, rel=0.021)
    assert summary.latency_most_ms == pytest.approx(30)
    assert page.shown[50]["latency_ms"] == pytest.approx(30)
    assert page.shown[50]["fps"] == pytest.approx(1 / 0.13)
    assert summary.fps == pytest.approx(1 / 0.13, rel=0.02)


def test_impossible_wishes_are_refused_before_anything_starts(tmp_path):
    clock = Clock()
    script = Script(clock, [])
    script.start = lambda: pytest.fail("started")
    with pytest.raises(InputError, match="--no-frames and --video exclude each other"):
        watch(script, stomach_of, no_frames=True, video=VideoFile(tmp_path / "a.avi"))
    with pytest.raises(InputError, match="a single frame never alerts"):
        watch(script, stomach_of, rules=[Rule("stomach", "high", "", needed=1)])
    with pytest.raises(InputError, match="--stale-s"):
        watch(script, stomach_of, stale_s=math.nan)


def test_a_video_read_fast_gives_the_same_events_every_time(tmp_path):
    pictures = [picture(n % 30 + (32 if 40 <= n < 90 else 0)) for n in range(150)]
    path = write_video(tmp_path / "night.avi", pictures, codec="MJPG")
    logs = []
    for number in range(2):
        log = EventLog(tmp_path / f"{number}.jsonl")
        watch(
            open_source(str(path), pace="fast"),
            lambda image: seen(standing=0.9 if number_of(image) >= 32 else 0.1),
            rules=RULES,
            events=log,
            terminal=quiet(),
        )
        logs.append(
            [
                {k: v for k, v in line.items() if k not in ("onset", "raised", "end")}
                for line in read_events(tmp_path / f"{number}.jsonl")
            ]
        )
    assert logs[0] == logs[1]
    onset, end = logs[0]
    assert (onset["onset_s"], onset["raised_s"], end["end_s"]) == (4.0, 5.0, 9.0)


# ---- What it survives


def test_outlets_that_fail_are_told_of_once_and_alerts_go_on(tmp_path):
    class Broken(Page):
        def show(self, **_):
            raise OSError("no page")

        def add_event(self, _):
            raise OSError("no page")

    class Video:
        def write(self, *_):
            raise OSError("disk full")

        def close(self):
            raise OSError("disk full")

    got, terminal = [], quiet()
    path = tmp_path / "events.jsonl"
    summary, _ = played(
        frames(4, 0.9) + frames(4, 0.1),
        status=Broken(),
        video=Video(),
        terminal=terminal,
        notifier=Notifier(lambda line: got.append(json.loads(line)), "test"),
        events=EventLog(path),
    )
    assert summary.events == {"stomach": 1}
    assert got == read_events(path)
    assert [line["what"] for line in got] == ["onset", "end"]
    said = terminal._stream.getvalue()
    assert said.count("the page failed") == said.count("the video stops here") == 1


def test_a_full_disk_does_not_hold_alerts_up(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    log, terminal = EventLog(tmp_path / "events.jsonl"), quiet()
    monkeypatch.setattr(os, "write", full)
    summary, page = played(frames(4, 0.9) + frames(4, 0.1), events=log, terminal=terminal)
    monkeypatch.undo()
    assert [e.kind for e in page.events] == ["stomach", "stomach"]
    assert summary.unwritten == 2
    said = terminal._stream.getvalue()
    assert said.count("No space left on device") == 1
    assert "ALERT STOMACH (high): the infant lies on the stomach" in said


def test_memory_stays_flat_over_20_000_frames():
    clock = Clock()
    pictures = [np.full((16, 16, 3), n, np.uint8) for n in range(256)]
    sizes = []

    def steps():
        for n in range(20_000):
            if n == 10_000:  # what was allocated before and stays is not of interest
                tracemalloc.start()
            if n in (12_000, 16_000, 19_999):
                sizes.append(tracemalloc.get_traced_memory()[0])
            quiet_now = n % 1000 < 60
            yield (0.1, None) if quiet_now else (0.1, pictures[n % 256])

    def observer(image):
        return seen(stomach=0.9 if 50 < image[0, 0, 0] < 150 else 0.1)

    class Forgetful(Page):
        def show(self, **_):
            pass

        def add_event(self, event):
            pass

    try:
        summary, _ = played(steps(), observer, clock=clock, status=Forgetful(wants_picture=False))
    finally:
        tracemalloc.stop()
    assert summary.events["stomach"] > 50
    assert summary.events["stale"] == 20
    # The terminal's text, in memory here, is all that grows.
    assert sizes[2] - sizes[1] < 60_000, sizes
    assert sizes[1] - sizes[0] < 60_000, sizes


# ---- Pictures


def images_in(folder):
    """Files that are images or videos, by what they hold."""
    starts = (b"\xff\xd8", b"\x89PNG", b"BM", b"RIFF", b"GIF8", b"\x1a\x45\xdf\xa3")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and (path.read_bytes().startswith(starts) or b"ftyp" in path.read_bytes()[:16])
    ]


@pytest.mark.parametrize("no_frames", [True, False])
def test_without_frames_no_image_is_written_or_shown(tmp_path, monkeypatch, no_frames):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    encoded = []
    encode, here = cv2.imencode, threading.get_ident()

    def noted(*given):
        if threading.get_ident() == here:  # not the camera
            encoded.append(given)
        return encode(*given)

    monkeypatch.setattr(cv2, "imencode", noted)
    status = Status()
    shown = []
    show = status.show
    status.show = lambda **what: shown.append(what["picture"]) or show(**what)
    video = None if no_frames else VideoFile(tmp_path / "out.avi")
    with MjpegCamera() as camera:
        stop = threading.Event()
        threading.Timer(0.6, stop.set).start()
        summary = watch(
            Source(find_origin(camera.url)),
            lambda image: seen(stomach=0.9)._replace(
                faces=np.array([[5, 5, 30, 40, 0.9]], np.float32)
            ),
            rules=[Rule("stomach", "high", "", needed=2, of=2, delay_s=0.1)],
            events=EventLog(tmp_path / "events.jsonl"),
            status=status,
            video=video,
            no_frames=no_frames,
            terminal=quiet(),
            stop=stop,
        )
    assert summary.frames > 5
    assert summary.events == {"stomach": 1}
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    if no_frames:
        assert written == {"events.jsonl"}
        assert images_in(tmp_path) == []
        assert encoded == []
        assert set(shown) == {None}
        assert status.picture() is None
    else:
        assert written == {"events.jsonl", "out.avi"}
        assert images_in(tmp_path) == [tmp_path / "out.avi"]
        assert status.picture().startswith(b"\xff\xd8")
        assert sum(p is not None for p in shown) <= 5  # few, however many frames come


def test_an_annotated_video_plays_at_the_right_speed(tmp_path):
    video = VideoFile(tmp_path / "a.mkv", fps=10)
    times_s = [0.0, 0.1, 0.15, 0.2, 0.7, 60.0, 60.1]
    for number, time_s in enumerate(times_s):
        video.write(picture(number), time_s)
    video.close()
    video.close()
    frames = []
    capture = cv2.VideoCapture(str(tmp_path / "a.mkv"), cv2.CAP_FFMPEG)
    while (found := capture.read())[0]:
        frames.append(number_of(found[1]))
    # 2 has no place of its own, 4 fills half a second, 5 one second of a long gap.
    assert frames == [0, 1, 3, *[4] * 5, *[5] * 10, 6]


@pytest.mark.parametrize(
    ("path", "told"),
    [("a.gif", "must end in one of"), ("nowhere/a.mp4", "its folder is not there")],
)
def test_an_impossible_video_is_refused(tmp_path, path, told):
    with pytest.raises(InputError, match=told):
        VideoFile(tmp_path / path)


def test_a_video_stops_before_the_disk_is_full(tmp_path, monkeypatch):
    video = VideoFile(tmp_path / "a.avi")
    video.write(picture(1), 0.0)
    monkeypatch.setattr("jaxbed.monitor.overlay._FREE_BYTES", 1 << 60)
    with pytest.raises(OSError, match="are free"):
        for number in range(60):
            video.write(picture(number), number / 10)
    video.close()
    assert (tmp_path / "a.avi").stat().st_size > 1000


def test_what_was_found_is_drawn_on_a_copy():
    frame = np.full((120, 160, 3), 90, np.uint8)
    found = seen(stomach=0.9, standing=math.nan)._replace(
        faces=np.array([[60, 40, 110, 90, 0.9], [np.nan] * 5, [-1e9, 0, 1e9, 5, 0.1]], np.float32),
        note="Gesicht verdeckt ü\n",
    )
    danger = draw(frame, found, state="stomach", enter={"stomach": 0.7})
    calm = draw(frame, found, state="OK", enter={"stomach": 0.95})
    assert (frame == 90).all()
    assert danger.shape == frame.shape
    assert (danger != calm).any()
    assert tuple(danger[65, 60]) == (80, 200, 80)  # the box's left side
    with pytest.raises((ValueError, TypeError)):
        draw(frame, found._replace(faces=np.zeros((2, 3))), state="OK")
    assert draw(np.zeros((16, 16, 3), np.uint8), found, state="OK").shape == (16, 16, 3)


# ---- The terminal


class Tty(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_line_of_state_and_lines_that_stay():
    clock = Clock()
    tty = Tty()
    played(frames(5, 0.9), terminal=Terminal(tty), clock=clock)
    states = [part for part in tty.getvalue().split("\r\x1b[2K") if "frames/s" in part]
    assert len(states) > 15
    assert "stomach  stomach 0.90  standing 0.00  10.0 frames/s  0 ms  0 dropped" in states[-2]
    lasting = [line for line in tty.getvalue().split("\n") if "ALERT" in line]
    assert len(lasting) == 1
    assert tty.getvalue().endswith("\n")


def test_elsewhere_there_are_lines_on_changes_only():
    stream = io.StringIO()
    played(frames(3, 0.1) + frames(3, 0.9) + frames(5, 0.1), terminal=Terminal(stream))
    raised, over = stream.getvalue().splitlines()
    assert "ALERT STOMACH (high): " in raised
    assert "over: stomach after 3.0 s" in over


def test_a_closed_window_and_odd_names_harm_nothing():
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.say("a\x1b[2Jb\r\nc")
    assert stream.getvalue() == "a?[2Jb??c\n"
    stream.close()
    terminal.say("nobody hears")
    terminal.close()


# ---- Processes

PROGRAM = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a job in the background
import numpy as np
from jaxbed.monitor.alerts import Rule
from jaxbed.monitor.captures import find_origin
from jaxbed.monitor.events import EventLog
from jaxbed.monitor.observation import Observation
from jaxbed.monitor.source import BackOff, Source
from jaxbed.monitor.watch import watch

def observer(image):
    return Observation({"stomach": 0.9}, np.zeros((0, 5), np.float32), {}, {})

summary = watch(
    Source(find_origin(sys.argv[1], open_s=1, read_s=1), back_off=BackOff(first_s=0.05)),
    observer,
    rules=[Rule("stomach", "high", "on the stomach", needed=2, of=2, delay_s=0.1)],
    stale_s=float(sys.argv[3]),
    events=EventLog(Path(sys.argv[2])),
)
assert "jax" not in sys.modules
print(summary.ended)
"""


@contextlib.contextmanager
def monitor(camera, path, *, stale_s=5.0):
    command = [sys.executable, "-c", PROGRAM, camera.url, str(path), str(stale_s)]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        yield program
    finally:
        program.kill()
        program.wait()


def lines_in(path, count, wait_s=20.0):
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if path.exists() and len(read_events(path)) >= count:
            return read_events(path)
        time.sleep(0.02)
    raise AssertionError(f"no {count} lines in time")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_event_and_the_program_with_0(tmp_path, number):
    path = tmp_path / "events.jsonl"
    with MjpegCamera() as camera, monitor(camera, path) as program:
        lines_in(path, 1)
        if number == signal.SIGTERM:
            camera.mode = "stall"  # while a read blocks
        program.send_signal(number)
        out, err = program.communicate(timeout=15)
    assert (program.returncode, out) == (0, "the monitor stopped\n"), err
    onset, end = read_events(path)
    assert (onset["what"], end["what"], onset["id"]) == ("onset", "end", end["id"])
    assert end["rule"].endswith("; ended: the monitor stopped")
    assert "Traceback" not in err


def test_a_killed_monitor_loses_no_line_and_goes_on_counting_and_stale_comes_in_time(tmp_path):
    path = tmp_path / "events.jsonl"
    with MjpegCamera() as camera:
        with monitor(camera, path) as program:
            lines_in(path, 1)
            program.send_signal(signal.SIGKILL)
        with path.open("ab") as file:
            file.write(b'{"id": 2, "what": "ons')
        with monitor(camera, path, stale_s=0.6) as program:
            lines_in(path, 2)
            camera.mode = "stall"
            *_, stale = lines_in(path, 3)
            camera.mode = "ok"
            lines_in(path, 4)
            program.terminate()
            program.communicate(timeout=15)
    lines = read_events(path)
    assert [(x["id"], x["kind"], x["what"]) for x in lines] == [
        *((1, "stomach", "onset"), (2, "stomach", "onset"), (3, "stale", "onset")),
        *((3, "stale", "end"), (2, "stomach", "end")),
    ]
    assert 0.6 <= stale["raised_s"] - stale["onset_s"] < 1.2
    assert {"torn": '{"id": 2, "what": "ons'} in map(json.loads, path.read_text().splitlines())


# ---- Small parts


def test_remarks_come_in_order_and_once():
    remarks = Remarks()
    for key in "abab":
        remarks.say(key, f"about {key}")
    assert remarks.take() == ["about a", "about b"]
    remarks.say("a", "again")
    assert remarks.take() == []


def test_latencies_are_percentiles_within_their_bins():
    rng = np.random.default_rng(0)
    durations = rng.lognormal(3, 1, 5000)
    histogram = Histogram()
    assert np.isnan(histogram.percentile_ms(0.5))
    for duration in durations:
        histogram.add(duration)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = np.quantile(durations, share, method="inverted_cdf")
        assert exact <= histogram.percentile_ms(share) * (1 + 1e-9) <= exact * 1.0201
    assert (histogram.count, histogram.most_ms) == (5000, durations.max())
    for odd in (0.0, -1.0, 1e9):
        histogram.add(odd)
    shares = [histogram.percentile_ms(share) for share in np.linspace(0.01, 1, 50)]
    assert all(a <= b for a, b in pairwise(shares))
    assert histogram.percentile_ms(1.0) == pytest.approx(100_000, rel=0.03)
