"""Prepared sets: columns in a TFDS builder of ArrayRecord files, without TensorFlow.

A set lies in FOLDER/NAME/VERSION. N records. What a set of one kind holds is told by the file
of that kind: `prepared_pressure`, `prepared_depth`.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grain
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from jaxbed.errors import InputError, short

VERSION = "1.0.0"

# TFDS's usual name for an only split; subjects are split on reading, by protocol.
_SPLIT = "train"

_MOST_BYTES, _LONGEST_LINE = 100_000_000, 1000

Data = TypeVar("Data")


@dataclasses.dataclass(frozen=True)
class Table:
    """What a prepared set holds, whatever its kind.

    Attributes:
        name: the set's; becomes that of its folder.
        columns: one array of N values by name, "subject" among them: str[N], or numbers of any
            shape behind N.
        class_names: names of the classes, by the columns that hold indices of classes.
        facts: what a reader needs beside the columns, as JSON can hold it.
        skipped: what was left out on reading the raw data and why, one line each.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    class_names: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return min(map(len, self.columns.values()))


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


def write_table(
    table: Table,
    folder: Path,
    *,
    description: str,
    frames_read: int,
    licence: str,
    homepage: str,
) -> None:
    """Writes a set below a folder.

    Args:
        table: the set, at least one record.
        folder: an existing folder that does not hold a set of this name yet.
        description: one sentence on what the records are.
        frames_read: how many records the raw data held, the skipped ones included.
        licence: terms of the data, kept beside them as the file LICENSE.
        homepage: where the raw data come from.

    Raises:
        OSError: if the disk is full.
    """
    if len(table) == 0 or any(len(values) != len(table) for values in table.columns.values()):
        lengths = {name: len(values) for name, values in table.columns.items()}
        raise ValueError(f"columns must be of one length above 0, got {lengths}")
    home = folder / table.name / VERSION
    home.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=table.name,
            version=tfds.core.Version(VERSION),
            data_dir=os.fspath(home),
            module_name=__name__,
        ),
        description=description,
        features=_features(table),
        license=licence,
        homepage=homepage,
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(_metadata(table, frames_read)),
    )
    records = (
        {name: values[i] for name, values in table.columns.items()}
        for i in tqdm(range(len(table)), desc=f"writing {table.name}", disable=None)
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=len(table), file_format="array_record"
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


def read_table(
    folder: Path, name: str, assemble: Callable[[Table], Data], *, made_by: Mapping[str, str]
) -> Data:
    """Reads a prepared set into memory.

    Args:
        folder: the --out of the command that prepared the set.
        name: the set's name.
        assemble: makes of the table what the caller wants; whatever it raises tells that the
            set is damaged.
        made_by: the commands that prepare sets of this kind, by what they are for.

    Returns:
        What `assemble` made of the records, in the order they were written in.

    Raises:
        InputError: if there is no such set, or if it is damaged.
    """
    home = Path(folder) / name / VERSION
    if not home.is_dir():
        commands = " or ".join(
            f"`python -m {command} --out {folder}` for {what}" for what, command in made_by.items()
        )
        raise InputError(
            f"{folder} holds no prepared set {name!r} ({_sets_in(Path(folder))}); make it with "
            f"{commands}."
        )
    try:
        return assemble(_read(home, name))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # TFDS, protobuf, JSON and ArrayRecord each raise their own
        raise InputError(
            f"{home} is not a complete prepared set ({type(error).__name__}: {short(error)}); "
            "remove it and run the command that prepared it again."
        ) from error


def summary(table: Table, frames_read: int, *, records: str) -> str:
    """Tells what was read, kept and left out, with the first reasons.

    Args:
        table: the set.
        frames_read: how many records the raw data held, the skipped ones included.
        records: what one record is, for example "64 x 32 cells".
    """
    shown = table.skipped[:3]
    more = len(table.skipped) - len(shown)
    lines = [
        f"{table.name}: {frames_read:,} frames read, {len(table):,} kept, "
        f"{frames_read - len(table):,} left out; {len(set(table.columns['subject']))} subjects, "
        f"{records}",
        *(f"  left out: {line}" for line in shown),
    ]
    if more:
        lines.append(f"  left out: {more} more such lines in metadata.json")
    return "\n".join(lines)


def _features(table: Table) -> tfds.features.FeaturesDict:
    features = {name: _feature(values) for name, values in table.columns.items()}
    for name, classes in table.class_names.items():
        features[name] = tfds.features.ClassLabel(names=list(classes))
    return tfds.features.FeaturesDict(features)


def _feature(values: np.ndarray) -> tfds.features.FeatureConnector:
    if values.dtype.kind == "U":
        return tfds.features.Text()
    # Raw bytes: a list of numbers takes three times as long to write, and ArrayRecord
    # compresses by itself (depth frames are as small and quicker to read than PNG images).
    return tfds.features.Tensor(shape=values.shape[1:], dtype=values.dtype, encoding="bytes")


def _metadata(table: Table, frames_read: int) -> dict[str, Any]:
    """Tells what a reader needs beside the records; becomes metadata.json."""
    return {
        **table.facts,
        "frames": {
            "read": frames_read,
            "kept": len(table),
            "skipped": frames_read - len(table),
        },
        "skipped": list(table.skipped),
    }


def _read(home: Path, name: str) -> Table:
    """Reads every record into columns; memory holds the columns and one record."""
    _check_size(home)
    builder = tfds.builder_from_directory(os.fspath(home))
    # Indexed rather than iterated: the prefetch threads cost more than such small reads.
    records = grain.MapDataset.source(builder.as_data_source(_SPLIT))
    facts = builder.info.metadata
    if len(records) != facts["frames"]["kept"]:
        raise ValueError(f"{len(records)} records, metadata.json says {facts['frames']['kept']}")
    records[len(records) - 1]  # raises where there are fewer, before memory is taken for all
    columns = {name: _column(value, len(records)) for name, value in records[0].items()}
    for i in range(len(records)):
        for column, value in records[i].items():
            columns[column][i] = value.decode() if isinstance(value, bytes) else value
    features = builder.info.features
    return Table(
        name=name,
        columns={
            column: values.astype(str) if values.dtype == object else values
            for column, values in columns.items()
        },
        class_names={
            column: tuple(feature.names)
            for column, feature in features.items()
            if isinstance(feature, tfds.features.ClassLabel)
        },
        facts=facts,
        skipped=tuple(facts["skipped"]),
    )


def _check_size(home: Path) -> None:
    """Raises ValueError where TFDS would take all memory, or hours."""
    for path in home.glob("*.json"):
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.name} has more than {_MOST_BYTES:,} bytes")
    # Columns' names become patterns to search for, which takes hours for a long one of brackets.
    longest = max(map(len, (home / "features.json").read_bytes().splitlines()), default=0)
    if longest > _LONGEST_LINE:
        raise ValueError(f"features.json has a line of {longest:,} bytes")


def _column(value: np.ndarray | int | bytes, length: int) -> np.ndarray:
    if isinstance(value, bytes):
        return np.empty(length, object)
    value = np.asarray(value)
    return np.empty((length, *value.shape), value.dtype)


def _sets_in(folder: Path) -> str:
    """Tells which sets a folder holds."""
    if not folder.is_dir():
        return "there is no such folder"
    names = sorted(found.parent.name for found in folder.glob(f"*/{VERSION}"))
    return f"it holds {', '.join(names)}" if names else "it holds none"
