"""The work of `python -m experiments.bench_settings`: a process for each rung, in turns."""

import contextlib
import ctypes
import dataclasses
import gc
import multiprocessing
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from experiments.bench_networks import Runner, check_batch_size, named
from experiments.bench_settings import Config
from jaxbed import report, runtime
from jaxbed.efficiency.clocks import Comparison, beside, memory_of, time_step
from jaxbed.errors import InputError
from jaxbed.whole_files import write_json, write_text


@dataclasses.dataclass(frozen=True)
class Rung:
    """Settings of one process.

    Attributes:
        name: what it adds to the rung before it.
        lowering: "lax" or "auto".
        flat_adam: Adam on one flat vector instead of leaf by leaf.
        tune_allocator: see `runtime.keep_freed_memory`.
        cpu_devices: devices the cores are divided into.
    """

    name: str
    lowering: str = "lax"
    flat_adam: bool = False
    tune_allocator: bool = False
    cpu_devices: int = 1


def ladder(cores: int) -> list[Rung]:
    """Returns the rungs from plain JAX upwards, each with one setting more than the last."""
    rung = Rung("plain JAX")
    rungs = [
        rung,
        rung := dataclasses.replace(rung, name="+ forms of jaxbed.ops", lowering="auto"),
        rung := dataclasses.replace(rung, name="+ Adam on one vector", flat_adam=True),
        rung := dataclasses.replace(rung, name="+ freed memory kept", tune_allocator=True),
    ]
    if cores > 1:
        rungs.append(dataclasses.replace(rung, name="+ a device per core", cpu_devices=cores))
    return rungs


def run(config: Config) -> Path:
    """Measures all rungs in turns; returns the path of the report."""
    named(config.network, flag="--network")
    cores = runtime.usable_cores()
    if config.batch_size < 1 or config.batch_size % cores:
        raise InputError(
            f"--batch-size is {config.batch_size}, which {cores} cores cannot share equally; "
            f"take a multiple of {cores}."
        )
    rungs = ladder(cores)
    durations = {rung.name: [] for rung in rungs}
    rng = np.random.default_rng(0)
    config.workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        workers, facts = {}, {}
        for rung in rungs:
            _tell(f"{rung.name}: compiling")
            workers[rung.name] = stack.enter_context(_worker(rung, config))
            facts[rung.name] = workers[rung.name].recv()
        begin = time.monotonic()
        for turn in range(config.rounds):
            for name in rng.permutation([*workers]):
                workers[name].send(config.calls)
                durations[name] += workers[name].recv()
            left_s = (time.monotonic() - begin) / (turn + 1) * (config.rounds - turn - 1)
            _tell(f"round {turn + 1} of {config.rounds}; about {left_s / 60:.0f} min left")
    first = np.array(durations[rungs[0].name])
    compared = {name: beside(first, np.array(own)) for name, own in durations.items()}
    return _write(config, rungs, compared, facts)


@contextlib.contextmanager
def _worker(rung: Rung, config: Config) -> Iterator[Connection]:
    """Starts a process that compiles, tells its facts, and then runs steps when asked to."""
    # A fresh interpreter: JAX does not survive a fork, nor does its allocator change.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(rung, config, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


def _serve(rung: Rung, config: Config, asked: Connection) -> None:
    runtime.configure(
        device="cpu", cpu_devices=rung.cpu_devices, tune_allocator=rung.tune_allocator
    )
    # A program from the cache would have no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    adam = optax.scale_by_adam()
    tx = optax.flatten(adam) if rung.flat_adam else adam
    check_batch_size(config.batch_size, flag="--batch-size")
    bench = named(config.network, flag="--network")
    runner = Runner(bench, "train", batch_size=config.batch_size, dtype="float32", tx=tx)
    begin = time.perf_counter()
    runner.compile(lowering=rung.lowering)
    facts = {
        "compile_s": time.perf_counter() - begin,
        "memory_bytes": memory_of(runner.compiled) * rung.cpu_devices,
        "environment": report.environment(),
    }
    asked.send(facts)
    while True:
        asked.send(_turn(runner, asked.recv()))
        # The others need the memory meanwhile.
        gc.collect()
        with contextlib.suppress(AttributeError):  # glibc's own
            ctypes.CDLL(None).malloc_trim(0)


def _write(
    config: Config, rungs: list[Rung], compared: dict[str, Comparison], facts: dict[str, Any]
) -> Path:
    """Writes report.json and report.md; returns the path of the latter."""
    rows = [
        dataclasses.asdict(rung)
        | {
            "ms_median": compared[rung.name].timing.median_ms,
            "ms_p90": compared[rung.name].timing.p90_ms,
            "steps": compared[rung.name].timing.n,
            "ratio": compared[rung.name].ratio,
            "ratio_low": compared[rung.name].ratio_low,
            "ratio_high": compared[rung.name].ratio_high,
            "compile_s": facts[rung.name]["compile_s"],
            "memory_bytes": facts[rung.name]["memory_bytes"],
        }
        for rung in rungs
    ]
    environment = facts[rungs[0].name]["environment"]
    content = {
        "experiment": "bench_settings",
        "network": config.network,
        "batch_size": config.batch_size,
        "environment": environment,
        "rows": rows,
    }
    write_json(config.workdir / "report.json", content)
    lines = [
        f"# A training step of {config.network}, batch {config.batch_size}",
        "",
        f"{runtime.usable_cores()} cores of {environment['device']}, jax {environment['jax']}, "
        "float32. Each row adds a setting to the one above it; all ran in turns.",
        "",
        "| setting | ms | p90 | steps | times as fast as plain | than the row above "
        "| compile s | MiB |",
        "|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    above = rows[0]["ms_median"]
    for row in rows:
        interval = f"{1 / row['ratio_high']:.2f} to {1 / row['ratio_low']:.2f}"
        lines.append(
            f"| {row['name']} | {row['ms_median']:.1f} | {row['ms_p90']:.1f} | {row['steps']} "
            f"| {1 / row['ratio']:.2f} ({interval}) | {above / row['ms_median']:.2f} "
            f"| {row['compile_s']:.0f} | {row['memory_bytes'] / 2**20:,.0f} |"
        )
        above = row["ms_median"]
    write_text(config.workdir / "report.md", "\n".join(lines) + "\n")
    return config.workdir / "report.md"


def _turn(runner: Runner, calls: int) -> list[float]:
    """Measures some steps, in ms, after two that fetch the memory back."""
    return list(time_step(runner, calls=calls, warm_up=2).durations_ms)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
