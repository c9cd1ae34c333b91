"""The loop: from a state and an order of batches to a trained state."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxbed import hosts
from jaxbed.data.batches import Arrays, eval_batches, train_batches
from jaxbed.efficiency.clocks import RecompilationCounter
from jaxbed.errors import DivergedError, StoppedError
from jaxbed.training import diverged
from jaxbed.training.clock import Clock
from jaxbed.training.evaluation import measure_program, predict_program
from jaxbed.training.logs import MetricLog, NoLog, Progress
from jaxbed.training.pulse import Pulse
from jaxbed.training.shared_checkpoints import SharedCheckpoints
from jaxbed.training.state import TrainState, parameter_hash, quick_compilation, start
from jaxbed.training.step import Devices, example_keys
from jaxbed.training.stopping import sigterm_noted
from jaxbed.training.task import Task
from jaxbed.whole_files import write_json


@dataclasses.dataclass(frozen=True)
class Phase:
    """One uninterrupted stretch of training: a network, its purpose and its schedule.

    Attributes:
        name: unique within a workdir; may hold slashes.
        network: takes `input` and `train`.
        task: loss, metrics and input of the network.
        tx: maps gradients to ascent directions; the learning rate is applied by the step.
        learning_rates: f32[steps], the schedule; its length is the number of steps.
        batch_size: examples per step, a multiple of the device count.
        seed: of the order of batches and of augmentation.
    """

    name: str
    network: nn.Module
    task: Task
    tx: optax.GradientTransformation
    learning_rates: np.ndarray
    batch_size: int
    seed: int


class Trainer:
    """Runs phases in one workdir on a set of devices.

    Phases with the same network, task and optimiser share a compiled step. Where several
    processes train together all call the same methods in the same order; the lead writes.

    Attributes:
        clock: where the time went.
        recompiles_after_first: compilations that happened during a step. Anything but 0 is
            a defect: a step's program is compiled before its first step.
    """

    def __init__(
        self,
        workdir: Path,
        devices: Devices,
        *,
        resume: bool,
        log_every: int = 20,
        eval_every: int = 500,
        save_every: int = 500,
        quick_compile: bool = False,
    ):
        self.workdir = workdir
        self.devices = devices
        self.clock = Clock()
        self.recompiles_after_first = 0
        self._compiler_options = quick_compilation() if quick_compile else None
        self._resume = resume
        self._every = (log_every, eval_every, save_every)
        self._log = MetricLog(workdir) if hosts.is_lead() else NoLog()
        self._programs: dict[Any, Callable] = {}
        self._pulse = Pulse(self.clock)

    def fit(
        self,
        phase: Phase,
        train: Arrays,
        watch: Arrays,
        initial: Callable[[], dict[str, Any]],
    ) -> TrainState:
        """Trains a phase to its end, from its last checkpoint when resuming.

        Args:
            phase: what to train.
            train: the examples to train on.
            watch: examples to evaluate now and then; their lowest loss decides which state
                is kept as the best. They change nothing else.
            initial: makes the variables to start from; not called when resuming.

        Returns:
            The state after the last step, on the host.

        Raises:
            DivergedError: a loss was not finite.
            StoppedError: SIGTERM came; the state is saved.
            InputError: the checkpoint to resume from is of another network or unreadable.
            LostProcessError: of several processes one is missing.
        """
        hosts.wait(f"the start of {phase.name}")
        checkpoints = SharedCheckpoints(self.workdir / "checkpoints" / phase.name)
        try:
            state = self._restored_or(phase, checkpoints, train, initial)
            self._log.forget_after(phase.name, int(state.step))
            with sigterm_noted() as stopped, self._pulse.watched():
                state = self.devices.put_state(state)
                state = self._run(phase, state, train, watch, checkpoints, stopped)
        finally:
            with self.clock.of("checkpoint"):
                checkpoints.close()
        state = jax.device_get(self.devices.get(state))
        self._keep_hash(phase.name, state)
        hosts.wait(f"the end of {phase.name}")
        return state

    def best(self, phase: Phase, train: Arrays) -> TrainState:
        """Returns, of a phase that was fitted, the state whose watched loss was lowest."""
        with self.clock.of("checkpoint"):
            checkpoints = SharedCheckpoints(self.workdir / "checkpoints" / phase.name)
            try:
                return checkpoints.restore_best(self._shapes_of(phase, train))
            finally:
                checkpoints.close()

    def evaluate(self, phase: Phase, variables: dict[str, Any], arrays: Arrays) -> dict[str, float]:
        """Measures every example exactly once."""
        parts = []
        for outputs, batch in self._predictions(phase, variables, arrays):
            measure = self._compiled(
                ("measure", phase.network, phase.task),
                lambda: measure_program(self.devices, phase.task),
                outputs,
                batch,
            )
            with self.clock.of("evaluate"):
                # Two sums over several CPU devices at a time could wait for each other's threads
                # for ever.
                jax.block_until_ready(parts[-1:])
                parts.append(measure(outputs, batch))
        with self.clock.of("evaluate"):
            total = functools.reduce(_merge, jax.device_get(parts))
            return {name: float(metric.compute()) for name, metric in total.items()}

    def predict(
        self, phase: Phase, variables: dict[str, Any], arrays: Arrays
    ) -> dict[str, np.ndarray]:
        """Runs a network on every example; returns its outputs, one row per example."""
        parts = [
            self.devices.gather(outputs)
            for outputs, _ in self._predictions(phase, variables, arrays)
        ]
        count = len(next(iter(arrays.values())))
        return {k: np.concatenate([part[k] for part in parts])[:count] for k in parts[0]}

    def close(self) -> None:
        """Finishes the log.

        Of several processes only the lead returns. It has its own devices from here on, to
        write a report with; the others end when it does.
        """
        self._log.close()
        hosts.leave_the_rest_to_the_lead()
        if self.devices.part[1] > 1:
            self.devices = self.devices.on_this_process()
            self._programs.clear()

    def _restored_or(self, phase, checkpoints, train, initial) -> TrainState:
        if self._resume:
            like = self._shapes_of(phase, train)
            with self.clock.of("checkpoint"):
                restored = checkpoints.restore_last(like)
            if restored:
                return restored
        # The lead's, since other processors may draw numbers that differ in the last digit.
        return hosts.from_lead(start(initial(), phase.tx))

    @staticmethod
    def _shapes_of(phase, train) -> TrainState:
        """Returns the shapes of the phase's state; nothing is computed."""

        def init(batch):
            keys = example_keys(jax.random.key(0), batch)
            image = phase.task.prepare(batch, keys, False)["input"]
            variables = phase.network.init(jax.random.key(0), image, train=False)
            return start({"batch_stats": {}, **variables}, phase.tx)

        one = {name: array[:1] for name, array in train.items()}
        return jax.eval_shape(init, {**one, "index": np.zeros(1, np.int32)})

    def _run(self, phase, state, train, watch, checkpoints, stopped) -> TrainState:
        log_every, eval_every, save_every = self._every
        first, last = int(self.devices.get(state).step), len(phase.learning_rates)
        if first >= last:
            return state
        key = jax.random.key(phase.seed)
        order = {"batch_size": phase.batch_size, "seed": phase.seed}
        batches = train_batches(train, **order, part=self.devices.part)
        learning_rates = np.asarray(phase.learning_rates, np.float32)
        progress = Progress(phase.name, total=last, done=first, shown=hosts.is_lead())
        runs = self._dispatches(first, last)
        ahead = self._next(batches, learning_rates, *runs[0])
        programs = {}
        for run in runs:
            if run[1] not in programs:
                like = ahead if run == runs[0] else self._next(batches, learning_rates, *run)
                programs[run[1]] = self._step_of(phase, run[1], state, like, key)

        pending: list[dict] = []
        kept = _copied(state)
        since = time.monotonic()
        for turn, (i, count) in enumerate(runs):
            self._pulse.move(f"step {i} of {phase.name}")
            batch, rates = ahead
            with self.clock.of("train"), RecompilationCounter() as compiled:
                state, metrics = programs[count](state, batch, key, rates)
            self.recompiles_after_first += compiled.count
            pending.append(metrics)
            if turn + 1 < len(runs):
                # While the devices work on this step, the host gets the next one's batch.
                ahead = self._next(batches, learning_rates, *runs[turn + 1])
            with self.clock.of("train"):
                # One dispatch in flight: enough to keep the devices busy, and the time between
                # two completions is that of its steps.
                jax.block_until_ready(pending[-2:][0])
            now = time.monotonic()
            for _ in range(count):
                self.clock.step_ms.append(1e3 * (now - since) / count)
            since = now

            done = i + count
            pause = done == last or done % eval_every == 0 or done % save_every == 0
            if pause or done % log_every == 0:
                scalars = self._account(phase, train, pending, done, kept)
                pending, kept = [], _copied(state)
                progress.update(done, scalars)
            if pause:
                self._pause(phase, state, watch, checkpoints, done)
                since = time.monotonic()
            if stopped() and done < last:
                self._history(phase, train, pending, done, kept)
                raise self._stopped(phase, state, checkpoints, done)
        progress.close()
        return state

    def _dispatches(self, first: int, last: int) -> list[tuple[int, int]]:
        """Divides steps into (first, count) that are started at once, none across an account."""
        several = self.devices.execution.steps_per_dispatch
        runs = []
        while first < last:
            end = min([(first // every + 1) * every for every in self._every] + [last])
            count = several if first + several <= end else 1
            runs.append((first, count))
            first += count
        return runs

    def _step_of(self, phase, count: int, state, inputs: tuple, key) -> Callable:
        batch, rates = inputs
        return self._compiled(
            ("train", phase.network, phase.task, phase.tx),
            lambda: self.devices.train_step(phase.network, phase.task, phase.tx, several=count > 1),
            *(state, batch, key, rates),
        )

    def _next(self, batches, learning_rates, i: int, count: int) -> tuple[dict, np.ndarray]:
        """Gets the batches of `count` steps onto the devices, with their learning rates."""
        with self.clock.of("input"):
            if count == 1:
                return self.devices.put_batch(batches[i], train=True), learning_rates[i]
            several = self.devices.put_batches([batches[j] for j in range(i, i + count)])
            return several, learning_rates[i : i + count]

    def _history(self, phase, train, pending, done: int, kept) -> dict[str, np.ndarray]:
        """Returns the values of the steps since the last account, after which the state was `kept`.

        Raises:
            DivergedError: one of them is not finite.
        """
        if not pending:
            return {}
        with self.clock.of("train"):
            parts = [jax.device_get(self.devices.get(m)) for m in pending]
        history = {k: np.concatenate([np.atleast_1d(m[k]) for m in parts]) for k in parts[0]}
        (bad,) = np.nonzero(~np.all([np.isfinite(history[k]) for k in diverged.WATCHED], axis=0))
        if len(bad):
            step = done - len(history["loss"]) + int(bad[0])
            values = {k: float(v[bad[0]]) for k, v in history.items()}
            raise self._diverged(phase, train, kept, step, values)
        return history

    def _account(self, phase, train, pending, done: int, kept) -> dict[str, float]:
        """Writes the mean over the steps since the last account; stops on a bad step."""
        history = self._history(phase, train, pending, done, kept)
        means = {k: float(np.mean(v)) for k, v in history.items()}
        learning_rate = float(phase.learning_rates[done - 1])
        self._log.write(phase.name, "train", done, {**means, "learning_rate": learning_rate})
        return {"loss": means["loss"]}

    def _pause(self, phase, state, watch, checkpoints, done: int) -> None:
        _, eval_every, save_every = self._every
        last = done == len(phase.learning_rates)
        state = self.devices.get(state)
        if last or done % eval_every == 0:
            scores = self.evaluate(phase, state.variables, watch)
            self._log.write(phase.name, "eval", done, scores)
            with self.clock.of("checkpoint"):
                checkpoints.save_if_best(state, scores["loss"])
        if last or done % save_every == 0:
            with self.clock.of("checkpoint"):
                checkpoints.save(state)
        self._pulse.move()

    def _stopped(self, phase, state, checkpoints, done: int) -> StoppedError:
        with self.clock.of("checkpoint"):
            checkpoints.save(self.devices.get(state))
        hosts.wait(f"the stop at step {done} of {phase.name}")
        return StoppedError(
            f"stopped as asked, at step {done} of {phase.name}, which is saved; run the same "
            "command with --resume to go on."
        )

    def _keep_hash(self, name: str, state: TrainState) -> None:
        """Adds the parameters' hash to `parameters.json`: equal runs have equal ones."""
        if not hosts.is_lead():
            return
        path = self.workdir / "parameters.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, {**known, name: parameter_hash(state.variables)})

    def _diverged(self, phase, train, state, step: int, values: dict) -> DivergedError:
        """Goes from an earlier state to a step again, and keeps what that step is given."""
        order = {"batch_size": phase.batch_size, "seed": phase.seed}
        batches = train_batches(train, **order, part=self.devices.part)
        rates, key = np.asarray(phase.learning_rates, np.float32), jax.random.key(phase.seed)
        for i in range(int(self.devices.get(state).step), step):
            batch, rate = self._next(batches, rates, i, 1)
            state, _ = self._step_of(phase, 1, state, (batch, rate), key)(state, batch, key, rate)
        state = jax.device_get(self.devices.get(state))
        told = ""
        if hosts.is_lead():
            batch = train_batches(train, **order)[step]
            told = diverged.keep_and_tell(self.workdir, phase, self.devices, state, batch, values)
        hosts.wait(f"what is kept of step {step} of {phase.name}")
        return DivergedError(
            f"the {diverged.first_not_finite(values)} of {phase.name} is not finite at step "
            f"{step}; {told} Lower --learning-rate, or look into that step's batch."
        )

    def _predictions(self, phase: Phase, variables, arrays: Arrays) -> Iterator[tuple]:
        """Yields outputs and prepared batch, still on the devices."""
        variables = self.devices.put_whole(variables)
        shared = eval_batches(arrays, batch_size=phase.batch_size, part=self.devices.part)
        for batch in shared:
            self._pulse.move()
            batch = self.devices.put_batch(batch, train=False)
            step = self._compiled(
                ("predict", phase.network, phase.task),
                lambda: predict_program(self.devices, phase.network, phase.task),
                variables,
                batch,
            )
            with self.clock.of("evaluate"):
                prediction = step(variables, batch)
            yield prediction

    def _compiled(self, program: tuple, build: Callable[[], Any], *args) -> Callable:
        """Returns the program for arguments like these; compiles it when it is new."""
        shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args))
        if (program, shapes) not in self._programs:
            with self.clock.of("compile"):
                lowered = build().lower(*args)
                self._programs[program, shapes] = lowered.compile(self._compiler_options)
        return self._programs[program, shapes]


@jax.jit
def _copied(state: TrainState) -> TrainState:
    """Keeps a state from being donated."""
    return jax.tree.map(jnp.copy, state)


def _merge(a: dict, b: dict) -> dict:
    return {name: metric.merge(b[name]) for name, metric in a.items()}
