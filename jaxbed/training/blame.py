"""Runs recorded operations one by one, and finds which first made a value that is not finite."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxbed.errors import short
from jaxbed.training.operations import Body, Operation, Recording


class Value(NamedTuple):
    """An array, and the suspects it owes a NaN or infinity to; none where it is finite."""

    array: Any
    suspects: frozenset[int]


class Suspect(NamedTuple):
    """What made something that is not finite out of finite values.

    Attributes:
        operation: it; None where an input of the program was not finite.
        name: of that input; else in which turn of which loops it happened, as a rule empty.
        inputs: what it took, in words.
        outputs: what it made, in words.
    """

    operation: Operation | None
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class BrokenRecordingError(Exception):
    """A recording cannot be run: it is of another kind of device, or damaged."""


class Inquiry:
    """Runs a recording.

    A value that is not finite and that nothing else takes over, as the logarithm of 0 that a
    mask hides, leads to nobody: suspects are followed from value to value.

    Attributes:
        suspects: everybody that made something not finite, in the order of computation.
        done: operations that were run, every turn of a loop counted.
    """

    def __init__(self, recording: Recording):
        self._programs = recording.programs
        self._body = recording.body
        self._loaded: dict[int, Callable] = {}
        self.suspects: list[Suspect] = []
        self.done = 0

    def run(self, inputs: Mapping[str, Any]) -> list[Value]:
        """Runs it all.

        Args:
            inputs: of the program, in order, by the names to call them.

        Returns:
            The program's outputs.

        Raises:
            BrokenRecordingError: it cannot be run on this kind of device, or was damaged.
        """
        values = []
        for name, array in inputs.items():
            found = () if is_finite(array) else (self._suspect(None, name, [], [array]),)
            values.append(Value(array, frozenset(found)))
        try:
            return self._run(self._body, values, "")
        except MemoryError:
            raise
        except Exception as error:  # flatbuffers, MLIR and XLA each raise their own
            raise BrokenRecordingError(f"{type(error).__name__}: {short(error)}") from error

    def _run(self, body: Body, inputs: Sequence[Value], turn: str) -> list[Value]:
        values = dict(zip(body.inputs, inputs, strict=True))
        last_use = {n: i for i, op in enumerate(body.operations) for n in op.inputs}
        kept = set(body.outputs)
        for i, operation in enumerate(body.operations):
            taken = [values[n] for n in operation.inputs]
            self.done += 1
            if operation.bodies:
                made = _CONTROL[operation.primitive](self, operation, taken, turn)
            else:
                made = self._apply(operation, taken, turn)
            values.update(zip(operation.outputs, made, strict=True))
            for n in {*operation.inputs, *operation.outputs} - kept:
                if last_use.get(n, -1) <= i:
                    del values[n]
        return [values[n] for n in body.outputs]

    def _apply(self, operation: Operation, taken: list[Value], turn: str) -> list[Value]:
        arrays = [x.array for x in taken]
        made = self._program(operation.program)(*arrays)
        if all(is_finite(x) for x in made):
            return [Value(x, frozenset()) for x in made]
        chosen = _chosen(taken) if operation.primitive == "select_n" else taken
        suspects = frozenset().union(*(x.suspects for x in chosen))
        if not suspects and operation.primitive != "literal":
            suspects = frozenset([self._suspect(operation, turn, arrays, made)])
        return [Value(x, frozenset() if is_finite(x) else suspects) for x in made]

    def _program(self, number: int) -> Callable:
        if number not in self._loaded:
            exported = jax.export.deserialize(bytearray(self._programs[number]))
            self._loaded[number] = jax.jit(exported.call)
        return self._loaded[number]

    def _suspect(self, operation, name: str, inputs: list, outputs: list) -> int:
        told = (tuple(describe(x) for x in side) for side in (inputs, outputs))
        self.suspects.append(Suspect(operation, name, *told))
        return len(self.suspects) - 1

    def _scan(self, operation: Operation, taken: list[Value], turn: str) -> list[Value]:
        settings, (body,) = operation.settings, operation.bodies
        constants, carried = settings["constants"], settings["carried"]
        fixed, carry = taken[:constants], taken[constants : constants + carried]
        length, rows = settings["length"], []
        order = range(length)[::-1] if settings["reverse"] else range(length)
        for i in order:
            row = [_at(x, i) for x in taken[constants + carried :]]
            name = f"{turn}turn {i} of the scan of {length} in {operation.source}; "
            made = self._run(body, [*fixed, *carry, *row], name)
            carry = made[:carried]
            rows.append(made[carried:])
        rows = rows[::-1] if settings["reverse"] else rows
        return [*carry, *(_stacked(column) for column in zip(*rows, strict=True))]

    def _while(self, operation: Operation, taken: list[Value], turn: str) -> list[Value]:
        condition, body = operation.bodies
        first = operation.settings["condition_constants"]
        second = first + operation.settings["body_constants"]
        asked, fixed, carry = taken[:first], taken[first:second], taken[second:]
        for i in itertools.count():
            name = f"{turn}turn {i} of the while loop in {operation.source}; "
            (again,) = self._run(condition, [*asked, *carry], name)
            if not bool(np.asarray(again.array)):
                return carry
            carry = self._run(body, [*fixed, *carry], name)
        raise AssertionError

    def _cond(self, operation: Operation, taken: list[Value], turn: str) -> list[Value]:
        branches = operation.bodies
        which = int(np.clip(int(taken[0].array), 0, len(branches) - 1))
        name = f"{turn}branch {which} of the condition in {operation.source}; "
        return self._run(branches[which], taken[1:], name)


_CONTROL = {"scan": Inquiry._scan, "while": Inquiry._while, "cond": Inquiry._cond}


def _chosen(taken: list[Value]) -> list[Value]:
    """Returns those cases of a `select_n` that gave it something not finite."""
    which = np.asarray(taken[0].array).astype(np.int64)
    return [
        case
        for i, case in enumerate(taken[1:])
        if not is_finite(np.where(which == i, np.asarray(case.array), 0))
    ]


def _at(value: Value, i: int) -> Value:
    array = value.array[i] if _is_key(value.array) else np.asarray(value.array)[i]
    return Value(array, frozenset() if is_finite(array) else value.suspects)


def _stacked(column: Sequence[Value]) -> Value:
    arrays = [x.array for x in column]
    stack = jnp.stack if _is_key(arrays[0]) else np.stack
    return Value(stack(arrays), frozenset().union(*(x.suspects for x in column)))


def _is_key(array) -> bool:
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _is_float(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def is_finite(array) -> bool:
    """Tells whether every number of an array is; what holds no fractions always is."""
    return not _is_float(array) or bool(np.isfinite(np.asarray(array)).all())


def describe(array) -> str:
    """Tells an array's type, shape, and range or what is not finite in it."""
    name = f"{array.dtype.name}[{','.join(str(n) for n in array.shape)}]"
    if not _is_float(array) or not array.size:
        return name
    array = np.asarray(array)
    bad = ~np.isfinite(array)
    if not bad.any():
        zeros = int((array == 0).sum())
        counted = f", {zeros} of {array.size} are 0" if zeros else ""
        return f"{name} from {array.min():.4g} to {array.max():.4g}{counted}"
    nans = int(np.isnan(array).sum())
    kinds = {"NaN": nans, "infinite": int(bad.sum()) - nans}
    told = " and ".join(f"{n} {kind}" for kind, n in kinds.items() if n)
    first = [int(i) for i in np.argwhere(bad)[0]]
    return f"{name} with {told} of {array.size}, the first at {first}"
