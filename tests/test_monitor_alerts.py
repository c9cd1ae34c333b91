"""The alert engine against a plain restatement of its rules, scripts of episodes, and bad input."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbed.errors import InputError
from jaxbed.monitor.alerts import (
    DANGERS,
    POINTS,
    STALE,
    Rule,
    check,
    finish,
    open_events,
    start,
    step,
)

RULE = Rule("stomach", "high", "the infant lies on the stomach", delay_s=1.0, clear_s=0.5)
HZ = 10
QUICK = settings(max_examples=100, deadline=None)

rules = st.builds(
    lambda needed, more, delay_s, clear_s, cooldown_s: Rule(
        *("stomach", "high", "words"),
        **{"needed": needed, "of": needed + more, "delay_s": delay_s},
        **{"clear_s": clear_s, "cooldown_s": cooldown_s},
    ),
    needed=st.integers(2, 5),
    more=st.integers(0, 4),
    delay_s=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    clear_s=st.sampled_from([0.0, 0.5, 2.0]),
    cooldown_s=st.sampled_from([0.0, 1.0, 5.0]),
)
scores = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.69, 0.7, 0.9, 1.0])
nights = st.lists(st.one_of(scores, st.just(math.nan)), max_size=120)


def play(rule, frames, *, stale_s=1e6, end=True):
    """Returns the changes that (time_s, score) make, a score None for a frame that never came."""
    state, changes = start([rule], stale_s=stale_s), []
    for time_s, score in frames:
        state, new = step(state, time_s, None if score is None else {rule.kind: score})
        changes += new
    return changes + (finish(state, frames[-1][0])[1] if end and frames else [])


def at_10_hz(values):
    return [(n / HZ, value) for n, value in enumerate(values)]


def episodes(changes):
    """Returns (onset_s, raised_s, end_s) by event."""
    last = {event.id: event for event in changes}
    return [(event.onset_s, event.raised_s, event.end_s) for event in last.values()]


def restated(rule, frames):
    """What events a night has, from the rule's words, with all frames at hand."""
    frames = [(at, score) for at, score in frames if score == score]
    at, score = [x[0] for x in frames], [x[1] for x in frames]

    def votes(begin, j):
        window = range(max(begin, j - rule.of + 1), j + 1)
        return [k for k in window if score[k] >= rule.enter]

    found, begin, ready_s = [], 0, -math.inf
    while True:
        first = next(
            (j for j in range(begin, len(at)) if len(votes(begin, j)) >= rule.needed), None
        )
        if first is None:
            return found
        onset_s, raised_s = at[votes(begin, first)[0]], None
        for j in range(first, len(at)):
            last_hit = max(k for k in range(begin, j + 1) if score[k] >= rule.enter)
            quiet = [k for k in range(last_hit + 1, j + 1) if score[k] <= rule.exit]
            if len(quiet) >= rule.needed:
                over_s = at[quiet[0]]
                if raised_s is None or at[j] - over_s >= rule.clear_s:
                    begin = j + 1
                    break
            elif (
                raised_s is None
                and at[j] - onset_s >= rule.delay_s
                and at[j] >= ready_s
                and len(votes(begin, j)) >= rule.needed
            ):
                raised_s = at[j]
        else:
            return found + ([(onset_s, raised_s, None)] if raised_s is not None else [])
        if raised_s is not None:
            found.append((onset_s, raised_s, over_s))
            ready_s = at[j] + rule.cooldown_s


@QUICK
@given(rules, nights)
def test_events_are_those_of_the_rule_restated(rule, night):
    frames = at_10_hz(night)
    assert episodes(play(rule, frames, end=False)) == restated(rule, frames)


@QUICK
@given(rules, nights)
def test_every_event_has_one_onset_one_end_votes_and_a_distance_to_the_next(rule, night):
    frames = at_10_hz(night)
    changes = play(rule, frames)
    for kinds in ([c for c in changes if c.end_s is None], [c for c in changes if c.end_s]):
        assert len({event.id for event in kinds}) == len(kinds) == len(changes) / 2
    found = episodes(changes)
    for onset_s, raised_s, end_s in found:
        assert onset_s + rule.delay_s <= raised_s <= end_s or end_s == frames[-1][0]
        judged = [s for at, s in frames if s == s and at <= raised_s][-rule.of :]
        assert sum(s >= rule.enter for s in judged) >= rule.needed >= 2
    for earlier, later in pairwise(found):
        assert later[1] >= earlier[2] + rule.cooldown_s
        assert later[0] > earlier[2]


@QUICK
@given(rules, nights, st.data())
def test_frames_that_cannot_be_judged_and_passing_time_change_nothing(rule, night, data):
    judged = [s for s in night if s == s]
    blanks = [None, math.nan, math.inf, -0.1, 1.1, "high", None, {}]
    dense = []
    for number, value in enumerate(judged):
        # Their own times: a blank lies between two frames.
        for _ in range(data.draw(st.integers(0, 2))):
            dense.append((number / HZ - 0.05, data.draw(st.sampled_from(blanks))))
        dense.append((number / HZ, value))
    assert play(rule, dense, end=False) == play(rule, at_10_hz(judged), end=False)


