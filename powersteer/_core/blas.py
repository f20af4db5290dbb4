"""Finds OpenBLAS and opens it in both cores: once, with kernels that fit the processor, for powersteer alone.

OpenBLAS chooses its kernels while it loads, from the processor's model number. On some processors with AVX-512 that it
does not know (AMD's) it falls back to AVX2 at half the speed, and only the environment can tell it otherwise. So the
variables are set around the loading and put back. The library is a copy of our own (NumPy and SciPy bring theirs, under
other names); it starts no threads, as parallelism is the core's.

POWERSTEER_OPENBLAS=/path/libopenblas.so[:symbol_prefix] names another library, for packagers. If NumPy uses that very
file, its thread count becomes 1 as well.

POWERSTEER_CPU=avx512, avx2 or portable makes powersteer compute as on a processor whose best instruction set that is: the
core's own kernels, and OpenBLAS's unless OPENBLAS_CORETYPE chooses those.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import InvalidInput, MissingDependency, NotFound, shown

for _name in ("_core32", "_core64"):
    if importlib.util.find_spec(f"{__package__}.{_name}") is None:  # Python would blame a circular import
        raise MissingDependency(
            f"powersteer's C core {_name} is not built for Python {platform.python_version()} in {Path(__file__).parent}: "
            "run `pip install -e .` or `python setup.py build_ext --inplace` in the checkout, or leave its folder to use "
            "an installed powersteer"
        )

from . import _core32, _core64  # noqa: E402

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise MissingDependency(
        "powersteer's C core needs Python's global interpreter lock, which PYTHON_GIL=0 or -X gil=0 keeps off: without these, "
        "a free-threaded Python turns it on when powersteer is imported"
    )

__all__ = ["default_threads", "open_library", "show_config"]

_CORES = (_core32, _core64)
_LOCK = threading.Lock()
_KERNELS = {"avx512": "SkylakeX", "avx2": "Haswell", "portable": "Nehalem"}  # of OpenBLAS, on x86-64
_SKYLAKEX = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def _library() -> tuple[str, str]:
    """(path, symbol prefix) of the library to open."""
    if named := os.environ.get("POWERSTEER_OPENBLAS"):
        path, prefix = named, ""
        if not Path(path).exists() and ":" in named:
            path, prefix = named.rsplit(":", 1)
        if not Path(path).is_file():
            raise NotFound(f"POWERSTEER_OPENBLAS names {path}, which is no file")
        return path, prefix
    # found, not imported: importing the package loads the library at once, before its kernels can be chosen
    package = importlib.util.find_spec("scipy_openblas32")
    if package is None or package.origin is None:
        raise NotFound("OpenBLAS is not there: pip install scipy-openblas32, or set POWERSTEER_OPENBLAS")
    folder = Path(package.origin).parent / "lib"
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    found = sorted(folder.glob(f"*openblas*{suffix}*"))
    if not found:
        raise NotFound(f"scipy-openblas32 has no library in {folder}: reinstall it, or set POWERSTEER_OPENBLAS")
    return str(found[0]), "scipy_"


def kernel_choice(features: frozenset[str], vendor: str, chosen: str | None, forced: str | None = None) -> str | None:
    """What OPENBLAS_CORETYPE should be while the library loads; None: leave it alone. A user's own choice stands, then
    the kernels of the instruction set that is forced; Intel's processors are recognised."""
    if chosen:
        return None
    if forced:
        return _KERNELS[forced] if "sse4.2" in features else None
    return "SkylakeX" if vendor != "GenuineIntel" and features >= _SKYLAKEX else None


def _instruction_set() -> str:
    """POWERSTEER_CPU, or the best instruction set that this machine has and the core has kernels for."""
    there = _core32.instruction_sets()
    wanted = os.environ.get("POWERSTEER_CPU") or there[-1]
    if wanted not in there:
        raise InvalidInput(f"POWERSTEER_CPU is {shown(wanted)}; this machine has {', '.join(there)}")
    return wanted


def _vendor() -> str:
    try:
        found = re.search(r"^vendor_id.*?:(.*)", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets variables in the process's environment, where C sees them, and puts back what was there."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)


def open_library() -> None:
    """Open the library in both cores. Called on import; again it does nothing."""
    with _LOCK:
        if all(core.blas_info()["opened"] for core in _CORES):
            return
        kind = _instruction_set()
        path, prefix = _library()
        settings = {"OPENBLAS_NUM_THREADS": "1"}
        forced = kind if os.environ.get("POWERSTEER_CPU") else None
        kernels = kernel_choice(frozenset(_core32.cpu_features()), _vendor(), os.environ.get("OPENBLAS_CORETYPE"), forced)
        if kernels:
            settings["OPENBLAS_CORETYPE"] = kernels
        with _environment(**settings):
            for core in _CORES:
                core.use_instructions(kind)
                core.blas_open(path, prefix)


def _cgroup_cpus() -> float:
    """The processors that a container's quota allows; infinity without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


def _core_of(cpu: int) -> str:
    """The core of a logical processor, by its hyperthreads, which share one multiply-add unit."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


@cache
def default_threads() -> int:
    """POWERSTEER_NUM_THREADS, or the physical cores that this process may use."""
    if wanted := os.environ.get("POWERSTEER_NUM_THREADS"):
        if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
            raise InvalidInput(f"POWERSTEER_NUM_THREADS is {wanted!r}; it must be a positive integer")
        return int(wanted)
    known = hasattr(os, "sched_getaffinity")
    cores = len(set(map(_core_of, os.sched_getaffinity(0)))) if known else os.cpu_count() or 1
    return max(1, int(min(cores, _cgroup_cpus())))


def show_config() -> dict[str, Any]:
    """Print and return the configuration: versions, the BLAS library and its kernels, threads, instruction sets, scalars.

    Returns
    -------
    dict
        What is printed, by name.

    Examples
    --------
    >>> config = ps.show_config()
    powersteer ...
    >>> config["scalar_bytes"]
    {'float32': 4, 'float64': 8}
    """
    info = _core32.blas_info()
    config = {
        "powersteer": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "openblas": info["config"],
        "openblas_core": info["corename"],
        "openblas_path": info["path"],
        "threads": default_threads(),
        "instruction_set": _core32.instruction_set(),
        "cpu_features": list(_core32.cpu_features()),
        "scalar_bytes": {"float32": _core32.real_size, "float64": _core64.real_size},
    }
    width = max(map(len, config))
    for name, value in config.items():
        print(f"{name:<{width}}  {' '.join(value) if isinstance(value, list) else value}")
    return config


open_library()
