"""The work of `python -m experiments.scaling`: which variants there are, and measuring them."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import scaling_report
from experiments.scaling import Config
from experiments.scaling_steps import Elsewhere, Here, Turn, Variant, bench_of, in_a_process
from jaxbed import report
from jaxbed.errors import InputError
from jaxbed.whole_files import write_json, write_text


def run(config: Config) -> Path:
    """Measures every network and type, what is measured already left out; writes the report."""
    devices = check(config)
    report.open_workdir(config.workdir, dataclasses.asdict(config), resume=config.resume)
    (config.workdir / "measured").mkdir(exist_ok=True)
    groups = []
    for network in config.networks:
        for dtype in config.dtypes:
            path = config.workdir / "measured" / f"{network}_{dtype}.json"
            if not path.exists():
                write_json(path, measure(config, devices, network, dtype))
            groups.append(json.loads(path.read_text()))
    _log(config.workdir, groups)
    return scaling_report.write(config, groups)


def check(config: Config) -> tuple[int, ...]:
    """Returns the numbers of devices to measure.

    Raises:
        InputError: a flag asks for what cannot be.
    """
    for network in config.networks:
        bench_of(network)
    counts = ("devices", "batch_sizes", "steps_per_dispatch", "predicted")
    for name in (*counts, "rounds", "calls", "link_gb_per_s", "link_latency_us"):
        values = getattr(config, name)
        least = 0 if name.startswith("link") else 1
        for value in values if name in counts else [values]:
            if value < least or name == "link_gb_per_s" and not value:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} is {value}, but must be more than 0.")
        if values == ():
            raise InputError(f"--{name.replace('_', '-')} names nothing; name at least one.")
    devices = tuple(sorted(set(config.devices)))
    if jax.default_backend() == "cpu":
        return devices
    there = tuple(count for count in devices if count <= jax.device_count())
    if there != devices:
        _tell(f"there are {jax.device_count()} devices, so --devices is {there}")
    if not there:
        raise InputError(f"--devices is {devices}, but there are only {jax.device_count()}.")
    return there


def variants_of(config: Config, devices: Sequence[int]) -> list[Variant]:
    """Lists what is to be measured for a network and a type, the single device first."""
    found: dict[Variant, None] = {}
    for steps in config.steps_per_dispatch:
        for each in config.batch_sizes:
            for batch_size in sizes_of(config, devices, each, 1):
                found[Variant("single", 1, batch_size, steps)] = None
            for way in config.ways:
                for count in devices:
                    for batch_size in sizes_of(config, devices, each, count):
                        found[Variant(way, count, batch_size, steps)] = None
    return list(found)


def sizes_of(config: Config, devices: Sequence[int], each: int, count: int) -> list[int]:
    """Returns the batch sizes of all scalings on a number of devices."""
    sizes = {"weak": each * count, "strong": each * max(devices)}
    return [sizes[scaling] for scaling in config.scalings]


def measure(config: Config, devices: Sequence[int], network: str, dtype: str) -> dict[str, Any]:
    """Measures all variants of a network and a type in turns; returns plain values."""
    variants = variants_of(config, devices)
    turns: dict[Variant, list[Turn]] = {variant: [] for variant in variants}
    rng = np.random.default_rng(0)
    _tell(f"{network} {dtype}: compiling {len(variants)} programs")
    with contextlib.ExitStack() as stack:
        who = _who_measures(config, network, dtype, variants, stack)
        begin = time.monotonic()
        for number in range(config.rounds):
            for chosen in rng.permutation(len(variants)):
                turns[variants[chosen]].append(who[variants[chosen]].turn(variants[chosen]))
            left_s = (time.monotonic() - begin) / (number + 1) * (config.rounds - number - 1)
            _tell(f"{network} {dtype}: round {number + 1} of {config.rounds}, {left_s:.0f} s left")
        facts = {variant: who[variant].facts[variant] for variant in variants}
        about = who[variants[0]].about
    return {
        "network": network,
        "dtype": dtype,
        "simulated": about["environment"]["backend"] == "cpu",
        **about,
        "variants": [
            {
                **variant._asdict(),
                **dataclasses.asdict(facts[variant]),
                "step_ms": [ms for turn in turns[variant] for ms in turn.step],
                "sums_ms": [ms for turn in turns[variant] for ms in turn.sums],
                "input_ms": [ms for turn in turns[variant] for ms in turn.input],
            }
            for variant in variants
        ],
    }


def _who_measures(
    config: Config,
    network: str,
    dtype: str,
    variants: Sequence[Variant],
    stack: contextlib.ExitStack,
) -> dict[Variant, Here | Elsewhere]:
    """Starts what measures; on a CPU one process for every number of devices."""
    if jax.default_backend() != "cpu":
        return dict.fromkeys(variants, Here(config, network, dtype, variants))
    who = {}
    for count in sorted({variant.devices for variant in variants}):
        own = [variant for variant in variants if variant.devices == count]
        process = stack.enter_context(in_a_process(config, network, dtype, own))
        who |= dict.fromkeys(own, process)
    return who


def _log(workdir: Path, groups: Sequence[dict[str, Any]]) -> None:
    """Writes every variant's durations as a line of metrics.jsonl."""
    lines = [
        json.dumps({"phase": f"{group['network']}/{group['dtype']}", "kind": "bench", **variant})
        for group in groups
        for variant in group["variants"]
    ]
    write_text(workdir / "metrics.jsonl", "\n".join(lines) + "\n")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
