"""The study of asymmetric convolutions: its arithmetic by hand, its verdicts on invented times."""

import csv
import dataclasses
import json
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import profile_asym_conv as command
from experiments import profile_asym_conv_report as written
from experiments import profile_asym_conv_study as study
from experiments.bench_networks import Runner, plausible_variables, preterm_regression
from experiments.profile_asym_conv_layers import (
    Layer,
    convolution,
    epilogue,
    network_layers,
    work_of,
)
from experiments.profile_asym_conv_measured import Group, LayerTime, Total, Traced, best
from experiments.profile_asym_conv_verdict import attribution, claims, saving
from jaxbed.cli import by_preset
from jaxbed.efficiency import ceilings
from jaxbed.efficiency.ceilings import Ceilings
from jaxbed.efficiency.count import count, count_params
from jaxbed.errors import InputError
from jaxbed.machine import FLAGS

KINDS = ("standard", "asymmetric", "lean")
TABLE_I = (64, 128, 256, 256)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_add_up_to_the_network(kind, pass_):
    bench = preterm_regression(kind, size=(8, 6), widths=(4, 6))
    runner = Runner(bench, pass_, batch_size=2, dtype="float32")
    whole = count(runner.fn, *runner.args)
    layers = network_layers(kind, (4, 6))
    works = [work_of(layer, pass_, (2, 3, 8, 6), "float32") for layer in layers]
    assert sum(work.macs_nominal for work in works) == whole.macs_nominal
    assert sum(work.macs_exact for work in works) == whole.macs_exact
    assert sum(layer.params for layer in layers) == count_params(runner.params)
    for layer, work in zip(layers, works, strict=True):
        name = f"RegressionCNN/{layer.name}"
        assert whole.by_module[name] == (work.macs_nominal, work.macs_exact)


@pytest.mark.parametrize(
    ("kind", "params", "nominal", "exact_g"),
    [
        ("standard", 2_985_236, 109_940_834_304, 85.08),
        ("asymmetric", 1_310_612, 48_051_781_632, 44.16),
        ("lean", 577_012, 21_138_112_512, 19.21),
    ],
)
def test_the_published_networks_have_the_published_cost(kind, params, nominal, exact_g):
    layers = network_layers(kind, TABLE_I)
    works = [work_of(layer, "forward", (1, 3, 96, 128), "float32") for layer in layers]
    assert sum(layer.params for layer in layers) == params
    assert sum(work.macs_nominal for work in works) == nominal
    assert sum(work.macs_exact for work in works) / 1e9 == pytest.approx(exact_g, abs=0.005)


def test_a_layer_reads_and_writes_everything_once():
    layer = Layer("stage1/time", (3, 1, 1), 4, 6, normalised=True, first=False)
    clips, positions = (2, 3, 8, 6), 2 * 3 * 8 * 6
    kernel = 4 * 3 * 4 * 6  # in float32 whatever is computed in
    read, made = 2 * positions * 4, 2 * positions * 6
    work = work_of(layer, "forward", clips, "bfloat16")
    assert work.conv_bytes == read + kernel + made
    assert work.norm_bytes == 2 * made
    assert work.macs_nominal == 3 * positions * 4 * 6
    assert work.macs_exact == 7 * positions // 3 * 4 * 6  # of 9 taps, 2 lie before or behind
    trained = work_of(layer, "train", clips, "bfloat16")
    assert trained.macs_exact == 3 * work.macs_exact
    assert trained.conv_bytes == 3 * read + 3 * kernel + 2 * made
    assert trained.norm_bytes == 8 * made
    first = work_of(layer._replace(first=True), "train", clips, "bfloat16")
    assert first.macs_exact == 2 * work.macs_exact
    assert first.conv_bytes == trained.conv_bytes - read - kernel
    assert work_of(layer._replace(normalised=False), "train", clips, "bfloat16").norm_bytes == 0


def test_the_bound_on_an_accelerator_is_that_of_a_table_by_hand():
    """790 TFLOP/s and 4.3 TB/s, batch 16, bfloat16; by hand without the head's normalisation."""
    limits = Ceilings({"bfloat16": 790e12}, bytes_per_s=4.3e12)
    fused, unfused = {}, {}
    for kind in ("standard", "asymmetric"):
        works = {
            layer.name: work_of(layer, "forward", (16, 3, 96, 128), "bfloat16")
            for layer in network_layers(kind, TABLE_I)
        }
        works["head"] = dataclasses.replace(works["head"], norm_bytes=0)
        least = partial(_least_ms, works.values(), limits, nominal=True)
        fused[kind], unfused[kind] = least(fused=True), least(fused=False)
    assert fused["asymmetric"] == pytest.approx(2.12, abs=0.01)
    assert fused["standard"] == pytest.approx(4.56, abs=0.01)
    assert fused["asymmetric"] / fused["standard"] == pytest.approx(0.465, abs=0.002)
    assert unfused["asymmetric"] / unfused["standard"] == pytest.approx(0.66, abs=0.005)


