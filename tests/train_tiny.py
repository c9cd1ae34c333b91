"""Trains the tiny network in a workdir, resuming; prints a line per step and a hash."""

import hashlib
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)

from tests import tiny  # noqa: E402


class Told(list):
    """Tells of every step that is timed."""

    def append(self, value):
        super().append(value)
        print("step", flush=True)


run = tiny.trainer(Path(sys.argv[1]), resume=True, save_every=3)
run.clock.step_ms = Told()
phase = tiny.phase(steps=30)
state = run.fit(phase, tiny.examples(), tiny.examples(6, 1), lambda: tiny.variables(phase))
digest = hashlib.sha256(b"".join(x.tobytes() for x in jax.tree.leaves(state)))
print(digest.hexdigest())
