"""Solvers that advance together."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny
from spectra import Counted

import powersteer as ps
from powersteer._core import CORES
from powersteer.linalg.lockstep import run_together
from powersteer.linalg.svd import krylov_basis, solve

PROMPTS = [[1, 5, 9, 3, 3, 7], [2, 8, 4]]


class Maps:
    """Matrices whose products are counted by call: (kind, indices)."""

    def __init__(self, matrices):
        self.matrices, self.calls = matrices, []
        self.shapes = [A.shape for A in matrices]

    def apply(self, requested):
        self.calls.append(("J", [i for i, _ in requested]))
        return [V @ self.matrices[i].T for i, V in requested]

    def apply_t(self, requested):
        self.calls.append(("J'", [i for i, _ in requested]))
        return [U @ self.matrices[i] for i, U in requested]

    def svd(self, k, tol=1e-6, threads=2, seed=3, max_applications=None):
        dtype = self.matrices[0].dtype
        return run_together(self.shapes, dtype, k, tol, seed, max_applications, self.apply, self.apply_t, threads)


def matrices(shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * 0.9 ** np.arange(shape[1])).astype(dtype) for shape in shapes]


def same_bits(x, y):
    return (
        all(np.array_equal(getattr(x, name), getattr(y, name)) for name in ("U", "S", "Vh", "certificate"))
        and (x.applications, x.missed_probability, x.stop) == (y.applications, y.missed_probability, y.stop)
        and len(x.history) == len(y.history)
        and all(a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in zip(x.history, y.history, strict=True))
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_each_run_alone(dtype):
    """Tall, wide and small maps, a rank below k, a budget that runs out, and any number of threads."""
    maps = Maps([*matrices([(60, 40), (30, 50), (1, 7), (5, 3), (90, 90), (300, 200)], dtype), np.zeros((8, 9), dtype),
                 np.outer(np.ones(12), np.arange(10)).astype(dtype)])  # fmt: skip
    for options in ({}, {"max_applications": 24}, {"tol": 0.3}):
        results = {threads: maps.svd(6, threads=threads, **options) for threads in (1, 2, 5)}
        for i, A in enumerate(maps.matrices):
            given = {"tol": 1e-6, **options}
            alone = solve(Counted(A), min(6, *A.shape), seed=3, block=1, **given)
            assert all(same_bits(results[threads][i], alone) for threads in results), (i, options)


def test_products_of_a_kind_are_made_together():
    """A wide map begins with J', out of step, and joins the others at once."""
    maps = Maps(matrices([(6, 4), (4, 6), (6, 4)]))
    results = maps.svd(2)
    assert maps.calls[:4] == [("J", [0, 2]), ("J'", [0, 1, 2]), ("J", [0, 1, 2]), ("J'", [0, 1, 2])]
    assert sum(len(indices) for _, indices in maps.calls) == sum(r.applications for r in results)


