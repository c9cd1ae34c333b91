"""The parts of the EFD study that decide what its report may say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.efd_crwt import PRESETS, Config
from experiments.efd_crwt_figures import in_sensors
from experiments.efd_crwt_report import claims, overall
from experiments.efd_crwt_study import Stages, divide, freeze_encoder, schedule
from jaxbed.cli import by_preset
from jaxbed.data.pressure import Mat, PressureMaps, scaled
from jaxbed.machine import OPEN
from jaxbed.training.step import Devices


def maps(subjects, pressure=None):
    count = len(subjects)
    mat = Mat(rows=4, columns=4, pitch_mm=25.4, unit="count", full_scale=10.0)
    zeros = np.zeros(count, np.int32)
    if pressure is None:
        pressure = np.ones((count, 4, 4), np.float32)
    return PressureMaps("some", mat, pressure, np.array(subjects), zeros, zeros, ("any",))


def test_maps_are_clipped_and_stretched_one_by_one():
    pressure = np.zeros((3, 4, 4), np.float32)
    pressure[0, 0, 0], pressure[0, 0, 1] = 20, 5  # above the full scale of 10
    pressure[1] += 2
    pressure[1, 0, 0] = 4
    result = scaled(maps("abc", pressure))
    assert result[0, 0, :2].tolist() == [1.0, 0.5]
    assert result[1].min() == 0
    assert result[1].max() == 1
    assert not result[2].any()  # an empty mat stays empty


def test_flags_win_over_the_preset():
    config = by_preset(Config(preset="smoke", batch_size=5), PRESETS)
    assert config.batch_size == 5
    assert config.stage1_steps == PRESETS["smoke"]["stage1_steps"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fills_every_open_field(preset):
    config = by_preset(Config(preset=preset), PRESETS)
    unset = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) is None]
    assert set(unset) == {"data_dir", *OPEN}


@pytest.mark.parametrize("steps", [1, 2, 30, 5000])
def test_the_schedule_warms_up_to_its_peak_and_decays(steps):
    rates = schedule(1e-2, steps)
    assert rates.shape == (steps,)
    assert (rates > 0).all()
    assert rates.max() <= 1e-2 * (1 + 1e-6)
    if steps > 10:
        assert rates.argmax() == min(100, steps // 10)
        assert rates[-1] < 1e-3


def test_pmd_is_tested_on_its_last_three_subjects_by_default():
    config = Config(data="pmd")
    names = [f"S{i}" for i in range(1, 14)]
    split = divide(maps(names), config)
    assert sorted(names[i] for i in split.test) == ["S11", "S12", "S13"]


def test_the_arms_take_equal_steps_and_learning_rates_and_share_a_program():
    stages = Stages(by_preset(Config(preset="smoke"), PRESETS), Devices())
    crwt, plain = ([stages.phase(arm, s, seed=0) for s in (1, 2)] for arm in ("crwt", "plain"))
    for a, b in zip(crwt, plain, strict=True):
        assert a.learning_rates.tolist() == b.learning_rates.tolist()
        assert a.batch_size == b.batch_size
    assert crwt[0].network.outputs == 2
    program = [(p.network, p.task, p.tx) for p in (crwt[1], plain[0], plain[1])]
    assert program[0] == program[1] == program[2]


def test_a_frozen_encoder_starts_to_move_when_it_thaws():
    params = {"encoder": {"w": jnp.ones(2)}, "decoder": {"w": jnp.ones(2)}}
    tx = optax.chain(freeze_encoder(3), optax.flatten(optax.scale_by_adam()))
    state = tx.init(params)
    moved = []
    for _ in range(5):
        direction, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        moved.append(bool(jnp.any(direction["encoder"]["w"] != 0)))
        assert jnp.all(direction["decoder"]["w"] != 0)
    assert moved == [False, False, False, True, True]


def test_scores_of_subjects_are_weighted_by_their_maps():
    by_subject = {
        "a": {"l1": 1.0, "l2": 1.0, "ssim": 0.0},
        "b": {"l1": 4.0, "l2": 2.0, "ssim": 1.0},
    }
    assert overall(by_subject, {"a": 1, "b": 3}) == {"l1": 3.25, "l2": 1.75, "ssim": 0.75}


def verdict(gains):
    """Returns the verdict on CRWT for gains of the method over its control, one per seed."""
    config = by_preset(Config(preset="smoke"), PRESETS)
    scores = {}
    for seed, gain in enumerate(gains):
        scores[seed, "crwt"] = {"l1": 0.1, "l2": 0.1, "ssim": 0.5}
        scores[seed, "plain"] = {"l1": 0.1 + gain, "l2": 0.1 + gain, "ssim": 0.5 - gain}
    answers = {claim.id: claim for claim in claims(config, {}, scores)}
    return answers["efd.crwt.helps"]


def test_crwt_helps_only_if_every_one_of_three_seeds_says_so():
    assert verdict([0.01, 0.02, 0.01]).verdict == "reproduced"
    assert verdict([0.01, -0.001, 0.01]).verdict == "not reproduced"
    assert verdict([0.01]).verdict == "not comparable"


def test_keypoints_are_drawn_in_the_middle_of_their_heatmap_pixel():
    """A 16x16 heatmap over a mat of 64x32: a pixel covers 4 rows and 2 columns."""
    outputs = {"heatmaps": np.zeros((1, 16, 16, 1)), "keypoints": np.zeros((1, 1, 3))}
    assert in_sensors(outputs, (64, 32)).tolist() == [[[1.5, 0.5]]]
