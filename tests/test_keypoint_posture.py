"""The posture study: its parts, and all of it with next to no training."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import keypoint_posture_data as data
from experiments import keypoint_posture_folds as folds
from experiments import keypoint_posture_parts as parts
from experiments import keypoint_posture_scores as scoring
from experiments import keypoint_posture_steps as steps
from experiments import keypoint_posture_stranger as stranger
from experiments import keypoint_posture_study as study
from experiments import keypoint_posture_system as systems
from experiments.keypoint_posture import PRESETS, Config, _check, resolved
from experiments.keypoint_posture_data import Classes, Posed
from experiments.keypoint_posture_folds import EVERYONE
from experiments.keypoint_posture_views import Alternating, Copies, Rows
from jaxbed.data.body_parts import Outline
from jaxbed.data.prepared_pressure import write_pressure_maps
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError
from jaxbed.machine import OPEN
from jaxbed.simulate.pressure import simulate_pressure_maps
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.logs import read_metrics

ROOT = Path(__file__).parent.parent
TINY = {
    "preset": "smoke",
    "classifiers": ("gcn", "ordered"),
    "simulated": (4, 10),
    "stage1_steps": 1,
    "stage2_steps": 2,
    "gcn_steps": 2,
    "ordered_steps": 2,
    "cnn_steps": 1,
    "classifier_batch_size": 16,
    "labelled_subjects": 1,
}
PMD = (
    *("1 supine", "2 right", "3 left", "4 right, roll 30", "5 right, roll 60"),
    *("6 left, roll 30", "7 left, roll 60", "8 supine", "9 supine", "10 supine", "11 supine"),
    *("12 supine", "13 right, fetal", "14 left, fetal", "15 supine, bed raised 30"),
    *("16 supine, bed raised 45", "17 supine, bed raised 60"),
)


def config(**settings) -> Config:
    return resolved(Config(**settings))


def maps(subjects="aabb", label_names=("any",), posture=None, mat=None, pressure=None, **more):
    count = len(subjects)
    mat = mat or Mat(rows=64, columns=32, pitch_mm=25.4, unit="count", full_scale=10.0)
    if pressure is None:
        pressure = np.zeros((count, *mat.size), np.float32)
        pressure[:, 10:55, 8:24] = 5.0
    posture = np.zeros(count, np.int32) if posture is None else np.array(posture, np.int32)
    label = np.arange(count, dtype=np.int32) % len(label_names)
    who = np.array(list(subjects))
    return PressureMaps("some", mat, pressure, who, posture, label, label_names, **more)


# Settings


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("study_name", ["train", "steps"])
def test_every_preset_and_study_fills_every_open_field(preset, study_name):
    full = config(preset=preset, study=study_name)
    unset = {f.name for f in dataclasses.fields(full) if getattr(full, f.name) is None}
    given_or_not = {"data_dir", "unseen_pmd", "unseen_popu", "unseen_mat", "from_run"}
    assert unset == given_or_not | OPEN
    _check(full)


def test_pmd_is_left_one_out_with_both_kinds_of_labels():
    chosen = config(data="pmd")
    assert (chosen.protocol, chosen.labels) == ("leave_one_out", ("posture", "position"))
    assert config(data="pmd", test_subjects=("S1",)).protocol == "fixed"
    assert (config().protocol, config().labels) == ("folds", ("posture",))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"image_size": (48, 32)}, "--image-size is 48 32"),
        ({"data": "mat"}, "--data mat needs --data-dir.*data_prep.mat_folder"),
        ({"evaluate_only": True}, "--evaluate-only and --from-run"),
        ({"from_run": Path("x")}, "--evaluate-only and --from-run"),
        ({"test_subjects": ("a",), "protocol": "folds"}, "--test-subjects names people"),
        ({"arms": ("crwt", "crwt")}, "--arms must name"),
        ({"classifiers": ()}, "--classifiers must name"),
        ({"labels": ()}, "--labels names nothing"),
        ({"study": "steps", "labelled_subjects": 2}, "--study steps"),
        ({"stage1_steps": 0}, "--stage1-steps is 0"),
        ({"sage_steps": 0}, "--sage-steps is 0"),
        ({"folds": 1}, "--folds is 1"),
        ({"thin": (0, 1)}, "--thin"),
        ({"copies": -1}, "--copies"),
        ({"learning_rate": np.inf}, "--learning-rate is inf"),
        ({"dead": 1.0}, "--dead"),
    ],
)
def test_bad_configuration_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        _check(config(**settings))


# Maps and classes


def test_a_mirror_makes_another_of_the_seventeen_positions():
    classes = data.classes_of(maps(label_names=PMD), "position")
    assert classes.names == PMD
    pairs = {PMD[i][:2].strip(): PMD[j][:2].strip() for i, j in enumerate(classes.mirrored)}
    swapped = {("2", "3"), ("4", "6"), ("5", "7"), ("13", "14"), ("11", "12")}
    for one, other in swapped:
        assert (pairs[one], pairs[other]) == (other, one)
    still = set(pairs) - {x for pair in swapped for x in pair}
    assert all(pairs[name] == name for name in still)
    np.testing.assert_array_equal(classes.mirrored[classes.mirrored], np.arange(17))


def test_postures_nobody_lies_in_are_no_classes():
    found = data.classes_of(maps("abc", posture=[0, 2, 3]), "posture")
    assert found.names == ("supine", "left", "right")
    assert found.mirrored.tolist() == [0, 2, 1]
    one_sided = data.classes_of(maps("ab", posture=[1, 2]), "posture")
    assert one_sided.names == ("prone", "left", "right")


def test_a_side_without_the_other_cannot_be_mirrored():
    with pytest.raises(InputError, match="what is 'left curled'.*--labels posture"):
        data.classes_of(maps("ab", label_names=("supine", "left curled")), "position")


def test_labels_of_another_set_are_numbered_as_ours():
    classes = {"posture": Classes(("supine", "left", "right"), np.array([0, 2, 1]))}
    other = maps("abcd", posture=[3, 1, 0, 2])
    posed = data.posed(other, classes, ())
    assert posed.label["posture"].tolist() == [2, -1, 0, 1]


def test_one_frame_in_so_many_of_every_recording_is_taken():
    count = 25
    extra = {
        "file": np.array(["a"] * 20 + ["b"] * 5),
        "frame": np.concatenate([np.arange(20)[::-1], np.arange(5)]).astype(np.int32),
    }
    some = maps("x" * count, extra=extra)
    posed = data.posed(some, {}, ())
    chosen = posed.thinned(10)
    assert posed.recording[chosen].tolist() == ["a", "a", "b"]
    assert extra["frame"][chosen].tolist() == [12, 2, 2]
    assert posed.thinned(1).tolist() == list(range(count))
    alone = data.posed(maps("xyz"), {}, ())
    assert alone.thinned(10).tolist() == [0, 1, 2]


def test_the_canonical_frame_centres_and_takes_the_root():
    some = maps("a")
    some.pressure[:] = 0
    some.pressure[:, 4:14, 2:10] = 2.5
    moved = data.canonical(some, ("median", "centred", "root"))
    assert moved.shape == (1, *data.SIZE)
    rows, columns = np.nonzero(moved[0] > 0.5)
    assert abs(rows.mean() - 31.5) <= 0.5
    assert abs(columns.mean() - 15.5) <= 0.5
    np.testing.assert_allclose(data.canonical(some, ()), some.pressure / 2.5)


@pytest.mark.parametrize(("pitch", "told"), [(2.54, "no body"), (254.0, "no body")])
def test_giants_and_dolls_are_refused(pitch, told):
    mat = Mat(rows=64, columns=32, pitch_mm=pitch, unit="count", full_scale=10.0)
    with pytest.raises(InputError, match=rf"{told}.*mend pitch_mm"):
        data.check_size(maps(mat=mat))
    data.check_size(maps())


def test_a_baseline_or_a_saturation_that_cannot_be_is_refused():
    good = maps()
    data.check_description(good)
    with pytest.raises(InputError, match="baseline"):
        data.check_description(dataclasses.replace(good, pressure=good.pressure + 2))
    for full_scale in (4.0, 1000.0):
        mat = dataclasses.replace(good.mat, full_scale=full_scale)
        with pytest.raises(InputError, match="saturation"):
            data.check_description(dataclasses.replace(good, mat=mat))


def test_simulated_mats_are_described_well():
    for mat in (data._OTHER_MAT, simulate_pressure_maps.__kwdefaults__["mat"]):
        data.check_description(simulate_pressure_maps(subjects=3, maps_per_subject=4, mat=mat))


def test_taking_some_maps_takes_all_that_is_told_of_them():
    extra = {"file": np.array(list("wxyz"))}
    some = data.taken(maps("aabb", posture=[0, 1, 2, 3], extra=extra), np.array([3, 1]))
    assert some.posture.tolist() == [3, 1]
    assert some.extra["file"].tolist() == ["z", "x"]
    assert len(some) == 2


# Who is trained on and who is tested on


def people(count=13, each=3):
    return np.repeat([f"S{i}" for i in range(1, count + 1)], each)


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "leave_one_out", "encoders": 3},
        {"protocol": "leave_one_out", "encoders": 13},
        {"protocol": "folds", "folds": 4, "encoders": 2},
        {"protocol": "fixed", "encoders": 1},
        {"protocol": "fixed", "encoders": 1, "test_subjects": ("S2", "S5")},
    ],
)
def test_nobody_is_tested_by_what_has_seen_them(settings):
    subject = people()
    plan = folds.plan(subject, config(data="pmd", **settings))
    assert not plan.subjects_shared
    *tested, everyone = plan.folds
    assert everyone.name == EVERYONE
    assert len(everyone.train) == len(subject)
    for fold in tested:
        who = set(subject[fold.test])
        assert who
        assert not who & set(subject[fold.train])
        assert not who & set(subject[plan.seen[fold.encoder]])
        assert who | set(subject[fold.train]) == set(subject)
    if settings["protocol"] != "fixed":
        every = np.concatenate([fold.test for fold in tested])
        assert sorted(every) == list(range(len(subject)))
    assert len(plan.seen) == settings["encoders"] + 1


def test_pmd_is_tested_on_its_last_three_people_by_default():
    plan = folds.plan(people(), config(data="pmd", protocol="fixed"))
    assert set(people()[plan.folds[0].test]) == {"S11", "S12", "S13"}
    assert plan.description == "by subject, 10 trained on, tested on S11, S12, S13"


def test_one_encoder_cannot_be_without_everybody():
    with pytest.raises(InputError, match=r"--encoders is 1.*trained on nobody.*13"):
        folds.plan(people(), config(protocol="leave_one_out", encoders=1))
    sees_all = config(protocol="leave_one_out", encoders=1, encoder_sees_all=True)
    plan = folds.plan(people(), sees_all)
    assert set(plan.seen) == {EVERYONE}
    assert {fold.encoder for fold in plan.folds} == {EVERYONE}


def test_the_papers_split_says_that_it_shares_people():
    plan = folds.plan(people(), config(protocol="paper"))
    assert plan.subjects_shared
    assert len(plan.folds[0].test) == round(0.2 * 39)


def test_one_person_cannot_be_split_by_person():
    with pytest.raises(InputError, match="all 3 maps are of 'S1'.*--protocol paper"):
        folds.plan(people(1), config())


def test_names_are_in_the_order_of_their_numbers():
    assert folds.natural({"S10", "S2", "S1"}) == ["S1", "S2", "S10"]


def test_somebody_of_an_unseen_mat_must_be_left_to_test_on():
    some = maps("abc")
    drawn = study.labelled_subjects(some, config(labelled_subjects=2))
    assert len(drawn) == 2
    assert set(drawn) < set("abc")
    assert study.labelled_subjects(some, config()) == []
    with pytest.raises(InputError, match=r"--labelled-subjects is 3.*at most 2"):
        study.labelled_subjects(some, config(labelled_subjects=3))


# What readers are shown


def test_copies_are_labelled_as_the_mirror_says_and_maps_without_a_class_left_out(rng):
    nodes = rng.random((6, 2, 3))
    copies = Copies(nodes, np.array([0, 0, 0, 1, 0, 1], bool), np.tile(np.arange(3), 2))
    classes = Classes(("left", "right"), np.array([1, 0]))
    of = copies.of(np.array([0, 1, 2]), np.array([0, -1, 1]), classes)
    assert of["label"].tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(of["nodes"][:], nodes[[0, 2, 3, 5]])
    some = copies.of(np.array([2]), np.array([0, -1, 1]), classes)
    np.testing.assert_array_equal(some["nodes"][np.array([1, 0])], nodes[[5, 2]])


def test_rows_of_two_arrays_come_by_turns():
    both = Alternating(Rows(np.arange(100), np.array([7, 8, 9])), np.array([50, 51]))
    assert len(both) == 6
    assert both[:].tolist() == [7, 50, 8, 51, 9, 50]
    assert both[np.array([3, 0])].tolist() == [51, 7]


# Scores


def posed(subject, label, recording=None):
    count = len(subject)
    return Posed(
        name="some",
        pressure=np.zeros((count, 4, 4), np.float32),
        subject=np.array(list(subject)),
        label={"posture": np.array(label, np.int32)},
        recording=np.array(list(recording or map(str, range(count)))),
        frame=np.zeros(count, np.int64),
        frames=np.ones(count, np.int64),
    )


def test_shares_follow_from_what_was_found_and_unknown_classes_do_not_count():
    some = posed("aabbb", [0, 1, 1, 0, -1])
    found = np.array([0, 1, 0, 0, 1])
    score = scoring.judge(some, "posture", np.arange(5), found, classes=3, seed=0)
    assert score.share.mean == 75
    assert score.by_subject == {"a": 100, "b": 50}
    assert score.counts.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert score.units == ("maps", 4)
    nothing = scoring.judge(some, "posture", np.array([4]), np.array([1]), classes=3, seed=0)
    assert np.isnan(nothing.share.mean)


def test_people_are_resampled_where_there_are_enough_of_them():
    alike = np.repeat([0, 1, 0, 1, 1, 0], 20)
    some = posed(np.repeat(list("abcdef"), 20), np.zeros(120, int), "r" * 120)
    score = scoring.judge(some, "posture", np.arange(120), alike, classes=2, seed=0)
    assert score.units == ("people", 6)
    assert score.share.high - score.share.low > 60
    few = posed(np.repeat(list("ab"), 5), np.zeros(10, int), "uvwxyuvwxy")
    assert scoring.sampling_units(few, np.arange(10))[0] == "recordings"


# Body parts


@pytest.mark.parametrize("canonical", [(), ("median", "centred", "root")])
def test_keypoints_are_brought_back_to_the_mat_they_were_measured_on(canonical):
    """A load anywhere on a mat of 54 x 24 cells of 32 mm: the middle of its map lies on it."""
    mat = Mat(rows=54, columns=24, pitch_mm=32.0, unit="count", full_scale=10.0)
    pressure = np.zeros((1, *mat.size), np.float32)
    pressure[0, 8:20, 12:20] = 5
    some = maps("a", mat=mat, pressure=pressure)
    seen = data.canonical(some, canonical)[0]
    middle = [
        (seen.sum(axis=1 - axis) @ (np.arange(n) + 0.5)) / seen.sum()
        for axis, n in enumerate(data.SIZE)
    ]
    size = (64, 32)
    place = [m / n - 2 / s for m, n, s in zip(middle, data.SIZE, size, strict=True)]
    keypoints = np.array([[[1.0, *place]]], np.float32)
    x, y = parts.places_mm(some, canonical, keypoints, size)[0, 0]
    assert (x, y) == pytest.approx((16 * 32, 14 * 32), abs=14)


def test_shares_of_body_parts_are_those_of_the_outlines():
    some = maps("ab", label_names=("flat", "curled"))
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float32)
    outlines = [
        Outline("a", "flat", "head", square),
        Outline("", "curled", "torso", square + 200),
    ]
    inside, beside = [50.0, 50.0], [250.0, 250.0]
    places = np.array([[inside, beside], [beside, [np.nan, 1.0]]], np.float32)
    found = parts.shares(some, places, outlines)
    assert found["head"] == found["torso"] == found[parts.BESIDE] == pytest.approx(1 / 3)
    assert sum(found.values()) == pytest.approx(1)


# Steps


def test_a_disturbed_map_is_another_one_of_the_same_person():
    some = simulate_pressure_maps(subjects=2, maps_per_subject=3)
    other = steps.disturbed(some, seed=0)
    assert other.pressure.shape == (6, *data.SIZE)
    assert other.subject.tolist() == some.subject.tolist()
    share = data.canonical(some, ())
    assert 0.2 < np.corrcoef(share.ravel(), other.pressure.ravel())[0, 1] < 0.98
    np.testing.assert_array_equal(other.pressure, steps.disturbed(some, seed=0).pressure)


def test_the_steps_leave_out_who_the_final_test_is_about():
    subject = people(each=2)
    extra = {"file": np.arange(26).astype(str), "frame": np.zeros(26, np.int32)}
    some = dataclasses.replace(maps("x" * 26), subject=subject, extra=extra)
    held, trained_on = steps.divide(some, config(data="pmd", study="steps"))
    assert set(held.subject) == {"S8", "S9", "S10"}
    assert set(trained_on.subject) == {f"S{i}" for i in range(1, 8)}
    held, trained_on = steps.divide(some, config(study="steps", test_subjects=("S13",)))
    assert set(held.subject) == {"S13"}
    assert len(set(trained_on.subject)) == 12


def test_variants_change_one_step_at_a_time():
    asked = config(study="steps")
    full = {n: dataclasses.replace(asked, **v) for n, v in steps.variants(asked).items()}
    assert full["all"] == asked
    assert not full["all_but_mirror"].mirror
    assert full["raw"].canonical == ()
    assert full["no_augmentation"].shift_mm == (0, 0)
    assert full["shift_scale"].scale == asked.scale
    assert full["shift_scale"].gain == 0


# All of it


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was stopped in its second fold, and resumed.

    Returns its folder, and what was saved before and after, by the names of phases.
    """
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    saved = []

    def save(self, state):
        real_save(self, state)
        saved.append(self.folder.relative_to(workdir / "checkpoints").as_posix())
        if len(stops) == 0 and saved[-1].endswith("ordered/fold1"):
            stops.append(len(saved))
            raise KeyboardInterrupt

    stops, real_save = [], Checkpoints.save
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            study.run(config(**TINY, workdir=workdir))
        assert not (workdir / "report.json").exists()
        study.run(config(**TINY, workdir=workdir, resume=True))
    return workdir, saved[: stops[0]], saved[stops[0] :]


