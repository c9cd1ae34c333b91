"""The benchmark of forms measures every form it names and writes what it measured."""

import csv
import io
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from experiments import bench_ops
from jaxbed.ops import depthwise


def test_every_form_of_every_case_gives_the_shape_of_the_reference():
    for case in bench_ops.cases():
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in case.shapes]
        shapes = {
            jax.eval_shape(partial(case.call, form=form), *arguments).shape for form in case.forms
        }
        assert case.forms[0] == "lax" and len(case.forms) > 1
        assert len(shapes) == 1, case.title


def test_each_form_is_measured_with_and_without_gradients():
    case = bench_ops.Case(
        "depthwise", "tiny", depthwise.depthwise_conv, depthwise.FORMS, ((1, 4, 4, 2), (3, 3, 1, 2))
    )
    rows = list(bench_ops.measure(case, bench_ops.Config()))
    assert [(row.work, row.form) for row in rows] == [
        (work, form) for work in ("values", "training") for form in depthwise.FORMS
    ]
    for reference, form in (rows[:2], rows[2:]):
        assert reference.speed == 1
        assert form.speed == pytest.approx(reference.median_ms / form.median_ms)
        assert form.speed_low <= form.speed_high and form.n == bench_ops.ROUNDS["quick"]

    table = list(csv.DictReader(io.StringIO(bench_ops._csv(rows))))
    assert [float(line["median_ms"]) for line in table] == [row.median_ms for row in rows]
    assert "| depthwise | tiny | training | shift |" in bench_ops._markdown(rows, {})
