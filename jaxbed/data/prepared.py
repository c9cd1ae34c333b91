"""Prepared sets: TFDS builders in ArrayRecord files, written and read without TensorFlow.

A set lies in FOLDER/NAME/VERSION. N maps, R rows, C columns, J joints.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from jaxbed.data.pressure import POSTURES, Mat, PressureMaps
from jaxbed.errors import InputError

VERSION = "1.0.0"

# TFDS's usual name for an only split; subjects are split on reading, by protocol.
_SPLIT = "train"


@contextlib.contextmanager
def complete_or_absent(folder: Path) -> Iterator[Path]:
    """Gives a folder to write into that becomes `folder` only when all went well.

    Args:
        folder: where the finished work shall lie; absent or empty.

    Yields:
        An empty folder beside it. It is removed on any failure, Ctrl-C included.

    Raises:
        InputError: if `folder` is not free, or if no folder can be made there.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"{folder} already exists and is not an empty folder; remove it or choose another."
        )
    missing = [parent for parent in folder.parents if not parent.exists()]
    existing = folder.parents[len(missing)]
    if not existing.is_dir():
        raise InputError(
            f"{folder} cannot be made because {existing} is a file; choose another folder."
        )
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


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
    columns = _columns(maps)
    if len(maps) == 0 or any(len(values) != len(maps) for values in columns.values()):
        lengths = {name: len(values) for name, values in columns.items()}
        raise ValueError(f"columns must be of one length above 0, got {lengths}")
    home = folder / maps.name / VERSION
    home.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=maps.name,
            version=tfds.core.Version(VERSION),
            data_dir=os.fspath(home),
            module_name=__name__,
        ),
        description=f"Pressure maps in the canonical frame, from {maps.name}.",
        features=_features(maps, columns),
        license=licence,
        homepage=homepage,
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(_facts(maps, frames_read)),
    )
    records = (
        {name: values[i] for name, values in columns.items()}
        for i in tqdm(range(len(maps)), desc=f"writing {maps.name}", disable=None)
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=len(maps), file_format="array_record"
    )
    try:
        writer.initialize_splits([_SPLIT])
        writer.add_examples({_SPLIT: records})
        writer.close_all()
    except RuntimeError as error:  # ArrayRecord's only way to tell of a failed write
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), os.fspath(folder)) from error
        raise


def summary(maps: PressureMaps, frames_read: int) -> str:
    """Tells what was read, kept and left out, with the first reasons."""
    shown = maps.skipped[:3]
    more = len(maps.skipped) - len(shown)
    lines = [
        f"{maps.name}: {frames_read:,} frames read, {len(maps):,} kept, "
        f"{frames_read - len(maps):,} left out; {len(set(maps.subject))} subjects, "
        f"{maps.mat.rows} x {maps.mat.columns} cells",
        *(f"  left out: {line}" for line in shown),
    ]
    if more:
        lines.append(f"  left out: {more} more such lines in metadata.json")
    return "\n".join(lines)


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
    home = Path(folder) / name / VERSION
    if not home.is_dir():
        raise InputError(
            f"{folder} holds no prepared set {name!r} ({_sets_in(Path(folder))}); make it with "
            f"`python -m data_prep.pmd --raw PMD --out {folder}` for PMD or "
            f"`python -m data_prep.mat_folder --raw FOLDER --out {folder}` for your own mat."
        )
    try:
        info, columns = _read_columns(home)
        return _assemble(name, info, columns)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # TFDS, protobuf, JSON and ArrayRecord each raise their own
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{home} is not a complete prepared set ({type(error).__name__}: {reason}); "
            "remove it and run the command that prepared it again."
        ) from error


def _columns(maps: PressureMaps) -> dict[str, np.ndarray]:
    """Names the arrays of a set as they are stored, one value a record."""
    joints = {} if maps.joints_mm is None else {"joints_mm": maps.joints_mm}
    return {
        "pressure": maps.pressure,
        "subject": maps.subject,
        "posture": maps.posture,
        "label": maps.label,
        **joints,
        **maps.extra,
    }


