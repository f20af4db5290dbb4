"""orth.h: block orthogonalisation with a rank policy."""

import ctypes

import numpy as np
import pytest
from c_core import Core
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.long  # it compiles C


@pytest.fixture(scope="module", params=["float32", "float64"])
def core(request, tmp_path_factory):
    c = Core(tmp_path_factory.mktemp("orth"), request.param)
    c.blas, status = c.open_blas()
    assert c.blas, status.message
    return c


def defect(Q):
    Q = Q.astype(np.float64)
    return np.abs(Q @ Q.T - np.eye(len(Q))).max()


def basis(core, n, length, seed):
    Q = np.random.default_rng(seed).standard_normal((n, length)).astype(core.dtype)
    assert core.orth(core.blas, Q, 0)[0] == n
    return Q


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 20), m=st.integers(1, 9), seed=st.integers(0, 2**32), log_scale=st.integers(-12, 12))
def test_rows_become_orthonormal_and_the_coefficients_rebuild_them(core, n, m, seed, log_scale):
    length, eps = 40, np.finfo(core.dtype).eps
    g = np.random.default_rng([seed, 1])
    Y = (g.standard_normal((m, length)) * 10.0**log_scale).astype(core.dtype)
    Q = np.concatenate([basis(core, n, length, seed), Y]) if n else Y.copy()
    rank, coef, lengths = core.orth(core.blas, Q, n)
    assert rank == m
    assert defect(Q) < 20 * eps
    rebuilt = coef @ Q.astype(np.float64)
    scale = np.linalg.norm(Y.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, scale, rtol=1e-6)
    assert np.abs(rebuilt - Y).max() < 20 * eps * scale.max()
    inside = coef[:, n:]
    assert np.array_equal(inside, np.tril(inside)), "a row is made of the basis, the rows before it, and itself"


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-5])
def test_nearly_dependent_rows_are_orthogonal_to_rounding(core, distance):
    """The reason for the second pass: one pass leaves eps / distance."""
    n, length, eps = 15, 200, np.finfo(core.dtype).eps
    g = np.random.default_rng(3)
    Q = basis(core, n, length, 1)
    near = g.standard_normal((2, n)) @ Q + distance * g.standard_normal((2, length))
    Q = np.concatenate([Q, near.astype(core.dtype)])
    rank, _, _ = core.orth(core.blas, Q, n)
    assert rank == 2
    assert defect(Q) < 20 * eps


def test_dependent_and_zero_rows_are_dropped_and_the_rest_closes_up(core):
    n, length = 6, 50
    g = np.random.default_rng(5)
    Q = basis(core, n, length, 2)
    fresh = g.standard_normal((2, length))
    rows = [np.zeros(length), fresh[0], 3 * fresh[0], g.standard_normal(n) @ Q, fresh[1], fresh[0] - 2 * fresh[1]]
    Q = np.concatenate([Q, np.array(rows, dtype=core.dtype)])
    Y = Q[n:].copy()
    rank, coef, _ = core.orth(core.blas, Q, n)
    assert rank == 2
    assert defect(Q[: n + 2]) < 20 * np.finfo(core.dtype).eps
    rebuilt = coef[:, : n + 2] @ Q[: n + 2].astype(np.float64)
    assert np.abs(rebuilt - Y).max() < 100 * np.finfo(core.dtype).eps, "what was dropped is no more than rounding"


def test_scale_says_what_counts_as_zero(core):
    eps = np.finfo(core.dtype).eps
    row = (np.eye(1, 8) * eps).astype(core.dtype)
    assert core.orth(core.blas, row.copy(), 0, scale=0.0)[0] == 1
    assert core.orth(core.blas, row.copy(), 0, scale=1.0)[0] == 0


def test_more_rows_than_dimensions(core):
    Q = np.random.default_rng(0).standard_normal((9, 4)).astype(core.dtype)
    assert core.orth(core.blas, Q, 0)[0] == 4
    assert defect(Q[:4]) < 20 * np.finfo(core.dtype).eps


def test_sizes_at_the_ends_of_the_range(core):
    big = np.finfo(core.dtype).max / 64
    tiny = np.finfo(core.dtype).tiny * 64
    Q = np.array([[big, big, 0, 0], [0, 0, tiny, tiny], [big, -big, 0, 0]], core.dtype)
    rank, _, lengths = core.orth(core.blas, Q, 0)
    assert rank == 3
    assert defect(Q) < 20 * np.finfo(core.dtype).eps
    np.testing.assert_allclose(lengths, np.sqrt(2) * np.array([big, tiny, big], np.float64), rtol=1e-6)


def test_norm_of_what_is_not_finite(core):
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones(19, core.dtype)
        x[11] = bad
        assert not np.isfinite(core.lib.norm2(ctypes.c_size_t(19), core.pointer(x)))
    assert core.lib.norm2(ctypes.c_size_t(0), core.pointer(x)) == 0
