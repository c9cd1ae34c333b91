"""Prepared sets of pressure maps, written and read.

Maps R rows and C columns of sensors.
"""

from pathlib import Path

import numpy as np

from jaxbed.data import prepared
from jaxbed.data.prepared import Table
from jaxbed.data.pressure import POSTURES, Mat, PressureMaps

_MADE_BY = {
    "PMD": "data_prep.pmd --raw PMD",
    "your own mat": "data_prep.mat_folder --raw FOLDER",
}


def write_pressure_maps(
    maps: PressureMaps,
    folder: Path,
    *,
    frames_read: int,
    licence: str = "",
    homepage: str = "",
) -> None:
    """Writes a set of pressure maps below a folder.

    Args:
        maps: the set, at least one map; its name becomes the folder's.
        folder: an existing folder that does not hold a set of this name yet.
        frames_read: how many frames the raw data held, the skipped ones included.
        licence: terms of the data, kept beside them as the file LICENSE.
        homepage: where the raw data come from.

    Raises:
        OSError: if the disk is full.
    """
    prepared.write_table(
        _table(maps),
        folder,
        description=f"Pressure maps in the canonical frame, from {maps.name}.",
        frames_read=frames_read,
        licence=licence,
        homepage=homepage,
    )


def read_pressure_maps(folder: Path, name: str) -> PressureMaps:
    """Reads a prepared set into memory.

    Args:
        folder: the --out of the command that prepared the set.
        name: the set's name, for example "experiment_i" or "mat_folder".

    Returns:
        The maps, in the order they were written in.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """
    return prepared.read_table(folder, name, _maps, made_by=_MADE_BY)


def summary(maps: PressureMaps, frames_read: int) -> str:
    """Tells what was read, kept and left out, with the first reasons."""
    records = f"{maps.mat.rows} x {maps.mat.columns} cells"
    return prepared.summary(_table(maps), frames_read, records=records)


def _table(maps: PressureMaps) -> Table:
    """Names the arrays of a set as they are stored."""
    joints = {} if maps.joints_mm is None else {"joints_mm": maps.joints_mm}
    return Table(
        name=maps.name,
        columns={
            "pressure": maps.pressure,
            "subject": maps.subject,
            "posture": maps.posture,
            "label": maps.label,
            **joints,
            **maps.extra,
        },
        class_names={"posture": POSTURES, "label": maps.label_names},
        facts={
            "rows": maps.mat.rows,
            "columns": maps.mat.columns,
            "pitch_mm": maps.mat.pitch_mm,
            "unit": maps.mat.unit,
            "full_scale": maps.mat.full_scale,
        },
        skipped=maps.skipped,
    )


def _maps(table: Table) -> PressureMaps:
    """Takes the columns of a set for what they are. Any exception means a damaged set."""
    columns, facts = dict(table.columns), table.facts
    mat = Mat(
        rows=int(facts["rows"]),
        columns=int(facts["columns"]),
        pitch_mm=float(facts["pitch_mm"]),
        unit=facts["unit"],
        full_scale=float(facts["full_scale"]),
    )
    pressure = columns.pop("pressure")
    if pressure.shape[1:] != mat.size:
        raise ValueError(f"maps are {pressure.shape[1:]}, metadata.json says {mat.size}")
    if table.class_names["posture"] != POSTURES:
        raise ValueError(f"the postures are not {', '.join(POSTURES)}")
    return PressureMaps(
        name=table.name,
        mat=mat,
        pressure=pressure,
        subject=columns.pop("subject"),
        posture=columns.pop("posture").astype(np.int32),
        label=columns.pop("label").astype(np.int32),
        label_names=table.class_names["label"],
        joints_mm=columns.pop("joints_mm", None),
        skipped=table.skipped,
        extra=columns,
    )