def _least_ms(works, limits, **how):
    return sum(work.least_ms(limits, "bfloat16", **how) for work in works)


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_a_bound_grows_with_what_has_to_be_done(pass_):
    limits = Ceilings({"float32": 200e9}, bytes_per_s=20e9)
    for layer in network_layers("lean", (8, 16)):
        work = work_of(layer, pass_, (1, 3, 16, 16), "float32")
        least = partial(work.least_ms, limits, "float32")
        arithmetic_ms = 2e3 * work.macs_exact / 200e9
        assert arithmetic_ms <= least(fused=True) <= least(fused=False)
        assert least(fused=True) <= least(fused=True, nominal=True)
        assert (least(fused=True) == least(fused=False)) == (not layer.normalised)


@pytest.mark.parametrize("kind", ["asymmetric", "lean"])
def test_the_layers_in_a_row_are_the_network(kind, rng):
    """What is measured layer by layer is what the network computes."""
    bench = preterm_regression(kind, size=(8, 6), widths=(4, 6))
    network, x = bench.network(), rng.random((2, *bench.example), np.float32)
    variables = plausible_variables(network, x, rng)

    def in_a_row(variables, y):
        for layer in network_layers(kind, (4, 6)):
            params, stats = (
                _below(variables[name], layer.name) for name in ("params", "batch_stats")
            )
            conv, norm = params[layer.name.split("/")[-1]], f"{layer.name.split('/')[-1]}_norm"
            y = convolution(layer, "forward")(y, conv["kernel"])
            after = {"bias": conv["bias"], "norm": params.get(norm)}, stats.get(norm)
            y = epilogue(layer, "forward")(y, after)
        return y

    whole = jax.jit(partial(network.apply, train=False))(variables, x)["maps"]
    np.testing.assert_allclose(jax.jit(in_a_row)(variables, x), whole, atol=1e-5)


def _below(tree, layer):
    return tree.get(layer.split("/")[0], {}) if "/" in layer else tree


def test_training_a_layer_returns_its_gradients():
    layer = Layer("", (3, 1, 1), 2, 3, normalised=True, first=False)
    shapes = {"x": (1, 3, 4, 4, 2), "kernel": (3, 1, 1, 2, 3), "y": (1, 3, 4, 4, 3)}
    x, kernel, y = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes.values())
    forward, backward = jax.eval_shape(convolution(layer, "train"), x, kernel, y)
    assert (forward.shape, [g.shape for g in backward]) == (y.shape, [x.shape, kernel.shape])
    first = convolution(layer._replace(first=True), "train")
    assert [g.shape for g in jax.eval_shape(first, x, kernel, y)[1]] == [kernel.shape]
    variables = study.epilogue_variables(layer)
    _, stats, (dy, dparams) = jax.eval_shape(epilogue(layer, "train"), y, variables, y)
    assert dy.shape == y.shape
    assert jax.tree.map(jnp.shape, dparams) == jax.tree.map(jnp.shape, variables[0])
    assert stats.keys() == {"mean", "var"}


def total(kind, durations_ms, *, lowering="auto", direction="forward", batch_size=1, **other):
    macs = {"standard": (100, 80), "asymmetric": (44, 40), "lean": (30, 28)}[kind]
    asked = {
        "dtype": "float32",
        "params": 1,
        "macs_nominal": macs[0],
        "macs_exact": macs[1],
        "conv_bytes": 1,
        "norm_bytes": 1,
        "bound_ms": 1.0,
        "bound_unfused_ms": 2.0,
        "nominal_ms": 1.5,
        "nominal_unfused_ms": 2.5,
        "memory_bytes": 1,
    }
    return Total(
        kind=kind,
        direction=direction,
        batch_size=batch_size,
        lowering=lowering,
        durations_ms=tuple(durations_ms),
        **(asked | other),
    )


def layer_time(of, *, bound_ms, arithmetic_ms, conv_ms, norm_ms):
    names = {field.name for field in dataclasses.fields(Total)}
    shared = {f.name: getattr(of, f.name) for f in dataclasses.fields(LayerTime) if f.name in names}
    own = {"layer": "stage1/conv", "kernel": "3x3x3", "inputs": 1, "outputs": 1}
    times = {"arithmetic_ms": arithmetic_ms, "conv_ms": conv_ms, "norm_ms": norm_ms}
    return LayerTime(**(shared | own | times | {"bound_ms": bound_ms}))


