"""The two cores, built from a copy of the sources: at the same time, and again after a change; and where they are not built."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder, *options):
    command = [sys.executable, "setup.py", "build_ext", "--inplace", *options]
    env = os.environ | {"POWERSTEER_DEBUG": "1"}  # quick to compile
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return sum(" -c " in line for line in done.stdout.splitlines())  # files compiled


@pytest.mark.slow
def test_both_cores_at_once_and_again_after_a_change(tmp_path):
    for name in ("csrc", "powersteer"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    n_files = len([*(ROOT / "csrc").rglob("*.c")])
    assert build(tmp_path, "-j2") == 2 * n_files
    script = "import powersteer; from powersteer._core import _core32, _core64; print(powersteer.__file__)"
    used = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert used.stdout.startswith(str(tmp_path))
    objects = [path.relative_to(tmp_path / "build") for path in (tmp_path / "build").rglob("*.o")]
    assert len(objects) == 2 * n_files
    assert build(tmp_path) == 0
    (tmp_path / "csrc" / "base" / "reduce.h").touch()
    assert build(tmp_path) == 2 * n_files


@pytest.mark.parametrize("machine", ["sys.byteorder = 'big'", "sys.maxsize = 2**31 - 1"])
def test_other_machines_are_refused_before_anything_is_compiled(machine):
    script = f"import sys; {machine}; exec(open('setup.py').read())"
    done = subprocess.run([sys.executable, "-c", script, "build_ext"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        "powersteer needs a 64-bit, little-endian machine and Python: weights are used as files hold them\n"
    )


def test_a_python_without_its_lock_is_refused():
    """As a free-threaded one under PYTHON_GIL=0: there alone the lock stays off when the core is imported."""
    script = "import sys; sys._is_gil_enabled = lambda: {}; import powersteer"
    done = [subprocess.run([sys.executable, "-c", script.format(on)], capture_output=True, text=True) for on in (True, False)]
    assert [d.returncode for d in done] == [0, 1] and "needs Python's global interpreter lock" in done[1].stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is not in the library")
def test_debug_information_names_no_folder_of_this_machine():
    """So two builds give the same bytes wherever they are made."""
    spec = importlib.util.find_spec("powersteer._core._core32")
    code = Path(spec.origin).read_bytes()
    assert str(ROOT).encode() not in code and b"csrc/base/arena.c" in code
