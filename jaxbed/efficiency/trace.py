"""Where the time of a step goes: a profile reduced to one figure per operation.

The profiler reports operations by thread. They nest (a loop and its body) and overlap (a
device works on several at once), so durations cannot simply be added. Here every instant of
a device belongs to the operations that run at it, in equal parts, of nested ones to the
innermost. The times of all operations then add up to the time in which the device worked on
any, and that over the duration of the step is the `coverage`: what the figures explain.

XLA:CPU reports of some convolutions only that they were started; they then run beside other
operations. An instant at which nothing is reported belongs to the convolutions whose result
is pending: started, and not yet taken up.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxbed.efficiency import hlo

MIN_COVERAGE = 0.9
"""Below this share of the step a table of its operations says little about the step."""

_STEP = "step"
_CPU = "/host:CPU"

# XLA:CPU fuses most of a convolutional network into one operation, whose parts cannot be told
# apart; like this, every convolution and every matrix product is an operation.
_PER_OPERATION = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,"
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    }
}


@dataclass(frozen=True)
class Operation:
    """One operation of a compiled program.

    Attributes:
        name: the compiler's name for it, such as "fusion.3".
        op_name: JAX's name stack and primitive; "" where nothing near has one.
        module: Flax module path; "" outside every module.
        calls: how often it runs in a step, on one device.
        ms: what it takes of a step.
    """

    name: str
    op_name: str
    module: str
    calls: float
    ms: float


@dataclass(frozen=True)
class Trace:
    """Operations of a step, the longest first.

    Attributes:
        step_ms: mean duration of a step, from its call to its last result.
        pending_ms: the part of the operations' time in which no operation was reported and
            a convolution was pending.
        operations: means over steps and devices.
    """

    step_ms: float
    pending_ms: float
    operations: tuple[Operation, ...]

    @property
    def coverage(self) -> float:
        """Share of the step in which a device, in the mean, works on some operation."""
        return sum(operation.ms for operation in self.operations) / self.step_ms


class Interval(NamedTuple):
    """One run of an operation. Times of one device have one origin."""

    operation: str
    thread: Any
    begin_ns: float
    end_ns: float


def per_operation_options() -> dict[str, str]:
    """Returns the `compiler_options` under which a profile tells operations apart.

    They go to `lowered.compile`. What they keep apart is not fused, so the step can take
    longer with them: on a CPU 1.4 times as long for a training step of EFD's encoder.
    """
    return _PER_OPERATION.get(jax.default_backend(), {})


def profile(
    compiled: jax.stages.Compiled,
    call: Callable[[], Any],
    *,
    steps: int = 3,
    folder: Path | None = None,
) -> Trace:
    """Runs a compiled step under the profiler.

    Args:
        compiled: the program, made with `per_operation_options`.
        call: runs it once; a step that donates its state needs a closure that keeps it.
        steps: runs to profile, after two that warm up.
        folder: keep the profile itself there, for XProf or Perfetto.

    Raises:
        ValueError: the operations cover less than `MIN_COVERAGE` of the step.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would be most of the file
    for _ in range(2):
        jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as scratch:
        where = folder or Path(scratch)
        with jax.profiler.trace(str(where), profiler_options=options):
            for step in range(steps):
                with jax.profiler.StepTraceAnnotation(_STEP, step_num=step):
                    jax.block_until_ready(call())
        files = where.glob("plugins/profile/*/*.xplane.pb")
        newest = max(files, key=lambda file: file.stat().st_mtime)
        data = jax.profiler.ProfileData.from_file(str(newest))
        return reduce_profile(data, compiled.as_text())


