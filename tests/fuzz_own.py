"""Readers of what this library writes itself, and of weights, with the smallest inputs."""

import contextlib
import io
import json
import sys
import tempfile
import types
from pathlib import Path

import jax
import numpy as np

from jaxbed.data.depth import DepthFrames
from jaxbed.data.night import NightImages
from jaxbed.data.prepared_depth import read_depth_frames, write_depth_frames
from jaxbed.data.prepared_night import read_night_images, write_night_images
from jaxbed.data.prepared_pressure import read_pressure_maps, write_pressure_maps
from jaxbed.data.pressure import Mat, PressureMaps
from jaxbed.training.checkpoint import Checkpoints
from jaxbed.training.state import TrainState
from jaxbed.weights.retinaface import load_retinaface
from jaxbed.weights.state_dict import write_state_dict
from jaxbed.weights.torchvision import load_torchvision
from tests.fuzz import Target


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def written(write) -> dict[str, bytes]:
    """Returns the files that `write` makes in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return files_in(Path(folder))


def prepared_targets():
    rng = np.random.default_rng(0)
    who = np.array(["anna", "bert", "Zoë"])
    labels = rng.integers(0, 2, (2, 3)).astype(np.int32)
    maps = PressureMaps(
        name="bed",
        mat=Mat(rows=4, columns=3, pitch_mm=25.4, unit="count", full_scale=500.0),
        pressure=rng.uniform(0, 500, (3, 4, 3)).astype(np.float32),
        subject=who,
        posture=labels[0],
        label=labels[1],
        label_names=("flat", "raised"),
        extra={"incline_deg": np.float32([0, np.nan, 30])},
    )
    depth = DepthFrames(
        name="bed",
        depth_mm=rng.integers(0, 999, (3, 6, 8), np.uint16),
        joints_px=rng.uniform(0, 6, (3, 12, 2)).astype(np.float32),
        subject=who,
        recording=who,
    )
    night = NightImages(
        name="bed",
        image=rng.integers(0, 255, (3, 6, 8), np.uint8),
        posture=labels[0],
        blanket=labels[1],
        subject=who,
        recording=who,
    )
    yield prepared_target("pressure", maps, write_pressure_maps, read_pressure_maps)
    yield prepared_target("depth", depth, write_depth_frames, read_depth_frames)
    yield prepared_target("night", night, write_night_images, read_night_images)


def prepared_target(kind, data, write, read):
    files = written(lambda folder: write(data, folder, frames_read=4))
    return Target(f"prepared {kind}", files, lambda folder: read(folder, "bed").skipped)


def weights_targets():
    rng = np.random.default_rng(0)
    tensors = {
        "conv1.weight": rng.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "bn1.running_mean": np.zeros(2, np.float32),
        "bn1.num_batches_tracked": np.int64(7),
        "fc.weight": np.ones((4, 2), np.float16),
    }
    files = written(lambda folder: write_state_dict(folder / "a.safetensors", tensors))
    variables = {
        "params": {
            "conv1": {"kernel": np.zeros((3, 3, 1, 2), np.float32)},
            "fc": {"kernel": np.zeros((2, 4), np.float32)},
        },
        "batch_stats": {"bn1": {"mean": np.zeros(2, np.float32)}},
    }

    def read(folder):
        _, loaded = load_torchvision(folder / "a.safetensors", variables)
        assert not loaded.fresh

    yield Target("safetensors", files, read)
    ssh = {"params": {"ssh1": {"conv3x3": {"conv": {"kernel": np.zeros((3, 3, 1, 2), "f4")}}}}}
    kernel = {"module.ssh1.conv3X3.0.weight": np.ones((2, 1, 3, 3), np.float32)}
    files = written(lambda folder: write_state_dict(folder / "b.safetensors", kernel))
    yield Target(
        "retinaface", files, lambda folder: load_retinaface(folder / "b.safetensors", ssh) and None
    )


class Tensor:
    """As much of a torch.Tensor as is used, made of what JSON holds."""

    def __init__(self, values):
        self._values = np.array(values, np.float64)

    def detach(self):
        return self

    def float(self):
        with np.errstate(over="ignore"):
            return Tensor(self._values.astype(np.float32))

    def is_floating_point(self):
        return True

    def numpy(self):
        return self._values


def pth_targets():
    """PyTorch is not needed: what stands in for it reads JSON, so that any tree comes out of it."""

    def load(path, **_):
        content = json.loads(path.read_bytes())
        tensors = {name: Tensor(v) if isinstance(v, list) else v for name, v in content.items()}
        return {"state_dict": tensors} if "fc.weight" in tensors else tensors

    def read(folder):
        known = sys.modules.get("torch")
        sys.modules["torch"] = types.SimpleNamespace(load=load)
        try:
            load_torchvision(folder / "a.pth", {"params": {"fc": {"kernel": np.zeros((2, 3))}}})
        finally:
            del sys.modules["torch"]
            if known is not None:
                sys.modules["torch"] = known

    weights = {"module.fc.weight": [[1.0, 2.0], [3.5, -4.0], [0.5, 0]], "num_batches_tracked": [7]}
    yield Target("pth", {"a.pth": json.dumps(weights).encode()}, read)


def tiny_state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    return TrainState(
        step=np.int32(step),
        params={"dense": {"kernel": rng.normal(size=(8, 4)).astype(np.float32)}},
        batch_stats={},
        opt_state={"mu": rng.normal(size=32).astype(np.float32)},
    )


def checkpoint_targets():
    def write(folder):
        checkpoints = Checkpoints(folder / "tiny")
        for step in (3, 6):
            checkpoints.save(tiny_state(step))
            checkpoints.save_if_best(tiny_state(step), score=10.0 - step)
        checkpoints.close()

    def read(folder):
        with contextlib.redirect_stderr(io.StringIO()) as told:
            checkpoints = Checkpoints(folder / "tiny")
            try:
                for restore in (checkpoints.restore_last, checkpoints.restore_best):
                    state = restore(tiny_state(0))
                    jax.tree.map(np.testing.assert_array_equal, state, tiny_state(int(state.step)))
            finally:
                checkpoints.close()
        return told.getvalue().splitlines()

    yield Target("checkpoints", written(write), read)


def targets():
    """Yields every reader of this library's own files, and of weights."""
    yield from prepared_targets()
    yield from weights_targets()
    yield from pth_targets()
    yield from checkpoint_targets()