def test_savings_are_of_medians_and_their_interval_holds_them():
    saved = saving(total("standard", [10, 100, 11]), total("asymmetric", [5, 6, 5.5]))
    assert saved.percent == pytest.approx(50)
    assert saved.low <= saved.percent <= saved.high
    assert str(saving(total("standard", [10]), total("lean", [3]))) == "70.0 % (70.0 to 70.0)"


def test_the_best_lowering_has_the_least_median():
    totals = [
        total("standard", [9, 9, 1], lowering="lax"),
        total("standard", [5, 5, 50], lowering="slices"),
        total("standard", [1], direction="train"),
    ]
    assert best(totals, Group("forward", 1, "float32")) == {"standard": totals[1]}


def test_what_is_spent_in_proportion_to_the_macs_costs_no_points():
    standard, own = total("standard", [80.0]), total("asymmetric", [40.0])
    of_standard = layer_time(standard, bound_ms=30, arithmetic_ms=20, conv_ms=60, norm_ms=10)
    of_own = layer_time(own, bound_ms=15, arithmetic_ms=10, conv_ms=30, norm_ms=5)
    causes = attribution(standard, [of_standard], own, [of_own])
    nominal, padding, *others, achieved = causes.values()
    assert nominal == pytest.approx(56)
    assert padding == pytest.approx(44 - 50)
    assert others == pytest.approx([0, 0, 0, 0])
    assert achieved == pytest.approx(50)


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ({"bound_ms": 19, "conv_ms": 34}, "memory traffic"),
        ({"conv_ms": 34}, "MACs per second of 3x3x3"),
        ({"norm_ms": 9}, "normalisation"),
        ({}, "the rest"),
    ],
)
def test_what_is_spent_beyond_falls_on_its_cause(part, cause):
    standard, own = total("standard", [80.0]), total("asymmetric", [44.0])
    of_standard = layer_time(standard, bound_ms=30, arithmetic_ms=20, conv_ms=60, norm_ms=10)
    in_proportion = {"bound_ms": 15, "arithmetic_ms": 10, "conv_ms": 30, "norm_ms": 5}
    causes = attribution(standard, [of_standard], own, [layer_time(own, **(in_proportion | part))])
    charged = {name: points for name, points in causes.items() if cause in name}
    assert list(charged.values()) == [pytest.approx(-100 * 4 / 80)]
    assert sum(list(causes.values())[:-1]) == pytest.approx(causes["achieved"])
    assert causes["achieved"] == pytest.approx(45)


@pytest.mark.parametrize(
    ("asymmetric_ms", "verdict", "ours"),
    [
        ([34, 34, 34], "reproduced", 66),
        ([50, 50, 50], "not reproduced", 50),
        ([30, 36, 50], "not comparable", 64),  # an interval on both sides of 66 %
    ],
)
def test_the_verdict_follows_the_saving(asymmetric_ms, verdict, ours):
    totals = [
        total("standard", [100, 100, 100]),
        total("standard", [300, 300, 300], lowering="lax"),
        total("asymmetric", asymmetric_ms),
        total("asymmetric", [240, 240, 240], lowering="lax"),
        total("lean", [33, 33, 33]),
    ]
    predict, asym, std = claims(totals, published=True, device="a CPU")
    assert (predict.id, predict.verdict) == ("preterm.predict.saving", verdict)
    assert predict.ours == pytest.approx(ours)
    assert "20.0 % (20.0 to 20.0) in plain lax" in predict.why
    assert "56.0 % with every tap and 50.0 % without" in predict.why
    assert "lean network saves 67.0 %" in predict.why
    assert (asym.id, asym.verdict) == ("preterm.time.asym", "not comparable")
    assert asym.ours == pytest.approx(np.median(asymmetric_ms) / 1e3)
    assert (std.id, std.ours) == ("preterm.time.std", pytest.approx(0.1))
    assert "RTX 2080 there, a CPU here" in std.why


def test_training_is_judged_nearest_to_the_published_batch_and_prediction_clip_by_clip():
    totals = [
        total(kind, [ms * batch], direction=direction, batch_size=batch)
        for direction in ("train", "forward")
        for batch, standard_ms in ((1, 100), (8, 200))
        for kind, ms in (("standard", standard_ms), ("asymmetric", 50))
    ]
    train, predict, asym, _ = claims(totals, published=True, device="a CPU")
    assert (train.id, train.ours) == ("preterm.train.saving", pytest.approx(75))
    assert "batch 8" in train.why
    assert predict.ours == pytest.approx(50)
    assert asym.ours == pytest.approx(0.05)


def test_other_networks_than_the_published_are_no_answer():
    totals = [total("standard", [100.0]), total("asymmetric", [20.0])]
    judged = written.judge(claims(totals, published=False, device="a CPU"))
    assert {row["verdict"] for row in judged} == {"not comparable"}
    assert {row["ours"] for row in judged} == {None}
    assert [row["paper"] for row in judged] == [66, 66, 0.03, 0.05]


