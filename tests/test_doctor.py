"""The command that describes the machine."""

import subprocess
import sys

import jax


def doctor(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "jaxbed.doctor", *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_describes_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    done = doctor("--no-measure", "--device", "cpu", "--cpu-devices", "3")
    assert done.returncode == 0, done.stderr
    findings = {line[:20].strip(): line[20:] for line in done.stdout.splitlines()}
    assert findings["backend"] == "cpu"
    assert findings["devices"].startswith("3 x ")
    assert f"jax {jax.__version__}" in findings["packages"]
    assert findings["compiled programs"] == f"kept in {tmp_path}, 0 MiB"
    assert "products" not in findings


def test_an_accelerator_that_is_not_there_ends_it_with_one_sentence():
    done = doctor("--device", "tpu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --device tpu: JAX finds no tpu here")
    assert "Traceback" not in done.stderr


def test_help_does_not_wait_for_jax():
    code = (
        "import sys, jaxbed.doctor\n"
        "assert 'jax' not in sys.modules, 'the command imports jax before it is parsed'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
