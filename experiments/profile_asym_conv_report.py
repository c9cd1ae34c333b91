"""What `python -m experiments.profile_asym_conv` writes: tables, claims and figures."""

import csv
import dataclasses
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.profile_asym_conv import PRESETS, Config
from experiments.profile_asym_conv_measured import (
    Group,
    LayerTime,
    Measured,
    Total,
    Traced,
    best,
    in_lax,
    layers_of,
)
from experiments.profile_asym_conv_verdict import attribution, claims, saving, theory
from jaxbed import report
from jaxbed.efficiency.ceilings import Ceilings, ridge
from jaxbed.efficiency.clocks import Timing
from jaxbed.report_text import number, table
from jaxbed.whole_files import write_json, write_text

_CLAIMS = (
    "preterm.train.saving",
    "preterm.predict.saving",
    "preterm.time.asym",
    "preterm.time.std",
)

_PASSES = {"forward": "prediction", "train": "training"}

_LEAST_SHARE = 0.001
"""Of a step, for a module to stand in the report; modules.csv has all."""


def write(
    config: Config, measured: Measured, limits: Ceilings, *, finished: bool
) -> tuple[Path, str]:
    """Writes all files; returns the path of report.md and its first part, the summary."""
    workdir, environment = config.workdir, report.environment()
    table_i = PRESETS["paper"]
    published = all(getattr(config, name) == table_i[name] for name in ("widths", "image_size"))
    answers = claims(measured.totals, published=published, device=environment["device"])
    judged = judge(answers)
    _write_csv(workdir / "totals.csv", [_total_record(row) for row in measured.totals])
    _write_csv(workdir / "layers.csv", [_layer_record(row) for row in measured.layers])
    _write_csv(workdir / "modules.csv", _module_records(measured.traces))
    content = {
        "experiment": "profile_asym_conv",
        "finished": finished,
        "results": results(measured),
        "models": models(measured.totals),
        "ceilings": dataclasses.asdict(limits),
        "environment": environment,
        "claims": judged,
        "measured": dataclasses.asdict(measured),
    }
    write_json(workdir / "report.json", content)
    shown = [group for group in measured.groups if group.batch_size == max(config.batch_sizes)]
    summary = _summary(config, measured, limits, environment, judged)
    parts = [summary, *(_layers(measured, group) for group in shown)]
    parts += [_trace(traced) for traced in measured.traces]
    if finished and importlib.util.find_spec("matplotlib"):
        from experiments import profile_asym_conv_figures as draw

        (workdir / "figures").mkdir(exist_ok=True)
        paths = draw.all_figures(workdir / "figures", measured, limits, shown)
        parts += [f"![{caption}](figures/{path.name})\n\n*{caption}*" for path, caption in paths]
    write_text(workdir / "report.md", "\n\n".join(parts) + "\n")
    return workdir / "report.md", summary


def judge(answers: Sequence[report.Claim]) -> list[dict[str, Any]]:
    """Puts our answers beside the published figures on time, every one of them."""
    given = {answer.id: answer for answer in answers}
    rows = []
    path = Path(__file__).with_name("claims.csv")
    for figure in report.read_published(path, paper="preterm_pose"):
        if figure.id in _CLAIMS:
            missing = report.Claim(figure.id, None, "not comparable", "not measured by this run")
            answer = given.get(figure.id, missing)
            rows.append(
                {
                    "id": figure.id,
                    "quantity": figure.quantity,
                    "paper": figure.value,
                    "ours": answer.ours,
                    "unit": figure.unit,
                    "verdict": answer.verdict,
                    "why": answer.why,
                }
            )
    return rows


def results(measured: Measured) -> dict[str, float]:
    """Returns medians, savings and their causes by name, the best lowering of each network."""
    found = {}
    for group in measured.groups:
        fastest = best(measured.totals, group)
        for kind, total in fastest.items():
            name = f"{kind}/{group.direction}/batch{group.batch_size}/{group.dtype}"
            found[f"{name}/ms"] = total.ms
            found[f"{name}/bound_ms"] = total.bound_ms
            if kind != "standard":
                found[f"{name}/saving_percent"] = saving(fastest["standard"], total).percent
                for cause, points in _attribution(measured, fastest, kind).items():
                    found[f"{name}/points/{cause}"] = points
    return found


def models(totals: Sequence[Total]) -> dict[str, dict[str, int]]:
    """Returns what one call of each network on one clip costs."""
    costs = {}
    for total in totals:
        if total.direction == "forward":
            macs = total.macs_nominal // total.batch_size, total.macs_exact // total.batch_size
            cost = report.ModelCost(total.params, *macs)
            costs[total.kind] = dataclasses.asdict(cost) | {"flops_nominal": cost.flops_nominal}
    return costs


