"""The work of `python -m experiments.profile_step`: compiles, profiles, writes the tables."""

import importlib.util
import sys
from pathlib import Path

import jax

from experiments.bench_networks import Runner, check_batch_size, named
from experiments.profile_step import Config
from jaxbed.efficiency import breakdown, trace
from jaxbed.efficiency.breakdown import ModuleTime
from jaxbed.efficiency.clocks import Timing, time_step
from jaxbed.efficiency.count import count
from jaxbed.efficiency.trace import Trace
from jaxbed.errors import InputError
from jaxbed.whole_files import write_text

_ROWS = 20
"""Modules and operations that the report shows; the CSV files have all."""

_CALLS = 5


def run(config: Config) -> Path:
    """Profiles every lowering in turn; returns the path of the report."""
    bench = named(config.network, flag="--network")
    check_batch_size(config.batch_size, flag="--batch-size")
    config.workdir.mkdir(parents=True, exist_ok=True)
    # Else a program kept from before a module was renamed would come back with its old names.
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    lines = [f"# {config.network}, {config.direction}, batch {config.batch_size}, {config.dtype}"]
    bars = {}
    for lowering in config.lowerings:
        print(f"{lowering}: compiling as usual, then for the profile", file=sys.stderr, flush=True)
        runner = Runner(bench, config.direction, batch_size=config.batch_size, dtype=config.dtype)
        runner.compile(lowering=lowering)
        untraced = time_step(runner, calls=_CALLS)
        runner.compile(lowering=lowering, options=trace.per_operation_options())
        counted = count(runner.fn, *runner.args)
        traced = _profile(runner, config, config.workdir / f"profile_{lowering}")
        modules = breakdown.by_module(traced, counted, depth=config.depth)
        breakdown.write_csv(modules, config.workdir / f"modules_{lowering}.csv")
        breakdown.write_csv(traced.operations, config.workdir / f"operations_{lowering}.csv")
        lines += _markdown(lowering, untraced, traced, modules)
        bars[lowering] = modules
    if importlib.util.find_spec("matplotlib"):
        breakdown.figure(bars, config.workdir / "modules.png")
    report = config.workdir / "report.md"
    write_text(report, "\n".join(lines) + "\n")
    return report


def _profile(runner: Runner, config: Config, folder: Path) -> Trace:
    try:
        return trace.profile(runner.compiled, runner, steps=config.steps, folder=folder)
    except ValueError as error:
        raise InputError(
            f"--batch-size {config.batch_size} gives no usable profile ({error}); take a larger "
            "one, or a machine that does nothing else."
        ) from error


def _markdown(lowering: str, plain: Timing, traced: Trace, modules: list[ModuleTime]) -> list[str]:
    slower = traced.step_ms / plain.median_ms
    pending = traced.pending_ms / traced.step_ms
    lines = [
        "",
        f"## Lowering {lowering}",
        "",
        f"A step takes {plain.median_ms:.1f} ms. Traced, with operations kept apart, it takes "
        f"{traced.step_ms:.1f} ms ({slower:.2f} times as long), and that is what is divided "
        f"here. Operations cover {traced.coverage:.1%} of it; {pending:.1%} is waiting for "
        "convolutions that report no end.",
        "",
        "| module | ms | share | GMAC nominal | exact | GFLOP/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in modules[:_ROWS]:
        lines.append(
            f"| {row.module} | {row.ms:.2f} | {row.share:.1%} | {row.macs_nominal / 1e9:.3f} "
            f"| {row.macs_exact / 1e9:.3f} | {row.gflop_per_s:.1f} |"
        )
    lines += ["", "| operation | ms | share | from |", "|---|---:|---:|---|"]
    for operation in traced.operations[:_ROWS]:
        # An operation of several names is told by the first; a bar would end the cell.
        name = operation.op_name.partition(";")[0].replace("|", "\\|")
        share = operation.ms / traced.step_ms
        lines.append(f"| {operation.name} | {operation.ms:.2f} | {share:.1%} | `{name}` |")
    return lines
