"""The text of `report.md`: what jaxbed.report found out, for a person who was not there."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxbed.report import Published

SIMULATED = (
    "> **The data are simulated.** The figures below prove that the machinery works; "
    "they are no medical result."
)
SHARED = (
    "**Subjects are shared**: the same people are trained and tested on, so the results say "
    "little about a person the network has never seen."
)
NOT_SHARED = "No subject is on both sides: every test example shows a person never trained on."
COST = (
    "One call on one example. A MAC is one multiplication and its addition, two FLOPs. "
    "*Nominal* counts every kernel tap, as papers do; *exact* leaves out the taps that fall "
    "on padding."
)


def markdown(
    report: Mapping[str, Any],
    *,
    summary: str,
    simulated: bool,
    published: Sequence["Published"],
    figures: Sequence[tuple[str, str]],
    sections: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:
    """Writes a report as Markdown.

    Args:
        report: the content of `report.json`.
        summary: the opening, a few sentences.
        simulated: whether the data are.
        published: in the order of the report's claims.
        figures: (path relative to the report, caption).
        sections: Markdown by title.
        versions: by package.
    """
    parts = [
        f"# Report of `{report['experiment']}`",
        summary,
        *([SIMULATED] if simulated else []),
        *_data(report["data"]),
        *_results(report["results"]),
        *_models(report["models"]),
        *_timing(report["timing"]),
        *_claims(report["claims"], published),
        *_figures(figures),
        *(part for title, text in sections.items() for part in (f"## {title}", text)),
        *_made_with(report["environment"], versions),
    ]
    return "\n\n".join(parts) + "\n"


def _data(data: Mapping[str, Any]) -> list[str]:
    return [
        "## Data",
        f"{data['name']}: {data['train']:,} examples trained on, {data['test']:,} tested on. "
        f"Split: {data['split']}. {SHARED if data['subjects_shared'] else NOT_SHARED}",
    ]


def _results(results: Mapping[str, Any]) -> list[str]:
    """Writes single results as a list, and "arm/quantity" as a table with a row per arm."""
    single = {name: value for name, value in results.items() if "/" not in name}
    split = {tuple(name.rsplit("/", 1)): results[name] for name in results if "/" in name}
    parts = ["## Results", "On the test examples, where the name does not say otherwise."]
    if split:
        arms = dict.fromkeys(arm for arm, _ in split)
        quantities = dict.fromkeys(quantity for _, quantity in split)
        rows = [[arm, *(number(split.get((arm, q))) for q in quantities)] for arm in arms]
        parts.append(table(["", *quantities], rows))
    if single:
        rows = [[name, number(value)] for name, value in single.items()]
        parts.append(table(["result", "value"], rows))
    return parts


def _models(models: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not models:
        return []
    columns = ["params", "macs_nominal", "macs_exact", "flops_nominal"]
    heads = ["network", "parameters", "MACs nominal", "MACs exact", "FLOPs nominal"]
    rows = [[name, *(number(cost[c]) for c in columns)] for name, cost in models.items()]
    return ["## What the networks cost", COST, table(heads, rows)]


def _timing(timing: Mapping[str, Any]) -> list[str]:
    step = timing["train_step_ms"]
    if step["n"]:
        steps = (
            f"Training step: median {number(step['median'])} ms, 90th percentile "
            f"{number(step['p90'])} ms, over {step['n']:,} steps; "
            f"{number(timing['examples_per_s'])} examples/s. Waiting for input took "
            f"{timing['input_wait_frac']:.1%} of the time."
        )
    else:
        steps = "No training step was timed: training was complete when this process began."
    again = timing["recompiles_after_first"]
    return [
        "## Time",
        f"{steps} Compilation took {number(timing['compile_s'])} s; {again} "
        f"recompilation{'' if again == 1 else 's'} after the first step.",
    ]


def _claims(claims: Sequence[Mapping[str, Any]], published: Sequence["Published"]) -> list[str]:
    if not claims:
        return []
    rows = []
    for claim, figure in zip(claims, published, strict=True):
        note = f" ({figure.note})" if figure.note else ""
        rows.append(
            [
                f"{figure.quantity}, {figure.where}",
                _with_unit(claim["paper"], claim["unit"]) + note,
                _with_unit(claim["ours"], claim["unit"]),
                claim["verdict"],
                claim["why"],
            ]
        )
    counts = Counter(claim["verdict"] for claim in claims)
    return [
        "## Beside the published figures",
        ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".",
        table(["claim", "published", "here", "verdict", "why"], rows, numbers_from=5),
    ]


def _figures(figures: Sequence[tuple[str, str]]) -> list[str]:
    if not figures:
        return []
    embedded = [f"![{caption}]({path})\n\n*{caption}*" for path, caption in figures]
    return ["## Figures", *embedded]


def _made_with(environment: Mapping[str, Any], versions: Mapping[str, str]) -> list[str]:
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        "## Made with",
        f"{environment['device']}, backend {environment['backend']}, devices: "
        f"{environment['devices']}; {software}.",
        "Beside this file: `config.json` (every setting), `report.json` (this report for "
        "programs), `metrics.jsonl` and `tensorboard/` (the course of training), "
        "`checkpoints/`.",
    ]


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return number(None)
    if unit == "true/false":
        return "true" if value else "false"
    return f"{number(value)} {unit}"


def number(value: float | bool | None) -> str:
    """Writes a number for a reader: counts in full, others to four digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 1) -> str:
    """Writes a Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(heads))]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(heads), rule, *cells])
