"""Scaling over devices: the model by hand, the rows of a table, the command end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import bench_networks, scaling_report, scaling_study
from experiments.bench_networks import Bench, mean_square
from experiments.scaling import PRESETS, Config
from experiments.scaling_model import Link, ring_s, strong, weak
from experiments.scaling_steps import Here, Variant, lone_sums
from jaxbed.cli import by_preset
from jaxbed.efficiency.hlo import sums_over_devices
from jaxbed.errors import InputError
from tests.tiny_tasks import Maps

ROOT = Path(__file__).parent.parent
LINK = Link(bytes_per_s=1e9, latency_s=1e-5)


class DtypedMaps(Maps):
    """Takes the type that the command asks for, and computes in float32."""

    dtype: object = None


TINY = Bench(DtypedMaps, (8, 8, 1), mean_square)


def config(**settings):
    asked = {"preset": "smoke", "networks": ("tiny",), "calls": 1, "rounds": 2} | settings
    return by_preset(Config(**asked), PRESETS)


def sent_around(devices, size_bytes, link):
    """Plays the ring: in every turn each device sends one part to its neighbour, all at once."""
    # By device and part, whose numbers are in it.
    held = np.eye(devices, dtype=int)[:, None].repeat(devices, axis=1)
    seconds = 0.0
    for turn in range(2 * (devices - 1)):
        parts = [(device - turn) % devices for device in range(devices)]
        sent = [held[device, part].copy() for device, part in enumerate(parts)]
        for device, (part, whose) in enumerate(zip(parts, sent, strict=True)):
            there = held[(device + 1) % devices]
            there[part] = there[part] + whose if turn < devices - 1 else whose
        seconds += link.latency_s + size_bytes / devices / link.bytes_per_s
    assert (held == 1).all(), "not every device has the sum of all"
    return seconds


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_a_ring_takes_as_long_as_its_messages_played_one_by_one(devices):
    assert ring_s(devices, [4_000_000], LINK) == pytest.approx(sent_around(devices, 4e6, LINK))
    twice = ring_s(devices, [4_000_000, 8], LINK)
    assert twice == pytest.approx(sent_around(devices, 4e6, LINK) + sent_around(devices, 8, LINK))


def test_one_device_sums_nothing():
    assert ring_s(1, [10**9] * 7, LINK) == 0
    assert weak(1, 0.1, [10**9], LINK).efficiency_low == 1


def test_efficiency_is_what_the_sums_leave():
    """8 devices, 40 MB: 14 messages of 5 MB, 5 ms each and 10 us on top: 70.14 ms."""
    made = weak(8, 0.1, [40_000_000], LINK)
    assert made.sums_s == pytest.approx(0.07014)
    assert made.efficiency_low == pytest.approx(0.1 / 0.17014)
    assert made.efficiency_high == 1
    divided = strong(8, 0.1, [40_000_000], LINK)
    assert divided.compute_s == pytest.approx(0.0125)
    assert divided.efficiency_low == pytest.approx(0.0125 / 0.08264)
    assert divided.efficiency_high == pytest.approx(0.0125 / 0.07014)


def test_the_bytes_of_sums_are_read_from_the_program():
    hlo = """
  %all-reduce.1 = f32[3,4]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %all-reduce.2 = (f32[5]{0}, bf16[2,2]{1,0}, f32[]) all-reduce(%a, %b, %c), to_apply=%add
  %s = f16[7]{0:T(128)} all-reduce-start(%y), to_apply=%add
  %d = f16[7]{0} all-reduce-done(%s)
  %g = f32[100]{0} all-gather(%x)
  ROOT %r = f32[9]{0} add(%all-reduce.1, %all-reduce.2)
