"""Trains the tiny network in a workdir, resuming; prints a line per step and a hash."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Annotated

import tyro

os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)

from jaxbed import cli  # noqa: E402
from tests import tiny  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: Annotated[Path, tyro.conf.Positional]
    features: int = 4


class Told(list):
    """Tells of every step that is timed."""

    def append(self, value):
        super().append(value)
        print("step", flush=True)


def main(config):
    run = tiny.trainer(config.workdir, resume=True, save_every=3)
    run.clock.step_ms = Told()
    phase = tiny.phase(steps=30, features=config.features)
    state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
    digest = hashlib.sha256(b"".join(x.tobytes() for x in jax.tree.leaves(state)))
    print(digest.hexdigest())


cli.run(main, Config, doc=__doc__)
