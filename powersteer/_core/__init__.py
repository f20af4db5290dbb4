"""The C core, built once for float32 and once for float64."""

from typing import Any

import numpy as np

from . import blas  # first: checks that both are built, and opens OpenBLAS in them

from . import _core32, _core64  # isort: skip

__all__ = ["CORES", "blas"]

CORES: dict[np.dtype[Any], Any] = {np.dtype(np.float32): _core32, np.dtype(np.float64): _core64}