@pytest.fixture
def finished(interrupted):
    workdir, _, _ = interrupted
    return workdir, workdir / "report.md"


@pytest.mark.slow
def test_an_interrupted_run_trains_nothing_twice(interrupted):
    workdir, before, after = interrupted
    twice = set(before) & set(after)
    assert twice <= {"no_exchange/posture/ordered/fold1"}, "its answers were not kept yet"
    assert any("fold1" in name for name in after)
    steps = [(line["phase"], line["kind"], line["step"]) for line in read_metrics(workdir)]
    assert len(steps) == len(set(steps))


@pytest.mark.slow
def test_the_whole_study_leaves_a_complete_report(finished):
    workdir, _ = finished
    report = json.loads((workdir / "report.json").read_text())
    assert report["finished"]
    assert not report["data"]["subjects_shared"]
    assert (report["data"]["train"], report["data"]["test"]) == (40, 40)
    assert report["timing"]["recompiles_after_first"] == 0
    assert report["models"]["SPMKD encoder"]["params"] == 138_400
    assert report["models"]["RESpose"]["macs_nominal"] == 11_977_883_648
    for who in ("gcn", "ordered", "random_ordered", "cnn", "majority", "nearest"):
        for where in ("posture", "another_mat"):
            assert 0 <= report["results"][f"{who}/{where}_pct"] <= 100
    for who in ("gcn", "ordered", "cnn"):
        for where in ("another_mat_others", "another_mat_labelled"):
            assert 0 <= report["results"][f"{who}/{where}_pct"] <= 100
    verdicts = {claim["id"]: claim["verdict"] for claim in report["claims"]}
    assert len(verdicts) == 21
    assert verdicts["efd.slp.gcn"] == verdicts["efd.smal.gcn"] == "not comparable"
    text = (workdir / "report.md").read_text()
    for title in ("Table 1", "Table 2", "Encoders", "Confusion of postures"):
        assert title in text
    names = ("keypoints", "scores", "curves", "confusion_own", "accuracy_cost")
    for name in names:
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"figures/{name}.png" in text


