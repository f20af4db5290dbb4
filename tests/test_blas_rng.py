"""blas.h and rng.h, the two files under everything."""

import ctypes
import os

import numpy as np
import pytest
from c_core import Core, Rng, Status

pytestmark = pytest.mark.long  # it compiles C

DTYPES = ["float32", "float64"]


@pytest.fixture(scope="module", params=DTYPES)
def core(request, tmp_path_factory):
    c = Core(tmp_path_factory.mktemp("blas"), request.param)
    c.blas, status = c.open_blas()
    assert c.blas, status.message
    return c


@pytest.fixture(scope="module", params=DTYPES)
def small_core(request, tmp_path_factory):
    """A library that believes its integers end at 5, so that every product is cut."""
    c = Core(tmp_path_factory.mktemp("small"), request.param, "PS_BLAS_MAX=5")
    c.blas, status = c.open_blas()
    assert c.blas, status.message
    return c


@pytest.mark.parametrize("ta", "nt")
@pytest.mark.parametrize("tb", "nt")
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (7, 11, 13), (16, 1, 6), (3, 4, 12), (2, 3, 0), (0, 3, 2)])
@pytest.mark.parametrize("beta", [0.0, -0.5])
@pytest.mark.parametrize("cut", [False, True])
def test_gemm(core, small_core, ta, tb, shape, beta, cut):
    c = small_core if cut else core
    M, N, K = shape
    g = np.random.default_rng(0)
    A = g.standard_normal((K, M) if ta == "t" else (M, K)).astype(c.dtype)
    B = g.standard_normal((N, K) if tb == "t" else (K, N)).astype(c.dtype)
    C = g.standard_normal((M, N)).astype(c.dtype)
    expected = 2.0 * (A.T if ta == "t" else A) @ (B.T if tb == "t" else B) + beta * C
    if beta == 0:
        C[:] = np.nan  # must not be read
    c.gemm(c.blas, ta, tb, 2.0, A, B, beta, C)
    np.testing.assert_allclose(C, expected, rtol=0, atol=200 * np.finfo(c.dtype).eps)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (1, 1), (0, 3)])
def test_small_svd(core, shape):
    m, n = shape
    r = min(shape)
    A = np.random.default_rng(2).standard_normal(shape)
    U, s, Vt, status = np.empty((m, r)), np.empty(r), np.empty((r, n)), Status()
    sizes = ctypes.c_size_t(m), ctypes.c_size_t(n)
    pointers = [core.pointer(x) for x in (A.copy(), U, s, Vt)]
    assert core.lib.small_svd(core.blas, *sizes, *pointers, ctypes.byref(status)) == 0
    np.testing.assert_allclose(U * s @ Vt, A, atol=1e-14)
    assert (np.diff(s) <= 0).all()


def test_the_library_names_itself(core):
    assert b"OpenBLAS" in core.lib.blas_config(core.blas)
    assert core.lib.blas_corename(core.blas)


def test_refusals_name_the_library(core, tmp_path):
    handle, status = core.open_blas(tmp_path / "absent.so")
    assert handle is None
    assert b"absent.so" in status.message
    handle, status = core.open_blas(prefix="wrong_")
    assert handle is None
    assert b"wrong_cblas_" in status.message
    (tmp_path / "text.so").write_text("no library")
    handle, status = core.open_blas(tmp_path / "text.so")
    assert handle is None
    assert os.fsencode("text.so") in status.message


def test_bits_are_philox(core):
    """Known answers of the authors' Random123 (philox2x64, 10 rounds)."""
    known = {
        (0, 0, 0): 0xCA00A0459843D731,
        (2**64 - 1,) * 3: 0x65B021D60CD8310F,
        (0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3): 0x0A5E742C2997341C,
    }
    for state, expected in known.items():
        g = Rng(*state)
        assert core.lib.rng_bits(ctypes.byref(g)) == expected
        assert g.counter == (state[2] + 1) % 2**64


def normals(core, n, seed, stream=0, counter=0):
    out = np.empty(n, core.dtype)
    g = Rng(seed, stream, counter)
    core.lib.rng_normal(ctypes.byref(g), ctypes.c_size_t(n), core.pointer(out))
    return out, g.counter


def test_normals_are_normal_and_depend_on_all_of_the_state(core):
    x, used = normals(core, 100_000, 7)
    assert used == 50_000
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    assert abs((np.abs(x) < 1).mean() - 0.6827) < 0.01
    assert np.isfinite(x).all()
    assert not np.array_equal(x[:99], normals(core, 99, 8)[0])
    assert not np.array_equal(x[:99], normals(core, 99, 7, stream=1)[0])
    np.testing.assert_array_equal(x[20:40], normals(core, 20, 7, counter=10)[0])
    tail, used = normals(core, 3, 7)
    assert used == 2
    np.testing.assert_array_equal(tail, x[:3])


def test_uniforms_fill_the_unit_interval(core):
    g = Rng(1, 2, 0)
    u = np.array([core.lib.rng_uniform(ctypes.byref(g)) for _ in range(4000)])
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.02
