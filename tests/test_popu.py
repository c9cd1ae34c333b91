"""Preparing PoPu: made-up sets for what can go wrong; test_popu_preview.py reads real data."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from data_prep.popu import Config, filled, main
from jaxbed.data.body_parts import read_outlines
from jaxbed.data.prepared_pressure import read_pressure_maps
from jaxbed.data.pressure import POSTURES
from jaxbed.errors import InputError

SIZES = {"tactilus": (64, 27), "sensomatt": (12, 6)}
EMPTY = {"tactilus": 3, "sensomatt": 480}
SUPINE = "PoPu_data/tactilus_data/2/supine3_1.json"


def recording(sensor, pose, readings, volunteer="2"):
    """What a file of a mat holds."""
    return {
        "volunteer_id": volunteer,
        "sex": "female",
        "height": 168,
        "weight": 61,
        f"{sensor}_columns": SIZES[sensor][1],
        f"{sensor}_rows": SIZES[sensor][0],
        "position": pose.rstrip("0123456789"),
        "variation": pose.lstrip("abcdefghijklmnopqrstuvwxyz"),
        "snapshots": {
            str(number): {"id": f"2004{number}", f"{sensor}_readings": values.ravel().tolist()}
            for number, values in enumerate(readings)
        },
    }


def task(*polygons, size=(1168, 527)):
    """What the drawing tool stores of (label, points in percent)."""
    result = [
        {
            "original_width": size[1],
            "original_height": size[0],
            "image_rotation": 0,
            "value": {"points": points, "closed": True, "polygonlabels": [label]},
            "type": "polygonlabels",
        }
        for label, points in polygons
    ]
    return [{"id": 81, "annotations": [{"id": 19, "result": result}], "file_upload": "x.png"}]


SQUARE = [[40, 10], [60, 10], [60, 20], [40, 20]]


@pytest.fixture
def readings(rng):
    """Two poses of two volunteers on both mats, above what the mats read empty."""
    return {
        sensor: {
            (volunteer, pose): EMPTY[sensor] + rng.integers(0, 12, (3, *SIZES[sensor]))
            for volunteer in ("2", "10")
            for pose in ("supine3_1", "left1_0")
        }
        for sensor in SIZES
    }


@pytest.fixture
def folder(tmp_path, readings):
    """A small PoPu in the layout of the whole set."""
    root = tmp_path / "raw"
    for sensor, size in SIZES.items():
        home = root / "PoPu_data" / f"{sensor}_data"
        for (volunteer, stem), values in readings[sensor].items():
            facts = recording(sensor, stem.partition("_")[0], values, volunteer)
            write(home / volunteer / f"{stem}.json", facts)
        for volunteer in ("2", "10"):
            empty = np.full((4, *size), EMPTY[sensor])
            write(home / volunteer / "empty1.json", recording(sensor, "empty1", empty, volunteer))
    drawn = task(("Head", SQUARE), ("Upper Arms", [[0, 50], [9, 50], [9, 60]]))
    write(root / "PoPu_data" / "segmentation_data" / "10" / "left1_tactilus_Annotated.Json", drawn)
    return root


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def change(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    write(path, facts)


def prepared(tmp_path, raw):
    out = tmp_path / "prepared"
    main(Config(raw=raw, out=out))
    return read_pressure_maps(out, "popu_over"), read_pressure_maps(out, "popu_under")


def refused(tmp_path, raw, match):
    """Asserts that a command stops with one sentence and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as refusal:
        main(Config(raw=raw, out=tmp_path / "new" / "popu"))
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def zipped(tmp_path, root):
    path = tmp_path / "popu.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
        archive.writestr("__MACOSX/PoPu_data/tactilus_data/2/._left1_0.json", b"\0\5\x16\7")
    return path


def test_both_mats_come_out_in_the_canonical_frame(tmp_path, folder, readings):
    over, under = prepared(tmp_path, folder)
    assert (over.mat.size, under.mat.size) == ((64, 27), (12, 6))
    load = readings["tactilus"]["2", "left1_0"] - 3
    np.testing.assert_array_equal(over.pressure[:3, :, 1:], load[:, :, 1:])
    # Stored feet up and mirrored: turning the rows around undoes both.
    load = readings["sensomatt"]["2", "left1_0"] - 480
    np.testing.assert_array_equal(under.pressure[:3], load[:, ::-1])