@pytest.mark.slow
def test_printed_operations_are_what_the_papers_counter_makes_of_the_networks(finished):
    """All six figures of Table 1, to half a percent: the convention is understood."""
    report = json.loads((finished[0] / "report.json").read_text())
    claims = {claim["id"]: claim for claim in report["claims"]}
    names = [name for name in claims if name.endswith(".flops")]
    assert len(names) == 6
    for name in names:
        assert claims[name]["ours"] == pytest.approx(claims[name]["paper"], rel=0.005), name
        assert claims[name]["verdict"] == "reproduced"
    assert claims["efd.params"]["ours"] == pytest.approx(0.1384)
    assert claims["efd.params"]["verdict"] == "not reproduced"


def prepared(folder, **changes):
    """Writes a stranger's mat folder as data_prep.mat_folder would have; returns its maps."""
    mat = Mat(rows=54, columns=24, pitch_mm=32.0, unit="kpa", full_scale=8.5)
    theirs = simulate_pressure_maps(subjects=5, maps_per_subject=4, mat=mat, seed=5)
    theirs = dataclasses.replace(theirs, name="mat_folder", joints_mm=None, **changes)
    folder.mkdir()
    write_pressure_maps(theirs, folder, frames_read=len(theirs))
    return theirs


@pytest.mark.slow
def test_a_finished_run_meets_a_strangers_mat(finished, tmp_path):
    theirs = prepared(tmp_path / "mat")
    asked = config(
        data="mat",
        data_dir=tmp_path / "mat",
        evaluate_only=True,
        from_run=finished[0],
        workdir=tmp_path / "out",
    )
    _check(asked)
    path = stranger.run(dataclasses.replace(asked, trust_description=True))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["finished"]
    assert report["data"]["test"] == len(theirs) == 20
    text = path.read_text()
    assert (tmp_path / "out" / "figures" / "confusion.png").stat().st_size > 1000
    system = systems.load(finished[0])
    assert system.classes.names == POSTURES
    seen = data.posed(theirs, {"posture": system.classes}, asked.canonical)
    said = system.logits(asked, seen.pressure)
    for reader, logits in said.items():
        share = 100 * (logits.argmax(axis=1) == theirs.posture).mean()
        assert report["results"][f"{reader}/posture_pct"] == pytest.approx(share)
        assert f"| {reader} " in text


