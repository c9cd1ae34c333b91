"""Loops, branches, devices and Flax modules, against values derived by hand."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxbed.efficiency.count import (
    Count,
    count,
    count_params,
    module_path,
    params_by_module,
    table,
)
from jaxbed.ops import forms


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def macs(counted: Count) -> tuple[int, int]:
    return counted.macs_nominal, counted.macs_exact


def gradients(fn):
    """The backward pass together with the forward one, every argument differentiated."""

    def run(*args):
        out, back = jax.vjp(fn, *args)
        return back(out)

    return run


# ------------------------------------------------------------------------ control flow


def square(x):
    return x @ x


SQUARE = 4**3  # MACs of one product of 4 x 4 matrices


@jax.custom_vjp
def square_by_hand(x):
    return x @ x


square_by_hand.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))


@jax.custom_jvp
def square_with_tangent(x):
    return x @ x


@square_with_tangent.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return x @ x, dx @ x + x @ dx


def nested_scan(x):
    def inner(c, _):
        return c @ c, None

    def outer(c, _):
        return lax.scan(inner, c, length=3)[0], None

    return lax.scan(outer, x, length=5)[0]


@pytest.mark.parametrize(
    ("fn", "forward", "with_gradient"),
    [
        (square, 1, 3),
        (jax.jit(square), 1, 3),
        (jax.jit(lambda x: jax.jit(square)(x)), 1, 3),
        (square_by_hand, 1, 3),
        (square_with_tangent, 1, 3),
        # The product is done again on the way back.
        (jax.checkpoint(lambda x: jnp.sin(square(x)) @ x), 2, 7),
        (nested_scan, 15, 45),
        (lambda x: lax.fori_loop(0, 7, lambda _, c: c @ c, x), 7, 21),
        (lambda x: lax.map(square, jnp.broadcast_to(x, (6, 4, 4))), 6, 18),
        (lambda x: lax.associative_scan(jnp.matmul, jnp.broadcast_to(x, (2, 4, 4))), 1, 3),
        (jax.vmap(square, in_axes=None, axis_size=3), 1, 3),
        # The dearest branch, not the sum.
        (lambda x: lax.cond(x[0, 0] > 0, square, lambda x: x @ x @ x @ x, x), 3, 9),
        (lambda x: lax.switch(2, [square, jnp.sin, lambda x: square(square(x))], x), 2, 6),
    ],
)
def test_calls_loops_and_branches_multiply(fn, forward, with_gradient):
    counted = count(fn, f32(4, 4))
    assert macs(counted) == (forward * SQUARE, forward * SQUARE)
    assert not counted.lower_bound
    counted = count(gradients(fn), f32(4, 4))
    assert macs(counted) == (with_gradient * SQUARE, with_gradient * SQUARE)


def test_a_while_loop_counts_once_and_says_that_this_is_a_lower_bound():
    def run(x):
        return lax.while_loop(lambda c: c.sum() < 9, square, x)

    counted = count(
        jax.jit(lambda x: lax.scan(lambda c, _: (run(c), None), x, length=2)), f32(4, 4)
    )
    assert macs(counted) == (2 * SQUARE, 2 * SQUARE)
    assert counted.lower_bound


def test_only_the_solution_of_a_linear_system_counts():
    def run(a, b):
        return lax.custom_linear_solve(
            lambda v: a @ v, b, lambda _, b: a.T @ b, lambda _, b: a @ b, symmetric=False
        )

    assert count(run, f32(4, 4), f32(4)).macs_exact == 16


def test_work_of_every_device_is_summed():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"mesh": mesh, "in_specs": (P("data"), P()), "out_specs": P("data")}
    sharded = jax.shard_map(jnp.matmul, **specs)
    x, w = f32(6, 4), f32(4, 5)
    assert count(sharded, x, w).macs_exact == 6 * 4 * 5
    assert count(gradients(sharded), x, w).macs_exact == 3 * 6 * 4 * 5
    # What is replicated is done twice.
    replicated = jax.shard_map(square, mesh=mesh, in_specs=P(), out_specs=P())
    assert count(replicated, f32(4, 4)).macs_exact == 2 * SQUARE
    assert count(jax.pmap(square), f32(2, 4, 4)).macs_exact == 2 * SQUARE
    assert count(jax.pmap(gradients(square)), f32(2, 4, 4)).macs_exact == 6 * SQUARE


def pool_and_enlarge(x):
    x = nn.avg_pool(jnp.tanh(x), (2, 2), (2, 2))
    return jax.image.resize(x, (1, 8, 8, 3), "bilinear")


@pytest.mark.parametrize("fn", [pool_and_enlarge, gradients(jax.checkpoint(pool_and_enlarge))])
def test_pooling_interpolation_and_elementwise_work_are_no_macs(fn):
    assert count(fn, f32(1, 8, 8, 3)) == Count(0, 0, {}, {}, lower_bound=False)


def test_nothing_is_executed():
    def run(x):
        jax.debug.callback(lambda: pytest.fail("the function ran"))
        return x @ x

    assert count(run, f32(4, 4)).macs_exact == SQUARE


def test_an_operation_is_counted_in_its_reference_form():
    def run(x):
        form = forms.choose(None, offered=("lax", "shift"), auto="shift")
        return x @ x if form == "lax" else x

    assert count(run, f32(4, 4)).macs_exact == SQUARE
    # Even if it has been compiled in another form.
    compiled = jax.jit(run)
    compiled(jnp.ones((4, 4)))
    assert count(compiled, f32(4, 4)).macs_exact == SQUARE


# ---------------------------------------------------------------------------- Flax modules


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.features, (3, 3), strides=2)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=False)(y))
        y = nn.Conv(self.features, (3, 3))(y)
        return nn.relu(y + nn.Conv(self.features, (1, 1), strides=2, name="skip")(x))


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(x.shape[-1])(x)), None


class Head(nn.Module):
    def setup(self):
        self.up = nn.ConvTranspose(2, (2, 2), strides=(2, 2))

    def decode(self, x):
        return self.up(x)

    def __call__(self, x):
        return self.decode(x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Block(4, name="first")(x)
        x = nn.remat(Block)(8, name="second")(x)
        every_channel = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = nn.scan(nn.remat(Step), length=3, **every_channel)(name="steps")(x, None)
        x = nn.vmap(nn.Dense, in_axes=1, out_axes=1, **every_channel)(8, name="rows")(x)
        return Head(name="head").decode(x)


# At 16 x 16 x 3: first 8 x 8 x 4, second 4 x 4 x 8, output 8 x 8 x 2. (nominal, exact); of
# SAME kernels, stride 2 pads only the high end.
NET_FORWARD = {
    "Net/first/Conv_0": (64 * 9 * 12, 23 * 23 * 12),
    "Net/first/Conv_1": (64 * 9 * 16, 22 * 22 * 16),
    "Net/first/skip": (64 * 12, 64 * 12),
    "Net/second/Conv_0": (16 * 9 * 32, 11 * 11 * 32),
    "Net/second/Conv_1": (16 * 9 * 64, 10 * 10 * 64),
    "Net/second/skip": (16 * 32, 16 * 32),
    "Net/steps/Dense_0": (3 * 16 * 64, 3 * 16 * 64),
    "Net/rows": (16 * 64, 16 * 64),
    "Net/head/up": (16 * 4 * 16, 16 * 4 * 16),
}


@pytest.fixture(scope="module")
def net():
    x = f32(1, 16, 16, 3)
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)

    stats = jax.tree.map(lambda stat: jnp.zeros(stat.shape), variables["batch_stats"])

    def apply(params, x):
        state = {"params": params, "batch_stats": stats}
        return Net().apply(state, x, mutable="batch_stats")[0]

    return apply, variables["params"], x


def test_a_forward_pass_is_attributed_to_its_modules(net):
    apply, params, x = net
    counted = count(apply, params, x)
    assert counted.by_module == NET_FORWARD
    assert macs(counted) == tuple(map(sum, zip(*NET_FORWARD.values(), strict=True)))


def test_backward_work_stands_with_the_module_it_differentiates(net):
    apply, params, x = net

    @jax.jit
    def train_step(params, x):
        grads = jax.grad(lambda params: (apply(params, x) ** 2).sum())(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    counted = count(train_step, params, x)
    assert set(counted.by_module) == set(NET_FORWARD)
    for path, expected in NET_FORWARD.items():
        if path in ("Net/first/Conv_0", "Net/first/skip"):
            times = 2  # nobody needs the gradient of the image
        elif "second" in path or "steps" in path:
            times = 4  # done again on the way back
        else:
            times = 3
        assert counted.by_module[path] == tuple(times * n for n in expected), path


def test_the_parameters_of_every_module_add_up(net):
    _, params, _ = net
    by_child = params_by_module(params, depth=1)
    assert by_child == {
        "first": (27 * 4 + 4) + (36 * 4 + 4) + (3 * 4 + 4) + 8,
        "second": (36 * 8 + 8) + (72 * 8 + 8) + (4 * 8 + 8) + 16,
        "steps": 3 * 72,
        "rows": 4 * 72,
        "head": 4 * 16 + 2,
    }
    assert sum(by_child.values()) == count_params(params)
    assert params_by_module(params, depth=2)["second/skip"] == 4 * 8 + 8
    assert params_by_module({"scale": f32(3), "a": {"b": f32(2)}}, depth=1) == {"": 3, "a": 2}


def test_the_table_has_a_row_per_module_and_the_total(net):
    apply, params, x = net
    counted = count(apply, params, x)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(counted, params).splitlines()
    ]
    assert [row[0] for row in rows[2:]] == ["first", "second", "steps", "rows", "head", "total"]
    assert rows[2][1:4] == [
        "284",
        f"{64 * 9 * 28 + 768:,}",
        f"{23**2 * 12 + 22**2 * 16 + 768:,}",
    ]
    numbers = np.array([[int(cell.replace(",", "")) for cell in row[1:4]] for row in rows[2:]])
    np.testing.assert_array_equal(numbers[:-1].sum(axis=0), numbers[-1])
    assert math.isclose(sum(float(row[4][:-1]) for row in rows[2:-1]), 100, abs_tol=0.3)


@pytest.mark.parametrize(
    ("stack", "path"),
    [
        ("", ""),
        ("jvp()", ""),
        ("jvp(Net)/a/Conv_0", "Net/a/Conv_0"),
        ("transpose(jvp(Net))/a//Conv_0", "Net/a/Conv_0"),
        ("transpose(jvp(Net))/a/jvp(Net)/a/rematted_computation/Conv_0", "Net/a/Conv_0"),
        ("jvp(Net.encode)/vmap(a)/a.decode/b", "Net/a/b"),
        ("jvp(Net)/a/b...,bc->...c", "Net/a"),
        ("Net/a/a/a", "Net/a/a/a"),
    ],
)
def test_a_name_stack_becomes_a_module_path(stack, path):
    assert module_path(stack) == path
