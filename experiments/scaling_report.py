"""What `python -m experiments.scaling` makes of its measurements: rows, predictions, texts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import scaling_figures, scaling_model
from experiments.scaling import Config, Scaling
from experiments.scaling_model import Link, Prediction
from jaxbed.efficiency.ceilings import mfu
from jaxbed.efficiency.clocks import beside
from jaxbed.report_text import number, table
from jaxbed.whole_files import plain, write_json, write_text

SHARED_CORES = (
    "> **The devices are simulated and share the cores of one processor.** More of them are no "
    "more hardware, so the figures say what dividing a step costs and nothing about the speed of "
    "real devices. Efficiency is the speed-up over the single device itself: 1 where dividing "
    "costs nothing, more where the single device left cores idle."
)
REAL_DEVICES = "Efficiency is the speed-up over the single device, divided by the devices."
PREDICTED = (
    "**A prediction, not a measurement.** Every device computes for as long as the single device "
    "did, and the sums over devices that the compiled program holds run through a ring, one after "
    "the other: each of n devices sends 2 (n - 1) messages of 1/n of the bytes. The lower "
    "efficiency lets computation wait for every sum, the higher lets both run at once. Slower "
    "links between hosts, contention and stragglers are left out."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant as part of a scaling, beside the single device.

    Attributes:
        network: by name.
        dtype: computed in.
        scaling: weak or strong.
        way: single, jit or pmap.
        devices: that share a batch.
        batch_size: over all devices.
        steps: per dispatch.
        ms: median of a step.
        ms_p90: ninth decile.
        n: dispatches measured.
        examples_per_s: throughput.
        speed_up: of the throughput over that of the single device with one step per dispatch.
        speed_up_low: lower end of its 95 % interval.
        speed_up_high: upper end.
        efficiency: speed-up by what can be hoped for.
        sums_ms: all sums over devices of a step, alone.
        sums_share: of the step, by them.
        input_ms: to bring a batch to the devices.
        input_share: of a step, if nothing else went on meanwhile.
        sums: number of all-reduces in a step.
        sums_bytes: their size.
        memory_bytes: that one device needs.
        mfu: nominal FLOPs over what the devices were seen to do at best.
        compile_s: to compile it.
    """

    network: str
    dtype: str
    scaling: Scaling
    way: str
    devices: int
    batch_size: int
    steps: int
    ms: float
    ms_p90: float
    n: int
    examples_per_s: float
    speed_up: float
    speed_up_low: float
    speed_up_high: float
    efficiency: float
    sums_ms: float
    sums_share: float
    input_ms: float
    input_share: float
    sums: int
    sums_bytes: int
    memory_bytes: int
    mfu: float
    compile_s: float


def rows_of(config: Config, group: dict[str, Any]) -> list[Row]:
    """Puts every variant of a network and type beside the single device of its scaling."""
    known = {(v["way"], v["devices"], v["batch_size"], v["steps"]): v for v in group["variants"]}
    largest = max(v["devices"] for v in group["variants"])
    rows = []
    for scaling in config.scalings:
        for each in config.batch_sizes:
            alone = each if scaling == "weak" else each * largest
            first = known["single", 1, alone, min(config.steps_per_dispatch)]
            for (way, devices, batch_size, _), variant in known.items():
                if batch_size == (each * devices if scaling == "weak" else alone):
                    rows.append(_row(group, scaling, way, variant, first))
    return rows