def _features(maps: PressureMaps, columns: Mapping[str, np.ndarray]) -> tfds.features.FeaturesDict:
    features = {name: _feature(values) for name, values in columns.items()}
    features["posture"] = tfds.features.ClassLabel(names=list(POSTURES))
    features["label"] = tfds.features.ClassLabel(names=list(maps.label_names))
    return tfds.features.FeaturesDict(features)


def _feature(values: np.ndarray) -> tfds.features.FeatureConnector:
    if values.dtype.kind == "U":
        return tfds.features.Text()
    # Raw bytes: a list of numbers takes three times as long to write.
    return tfds.features.Tensor(shape=values.shape[1:], dtype=values.dtype, encoding="bytes")


def _facts(maps: PressureMaps, frames_read: int) -> dict:
    """Tells what a reader needs beside the records; becomes metadata.json."""
    return {
        "rows": maps.mat.rows,
        "columns": maps.mat.columns,
        "pitch_mm": maps.mat.pitch_mm,
        "unit": maps.mat.unit,
        "full_scale": maps.mat.full_scale,
        "frames": {
            "read": frames_read,
            "kept": len(maps),
            "skipped": frames_read - len(maps),
        },
        "skipped": list(maps.skipped),
    }


def _read_columns(home: Path) -> tuple[tfds.core.DatasetInfo, dict[str, np.ndarray]]:
    """Reads every record into columns; memory holds the columns and one record."""
    builder = tfds.builder_from_directory(os.fspath(home))
    # Indexed rather than iterated: the prefetch threads cost more than such small reads.
    records = grain.MapDataset.source(builder.as_data_source(_SPLIT))
    columns = {name: _column(value, len(records)) for name, value in records[0].items()}
    for i in range(len(records)):
        for name, value in records[i].items():
            columns[name][i] = value.decode() if isinstance(value, bytes) else value
    return builder.info, columns


def _column(value: np.ndarray | int | bytes, length: int) -> np.ndarray:
    if isinstance(value, bytes):
        return np.empty(length, object)
    value = np.asarray(value)
    return np.empty((length, *value.shape), value.dtype)


def _assemble(
    name: str, info: tfds.core.DatasetInfo, columns: dict[str, np.ndarray]
) -> PressureMaps:
    """Takes the columns of a set for what they are. Any exception means a damaged set."""
    facts = info.metadata
    mat = Mat(
        rows=int(facts["rows"]),
        columns=int(facts["columns"]),
        pitch_mm=float(facts["pitch_mm"]),
        unit=facts["unit"],
        full_scale=float(facts["full_scale"]),
    )
    columns = {
        key: values.astype(str) if values.dtype == object else values
        for key, values in columns.items()
    }
    pressure = columns.pop("pressure")
    if pressure.shape[1:] != mat.size:
        raise ValueError(f"maps are {pressure.shape[1:]}, metadata.json says {mat.size}")
    if tuple(info.features["posture"].names) != POSTURES:
        raise ValueError(f"the postures are not {', '.join(POSTURES)}")
    return PressureMaps(
        name=name,
        mat=mat,
        pressure=pressure,
        subject=columns.pop("subject"),
        posture=columns.pop("posture").astype(np.int32),
        label=columns.pop("label").astype(np.int32),
        label_names=tuple(info.features["label"].names),
        joints_mm=columns.pop("joints_mm", None),
        skipped=tuple(facts["skipped"]),
        extra=columns,
    )


def _sets_in(folder: Path) -> str:
    """Tells which sets a folder holds."""
    if not folder.is_dir():
        return "there is no such folder"
    names = sorted(found.parent.name for found in folder.glob(f"*/{VERSION}"))
    return f"it holds {', '.join(names)}" if names else "it holds none"
