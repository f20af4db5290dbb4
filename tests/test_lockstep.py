"""Solvers that advance together."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
import tiny

import powersteer as ps
from powersteer.linalg.lockstep import run_together

PROMPTS = [[1, 5, 9, 3, 3, 7], [2, 8, 4]]


def test_products_of_a_kind_are_made_together():
    """Three solvers, one of which starts out of step and joins the others."""
    calls = []

    def product(kind):
        def make(requested):
            calls.append((kind, [column for column, _ in requested]))
            return [2 * x for _, x in requested]

        return make

    def solve(column):
        x = np.ones((1, 1))
        if column.index == 1:
            x = column.apply_t(x)
        for _ in range(2):
            x = column.apply_t(column.apply(x))
        return x.item()

    assert run_together([(1, 1)] * 3, np.dtype("f8"), solve, product("J"), product("J'")) == [16, 32, 16]
    assert calls[0] == ("J", [0, 2])
    assert calls[1] == ("J'", [0, 1, 2])
    assert calls[2] == ("J", [0, 1, 2])
    assert sum(len(columns) for _, columns in calls) == 13


def test_the_lowest_failure_is_raised_and_no_thread_is_left():
    def solve(column):
        for i in range(10):
            column.apply(np.ones((1, 2)))
            if i == 3 and column.index:
                raise KeyError(column.index)

    before = threading.active_count()
    with pytest.raises(KeyError, match="1"):
        run_together([(1, 1)] * 3, np.dtype("f8"), solve, lambda requested: [x for _, x in requested], lambda requested: [])
    with pytest.raises(ZeroDivisionError):
        run_together([(1, 1)] * 3, np.dtype("f8"), solve, lambda requested: 1 / 0, lambda requested: [])
    assert threading.active_count() == before


def test_interrupted_while_solvers_compute():
    def solve(column):
        column.apply(np.ones((1, 1)))
        time.sleep(0.5)
        column.apply(np.ones((1, 1)))

    before = threading.active_count()
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_together([(1, 1)] * 2, np.dtype("f8"), solve, lambda requested: [x for _, x in requested], lambda requested: [])
    timer.join()
    assert threading.active_count() == before


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


def test_one_target_alone():
    model, _ = tiny.tiny(n_layers=2)
    (result,) = model.jacobians(PROMPTS, 0, [1]).svd(k=3, tol=1e-6)
    np.testing.assert_allclose(result.S, model.jacobian(PROMPTS, 0, 1).svd(k=3, method="dense").S, rtol=1e-9)


def test_refusals():
    model, _ = tiny.tiny(n_layers=3)
    with pytest.raises(ps.InvalidInput, match="targets is empty"):
        model.jacobians(PROMPTS, 0, [])
    with pytest.raises(ps.InvalidInput, match="does not come before"):
        model.jacobians(PROMPTS, 1, [2, 0])
    with pytest.raises(ps.InvalidInput, match="k"):
        model.jacobians(PROMPTS, 0, [1, 2]).svd(k=0)
