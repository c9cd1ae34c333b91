"""The steps that `python -m experiments.scaling` measures, and who measures them.

Simulated devices are chosen per process, so on a CPU every number of devices has a process;
accelerators can have one owner only, so there this process measures all.
"""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.bench_networks import NETWORKS, Bench, plausible_variables, preterm_regression
from experiments.scaling import Config, Way
from jaxbed import report
from jaxbed.efficiency import ceilings
from jaxbed.efficiency.clocks import memory_of, time_step
from jaxbed.efficiency.count import count, count_params
from jaxbed.efficiency.hlo import sums_over_devices
from jaxbed.errors import InputError
from jaxbed.training.state import quick_compilation, start
from jaxbed.training.step import AXIS, Devices, Execution, train_step, train_steps
from jaxbed.training.task import Batch, Task

_SMALL = preterm_regression("lean", size=(32, 40), widths=(8, 8))
_SIDE = {"cpu": 512}  # of the matrices that show what a device can do at best


class Variant(NamedTuple):
    """One program.

    Attributes:
        way: "single" knows of no other device.
        devices: how many share a batch.
        batch_size: examples per step, over all of them.
        steps: per dispatch.
    """

    way: Way
    devices: int
    batch_size: int
    steps: int


class Turn(NamedTuple):
    """What one turn of a variant takes, in ms.

    Attributes:
        step: of every dispatch, divided by its steps.
        sums: all sums over devices of one step, alone and one after the other.
        input: to bring one step's batch from the host to the devices.
    """

    step: list[float]
    sums: list[float]
    input: list[float]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a variant without a clock.

    Attributes:
        compile_s: seconds to compile it.
        memory_bytes: that one device needs.
        sums_bytes: of every all-reduce of one step.
        macs: nominal, of one step.
    """

    compile_s: float
    memory_bytes: int
    sums_bytes: list[int]
    macs: int


def bench_of(name: str) -> Bench:
    """Returns a network by its name.

    Raises:
        InputError: there is none of that name.
    """
    known = {**NETWORKS, "preterm_small": _SMALL}
    if name not in known:
        raise InputError(f"--networks names {name!r}, but there are only {', '.join(known)}.")
    return known[name]


class Step:
    """A variant of a network's training step, compiled, that goes on from call to call.

    Attributes:
        facts: see Facts.
    """

    def __init__(self, network: str, variant: Variant, dtype: str, *, quick_compile: bool):
        bench = bench_of(network)
        execution = Execution(steps_per_dispatch=variant.steps)
        parallel = "jit" if variant.way == "single" else variant.way
        self._devices = Devices(parallel, jax.devices()[: variant.devices], execution)
        self._variant = variant
        module = bench.network(dtype=jnp.dtype(dtype))
        rng = np.random.default_rng(0)
        self._image = rng.random((variant.batch_size, *bench.example), np.float32)
        variables = {"batch_stats": {}, **plausible_variables(module, self._image[:1], rng)}
        task = Task(_as_input, lambda out, batch: (bench.loss(out, batch["input"]), {}), dict)
        tx = optax.flatten(optax.scale_by_adam())
        rates = np.full(variant.steps, 1e-3, np.float32)
        rest = (jax.random.key(0), rates if variant.steps > 1 else rates[0])
        alone = partial(train_step, network=module, task=task, tx=tx)
        if variant.way == "single":
            several = partial(train_steps, step=alone) if variant.steps > 1 else alone
            program = jax.jit(several, donate_argnums=0)
            self._state = jax.device_put(start(variables, tx), jax.devices()[0])
        else:
            if variant.way == "pmap":
                module = bench.network(dtype=jnp.dtype(dtype), axis_name=AXIS)
            program = self._devices.train_step(module, task, tx, several=variant.steps > 1)
            self._state = self._devices.put_state(start(variables, tx))
        self._args = (self.put_input(), *rest)
        begin = time.perf_counter()
        options = quick_compilation() if quick_compile else None
        self._compiled = program.lower(self._state, *self._args).compile(options)
        compile_s = time.perf_counter() - begin
        one = {"image": self._image[:1], "index": np.zeros(1, np.int32)}
        counted = count(alone, start(variables, tx), one, *rest[:1], np.float32(0))
        self.facts = Facts(
            compile_s=compile_s,
            memory_bytes=memory_of(self._compiled),
            sums_bytes=sums_over_devices(self._compiled.as_text()),
            macs=counted.macs_nominal * variant.batch_size,
        )
        self._sums = lone_sums(self.facts.sums_bytes, jax.devices()[: variant.devices])

    def __call__(self) -> Any:
        """Takes the steps of one dispatch."""
        self._state, metrics = self._compiled(self._state, *self._args)
        return metrics

    def put_input(self) -> Batch:
        """Brings the batches of one dispatch to the devices."""
        batches = [{"image": self._image}] * self._variant.steps
        if self._variant.way == "single":
            index = np.arange(len(self._image), dtype=np.int32)
            stack = np.stack([self._image] * len(batches)) if len(batches) > 1 else self._image
            index = np.stack([index] * len(batches)) if len(batches) > 1 else index
            return jax.device_put({"image": stack, "index": index}, jax.devices()[0])
        if len(batches) > 1:
            return self._devices.put_batches(batches)
        return self._devices.put_batch(batches[0], train=True)

    def turn(self, calls: int) -> Turn:
        """Measures some dispatches, after one that is not kept."""

        def per_step(fn: Callable[[], Any], steps: int) -> list[float]:
            took = time_step(fn, calls=calls, warm_up=1).durations_ms
            return [ms / steps for ms in took]

        steps = self._variant.steps
        return Turn(per_step(self, steps), per_step(self._sums, 1), per_step(self.put_input, steps))


def lone_sums(sizes_bytes: Sequence[int], devices: Sequence[Any]) -> Callable[[], Any]:
    """Returns a program that only sums arrays of these sizes over devices, one by one."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    arrays = [np.zeros(-(-size // 4), np.float32) for size in sizes_bytes]

    def add_up(arrays: list[jax.Array]) -> list[jax.Array]:
        sums = []
        for array in arrays:
            if sums:  # needs the sum before it: else the compiler makes one of them
                array = array + 0 * sums[-1][0]
            sums.append(jax.lax.psum(array, AXIS))
        return sums

    whole = PartitionSpec()
    program = jax.jit(
        jax.shard_map(add_up, mesh=mesh, in_specs=(whole,), out_specs=whole, check_vma=False)
    )
    return partial(program, jax.device_put(arrays, everywhere))


