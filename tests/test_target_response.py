"""Derivatives of many vectors' targets at one prompt: those of a Jacobian for each, from fewer forward passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny

from powersteer._core._core32 import SWEEP_ROWS
from powersteer.evaluate import target_response
from powersteer.evaluate.target_response import jvps

MADE_WITH, PROMPT = np.arange(6, dtype=np.int32), np.array([3, 1, 4, 1, 5, 9], np.int32)


@pytest.fixture(scope="module", params=["sequential", "parallel", "experts"])
def model(request):
    return tiny("float32", n_layers=4, **{
        "sequential": {"window": 3, "softcap": 1.5}, "parallel": {"parallel": True},
        "experts": {"n_experts": 3, "norms": ("norm1", "post2")},
    }[request.param])[0]  # fmt: skip


def made(model, source, target, positions, reduce="stack", k=2):
    """Vectors of a Jacobian of a prompt of the same length."""
    found = model.jacobian(MADE_WITH, source, target, target_positions=positions, reduce=reduce).svd(k=k, method="dense").vectors
    return [replace(v, scale=v.rank + 0.5) for v in found]


def alone(model, v):
    """J @ direction by a Jacobian for one vector, in the model's precision."""
    J = model.jacobian(PROMPT, v.location, v.target, target_positions=list(v.target_positions[0]), reduce=v.reduce)
    return J.apply(v.direction[None].astype(model.dtype))[0]


@pytest.mark.parametrize(("kinds", "passes"), [
    ([((0, "mlp_out"), 2, slice(-2, None)), ((1, "attn_out"), (3, "down_proj"), slice(-2, None)), (2, 3, slice(-2, None))], 1),
    ([((1, "attn_out"), 3, [1, 3]), (0, "next_token", -1), (2, "logits", -1), (0, 3, [1, 3]), (0, 3, -1)], 2),
    ([(1, 3, [1, 3]), (0, "next_token", -1), (2, "logits", -1)], 1),
    ([(1, 3, slice(-2, None), "mean"), (1, (2, "resid_post"), slice(-2, None), "mean"), (2, "next_token", -1)], 2),
    ([(3, "next_token", -1), (0, "logits", -1)], 1),
])  # fmt: skip
def test_one_forward_pass_for_all_sites(model, monkeypatch, kinds, passes):
    vectors = [v for kind in kinds for v in made(model, *kind)]
    vectors.insert(1, replace(made(model, 0, 2, -1)[0], target=None))
    want = [None if v.target is None else alone(model, v) for v in vectors]
    calls, linearise = [], target_response.linearise
    monkeypatch.setattr(target_response, "linearise", lambda *a, **k: calls.append(a[2]) or linearise(*a, **k))
    found = list(jvps(model, PROMPT, vectors))
    assert len(calls) == passes and found.pop(1) is want.pop(1) is None
    for v, row, expected in zip([v for v in vectors if v.target is not None], found, want, strict=True):
        assert row.dtype == np.float64 and np.array_equal(row, expected), v


def test_more_vectors_than_pass_a_layer_at_a_time(model):
    first = made(model, 0, 3, slice(-2, None), k=1)[0]
    rows = np.random.default_rng(0).normal(size=(400, model.d_model))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(rows) * len(PROMPT) > 2 * SWEEP_ROWS
    found = list(jvps(model, PROMPT, [replace(first, direction=row) for row in rows]))
    J = model.jacobian(PROMPT, 0, 3)
    assert np.array_equal(found, J.apply(rows.astype(model.dtype)))


def test_a_prompt_shorter_than_the_positions(model):
    """Rows before its start are left out, for the site's targets only."""
    far, near = made(model, 0, 3, [0, 4], k=1)[0], made(model, 0, "next_token", -1, k=1)[0]
    of_far, of_near = jvps(model, PROMPT[:3], [far, near])
    want = model.jacobian(PROMPT[:3], 0, 3, target_positions=[1]) @ far.direction.astype(model.dtype)
    assert np.array_equal(of_far, want) and of_near.shape == (model.n_vocab,)
    assert list(jvps(model, PROMPT, [])) == []
