"""Multiply-accumulates and parameters, counted from the jaxpr.

Nothing is executed or compiled: the function is traced on shapes, and the convolutions and
matrix products of its jaxpr are added up, loops and devices multiplied in. Two figures:

    nominal   every kernel tap at every output position, whether it meets data or padding:
              the convention of the papers
    exact     only the products of a kernel tap with an element that exists

Both count the mathematics and not the lowering. Operations of `jaxbed.ops` are traced in
their reference form, and the zeros that a transposed convolution or a gradient inserts
between elements are in neither figure.

What is not a product of two arrays (pooling, normalisation, activations, FFTs, matrix
decompositions) costs no MAC here, and neither does interpolation, which `jax.image.resize`
writes as products with nearly empty matrices. What the jaxpr repeats is counted again:
under `jax.checkpoint` the recomputed forward pass is included.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from jaxbed.efficiency.contractions import conv_macs, dot_macs, is_flipped
from jaxbed.ops import forms

# Counted as if they ran once, because the jaxpr does not say how often.
_UNKNOWN_REPEATS = {"while", "pallas_call", "ffi_call"}


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of one call of a function.

    Attributes:
        macs_nominal: every kernel tap counted.
        macs_exact: taps that fall on padding left out; never above nominal.
        by_module: (nominal, exact) per Flax module path such as "ResNet/stage1/Conv_0", in
            order of first use; backward work stands with the module it differentiates, and
            "" collects what belongs to none.
        by_primitive: (nominal, exact) per JAX primitive.
        lower_bound: True if some work was counted once although it may run more often (a
            `while` of unknown length) or cannot be seen (a foreign kernel).
    """

    macs_nominal: int
    macs_exact: int
    by_module: dict[str, tuple[int, int]]
    by_primitive: dict[str, tuple[int, int]]
    lower_bound: bool

    @property
    def flops_nominal(self) -> int:
        """A multiply and an add for every nominal MAC."""
        return 2 * self.macs_nominal

    @property
    def flops_exact(self) -> int:
        """A multiply and an add for every exact MAC."""
        return 2 * self.macs_exact


class _Work(NamedTuple):
    """One contraction of the jaxpr, its repeats multiplied in."""

    primitive: str
    module: str
    nominal: int
    exact: int


def count(fn: Callable, *args: Any, **kwargs: Any) -> Count:
    """Counts the MACs of `fn(*args, **kwargs)`: a forward pass or a whole training step.

    Devices are summed: work under `shard_map` and `pmap` counts once per device. Of a
    `cond` the dearest branch counts.

    Args:
        fn: any traceable function. What is not an array (`train=True`) must be closed over.
        *args: pytrees of arrays or `jax.ShapeDtypeStruct`; only shapes and dtypes are read.
        **kwargs: likewise.

    Returns:
        The count. For a training step, with F the MACs of the forward pass, expect 3 F less
        the input gradient of the first layer, which nobody asks for.
    """
    with forms.forced("lax"):
        jaxpr = jax.make_jaxpr(fn)(*args, **kwargs).jaxpr
    works = list(_works(jaxpr, scope="", repeats=1))
    return Count(
        macs_nominal=sum(work.nominal for work in works),
        macs_exact=sum(work.exact for work in works),
        by_module=_sum_by(works, key=lambda work: work.module),
        by_primitive=_sum_by(works, key=lambda work: work.primitive),
        lower_bound=_repeats_are_unknown(jaxpr),
    )


