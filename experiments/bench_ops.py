"""Every operation's forms side by side: which lowering is fastest on this device.

Run:  python -m experiments.bench_ops                          (quick: under 3 minutes)
      python -m experiments.bench_ops --preset full            (more rounds)
      python -m experiments.bench_ops --only depthwise conv3d
Needs no data: random input at the shapes of the networks. Forms are timed in turns within one
process and stated as speed relative to "lax", the reference; between processes, and while
others use the machine, milliseconds drift by more than most forms differ. "values" is the
operation alone, "training" adds the gradients of all its arguments.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from jaxbed.cli import run
from jaxbed.machine import Machine

Operation = Literal[
    "conv2d", "depthwise", "transposed_conv", "max_pool", "gaussian", "resize", "conv3d"
]
ROUNDS = {"quick": 7, "full": 25}
WARM_UP = {"quick": 1, "full": 3}


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """Settings."""

    preset: Literal["quick", "full"] = "quick"
    """Measured calls of every form: 7, or 25."""
    workdir: Path = Path("runs/bench_ops")
    """Where bench_ops.csv, .json and .md are written."""
    only: tuple[Operation, ...] = (
        "conv2d",
        "depthwise",
        "transposed_conv",
        "max_pool",
        "gaussian",
        "resize",
        "conv3d",
    )
    """Operations to measure."""
    seed: int = 0
    """Of the random input and of the order of the forms."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One operation at one shape.

    Attributes:
        operation: its name.
        title: the shape in words.
        call: takes the arguments and `form`.
        forms: the names of its forms, "lax" first.
        shapes: of its arguments, all float32.
    """

    operation: str
    title: str
    call: Callable[..., Any]
    forms: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the result; `speed` is the median of "lax" over this form's median."""

    operation: str
    case: str
    work: str
    form: str
    median_ms: float
    p90_ms: float
    n: int
    speed: float
    speed_low: float
    speed_high: float


def main(config: Config) -> None:
    """Measures, prints and writes the table."""
    from jaxbed import report
    from jaxbed.whole_files import write_json, write_text

    # One device: the forms are compared as one program sees them.
    dataclasses.replace(config, cpu_devices=1).configure()
    config.workdir.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for case in cases():
        if case.operation in config.only:
            for row in measure(case, config):
                print(_line(row), flush=True)
                rows.append(row)

    environment = report.environment()
    write_text(config.workdir / "bench_ops.csv", _csv(rows))
    write_text(config.workdir / "bench_ops.md", _markdown(rows, environment))
    write_json(
        config.workdir / "bench_ops.json",
        {"environment": environment, "rows": [dataclasses.asdict(row) for row in rows]},
    )
    print(config.workdir / "bench_ops.md")