def _summary(
    config: Config,
    measured: Measured,
    limits: Ceilings,
    environment: Mapping[str, Any],
    judged: Sequence[Mapping[str, Any]],
) -> str:
    height, width = config.image_size
    peaks = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s {dtype} (ridge {ridge(limits, dtype):.1f} FLOP/B)"
        for dtype, rate in limits.flop_per_s.items()
    )
    parts = [
        "# Asymmetric 3-D convolutions: what they save, and what eats the rest",
        f"Regression networks with stages of {' '.join(map(str, config.widths))} channels on clips "
        f"of 3 frames of {height}x{width}. {environment['devices']} device(s) of "
        f"{environment['device']} ({environment['backend']}), jax {environment['jax']}. Measured "
        f"ceilings: {peaks}, {limits.bytes_per_s / 1e9:,.0f} GB/s. All networks and layers of one "
        "pass, batch and dtype were measured in turns: compare within them. Intervals are 95 %.",
        "## Verdict",
        table(
            ["claim", "published", "here", "verdict", "why"],
            [
                [
                    row["quantity"],
                    f"{number(row['paper'])} {row['unit']}",
                    "–" if row["ours"] is None else f"{number(row['ours'])} {row['unit']}",
                    row["verdict"],
                    row["why"],
                ]
                for row in judged
            ],
            numbers_from=5,
        ),
        "## Time saved against the standard network",
        "Theory: MACs with every tap (*nominal*) and without those on padding (*exact*), and the "
        "bounds under the measured ceilings with normalisation and ReLU fused or not; in brackets "
        "the bounds of kernels that compute taps on padding too. Achieved: the best lowering of "
        "each network, as saving and as ratio of times, and both in plain lax.",
        _savings_table(measured),
        *_attributions(measured),
        "## Networks",
        "MB and bounds: every layer reads its input and writes its output once; *not fused* adds "
        "what normalisation and ReLU move on their own.",
        _networks_table(measured.totals),
    ]
    return "\n\n".join(parts)


def _savings_table(measured: Measured) -> str:
    heads = ["pass", "batch", "dtype", "network", "nominal", "exact", "bound, fused"]
    heads += ["bound, not fused", "achieved", "ratio", "in lax", "lowering", "lax / best, ms"]
    rows = []
    for group in measured.groups:
        fastest, lax = best(measured.totals, group), in_lax(measured.totals, group)
        standard = fastest["standard"]
        for kind, own in fastest.items():
            row = [_PASSES[group.direction], str(group.batch_size), group.dtype, kind]
            if kind == "standard":
                row += ["–"] * 7
            else:
                row += [f"{share:.1f} %" for share in theory(standard, own)]
                row += [_bound_saved(standard, own, bound) for bound in ("", "_unfused")]
                row += [str(saving(standard, own)), f"{own.ms / standard.ms:.3f}"]
                row.append(str(saving(lax["standard"], lax[kind])) if lax else "–")
            lax_ms = f"{lax[kind].ms:.1f}" if lax else "–"
            rows.append([*row, own.lowering, f"{lax_ms} / {own.ms:.1f}"])
    return table(heads, rows, numbers_from=4)


def _bound_saved(standard: Total, own: Total, bound: str) -> str:
    exact, nominal = (
        100 * (1 - getattr(own, name) / getattr(standard, name))
        for name in (f"bound{bound}_ms", f"nominal{bound}_ms")
    )
    return f"{exact:.1f} % [{nominal:.1f}]"


def _attributions(measured: Measured) -> list[str]:
    parts = [
        "## What eats the difference",
        "In points of percent of the standard network's time, the best lowering of each; the "
        "points add up to what was achieved. MACs per second are beside the mean of the standard "
        "network's convolutions. Layers were measured alone, so *the rest* also holds what the "
        "compiler does better or worse with a whole network.",
    ]
    for group in measured.groups:
        fastest = best(measured.totals, group)
        kinds = [kind for kind in fastest if kind != "standard"]
        columns = [_attribution(measured, fastest, kind) for kind in kinds]
        if columns:
            rows = [[cause, *(f"{c[cause]:+.1f}" for c in columns)] for cause in columns[0]]
            parts.append(table([_title(group), *kinds], rows))
    return parts if len(parts) > 2 else []


def _attribution(measured: Measured, fastest: Mapping[str, Total], kind: str) -> dict[str, float]:
    standard, own = fastest["standard"], fastest[kind]
    return attribution(standard, layers_of(measured, standard), own, layers_of(measured, own))