@pytest.mark.slow
def test_the_kept_system_says_what_the_run_said(finished):
    """Answers that the trainer wrote while it trained, and those of the files it left."""
    tiny = config(**TINY, workdir=finished[0])
    sets = study.gather(tiny, data.load(tiny), data.load_unseen(tiny))
    said = systems.load(finished[0]).logits(tiny, sets.unseen["another_mat"].pressure)
    for reader, logits in said.items():
        name = f"no_exchange/posture/{reader}/{EVERYONE}/another_mat.npy"
        kept = np.load(finished[0] / "answers" / name)
        np.testing.assert_allclose(logits, kept, atol=2e-4)


@pytest.mark.slow
def test_a_mat_or_a_run_that_cannot_be_is_refused_in_one_sentence(finished, tmp_path):
    asked = config(data="mat", evaluate_only=True, from_run=finished[0], workdir=tmp_path / "out")
    small = Mat(rows=54, columns=24, pitch_mm=3.2, unit="kpa", full_scale=8.5)
    prepared(tmp_path / "doll", mat=small)
    with pytest.raises(InputError, match=r"no body.*mend pitch_mm"):
        stranger.run(dataclasses.replace(asked, data_dir=tmp_path / "doll"))
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "labels.csv").write_text("file,subject,posture\n")
    with pytest.raises(InputError, match="raw mat folder; prepare it with"):
        stranger.run(dataclasses.replace(asked, data_dir=raw))
    with pytest.raises(InputError, match="holds no prepared set"):
        stranger.run(dataclasses.replace(asked, data_dir=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no trained system"):
        stranger.run(dataclasses.replace(asked, from_run=tmp_path, data_dir=tmp_path / "doll"))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("system.json", "system.npz"):
        whole = (finished[0] / name).read_bytes()
        (damaged / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        stranger.run(dataclasses.replace(asked, from_run=damaged, data_dir=tmp_path / "doll"))
    (damaged / "system.json").write_bytes((finished[0] / "system.json").read_bytes())
    with pytest.raises(InputError, match="is damaged"):
        systems.load(damaged)
    about = json.loads((finished[0] / "system.json").read_text())
    about["classes"] = {"names": ["supine", "left"], "mirrored": [0, 1]}
    (damaged / "system.json").write_text(json.dumps(about))
    (damaged / "system.npz").write_bytes((finished[0] / "system.npz").read_bytes())
    with pytest.raises(InputError, match="other weights than the network"):
        systems.load(damaged)
    assert not (tmp_path / "out").exists()


def pretending(found):
    """A system whose one classifier says what `found` makes of maps f32[N,R,C]."""
    classes = Classes(("left", "right"), np.array([1, 0]))

    def logits(config, pressure):
        return {"any": np.eye(2)[found(pressure)]}

    return SimpleNamespace(classes=classes, logits=logits)


def lopsided(count=20):
    """People on their left press the lower right of the mat, and those on their right mirrored."""
    some = maps("abcde" * (count // 5), posture=np.resize([2, 3], count))
    some.pressure[:] = 0
    some.pressure[::2, 4:50, 16:30] = some.pressure[1::2, 4:50, 2:16] = 5
    return some


def heavier_left(pressure):
    """Knows only maps whose head end is the heavier one; takes others for the contrary."""
    left = pressure[..., :16].sum((1, 2)) > pressure[..., 16:].sum((1, 2))
    upright = pressure[:, :32].sum((1, 2)) > pressure[:, 32:].sum((1, 2))
    return (left == upright).astype(int)


def test_a_mat_that_was_described_the_wrong_way_round_is_found_out():
    asked = config(canonical=(), workdir=Path("unused"))
    stranger.check_mounting(asked, pretending(heavier_left), lopsided())
    mirrored = lopsided()
    mirrored.pressure[:] = mirrored.pressure[..., ::-1].copy()
    with pytest.raises(InputError, match=r"0 % of the postures.*100 %.*mirrored"):
        stranger.check_mounting(asked, pretending(heavier_left), mirrored)
    few = data.taken(mirrored, np.arange(10))
    stranger.check_mounting(asked, pretending(heavier_left), few)


def test_postures_that_a_system_does_not_know_cannot_be_asked_of_it():
    system = pretending(heavier_left)
    prone = maps("ab", posture=[1, 1])
    shown = data.posed(prone, {"posture": system.classes}, ())
    with pytest.raises(InputError, match="shows prone only.*knows left, right"):
        stranger._check_postures(prone, shown, system)


@pytest.mark.slow
def test_a_study_of_steps_leaves_a_complete_report(tmp_path, monkeypatch):
    chosen = {"raw": {"canonical": ()}}
    monkeypatch.setattr(steps, "variants", lambda config: chosen)
    tiny = {**TINY, "labelled_subjects": 0, "classifiers": ("gcn",), "simulated": (5, 10)}
    steps.run(config(**tiny, study="steps", workdir=tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["finished"]
    assert (report["data"]["train"], report["data"]["test"]) == (40, 10)
    for name in chosen:
        for where in ("held_out", "disturbed", "another_mat"):
            assert 0 <= report["results"][f"{name}/gcn_{where}_pct"] <= 100
    assert (tmp_path / "run" / "figures" / "steps.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "pmd"], "data_prep.pmd"),
        (["--data", "mat", "--data-dir", "nowhere"], "data_prep.mat_folder"),
        (["--evaluate-only"], "--from-run"),
        (["--preset", "smoke", "--test-subjects", "nobody"], "nobody"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_no_folder(tmp_path, arguments, told):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.keypoint_posture",
            "--workdir",
            tmp_path / "run",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run").exists()
