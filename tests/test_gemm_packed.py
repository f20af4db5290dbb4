"""Products with a stored weight, with every instruction set that this machine has, against NumPy."""

import ctypes

import numpy as np
import pytest
from c_core import DTYPES, Core
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.long  # it compiles C

TYPES = {"f32": 0, "f64": 1, "f16": 2, "bf16": 3}  # csrc/kernels/weight.h
SCRATCH = 68 * 1024 + 64  # csrc/kernels/gemm_packed.h


class Call(ctypes.Structure):
    _fields_ = (
        ("M", ctypes.c_size_t), ("N", ctypes.c_size_t), ("K", ctypes.c_size_t), ("X", ctypes.c_void_p),
        ("ldx", ctypes.c_size_t), ("type", ctypes.c_int), ("data", ctypes.c_void_p), ("k_stride", ctypes.c_ssize_t),
        ("n_stride", ctypes.c_ssize_t), ("bias", ctypes.c_void_p), ("add", ctypes.c_int), ("Y", ctypes.c_void_p),
        ("ldy", ctypes.c_size_t), ("blocks", ctypes.c_void_p), ("k_is_out", ctypes.c_int), ("out0", ctypes.c_size_t),
        ("in0", ctypes.c_size_t), ("decode", ctypes.c_void_p),
    )  # fmt: skip


@pytest.fixture(scope="module", params=list(DTYPES))
def core(request, tmp_path_factory):
    return Core(tmp_path_factory.mktemp("gemm_packed"), request.param)


def stored(values, kind):
    """(array as stored, its values in float64)"""
    if kind == "bf16":
        bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    array = values.astype({"f32": np.float32, "f64": np.float64, "f16": np.float16}[kind])
    return array, array.astype(np.float64)


def laid_out(array, layout):
    """The (K, N) array with this layout in memory."""
    K, N = array.shape
    if layout == "k":
        return np.ascontiguousarray(array.T).T
    if layout == "n":
        return np.ascontiguousarray(array)
    wide = np.zeros((2 * K + 1, 3 * N + 1), array.dtype)
    if layout == "padded":
        wide[:K, :N] = array
        return wide[:K, :N]
    view = wide[::2, ::3][:K, :N][::-1, ::-1]
    view[...] = array
    return view


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_products(core, data):
    draw = data.draw
    M, N, K = draw(st.integers(0, 60)), draw(st.integers(0, 100)), draw(st.integers(0, 80) | st.integers(240, 530))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    B, exact = stored(rng.standard_normal((K, N)), draw(st.sampled_from(list(TYPES))))
    B = laid_out(B, draw(st.sampled_from(["k", "n", "padded", "odd"])))
    kind = {np.dtype(t): TYPES[n] for n, t in (("f32", np.float32), ("f64", np.float64), ("f16", np.float16), ("bf16", np.uint16))}[B.dtype]
    X = np.full((M, K + draw(st.integers(0, 5))), 7, core.dtype)
    X[:, :K] = rng.standard_normal((M, K))
    bias = rng.standard_normal(N).astype(core.dtype) if draw(st.booleans()) else None
    add = bias is None and draw(st.booleans())
    before = rng.standard_normal((M, N + draw(st.integers(0, 5)))).astype(core.dtype)
    want = X[:, :K].astype(np.float64) @ exact.reshape(K, N) + (before[:, :N] if add else 0 if bias is None else bias)
    bound = np.abs(X[:, :K]).astype(np.float64) @ np.abs(exact.reshape(K, N)) + np.abs(want) + 1
    scratch = np.empty(SCRATCH, core.dtype)
    for instructions in range(core.lib.cpu_best() + 1):
        Y = before.copy()
        call = Call(M, N, K, X.ctypes.data, X.shape[1], kind, B.ctypes.data, B.strides[0] // B.itemsize, B.strides[1] // B.itemsize,
                    None if bias is None else bias.ctypes.data, add, Y.ctypes.data, Y.shape[1])  # fmt: skip
        core.lib.gemm_packed(instructions, ctypes.byref(call), scratch.ctypes.data_as(ctypes.c_void_p))
        assert (np.abs(Y[:, :N] - want) <= 4 * np.finfo(core.dtype).eps * np.sqrt(K + 1) * bound).all()
        assert np.array_equal(Y[:, N:], before[:, N:])  # nothing beyond the columns is written
