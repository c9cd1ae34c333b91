"""What a run leaves behind: its configuration at the start, its report at the end.

`config.json`, `report.json` and `report.md` appear whole or not at all; a number that is not
finite is null in them. jaxbed.report_text makes the text of `report.md`.
"""

import csv
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxbed import hosts, report_text, workdirs
from jaxbed.errors import InputError
from jaxbed.whole_files import plain, write_json, write_text

if TYPE_CHECKING:
    from jaxbed.training.clock import Clock

Verdict = Literal["reproduced", "not reproduced", "not comparable"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Data:
    """What was trained and tested on.

    Attributes:
        name: of the data set; says "simulated" where the data are.
        split: how the two sides were divided, one phrase.
        subjects_shared: whether a subject is on both sides.
        train: examples trained on.
        test: examples tested on.
        simulated: whether the examples come from a simulation.
    """

    name: str
    split: str
    subjects_shared: bool
    train: int
    test: int
    simulated: bool

    def __post_init__(self):
        if self.simulated and "simulated" not in self.name.lower():
            raise ValueError(f"simulated data are to be named so, not {self.name!r}")


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What one call of a network on one example costs.

    Attributes:
        params: number of parameters.
        macs_nominal: multiply-accumulates, every kernel tap counted.
        macs_exact: without the taps that fall on padding.
    """

    params: int
    macs_nominal: int
    macs_exact: int

    @property
    def flops_nominal(self) -> int:
        """A multiply and an add for every nominal MAC."""
        return 2 * self.macs_nominal


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where the time of training went, as far as this process trained.

    Attributes:
        compile_s: seconds spent compiling.
        train_step_ms: `median`, `p90` and number `n` of the training steps' durations.
        examples_per_s: trained on, waiting for input included.
        input_wait_frac: share of training time spent waiting for input, in [0, 1].
        recompiles_after_first: compilations during a step; anything but 0 is a defect.
    """

    compile_s: float
    train_step_ms: Mapping[str, float]
    examples_per_s: float
    input_wait_frac: float
    recompiles_after_first: int


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure that a paper prints.

    Attributes:
        id: of the claim, unique over all papers.
        where: in the paper.
        quantity: what is claimed.
        value: as printed; 1 for a statement that is claimed to be true.
        unit: of the value; "true/false" for a statement.
        note: what has to be known about it; may be empty.
    """

    id: str
    where: str
    quantity: str
    value: float
    unit: str
    note: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """Our answer to a published figure.

    Attributes:
        id: of the published figure.
        ours: in the published figure's unit, True or False for a statement; None if there is
            nothing to put beside it.
        verdict: whether it could be reproduced.
        why: one sentence.
    """

    id: str
    ours: float | None
    verdict: Verdict
    why: str

    def __post_init__(self):
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"a verdict is one of {get_args(Verdict)}, not {self.verdict!r}")
        if self.verdict == "reproduced" and plain(self.ours) is None:
            raise ValueError(f"{self.id} cannot be reproduced by the figure {self.ours}")
        if not self.why:
            raise ValueError(f"the verdict on {self.id} needs a why")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of the report: a file in the workdir and one sentence on what it shows."""

    path: Path
    caption: str


def open_workdir(workdir: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Creates the folder of a run and keeps the configuration in its `config.json`.

    Starts the JAX backend, whose device is kept too. When resuming, `config.json` stays what
    it was; where there is no run yet, resuming begins one. Of several processes the lead does
    it for all.

    Args:
        workdir: the folder; made with its parents if need be.
        config: every setting, resolved; nested mappings and sequences of plain values.
        resume: whether to go on with the run that is there.

    Raises:
        InputError: the folder cannot be written; another process is at work in it; it holds a
            run and `resume` is False; or its run has another configuration.
    """
    hosts.on_lead(f"opening {workdir}", lambda: _open(workdir, config, resume=resume))


def _open(workdir: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        workdirs.lock(workdir)
        if path.exists():
            workdirs.check_same_run(path, plain(config), resume=resume)
            return
        started_with = {
            "config": config,
            "versions": _versions(),
            "device": environment()["device"],
        }
        write_json(path, started_with)
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written ({error.strerror}); name a folder that can."
        ) from error


def environment() -> dict[str, Any]:
    """Returns `jax` version, `backend`, `device` (the processor's name on a CPU), `devices`."""
    import jax

    backend = jax.default_backend()
    device = _cpu_name() if backend == "cpu" else jax.devices()[0].device_kind
    return {
        "jax": jax.__version__,
        "backend": backend,
        "device": device,
        "devices": jax.device_count(),
    }


def timing_of(clock: "Clock", *, batch_size: int, recompiles_after_first: int) -> Timing:
    """Sums up a trainer's clock.

    Args:
        clock: of the trainer.
        batch_size: examples per training step.
        recompiles_after_first: as the trainer counted them.
    """
    trained_s = sum(clock.step_ms) / 1e3
    examples = batch_size * len(clock.step_ms)
    return Timing(
        compile_s=clock.seconds.get("compile", 0.0),
        train_step_ms=clock.step_summary(),
        examples_per_s=examples / trained_s if trained_s else 0.0,
        input_wait_frac=clock.input_wait_frac,
        recompiles_after_first=recompiles_after_first,
    )


def read_published(path: Path, *, paper: str) -> tuple[Published, ...]:
    """Reads the figures of one paper from the table of published figures.

    Args:
        path: CSV with the columns id, paper, where, quantity, value, unit, note.
        paper: the paper's stem, such as "efd_crwt".

    Raises:
        ValueError: the table knows no such paper.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("paper") == paper]
    if not rows:
        raise ValueError(f"{path} holds no figure of the paper {paper!r}")
    return tuple(Published(**{**row, "value": float(row["value"])}) for row in rows)


def write_report(
    workdir: Path,
    *,
    experiment: str,
    summary: str,
    data: Data,
    results: Mapping[str, float],
    models: Mapping[str, ModelCost],
    timing: Timing,
    environment: Mapping[str, Any],
    published: Sequence[Published] = (),
    claims: Sequence[Claim] = (),
    why_missing: str = "not measured by this experiment",
    figures: Sequence[Figure] = (),
    sections: Mapping[str, str] | None = None,
) -> Path:
    """Writes `report.json`, for programs, and `report.md`, for people.

    Args:
        workdir: the folder of the run.
        experiment: name of the experiment.
        summary: what was trained and to what end, a few sentences for a newcomer.
        data: what was trained and tested on.
        results: by name; names such as "crwt/ssim" become a table of arms and quantities.
        models: cost by name.
        timing: see `timing_of`.
        environment: see `environment`.
        published: every figure of the experiment's paper.
        claims: our answers; a published figure without one is "not comparable".
        why_missing: the reason given for those.
        figures: pictures inside `workdir`.
        sections: Markdown by title, added to `report.md` alone.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: a claim answers no published figure, or one that is answered already; or
            a figure's file is not there.
    """
    answers = _answer(published, claims, why_missing)
    for figure in figures:
        if not figure.path.is_file():
            raise ValueError(f"the figure {figure.path} was not written")
    report = plain(
        {
            "experiment": experiment,
            "finished": True,
            "data": {
                "name": data.name,
                "split": data.split,
                "subjects_shared": data.subjects_shared,
                "train": data.train,
                "test": data.test,
            },
            "results": results,
            "models": {
                name: {**dataclasses.asdict(cost), "flops_nominal": cost.flops_nominal}
                for name, cost in models.items()
            },
            "timing": dataclasses.asdict(timing),
            "environment": environment,
            "parameters": _parameters(workdir),
            "claims": [
                {
                    "id": figure.id,
                    "paper": figure.value,
                    "ours": None if answer.ours is None else float(answer.ours),
                    "unit": figure.unit,
                    "verdict": answer.verdict,
                    "why": answer.why,
                }
                for figure, answer in zip(published, answers, strict=True)
            ],
        }
    )
    text = report_text.markdown(
        report,
        summary=summary,
        simulated=data.simulated,
        published=published,
        figures=[(f.path.relative_to(workdir).as_posix(), f.caption) for f in figures],
        sections=sections or {},
        versions=_versions(),
    )
    write_json(workdir / "report.json", report)
    write_text(workdir / "report.md", text)
    return workdir / "report.md"


def _parameters(workdir: Path) -> dict[str, str]:
    """Reads the hashes of trained parameters, by stretch of training."""
    path = workdir / "parameters.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _answer(
    published: Sequence[Published], claims: Sequence[Claim], why_missing: str
) -> list[Claim]:
    """Puts one claim beside every published figure, in the order of the table."""
    unanswered = {figure.id for figure in published}
    for claim in claims:
        if claim.id not in unanswered:
            raise ValueError(
                f"the claim {claim.id!r} answers no published figure, or one answered before"
            )
        unanswered.remove(claim.id)
    given = {claim.id: claim for claim in claims}
    return [
        given.get(figure.id, Claim(figure.id, None, "not comparable", why_missing))
        for figure in published
    ]


def _versions() -> dict[str, str]:
    installed = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    versions = {name: installed.get(name, "(absent)") for name in _PACKAGES}
    return {**versions, "python": platform.python_version()}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
