"""What a process decides once, before JAX starts: devices, compilation cache, allocator.

Commands call `configure` first. The library itself never does: who imports a network keeps
his own settings.
"""

import ctypes
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Literal

import jax

from jaxbed.errors import InputError

Device = Literal["auto", "cpu", "gpu", "tpu"]

# glibc, malloc.h: parameter of `mallopt`, and the value it gets here.
_MALLOPT = {
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, -1),
    "M_ARENA_MAX": (-8, 1),
}

_log = logging.getLogger(__name__)


def configure(
    *,
    device: Device = "auto",
    cpu_devices: int | None = None,
    cache_dir: Path | None = None,
    tune_allocator: bool = True,
    deterministic: bool = False,
) -> None:
    """Settles how JAX runs in this process.

    Where an argument is left at its default, JAX's own environment variables
    (`JAX_PLATFORMS`, `JAX_NUM_CPU_DEVICES`, `JAX_COMPILATION_CACHE_DIR`) count. With several
    hosts, call `jax.distributed.initialize` before this.

    Args:
        device: where programs run; "auto" takes an accelerator if there is one, else the CPU.
        cpu_devices: devices the CPU is divided into, at least 1; None: one per core that
            this process may use.
        cache_dir: folder of compiled programs; None: one per user. If it cannot be written,
            or others can write it, the process runs without and a warning says so.
        tune_allocator: let glibc keep what is freed; see `keep_freed_memory`.
        deterministic: see `make_deterministic`.

    Raises:
        InputError: `device` is an accelerator that is not there.
        ValueError: `cpu_devices` is below 1.
        RuntimeError: JAX has started already.
    """
    if cpu_devices is not None and cpu_devices < 1:
        raise ValueError(f"cpu_devices must be at least 1, got {cpu_devices}")
    # XLA:CPU runs convolutions with up to 64 output channels on one core of each device, so two
    # devices can be faster (a MobileNetV3's step: 390 instead of 511 ms) or, where batch
    # normalisation makes them wait for each other, slower (EFD at 256x256: 8.1 instead of 6.0 s).
    _set_cpu_devices(cpu_devices or _environment_cpu_devices() or usable_cores())
    if deterministic:
        make_deterministic()
    if tune_allocator:
        keep_freed_memory()
    # The training step of a ResNet-18 compiles in 8.9 s and loads in 0.5 s.
    _set_cache(cache_dir)
    if device == "cpu":
        # An accelerator that is not initialised keeps its memory for others.
        jax.config.update("jax_platforms", "cpu")
    elif device != "auto":
        jax.config.update("jax_platforms", None)
        _require(device)


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Counts the cores this process may use: its affinity, and a container's quota.

    Args:
        quota: the control group's limit, "microseconds-or-max period".
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def use_cores(count: int) -> None:
    """Confines this process to its first cores; XLA makes as many threads as there are.

    Raises:
        InputError: this process may not use so many, or the system cannot confine it.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else []
    if not 1 <= count <= len(cores):
        raise InputError(
            f"--cpu-threads is {count}, but this process can choose among {len(cores)} cores; "
            f"take 1 to {len(cores)}, or leave the flag out."
        )
    os.sched_setaffinity(0, cores[:count])


def default_cache_dir() -> Path:
    """Returns this user's folder of compiled programs."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "jaxbed" / "xla"


def keep_freed_memory() -> bool:
    """Lets glibc keep freed memory for the next allocation instead of unmapping it.

    XLA:CPU allocates its temporary buffers at every call, and fresh pages cost a fault each:
    326,000 in one training step of a MobileNetV3, which took 963 ms with them and 511 ms
    without. The process holds its largest memory to its end, and up to three times as much as
    its largest program takes: what small arrays leave of a freed block is not enough for the
    next call (EFD at 256x256, batch 8: 5.8 GiB of temporaries, 13 to 19 GiB held). Elsewhere
    than on glibc nothing is done.

    Returns:
        Whether all of it was accepted.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all([libc.mallopt(parameter, value) for parameter, value in _MALLOPT.values()])


def make_deterministic() -> None:
    """Lets two runs of one program on the same kind and number of devices give the same bits.

    What there is to settle, before JAX starts:

    - On a GPU some kernels add in the order in which threads happen to finish, and which kernel
      runs is decided by timing. `xla_gpu_deterministic_ops` forbids both, at the price of slower
      gradients of gathers, pooling and convolutions.
    - Random numbers must not depend on how many devices share them, nor on the environment:
      `threefry`, partitionable. (That is JAX's default.)

    Programs for a CPU or TPU are deterministic as they are. What nothing here can settle: another
    kind or number of devices, another number of cores on a CPU, and other versions of JAX all add
    in another order. Matrix products stay as precise as they were; that decides how far devices
    of different kinds are apart, not whether a run repeats.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    chosen = "--xla_gpu_deterministic_ops=true"
    kept = [flag for flag in flags if not flag.startswith("--xla_gpu_deterministic_ops")]
    os.environ["XLA_FLAGS"] = " ".join([*kept, chosen])
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)


def _set_cpu_devices(count: int) -> None:
    try:
        # The one setting of these that JAX itself refuses to change once it has started.
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise RuntimeError(
            "configure() must come before the first use of a JAX device: an array, "
            "jax.devices() or the call of a jitted function"
        ) from error


def _environment_cpu_devices() -> int | None:
    count = jax.config.jax_num_cpu_devices
    return count if count > 0 else None


def _set_cache(cache_dir: Path | None) -> None:
    cache_dir = cache_dir or jax.config.jax_compilation_cache_dir or default_cache_dir()
    if "://" in str(cache_dir):  # cloud storage has its own permissions
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        return
    cache_dir = Path(cache_dir).expanduser()
    problem = _cache_problem(cache_dir)
    if problem:
        _log.warning("compiled programs are not kept: %s: %s", cache_dir, problem)
    jax.config.update("jax_compilation_cache_dir", None if problem else str(cache_dir))


def _cache_problem(cache_dir: Path) -> str | None:
    """Says why compiled programs cannot be kept in a folder, creating it if need be."""
    try:
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_dir):
            pass
    except OSError as error:
        return error.strerror or str(error)
    if hasattr(os, "getuid"):
        # What lies in there is loaded and executed.
        found = cache_dir.stat()
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid != os.getuid() or others_write:
            return "other users can write it; choose a folder of your own, with mode 700"
    return None


def _require(device: Device) -> None:
    try:
        jax.devices(device)
    except RuntimeError as error:
        raise InputError(
            f"--device {device}: JAX finds no {device} here, only {jax.default_backend()} "
            f"({_first_line(error)}); use --device auto, or install JAX for your {device}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