def test_a_tie_goes_to_j():
    maps = Maps(matrices([(4, 6), (6, 4)]))
    maps.svd(2)
    assert maps.calls[0] == ("J", [1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss in kilobytes")
def test_what_a_run_does_not_reach_takes_no_memory():
    code = """
import resource
import numpy as np
from powersteer.linalg.lockstep import run_together
sigma = (0.9 ** np.arange(576)).astype("f4")
apply = lambda requested: [np.pad(V * sigma, [(0, 0), (0, 576)]) for _, V in requested]
apply_t = lambda requested: [U[:, :576] * sigma for _, U in requested]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results = run_together([(1152, 576)] * 40, np.dtype("f4"), 12, 1e-2, 0, None, apply, apply_t, 2)
assert all(r.converged for r in results)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    reserved = 40 * krylov_basis((1152, 576), 12, 1, np.dtype("f4")) * 2 * (1152 + 576) * 4 / 1024
    assert grown < reserved / 2


def test_the_first_failure_is_raised():
    maps = Maps(matrices([(6, 4)] * 3))
    for A in maps.matrices[1:]:
        A[0, 0] = np.nan
    with pytest.raises(ps.NumericalError, match="NaN or infinity"):
        maps.svd(2)
    with pytest.raises(ZeroDivisionError):
        run_together(maps.shapes, np.dtype("f8"), 2, 1e-3, 0, None, lambda requested: 1 / 0, lambda requested: [], 1)


def test_interrupted_between_products():
    maps = Maps(matrices([(200, 200)] * 4))
    apply = maps.apply
    before = threading.active_count()

    def interrupt(requested):
        if len(maps.calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return apply(requested)

    maps.apply = maps.apply_t = interrupt
    with pytest.raises(KeyboardInterrupt):
        maps.svd(2)
    assert len(maps.calls) == 7 and threading.active_count() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_core_checks_for_itself(dtype):
    core = CORES[np.dtype(dtype)]

    def runs(*sizes, tol=1e-3, threads=1):
        return core.KrylovRuns(list(sizes), tol, 0, threads)

    good = (6, 4, 2, 1, 100, 4)
    for sizes, words in [((6, 4, 5, 1, 100, 4), "k = 5"), ((6, 4, 2, 0, 100, 4), "block"), ((6, -4, 2, 1, 100, 4), "cols"),
                         ((6, 4, 2, 1, 3, 4), "max_applications = 3"), ((60, 40, 2, 1, 100, 4), "max_basis"),
                         ([6, 4, 2, 1, 100, 4], "tuple")]:  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=words):
            runs(good, sizes)
    with pytest.raises(ps.InvalidInput, match="tol"):
        runs(good, tol=np.nan)
    with pytest.raises(ps.InvalidInput, match="threads"):
        runs(good, threads=0)
    with pytest.raises(TypeError):
        runs((6, 4))
    two = runs(good, good)
    (_, transposed, X), _ = two.requests()
    assert not transposed and X.shape == (1, 4) and X.dtype == dtype
    Y = np.ones((1, 6), dtype)
    for products, words in [([(2, Y)], "no run 2"), ([(-1, Y)], "no run -1"), ([(0, Y), (0, Y)], "two products"),
                            ([(0, Y[:, 1:])], r"shape \(n, 6\)"), ([(1, np.ones((2, 6), dtype))], "1 vectors, not of 2"),
                            ([(0, Y.astype("f2"))], "a product must be"), ([[0, Y]], "tuple"), ((), "list")]:  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=words):
            two.supply(products)
    with pytest.raises(ps.InvalidInput, match="run 0 is not finished"):
        two.result(0)
    two.supply([])
    assert np.array_equal(two.requests()[0][2], X), "what is refused changes nothing"
    two.supply([(1, Y)])
    assert [t for _, t, _ in two.requests()] == [False, True]
    with pytest.raises(ps.NumericalError, match="apply returned NaN"):
        two.supply([(0, Y * np.nan)])
    for call in (two.requests, lambda: two.supply([(1, Y)]), lambda: two.result(0)):
        with pytest.raises(ps.InvalidInput, match="failed"):
            call()
    assert runs().requests() == []


def test_a_finished_run():
    core = CORES[np.dtype(np.float64)]
    runs = core.KrylovRuns([(1, 1, 1, 1, 100, 1)], 1e-3, 0, 1)
    while requests := runs.requests():
        runs.supply([(i, 2 * X) for i, _, X in requests])
    first, again = runs.result(0), runs.result(0)
    assert first["S"] == [2] and first["stop"] == "certified" and first["history"] is again["history"]
    with pytest.raises(ps.InvalidInput, match="run 0 is finished"):
        runs.supply([(0, np.ones((1, 1)))])
    with pytest.raises(ps.InvalidInput, match="no run 1"):
        runs.result(1)


@pytest.mark.parametrize("positions", [slice(-2, None), "all", [0, -1]])
def test_together_as_alone(positions):
    model, _ = tiny.tiny(n_layers=4)
    targets = [3, 1, "next_token", 2, "logits"]
    J = model.jacobians(PROMPTS, 0, targets, target_positions=positions)
    assert len(J) == 5 and J.nbytes > 0
    results = J.svd(k=5, tol=1e-8)
    again = model.jacobians(PROMPTS, 0, targets, target_positions=positions).svd(k=5, tol=1e-8)
    V = np.eye(model.d_model)[:3]
    for target, base, matrix, fan, result, same in zip(targets, J.bases, J.dense(), J.apply_all(V), results, again, strict=True):
        at = slice(-1, None) if isinstance(target, str) else positions
        alone = model.jacobian(PROMPTS, 0, target, target_positions=at)
        want = alone.svd(k=5, method="dense")
        assert np.array_equal(base, alone.base)
        np.testing.assert_allclose(matrix, alone.dense(), atol=1e-12)
        np.testing.assert_allclose(fan, alone.apply(V), atol=1e-12)
        np.testing.assert_allclose(result.S, want.S, rtol=1e-9)
        assert result.converged and result.residuals.max() <= 1e-8
        assert np.array_equal(result.Vh, same.Vh) and np.array_equal(result.S, same.S)
        assert result.vectors[0].target == alone.target and result.vectors[0].site_norm == alone.source_norm


def test_a_target_that_is_named_twice():
    model, _ = tiny.tiny(n_layers=3)
    J = model.jacobians(PROMPTS, 0, [2, 1, 2])
    first, other, again = J.apply_all(np.eye(model.d_model))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    first, other, again = (r.S for r in J.svd(k=2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(("target", "reduce"), [("logits", "stack"), ("next_token", "stack"), ((2, "down_proj"), "mean")])
def test_several_sources_of_one_target(target, reduce):
    """The transposes of all sources by one sweep, for a shared vector and for each prompt's own."""
    model, _ = tiny.tiny(n_layers=3)
    sources, positions = [1, (0, "attn_out"), (2, "resid_pre"), 1], [0, -1]
    how = {"source_positions": positions, "reduce": reduce}
    J = model.jacobians(PROMPTS, sources, [target], **how)
    assert len(J) == 4 and len(set(J.source_norms)) == 3 and J.source_norm == J.source_norms[0]
    assert str(J).startswith("Jacobians(blocks.1.hook_mlp_out, blocks.0.hook_attn_out, blocks.2.hook_resid_pre -> ")
    U = np.random.default_rng(0).normal(size=(5, J.shapes[0][0]))
    width = U.shape[1] // len(PROMPTS)
    for source, shared, parts in zip(sources, J.apply_t_all(U), J.apply_t_all(U, per_prompt=True), strict=True):
        alone = model.jacobian(PROMPTS, source, target, **how)
        assert np.array_equal(shared, alone.apply_t(U)) and parts.shape == (5, len(PROMPTS), model.d_model)
        np.testing.assert_allclose(parts.sum(1), shared, rtol=1e-12, atol=1e-12)
        for i, prompt in enumerate(PROMPTS):
            one = model.jacobian(prompt, source, target, **how)
            assert np.array_equal(parts[:, i], one.apply_t(U[:, i * width : (i + 1) * width]))
    for result, source in zip(J.svd(k=2, tol=1e-8), sources, strict=True):
        want = model.jacobian(PROMPTS, source, target, **how).svd(k=2, method="dense").S
        np.testing.assert_allclose(result.S, want, rtol=1e-9)


def test_every_source_with_every_target():
    model, _ = tiny.tiny(n_layers=4)
    J = model.jacobians(PROMPTS, [0, 1], [2, 3])
    ends = [(s.source.layer, s.target.layer) for s in J.linearizations]
    assert ends == [(0, 2), (0, 3), (1, 2), (1, 3)]
    for result, (source, target) in zip(J.svd(k=1, tol=1e-8), ends, strict=True):
        np.testing.assert_allclose(result.S, model.jacobian(PROMPTS, source, target).svd(k=1, method="dense").S, rtol=1e-9)
    for name, call in (("source", J.dense), ("source", lambda: J.apply_all(np.ones((1, 12)))),
                       ("target", lambda: J.apply_t_all(np.ones((1, J.shapes[0][0]))))):  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=f"needs Jacobians of one {name}; these have 2"):
            call()


def test_one_target_alone():
    model, _ = tiny.tiny(n_layers=2)
    (result,) = model.jacobians(PROMPTS, 0, [1]).svd(k=3, tol=1e-6)
    np.testing.assert_allclose(result.S, model.jacobian(PROMPTS, 0, 1).svd(k=3, method="dense").S, rtol=1e-9)


def test_refusals():
    model, _ = tiny.tiny(n_layers=3)
    with pytest.raises(ps.InvalidInput, match="targets is empty"):
        model.jacobians(PROMPTS, 0, [])
    with pytest.raises(ps.InvalidInput, match="source is an empty list"):
        model.jacobians(PROMPTS, [], [2])
    with pytest.raises(ps.InvalidInput, match="does not come before"):
        model.jacobians(PROMPTS, 1, [2, 0])
    with pytest.raises(ps.InvalidInput, match="k"):
        model.jacobians(PROMPTS, 0, [1, 2]).svd(k=0)
