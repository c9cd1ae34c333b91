"""Damaged checkpoints: noticed, told in one sentence, and the one before goes on."""

import shutil

import jax
import numpy as np
import pytest

from jaxbed.errors import InputError
from jaxbed.training.checkpoint import CHECKSUMS, Checkpoints
from jaxbed.training.logs import read_metrics
from tests import tiny
from tests.fuzz_own import tiny_state


@pytest.fixture
def folder(tmp_path):
    """Two last states, of steps 3 and 6, and two best ones, with scores 7 and 4."""
    checkpoints = Checkpoints(tmp_path)
    for step in (3, 6):
        checkpoints.save(tiny_state(step))
        checkpoints.save_if_best(tiny_state(step), score=10.0 - step)
    checkpoints.close()
    return tmp_path


def restored(folder, which="last") -> int:
    """Returns the step of the state that is read, which must be what was written."""
    checkpoints = Checkpoints(folder)
    try:
        state = getattr(checkpoints, f"restore_{which}")(tiny_state(0))
    finally:
        checkpoints.close()
    expected = tiny_state(int(state.step))
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    return int(state.step)


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def flip(path):
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] or b"x")


def swap(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("damage", [flip, cut, swap, lambda path: path.unlink()])
def test_damage_to_any_file_is_noticed_and_the_one_before_is_read(folder, which, damage, capfd):
    newest = folder / which / "6"
    for name in [path.relative_to(newest) for path in files_of(newest)]:
        shutil.copytree(newest, folder / "kept")
        damage(newest / name)
        # Without its checksums it is as whole as one whose writer was killed.
        unnoticed = name.name == CHECKSUMS and not (newest / name).exists()
        assert restored(folder, which) == (6 if unnoticed else 3), name
        told = capfd.readouterr().err
        assert told.count("\n") == (0 if unnoticed else 1), told
        if not unnoticed:
            assert told.startswith(f"warning: checkpoint {newest} is damaged (")
            assert told.endswith("renamed to damaged-6 and step 3 used instead.\n")
        shutil.rmtree(newest, ignore_errors=True)
        (folder / "kept").rename(newest)
    assert restored(folder, which) == 6


def test_the_step_of_a_damaged_checkpoint_can_be_written_again(folder):
    flip(files_of(folder / "last" / "6" / "state")[0])
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore_last(tiny_state(0)).step) == 3
    checkpoints.save(tiny_state(6))
    assert int(checkpoints.restore_last(tiny_state(0)).step) == 6
    checkpoints.close()
    assert restored(folder) == 6
    names = sorted(path.name for path in (folder / "last").iterdir())
    assert names == ["3", "6", "damaged-6"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_without_a_whole_checkpoint_one_sentence_says_what_to_do(folder, which):
    for step in ("3", "6"):
        flip(files_of(folder / which / step / "state")[0])
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=rf"every other one.*delete {folder / which} to") as told:
        Checkpoints(folder)
    assert "\n" not in str(told.value)
    assert sorted(folder.rglob("*")) == before


def test_a_checkpoint_whose_writer_was_killed_before_the_checksums_is_read(folder):
    (folder / "last" / "6" / CHECKSUMS).unlink()
    assert restored(folder) == 6


def test_what_cannot_be_read_is_damaged_even_without_checksums(folder, capfd):
    (folder / "last" / "6" / CHECKSUMS).unlink()
    (folder / "last" / "6" / "state" / "_METADATA").write_bytes(b"{")
    assert restored(folder) == 3
    assert "step 3 used instead" in capfd.readouterr().err


def test_the_lowest_score_is_that_of_the_best_checkpoint_that_is_whole(folder):
    flip(folder / "best" / "6" / "about" / "metadata")
    checkpoints = Checkpoints(folder)
    checkpoints.save_if_best(tiny_state(9), score=6.0)  # above 4, which is lost, and below 7
    assert int(checkpoints.restore_best(tiny_state(0)).step) == 9
    checkpoints.close()


def test_a_run_whose_last_checkpoint_is_damaged_resumes_to_the_same_parameters(tmp_path):
    def trained(workdir, steps, **options):
        run, phase = tiny.trainer(workdir, **options), tiny.phase(steps)
        state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
        run.close()
        return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state))

    whole = trained(tmp_path / "whole", 8)
    trained(tmp_path / "parts", 4)
    flip(files_of(tmp_path / "parts" / "checkpoints" / "tiny" / "last" / "4" / "state")[-1])
    assert trained(tmp_path / "parts", 8, resume=True) == whole
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
