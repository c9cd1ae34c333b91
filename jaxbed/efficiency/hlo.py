"""Which lines of a model the operations of a compiled program come from.

The compiler keeps, as `op_name`, the name stack under which JAX traced an operation:
"jit(step)/jvp(Net)/stage1/Conv_0/conv_general_dilated". What its own passes put in (layout
copies, fusions around them) carries none, and takes the name of what it was made of or made
for.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from jaxbed.efficiency.count import module_path

_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = .*? ([a-z][\w\-]*)\((.*)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_REFERENCE = re.compile(r"%([\w.\-]+)")

# Merged operations are listed, or listed in parentheses after the scopes they share.
_MERGED = re.compile(r";|(?<=/)\(")

# What lowering a loop or a branch adds to the name stack.
_CONTROL_FLOW = re.compile(
    r"(?<=/)(?:while/(?:body_pred|body|cond)|cond/branch_\d+_fun|closed_call|checkpoint)/"
)

# What sums over devices, and what only begins to: its end is another operation.
_ALL_REDUCE = re.compile(r"= (.+?) all-reduce(?:-start)?\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")

# Operations that only name memory: nothing runs.
_VIEWS = {"bitcast", "get-tuple-element", "tuple"}


@dataclass(frozen=True)
class _Instruction:
    """One line of a computation; `references` are its operands and called computations."""

    opcode: str
    op_name: str
    references: tuple[str, ...]


def op_names(hlo: str) -> dict[str, str]:
    """Names every operation of a program by the JAX operation it belongs to.

    An operation without a name of its own takes the most frequent name inside the
    computations it calls. Where there is none either (a copy into another layout), it takes
    that of the nearest named operation that uses its result, or of the nearest one that
    feeds it if only that lies in a module.

    Args:
        hlo: the text of a compiled module, `compiled.as_text()`.

    Returns:
        HLO name, such as "fusion.3", to `op_name`; "" where nothing near has one.
    """
    computations = _parse(hlo)
    instructions = _flat(computations)
    named = {
        name: instruction.op_name or _commonest(instruction, computations)
        for name, instruction in instructions.items()
    }
    feeds = {
        name: [other for other in instruction.references if other in instructions]
        for name, instruction in instructions.items()
    }
    uses = _uses(instructions)
    neighbours = {}
    for name, own in named.items():
        if not own:
            user, feeder = _nearest(name, uses, named), _nearest(name, feeds, named)
            only_feeder = module_of(feeder) and not module_of(user)
            neighbours[name] = feeder if only_feeder else user or feeder
    return named | neighbours


def convolutions(hlo: str) -> dict[str, set[str]]:
    """Returns every plain convolution of a program and the operations that use its result.

    Args:
        hlo: the text of a compiled module.
    """
    instructions = _flat(_parse(hlo))
    uses = _uses(instructions)

    def users(name: str) -> set[str]:
        found = set()
        for user in uses[name]:
            views = instructions[user].opcode in _VIEWS
            found |= users(user) if views else {user}
        return found

    return {
        name: users(name)
        for name, instruction in instructions.items()
        if instruction.opcode == "convolution"
    }


def sums_over_devices(hlo: str) -> list[int]:
    """Returns the bytes of every all-reduce of a program, those inside of loops once.

    Args:
        hlo: the text of a compiled module; of several devices it is that of each.
    """
    return [
        sum(_bytes_of(*shape) for shape in _SHAPE.findall(result))
        for result in _ALL_REDUCE.findall(hlo)
    ]


def module_of(op_name: str) -> str:
    """Returns the Flax module path in an `op_name`, as `count` writes it.

    "jit(step)/transpose(jvp(Net))/stage1/Conv_0/mul" is "Net/stage1/Conv_0". What is traced
    outside every module (loss, optimiser) has the path "". Operations that the compiler
    merged, "jit(step)/jvp(Net)/stage1/(Conv_0/add:Conv_1/add)", have the path they share.
    """
    first = _MERGED.split(op_name, maxsplit=1)[0]
    stack = _CONTROL_FLOW.sub("", first).split("/")[:-1]  # without the primitive
    return module_path("/".join(scope for scope in stack if "jit(" not in scope))


def _bytes_of(dtype: str, bits: str, dimensions: str) -> int:
    elements = math.prod(int(size) for size in dimensions.split(",") if size)
    return -(-elements * int(bits or 8) // 8)


def _parse(hlo: str) -> dict[str, dict[str, _Instruction]]:
    """Returns computation to instruction name to instruction."""
    computations: dict[str, dict[str, _Instruction]] = {}
    body: dict[str, _Instruction] = {}
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line):
            body = computations[head[1]] = {}
        elif found := _INSTRUCTION.match(line):
            name, opcode, rest = found.groups()
            metadata = _OP_NAME.search(rest)
            # The name of a parameter is the argument's, not an operation's.
            op_name = metadata[1] if metadata and opcode != "parameter" else ""
            body[name] = _Instruction(opcode, op_name, tuple(_REFERENCE.findall(rest)))
    return computations


def _flat(computations: dict[str, dict[str, _Instruction]]) -> dict[str, _Instruction]:
    return {name: one for body in computations.values() for name, one in body.items()}


def _uses(instructions: dict[str, _Instruction]) -> dict[str, list[str]]:
    """Returns instruction to those that take its result."""
    uses = defaultdict(list)
    for name, instruction in instructions.items():
        for other in instruction.references:
            uses[other].append(name)
    return uses


def _commonest(instruction: _Instruction, computations: dict[str, dict[str, _Instruction]]) -> str:
    inside = Counter(
        inner.op_name
        for called in instruction.references
        for inner in computations.get(called, {}).values()
        if inner.op_name
    )
    return inside.most_common(1)[0][0] if inside else ""


def _nearest(name: str, neighbours: dict[str, list[str]], named: dict[str, str]) -> str:
    """Returns the first name met when walking outwards, breadth first."""
    seen, ring = {name}, [name]
    while ring:
        ring = [other for here in ring for other in neighbours.get(here, ()) if other not in seen]
        seen.update(ring)
        for other in ring:
            if named[other]:
                return named[other]
    return ""
