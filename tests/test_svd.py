"""svd: what it computes. How it is called and refuses is in test_svd_call.py."""

import warnings

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from spectra import PUBLISHED, Counted, Diagonal, certificate, defect, planted, published, with_copies

import powersteer as ps
from powersteer._core import _core32, _core64
from powersteer.linalg.svd import SVDResult

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def solve(A, k, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ps.svd(A, k, **options)


def check_factors(r, A, dtype):
    """What every result promises, whatever the method."""
    m, d = A.shape
    k = len(r.S)
    assert r.U.shape == (m, k) and r.Vh.shape == (k, d)
    assert r.U.dtype == r.S.dtype == r.Vh.dtype == dtype
    assert (np.diff(r.S) <= 0).all() and (r.S >= 0).all()
    assert max(defect(r.U.T), defect(r.Vh)) < 100 * EPS[dtype]
    exact = certificate(A, r.U, r.S, r.Vh)
    np.testing.assert_allclose(r.certificate, exact, rtol=1e-3, atol=100 * EPS[dtype])
    np.testing.assert_array_equal(r.residuals, r.certificate.max(axis=1))


# ---- against LAPACK and planted values ----


@both
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (50, 50), (1, 1), (1, 9), (9, 1), (7, 7)])
@pytest.mark.parametrize("method", ["krylov", "dense"])
def test_agrees_with_lapack(shape, dtype, method):
    A = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    tol = 1e-9 if dtype == np.float64 else 3e-5
    for k in {1, min(5, *shape), min(shape)}:
        r = solve(A, k, method=method, tol=tol)
        check_factors(r, A, dtype)
        assert r.converged
        U, S, Vh = np.linalg.svd(A.astype(np.float64), full_matrices=False)
        np.testing.assert_allclose(r.S, S[:k], atol=10 * tol * S[0])
        gap = np.abs(np.diff(S)).min() / S[0] if min(shape) > 1 else 1
        if tol < gap / 100:
            np.testing.assert_allclose(np.abs(np.sum(r.Vh * Vh[:k], axis=1)), 1, atol=1e-4)
            np.testing.assert_allclose(np.abs(np.sum(r.U * U[:, :k], axis=0)), 1, atol=1e-4)


def test_sigma_to_1e_10_in_float64():
    A = planted(200, 150, 0.8 ** np.arange(150))
    S = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(solve(A, 12, tol=1e-6).S, S[:12], rtol=0, atol=1e-10)


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 30), d=st.integers(1, 30), block=st.integers(1, 5), seed=st.integers(0, 10**6), data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64]), log_scale=st.integers(-15, 15), zeros=st.booleans(),
)  # fmt: skip
def test_small_integer_spectra(m, d, block, seed, data, dtype, log_scale, zeros):
    """Few distinct values: every run meets invariant subspaces, multiplicities beyond the block and rank deficiency."""
    n = min(m, d)
    sigma = np.sort(np.random.default_rng(seed).integers(0 if zeros else 1, 4, n))[::-1] * 10.0**log_scale
    k = data.draw(st.integers(1, n), "k")
    A = planted(m, d, sigma, seed, dtype)
    tol = 1e-9 if dtype == np.float64 else 1e-4
    op = Counted(A)
    r = solve(op, k, tol=tol, block=block, seed=seed)
    if sigma[0]:
        check_factors(r, A, dtype)
    assert r.applications == op.applications
    np.testing.assert_allclose(r.S, sigma[:k], rtol=0, atol=10 * tol * max(sigma[0], 1e-300))


