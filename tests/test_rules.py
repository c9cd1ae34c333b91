"""The rules of the house: import direction, light imports, documented names, files that parse."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    p for room in ("jaxbed", "experiments", "data_prep") for p in (ROOT / room).rglob("*.py")
)

# What a room may import of this package, besides itself. Rooms that are not named may import
# anything of `jaxbed`.
ALLOWED = {
    "ops": set(),
    "codecs": {"ops", "errors"},
    "losses": {"ops"},
    "metrics": set(),
    "models": {"ops"},
    "data": {"errors", "codecs"},
    "simulate": {"data", "errors"},
    "training": {"data", "efficiency", "errors", "hosts", "metrics", "roll_call", "whole_files"},
    "efficiency": {"ops", "errors", "figures", "whole_files", "runtime"},
    "weights": {"errors", "whole_files"},
    "monitor": {"errors", "whole_files"},
    "tasks": {"losses", "metrics", "ops", "codecs", "monitor", "training"},
    "report": {"errors", "hosts", "report_text", "whole_files", "workdirs", "training"},
    "workdirs": {"errors", "machine"},
    "report_text": {"whole_files", "report"},
    "whole_files": set(),
    "roll_call": set(),
    "hosts": {"errors", "roll_call"},
    "meeting": {"errors", "hosts", "roll_call", "whole_files"},
    "baselines": set(),
    "errors": set(),
    "runtime": {"errors"},
    "machine": {"runtime", "errors", "meeting", "training"},
    "figures": {"whole_files"},
}
# Nothing but jax, flax, optax and what JAX itself requires.
LIGHT = {"models", "ops", "losses", "codecs"}


def imports(path):
    """Names every module that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxbed" and len(parts) > 1 else None


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_point_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for imported in imports(path):
        top = imported.split(".")[0]
        if module.startswith("jaxbed"):
            assert top not in ("experiments", "data_prep", "tests"), imported
            room, other = room_of(module), room_of(imported)
            if room in ALLOWED and other and other != room:
                known = {p.stem for p in (ROOT / "jaxbed").iterdir()}
                if other in known:
                    assert other in ALLOWED[room], f"{module} imports {imported}"
        elif module.startswith("data_prep"):
            assert top not in ("experiments", "tests"), imported
        else:
            assert top not in ("data_prep", "tests"), imported


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if room_of(name_of(p)[:-3].replace("/", ".")) in LIGHT], ids=name_of
)
def test_networks_and_operations_need_jax_flax_and_optax_only(path):
    allowed = {"jax", "flax", "optax", "numpy", "scipy", "jaxbed", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imports(path)} <= allowed


def test_data_never_imports_flax():
    for path in (ROOT / "jaxbed" / "data").rglob("*.py"):
        assert not any(name.split(".")[0] == "flax" for name in imports(path)), path


def test_every_module_imports():
    for package in ("jaxbed", "experiments", "data_prep"):
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            importlib.import_module(found.name)


def commands():
    """Names every file that is run as `python -m`."""
    for path in SOURCES:
        if '__name__ == "__main__"' in path.read_text():
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("command", list(commands()))
def test_help_is_quick_and_says_how_to_run_it(command):
    """`--help` may not import JAX: a second of waiting for a page of text."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{command!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({command!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "assert 'jax' not in sys.modules, 'imports jax'\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert command in told.stdout, "the help does not say how to run the command"


def test_import_jaxbed_costs_nothing():
    code = "import sys, jaxbed; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_short_enough_to_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_readme_maps_every_network_and_command_and_every_path_in_it_exists():
    import re

    text = (ROOT / "README.md").read_text()
    wanted = [name_of(p) for p in (ROOT / "jaxbed" / "models").glob("*.py")]
    wanted = [w for w in wanted if not w.endswith(("__init__.py", "layers.py"))]
    for path in wanted:
        assert path in text, f"{path} is not in the README"
    for command in commands():
        assert command in text, f"{command} is not in the README"
    for path in re.findall(r"`((?:jaxbed|experiments|data_prep|tests|docs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"the README names {path}, which is not there"