@pytest.fixture
def small_ceilings(monkeypatch):
    small = partial(ceilings.measure, side=64, copy_bytes=4096)
    monkeypatch.setattr(study.ceilings, "measure", small)
    settings = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, settings)
    yield
    jax.config.update(settings, before)


def config(**settings):
    asked = {"preset": "smoke", "widths": (4,), "image_size": (8, 8), "batch_sizes": (2,)}
    return by_preset(command.Config(**(asked | settings)), command.PRESETS)


def test_a_run_leaves_its_tables_and_goes_on_where_it_was(small_ceilings, tmp_path, monkeypatch):
    asked = config(workdir=tmp_path, kinds=("standard", "asymmetric"), passes=("forward",))
    path, summary = study.run(asked)
    assert path == tmp_path / "report.md"
    text = path.read_text()
    assert text.startswith(summary)
    for part in ("## Verdict", "## Layers", "## Trace", "figures/roofline_float32.png"):
        assert part in text
    assert len(list((tmp_path / "figures").glob("*.png"))) == 2

    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["finished"]
    assert len(stored["claims"]) == 4
    with (tmp_path / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert len(layers) == (1 + 2) + (3 + 2)
    with (tmp_path / "totals.csv").open() as file:
        totals = list(csv.DictReader(file))
    for row in totals:
        own = [layer for layer in layers if layer["kind"] == row["kind"]]
        assert sum(int(layer["macs_exact"]) for layer in own) == int(row["macs_exact"])
        bound_ms = sum(float(layer["bound_ms"]) for layer in own)
        assert bound_ms == pytest.approx(float(row["bound_ms"]))
        assert float(row["ms"]) > 0
    rates = [float(layer["gflop_per_s"]) * float(layer["conv_ms"]) for layer in layers]
    work = [2 * int(layer["macs_exact"]) / 1e6 for layer in layers]
    assert rates == pytest.approx(work)
    name = "asymmetric/forward/batch2/float32"
    points = {k: v for k, v in stored["results"].items() if k.startswith(f"{name}/points/")}
    achieved = points.pop(f"{name}/points/achieved")
    assert sum(points.values()) == pytest.approx(achieved)
    assert stored["results"][f"{name}/saving_percent"] == pytest.approx(achieved)

    monkeypatch.setattr(study, "measure_group", None)  # nothing is left to measure
    again, summary_again = study.run(dataclasses.replace(asked, resume=True))
    assert summary_again.count("\n") == summary.count("\n")
    assert json.loads(again.with_name("report.json").read_text())["measured"] == stored["measured"]


def test_a_training_step_is_measured_with_all_its_layers(small_ceilings, tmp_path, monkeypatch):
    refused = partial(Traced, step_ms=0.0, coverage=0.0, modules=(), refused="not asked for")
    identity = ("kind", "direction", "batch_size", "dtype", "lowering")
    monkeypatch.setattr(
        study, "_traced", lambda _, total: refused(**{n: getattr(total, n) for n in identity})
    )
    asked = config(workdir=tmp_path, kinds=("standard",), passes=("train",))
    path, _ = study.run(asked)
    assert "No trace: not asked for." in path.read_text()
    measured = json.loads((tmp_path / "report.json").read_text())["measured"]
    (whole,) = measured["totals"]
    assert len(whole["durations_ms"]) >= 6
    assert sum(layer["macs_nominal"] for layer in measured["layers"]) == whole["macs_nominal"]
    assert all(layer["conv_ms"] > 0 and layer["norm_ms"] > 0 for layer in measured["layers"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lowerings": ("fft",)}, "--lowerings names 'fft', but there are only auto, lax, slices"),
        ({"kinds": ("asymmetric",)}, "--kinds lacks standard"),
        ({"batch_sizes": (2, 3)}, "--batch-sizes is 3, which 2 devices cannot share"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path, settings, told):
    with pytest.raises(InputError, match=told):
        study.run(config(workdir=tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_presets_fill_every_setting_that_has_no_default():
    for name, preset in command.PRESETS.items():
        filled = dataclasses.asdict(by_preset(command.Config(preset=name), command.PRESETS))
        assert {field for field, value in filled.items() if value is None} <= set(FLAGS)
        assert set(preset) <= set(filled)


def test_an_accelerator_image_has_all_that_the_study_needs():
    absent = "clu grain orbax tensorflow_datasets scipy cv2 PIL tqdm matplotlib tensorboardX"
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent.split()!r}))\n"
        "import experiments.profile_asym_conv\n"
        "assert 'jax' not in sys.modules, 'the command imports jax before it is parsed'\n"
        "import experiments.profile_asym_conv_study\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