@both
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("block", [1, 2, 4])
def test_published_spectra(name, dtype, block):
    """k = 12, d = 2048: certified at 1e-3 within 130 applications, the probe included, and the answer is right."""
    sigma = published(name)
    for seed in range(3):
        op = Diagonal(sigma, dtype)
        r = solve(op, 12, tol=1e-3, block=block, seed=seed)
        assert r.converged and r.stop == "certified"
        assert r.applications == op.applications <= 130
        assert r.certificate_applications == 0
        assert np.abs(r.S - sigma[:12]).max() < 1e-4
        assert r.residuals.max() <= 1e-3
        # v_i is e_i; a vector is known to about residual / gap, and the gaps here are at least 0.01
        angle = np.degrees(np.arccos(np.minimum(np.abs(r.Vh[np.arange(12), np.arange(12)]), 1)))
        assert angle.max() < 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_blocks_need_fewer_applications(name):
    spent = [solve(Diagonal(published(name)), 12, tol=1e-2, block=b).applications for b in (1, 2, 4, 12)]
    assert spent == sorted(spent)
    assert spent[0] <= 80


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_algorithm_has_not_converged(name):
    """132 applications of block power iteration on the same operators: what krylov is measured against."""
    sigma = published(name)
    op = Diagonal(sigma)
    with pytest.warns(ps.ConvergenceWarning, match="iterations"):
        r = ps.svd(op, 12, method="power", iterations=5)
    assert r.applications == 132 and r.certificate_applications == 12
    assert op.applications == 144
    assert not r.converged and r.stop == "fixed"
    assert r.residuals.max() > 1e-2
    assert np.abs(r.S - sigma[:12]).max() > 1e-2
    angle = np.degrees(np.arccos(abs(r.Vh[11, 11])))
    assert angle > 20
    worst = [w for _, w, _ in r.history]
    assert worst == sorted(worst, reverse=True), "it does get better, slowly"
    check_factors(r, np.diag(sigma), np.float64)
    with pytest.warns(ps.ConvergenceWarning):
        longer = ps.svd(Diagonal(sigma), 12, method="power", iterations=20, oversample=4, tol=1e-9)
    assert longer.applications == 41 * 16
    assert longer.residuals.max() < r.residuals.max() / 5


@both
def test_power_converges_where_the_spectrum_decays(dtype):
    A = planted(40, 60, 0.5 ** np.arange(30), dtype=dtype)
    r = solve(A, 5, method="power", iterations=12, oversample=3, tol=1e-4)
    check_factors(r, A, dtype)
    np.testing.assert_allclose(r.S, 0.5 ** np.arange(5), atol=1e-5)
    short = ps.svd(planted(40, 60, [3, 2], dtype=dtype), 4, method="power")  # rank below k
    check_factors(short, planted(40, 60, [3, 2], dtype=dtype), dtype)
    np.testing.assert_allclose(short.S, [3, 2, 0, 0], atol=1e-5)


# ---- multiplicities, clusters, rank ----


# what is easily lost: (singular values, k). A Krylov space of one vector holds one direction of each eigenspace
TAIL = np.linspace(0.95, 0.5, 150)
LOSABLE = {
    "repeated top": (np.r_[np.ones(5), TAIL], 5),
    "repeated, gap 1%": (np.r_[np.ones(5), np.linspace(0.99, 0.5, 150)], 5),
    "repeated below the top": (np.r_[1.3, 1.2, np.ones(4), TAIL], 6),
    "several clusters": (np.r_[np.repeat([1, 0.9, 0.8], 3), np.linspace(0.78, 0.3, 150)], 9),
    "narrow cluster": (np.r_[np.linspace(1, 0.995, 5), TAIL], 5),
    "steps": (np.repeat([1, 0.9, 0.8, 0.7], 20), 24),
    "inside a cluster": (np.r_[np.ones(9), TAIL], 4),
    "graded": (0.7 ** np.arange(80), 9),
    "rank below k": (np.r_[np.repeat([1, 0.5], 3), np.zeros(60)], 8),
}


def lost(sigma, k, r):  # benchmarks/svd_losses.py counts thousands of runs
    return r.converged and np.abs(r.S - np.sort(sigma)[::-1][:k]).max() > r.tol * r.S[0]


