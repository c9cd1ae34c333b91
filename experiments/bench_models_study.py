"""Measures the rows of bench_models and writes them down one group after the other."""

import csv
import dataclasses
import io
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from experiments.bench_models import Config
from experiments.bench_networks import NETWORKS, Bench, Pass, Runner, check_batch_size, named
from jaxbed import report
from jaxbed.efficiency import ceilings
from jaxbed.efficiency.clocks import compare, memory_of
from jaxbed.efficiency.count import count, count_params
from jaxbed.whole_files import write_json, write_text

_ROUNDS = (3, 100)


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant of one pass of one network.

    Attributes:
        network: its name.
        direction: "forward" or "train".
        batch_size: examples per call, all devices.
        dtype: computed in.
        lowering: "auto" or "lax".
        params: number of parameters.
        macs_nominal: of one call, every tap.
        macs_exact: of one call, taps on padding left out.
        compile_s: tracing, lowering and compiling, no cache.
        ms_median: of one call.
        ms_p90: nine calls in ten are shorter.
        calls: measured.
        examples_per_s: by the median.
        ratio: median over that of the group's first variant; below 1 is faster.
        ratio_low: of its 95 % interval.
        ratio_high: of its 95 % interval.
        memory_bytes: that one device needs for a call.
        mfu: nominal FLOPs per second over the measured ceiling of the dtype.
        bound_ms: no call can be shorter under the measured ceilings: exact FLOPs, and every
            argument and result moved once.
        bound_by: "arithmetic" or "memory".
    """

    network: str
    direction: str
    batch_size: int
    dtype: str
    lowering: str
    params: int
    macs_nominal: int
    macs_exact: int
    compile_s: float
    ms_median: float
    ms_p90: float
    calls: int
    examples_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    memory_bytes: int
    mfu: float
    bound_ms: float
    bound_by: str

    @property
    def group(self) -> tuple[str, int, str]:
        """What rows that were measured in turns have in common."""
        return self.network, self.batch_size, self.direction


def run(config: Config) -> Path:
    """Measures every group of variants; returns the path of the report."""
    names = tuple(NETWORKS) if config.networks == ("all",) else config.networks
    networks = {name: named(name, flag="--networks") for name in names}
    for batch_size in config.batch_sizes:
        check_batch_size(batch_size, flag="--batch-sizes")
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    # A program from the cache would have no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    rows = _stored_rows(config.workdir) if config.resume else []
    done = {row.group for row in rows}
    groups = list(itertools.product(networks, config.batch_sizes, config.passes))
    groups = [group for group in groups if group not in done]
    measured = ceilings.measure(config.dtypes)
    begin = time.monotonic()
    for number, (name, batch_size, direction) in enumerate(groups):
        _tell(f"{name}, batch {batch_size}, {direction} ({number + 1} of {len(groups)})")
        rows += measure_group(
            name,
            networks[name],
            direction,
            batch_size=batch_size,
            dtypes=config.dtypes,
            lowerings=config.lowerings,
            seconds=config.seconds,
            limits=measured,
        )
        finished = number + 1 == len(groups)
        path = write(config.workdir, rows, measured, finished=finished)
        left_s = (time.monotonic() - begin) / (number + 1) * (len(groups) - number - 1)
        _tell(f"  written; about {left_s / 60:.0f} min left")
    return path if groups else write(config.workdir, rows, measured, finished=True)


def measure_group(
    name: str,
    bench: Bench,
    direction: Pass,
    *,
    batch_size: int,
    dtypes: tuple[str, ...],
    lowerings: tuple[str, ...],
    seconds: float,
    limits: ceilings.Ceilings,
) -> list[Row]:
    """Measures all dtypes and lowerings of one pass in turns.

    Args:
        name: of the network.
        bench: the network.
        direction: which pass.
        batch_size: a multiple of the number of devices.
        dtypes: to compute in.
        lowerings: forms of the operations.
        seconds: to spend on calls that are measured; at least three of each variant are.
        limits: the machine's ceilings.

    Returns:
        A row per variant; the first one is the yardstick of the ratios.
    """
    runners: dict[tuple[str, str], Runner] = {}
    compile_s = {}
    round_s = 0.0
    for dtype, lowering in itertools.product(dtypes, lowerings):
        runner = Runner(bench, direction, batch_size=batch_size, dtype=dtype)
        begin = time.perf_counter()
        runner.compile(lowering=lowering)
        compile_s[dtype, lowering] = time.perf_counter() - begin
        jax.block_until_ready(runner())
        begin = time.perf_counter()
        jax.block_until_ready(runner())
        round_s += time.perf_counter() - begin
        runners[dtype, lowering] = runner
        _tell(f"  {dtype} {lowering}: compiled in {compile_s[dtype, lowering]:.0f} s")
    fewest, most = _ROUNDS
    rounds = min(max(int(seconds / round_s), fewest), most)
    compared = compare(runners, rounds=rounds, warm_up=0)

    first = runners[dtypes[0], lowerings[0]]
    macs = count(first.fn, *first.args)
    rows = []
    for (dtype, lowering), runner in runners.items():
        beside = compared[dtype, lowering]
        timing = beside.timing
        ceiling = {"flop_per_s": limits.flop_per_s[dtype]}
        bound = ceilings.time_bound(
            macs.flops_exact, _traffic_bytes(runner), bytes_per_s=limits.bytes_per_s, **ceiling
        )
        row = Row(
            network=name,
            direction=direction,
            batch_size=batch_size,
            dtype=dtype,
            lowering=lowering,
            params=count_params(first.params),
            macs_nominal=macs.macs_nominal,
            macs_exact=macs.macs_exact,
            compile_s=compile_s[dtype, lowering],
            ms_median=timing.median_ms,
            ms_p90=timing.p90_ms,
            calls=timing.n,
            examples_per_s=1e3 * batch_size / timing.median_ms,
            ratio=beside.ratio,
            ratio_low=beside.ratio_low,
            ratio_high=beside.ratio_high,
            memory_bytes=memory_of(runner.compiled),
            mfu=ceilings.mfu(macs.flops_nominal, timing.median_ms, **ceiling),
            bound_ms=bound.ms,
            bound_by=bound.by,
        )
        rows.append(row)
    return rows


def write(workdir: Path, rows: list[Row], limits: ceilings.Ceilings, *, finished: bool) -> Path:
    """Writes bench.csv, report.json and report.md; returns the path of the last."""
    table = [dataclasses.asdict(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Row)])
    writer.writeheader()
    writer.writerows(table)
    write_text(workdir / "bench.csv", text.getvalue())
    content = {
        "experiment": "bench_models",
        "finished": finished,
        "ceilings": dataclasses.asdict(limits),
        "environment": report.environment(),
        "rows": table,
    }
    write_json(workdir / "report.json", content)
    write_text(workdir / "report.md", markdown(rows, limits, content["environment"]))
    return workdir / "report.md"


def markdown(rows: list[Row], limits: ceilings.Ceilings, environment: dict[str, Any]) -> str:
    """Writes the rows as a table for people."""
    peaks = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s {dtype}" for dtype, rate in limits.flop_per_s.items()
    )
    lines = [
        "# Cost of the networks",
        "",
        f"{environment['devices']} device(s) of {environment['device']} "
        f"({environment['backend']}), jax {environment['jax']}. Measured ceilings: {peaks}, "
        f"{limits.bytes_per_s / 1e9:,.0f} GB/s. MACs are of one call; MFU takes nominal MACs. "
        "Ratios are to the first row of the same network, batch and pass, with the 95 % "
        "interval. The bound is what no program can beat under these ceilings.",
        "",
        "| network | pass | batch | dtype | lowering | parameters | GMAC nominal | exact "
        "| compile s | ms | p90 | examples/s | ratio | MiB | MFU | bound ms |",
        "|---|---|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row.network} | {row.direction} | {row.batch_size} | {row.dtype} "
            f"| {row.lowering} | {row.params:,} | {row.macs_nominal / 1e9:.3f} "
            f"| {row.macs_exact / 1e9:.3f} | {row.compile_s:.1f} | {row.ms_median:.1f} "
            f"| {row.ms_p90:.1f} | {row.examples_per_s:,.1f} "
            f"| {row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f}) "
            f"| {row.memory_bytes / 2**20:,.0f} | {row.mfu:.1%} "
            f"| {row.bound_ms:.1f} ({row.bound_by}) |"
        )
    return "\n".join(lines) + "\n"


def _stored_rows(workdir: Path) -> list[Row]:
    path = workdir / "report.json"
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text())["rows"]]


def _traffic_bytes(runner: Runner) -> int:
    """Returns the bytes that have to be moved at least, all devices."""
    memory = runner.compiled.memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return moved * jax.device_count()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