"""
    assert sums_over_devices(hlo) == [48, 20 + 8 + 4, 14]


def test_lone_sums_stay_apart_and_are_as_large_as_asked():
    program = lone_sums([48, 4, 4000], jax.devices()[:2])
    compiled = program.func.lower(*program.args).compile()
    assert sorted(sums_over_devices(compiled.as_text())) == [4, 48, 4000]
    assert [x.shape for x in program()] == [(12,), (1,), (1000,)]


def test_every_variant_is_measured_once_and_the_single_device_first():
    variants = scaling_study.variants_of(config(batch_sizes=(2,)), (1, 2))
    assert variants == [
        *(Variant("single", 1, 2, 1), Variant("single", 1, 4, 1)),
        *(Variant("jit", 1, 2, 1), Variant("jit", 1, 4, 1), Variant("jit", 2, 4, 1)),
        *(Variant("pmap", 1, 2, 1), Variant("pmap", 1, 4, 1), Variant("pmap", 2, 4, 1)),
    ]
    assert len(scaling_study.variants_of(config(batch_sizes=(2, 4)), (1, 2))) == 13


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(bench_networks.NETWORKS, "tiny", TINY)
    cache = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", cache)


@pytest.fixture
def here(monkeypatch, tiny):
    """Measures everything in this process, which has two devices."""

    def who(config, network, dtype, variants, stack):
        return dict.fromkeys(variants, Here(config, network, dtype, variants))

    monkeypatch.setattr(scaling_study, "_who_measures", who)


def test_rows_stand_beside_the_single_device(here, tmp_path):
    asked = config(workdir=tmp_path, batch_sizes=(2,), steps_per_dispatch=(1, 2), ways=("pmap",))
    report = scaling_study.run(asked)
    content = json.loads((tmp_path / "report.json").read_text())
    rows = content["rows"]
    assert content["finished"] and content["devices_share_cores"]
    assert {(r["scaling"], r["way"], r["devices"], r["batch_size"], r["steps"]) for r in rows} == {
        (scaling, way, devices, 2 * devices if scaling == "weak" else 4, steps)
        for scaling in ("weak", "strong")
        for way, devices in [("single", 1), ("pmap", 1), ("pmap", 2)]
        for steps in (1, 2)
    }
    for row in rows:
        assert row["examples_per_s"] == pytest.approx(1e3 * row["batch_size"] / row["ms"])
        assert row["efficiency"] == row["speed_up"]  # on simulated devices
        assert (row["sums_bytes"] > 0) == (row["devices"] > 1)
        if (row["way"], row["steps"]) == ("single", 1):
            assert row["speed_up"] == 1
    # 9 * 4 + 2 * 4 + 9 * 4 + 1 parameters at least are summed up, in either way.
    assert min(r["sums_bytes"] for r in rows if r["devices"] > 1) >= 4 * 81
    assert {p["devices"] for p in content["predictions"]} == {8, 64, 512}
    text = report.read_text()
    assert "share the cores" in text and "A prediction, not a measurement" in text
    assert (tmp_path / "figures" / "tiny_float32.png").stat().st_size > 1000

    before = (tmp_path / "measured" / "tiny_float32.json").read_text()
    scaling_study.run(config(**{**vars(asked), "resume": True}))
    assert (tmp_path / "measured" / "tiny_float32.json").read_text() == before
    with pytest.raises(InputError, match="--resume"):
        scaling_study.run(asked)


def group(simulated):
    def variant(way, devices, batch_size, ms):
        return {
            **{"way": way, "devices": devices, "batch_size": batch_size, "steps": 1},
            **{"compile_s": 1.0, "memory_bytes": 2**20, "sums_bytes": [400, 4], "macs": 10**9},
            **{"step_ms": [ms] * 5, "sums_ms": [1.0] * 5, "input_ms": [2.0] * 5},
        }

    times = {("single", 1, 8): 100, ("single", 1, 32): 360, ("jit", 1, 8): 100}
    times |= {("jit", 1, 32): 400, ("jit", 4, 32): 125}
    return {
        **{"network": "net", "dtype": "float32", "simulated": simulated, "params": 101},
        **{"peak": 1e11, "forward_macs": (1, 1), "environment": {}},
        "variants": [variant(*key, ms) for key, ms in times.items()],
    }


@pytest.mark.parametrize("simulated", [False, True])
def test_efficiency_counts_devices_that_are_real(simulated):
    """32 examples in 125 ms on 4 devices; one device takes 100 ms for 8 and 360 for 32."""
    asked = config(batch_sizes=(8,), ways=("jit",), link_gb_per_s=1.0, link_latency_us=10.0)
    rows = scaling_report.rows_of(asked, group(simulated))
    found = {(r.scaling, r.way, r.devices): r for r in rows}
    assert len(rows) == len(found) == 6
    grown, fixed = found["weak", "jit", 4], found["strong", "jit", 4]
    assert grown.speed_up == pytest.approx(3.2)
    assert fixed.speed_up == pytest.approx(360 / 125)
    assert grown.efficiency == pytest.approx(3.2 if simulated else 0.8)
    assert (grown.sums, grown.sums_bytes, grown.sums_share) == (2, 404, pytest.approx(1 / 125))
    assert grown.mfu == pytest.approx(2e9 / 0.125 / 1e11 / (1 if simulated else 4))
    assert found["weak", "jit", 1].sums_bytes == 0

    made = {(p[1], p[3].devices): p for p in scaling_report.predictions_of(asked, group(simulated))}
    assert set(made) == {("weak", 8), ("weak", 64), ("weak", 512), ("strong", 8)}
    assert made["weak", 64][3] == weak(64, 0.1, [400, 4], LINK)
    assert made["strong", 8][3] == strong(8, 0.36, [400, 4], LINK)
    assert made["weak", 64][2] == 512


def test_a_single_device_is_predicted_with_the_gradients_in_one_sum():
    only = group(simulated=False)
    only["variants"] = [v for v in only["variants"] if v["devices"] == 1]
    asked = config(batch_sizes=(8,), scalings=("weak",), link_gb_per_s=1.0, link_latency_us=10.0)
    made = scaling_report.predictions_of(asked, only)
    assert [(way, p.devices) for way, _, _, p in made] == [("one sum", n) for n in (8, 64, 512)]
    assert made[0][3] == weak(8, 0.1, [404], LINK)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"networks": ("none",)}, "'none'"),
        ({"devices": (0,)}, "--devices is 0"),
        ({"devices": ()}, "--devices names nothing"),
        ({"batch_sizes": (-1,)}, "--batch-sizes is -1"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"link_gb_per_s": 0.0}, "--link-gb-per-s is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, told, tiny, tmp_path):
    with pytest.raises(InputError, match=told):
        scaling_study.run(config(workdir=tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_measures_and_reports(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.scaling", "--preset", "smoke", "--workdir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.splitlines()[-1]) == tmp_path / "report.md"
    report = json.loads((tmp_path / "report.json").read_text())
    assert max(row["devices"] for row in report["rows"]) == 2
    assert all(row["ms"] > 0 and 0 < row["mfu"] < 2 for row in report["rows"])
    for name in ("config.json", "metrics.jsonl", "figures/preterm_small_float32.png"):
        assert (tmp_path / name).stat().st_size > 0
