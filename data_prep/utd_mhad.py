"""Prepares UTD-MHAD, depth videos of people with their skeletons, as `utd_mhad`.

    python -m data_prep.utd_mhad --raw UTD-MHAD --out prepared/utd_mhad

Source: C. Chen, R. Jafari, N. Kehtarnavaz, "UTD-MHAD: a multimodal dataset for human action
recognition utilizing a depth camera and a wearable inertial sensor", IEEE ICIP 2015;
https://www.utdallas.edu/~kehtar/UTD-MHAD.html. Licence: "freely available" (the paper).
"""

import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.depth_recordings import Recording, check_size, joined
from data_prep.utd_mhad_format import (
    CAMERA,
    FILE,
    LAG_FRAMES,
    Clip,
    limb_joints,
    read_depth,
    read_skeleton,
)
from jaxbed.cli import run
from jaxbed.data.depth import DepthFrames, Size, moved, shrunk
from jaxbed.errors import InputError

NAME = "utd_mhad"
HOMEPAGE = "https://www.utdallas.edu/~kehtar/UTD-MHAD.html"
LICENCE = "Freely available, as its paper says; cite Chen, Jafari, Kehtarnavaz, IEEE ICIP 2015."


@dataclasses.dataclass(frozen=True)
class Config:
    """Where UTD-MHAD lies and where the prepared set goes."""

    raw: Path
    """The folder that holds the folders Depth and Skeleton."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    size: Size = (96, 128)
    """Height and width of the prepared frames in pixels; the camera's are 240 and 320."""


def main(config: Config) -> None:
    """Reads, checks and writes the recordings."""
    from jaxbed.data.prepared import complete_or_absent
    from jaxbed.data.prepared_depth import summary, write_depth_frames

    check_size(config.size, CAMERA)
    with complete_or_absent(config.out) as partial:
        frames, read = read_recordings(config.raw, config.size)
        write_depth_frames(frames, partial, frames_read=read, licence=LICENCE, homepage=HOMEPAGE)
    print(summary(frames, read), config.out, sep="\n")


def read_recordings(raw: Path, size: Size) -> tuple[DepthFrames, int]:
    """Reads every recording. An unreadable one is left out and listed.

    Args:
        raw: the folder of UTD-MHAD.
        size: (height, width) of the frames wanted.

    Returns:
        The frames, and how many there were before any was left out.

    Raises:
        InputError: if this is not UTD-MHAD, or if no recording can be read.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder; point --raw at that of UTD-MHAD.")
    clips = sorted(
        {
            Clip(int(match["action"]), int(match["subject"]), int(match["trial"]))
            for path in raw.glob("*/*.mat")
            if (match := FILE.fullmatch(path.relative_to(raw).as_posix()))
        }
    )
    if not clips:
        raise InputError(
            f"{raw} holds no recording such as Depth/a1_s1_t1_depth.mat, so it is not UTD-MHAD; "
            "point --raw at the folder that holds the folders Depth and Skeleton."
        )
    recordings, skipped, read = [], [], 0
    for clip in tqdm(clips, desc="reading UTD-MHAD", unit=" recordings", disable=None):
        recording, frames = _read_clip(raw, clip, size)
        read += frames
        (skipped if isinstance(recording, str) else recordings).append(recording)
    if not recordings:
        raise InputError(
            f"{raw} holds no readable recording among {len(clips)} ({skipped[0]}); download "
            "UTD-MHAD again."
        )
    skipped.append(f"first {LAG_FRAMES} frames of every recording: no skeleton belongs to them")
    return joined(NAME, recordings, skipped), read


def _read_clip(raw: Path, clip: Clip, size: Size) -> tuple[Recording | str, int]:
    """Reads the depth and the skeleton of one recording.

    Returns:
        The recording, or which file is why it cannot be had; and how many frames there are.
    """
    file, frames = clip.file("depth"), 0
    try:
        depth = read_depth(raw / file)
        frames = len(depth)
        file = clip.file("skeleton")
        skeleton = read_skeleton(raw / file)
        if len(skeleton) != frames:
            raise ValueError(f"holds {len(skeleton)} skeletons for {frames} frames")
        if frames <= LAG_FRAMES:
            raise ValueError(f"holds {frames} skeletons, of which none belongs to a frame")
    except ValueError as error:
        return f"{file}: {error}", frames
    numbers = np.arange(LAG_FRAMES, frames, dtype=np.int32)
    recording = Recording(
        name=clip.name,
        subject=str(clip.subject),
        depth_mm=shrunk(depth[numbers], size),
        joints_px=moved(limb_joints(skeleton[numbers - LAG_FRAMES]), CAMERA, size),
        extra={"frame": numbers, "action": np.full(len(numbers), clip.action, np.int32)},
    )
    return recording, frames


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
