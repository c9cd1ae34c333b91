"""The log of events against cuts, full disks and rotation; commands and posts that hang or fail."""

import errno
import json
import os
import resource
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from jaxbed.errors import InputError
from jaxbed.monitor import notify
from jaxbed.monitor.alerts import Event
from jaxbed.monitor.events import EventLog, WallTime, read_events, record
from jaxbed.monitor.notify import Notifier

RAISED = Event(
    id=3,
    kind="stomach",
    priority="high",
    onset_s=1010.0,
    end_s=None,
    raised_s=1013.0,
    rule="the infant lies on the stomach: …",
    evidence=((1010.0, 0.91234567), (1013.0, 0.95)),
)
ENDED = RAISED._replace(end_s=1060.5)
NIGHT = 1_790_000_000.0  # seconds since 1970


def wall(*, jumped_s=0.0):
    """At 1020 s of the clock it is NIGHT, or what somebody set it to."""
    return WallTime(clock=lambda: 1020.0, wall=lambda: NIGHT + jumped_s)


def line_of(number):
    return {**record(RAISED, wall=wall()), "id": number}


def ids(path):
    return [line["id"] for line in read_events(path)]


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_record_has_dates_for_people_and_seconds_for_programs():
    told = record(ENDED, wall=wall(), origin_s=1000.0)
    assert told["what"] == "end"
    assert (told["id"], told["kind"], told["priority"]) == (3, "stomach", "high")
    assert (told["onset_s"], told["raised_s"], told["end_s"]) == (10.0, 13.0, 60.5)
    assert told["evidence"] == [[10.0, 0.9123], [13.0, 0.95]]
    assert datetime.fromisoformat(told["onset"]).timestamp() == NIGHT - 10
    assert datetime.fromisoformat(told["end"]).timestamp() == NIGHT + 40.5
    assert datetime.fromisoformat(told["raised"]).utcoffset() is not None
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    onset = record(RAISED, wall=wall(), origin_s=1000.0)
    assert (onset["what"], onset["end"], onset["end_s"]) == ("onset", None, None)


def test_a_clock_that_is_set_changes_dates_only():
    before, after = (record(ENDED, wall=wall(jumped_s=s), origin_s=1000.0) for s in (0, -86400))
    dates = {"onset", "raised", "end"}
    assert {k: v for k, v in before.items() if k not in dates} == {
        k: v for k, v in after.items() if k not in dates
    }
    assert all(before[name] != after[name] for name in dates)


def test_lines_are_on_the_disk_when_write_returns(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or fsync(file))
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in (1, 2):
        log.write(line_of(number))
        assert ids(path) == [*range(1, number + 1)]
        assert len(synced) == number
    log.close()
    log.close()
    assert log.remarks.take() == []
    assert path.read_text().endswith("}\n")


def test_numbers_go_on_after_a_restart(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        assert log.next_id == 1
        log.write(line_of(41))
        log.write(line_of(40))
    with EventLog(path) as log:
        assert log.next_id == 42


def test_a_log_that_was_cut_anywhere_keeps_every_whole_line_and_stays_json(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for number in (1, 2, 3):
            log.write({"id": number, "rule": "the face is covered …"})
    content = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(content) if byte == 10]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        with EventLog(path) as log:
            log.write(line_of(9))
        # A line that lacks nothing but its end is whole.
        whole = [n for n, end in enumerate(ends, 1) if end - 1 <= cut]
        assert ids(path) == [*whole, 9], cut
        assert log.next_id == max([0, *whole]) + 1
        text = path.read_text(encoding="utf-8", errors="strict")
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines())
        torn = content[max([0, *(ends[n - 1] for n in whole if ends[n - 1] <= cut)]) : cut]
        if len(whole) == len([e for e in ends if e <= cut]) and torn:
            assert {"torn": torn.decode(errors="replace")} in map(json.loads, text.splitlines())


def test_foreign_lines_stay_and_a_huge_one_is_not_touched(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"# mine\n\xff\xfe\n[1]\n" + b"x" * 3_000_000)
    with EventLog(path) as log:
        log.write(line_of(1))
    assert path.read_bytes().startswith(b"# mine\n\xff\xfe\n[1]\n" + b"x" * 3_000_000 + b"\n{")
    assert ids(path) == [1]


