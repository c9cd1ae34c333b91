"""Says what this machine gives to JAX, and how fast it is.

Run:  python -m jaxbed.doctor
      python -m jaxbed.doctor --no-measure     (a second instead of some)
"""

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path

from jaxbed.cli import run
from jaxbed.machine import Machine

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain", "orbax-checkpoint", "clu")


@dataclasses.dataclass(frozen=True)
class Config(Machine):
    """What to look at."""

    measure: bool = True
    """Measure the machine's ceilings."""


def main(config: Config) -> None:
    """Prints all findings, one line each."""
    config.configure()
    _tell(_versions() | _devices() | _settings())
    if config.measure:
        _tell(_ceilings())


def _tell(findings: dict[str, str]) -> None:
    for name, finding in findings.items():
        print(f"{name:<20}{finding}", flush=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    return {"python": f"{platform.python_version()}, {platform.platform()}", "packages": listed}


def _devices() -> dict[str, str]:
    import jax

    from jaxbed import runtime

    devices = jax.devices()
    kinds = {device.device_kind for device in devices}
    return {
        "backend": jax.default_backend(),
        "devices": f"{len(devices)} x {', '.join(sorted(kinds))}, "
        f"in {jax.process_count()} process(es)",
        "cores": f"{runtime.usable_cores()} usable of {os.cpu_count()}",
        "memory": _memory(devices[0]),
    }


def _memory(device) -> str:
    statistics = device.memory_stats()  # None on a CPU
    if statistics and "bytes_limit" in statistics:
        return f"{statistics['bytes_limit'] / 2**30:.1f} GiB for JAX on each device"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"{total / 2**30:.1f} GiB in all"
    return "unknown"


def _settings() -> dict[str, str]:
    import jax

    from jaxbed import runtime

    precision = jax.config.jax_default_matmul_precision or "the backend's default"
    doubles = "on" if jax.config.jax_enable_x64 else "off"
    cache = jax.config.jax_compilation_cache_dir
    tuned = runtime.keep_freed_memory()  # once more does no harm and says whether it works
    return {
        "precision": f"matrix products at {precision}, 64-bit types {doubles}",
        "compiled programs": f"kept in {cache}, {_mebibytes(Path(cache))}" if cache else "not kept",
        "allocator": "glibc, keeps freed memory" if tuned else "as the system has it",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "not set"),
    }


def _mebibytes(folder: Path) -> str:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 2**20:.0f} MiB"


def _ceilings() -> dict[str, str]:
    from jaxbed.efficiency import ceilings

    found = ceilings.measure()
    told = {
        f"{dtype} products": f"{flop_per_s / 1e9:,.0f} GFLOP/s; memory-bound below "
        f"{ceilings.ridge(found, dtype):.1f} FLOP per byte"
        for dtype, flop_per_s in found.flop_per_s.items()
    }
    return told | {"copy": f"{found.bytes_per_s / 1e9:,.1f} GB/s, read plus written"}


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