def test_labels_come_from_the_files(tmp_path, folder):
    for maps in prepared(tmp_path, folder):
        assert maps.subject.tolist() == ["2"] * 6 + ["10"] * 6
        assert [POSTURES[p] for p in maps.posture[::3]] == ["left", "supine"] * 2
        assert [maps.label_names[p] for p in maps.label[::3]] == ["left1", "supine3"] * 2
        assert maps.extra["frame"].tolist() == [0, 1, 2] * 4
        assert maps.extra["take"].tolist() == ([0] * 3 + [1] * 3) * 2
        assert set(maps.extra["sex"]) == {"female"}
        assert set(maps.extra["height_cm"].tolist()) == {168}
        assert set(maps.extra["weight_kg"].tolist()) == {61}
    assert maps.extra["file"][-1] == "sensomatt_data/10/supine3_1.json"
    assert len(maps.label_names) == 28


def test_a_zip_gives_what_the_folder_gives(tmp_path, folder):
    of_folder = prepared(tmp_path / "folder", folder)
    of_zip = prepared(tmp_path / "zip", zipped(tmp_path, folder))
    for one, other in zip(of_folder, of_zip, strict=True):
        np.testing.assert_array_equal(one.pressure, other.pressure)
        np.testing.assert_array_equal(one.extra["file"], other.extra["file"])


def test_what_the_cells_read_empty_is_taken_off(tmp_path, folder, rng):
    offset = rng.integers(470, 490, (12, 6))
    home = folder / "PoPu_data" / "sensomatt_data"
    write(home / "2" / "empty1.json", recording("sensomatt", "empty1", [offset, offset + 1]))
    loaded = [offset + 5, offset - 2]
    write(home / "2" / "left1_0.json", recording("sensomatt", "left1", loaded))
    _, under = prepared(tmp_path, folder)
    np.testing.assert_array_equal(under.pressure[:2], [np.full((12, 6), 4.5), np.zeros((12, 6))])
    (line,) = (line for line in under.skipped if line.startswith("sensomatt_data/2/"))
    assert line.endswith(
        "empty1.json: 2 snapshots of the empty mat, which are taken off the others"
    )


def test_without_an_empty_mat_the_others_are_asked(tmp_path, folder, readings):
    (folder / "PoPu_data" / "sensomatt_data" / "2" / "empty1.json").unlink()
    _, under = prepared(tmp_path, folder)
    load = readings["sensomatt"]["2", "left1_0"] - 480
    np.testing.assert_array_equal(under.pressure[:3], load[:, ::-1])
    assert any("sensomatt_data/2: no snapshot of the empty mat" in x for x in under.skipped)


def test_no_empty_mat_at_all_stops(tmp_path, folder):
    for volunteer in ("2", "10"):
        (folder / "PoPu_data" / "tactilus_data" / volunteer / "empty1.json").unlink()
    refused(tmp_path, folder, "no recording of the empty mat such as tactilus_data/4/empty1.json")


def test_a_dead_cell_and_the_leaking_column_read_what_lies_around_them(tmp_path, folder, readings):
    path = folder / "PoPu_data" / "sensomatt_data" / "2" / "left1_0.json"
    change(path, lambda facts: facts["snapshots"]["1"]["sensomatt_readings"].__setitem__(8, 416))
    over, under = prepared(tmp_path, folder)
    around = readings["sensomatt"]["2", "left1_0"][:, :3, 1:4].astype(float) - 480
    around[:, 1, 1] = np.nan
    np.testing.assert_allclose(under.pressure[:3, 10, 2], np.nanmean(around, axis=(1, 2)))
    (line,) = (line for line in under.skipped if "is dead" in line)
    assert line.startswith("sensomatt_data/2: stored row 1, column 2 falls to 64 below")
    beside = readings["tactilus"]["2", "left1_0"][:, 9:12, 1] - 3.0
    np.testing.assert_allclose(over.pressure[:3, 10, 0], beside.mean(axis=1), rtol=1e-6)


