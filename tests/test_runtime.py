"""How a process starts: each case that changes it runs in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxbed.errors import InputError
from jaxbed.runtime import configure, default_cache_dir, usable_cores, use_cores


def in_fresh_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_cpu_becomes_as_many_devices_as_asked_for_and_programs_are_kept(tmp_path: Path):
    code = (
        "from jaxbed.runtime import configure\n"
        "configure(device='cpu', cpu_devices=3)\n"
        "import jax\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.jit(lambda x: x * 2 + 1)(1.0)\n"
        "print(jax.device_count(), jax.default_backend())\n"
    )
    done = in_fresh_process(code, XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.split() == ["3", "cpu"], done.stderr
    kept = tmp_path / "jaxbed" / "xla"
    assert list(kept.iterdir())
    assert kept.stat().st_mode & 0o077 == 0


def test_what_jax_is_told_by_the_environment_holds_where_no_argument_says_otherwise(tmp_path):
    code = (
        "from jaxbed.runtime import configure; configure()\n"
        "import jax\n"
        "print(jax.device_count(), jax.config.jax_compilation_cache_dir)\n"
    )
    done = in_fresh_process(
        code,
        JAX_PLATFORMS="cpu",
        JAX_NUM_CPU_DEVICES="3",
        JAX_COMPILATION_CACHE_DIR=str(tmp_path),
    )
    assert done.stdout.split() == ["3", str(tmp_path)], done.stderr


def test_an_accelerator_that_is_not_there_is_told_in_one_sentence(tmp_path: Path):
    code = (
        "from jaxbed.errors import InputError\n"
        "from jaxbed.runtime import configure\n"
        "try:\n"
        "    configure(device='tpu')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    # Also where the environment hides accelerators: a flag that was given is the later word.
    done = in_fresh_process(code, JAX_PLATFORMS="cpu", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.startswith("--device tpu: JAX finds no tpu here"), done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("others", ["write", "block"])
def test_a_folder_that_cannot_be_trusted_or_made_keeps_no_programs(tmp_path: Path, others):
    cache = tmp_path / "cache"
    if others == "write":
        cache.mkdir()
        cache.chmod(0o777)
    else:
        cache.write_text("a file where a folder should be")
    code = (
        "from pathlib import Path\n"
        "from jaxbed.runtime import configure\n"
        f"configure(device='cpu', cache_dir=Path({str(cache)!r}))\n"
        "import jax\n"
        "print(jax.jit(lambda x: x + 1)(1.0), jax.config.jax_compilation_cache_dir)\n"
    )
    done = in_fresh_process(code)
    assert done.stdout.split() == ["2.0", "None"], done.stderr
    assert done.stderr.count("compiled programs are not kept") == 1
    assert str(cache) in done.stderr


def test_a_process_in_which_jax_runs_already_is_refused():
    code = (
        "import jax; jax.devices()\n"
        "from jaxbed.runtime import configure\n"
        "try:\n"
        "    configure()\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    done = in_fresh_process(code, JAX_PLATFORMS="cpu")
    assert "before the first use of a JAX device" in done.stdout, done.stderr


def test_no_devices_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        configure(cpu_devices=0)


def test_a_container_s_quota_bounds_the_cores(tmp_path: Path):
    quota = tmp_path / "cpu.max"
    cores = usable_cores(quota)  # no such file: no quota
    for text, expected in (
        ("max 100000", cores),
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a core is still one
        ("6400000 100000", min(64, cores)),
    ):
        quota.write_text(text)
        assert usable_cores(quota) == expected


def test_programs_lie_in_the_user_s_own_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache_dir() == Path("/elsewhere/jaxbed/xla")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_dir() == Path("/home/somebody/.cache/jaxbed/xla")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_stays_with_the_process():
    code = (
        "import resource\n"
        "from jaxbed.runtime import keep_freed_memory\n"
        "kept = keep_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytearray(2**27)\n"
        "before = faults()\n"
        "for _ in range(3): bytearray(2**27)\n"
        "print(kept, faults() - before)\n"
    )
    # bytearray(n) allocates zeroed memory, which reused pages have to be filled with.
    done = in_fresh_process(code)
    kept, faults = done.stdout.split()
    assert kept == "True", done.stderr
    assert int(faults) < 1000  # of 3 x 32,768 pages


def test_a_process_can_be_confined_to_some_cores():
    code = (
        "import os\n"
        "from jaxbed.machine import Machine\n"
        "Machine(device='cpu', cpu_threads=1).configure()\n"
        "assert len(os.sched_getaffinity(0)) == 1\n"
        "from jaxbed import runtime\n"
        "assert runtime.usable_cores() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("count", [0, 10_000])
def test_more_cores_than_there_are_are_refused(count):
    with pytest.raises(InputError, match="--cpu-threads"):
        use_cores(count)
