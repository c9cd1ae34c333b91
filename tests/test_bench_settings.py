"""The ladder of settings, its rungs served by threads instead of processes."""

import contextlib
import dataclasses
import json
import multiprocessing
import threading

import jax
import pytest

from experiments import bench_networks, bench_settings
from experiments import bench_settings_study as study
from jaxbed import runtime
from jaxbed.cli import by_preset
from jaxbed.errors import InputError
from tests.test_bench import TINY


def config(**settings) -> bench_settings.Config:
    asked = {"network": "tiny", "batch_size": 4, "rounds": 2, "calls": 2} | settings
    return by_preset(bench_settings.Config(**asked), bench_settings.PRESETS)


@pytest.fixture
def threads(monkeypatch):
    """Serves every rung in this process; returns what each asked `runtime.configure` for."""
    configured = []
    monkeypatch.setitem(bench_networks.NETWORKS, "tiny", TINY)
    monkeypatch.setattr(runtime, "configure", lambda **asked: configured.append(asked))
    monkeypatch.setattr(study, "_worker", served)
    cache = jax.config.jax_enable_compilation_cache
    yield configured
    jax.config.update("jax_enable_compilation_cache", cache)


@contextlib.contextmanager
def served(rung, asked):
    here, there = multiprocessing.Pipe()

    def serve():
        with contextlib.suppress(EOFError):
            study._serve(rung, asked, there)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield here
    finally:
        here.close()
        thread.join()


def test_every_rung_adds_one_setting():
    rungs = study.ladder(cores=2)
    for below, above in zip(rungs[:-1], rungs[1:], strict=True):
        below, above = dataclasses.asdict(below), dataclasses.asdict(above)
        changed = [name for name in below if below[name] != above[name]]
        assert len(changed) == 2, changed  # the setting, and the rung's name
    assert rungs[0] == study.Rung("plain JAX")
    assert rungs[-1].cpu_devices == 2
    assert len(study.ladder(cores=1)) == len(rungs) - 1


def test_all_rungs_are_measured_and_reported(threads, tmp_path):
    report = study.run(config(workdir=tmp_path))
    rungs = study.ladder(runtime.usable_cores())
    assert [asked["tune_allocator"] for asked in threads] == [r.tune_allocator for r in rungs]
    assert [asked["cpu_devices"] for asked in threads] == [r.cpu_devices for r in rungs]
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [rung.name for rung in rungs]
    assert all(row["steps"] == 4 and row["ms_median"] > 0 for row in rows)
    assert rows[0]["ratio"] == 1
    assert all(rung.name in report.read_text() for rung in rungs)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [({"network": "none"}, "--network"), ({"network": "efd_64", "batch_size": 0}, "--batch-size")],
)
def test_what_cannot_be_measured_is_refused(settings, flag):
    with pytest.raises(InputError, match=flag):
        study.run(config(**settings))
