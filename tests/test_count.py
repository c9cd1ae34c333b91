"""MACs against hand-derived values, a loop that visits every tap, and XLA's own count."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxbed.efficiency.count import (
    Count,
    count,
    count_params,
    count_triples,
    module_path,
    params_by_module,
    table,
)
from jaxbed.ops import forms

LAYOUTS = {
    1: ("NHC", "HIO", "NHC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, *, strides=1, padding="SAME", **options):
    """`lax.conv_general_dilated`, channels last, one number standing for every axis."""
    spatial = x.ndim - 2
    if isinstance(padding, int):
        padding = [(padding, padding)] * spatial
    for name in ("lhs_dilation", "rhs_dilation"):
        if isinstance(options.get(name), int):
            options[name] = (options[name],) * spatial
    strides = (strides,) * spatial if isinstance(strides, int) else strides
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUTS[spatial], **options
    )


def macs(counted: Count) -> tuple[int, int]:
    return counted.macs_nominal, counted.macs_exact


def gradients(fn):
    """The backward pass together with the forward one, every argument differentiated."""

    def run(*args):
        out, back = jax.vjp(fn, *args)
        return back(out)

    return run


# -------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize(
    ("x", "kernel", "options", "nominal", "exact"),
    [
        # One axis of 8, three taps, SAME: the two ends lose a tap each.
        (f32(1, 8, 1), f32(3, 1, 1), {}, 8 * 3, 22),
        (f32(5, 8, 2), f32(3, 2, 7), {}, 5 * 2 * 7 * 24, 5 * 2 * 7 * 22),
        # Stride 2 over 8 pads once, at the high end; stride 3 gives outputs at 0, 3, 6.
        (f32(1, 8, 1), f32(3, 1, 1), {"strides": 2}, 4 * 3, 11),
        (f32(1, 9, 1), f32(3, 1, 1), {"strides": 3}, 3 * 3, 9),
        (f32(1, 8, 1), f32(3, 1, 1), {"strides": 3, "padding": "VALID"}, 2 * 3, 6),
        # Dilation 3: taps at -3, 0, 3, so each end loses three.
        (f32(1, 8, 1), f32(3, 1, 1), {"rhs_dilation": 3}, 8 * 3, 18),
        # A padding that cuts off: outputs see elements 2..6 of 8 only.
        (f32(1, 8, 1), f32(3, 1, 1), {"padding": [(-2, -1)]}, 3 * 3, 9),
        # Wider than SAME: ten outputs, of which the outermost see one element.
        (f32(1, 8, 1), f32(3, 1, 1), {"padding": 2}, 10 * 3, 24),
        # Two and three axes multiply.
        (f32(2, 16, 8, 3), f32(3, 3, 3, 4), {}, 2 * 128 * 9 * 12, 2 * 46 * 22 * 12),
        (f32(1, 8, 8, 8, 2), f32(3, 3, 3, 2, 5), {}, 10 * 24**3, 10 * 22**3),
        (f32(1, 3, 8, 8, 2), f32(3, 1, 1, 2, 5), {}, 10 * 64 * 9, 10 * 64 * 7),
        # Groups divide the input channels; depthwise has as many groups as channels.
        (f32(1, 8, 8, 6), f32(3, 3, 3, 4), {"feature_group_count": 2}, 12 * 576, 12 * 484),
        (f32(1, 8, 8, 6), f32(3, 3, 1, 6), {"feature_group_count": 6}, 6 * 576, 6 * 484),
        # A map of one element: eight of nine taps meet padding.
        (f32(1, 1, 1, 4), f32(3, 3, 4, 4), {}, 9 * 16, 16),
        # Transposed, kernel 2 and stride 2: every input spreads over 2 x 2 outputs.
        (
            f32(1, 5, 7, 3),
            f32(2, 2, 3, 4),
            {"lhs_dilation": 2, "padding": 1},
            35 * 4 * 12,
            35 * 4 * 12,
        ),
        # Transposed, kernel 4, stride 2, padding 1: the first and last input lose a tap.
        (f32(1, 8, 1), f32(4, 1, 1), {"lhs_dilation": 2, "padding": 2}, 8 * 4, 30),
    ],
)
def test_convolution_costs_what_the_hand_counts(x, kernel, options, nominal, exact):
    run = functools.partial(conv, **options)
    assert macs(count(run, x, kernel)) == (nominal, exact)
    # The gradients use every product of the forward pass once each.
    assert macs(count(gradients(run), x, kernel)) == (3 * nominal, 3 * exact)


def visited_taps(x, kernel, out, *, strides, padding, lhs_dilation, rhs_dilation):
    """Counts in a loop the taps of a convolution that meet an element of the input."""
    met = 0
    for o in itertools.product(*map(range, out)):
        for k in itertools.product(*map(range, kernel)):
            at = [
                position * stride + tap * dilation - low
                for position, stride, tap, dilation, (low, _) in zip(
                    o, strides, k, rhs_dilation, padding, strict=True
                )
            ]
            met += all(
                place % dilation == 0 and 0 <= place // dilation < size
                for place, dilation, size in zip(at, lhs_dilation, x, strict=True)
            )
    return met


@st.composite
def convolutions(draw):
    spatial = draw(st.integers(1, 3))
    top = {1: 7, 2: 5, 3: 3}[spatial]

    def per_axis(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(spatial))

    shapes = per_axis(1, top), per_axis(1, min(top, 4))
    geometry = {
        "strides": per_axis(1, 3),
        "lhs_dilation": per_axis(1, 3),
        "rhs_dilation": per_axis(1, 3),
        "padding": tuple(zip(per_axis(-1, 3), per_axis(-1, 3), strict=True)),
    }
    groups = draw(st.sampled_from(["none", "feature", "batch"]))
    return shapes, geometry, groups


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_exact_is_what_a_loop_over_all_taps_finds_gradients_included(case):
    (x_size, kernel_size), geometry, groups = case
    # Batch 4, 6 input channels, 8 output channels.
    x, kernel = f32(4, *x_size, 6), f32(*kernel_size, 3 if groups == "feature" else 6, 8)
    options = dict(geometry)
    if groups != "none":
        options[f"{groups}_group_count"] = 2
    run = functools.partial(conv, **options)
    try:
        out = jax.eval_shape(run, x, kernel)
    except (TypeError, ValueError):  # cut down to less than nothing
        return
    if 0 in out.shape:
        return
    met = visited_taps(x_size, kernel_size, out.shape[1:-1], **geometry)
    channels = out.shape[0] * 8 * kernel.shape[-2]
    forward = count(run, x, kernel)
    assert forward.macs_exact == met * channels
    assert forward.macs_exact <= forward.macs_nominal
    backward = count(gradients(run), x, kernel)
    assert backward.macs_exact == 3 * forward.macs_exact
    assert backward.macs_nominal == 3 * forward.macs_nominal


def test_triples_along_one_axis_match_a_double_loop(rng):
    for _ in range(3000):
        inputs, taps, outputs = (int(n) for n in rng.integers(1, 9, 3))
        stride, input_dilation, kernel_dilation = (int(n) for n in rng.integers(1, 7, 3))
        low = int(rng.integers(-12, 13))
        places = [
            o * stride + j * kernel_dilation - low for o in range(outputs) for j in range(taps)
        ]
        expected = sum(
            p % input_dilation == 0 and 0 <= p // input_dilation < inputs for p in places
        )
        assert expected == count_triples(
            inputs,
            taps,
            outputs,
            stride=stride,
            input_dilation=input_dilation,
            kernel_dilation=kernel_dilation,
            padding_low=low,
        )


def test_a_huge_axis_is_counted_without_visiting_it():
    length = 10**9
    taps = count_triples(
        length, 3, length, stride=1, input_dilation=1, kernel_dilation=1, padding_low=1
    )
    assert taps == 3 * length - 2


@pytest.mark.parametrize("axes", ["NHWC", "NCHW", "HWNC"])
def test_the_layout_does_not_change_the_count(axes):
    shape = dict(zip("NHWC", (2, 9, 7, 3), strict=True))
    numbers = (axes, "OIHW" if axes == "NCHW" else "HWIO", axes)
    kernel = f32(4, 3, 3, 5) if axes == "NCHW" else f32(3, 5, 3, 4)

    def run(x, kernel):
        return lax.conv_general_dilated(x, kernel, (2, 1), "VALID", dimension_numbers=numbers)

    x = f32(*(shape[axis] for axis in axes))
    nominal = 2 * 3 * 4 * (4 * 3) * (3 * 5)
    assert macs(count(run, x, kernel)) == (nominal, nominal)
    assert macs(count(gradients(run), x, kernel)) == (3 * nominal, 3 * nominal)


def test_gradients_of_a_vmapped_convolution_cost_the_same():
    nominal = 5 * 16 * 9 * 8  # VALID leaves 4 x 4 of 6 x 6
    per_example = jax.vmap(gradients(functools.partial(conv, padding="VALID")))
    counted = count(per_example, f32(5, 1, 6, 6, 2), f32(5, 3, 3, 2, 4))
    assert macs(counted) == (3 * nominal, 3 * nominal)


# --------------------------------------------------------------- products and control flow


@pytest.mark.parametrize(
    ("subscripts", "shapes", "expected"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], 60),
        ("bhqd,bhkd->bhqk", [(2, 3, 7, 4), (2, 3, 5, 4)], 2 * 3 * 7 * 5 * 4),
        ("ij,ij->", [(3, 4), (3, 4)], 12),
        # i is summed away before the product.
        ("bij,bjk->bk", [(2, 3, 4), (2, 4, 5)], 2 * 4 * 5),
    ],
)
def test_einsum_costs_the_product_of_its_indices(subscripts, shapes, expected):
    counted = count(functools.partial(jnp.einsum, subscripts), *(f32(*s) for s in shapes))
    assert macs(counted) == (expected, expected)
    assert counted.by_primitive == {"dot_general": (expected, expected)}


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


def test_pooling_and_elementwise_work_are_no_macs():
    counted = count(lambda x: nn.max_pool(jnp.tanh(x), (2, 2)).sum(), f32(1, 8, 8, 3))
    assert counted == Count(0, 0, {}, {}, lower_bound=False)


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
    assert count(jax.jit(run), f32(4, 4)).macs_exact == SQUARE


# ------------------------------------------------------------------- against XLA's own count


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (f32(2, 16, 16, 3), f32(3, 3, 3, 8), {}),
        (f32(2, 15, 16, 3), f32(5, 3, 3, 8), {"strides": 2}),
        (f32(1, 8, 8, 8, 2), f32(3, 1, 3, 2, 4), {"rhs_dilation": 2}),
        (f32(2, 16, 16, 8), f32(3, 3, 1, 8), {"feature_group_count": 8}),
        (f32(2, 8, 8, 3), f32(4, 4, 3, 8), {"lhs_dilation": 2, "padding": 2}),
    ],
)
def test_exact_flops_agree_with_those_of_the_lowered_program(x, kernel, options):
    run = functools.partial(conv, **options)
    for fn in (run, gradients(run)):
        counted = count(fn, x, kernel)
        lowered = jax.jit(fn).lower(x, kernel).cost_analysis()["flops"]
        # XLA adds the flipping of kernels and the like.
        assert counted.flops_exact <= lowered <= 1.01 * counted.flops_exact
        assert counted.flops_exact == 2 * counted.macs_exact
        assert counted.flops_nominal == 2 * counted.macs_nominal


RESNET18_STAGES = [(64, 1), (128, 2), (256, 2), (512, 2)]  # channels, stride of the first block


def resnet18(kernels, x):
    """The convolutions and the classifier of ResNet-18; the rest costs no MACs."""
    kernels = iter(kernels)
    x = conv(x, next(kernels), strides=2, padding=3)
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for channels, first_stride in RESNET18_STAGES:
        for stride in (first_stride, 1):
            y = nn.relu(conv(x, next(kernels), strides=stride, padding=1))
            y = conv(y, next(kernels), padding=1)
            if x.shape[-1] != channels:
                x = conv(x, next(kernels), strides=stride, padding=0)
            x = nn.relu(x + y)
    return x.mean((1, 2)) @ next(kernels)


def resnet18_kernels():
    kernels, inputs = [f32(7, 7, 3, 64)], 64
    for channels, _ in RESNET18_STAGES:
        for _ in range(2):
            kernels += [f32(3, 3, inputs, channels), f32(3, 3, channels, channels)]
            if inputs != channels:
                kernels.append(f32(1, 1, inputs, channels))
            inputs = channels
    return [*kernels, f32(512, 1000)]


def test_resnet18_has_the_macs_of_the_textbook():
    kernels, x = resnet18_kernels(), f32(1, 224, 224, 3)
    assert count_params(kernels) == 11_689_512 - 1000 - 9600  # less biases and batch norms
    forward = count(resnet18, kernels, x)
    assert forward.macs_nominal == 1_814_073_344
    assert forward.macs_exact < forward.macs_nominal
    stem = 112 * 112 * 64 * 147

    def step(kernels, x):
        return jax.value_and_grad(lambda k: resnet18(k, x).sum())(kernels)

    # Nobody needs the gradient of the image.
    assert count(step, kernels, x).macs_nominal == 3 * forward.macs_nominal - stem
    backward = count(gradients(resnet18), kernels, x)
    assert backward.macs_nominal == 3 * forward.macs_nominal
    assert backward.macs_exact == 3 * forward.macs_exact


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
        ("Net/a/a/a", "Net/a/a/a"),
    ],
)
def test_a_name_stack_becomes_a_module_path(stack, path):
    assert module_path(stack) == path
