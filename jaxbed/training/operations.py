"""A program taken apart into operations, each of which a file can hold.

JAX can export a function whole, as StableHLO. Here every equation of its jaxpr is exported by
itself, equal ones once, so that whoever has the file can run them one after the other, look at
what lies between, and needs none of the Python that wrote them.
"""

import dataclasses
import functools
import itertools
import sysconfig
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.source_info_util import summarize

# Calls that only group equations, with the parameter that holds these.
_GROUPS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Equations that hold others in a way that matters, with the settings that are kept of them.
_CONTROL = {
    "scan": {
        "length": "length",
        "reverse": "reverse",
        "constants": "num_consts",
        "carried": "num_carry",
    },
    "while": {"condition_constants": "cond_nconsts", "body_constants": "body_nconsts"},
    "cond": {},
}
_BODIES = {"scan": ["jaxpr"], "while": ["cond_jaxpr", "body_jaxpr"]}
_LIBRARIES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@dataclasses.dataclass(frozen=True)
class Operation:
    """One equation. Values have numbers; each is made by one operation.

    Attributes:
        primitive: JAX's name for it; `literal` makes a constant.
        program: its place in `Recording.programs`; None for `scan`, `while` and `cond`.
        inputs: values it takes.
        outputs: values it makes.
        module: where in the network, with the transformations around it, as
            `transpose(jvp(Net))/Dense_0`.
        source: file, line and function.
        bodies: of a `scan` its body, of a `while` condition and body, of a `cond` its branches.
        settings: a scan's `length`, `reverse`, `constants` and `carried`; a while's
            `condition_constants` and `body_constants`.
    """

    primitive: str
    program: int | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    source: str
    bodies: tuple["Body", ...] = ()
    settings: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Body:
    """Operations in the order they are run, and the values that go in and come out."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operations: tuple[Operation, ...]


@dataclasses.dataclass(frozen=True)
class Recording:
    """A whole program.

    Attributes:
        body: its operations.
        programs: what `jax.export` wrote of every different operation.
    """

    body: Body
    programs: tuple[bytes, ...]


def to_plain(recording: Recording) -> dict[str, Any]:
    """Returns a recording without its programs as JSON can hold it."""
    return dataclasses.asdict(recording.body)


def from_plain(plain: dict[str, Any], programs: Sequence[bytes]) -> Recording:
    """Undoes `to_plain`.

    Raises:
        KeyError, TypeError, ValueError: it was something else.
    """
    return Recording(_body(plain), tuple(programs))


def _body(plain: dict[str, Any]) -> Body:
    operations = tuple(
        Operation(
            str(x["primitive"]),
            x["program"],
            tuple(x["inputs"]),
            tuple(x["outputs"]),
            str(x["module"]),
            str(x["source"]),
            tuple(_body(inner) for inner in x["bodies"]),
            dict(x["settings"]),
        )
        for x in plain["operations"]
    )
    return Body(tuple(plain["inputs"]), tuple(plain["outputs"]), operations)


def record(closed: core.ClosedJaxpr, platforms: Sequence[str]) -> Recording:
    """Takes a program apart; what its outputs do not need is left out.

    Args:
        closed: the program.
        platforms: what the operations are to run on: "cpu", "cuda", "rocm", "tpu".
    """
    recorder = _Recorder(tuple(platforms))
    body = recorder.body(closed, _Place())
    return Recording(body, tuple(recorder.programs))


class _Recorder:
    """Numbers values and exports operations."""

    def __init__(self, platforms: tuple[str, ...]):
        self.programs: list[bytes] = []
        self._known: dict[Any, int] = {}
        self._platforms = platforms
        self._numbers = itertools.count()

    def body(self, closed, place: "_Place") -> Body:
        """Records a jaxpr without what its outputs do not need."""
        inputs = self._new(closed.jaxpr.invars)
        drafts: list[_Draft] = []
        made = self._draft_all(closed, inputs, drafts, place)
        wanted, needed = set(made), []
        for draft in reversed(drafts):
            if wanted.intersection(draft.outputs):
                wanted.update(draft.inputs)
                needed.append(draft)
        return Body(inputs, made, tuple(draft.finish() for draft in reversed(needed)))

    def _new(self, variables: Sequence[Any]) -> tuple[int, ...]:
        return tuple(next(self._numbers) for _ in variables)

    def _draft_all(self, closed, inputs, drafts: list, place: "_Place") -> tuple[int, ...]:
        """Drafts the operations of a jaxpr; returns the numbers of its outputs."""
        jaxpr = closed.jaxpr
        numbers = dict(zip(jaxpr.invars, inputs, strict=True))

        def number(atom) -> int:
            if not isinstance(atom, core.Literal):
                return numbers[atom]
            return self._draft_constant(atom.val, atom.aval, drafts)

        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            numbers[var] = self._draft_constant(value, var.aval, drafts)
        for eqn in jaxpr.eqns:
            name, here = eqn.primitive.name, place.of(jaxpr, eqn)
            if name in _GROUPS:
                taken = tuple(number(x) for x in eqn.invars)
                made = self._draft_all(_closed(eqn.params[_GROUPS[name]]), taken, drafts, here)
            else:
                made = self._new(eqn.outvars)
                # A literal is part of an operation's program.
                whole = name in _CONTROL
                atoms = eqn.invars if whole else _variables(eqn)
                taken = tuple(number(x) for x in atoms)
                finish = self._control if whole else self._operation
                finish = functools.partial(finish, jaxpr, eqn, taken, made, here)
                drafts.append(_Draft(taken, made, finish))
            numbers.update(zip(eqn.outvars, made, strict=True))
        return tuple(number(x) for x in jaxpr.outvars)

    def _draft_constant(self, value, aval, drafts: list) -> int:
        (made,) = self._new([value])

        def finish() -> Operation:
            key = (str(aval), np.asarray(value).tobytes())
            program = self._program(key, lambda: [jnp.asarray(value, aval.dtype)], ())
            return Operation("literal", program, (), (made,), "", "")

        drafts.append(_Draft((), (made,), finish))
        return made

    def _operation(self, jaxpr, eqn, taken, made, place: "_Place") -> Operation:
        variables = _variables(eqn)
        alone = jaxpr.replace(
            constvars=[],
            invars=variables,
            outvars=eqn.outvars,
            eqns=[eqn],
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
        run = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))
        program = self._program(_key(eqn), run, [x.aval for x in variables])
        return Operation(eqn.primitive.name, program, taken, made, place.module, place.source)

    def _control(self, jaxpr, eqn, taken, made, place: "_Place") -> Operation:
        name, params = eqn.primitive.name, eqn.params
        settings = {ours: int(params[theirs]) for ours, theirs in _CONTROL[name].items()}
        bodies = params["branches"] if name == "cond" else [params[x] for x in _BODIES[name]]
        bodies = tuple(self.body(_closed(x), place) for x in bodies)
        return Operation(name, None, taken, made, place.module, place.source, bodies, settings)

    def _program(self, key, run: Callable, avals: Sequence[Any]) -> int:
        if key not in self._known:
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in avals]
            exported = jax.export.export(jax.jit(run), platforms=self._platforms)(*shapes)
            self._known[key] = len(self.programs)
            self.programs.append(bytes(exported.serialize()))
        return self._known[key]


class _Draft(NamedTuple):
    """An operation that is not exported yet, for nobody may need it."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    finish: Callable[[], Operation]