def _row(
    group: dict[str, Any], scaling: Scaling, way: str, variant: dict[str, Any], first: dict
) -> Row:
    compared = beside(np.array(first["step_ms"]), np.array(variant["step_ms"]))
    devices, ms = variant["devices"], compared.timing.median_ms
    larger = variant["batch_size"] / first["batch_size"]
    sums_ms, input_ms = (float(np.median(variant[name])) for name in ("sums_ms", "input_ms"))
    shared = group["simulated"]
    return Row(
        network=group["network"],
        dtype=group["dtype"],
        scaling=scaling,
        way=way,
        devices=devices,
        batch_size=variant["batch_size"],
        steps=variant["steps"],
        ms=ms,
        ms_p90=compared.timing.p90_ms,
        n=compared.timing.n,
        examples_per_s=1e3 * variant["batch_size"] / ms,
        speed_up=larger / compared.ratio,
        speed_up_low=larger / compared.ratio_high,
        speed_up_high=larger / compared.ratio_low,
        efficiency=larger / compared.ratio / (1 if shared else devices),
        sums_ms=sums_ms if devices > 1 else 0.0,
        sums_share=sums_ms / ms if devices > 1 else 0.0,
        input_ms=input_ms,
        input_share=input_ms / (input_ms + ms),
        sums=len(variant["sums_bytes"]) if devices > 1 else 0,
        sums_bytes=sum(variant["sums_bytes"]) if devices > 1 else 0,
        memory_bytes=variant["memory_bytes"],
        mfu=mfu(2 * variant["macs"], ms, flop_per_s=group["peak"] * (1 if shared else devices)),
        compile_s=variant["compile_s"],
    )


def predictions_of(
    config: Config, group: dict[str, Any]
) -> list[tuple[str, Scaling, int, Prediction]]:
    """Predicts every way and scaling.

    Returns:
        (way, scaling, batch size over all devices, prediction). Where no program with sums was
        compiled, that of the gradients in one sum stands for it, and the way is "one sum".
    """
    link = Link(config.link_gb_per_s * 1e9, config.link_latency_us / 1e6)
    ways = {}
    for variant in group["variants"]:
        if variant["devices"] > 1 and variant["steps"] == min(config.steps_per_dispatch):
            ways[variant["way"]] = variant["sums_bytes"]
    ways = ways or {"one sum": [4 * group["params"]]}
    first = min(config.steps_per_dispatch)
    alone = {
        v["batch_size"]: float(np.median(v["step_ms"])) / 1e3
        for v in group["variants"]
        if v["way"] == "single" and v["steps"] == first
    }
    largest = max(v["devices"] for v in group["variants"])
    found = []
    for way, sums_bytes in ways.items():
        for each in config.batch_sizes:
            for n in config.predicted:
                if "weak" in config.scalings:
                    made = scaling_model.weak(n, alone[each], sums_bytes, link)
                    found.append((way, "weak", each * n, made))
                whole = each * largest
                if "strong" in config.scalings and n <= whole:
                    made = scaling_model.strong(n, alone[whole], sums_bytes, link)
                    found.append((way, "strong", whole, made))
    return found


def write(config: Config, groups: Sequence[dict[str, Any]]) -> Path:
    """Writes figures, report.json and report.md; returns the path of the latter."""
    rows = {_title(group): rows_of(config, group) for group in groups}
    predicted = {_title(group): predictions_of(config, group) for group in groups}
    figures = {
        title: scaling_figures.draw(config.workdir, title, rows[title], predicted[title])
        for title in rows
    }
    every = [row for own in rows.values() for row in own]
    write_json(config.workdir / "report.json", _content(groups, every, predicted))
    simulated = any(group["simulated"] for group in groups)
    environment = groups[0]["environment"]
    parts = [
        "# Report of `scaling`",
        f"One step of Adam on {environment['device']} ({environment['backend']}), jax "
        f"{environment['jax']}; random inputs and weights, all variants in turns.",
        SHARED_CORES if simulated else REAL_DEVICES,
    ]
    for title in rows:
        parts += [f"## {title}", *_tables(rows[title]), _reading(config)]
        parts += ["### Predicted", PREDICTED, _links(config), _prediction_table(predicted[title])]
        caption = f"{title}: measured speed-up over the single device, and predicted efficiency."
        path = figures[title].relative_to(config.workdir).as_posix()
        parts.append(f"![{caption}]({path})\n\n*{caption}*")
    write_text(config.workdir / "report.md", "\n\n".join(parts) + "\n")
    return config.workdir / "report.md"


def _title(group: dict[str, Any]) -> str:
    return f"{group['network']}, {group['dtype']}"