def _networks_table(totals: Sequence[Total]) -> str:
    heads = ["network", "pass", "batch", "dtype", "lowering", "parameters", "GMAC nominal", "exact"]
    heads += ["MB", "not fused", "bound ms", "not fused", "ms", "p90", "calls", "of bound", "MiB"]
    rows = [
        [
            *(row.kind, _PASSES[row.direction], str(row.batch_size), row.dtype, row.lowering),
            f"{row.params:,}",
            number(row.macs_nominal / 1e9),
            number(row.macs_exact / 1e9),
            f"{row.conv_bytes / 1e6:,.0f}",
            f"{(row.conv_bytes + row.norm_bytes) / 1e6:,.0f}",
            f"{row.bound_ms:.2f}",
            f"{row.bound_unfused_ms:.2f}",
            f"{row.ms:.2f}",
            f"{Timing(row.durations_ms).p90_ms:.2f}",
            str(len(row.durations_ms)),
            f"{row.bound_ms / row.ms:.0%}",
            f"{row.memory_bytes / 2**20:,.0f}",
        ]
        for row in totals
    ]
    return table(heads, rows, numbers_from=5)


def _layers(measured: Measured, group: Group) -> str:
    """Writes a row per layer; its measured figures once for every lowering."""
    rows = [row for row in measured.layers if row.group == group]
    lowerings = list(dict.fromkeys(row.lowering for row in rows))
    by_layer: dict[tuple[str, str], list[LayerTime]] = {}
    for row in rows:
        by_layer.setdefault((row.kind, row.layer), []).append(row)
    heads = ["network", "layer", "kernel", "channels", "parameters", "GMAC nominal", "exact", "MB"]
    heads += ["FLOP/B", "bound ms", "not fused"]
    heads += [
        f"{lowering} {unit}" for lowering in lowerings for unit in ("ms", "GFLOP/s", "of bound")
    ]
    heads.append("bias, norm, ReLU ms")
    cells = []
    for same in by_layer.values():
        row = same[0]
        cells.append(
            [
                *(row.kind, row.layer, row.kernel, f"{row.inputs} to {row.outputs}"),
                f"{row.params:,}",
                number(row.macs_nominal / 1e9),
                number(row.macs_exact / 1e9),
                f"{row.conv_bytes / 1e6:.1f}",
                f"{row.intensity:.0f}",
                f"{row.bound_ms:.3f}",
                f"{row.bound_unfused_ms:.3f}",
                *(cell for of in same for cell in _measured_cells(of)),
                f"{row.norm_ms:.3f}",
            ]
        )
    return (
        f"## Layers, {_title(group)}\n\nEvery layer alone: its convolution under each lowering, "
        "and what follows it. Layers that are alike were measured once. GFLOP/s are exact.\n\n"
        f"{table(heads, cells, numbers_from=4)}"
    )


def _measured_cells(row: LayerTime) -> list[str]:
    return [f"{row.conv_ms:.3f}", f"{row.gflop_per_s:.1f}", f"{row.bound_fraction:.0%}"]


def _trace(traced: Traced) -> str:
    group = Group(traced.direction, traced.batch_size, traced.dtype)
    title = f"## Trace: {traced.kind}, {_title(group)}, {traced.lowering}"
    if traced.refused:
        return f"{title}\n\nNo trace: {traced.refused}."
    rows = [
        [
            row.module,
            f"{row.ms:.2f}",
            f"{row.share:.1%}",
            number(row.macs_nominal / 1e9),
            number(row.macs_exact / 1e9),
            f"{row.gflop_per_s:.1f}",
        ]
        for row in traced.modules
        if row.share >= _LEAST_SHARE
    ]
    heads = ["module", "ms", "share", "GMAC nominal", "exact", "GFLOP/s nominal"]
    return (
        f"{title}\n\nTraced, with operations kept apart, it takes {traced.step_ms:.1f} ms, of "
        f"which operations cover {traced.coverage:.1%}.\n\n{table(heads, rows)}"
    )


def _title(group: Group) -> str:
    return f"{_PASSES[group.direction]}, batch {group.batch_size}, {group.dtype}"


def _total_record(row: Total) -> dict[str, Any]:
    record = dataclasses.asdict(row)
    timing = Timing(record.pop("durations_ms"))
    return record | {"ms": timing.median_ms, "p90_ms": timing.p90_ms, "calls": timing.n}


def _layer_record(row: LayerTime) -> dict[str, Any]:
    derived = ("gflop_per_s", "intensity", "bound_fraction")
    return dataclasses.asdict(row) | {name: getattr(row, name) for name in derived}


def _module_records(traces: Sequence[Traced]) -> list[dict[str, Any]]:
    identity = ("kind", "direction", "batch_size", "dtype", "lowering")
    return [
        {name: getattr(traced, name) for name in identity} | dataclasses.asdict(module)
        for traced in traces
        for module in traced.modules
    ]


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    write_text(path, text.getvalue())
