"""Interim: finds and opens OpenBLAS."""
import os

import scipy_openblas32

from . import _core32, _core64

_dir = scipy_openblas32.get_lib_dir()
_path = os.path.join(_dir, next(f for f in sorted(os.listdir(_dir)) if f.startswith("lib") and ".so" in f))
for _core in (_core32, _core64):
    _core.blas_open(_path, "scipy_")


def default_threads():
    return len(os.sched_getaffinity(0))


def show_config():
    return _core32.blas_info()