class _Place(NamedTuple):
    """Where in the network and in its source."""

    module: str = ""
    source: str = ""

    def of(self, jaxpr, eqn) -> "_Place":
        """Returns the place of an equation in a jaxpr that lies here."""
        module = "/".join(x for x in (self.module, str(eqn.source_info.name_stack)) if x)
        # What a library traced once is shared by all who call it, and names the first of them.
        shared = self.source and _of_library(jaxpr.debug_info.func_src_info or "")
        return _Place(module, self.source if shared else _source(eqn) or self.source)


def _source(eqn) -> str:
    """Names the line that asked for an equation: the innermost one outside of libraries."""
    frames = summarize(eqn.source_info, num_frames=100).splitlines()[::-1]
    return next((x for x in frames if not _of_library(x)), frames[0] if frames else "")


def _of_library(text: str) -> bool:
    return any(folder in text for folder in _LIBRARIES)


def _closed(jaxpr) -> core.ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())


def _variables(eqn) -> list:
    return list(dict.fromkeys(x for x in eqn.invars if not isinstance(x, core.Literal)))


def _key(eqn) -> tuple:
    """Equal for equations that compute the same of inputs in the same order."""
    order = {x: i for i, x in enumerate(_variables(eqn))}
    taken = [
        ("literal", str(x.aval), repr(x.val)) if isinstance(x, core.Literal) else order[x]
        for x in eqn.invars
    ]
    shapes = [str(x.aval) for x in order]
    params = [(name, _text(value)) for name, value in sorted(eqn.params.items())]
    return (eqn.primitive.name, tuple(taken), tuple(shapes), tuple(params))


def _text(value) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else str(value)
