"""Names the operation that made a training step go wrong.

When a loss or gradient is not finite, training stops and keeps that step in a folder under
WORKDIR/diverged: its batch, its state, and its operations one by one. This command runs them
again in that order, and says which first made a NaN or infinity that reached the loss, where it
stands in the network and in the source, and what went into it.

Run:  python -m jaxbed.replay runs/efd_crwt/diverged/seed0-crwt-stage1-step17
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxbed.cli import run
from jaxbed.errors import InputError

if TYPE_CHECKING:
    from jaxbed.training.blame import Suspect


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The folder that the error message named."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute: a CPU, or the kind of device that wrote the folder."""


def main(config: Config) -> None:
    """Runs the step and prints what was found."""
    from jaxbed import runtime

    runtime.configure(device=config.device, cpu_devices=1)
    from jaxbed.training import blame, diverged

    kept = diverged.read(config.folder)
    about = kept.about
    if kept.recording is None:
        raise InputError(
            f"the operations of {config.folder} could not be recorded ({about['not_recorded']}); "
            "its batch.npz and state.npz are all there is to look into."
        )
    watched = about["watched"]
    print(
        f"{about['phase']}, seed {about['seed']}, step {about['step']}: "
        f"{watched} was {about['metrics'][watched]}"
    )
    inquiry = blame.Inquiry(kept.recording)
    try:
        (found,) = inquiry.run(kept.inputs)
    except blame.BrokenRecordingError as error:
        raise InputError(
            f"{config.folder} cannot be run here ({error}); its operations are for a CPU or "
            f"{about['backend']}, and may be damaged."
        ) from error
    print(f"run one by one, {inquiry.done} operations: {watched} is {found.array}\n")
    suspects = [inquiry.suspects[i] for i in sorted(found.suspects)]
    if not suspects:
        print(
            "Every operation is finite when it is run by itself; fused, or on the device that "
            "wrote this folder, they round otherwise."
        )
    else:
        print(f"The first operation that is not finite: {told(suspects[0])}")
    if len(suspects) > 1:
        print(f"\n{len(suspects) - 1} more without that one's doing, the next: {told(suspects[1])}")


def told(suspect: "Suspect") -> str:
    """Tells what is known of a suspect, in some lines."""
    operation = suspect.operation
    if operation is None:
        return f"none, the step was given it: {suspect.name} {suspect.outputs[0]}"
    lines = [
        operation.primitive,
        f"  module: {operation.module or '(none)'}",
        f"  source: {operation.source or '(unknown)'}",
        *([f"  within: {suspect.name}"] if suspect.name else []),
        *(f"  input:  {x}" for x in suspect.inputs),
        *(f"  output: {x}" for x in suspect.outputs),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