@pytest.mark.parametrize("name", LOSABLE)
@pytest.mark.parametrize("dtype, tol", [(np.float32, 1e-2), (np.float32, 1e-3), (np.float64, 1e-3), (np.float64, 1e-6)])
def test_nothing_is_lost(name, dtype, tol):
    sigma, k = LOSABLE[name]
    for seed in range(8):
        r = solve(Diagonal(sigma, dtype), k, tol=tol, seed=seed, block=1 + seed % 3)
        assert r.converged and 0 <= r.missed_probability <= 1e-3
        assert not lost(sigma, k, r), seed


@pytest.mark.long
@pytest.mark.parametrize("shape", [(180, 160), (160, 180)])
def test_nothing_is_lost_of_rectangles(shape):
    sigma, k = LOSABLE["repeated top"]
    for seed in range(5):
        assert not lost(sigma, k, solve(planted(*shape, sigma, seed), k, seed=seed))


@pytest.mark.long
def test_seeds_that_once_lost_a_vector():
    sigma, k = LOSABLE["repeated top"]
    for seed in (20, *range(60)):
        np.testing.assert_allclose(solve(np.diag(sigma), k, seed=seed).S, 1, atol=1e-3)


def test_a_probe_holds_what_it_promises():
    """A value that only the probe can find, just above the limit: the bound is on this worst case."""
    runs, missed = 400, 0
    for seed in range(runs):
        sigma = np.r_[1.0, 1.0, np.linspace(0.9, 0.1, 40)]
        r = _core64.svd_krylov(Diagonal(sigma), (42, 42), 1, 1, 1e-1, 500, seed, 42, None)
        assert r["stop"] == "certified" and r["missed_probability"] <= 1e-3
        missed += abs(r["S"][0] - 1) > 0.1
    assert missed <= 2


@pytest.mark.parametrize("left", [1, 3, 7])
def test_a_probe_that_does_not_end_is_not_converged(left):
    sigma, k = LOSABLE["repeated top"]
    whole = solve(Diagonal(sigma), k)
    op = Diagonal(sigma)
    with pytest.warns(ps.ConvergenceWarning, match="max_applications"):
        r = ps.svd(op, k, max_applications=whole.applications - left)
    assert op.applications == r.applications <= whole.applications - left
    assert not r.converged and r.stop == "max_applications" and r.missed_probability == 1
    assert "NOT CONVERGED (max_applications)" in str(r)


def test_a_small_basis_restarts_the_probe():
    sigma, k = LOSABLE["repeated, gap 1%"]
    for seed in range(5):
        r = _core64.svd_krylov(Diagonal(sigma), (155, 155), k, 1, 1e-3, 5000, seed, 40, None)
        assert r["stop"] == "certified" and r["missed_probability"] < 1e-3
        np.testing.assert_allclose(r["S"], 1, atol=1e-3)


def test_many_probes_do_not_fill_the_pool():
    """Each of 40 copies beyond the first takes a probe, and a probe a place of the pool."""
    r = solve(Diagonal(np.r_[np.ones(40), TAIL]), 40, tol=1e-6, max_applications=10000)
    np.testing.assert_allclose(r.S, 1, atol=1e-6)
    assert r.converged


def test_the_bound_is_reported():
    sigma, k = LOSABLE["repeated top"]
    r = solve(Diagonal(sigma), k)
    assert 9e-4 < r.missed_probability <= 1e-3
    assert "a larger value is missed with probability at most 0.001" in str(r)
    for exact in (solve(np.diag(sigma[:20]), 20), solve(np.diag(sigma), k, method="dense")):
        assert exact.missed_probability == 0 and "missed" not in repr(exact)


