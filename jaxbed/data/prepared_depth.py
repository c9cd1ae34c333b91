"""Prepared sets of depth recordings, written and read.

Frames H W pixels high and wide.
"""

from pathlib import Path

from jaxbed.data import prepared
from jaxbed.data.depth import JOINTS, DepthFrames
from jaxbed.data.prepared import Table

_MADE_BY = {
    "UTD-MHAD": "data_prep.utd_mhad --raw UTD_MHAD",
    "babyPose": "data_prep.babypose --raw BABYPOSE",
}


def write_depth_frames(
    frames: DepthFrames,
    folder: Path,
    *,
    frames_read: int,
    licence: str = "",
    homepage: str = "",
) -> None:
    """Writes a set of depth frames below a folder.

    Args:
        frames: the set, at least one frame; its name becomes the folder's.
        folder: an existing folder that does not hold a set of this name yet.
        frames_read: how many frames the raw data held, the skipped ones included.
        licence: terms of the data, kept beside them as the file LICENSE.
        homepage: where the raw data come from.

    Raises:
        OSError: if the disk is full.
    """
    prepared.write_table(
        _table(frames),
        folder,
        description=f"Depth frames with the joints of the limbs, from {frames.name}.",
        frames_read=frames_read,
        licence=licence,
        homepage=homepage,
    )


def read_depth_frames(folder: Path, name: str) -> DepthFrames:
    """Reads a prepared set into memory.

    Args:
        folder: the --out of the command that prepared the set.
        name: the set's name, "utd_mhad" or "babypose".

    Returns:
        The frames, in the order they were written in.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """
    return prepared.read_table(folder, name, _frames, made_by=_MADE_BY)


def summary(frames: DepthFrames, frames_read: int) -> str:
    """Tells what was read, kept and left out, with the first reasons."""
    height, width = frames.size
    records = f"{len(set(frames.recording))} recordings, {height} x {width} pixels"
    return prepared.summary(_table(frames), frames_read, records=records)


def _table(frames: DepthFrames) -> Table:
    """Names the arrays of a set as they are stored."""
    height, width = frames.size
    return Table(
        name=frames.name,
        columns={
            "depth_mm": frames.depth_mm,
            "joints_px": frames.joints_px,
            "subject": frames.subject,
            "recording": frames.recording,
            **frames.extra,
        },
        class_names={},
        facts={"height": height, "width": width, "joints": list(JOINTS)},
        skipped=frames.skipped,
    )


def _frames(table: Table) -> DepthFrames:
    """Takes the columns of a set for what they are. Any exception means a damaged set."""
    columns, facts = dict(table.columns), table.facts
    depth_mm, joints_px = columns.pop("depth_mm"), columns.pop("joints_px")
    size = (facts["height"], facts["width"])
    if depth_mm.shape[1:] != size:
        raise ValueError(f"frames are {depth_mm.shape[1:]}, metadata.json says {size}")
    if tuple(facts["joints"]) != JOINTS or joints_px.shape[1:] != (len(JOINTS), 2):
        raise ValueError(f"the joints are not {', '.join(JOINTS)}")
    return DepthFrames(
        name=table.name,
        depth_mm=depth_mm,
        joints_px=joints_px,
        subject=columns.pop("subject"),
        recording=columns.pop("recording"),
        skipped=table.skipped,
        extra=columns,
    )
