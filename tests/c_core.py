"""C functions that Python never sees, compiled by the machine's C compiler and called through ctypes."""

import ctypes
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy_openblas32

CSRC = Path(__file__).parent.parent / "csrc"
DTYPES = {"float32": np.float32, "float64": np.float64}
_SOURCES = (
    "base/arena.c",
    "base/status.c",
    "kernels/blas.c",
    "base/rng.c",
    "solver/orth.c",
    "base/cpu.c",
    "kernels/blocks.c",
    "kernels/gemm_packed.c",
    "kernels/gemv.c",
    "kernels/vexp.c",
)


class Status(ctypes.Structure):
    _fields_ = (("code", ctypes.c_int), ("message", ctypes.c_char * 256))


class Weight(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("type", ctypes.c_int), ("n_out", ctypes.c_size_t), ("n_in", ctypes.c_size_t),
        ("group", ctypes.c_size_t), ("group_stride", ctypes.c_ssize_t), ("out_stride", ctypes.c_ssize_t),
        ("in_stride", ctypes.c_ssize_t), ("factors", ctypes.c_void_p), ("factor_stride", ctypes.c_ssize_t),
        ("factor_run", ctypes.c_size_t),
    )  # fmt: skip


class Rng(ctypes.Structure):
    _fields_ = (("seed", ctypes.c_uint64), ("stream", ctypes.c_uint64), ("counter", ctypes.c_uint64))


def compiler():
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if os.name == "nt" or shutil.which(command.split()[0]) is None:
        pytest.skip("no Unix C compiler for the C-level tests")
    return command.split()


class Core:
    """The core's files as a library of their own, compiled once a session, as setup.py compiles them. defines: of the
    preprocessor."""

    _BUILT: ClassVar = {}

    def __init__(self, folder, dtype, *defines):
        self.dtype = np.dtype(DTYPES[dtype])
        self.real = ctypes.c_double if dtype == "float64" else ctypes.c_float
        if (dtype, defines) not in self._BUILT:
            out = Path(folder) / f"core-{dtype}-{len(defines)}.so"
            flags = ["-DPS_DOUBLE"] * (dtype == "float64") + [f"-D{d}" for d in defines]
            command = [*compiler(), "-std=c11", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", f"-I{CSRC}", *flags,
                       *(str(CSRC / name) for name in _SOURCES), "-o", str(out), "-ldl", "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            self._BUILT[dtype, defines] = out
        out = self._BUILT[dtype, defines]
        self.lib = ctypes.CDLL(str(out))
        self.lib.rng_bits.restype = ctypes.c_uint64
        self.lib.rng_uniform.restype = self.lib.norm2.restype = ctypes.c_double
        self.lib.orth.restype = ctypes.c_size_t
        self.lib.blas_config.restype = self.lib.blas_corename.restype = ctypes.c_char_p

    def open_blas(self, path=None, prefix="scipy_"):
        """(handle, status); handle None if refused"""
        if path is None:
            path = Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)
        handle, status = ctypes.c_void_p(), Status()
        self.lib.blas_open(ctypes.byref(handle), os.fsencode(path), prefix.encode(), ctypes.byref(status))
        return (handle if handle.value else None), status

    def pointer(self, array):
        assert array.flags.c_contiguous
        return array.ctypes.data_as(ctypes.c_void_p)

    def orth(self, blas, Q, n, scale=0.0):
        """orth.h on the rows n.. of Q, in place -> (rank, coef (m, n + m), lengths (m,))"""
        m, length = len(Q) - n, Q.shape[1]
        coef = np.full((m, n + m + 1), np.nan)
        work = np.empty(m * (n + m) + 1, self.dtype)
        size = ctypes.c_size_t
        rank = self.lib.orth(
            blas, self.pointer(Q), size(n), size(m), size(length), ctypes.c_double(scale),
            self.pointer(coef), size(n + m + 1), self.pointer(work),
        )  # fmt: skip
        return rank, coef[:, :-1], coef[:, -1]

    def gemm(self, blas, ta, tb, alpha, A, B, beta, C):
        M, N = C.shape
        K = A.shape[0] if ta == "t" else A.shape[1]
        size = ctypes.c_size_t
        self.lib.gemm(
            blas, ctypes.c_char(ta.encode()), ctypes.c_char(tb.encode()), size(M), size(N), size(K), self.real(alpha),
            self.pointer(A), size(max(A.shape[1], 1)), self.pointer(B), size(max(B.shape[1], 1)), self.real(beta),
            self.pointer(C), size(N),
        )  # fmt: skip
