"""The commands that measure networks, with a network that compiles in no time."""

import csv
import dataclasses
import json
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from experiments import bench_models, bench_networks, profile_step, profile_step_study
from experiments import bench_models_study as study
from experiments.bench_networks import Bench, Runner, mean_square, plausible_variables
from jaxbed.cli import by_preset
from jaxbed.efficiency import ceilings, trace
from jaxbed.errors import InputError


class Tiny(nn.Module):
    """A convolution, a normalisation and a product."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Conv(8, (3, 3), dtype=self.dtype, name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype, name="norm")(x)
        return {"scores": nn.Dense(3, dtype=self.dtype, name="head")(jnp.mean(x, axis=(1, 2)))}


TINY = Bench(Tiny, (16, 16, 2), mean_square)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(bench_networks.NETWORKS, "tiny", TINY)
    monkeypatch.setattr(ceilings, "measure", partial(ceilings.measure, side=64, copy_bytes=4096))
    cache = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", cache)


def config(**settings) -> bench_models.Config:
    tiny = {"networks": ("tiny",), "batch_sizes": (4,), "lowerings": ("auto",), "seconds": 0.05}
    asked = tiny | settings
    return by_preset(bench_models.Config(**asked), bench_models.PRESETS)


def test_every_row_has_its_cost_and_stands_in_all_three_files(tiny, tmp_path):
    report = study.run(config(workdir=tmp_path, dtypes=("float32", "bfloat16")))
    assert report == tmp_path / "report.md"
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    variants = {(row["direction"], row["dtype"], row["lowering"]) for row in rows}
    assert len(variants) == len(rows) == 2 * 2
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["finished"]
    assert len(stored["rows"]) == len(rows)
    assert report.read_text().count("| tiny |") == len(rows)
    for row in stored["rows"]:
        assert row["params"] == (9 * 2 * 8 + 8) + 2 * 8 + (8 * 3 + 3)
        assert 0 < row["ms_median"] <= row["ms_p90"]
        assert row["examples_per_s"] == pytest.approx(4e3 / row["ms_median"])
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["memory_bytes"] > 0
        assert row["mfu"] > 0
    forward = 4 * (16 * 16 * 8 * 2 * 9 + 8 * 3)
    assert {r["macs_nominal"] for r in stored["rows"] if r["direction"] == "forward"} == {forward}
    assert stored["rows"][0]["macs_exact"] == 4 * (46 * 46 * 8 * 2 + 8 * 3)


def test_a_run_that_was_broken_off_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    measure_group, asked = study.measure_group, []

    def broken(name, bench, direction, **rest):
        asked.append(direction)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measure_group(name, bench, direction, **rest)

    monkeypatch.setattr(study, "measure_group", broken)
    with pytest.raises(KeyboardInterrupt):
        study.run(config(workdir=tmp_path))
    stored = json.loads((tmp_path / "report.json").read_text())
    assert not stored["finished"]
    assert {row["direction"] for row in stored["rows"]} == {"forward"}
    study.run(config(workdir=tmp_path, resume=True))
    assert asked == ["forward", "train", "train"]
    assert json.loads((tmp_path / "report.json").read_text())["finished"]


def test_a_step_of_training_descends_as_on_one_device():
    runner = Runner(TINY, "train", batch_size=4, dtype="float32")
    runner.compile(lowering="auto")
    network = Tiny()
    state, batch = jax.device_get(runner.args[:2])
    variables = state.variables

    def loss(params):
        rest = {"batch_stats": variables["batch_stats"]}
        outputs, _ = network.apply(
            {"params": params, **rest}, batch["image"], train=True, mutable=["batch_stats"]
        )
        return jnp.mean(outputs["scores"] ** 2)

    gradients = jax.grad(loss)(variables["params"])
    tx = optax.adam(1e-3)
    updates, _ = tx.update(gradients, tx.init(variables["params"]))
    expected = optax.apply_updates(variables["params"], updates)
    after, metrics = runner()
    value = metrics["loss"]
    assert float(value) == pytest.approx(float(loss(variables["params"])), rel=1e-5)
    for name in ("conv", "head"):
        kernel = np.asarray(after.params[name]["kernel"])
        np.testing.assert_allclose(kernel, expected[name]["kernel"], atol=1e-6)
    _, again = runner()  # the state it got back, not the donated one
    assert float(again["loss"]) < float(value)


def test_weights_are_filled_in_without_the_network_s_initialisers(rng):
    batch = np.zeros((2, 16, 16, 2), np.float32)
    filled = plausible_variables(Tiny(), batch, rng)
    own = Tiny().init(jax.random.key(0), batch, train=False)
    assert jax.tree.map(np.shape, filled) == jax.tree.map(np.shape, own)
    np.testing.assert_array_equal(filled["batch_stats"]["norm"]["var"], np.ones(8))
    np.testing.assert_array_equal(filled["params"]["conv"]["bias"], np.zeros(8))
    assert np.std(filled["params"]["conv"]["kernel"]) == pytest.approx(18**-0.5, rel=0.2)


def test_a_profile_becomes_tables(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "MIN_COVERAGE", 0.0)  # so little work is mostly dispatch
    asked = profile_step.Config(workdir=tmp_path, network="tiny", batch_size=4, steps=1)
    report = profile_step_study.run(asked)
    assert "Operations cover" in report.read_text()
    with (tmp_path / "modules_auto.csv").open() as file:
        modules = {row["module"]: row for row in csv.DictReader(file)}
    assert set(modules) >= {"Tiny/conv", "Tiny/norm", "Tiny/head"}
    assert int(modules["Tiny/conv"]["macs_nominal"]) == 2 * 4 * 16 * 16 * 8 * 2 * 9
    assert (tmp_path / "operations_auto.csv").exists()


def test_too_little_work_for_a_profile_is_told_with_what_to_do(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "MIN_COVERAGE", 1.01)
    asked = profile_step.Config(workdir=tmp_path, network="tiny", batch_size=4, steps=1)
    with pytest.raises(InputError, match="--batch-size 4 .* take a larger one"):
        profile_step_study.run(asked)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"networks": ("resnet",)}, "--networks names 'resnet', but there are only efd_64"),
        ({"batch_sizes": (4, 3)}, "--batch-sizes is 3, which 2 devices cannot share"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tiny, tmp_path, settings, told):
    with pytest.raises(InputError, match=told):
        study.run(config(workdir=tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_presets_name_networks_that_exist():
    for preset in bench_models.PRESETS.values():
        assert set(preset["networks"]) <= {*bench_networks.NETWORKS, "all"}
        assert set(preset) <= {field.name for field in dataclasses.fields(bench_models.Config)}
    for preset in profile_step.PRESETS.values():
        assert preset["network"] in bench_networks.NETWORKS


def test_an_accelerator_image_has_all_that_measuring_needs():
    absent = "clu grain orbax tensorflow_datasets scipy cv2 PIL tqdm matplotlib tensorboardX"
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent.split()!r}))\n"
        "import experiments.bench_models, experiments.profile_step, jaxbed.doctor\n"
        "assert 'jax' not in sys.modules, 'a command imports jax before it is parsed'\n"
        "import experiments.bench_models_study, experiments.profile_step_study\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