def count_params(tree: Any) -> int:
    """Counts the elements of every array in a pytree, such as the `params` collection."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def params_by_module(tree: Any, *, depth: int) -> dict[str, int]:
    """Counts the elements of a pytree per module path, cut to its first `depth` names.

    Args:
        tree: the `params` collection; arrays or `jax.ShapeDtypeStruct`.
        depth: 1 for the children of the root, 2 for theirs, and so on.

    Returns:
        Path, such as "stage1/Conv_0", to number of elements; "" for the root's own arrays.
    """
    totals: dict[str, int] = defaultdict(int)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = jax.tree_util.keystr(path[:-1], simple=True, separator="/").split("/")
        totals["/".join(names[:depth])] += math.prod(leaf.shape)
    return dict(totals)


def table(counted: Count, params: Any, *, depth: int = 1) -> str:
    """Writes parameters and MACs per module as a Markdown table.

    Args:
        counted: the cost of one call of the network.
        params: its `params` collection, which has no level for the root module.
        depth: how many levels below the root to tell apart.
    """
    parameters = params_by_module(params, depth=depth)
    tops = params_by_module(params, depth=1)
    macs: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, (nominal, exact) in counted.by_module.items():
        names = path.split("/")
        below_root = names if names[0] in tops else names[1:]
        row = macs["/".join(below_root[:depth])]
        row[0] += nominal
        row[1] += exact
    lines = [
        "| module | parameters | MACs nominal | MACs exact | share |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in {**macs, **parameters}:
        nominal, exact = macs.get(name, (0, 0))
        share = nominal / max(counted.macs_nominal, 1)
        lines.append(
            f"| {name or '(root)'} | {parameters.get(name, 0):,} | {nominal:,} | {exact:,} "
            f"| {share:.1%} |"
        )
    bound = " (lower bound)" if counted.lower_bound else ""
    lines.append(
        f"| total{bound} | {count_params(params):,} | {counted.macs_nominal:,} "
        f"| {counted.macs_exact:,} | {1:.1%} |"
    )
    return "\n".join(lines)


def _works(jaxpr: Jaxpr, *, scope: str, repeats: int) -> Iterator[_Work]:
    """Yields every contraction of a jaxpr and of the jaxprs inside it."""
    producers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    for eqn in jaxpr.eqns:
        here = f"{scope}/{eqn.source_info.name_stack}"
        name = eqn.primitive.name
        if name == "dot_general":
            macs = repeats * dot_macs(eqn)
            yield _Work(name, module_path(here), macs, macs)
        elif name == "conv_general_dilated":
            input_gradient = "transpose(" in here and is_flipped(eqn.invars[1], producers)
            nominal, exact = conv_macs(eqn, input_gradient=input_gradient)
            yield _Work(name, module_path(here), repeats * nominal, repeats * exact)
        elif name == "cond":
            branches = [
                list(_works(branch, scope=here, repeats=repeats)) for branch in _inner_jaxprs(eqn)
            ]
            yield from max(branches, key=lambda works: sum(work.nominal for work in works))
        else:
            for inner in _inner_jaxprs(eqn):
                yield from _works(inner, scope=here, repeats=repeats * _repeats(eqn))


def _inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    if eqn.primitive.name == "custom_linear_solve":
        # Of its four functions the other three only serve differentiation.
        return jaxprs_in_params({"solve": eqn.params["jaxprs"].solve})
    if eqn.params.get("name") == "_resize":  # jax.image.resize
        return iter(())
    return jaxprs_in_params(eqn.params)


def _repeats(eqn: JaxprEqn) -> int:
    """Returns how often the jaxprs inside an equation run when it runs once."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":  # `pmap` is one too
        mesh_shape = eqn.params["mesh"].shape
        return math.prod(mesh_shape[axis] for axis in eqn.params["newly_manual_axes"])
    return 1


def _repeats_are_unknown(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name in _UNKNOWN_REPEATS
        or any(_repeats_are_unknown(inner) for inner in _inner_jaxprs(eqn))
        for eqn in jaxpr.eqns
    )


def _sum_by(works: list[_Work], *, key: Callable[[_Work], str]) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    for work in works:
        nominal, exact = totals.get(key(work), (0, 0))
        totals[key(work)] = (nominal + work.nominal, exact + work.exact)
    return totals


def module_path(name_stack: str) -> str:
    """Returns the Flax module path in a JAX name stack.

    "transpose(jvp(Net))/stage1/Conv_0" is "Net/stage1/Conv_0". Beside the transformations,
    these are not part of a path: the subscripts of an einsum, the name of a method other
    than `__call__` ("Net/head.decode" is "Net/head"), and the second copy of it that the
    backward pass of a rematerialised module carries
    ("transpose(jvp(Net))/head/jvp(Net)/head").
    """
    names: list[str] = []
    for scope in name_stack.split("/"):
        if "->" in scope:
            continue
        name, _, method = re.sub(r"\w+\(|\)", "", scope).partition(".")
        if name in ("", "rematted_computation") or (method and names[-1:] == [name]):
            continue
        names.append(name)
        half = len(names) // 2
        if names[:half] == names[half:]:
            names = names[:half]
    return "/".join(names)