def script(pieces, glitch_every):
    """Frames of calm and danger in turns, every so many of them turned into the opposite."""
    values = [danger for frames, danger in pieces for _ in range(frames)]
    if glitch_every:
        values[glitch_every::glitch_every] = [not v for v in values[glitch_every::glitch_every]]
    return at_10_hz([0.95 if danger else 0.05 for danger in values])


@QUICK
@given(
    st.lists(st.tuples(st.integers(25, 60), st.integers(25, 80)), min_size=1, max_size=4),
    st.sampled_from([0, 7, 11, 23]),
)
def test_every_long_episode_is_one_event_whatever_frames_flicker(spans, glitch_every):
    rule = Rule("stomach", "high", "", delay_s=1.0, clear_s=0.5, cooldown_s=0.0)
    pieces = [piece for calm, danger in spans for piece in ((calm, False), (danger, True))]
    found = episodes(play(rule, script([*pieces, (30, False)], glitch_every)))
    assert len(found) == len(spans)
    begin = 0
    for (calm, danger), (onset_s, raised_s, end_s) in zip(spans, found, strict=True):
        begin += calm
        assert onset_s == pytest.approx(begin / HZ, abs=0.4)
        assert raised_s <= begin / HZ + rule.delay_s + 0.6
        begin += danger
        assert end_s == pytest.approx(begin / HZ, abs=0.8)  # a late flicker counts as danger


@QUICK
@given(rules, st.lists(st.integers(0, 149), max_size=30))
def test_glitches_never_alert(rule, at):
    """Fewer than needed in any window, however many there are."""
    values = [0.0] * 150
    for n in at:
        if sum(v > 0 for v in values[max(0, n - rule.of) : n + rule.of]) == 0:
            values[n] = 1.0
    assert play(rule, at_10_hz(values)) == []


def test_one_frame_never_alerts_not_even_shown_again():
    with pytest.raises(InputError, match="must need 2 at least"):
        Rule("stomach", "high", "", needed=1, of=1).check()
    rule = Rule("stomach", "high", "", needed=2, of=2, delay_s=0)
    assert play(rule, [(0, 1.0), *((n / HZ, None) for n in range(1, 100))]) == []


def test_votes_before_a_gap_are_forgotten():
    rule = Rule("stomach", "high", "", needed=3, of=5, delay_s=0)
    frames = [(0.0, 1.0), (0.1, 1.0), (20.0, 1.0)]
    assert play(rule, frames, stale_s=30) != []
    assert [c for c in play(rule, frames, stale_s=10) if c.kind != STALE] == []
    # The same gap, while frames came that could not be judged.
    frames = [(0.0, 1.0), (0.1, 1.0), *((float(n), math.nan) for n in range(1, 20)), (20.0, 1.0)]
    assert play(rule, frames, stale_s=10) == []


def test_a_danger_that_cannot_be_judged_lasts_unless_told_otherwise():
    danger = at_10_hz([1.0] * 30)
    unseen = [(3 + n / HZ, math.nan) for n in range(100)]
    assert len(play(RULE, danger + unseen, end=False)) == 1
    rule = Rule("stomach", "high", "", delay_s=1.0, lost_s=5.0)
    raised, ended = play(rule, danger + unseen, end=False)
    assert ended.id == raised.id
    assert 2.9 + 5 < ended.end_s <= 2.9 + 5.2
    assert "could not be judged for 5" in ended.rule


def test_a_danger_that_outlasts_the_cooldown_is_raised_after_it():
    rule = Rule("stomach", "high", "", delay_s=0.5, clear_s=0.0, cooldown_s=10)
    found = episodes(play(rule, at_10_hz([1.0] * 20 + [0.0] * 20 + [1.0] * 150)))
    assert len(found) == 2
    ended_s = 2.0 + 0.3  # the fourth calm frame
    assert found[1][:2] == (4.0, pytest.approx(ended_s + 10))


def test_an_event_tells_why_and_shows_its_scores():
    raised, ended = play(RULE, at_10_hz([0.1] * 10 + [0.9] * 30 + [0.2] * 30))
    assert raised.rule == (
        "the infant lies on the stomach: 6 of the last 6 judged frames were at least 0.7, 1.0 s "
        "after the first (rule: 4 of 6, 1 s)"
    )
    assert ended.rule.startswith(raised.rule)
    assert ended.rule.endswith("; ended: 6 judged frames were at most 0.4, for 0.5 s")
    assert raised.evidence == tuple((n / HZ, 0.9) for n in range(10, 21))
    assert raised.evidence[0] == (raised.onset_s, 0.9)
    assert ended.evidence[: len(raised.evidence)] == raised.evidence


