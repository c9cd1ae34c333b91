"""What the monitor's page is told."""

import json
import threading

import numpy as np
import pytest

from jaxbed.monitor.status import EVENTS, SILENT_S, UNSEEN_S, Status
from tests.monitor_status import NAN, PICTURE, Clock, event, scores, show


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def status(clock):
    return Status(now=clock, wall=lambda: 1_700_000_000.0 + clock.at)


def test_nothing_is_ok_before_the_first_frame(status):
    told = status.snapshot()
    assert (told["level"], told["frame_age_s"], told["events"]) == ("starting", None, [])


def test_a_snapshot_is_json_and_null_where_nothing_can_be_judged(status):
    show(status, observation=scores(occluded=np.float32(NAN)), latency_ms=NAN)
    told = json.loads(json.dumps(status.snapshot(), allow_nan=False))
    assert told["scores"]["occluded"] is None
    assert told["scores"]["stomach"] == 0.03
    assert told["latency_ms"] is None


def test_a_danger_that_cannot_be_judged_for_long_is_not_taken_for_absent(status, clock):
    show(status)
    for _ in range(8):
        assert status.snapshot()["level"] == "ok"
        clock.at += UNSEEN_S / 8
        show(status, observation=scores(occluded=NAN))
    clock.at += 0.1
    show(status, observation=scores(occluded=NAN))
    told = status.snapshot()
    assert (told["level"], told["unseen"]) == ("unsure", ["occluded"])
    show(status)
    assert status.snapshot()["level"] == "ok"


@pytest.mark.parametrize(
    ("state", "level"),
    [
        *(("OK", "ok"), ("occluded", "danger"), ("standing", "danger"), ("STALE", "stale")),
        *(("STARTING", "starting"), ("stopped", "stopped")),
    ],
)
def test_level_of_a_state(status, state, level):
    show(status, state)
    assert status.snapshot()["level"] == level


def test_a_danger_of_ones_own_rule_is_a_danger(status):
    show(status, "climbing")
    assert status.snapshot()["level"] == "danger"


def test_what_the_last_frame_showed_is_kept_between_frames_and_left_out_when_blind(status, clock):
    show(status, observation=scores(stomach=0.2))
    clock.at += 2 * UNSEEN_S
    show(status, observation=None, picture=None)
    told = status.snapshot()
    assert (told["level"], told["blind"], told["scores"]["stomach"]) == ("ok", False, 0.2)
    show(status, "stomach", observation=None, picture=None)
    status.add_event(event("a"))
    status.add_event(event("b", "stale"))
    told = status.snapshot()
    assert (told["level"], told["blind"], told["scores"]) == ("danger", True, {})


def test_an_open_event_is_a_danger_whatever_the_state(status):
    show(status)
    status.add_event(event("a"))
    assert status.snapshot()["level"] == "danger"
    status.add_event(event("a", end_s=5.0))
    assert status.snapshot()["level"] == "ok"


def test_a_watch_loop_that_says_nothing_is_told(status, clock):
    show(status)
    clock.at += SILENT_S + 1
    assert status.snapshot()["level"] == "stopped"


def test_the_frames_age_is_counted_from_its_capture_and_goes_on_while_stale(status, clock):
    show(status, latency_ms=250.0)
    clock.at += 3.0
    assert status.snapshot()["frame_age_s"] == pytest.approx(3.25)
    show(status, "STALE", observation=None, picture=None)
    assert status.snapshot()["frame_age_s"] == pytest.approx(3.25)
    assert status.picture() == PICTURE


def test_event_times_are_wall_clock(status, clock):
    status.add_event(event("a", onset_s=990.0, raised_s=992.5))
    (told,) = status.snapshot()["events"]
    assert told["onset"] == 1_700_000_000.0 + 990.0
    assert (told["open"], told["duration_s"], told["raised_after_s"]) == (True, 10.0, 2.5)
    status.add_event(event("a", onset_s=990.0, end_s=994.0))
    (told,) = status.snapshot()["events"]
    assert (told["open"], told["duration_s"]) == (False, 4.0)


def test_an_acknowledged_event_stays_so_when_it_changes(status):
    assert not status.acknowledge("a")
    status.add_event(event("a"))
    assert status.acknowledge("a")
    status.add_event(event("a", end_s=5.0))
    (told,) = status.snapshot()["events"]
    assert told["acknowledged"] == 1_700_001_000.0


def test_events_are_bounded_and_the_open_ones_stay(status):
    status.add_event(event("open"))
    for i in range(3 * EVENTS):
        status.add_event(event(f"{i}", onset_s=float(i), end_s=i + 1.0))
    kept = [event["id"] for event in status.snapshot()["events"]]
    assert len(kept) == EVENTS
    assert kept[0] == f"{3 * EVENTS - 1}"
    assert "open" in kept
    for i in range(2 * EVENTS):
        status.add_event(event(f"still {i}"))
    assert len(status.snapshot()["events"]) == EVENTS


def test_events_are_left_out_for_a_reader_who_has_them(status):
    version = status.snapshot()["events_version"]
    assert "events" not in status.snapshot(version)
    status.add_event(event("a"))
    told = status.snapshot(version)
    assert len(told["events"]) == 1
    status.acknowledge("a")
    assert "events" in status.snapshot(told["events_version"])
    assert Status().snapshot(version)["events"] == []


def test_no_frames_mode_drops_a_picture(clock):
    status = Status(wants_picture=False, now=clock)
    show(status)
    assert status.picture() is None


def test_any_thread_may_write_and_read():
    status, failures = Status(), []

    def work(number):
        try:
            for i in range(30):
                show(status, "OK" if i % 2 else "stomach")
                status.add_event(event(f"{number} {i % 60}", end_s=None if i % 3 else 1.0))
                status.acknowledge(f"{number} {i % 60}")
                json.dumps(status.snapshot(), allow_nan=False)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