@both
@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_power_is_converged_only_if_nothing_is_missed(dtype, shape):
    A = planted(*shape, np.r_[np.ones(3), 0.02 * 0.9 ** np.arange(30)], dtype=dtype)
    r = solve(A, 3, method="power")
    assert r.converged and r.missed_probability <= 1e-3
    assert r.applications == 33 and r.certificate_applications > 3
    for wanted in (np.linspace(-1, 1, 30), np.linspace(-1, 1, 24)):
        B = np.vander(wanted).astype(dtype)
        S = np.linalg.svd(B.astype(np.float64), compute_uv=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ps.ConvergenceWarning)
            for seed in range(10):
                r = ps.svd(B, 12, method="power", seed=seed)
                assert r.applications == 132
                assert not r.converged or np.abs(r.S - S[:12]).max() <= r.tol * S[0]


def test_power_that_missed_a_value_says_so():
    B = np.vander(np.linspace(-1, 1, 30)).astype(np.float32)
    with pytest.warns(ps.ConvergenceWarning, match="not the leading ones.*oversample"):
        r = ps.svd(B, 12, method="power")
    assert r.residuals.max() <= r.tol and not r.converged and r.missed_probability == 1


@both
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("copies", [2, 3, 5])
def test_exact_multiplicities_beyond_the_block_are_found(dtype, block, copies):
    """A Krylov space of one vector holds one direction of each eigenspace; the probe finds the others."""
    sigma = with_copies(published("Qwen3-8B, code", 512), 2, copies)
    for seed in range(4):
        r = solve(Diagonal(sigma, dtype), 12, tol=1e-3, block=block, seed=seed)
        np.testing.assert_allclose(r.S, sigma[:12], atol=1e-4)
        space = r.Vh[2 : 2 + copies, 2 : 2 + copies]  # the copies span e_2 .. e_{copies+1}
        assert np.linalg.svd(space, compute_uv=False).min() > 0.99
        assert any(set(range(2, 2 + copies)) <= set(c) for c in r.clusters)


def test_multiplicity_of_the_identity():
    r = solve(Counted(np.eye(40)), 7, tol=1e-10)
    np.testing.assert_allclose(r.S, 1, atol=1e-12)
    assert r.clusters == [tuple(range(7))] and r.cluster_open


def test_clusters_are_named():
    sigma = [5, 4, 4 - 1e-6, 3, 2, 2, 2, 1, 0.5]
    r = solve(planted(30, 20, sigma), 6, tol=1e-8)
    assert r.clusters == [(4, 5)]  # 4 and 4 - 1e-6 are told apart at this residual
    assert r.cluster_open, "the third 2 is beyond k"
    coarse = solve(planted(30, 20, sigma), 4, tol=1e-4, seed=1)
    limit = 4 * max(coarse.residuals[1:3].max(), 16 * 2.0**-52) * coarse.S[0]
    assert ((1, 2) in coarse.clusters) == (coarse.S[1] - coarse.S[2] <= limit)
    assert not coarse.cluster_open
    assert solve(np.diag([3.0, 2, 1]), 3).clusters == []
    assert solve(planted(9, 9, [3, 2, 2, 1, 1]), 5, method="dense").clusters == [(1, 2), (3, 4)]
    for apart, together in ((40, True), (90, False)):  # 4 * 16 eps is the width where the residual is rounding
        near = solve(np.diag([1, 1 - apart * EPS[np.float64], 0.5]), 3, method="dense")
        assert near.clusters == ([(0, 1)] if together else [])


def test_the_dense_certificate_does_not_trust_lapack(monkeypatch):
    A = np.random.default_rng(0).standard_normal((9, 7))
    U, S, Vh = np.linalg.svd(A / np.abs(A).max(), full_matrices=False)
    U = U + 1e-5 * np.random.default_rng(1).standard_normal(U.shape)
    monkeypatch.setattr(np.linalg, "svd", lambda *args, **options: (U, S, Vh))
    with pytest.warns(ps.ConvergenceWarning):
        r = ps.svd(A, 4, method="dense", tol=1e-9)
    exact = certificate(A, r.U, r.S, r.Vh)
    assert abs(exact[:, 0] / exact[:, 1] - 1).min() > 1e-3, "the two sides differ"
    np.testing.assert_allclose(r.certificate, exact, rtol=1e-6)