@pytest.mark.parametrize("frames", [63, 64, 65, 1000, 5000])
def test_evidence_is_bounded_and_covers_the_whole_episode(frames):
    ramp = [0.7 + 0.3 * n / frames for n in range(frames)]
    *_, ended = play(RULE, at_10_hz(ramp))
    assert POINTS / 4 < len(ended.evidence) <= POINTS
    assert ended.evidence[0] == (0.0, 0.7)
    assert ended.evidence[-1] == ((frames - 1) / HZ, ramp[-1])
    steps = [b[0] - a[0] for a, b in pairwise(ended.evidence[:-1])]
    assert max(steps) == pytest.approx(min(steps), abs=1e-6)


def test_the_most_urgent_event_comes_first_and_kinds_do_not_mix():
    state = start(DANGERS, stale_s=10, first_id=7)
    for n in range(60):
        state, _ = step(state, n / HZ, {"standing": 0.9, "stomach": 0.9, "occluded": math.nan})
    assert [(e.kind, e.priority) for e in open_events(state)] == [
        *(("stomach", "high"), ("standing", "medium"))
    ]
    assert {e.id for e in open_events(state)} == {7, 8}
    state, ended = finish(state, 6.0, why="the source ended")
    assert [e.kind for e in ended] == ["stomach", "standing"]
    assert all(e.end_s == 6.0 and e.rule.endswith("; ended: the source ended") for e in ended)
    assert open_events(state) == []
    assert finish(state, 7.0)[1] == []


def restated_stale(steps, stale_s):
    """Returns (onset_s, raised_s, end_s or None) of stale events, from lists that only grow."""
    found, last_s, back = [], 0.0, []
    for at, new in steps:
        blind = bool(found) and found[-1][2] is None
        if not blind and at - last_s >= stale_s:
            found.append([last_s, at, None])
            blind, back = True, []
        if new:
            back = [at] if at - last_s >= stale_s else [*back, at]
            if blind and len(back) >= 2:
                found[-1][2] = back[0]
            last_s = at
    return [tuple(event) for event in found]


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 1.0, 3.0]), st.booleans()), max_size=60),
    st.sampled_from([0.5, 1.0, 2.5]),
)
def test_stale_is_raised_in_time_and_ends_with_two_new_frames(steps, stale_s):
    time_s, timed = 0.0, []
    for passed_s, new in steps:
        time_s = round(time_s + passed_s, 3)
        timed.append((time_s, new))
    frames = [(at, 0.0 if new else None) for at, new in timed]
    changes = play(RULE, frames, stale_s=stale_s, end=False)
    assert {c.kind for c in changes} <= {STALE}
    assert episodes(changes) == restated_stale(timed, stale_s)


def test_stale_says_why_and_leaves_an_open_danger_open():
    state = start([RULE], stale_s=5)
    for n in range(30):
        state, _ = step(state, n / HZ, {"stomach": 0.9})
    state, changes = step(state, 7.8, None)
    assert changes == []
    state, (stale,) = step(state, 8.0, None, blind="the picture does not change")
    assert stale.rule == "the picture does not change: nothing new for 5.1 s (rule: 5 s)"
    assert (stale.kind, stale.priority, stale.onset_s) == (STALE, "high", 2.9)
    assert [e.kind for e in open_events(state)] == ["stomach", STALE]


def test_a_night_is_forgotten_but_for_a_few_frames():
    def size(value):
        if isinstance(value, tuple | list):
            return 1 + sum(map(size, value))
        return 1

    sizes = set()
    state = start(DANGERS, stale_s=10)
    for n in range(4000):
        danger = n % 400 < 200
        state, _ = step(state, n / HZ, {r.kind: 0.9 if danger else 0.1 for r in DANGERS})
        sizes.add(size(state))
    assert max(sizes) < 3 * (2 * POINTS * 3 + 100)


BAD = {
    "priority": ({"priority": "urgent"}, "has priority 'urgent'; choose one of"),
    "order": ({"enter": 0.4, "exit": 0.6}, "enters at 0.4 and exits at 0.6"),
    "equal": ({"enter": 0.5, "exit": 0.5}, "exit must be the lower one"),
    "above 1": ({"enter": 1.5}, "both are probabilities"),
    "nan": ({"enter": math.nan}, "both are probabilities"),
    "more than all": ({"needed": 5, "of": 4}, "needs 5 of 4 frames"),
    "single": ({"needed": 1}, "a single frame never alerts"),
    "delay": ({"delay_s": -1.0}, "delay_s -1.0"),
    "forever": ({"clear_s": math.inf}, "clear_s inf"),
    "lost": ({"lost_s": math.nan}, "lost_s nan"),
    "kind": ({"kind": STALE}, "needs another name"),
}


@pytest.mark.parametrize("bad", BAD)
def test_impossible_rules_are_refused(bad):
    fields, told = BAD[bad]
    rule = Rule(**{"kind": "stomach", "priority": "high", "explanation": "", **fields})
    with pytest.raises(InputError, match=told):
        start([rule], stale_s=10)


def test_two_rules_of_a_kind_and_no_time_are_refused():
    with pytest.raises(InputError, match="one alert rule only"):
        check([RULE, RULE], stale_s=10)
    with pytest.raises(InputError, match="--stale-s is 0"):
        check([RULE], stale_s=0)
    check(DANGERS, stale_s=10)
