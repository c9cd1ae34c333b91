"""Kills trainings at random moments, lets them go on, and compares what they end with.

Every kill is a `kill -9` that nothing can catch, in the middle of a training step, of an
evaluation, of a save, or of whatever comes next; then the same command is started again, until
the training is done. Its parameters have to be those of a training that nobody killed, bit for
bit, and its metrics too.

Run:  python -m tests.kill_training --kills 50
"""

import collections
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from jaxbed.cli import Command, run
from jaxbed.machine import Training

ROOT = Path(__file__).parent.parent
MOMENTS = {"train": (30, 0.002), "evaluate": (15, 0.0005), "checkpoint": (8, 0.03)}
"""Activities to kill in: how many of them may begin before that, and the longest time (s) to wait
after the last began."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    kills: int = 50
    """How many there are to be, over as many trainings as that takes."""
    seed: int = 0
    """Of the moments."""


@dataclasses.dataclass(frozen=True)
class Train(Training):
    """Trains the tiny network, telling what it does."""

    workdir: Annotated[Path, tyro.conf.Positional] = Path("runs/tiny")
    steps: int = 24


class Outcome(NamedTuple):
    """What came of the kills.

    Attributes:
        kills: by what the process did when it died.
        half: how many of them left a half-written checkpoint behind.
        trainings: that were killed at least once, and finished.
        equal: of these, how many ended with the same parameters and metrics.
    """

    kills: dict[str, int]
    half: int
    trainings: int
    equal: int


def measure(kills: int, seed: int, folder: Path, *flags: str) -> Outcome:
    """Kills trainings in a folder until there were enough kills, and finishes the last."""
    rng = random.Random(seed)
    expected, _ = _attempt(folder / "whole", None, *flags)
    told = collections.Counter()
    half = trainings = equal = 0
    while told.total() < kills:
        workdir = folder / f"killed{trainings}"
        ended = None
        while ended is None:
            before = set(workdir.glob("checkpoints/**/*tmp*"))
            ended, died_in = _attempt(workdir, rng if told.total() < kills else None, *flags)
            if died_in:
                told[died_in] += 1
                half += not before.issuperset(workdir.glob("checkpoints/**/*tmp*"))
        trainings += 1
        same_log = _log(workdir) == _log(folder / "whole")
        equal += ended == expected and same_log
        print(f"{told.total()} kills, {trainings} trainings, {equal} equal", flush=True)
        shutil.rmtree(workdir)
    return Outcome(dict(told), half, trainings, equal)


def _attempt(workdir: Path, rng: random.Random | None, *flags: str) -> tuple[str | None, str]:
    """Trains until the end, or until a random moment.

    Returns:
        The hash at the end, None if it was killed; and what it did then, empty otherwise.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill_training", "train", str(workdir), *flags],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        lines = []
        if rng is not None:
            activity = rng.choice(sorted(MOMENTS))
            most, longest_s = MOMENTS[activity]
            left = rng.randint(1, most)
            for line in process.stdout:
                lines.append(line.strip())
                left -= lines[-1] == activity
                if not left:
                    time.sleep(rng.uniform(0, longest_s))
                    break
            process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().split()
        process.wait(timeout=300)
        if process.returncode == -signal.SIGKILL:
            return None, lines[-1]
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"the training failed:\n{errors.read()}")
    return lines[-1], ""


def _log(workdir: Path) -> str:
    return (workdir / "metrics.jsonl").read_text()


def train(config: Train) -> None:
    """Trains, resuming; prints what it does, and the parameters' hash at the end."""
    config.configure()
    from jaxbed.training.clock import Clock
    from jaxbed.training.loop import Trainer
    from jaxbed.training.state import parameter_hash
    from tests import tiny

    class Told(Clock):
        """Tells what time is charged to."""

        @property
        def doing(self) -> str:
            """The activity that is charged now."""
            return self._doing

        @doing.setter
        def doing(self, activity: str) -> None:
            self._doing = activity
            print(activity or "between", flush=True)

    examples = tiny.examples()
    config.workdir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        config.workdir,
        config.devices(4, len(examples["value"])),
        resume=True,
        log_every=2,
        eval_every=4,
        save_every=3,
        quick_compile=True,
    )
    trainer.clock = Told()
    phase = tiny.phase(config.steps, axis_name=trainer.devices.axis_name)
    state = trainer.fit(phase, examples, tiny.examples(6, 1), lambda: tiny.variables(phase))
    trainer.close()
    print(parameter_hash(state.variables))


def main(config: Config) -> None:
    """Measures, and tells."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        outcome = measure(config.kills, config.seed, Path(folder))
    places = ", ".join(f"{n} in {name}" for name, n in sorted(outcome.kills.items()))
    print(
        f"{sum(outcome.kills.values())} kill -9 ({places}; {outcome.half} left half a "
        f"checkpoint behind) of {outcome.trainings} trainings: "
        f"{outcome.equal} of {outcome.trainings} ended with the parameters and metrics of the "
        f"uninterrupted one ({time.monotonic() - begin:.0f} s)"
    )
    sys.exit(outcome.equal != outcome.trainings)


if __name__ == "__main__":
    run(main, Config, doc=__doc__, commands={"train": Command(train, Train)})