@both
def test_rank_below_k(dtype):
    A = planted(80, 50, [3, 2, 1], dtype=dtype)
    r = solve(A, 8, tol=1e-5)
    check_factors(r, A, dtype)
    np.testing.assert_allclose(r.S, [3, 2, 1, 0, 0, 0, 0, 0], atol=1e-5)
    assert r.converged and r.clusters[-1] == (3, 4, 5, 6, 7)


@both
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_zero_operator(dtype, method):
    r = solve(np.zeros((5, 9), dtype), 4, method=method)
    assert (r.S == 0).all() and (r.residuals == 0).all() and r.converged
    assert max(defect(r.U.T), defect(r.Vh)) < 100 * EPS[dtype]
    assert r.clusters == [(0, 1, 2, 3)]


def test_zero_rows_and_columns():
    A = np.zeros((30, 40))
    A[3, 5], A[7, 11] = 2, 1
    r = solve(A, 3, tol=1e-12)
    np.testing.assert_allclose(r.S, [2, 1, 0], atol=1e-14)
    np.testing.assert_allclose([r.Vh[0, 5], r.Vh[1, 11], r.U[3, 0], r.U[7, 1]], 1)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
def test_all_triplets(shape):
    A = np.random.default_rng(4).standard_normal(shape)
    r = solve(A, 25, tol=1e-12)
    np.testing.assert_allclose((r.U * r.S) @ r.Vh, A, atol=1e-12)
    assert r.applications == 50, "the space is spanned: nothing more to ask"
    assert not r.cluster_open


# ---- scale, precision, memory, repeatability ----


@pytest.mark.parametrize("dtype, power", [(np.float32, 15), (np.float64, 20), (np.float64, 150)])
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_scale_changes_nothing_but_sigma(dtype, power, method):
    A = planted(60, 40, 0.5 ** np.arange(20), dtype=dtype)
    reference = solve(A, 4, method=method)
    for factor in (10.0**power, 10.0**-power):
        r = solve(A * dtype(factor), 4, method=method)
        np.testing.assert_allclose(r.S / dtype(factor), reference.S, rtol=1e-3)
        assert r.residuals.max() <= 1e-3


@both
def test_the_precision_floor_ends_the_run(dtype):
    """A tol below rounding is not certified, not waited for, and the vectors are as good as they can be."""
    A = planted(300, 200, published("Qwen3-1.7B, arithmetic", 200), dtype=dtype)
    with pytest.warns(ps.ConvergenceWarning, match="rounding") as record:
        r = ps.svd(A, 6, tol=EPS[dtype] / 100)
    assert ("float64" in str(record[0].message).split("raise tol")[1]) == (dtype == np.float32)
    assert not r.converged and r.stop == "precision"
    assert r.residuals.max() < 50 * EPS[dtype]
    assert r.applications < 250


def test_noise_of_the_operator_ends_the_run():
    """Products good to 1e-4 certify 1e-3 and cannot certify 1e-6."""
    g = np.random.default_rng(0)
    A = planted(200, 100, 0.7 ** np.arange(50))

    class Noisy(Counted):
        def apply(self, V):
            return super().apply(V) * (1 + 1e-4 * g.standard_normal((len(V), 200)))

    assert solve(Noisy(A), 5, tol=1e-3).converged
    with pytest.warns(ps.ConvergenceWarning):
        r = ps.svd(Noisy(A), 5, tol=1e-6)
    assert not r.converged and r.stop == "precision"


def test_a_transpose_that_is_none_is_not_certified():
    A = np.random.default_rng(0).standard_normal((50, 50))

    class Wrong(Counted):
        apply_t = Counted.apply

    with pytest.warns(ps.ConvergenceWarning):
        assert not ps.svd(Wrong(A), 3).converged