def _content(
    groups: Sequence[dict[str, Any]], rows: Sequence[Row], predicted: dict[str, list]
) -> dict[str, Any]:
    """Lays out report.json as every experiment does, with all rows."""
    first = rows[0]
    results = {
        f"{r.network}_{r.dtype}/{r.scaling}_{r.way}_{r.devices}x{r.batch_size}_s{r.steps}/{name}": (
            getattr(r, name)
        )
        for r in rows
        for name in ("examples_per_s", "efficiency")
    }
    return plain(
        {
            "experiment": "scaling",
            "finished": True,
            "data": {
                "name": "random inputs",
                "split": "none",
                "subjects_shared": False,
                "train": 0,
                "test": 0,
            },
            "results": results,
            "models": {
                group["network"]: {
                    "params": group["params"],
                    "macs_nominal": group["forward_macs"][0],
                    "macs_exact": group["forward_macs"][1],
                    "flops_nominal": 2 * group["forward_macs"][0],
                }
                for group in groups
            },
            "timing": {
                "compile_s": sum(v["compile_s"] for g in groups for v in g["variants"]),
                "train_step_ms": {"median": first.ms, "p90": first.ms_p90, "n": first.n},
                "examples_per_s": first.examples_per_s,
                "input_wait_frac": first.input_share,
                "recompiles_after_first": 0,
            },
            "environment": groups[0]["environment"],
            "devices_share_cores": any(group["simulated"] for group in groups),
            "claims": [],
            "rows": [dataclasses.asdict(row) for row in rows],
            "predictions": [
                {"of": title, "way": way, "scaling": scaling, "batch_size": batch_size}
                | dataclasses.asdict(made)
                for title, own in predicted.items()
                for way, scaling, batch_size, made in own
            ],
        }
    )


def _tables(rows: Sequence[Row]) -> list[str]:
    heads = [
        *("program", "devices", "batch", "steps at once", "ms", "p90", "examples/s"),
        *("speed-up (95 %)", "efficiency", "sums ms", "of the step", "input ms", "sums", "MB"),
        *("MiB per device", "MFU", "compile s"),
    ]
    parts = []
    for scaling in dict.fromkeys(row.scaling for row in rows):
        cells = [_cells(row) for row in rows if row.scaling == scaling]
        parts += [f"### {scaling.capitalize()} scaling", table(heads, cells)]
    return parts


def _cells(row: Row) -> list[str]:
    return [
        row.way,
        str(row.devices),
        str(row.batch_size),
        str(row.steps),
        number(row.ms),
        number(row.ms_p90),
        number(row.examples_per_s),
        f"{row.speed_up:.2f} ({row.speed_up_low:.2f} to {row.speed_up_high:.2f})",
        f"{row.efficiency:.2f}",
        number(row.sums_ms),
        f"{row.sums_share:.1%}",
        number(row.input_ms),
        str(row.sums),
        f"{row.sums_bytes / 1e6:.3f}",
        f"{row.memory_bytes / 2**20:,.1f}",
        f"{row.mfu:.1%}",
        f"{row.compile_s:.1f}",
    ]


def _reading(config: Config) -> str:
    return (
        "*Sums* are the all-reduces that the compiled program holds for one step, their number "
        "and megabytes; *sums ms* is how long sums of those sizes take by themselves, one after "
        "the other. *Input* is one batch's way from the host to the devices, which a training "
        "run hides behind the step before. MFU takes nominal MACs and the best matrix product "
        "that was seen here."
    )


def _links(config: Config) -> str:
    return (
        f"Link between neighbours: {config.link_gb_per_s:g} GB/s, {config.link_latency_us:g} us "
        "a message, as given by --link-gb-per-s and --link-latency-us."
    )


def _prediction_table(predicted: Sequence[tuple[str, Scaling, int, Prediction]]) -> str:
    heads = ["program", "scaling", "devices", "batch", "compute ms", "sums ms", "efficiency"]
    cells = [
        [
            way,
            scaling,
            str(made.devices),
            str(batch_size),
            number(1e3 * made.compute_s),
            number(1e3 * made.sums_s),
            f"{made.efficiency_low:.3f} to {made.efficiency_high:.3f}",
        ]
        for way, scaling, batch_size, made in predicted
    ]
    return table(heads, cells, numbers_from=2)