def reduce_profile(data: jax.profiler.ProfileData, hlo_text: str) -> Trace:
    """Reduces the profile of some annotated steps of one program to their mean.

    Args:
        data: what the profiler recorded.
        hlo_text: the program, `compiled.as_text()`.

    Raises:
        ValueError: no step is annotated, or the operations cover less than `MIN_COVERAGE`.
    """
    program = hlo_text.split(maxsplit=2)[1].rstrip(",")
    steps, devices = _intervals(data, program)
    if not steps:
        raise ValueError(f"the profile must hold steps annotated as {_STEP!r}, found none")
    taken_up = hlo.convolutions(hlo_text)
    reported_ns: Counter[str] = Counter()
    busy_ns: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for (plane, _), runs in devices.items():
        for step in steps:
            inside = _clip(runs, step)
            pending = _pending(inside, taken_up, step) if plane == _CPU else []
            calls.update(run.operation for run in inside)
            reported_ns.update(share_time(inside))
            busy_ns.update(share_time(inside, pending))
    names = hlo.op_names(hlo_text)
    per_step = 1 / (len(steps) * max(len(devices), 1))
    operations = tuple(
        Operation(
            name=name,
            op_name=names.get(name, ""),
            module=hlo.module_of(names.get(name, "")),
            calls=calls[name] * per_step,
            ms=ns * per_step / 1e6,
        )
        for name, ns in busy_ns.most_common()
    )
    trace = Trace(
        step_ms=sum(end - begin for begin, end in steps) / len(steps) / 1e6,
        pending_ms=(busy_ns.total() - reported_ns.total()) * per_step / 1e6,
        operations=operations,
    )
    if trace.coverage < MIN_COVERAGE:
        raise ValueError(
            f"operations must cover at least {MIN_COVERAGE:.0%} of the step, they cover "
            f"{trace.coverage:.0%}: compile with per_operation_options(), and give the step "
            "enough work to outweigh its dispatch"
        )
    return trace


def share_time(runs: Iterable[Interval], pending: Iterable[Interval] = ()) -> dict[str, float]:
    """Divides the time of one device among the operations that run on it.

    Args:
        runs: those of one device; on one thread they may nest, on different ones overlap.
        pending: what takes the time that is left between them.

    Returns:
        Operation to nanoseconds. They add up to the union of the intervals.
    """
    edges = []
    for waits, intervals in enumerate((runs, pending)):
        for number, run in enumerate(intervals):
            nest = (waits, run.thread)
            # At one instant ends come before beginnings, and of two beginnings the longer
            # first: it is the outer one.
            edges.append((run.begin_ns, 1, -run.end_ns, nest, number, run.operation))
            edges.append((run.end_ns, 0, 0.0, nest, number, run.operation))
    shares: dict[str, float] = defaultdict(float)
    nests: dict[Any, dict[int, str]] = defaultdict(dict)  # what runs, the outermost first
    now = 0.0
    for when, begins, _, nest, number, operation in sorted(edges, key=lambda edge: edge[:3]):
        innermost = [
            (waits, [*nested.values()][-1]) for (waits, _), nested in nests.items() if nested
        ]
        running = [name for waits, name in innermost if not waits]
        running = running or [name for _, name in innermost]
        for name in running:
            shares[name] += (when - now) / len(running)
        now = when
        if begins:
            nests[nest][number] = operation
        else:
            nests[nest].pop(number, None)
    return dict(shares)


def _intervals(
    data: jax.profiler.ProfileData, program: str
) -> tuple[list[tuple[float, float]], dict[Any, list[Interval]]]:
    """Returns the annotated steps, and each device's runs of the program's operations."""
    steps = []
    devices: dict[Any, list[Interval]] = defaultdict(list)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                end_ns = event.start_ns + event.duration_ns
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    if stats.get("hlo_module") != program:
                        continue
                    # All devices of a CPU share one plane.
                    device = (plane.name, stats.get("device_ordinal"))
                    run = Interval(stats["hlo_op"], line.name, event.start_ns, end_ns)
                    devices[device].append(run)
                elif event.name == _STEP and "step_num" in stats:
                    steps.append((event.start_ns, end_ns))
    return steps, devices


def _clip(runs: list[Interval], step: tuple[float, float]) -> list[Interval]:
    """Returns what of each run lies inside a step."""
    begin, end = step
    return [
        run._replace(begin_ns=max(run.begin_ns, begin), end_ns=min(run.end_ns, end))
        for run in runs
        if run.begin_ns < end and run.end_ns > begin
    ]


def _pending(
    runs: list[Interval], taken_up: dict[str, set[str]], step: tuple[float, float]
) -> list[Interval]:
    """Returns the times between the start of a convolution and the first use of its result."""
    begins = defaultdict(list)
    for run in runs:
        begins[run.operation].append(run.begin_ns)
    pending = []
    for number, run in enumerate(runs):
        if run.operation in taken_up:
            uses = [
                begin_ns
                for user in taken_up[run.operation]
                for begin_ns in begins[user]
                if begin_ns >= run.end_ns
            ]
            end_ns = min(uses, default=step[1])  # a result of the step itself
            pending.append(Interval(run.operation, number, run.end_ns, end_ns))
    return pending
