"""The flags of every command that computes: what of the machine it uses."""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a command runs on; a command's own settings extend it."""

    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    cpu_devices: int = 1
    """On a CPU: how many devices share a batch. One uses all cores by itself; more wait for each
    other at every batch normalisation."""
    cpu_threads: int | None = None
    """On a CPU: how many cores to use; by default all (Linux)."""
    keep_freed_memory: bool = True
    """Let the allocator keep what is freed, which saves page faults and holds the process at its
    largest size (Linux)."""
    cache_dir: Path | None = None
    """Folder of compiled programs; by default one per user."""

    def configure(self) -> None:
        """Settles it for this process; call it before JAX starts.

        Raises:
            InputError: the device is not there, or there are not so many cores.
        """
        from jaxbed import runtime

        if self.cpu_threads is not None:
            runtime.use_cores(self.cpu_threads)
        runtime.configure(
            device=self.device,
            cpu_devices=self.cpu_devices,
            cache_dir=self.cache_dir,
            tune_allocator=self.keep_freed_memory,
        )


FLAGS = tuple(field.name for field in dataclasses.fields(Machine))
"""Names of the settings that change where, but not what, is computed."""