def test_a_broken_cell_without_a_sound_neighbour_reads_nothing():
    broken = np.ones((3, 4), bool)
    broken[0, 0] = False
    filled_in = filled(np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4), broken)
    np.testing.assert_array_equal(filled_in[0], [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def spoil_first(value):
    return lambda facts: facts["snapshots"]["0"]["tactilus_readings"].__setitem__(5, value)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda facts: facts["snapshots"].update({"0": {"id": "1"}}), "lacks tactilus_readings"),
        (lambda facts: facts["snapshots"].update({"0": [1]}), "lacks tactilus_readings"),
        (lambda facts: facts["snapshots"]["0"]["tactilus_readings"].pop(), "1727 readings inst"),
        (spoil_first("12"), "not whole numbers from 0 to 4095"),
        (spoil_first(float("nan")), "not whole numbers"),
        (spoil_first(None), "not whole numbers"),
        (spoil_first(True), "not whole numbers"),
        (spoil_first([1]), "not whole numbers"),
        (spoil_first(-1), "not whole numbers"),
        (spoil_first(10**30), "not whole numbers"),
        (lambda facts: facts["snapshots"].update(x=facts["snapshots"].pop("0")), "is not numbered"),
    ],
)
def test_a_bad_snapshot_is_left_out_and_listed(tmp_path, folder, spoil, reason):
    change(folder / SUPINE, spoil)
    over, under = prepared(tmp_path, folder)
    assert (len(over), len(under)) == (11, 12)
    assert over.extra["frame"][:6].tolist() == [0, 1, 2, 1, 2, 0]
    (line,) = (x for x in over.skipped if "empty" not in x)
    assert line.startswith("tactilus_data/2/supine3_1.json snapshot ")
    assert reason in line


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda facts: facts.pop("snapshots"), "lacks one of the keys volunteer_id, tactilus_rows"),
        (lambda facts: facts.update(tactilus_rows=27), "is of 27 x 27 cells instead of (64, 27)"),
        (lambda facts: facts.update(volunteer_id="3"), "is of volunteer 3, whose folder"),
        (lambda facts: facts.update(snapshots=[1, 2]), "holds no snapshots by their numbers"),
        (lambda facts: facts.update(snapshots={}), "holds no snapshots by their numbers"),
        (lambda facts: facts.pop("position"), "3 snapshots without a position"),
        (lambda facts: facts.update(position="sitting"), "of 'sitting3', which is none of the 28"),
        (lambda facts: facts.update(variation="8"), "of 'supine8', which is none of the 28"),
        (lambda facts: facts.pop("variation"), "of 'supine', which is none of the 28"),
    ],
)
def test_a_bad_file_is_left_out_and_listed(tmp_path, folder, spoil, reason):
    change(folder / SUPINE, spoil)
    over, _ = prepared(tmp_path, folder)
    assert len(over) == 9
    (line,) = (x for x in over.skipped if "empty mat" not in x)
    assert line.startswith("tactilus_data/2/supine3_1.json: ")
    assert reason in line


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": 1}', "[" * 100_000])
def test_what_is_not_json_or_no_recording_is_left_out(tmp_path, folder, content):
    write(folder / SUPINE, content)
    (folder / SUPINE).with_name("left1_0.json").write_bytes(b"\xff\xfe\x00")
    over, _ = prepared(tmp_path, folder)
    assert len(over) == 6
    assert sum("is not JSON" in x or "lacks one of the keys" in x for x in over.skipped) == 2


def test_unknown_height_and_weight_are_kept_as_unknown(tmp_path, folder):
    change(folder / SUPINE, lambda facts: (facts.pop("height"), facts.update(weight="?", sex=None)))
    over, _ = prepared(tmp_path, folder)
    assert len(over) == 12
    assert np.isnan(over.extra["height_cm"][3:6]).all()
    assert np.isnan(over.extra["weight_kg"][3:6]).all()
    assert over.extra["sex"][3] == ""


def test_one_mat_alone_is_prepared(tmp_path, folder):
    for file in (folder / "PoPu_data" / "sensomatt_data").rglob("*.json"):
        file.unlink()
    main(Config(raw=folder, out=tmp_path / "prepared"))
    names = sorted(path.name for path in (tmp_path / "prepared").iterdir())
    assert names == ["popu_over", "segments.json"]


def test_what_is_not_popu_stops(tmp_path, folder):
    refused(tmp_path, folder / "nowhere", "does not exist")
    refused(tmp_path, folder / "PoPu_data" / "segmentation_data", "so it is not PoPu")
    refused(tmp_path, folder / SUPINE, "not a complete .zip archive")
    for file in (folder / "PoPu_data" / "tactilus_data").rglob("*_*.json"):
        write(file, "{")
    refused(tmp_path, folder, r"no good snapshot of tactilus in 6 files \(.*is not JSON")


def test_two_copies_stop(tmp_path, folder):
    write(folder / "copy" / "tactilus_data" / "2" / "supine3_1.json", (folder / SUPINE).read_text())
    refused(tmp_path, folder, "holds tactilus_data/2/supine3_1.json twice")


def test_a_damaged_zip_stops(tmp_path, folder):
    path = zipped(tmp_path, folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, path, "not a complete .zip archive")
    path.write_bytes(whole[:300] + bytes(64) + whole[364:])
    refused(tmp_path, path, "not a complete .zip archive")


def test_outlines_come_out_in_mm_on_the_mat(tmp_path, folder):
    prepared(tmp_path, folder)
    head, arm = read_outlines(tmp_path / "prepared")
    assert (head.subject, head.pose, head.part, arm.part) == ("10", "left1", "head", "upper_arms")
    # The mat lies from 33.6 to 495.8 and from 31.7 to 1135.8 px in a picture of 527 x 1168 px.
    x = (0.4 * 527 - 33.6) / 462.2 * 27 * 25.4
    y = (0.1 * 1168 - 31.7) / 1104.1 * 64 * 25.4
    np.testing.assert_allclose(head.corners_mm[0], [x, y], atol=0.06)
    assert head.corners_mm.shape == (4, 2)


@pytest.mark.parametrize(
    ("content", "reason", "left"),
    [
        ("{", "is not JSON", 0),
        ([], "lacks the key annotations", 0),
        ({"annotations": []}, "holds no outline", 0),
        (task(("Tail", SQUARE), ("Head", SQUARE)), "outline 0: is labelled 'Tail'", 1),
        (task(("Head", SQUARE), ("Head", SQUARE[:2])), "outline 1: holds fewer than three", 1),
        (task(("Head", [[1, 2], [3]])), "outline 0: lacks its size, its label or its points", 0),
        (task(("Head", SQUARE), size=(64, 27)), "is drawn on 64 x 27 pixels instead of", 0),
        ({"annotations": [{"result": [3]}]}, "outline 0: lacks its size", 0),
    ],
)
def test_bad_outlines_are_left_out_and_told(tmp_path, folder, capsys, content, reason, left):
    name = "left1_tactilus_Annotated.Json"
    write(folder / "PoPu_data" / "segmentation_data" / "10" / name, content)
    write(folder / "PoPu_data" / "segmentation_data" / "10" / "empty1.json", task(("Head", SQUARE)))
    prepared(tmp_path, folder)
    told = capsys.readouterr().out.splitlines()
    assert any(x.startswith(f"segments.json: {left} outlines") for x in told)
    assert any(f"{name}" in x and reason in x for x in told)
    assert any("empty1.json: empty1 is none of the 28 poses" in x for x in told)
    assert (tmp_path / "prepared" / "segments.json").exists() == bool(left)


def test_the_command_tells_what_it_did(tmp_path, folder):
    command = [sys.executable, "-m", "data_prep.popu"]
    out = tmp_path / "out"
    done = subprocess.run([*command, "--raw", folder, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == ("popu_over: 20 frames read, 12 kept, 8 left out; 2 subjects, 64 x 27 cells")
    assert lines[-2] == "segments.json: 2 outlines of body parts in 1 poses"
    assert lines[-1] == str(out)