@pytest.mark.parametrize("most", [24, 40, 61])
def test_the_budget_is_never_exceeded(most):
    op = Diagonal(published("Qwen3-8B, code"))
    with pytest.warns(ps.ConvergenceWarning, match="max_applications"):
        r = ps.svd(op, 12, tol=1e-6, max_applications=most, block=5)
    assert r.applications == op.applications <= most
    assert not r.converged and r.stop == "max_applications"
    np.testing.assert_allclose(r.certificate, certificate(np.diag(op.sigma), r.U, r.S, r.Vh), atol=1e-12)


def test_a_restart_keeps_what_the_next_vectors_are_chosen_by():
    """Copies beyond the block come from the pool, which a restart must leave in order."""
    A = planted(200, 160, np.repeat(np.arange(1, 41) ** -0.5, 4))
    spent = [_core64.svd_krylov(Counted(A), A.shape, 4, 2, 1e-8, 5000, 0, basis, None)["applications"] for basis in (20, 160)]
    assert spent[0] <= 1.3 * spent[1], spent


@both
@pytest.mark.parametrize("block", [1, 3])
def test_restarts_do_not_change_the_answer(dtype, block):
    A = planted(300, 240, published("Qwen3-1.7B, arithmetic", 240), dtype=dtype)
    core, op = (_core32 if dtype == np.float32 else _core64), Counted(A)
    runs = [core.svd_krylov(op, A.shape, 8, block, 1e-4, 5000, 0, basis, None) for basis in (24, 240)]
    for run in runs:
        assert run["stop"] == "certified"
        U, S, V = run["U"], run["S"], run["V"]
        np.testing.assert_allclose(S, published("Qwen3-1.7B, arithmetic", 240)[:8], atol=1e-5)
        assert max(defect(U), defect(V)) < 200 * EPS[dtype]
        exact = certificate(A, U.T, S, V)
        np.testing.assert_allclose(run["residuals"], exact, rtol=1e-2, atol=100 * EPS[dtype])
    assert runs[0]["applications"] > runs[1]["applications"], "a full basis needs no restart and fewer applications"


@both
@pytest.mark.parametrize("method", ["krylov", "power", "dense"])
def test_same_seed_same_bits(dtype, method):
    A = np.random.default_rng(1).standard_normal((70, 50)).astype(dtype)
    runs = [ps.svd(A, 4, method=method, tol=0.5, seed=s) for s in (5, 5, 6)]
    for name in ("U", "S", "Vh", "residuals"):
        np.testing.assert_array_equal(getattr(runs[0], name), getattr(runs[1], name))
    if method != "dense":
        assert not np.array_equal(runs[0].Vh, runs[2].Vh)


@pytest.mark.parametrize("method", ["krylov", "dense"])
def test_signs_follow_the_stated_rule(method):
    A = planted(40, 30, np.arange(10, 0, -1))
    r, mirrored = (solve(B, 6, method=method, tol=1e-9) for B in (A, -A))
    size = np.abs(r.Vh)
    decides = (size >= 0.99 * size.max(axis=1, keepdims=True)).argmax(axis=1)
    assert (r.Vh[np.arange(6), decides] > 0).all()
    np.testing.assert_allclose(mirrored.Vh, r.Vh, atol=1e-6)
    np.testing.assert_allclose(mirrored.U, -r.U, atol=1e-6)
    for tied in ([[-1.0, 0.999]], [[-0.999, 1.0]]):  # the first of the two decides
        assert solve(np.array(tied), 1, method=method).Vh[0, 0] > 0


def test_agrees_with_scipy():
    A = np.random.default_rng(2).standard_normal((120, 80))
    r = solve(scipy.sparse.linalg.aslinearoperator(A), 6, tol=1e-9)
    _, S, Vh = scipy.sparse.linalg.svds(A, 6, tol=1e-12, rng=np.random.default_rng(0))
    np.testing.assert_allclose(r.S, S[::-1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(r.Vh * Vh[::-1], axis=1)), 1, atol=1e-9)
    assert isinstance(r, SVDResult)