@contextmanager
def no_file_longer_than(size):
    """A disk that is full after so many bytes of a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_of_once_and_no_line_is_lost_or_halved(tmp_path):
    path, clock = tmp_path / "events.jsonl", Clock()
    log = EventLog(path, clock=clock)
    log.write(line_of(1))
    with no_file_longer_than(path.stat().st_size + 50):
        for number in (2, 3, 4):
            log.write(line_of(number))
            clock.now_s += 10
            log.retry()
            assert log.waiting == number - 1
            assert ids(path) == [1]
            assert path.read_bytes().endswith(b"\n")
    (told,) = log.remarks.take()
    assert told.startswith(f"{path}: events cannot be written (")
    assert "alerts go on" in told
    log.retry()
    assert log.waiting == 3  # not tried again yet
    clock.now_s += 5
    log.retry()
    assert (log.waiting, log.lost) == (0, 0)
    assert ids(path) == [1, 2, 3, 4]
    log.close()
    assert log.remarks.take() == []


@pytest.mark.parametrize("failing", ["write", "fsync", "ftruncate too"])
def test_half_a_line_is_taken_back(tmp_path, monkeypatch, failing):
    path = tmp_path / "events.jsonl"
    log, write = EventLog(path), os.write
    log.write(line_of(1))
    calls = []

    def full(file, content):
        calls.append(content)
        if len(calls) % 2:
            return write(file, content[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    def failed(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        if failing == "fsync":
            patched.setattr(os, "fsync", failed)
        else:
            patched.setattr(os, "write", full)
        if failing == "ftruncate too":
            patched.setattr(os, "ftruncate", failed)
        log.write(line_of(2))
        assert log.waiting == 1
    log.write(line_of(3))
    assert ids(path) == [1, 2, 3]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == (4 if failing == "ftruncate too" else 3)


def test_what_waits_is_bounded_and_counted(tmp_path, monkeypatch):
    log = EventLog(tmp_path / "events.jsonl")
    monkeypatch.setattr("jaxbed.monitor.events._KEPT_LINES", 3)
    with no_file_longer_than(0):
        for number in range(10):
            log.write({"id": number})
        log.close()
    assert (log.waiting, log.lost) == (3, 7)
    assert log.remarks.take()[-1].endswith("3 lines could not be written.")


def test_a_log_that_is_moved_away_is_begun_anew(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write(line_of(1))
        path.rename(tmp_path / "old.jsonl")
        log.write(line_of(2))
        path.unlink()
        log.write(line_of(3))
    assert ids(tmp_path / "old.jsonl") == [1]
    assert ids(path) == [3]


@pytest.mark.parametrize("where", ["nowhere/events.jsonl", "", "file/events.jsonl"])
def test_an_impossible_place_is_refused(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="events cannot be written there"):
        EventLog(tmp_path / where)


def test_a_disk_that_is_full_from_the_start_is_no_reason_to_give_up(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        log = EventLog(tmp_path / "events.jsonl")
        log.write(line_of(1))
    assert log.waiting == 1
    log.close()
    assert ids(tmp_path / "events.jsonl") == [1]


# ---- Notifications


def until(found, wait_s=10.0):
    deadline = time.monotonic() + wait_s
    while not found():
        assert time.monotonic() < deadline, "never came"
        time.sleep(0.005)


def test_a_command_gets_each_record_on_its_standard_input(tmp_path):
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
    out = tmp_path / "out $(touch x); *.jsonl"  # would be another name in a shell
    with notify.command([sys.executable, "-c", code, str(out)]) as notifier:
        for number in (1, 2):
            notifier.send(line_of(number))
    assert ids(out) == [1, 2]
    assert (notifier.delivered, notifier.failed) == (2, 0)
    assert notifier.remarks.take() == []


def test_a_command_that_fails_or_hangs_is_told_of_once(tmp_path):
    with notify.command(["false"]) as notifier:
        notifier.send({"id": 1})
        notifier.send({"id": 2})
    assert notifier.failed == 2
    assert notifier.remarks.take() == [
        "false: an event was not delivered (it ended with status 1); later ones are tried too."
    ]
    # Its child would live on and hold the output open.
    sleeper = ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"]
    with notify.command(sleeper, limit_s=0.3) as notifier:
        begun_s = time.monotonic()
        notifier.send({"id": 1})
        assert time.monotonic() - begun_s < 0.2
        until(lambda: notifier.failed)
    assert "took longer than 0.3 s and was ended" in notifier.remarks.take()[0]
    child = int((tmp_path / "pid").read_text())
    until(lambda: not running(child))


def running(pid):
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
        return told.rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_that_does_not_read_or_vanished_stops_nothing(tmp_path):
    program = tmp_path / "ring"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with notify.command([str(program)]) as notifier:
        notifier.send({"id": "x" * 300_000})
        until(lambda: notifier.delivered)
        program.unlink()
        notifier.send({"id": 2})
    assert (notifier.delivered, notifier.failed) == (1, 1)


@pytest.mark.parametrize("argv", [[], ["no-such-program-here"], ["/etc/passwd"]])
def test_a_command_that_cannot_be_run_is_refused(argv):
    with pytest.raises(InputError, match="--on-event names"):
        notify.command(argv)


def test_a_full_queue_drops_the_oldest_and_never_waits():
    gate, got = threading.Event(), []

    def deliver(line):
        gate.wait(10)
        got.append(json.loads(line)["id"])

    notifier = Notifier(deliver, "slow")
    notifier.send({"id": 0})
    until(lambda: notifier._queue.empty())  # it is being delivered
    begun_s = time.monotonic()
    for number in range(1, 151):
        notifier.send({"id": number})
    assert time.monotonic() - begun_s < 1
    gate.set()
    notifier.close()
    notifier.close()
    assert got == [0, *range(51, 151)]
    assert (notifier.delivered, notifier.failed) == (101, 50)
    assert notifier.remarks.take() == ["slow: too many events wait; the oldest are given up."]


def test_closing_does_not_wait_for_ever():
    never = threading.Event()
    notifier = Notifier(lambda _: never.wait(60), "slow")
    for number in range(3):
        notifier.send({"id": number})
    begun_s = time.monotonic()
    notifier.close(wait_s=0.1)
    assert time.monotonic() - begun_s < 2
    assert notifier.remarks.take() == ["slow: not all events were delivered in time."]
    never.set()


class Receiver(HTTPServer):
    """Takes posts; answers with the statuses it was given, then 200."""

    def __init__(self, *statuses):
        self.statuses, self.got = list(statuses), []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, self.headers, json.loads(body)))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", "http://192.0.2.1/elsewhere")
                self.end_headers()

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server_port}/hook?key=1"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def test_a_webhook_gets_each_record(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    with Receiver() as receiver, notify.webhook(receiver.url) as notifier:
        notifier.send(line_of(1))
        until(lambda: notifier.delivered)
    (path, headers, body) = receiver.got[0]
    assert (path, body) == ("/hook?key=1", line_of(1))
    assert headers["Host"] == f"localhost:{receiver.server_port}"
    assert headers["Content-Type"] == "application/json"


def test_a_webhook_is_tried_again_when_the_server_stumbles_and_follows_nowhere(monkeypatch):
    monkeypatch.setattr(notify, "_PAUSE_S", 0.01)
    with Receiver(503, 500, 200, 302, 404) as receiver, notify.webhook(receiver.url) as notifier:
        for number in (1, 2, 3):
            notifier.send({"id": number})
        until(lambda: notifier.delivered + notifier.failed == 3)
    assert [body["id"] for _, _, body in receiver.got] == [1, 1, 1, 2, 3]
    assert (notifier.delivered, notifier.failed) == (1, 2)
    (told,) = notifier.remarks.take()
    assert "the answer was status 302" in told
    with notify.webhook(receiver.url) as notifier:  # nobody listens any more
        notifier.send({"id": 4})
        until(lambda: notifier.failed)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://8.8.8.8/x", "8.8.8.8 is not an address of the local network"),
        ("http://[2001:4860:4860::8888]/x", "is not an address of the local network"),
        ("http://[::ffff:8.8.8.8]/x", "is not an address of the local network"),
        ("http://0.0.0.0/x", "is not an address of the local network"),
        ("ftp://127.0.0.1/x", "is not an address such as"),
        ("127.0.0.1:80", "is not an address such as"),
        ("http://127.0.0.1:99999/", "is not an address such as"),
        ("http:///x", "is not an address such as"),
        ("http://[::1/x", "is not an address such as"),
    ],
)
def test_other_addresses_are_refused(address, told):
    with pytest.raises(InputError, match=told):
        notify.webhook(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "192.168.3.4", "10.1.2.3", "172.16.0.9", "[fe80::1]", "[fd00::1]"],
)
def test_local_addresses_are_taken_and_others_when_allowed(host):
    notify.webhook(f"https://{host}:9/x").close()
    notify.webhook("http://8.8.8.8/x", allow_remote=True).close()


def test_a_name_that_leads_elsewhere_later_gets_nothing(monkeypatch):
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "8.8.8.8", port))]

    monkeypatch.setattr(notify.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(notify.socket, "create_connection", lambda *_: pytest.fail("connected"))
    with notify.webhook("http://ring.example/x") as notifier:
        notifier.send({"id": 1})
        until(lambda: notifier.failed)
    assert "8.8.8.8 is not an address of the local network" in notifier.remarks.take()[0]
