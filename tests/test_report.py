"""What a run leaves behind: nothing half, nothing unsaid, nothing that JSON cannot hold."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxbed import report, report_text, whole_files
from jaxbed.errors import InputError
from jaxbed.report import Claim, Data, Figure, ModelCost, Timing
from jaxbed.training.clock import Clock

CLAIMS = Path(__file__).parents[1] / "experiments" / "claims.csv"
CONFIG = {"seed": 0, "learning_rate": 2e-3, "arms": ("crwt", "plain"), "data_dir": None}
DATA = Data("pmd", "by subject: 10 trained on, 3 tested on", False, 1000, 300, simulated=False)
TIMING = Timing(3.0, {"median": 12.0, "p90": 14.5, "n": 40}, 1300.0, 0.01, 0)


def whole_number_or_die(text: str):
    raise AssertionError(f"{text} is not JSON")


def loads(path: Path):
    return json.loads(path.read_text(), parse_constant=whole_number_or_die)


def write(workdir: Path, **changed) -> Path:
    given = {
        "experiment": "efd_crwt",
        "summary": "Maps were rebuilt.",
        "data": DATA,
        "results": {"crwt/l2": 0.003, "crwt/ssim": 0.9, "plain/l2": 0.004, "majority": 0.58},
        "models": {"encoder": ModelCost(138_400, 557_096_256, 547_000_000)},
        "timing": TIMING,
        "environment": {"jax": "0", "backend": "cpu", "device": "some", "devices": 2},
        "published": report.read_published(CLAIMS, paper="efd_crwt"),
    }
    return report.write_report(workdir, **{**given, **changed})


# --- the beginning of a run


def test_a_new_run_keeps_its_configuration_versions_and_device(tmp_path):
    workdir = tmp_path / "runs" / "a"
    report.open_workdir(workdir, {**CONFIG, "data_dir": Path("x")}, resume=False)
    stored = loads(workdir / "config.json")
    assert stored["config"] == {**CONFIG, "arms": ["crwt", "plain"], "data_dir": "x"}
    assert set(stored["versions"]) == {
        *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "python")
    }
    assert stored["versions"]["numpy"] == np.__version__
    assert stored["device"] == report.environment()["device"]
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_folder_with_a_run_is_not_taken_twice(tmp_path):
    report.open_workdir(tmp_path, CONFIG, resume=False)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="already holds a run.*--resume"):
        report.open_workdir(tmp_path, {**CONFIG, "seed": 1}, resume=False)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_with_other_things_is_taken(tmp_path):
    (tmp_path / "notes.txt").touch()
    report.open_workdir(tmp_path, CONFIG, resume=False)
    assert (tmp_path / "config.json").exists()


def test_the_same_run_is_resumed_from_elsewhere_and_on_other_devices(tmp_path):
    report.open_workdir(tmp_path, {**CONFIG, "resume": False, "device": "cpu"}, resume=False)
    before = (tmp_path / "config.json").read_bytes()
    moved = {**CONFIG, "resume": True, "device": "gpu", "data_dir": tmp_path, "workdir": "b"}
    report.open_workdir(tmp_path, moved, resume=True)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"learning_rate": 1e-3, "arms": ()}, r"learning_rate was 0\.002 and is now 0\.001"),
        ({"arms": ("crwt",)}, r'arms was \["crwt", "plain"\] and is now \["crwt"\]'),
        ({"newer": 1}, r'newer was "\(absent\)" and is now 1'),
    ],
)
def test_another_configuration_is_not_resumed(tmp_path, changed, told):
    report.open_workdir(tmp_path, CONFIG, resume=False)
    with pytest.raises(InputError, match=told):
        report.open_workdir(tmp_path, {**CONFIG, **changed}, resume=True)


def test_resuming_where_there_is_no_run_begins_one(tmp_path):
    report.open_workdir(tmp_path / "new", CONFIG, resume=True)
    assert (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize("content", ['{"config": {"se', "[1]", "{}", '{"config": 3}', "\xff"])
def test_a_damaged_configuration_is_told(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="config.json is no configuration of a run"):
        report.open_workdir(tmp_path, CONFIG, resume=True)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        report.open_workdir(tmp_path / name, CONFIG, resume=False)
    assert re.fullmatch(r"--workdir \S+ cannot be written \(.+\); [^.]+\.", str(caught.value))


def test_the_environment_is_that_of_jax():
    found = report.environment()
    assert found["jax"] == jax.__version__
    assert (found["backend"], found["devices"]) == (jax.default_backend(), jax.device_count())
    assert found["device"]


def test_reading_the_command_line_waits_for_no_jax():
    code = "import sys, jaxbed.report; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- its end


def test_the_json_report_has_the_agreed_fields(tmp_path):
    assert write(tmp_path) == tmp_path / "report.md"
    found = loads(tmp_path / "report.json")
    assert list(found) == [
        *("experiment", "finished", "data", "results", "models"),
        *("timing", "environment", "parameters", "claims"),
    ]
    assert found["finished"] is True
    assert list(found["data"]) == ["name", "split", "subjects_shared", "train", "test"]
    assert found["models"]["encoder"] == {
        "params": 138_400,
        "macs_nominal": 557_096_256,
        "macs_exact": 547_000_000,
        "flops_nominal": 1_114_192_512,
    }
    assert found["timing"] == dataclasses.asdict(TIMING)
    assert found["results"]["crwt/ssim"] == 0.9
    assert not list(tmp_path.glob("*.tmp"))


def test_a_clock_becomes_timing():
    clock = Clock()
    clock.step_ms = [10.0, 20.0, 30.0]
    clock.seconds = {"compile": 2.0, "train": 0.045, "input": 0.015}
    timing = report.timing_of(clock, batch_size=6, recompiles_after_first=0)
    assert timing.examples_per_s == pytest.approx(18 / 0.06)
    assert timing.input_wait_frac == pytest.approx(0.25)
    assert (timing.compile_s, timing.train_step_ms["median"]) == (2.0, 20.0)


def test_a_run_that_took_no_step_has_no_rate(tmp_path):
    timing = report.timing_of(Clock(), batch_size=6, recompiles_after_first=0)
    assert timing.examples_per_s == 0
    assert "No training step was timed" in write(tmp_path, timing=timing).read_text()


def test_what_is_not_finite_is_null(tmp_path):
    results = {
        "a": float("nan"),
        "b": np.float32("inf"),
        "c": np.float32(0.5),
        "d": np.int64(3),
    }
    claim = Claim("efd.params", float("inf"), "not reproduced", "it broke")
    write(tmp_path, results=results, claims=[claim])
    found = loads(tmp_path / "report.json")
    assert found["results"] == {"a": None, "b": None, "c": 0.5, "d": 3}
    assert {c["id"]: c["ours"] for c in found["claims"]}["efd.params"] is None
    assert "| a | – |" in (tmp_path / "report.md").read_text()


def test_every_published_figure_gets_an_answer(tmp_path):
    claims = [
        Claim("efd.crwt.helps", False, "not reproduced", "L2 was higher"),
        Claim("efd.params", 0.1384, "not reproduced", "the paper prints half"),
    ]
    write(tmp_path, claims=claims)
    with CLAIMS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["paper"] == "efd_crwt"]
    found = loads(tmp_path / "report.json")["claims"]
    assert [c["id"] for c in found] == [row["id"] for row in rows]
    assert [c["paper"] for c in found] == [float(row["value"]) for row in rows]
    by_id = {c.pop("id"): c for c in found}
    assert by_id.pop("efd.crwt.helps") == {
        "paper": 1.0,
        "ours": 0.0,
        "unit": "true/false",
        "verdict": "not reproduced",
        "why": "L2 was higher",
    }
    assert by_id.pop("efd.params")["ours"] == 0.1384
    for rest in by_id.values():
        assert (rest["ours"], rest["verdict"]) == (None, "not comparable")
        assert rest["why"] == "not measured by this experiment"
    text = (tmp_path / "report.md").read_text()
    assert f"{len(by_id)} not comparable" in text
    assert "| true | false | not reproduced | L2 was higher |" in text
    assert "| 0.07 M (true count 138400; printed figures are halved) | 0.1384 M |" in text


@pytest.mark.parametrize("ids", [["efd.parms"], ["efd.params", "efd.params"], ["sleep.acc.dl"]])
def test_a_claim_without_a_published_figure_is_refused(tmp_path, ids):
    claims = [Claim(i, 1.0, "reproduced", "so it is") for i in ids]
    with pytest.raises(ValueError, match=re.escape(ids[-1])):
        write(tmp_path, claims=claims)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("ours", "verdict", "why"),
    [
        (1.0, "confirmed", "so it is"),
        (None, "reproduced", "so it is"),
        (float("nan"), "reproduced", "so it is"),
        (1.0, "reproduced", ""),
    ],
)
def test_a_claim_that_proves_nothing_is_refused(ours, verdict, why):
    with pytest.raises(ValueError):
        Claim("efd.params", ours, verdict, why)


def test_published_figures_have_unique_ids_and_known_papers():
    with CLAIMS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows)
    papers = {"sleep_posture", "efd_crwt", "infant_danger", "preterm_pose"}
    assert {row["paper"] for row in rows} == papers
    counts = {paper: len(report.read_published(CLAIMS, paper=paper)) for paper in papers}
    assert sum(counts.values()) == len(rows)
    with pytest.raises(ValueError, match="no_paper"):
        report.read_published(CLAIMS, paper="no_paper")


def test_simulated_data_are_called_so(tmp_path):
    with pytest.raises(ValueError, match="simulated data"):
        dataclasses.replace(DATA, simulated=True)
    assert report_text.SIMULATED not in write(tmp_path).read_text()
    data = dataclasses.replace(DATA, name="simulated sleepers", simulated=True)
    assert report_text.SIMULATED in write(tmp_path, data=data).read_text()


def test_shared_subjects_are_told(tmp_path):
    assert report_text.NOT_SHARED in write(tmp_path).read_text()
    text = write(tmp_path, data=dataclasses.replace(DATA, subjects_shared=True)).read_text()
    assert report_text.SHARED in text
    assert report_text.NOT_SHARED not in text


def test_results_of_arms_stand_in_one_table(tmp_path):
    lines = write(tmp_path).read_text().splitlines()
    begin = lines.index("|  | l2 | ssim |")
    assert lines[begin + 2 : begin + 4] == ["| crwt | 0.003 | 0.9 |", "| plain | 0.004 | – |"]
    assert "| majority | 0.58 |" in lines


def test_every_row_of_a_table_has_the_cells_of_its_head(tmp_path):
    claim = Claim("efd.params", 0.1384, "not reproduced", "a|b\nc")
    text = write(tmp_path, claims=[claim]).read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_figures_are_embedded_where_they_lie(tmp_path):
    (tmp_path / "figures").mkdir()
    path = tmp_path / "figures" / "curves.png"
    with pytest.raises(ValueError, match="curves.png was not written"):
        write(tmp_path, figures=[Figure(path, "Loss.")])
    path.touch()
    text = write(tmp_path, figures=[Figure(path, "Loss.")]).read_text()
    assert "![Loss.](figures/curves.png)" in text


def test_sections_follow_the_figures(tmp_path):
    text = write(tmp_path, sections={"Skipped": "Two files."}).read_text()
    assert "\n\n## Skipped\n\nTwo files.\n\n" in text


def test_a_study_without_a_paper_has_no_claims(tmp_path):
    assert "published figures" not in write(tmp_path, published=()).read_text()
    assert loads(tmp_path / "report.json")["claims"] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "true"),
        (17_464_277, "17,464,277"),
        (12345.6, "12,346"),
        (93.514, "93.51"),
        (0.000123456, "0.0001235"),
    ],
)
def test_numbers_are_written_for_readers(value, text):
    assert report_text.number(value) == text


def test_a_file_whose_writing_fails_stays_what_it_was(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")

    def fail(partial: Path):
        partial.write_text("ne")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        whole_files.write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_process_is_kept_out_of_a_workdir(tmp_path):
    workdir = tmp_path / "run"
    report.open_workdir(workdir, {"seed": 0}, resume=False)
    report.open_workdir(workdir, {"seed": 0}, resume=True)  # this process may
    code = (
        "import sys; from pathlib import Path; from jaxbed import report\n"
        "from jaxbed.errors import InputError\n"
        "try: report.open_workdir(Path(sys.argv[1]), {'seed': 0}, resume=True)\n"
        "except InputError as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, workdir], capture_output=True, text=True, check=True
    ).stdout
    assert (
        told
        == f"--workdir {workdir} is in use by another run; wait for it, or name another folder.\n"
    )