class Here:
    """Measures in this process.

    Attributes:
        facts: by variant.
        about: environment; `peak`, FLOP/s that one device can do at best; `params` and
            `forward_macs`, nominal and exact, of one example.
    """

    def __init__(self, config: Config, network: str, dtype: str, variants: Sequence[Variant]):
        # A program from the cache would have no compile time.
        jax.config.update("jax_enable_compilation_cache", False)
        quick = config.quick_compile
        self._calls = config.calls
        self._steps = {v: Step(network, v, dtype, quick_compile=quick) for v in variants}
        self.facts = {variant: step.facts for variant, step in self._steps.items()}
        module = bench_of(network).network(dtype=jnp.dtype(dtype))
        image = np.zeros((1, *bench_of(network).example), np.float32)
        variables = plausible_variables(module, image, np.random.default_rng(0))
        forward = count(partial(module.apply, train=False), variables, image)
        # The rate of a matrix product; that of copying is not asked for, so little is copied.
        side = _SIDE.get(jax.default_backend())
        limits = ceilings.measure((dtype,), side=side, copy_bytes=2**20, calls=3)
        self.about = {
            "environment": report.environment(),
            "peak": limits.flop_per_s[dtype] / jax.device_count(),
            "params": count_params(variables["params"]),
            "forward_macs": (forward.macs_nominal, forward.macs_exact),
        }

    def turn(self, variant: Variant) -> Turn:
        """Measures one turn."""
        return self._steps[variant].turn(self._calls)


class Elsewhere:
    """Measures in the process at the other end of a pipe, as `Here` would."""

    def __init__(self, pipe: Connection):
        self._pipe = pipe
        self.facts, self.about = self._answer()

    def turn(self, variant: Variant) -> Turn:
        """Measures one turn."""
        self._pipe.send(variant)
        return self._answer()

    def _answer(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, InputError):
            raise answer
        return answer


@contextlib.contextmanager
def in_a_process(
    config: Config, network: str, dtype: str, variants: Sequence[Variant]
) -> Iterator[Elsewhere]:
    """Starts a process with as many simulated devices as the variants need."""
    # A fresh interpreter: JAX does not survive a fork.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=serve, args=(config, network, dtype, variants, there), daemon=True
    )
    process.start()
    there.close()
    try:
        yield Elsewhere(here)
    finally:
        process.terminate()
        process.join()


def serve(
    config: Config, network: str, dtype: str, variants: Sequence[Variant], asked: Connection
) -> None:
    """Measures what is asked for until nobody is there to ask."""
    most = max(variant.devices for variant in variants)
    dataclasses.replace(config, device="cpu", cpu_devices=most).configure()
    try:
        measuring = Here(config, network, dtype, variants)
    except InputError as error:
        asked.send(error)
        return
    asked.send((measuring.facts, measuring.about))
    with contextlib.suppress(EOFError):
        while True:
            asked.send(measuring.turn(asked.recv()))


def _as_input(batch: Batch, keys: jax.Array, train: bool) -> Batch:
    return {**batch, "input": batch["image"]}