def cases() -> list[Case]:
    """Returns what is measured; shapes are those of the networks of this package."""
    from jaxbed.ops import conv2d, conv3d, depthwise, gaussian, pooling, resize, transposed_conv

    def conv2d_case(size: int, stride: int, outputs: int, *shape: int, dilation: int = 1) -> Case:
        def call(x, kernel, *, form):
            pad = (dilation * (size // 2),) * 2
            return conv2d.conv_general_dilated(
                *(x, kernel, (stride, stride), (pad, pad)),
                rhs_dilation=(dilation, dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                form=form,
            )

        title = f"{size}x{size} stride {stride} dilation {dilation}, {_shape(shape)} to {outputs}"
        shapes = (shape, (size, size, shape[-1], outputs))
        return Case("conv2d", title, call, conv2d.FORMS, shapes)

    def depthwise_case(size: int, stride: int, *shape: int) -> Case:
        def call(x, kernel, *, form):
            return depthwise.depthwise_conv(x, kernel, stride=stride, form=form)

        title = f"{size}x{size} stride {stride}, {_shape(shape)}"
        shapes = (shape, (size, size, 1, shape[-1]))
        return Case("depthwise", title, call, depthwise.FORMS, shapes)

    def transposed_case(outputs: int, *shape: int) -> Case:
        shapes = (shape, (2, 2, shape[-1], outputs))
        title = f"{_shape(shape)} to {outputs}"
        call, forms = transposed_conv.conv_transpose_2x2, transposed_conv.FORMS
        return Case("transposed_conv", title, call, forms, shapes)

    def pool_case(size: int, stride: int, *shape: int) -> Case:
        def call(x, *, form):
            return pooling.max_pool(x, size=size, stride=stride, form=form)

        title = f"{size}x{size} stride {stride}, {_shape(shape)}"
        return Case("max_pool", title, call, pooling.FORMS, (shape,))

    def gaussian_case(*shape: int) -> Case:
        title = f"5 maps of SSIM, {_shape(shape)}"
        shapes = ((5 * shape[0], *shape[1:]),)
        return Case("gaussian", title, gaussian.gaussian_filter, gaussian.FORMS, shapes)

    def resize_case(factor: int, *shape: int) -> Case:
        size = (factor * shape[1], factor * shape[2])

        def call(x, *, form):
            return resize.resize_bilinear(x, size, form=form)

        return Case("resize", f"times {factor}, {_shape(shape)}", call, resize.FORMS, (shape,))

    def conv3d_case(window: tuple[int, int, int], outputs: int, *shape: int) -> Case:
        title = f"{'x'.join(map(str, window))}, {_shape(shape)} to {outputs}"
        shapes = (shape, (*window, shape[-1], outputs))
        return Case("conv3d", title, conv3d.conv3d, conv3d.FORMS, shapes)

    return [
        conv2d_case(1, 1, 64, 8, 128, 128, 16),
        conv2d_case(3, 1, 32, 8, 64, 64, 105),
        conv2d_case(3, 1, 32, 8, 64, 64, 64, dilation=3),
        conv2d_case(3, 2, 128, 8, 56, 56, 64),
        conv2d_case(3, 1, 256, 8, 14, 14, 256),
        depthwise_case(3, 1, 16, 64, 64, 72),
        depthwise_case(5, 1, 16, 64, 64, 72),
        depthwise_case(5, 1, 16, 32, 32, 96),
        depthwise_case(3, 2, 16, 64, 64, 72),
        transposed_case(64, 16, 32, 32, 128),
        pool_case(3, 2, 16, 112, 112, 64),
        gaussian_case(16, 64, 64, 1),
        gaussian_case(4, 256, 256, 1),
        resize_case(2, 16, 32, 32, 64),
        resize_case(4, 16, 16, 16, 64),
        conv3d_case((3, 3, 3), 64, 1, 3, 96, 128, 64),
        *(
            conv3d_case(window, width, 1, 3, 96, 128, width)
            for width in (64, 256)
            for window in ((1, 3, 1), (1, 1, 3), (3, 1, 1))
        ),
    ]


def measure(case: Case, config: Config) -> Iterator[Row]:
    """Yields a row per form, for the values alone and for values with gradients."""
    from functools import partial

    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxbed.efficiency.clocks import compare

    rng = np.random.default_rng(config.seed)
    arguments = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in case.shapes]
    result = jax.eval_shape(partial(case.call, form="lax"), *arguments)
    cotangent = jnp.asarray(rng.normal(size=result.shape), jnp.float32)

    def values(form: str, _: jax.Array, *arguments: jax.Array) -> jax.Array:
        return case.call(*arguments, form=form)

    # The cotangent is an argument: a constant one would let XLA compute gradients of linear
    # operations while compiling.
    def training(form: str, cotangent: jax.Array, *arguments: jax.Array) -> tuple:
        value, pull_back = jax.vjp(partial(case.call, form=form), *arguments)
        return value, *pull_back(cotangent)

    for work in values, training:
        compared = compare(
            {
                form: partial(jax.jit(partial(work, form)), cotangent, *arguments)
                for form in case.forms
            },
            rounds=ROUNDS[config.preset],
            warm_up=WARM_UP[config.preset],
            seed=config.seed,
        )
        for form, beside in compared.items():
            yield Row(
                operation=case.operation,
                case=case.title,
                work=work.__name__,
                form=form,
                median_ms=beside.timing.median_ms,
                p90_ms=beside.timing.p90_ms,
                n=beside.timing.n,
                speed=1 / beside.ratio,
                speed_low=1 / beside.ratio_high,
                speed_high=1 / beside.ratio_low,
            )


def _shape(shape: tuple[int, ...]) -> str:
    return f"f32[{','.join(map(str, shape))}]"


def _line(row: Row) -> str:
    return (
        f"{row.operation:<16}{row.case:<40}{row.work:<9}{row.form:<9}"
        f"{row.median_ms:>9.2f} ms  p90 {row.p90_ms:>8.2f}  {row.speed:>6.1f} x lax"
    )


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in dataclasses.fields(Row)])
    table.writeheader()
    table.writerows(dataclasses.asdict(row) for row in rows)
    return text.getvalue()


def _markdown(rows: list[Row], environment: dict[str, Any]) -> str:
    where = ", ".join(f"{name} {value}" for name, value in environment.items())
    lines = [
        f"# Forms of the operations ({where})",
        "",
        'Speed is the median of "lax" over the form\'s own, timed in turns; in brackets the 95 % '
        "bootstrap interval.",
        "",
        "| operation | case | work | form | median ms | p90 ms | speed |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row.operation} | {row.case} | {row.work} | {row.form} | {row.median_ms:.2f} "
        f"| {row.p90_ms:.2f} | {row.speed:.1f} ({row.speed_low:.1f}-{row.speed_high:.1f}) |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
