"""The flags of every command that computes: what of the machine it uses."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxbed.errors import InputError

if TYPE_CHECKING:
    from jaxbed.training.step import Devices


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
    deterministic: bool = False
    """Compute the same bits in every run with one seed on as many devices of one kind, which
    costs time on a GPU; elsewhere it is so anyway."""

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
            deterministic=self.deterministic,
        )


@dataclasses.dataclass(frozen=True)
class Training(Machine):
    """What a command trains on, and how steps are computed there."""

    parallel: Literal["jit", "pmap"] = "jit"
    """How devices share a batch."""
    steps_per_dispatch: int = 1
    """Training steps that the host starts at once; a divisor of 20 pays for small networks on an
    accelerator."""
    micro_batches: int = 1
    """Parts of a batch that are computed one after the other; for batches that do not fit."""
    remat: bool = False
    """Recompute in the backward pass what lies between convolutions, which saves memory."""
    coordinator: str | None = None
    """With several processes, on one host or many: ADDRESS:PORT of process 0; "auto" for what
    SLURM, Open MPI, Kubernetes or a TPU pod says, which then says the other two as well."""
    processes: int | None = None
    """With several processes: how many run this command."""
    process_id: int | None = None
    """With several processes: which one this is, from 0 on; process 0 alone writes."""
    wait_s: float = 600.0
    """With several processes: longest time that they wait for the slowest."""
    stall_s: float = 60.0
    """With several processes: time without a step after which process 0 tells who stands still."""

    def configure(self) -> None:
        """Meets the other processes, if there are any, then settles the machine.

        Raises:
            InputError: as of Machine; or the processes do not meet.
        """
        from jaxbed import meeting

        meeting.join(
            self.coordinator,
            self.processes,
            self.process_id,
            wait_s=self.wait_s,
            stall_s=self.stall_s,
        )
        super().configure()

    def devices(self, batch_size: int, examples: int) -> "Devices":
        """Returns all devices of all processes, after `configure`.

        Args:
            batch_size: examples per step, which the devices are to share.
            examples: there are to train on.

        Raises:
            InputError: the batch cannot be shared equally, or is larger than the training set.
        """
        from jaxbed.training.step import Devices, Execution

        for name in ("steps_per_dispatch", "micro_batches"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} is {getattr(self, name)}, but must be at least 1.")
        execution = Execution(self.micro_batches, self.steps_per_dispatch, self.remat)
        devices = Devices(self.parallel, execution=execution)
        if batch_size % (devices.count * self.micro_batches):
            parts = f" times {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
            raise InputError(
                f"--batch-size is {batch_size}, but must be a multiple of the {devices.count} "
                f"devices{parts} that share it."
            )
        if batch_size > examples:
            raise InputError(
                f"--batch-size is {batch_size}, but there are only {examples} examples to train on."
            )
        return devices


FLAGS = (
    *(field.name for field in dataclasses.fields(Machine)),
    *("parallel", "steps_per_dispatch", "remat"),
    *("coordinator", "processes", "process_id", "wait_s", "stall_s"),
)
"""Names of the settings that change where, but not what, is computed."""

OPEN = {field.name for field in dataclasses.fields(Training) if field.default is None}
"""Names of the settings that may stay open, whatever the preset."""
