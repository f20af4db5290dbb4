"""Scales found by their KL divergence, against the divergence itself, SciPy's root finder and made-up divergences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import torch, transformers
from tiny import tiny

import powersteer as ps
from powersteer.evaluate.calibration import _search
from powersteer.model.model import Model

PROMPTS = ["ab", "hello (", "what? 12"]


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def vectors(model):
    return [*ps.random_vectors(model, 0, k=2), -3.0 * ps.random_vectors(model, 1, site="resid_post", seed=4)[0]]


@pytest.mark.parametrize("how", [{}, {"continuation": 4}, {"positions": -1}, {"positions": [0, -1], "continuation": 3},
                                 {"positions": "generated", "continuation": 3}, {"kl": 1e-3}, {"kl": 0.5}])  # fmt: skip
def test_the_divergence_is_the_budget(how, model, vectors):
    budget, new = how.get("kl", 0.1), how.get("continuation", 0)
    found = ps.evaluate.calibrate(model, PROMPTS, vectors, **{"kl": budget, **how})
    where = {"positions": how.get("positions"), "continuation": new}
    for given_, v, kl in zip(vectors, found, ps.evaluate.kl(model, PROMPTS, found, **where), strict=True):
        assert abs(float(kl) - budget) <= 0.01 * budget and v.calibration.kl == pytest.approx(float(kl), rel=1e-12)
        assert math.copysign(1, v.scale) == math.copysign(1, given_.scale) and np.array_equal(v.direction, given_.direction)
        assert dataclasses.replace(v, scale=given_.scale, calibration=None) == given_
        assert v.calibration[1:4] == (budget, 3, new) and v.calibration.forward % 3 == 0
        assert v.calibration.forward <= 3 * 25


def test_the_divergence_is_pytorchs(loaded, kept, rng):
    """KL of torch between next-token distributions of the same weights in transformers, hooked by the vector."""
    import hf_models

    model = loaded("llama")
    some = [rng.integers(0, model.n_vocab, n).tolist() for n in (5, 7)]
    v = ps.random_vectors(model, 1, seed=2)[0].calibrated(model, some, kl=0.05, positions=-1)

    def ask():
        total = 0.0
        with hf_models.exact("llama") as hf:
            for t in some:
                p, q = (torch.log_softmax(torch.tensor(hf_models.run(hf, t, steer)[0][-1]), -1)
                        for steer in ([], [(1, "mlp_out", v.vector, [len(t) - 1])]))  # fmt: skip
                total += float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")) / len(some)
        return total

    total = kept(ask)
    assert total == pytest.approx(v.calibration.kl, rel=1e-9) and abs(total - 0.05) <= 0.0005


def test_the_scale_is_scipys(model, vectors):
    """Where the divergence grows with the scale, there is one scale."""
    v = vectors[0].calibrated(model, PROMPTS, kl=1e-4)

    def excess(scale):
        return float(ps.evaluate.kl(model, PROMPTS, dataclasses.replace(v, scale=scale))) - v.calibration.kl

    assert scipy.optimize.brentq(excess, 1e-6, 2 * v.scale, xtol=1e-14) == pytest.approx(v.scale, rel=1e-6)
    assert vectors[0].calibrated(model, PROMPTS, kl=4e-4).scale == pytest.approx(2 * v.scale, rel=0.03)  # as its square


def test_a_vector_alone_and_with_others(model, vectors):
    """The same bits; a view is its own plain model; the size of a vector does not matter, the sign of 0 is +."""
    together = ps.evaluate.calibrate(model, PROMPTS, vectors, kl=0.2)
    assert [v.calibrated(model, PROMPTS, kl=0.2) for v in vectors] == together
    assert (1e5 * vectors[0]).calibrated(model, PROMPTS, kl=0.2) == together[0] == (0 * vectors[0]).calibrated(model, PROMPTS, kl=0.2)
    assert ps.evaluate.calibrate(model, PROMPTS, vectors[:1], kl=0.2) == together[:1]
    view = model.steered(vectors[2])
    v = vectors[0].calibrated(view, "ab", kl=0.1)
    assert float(ps.evaluate.kl(view, "ab", v)) == pytest.approx(v.calibration.kl, rel=1e-12)
    assert v.scale != vectors[0].calibrated(model, "ab", kl=0.1).scale


def test_a_negative_sign_is_another_scale(model, vectors):
    there, back = (v.calibrated(model, PROMPTS, kl=0.5) for v in (vectors[0], -vectors[0]))
    assert there.scale > 0 > back.scale and there.scale != -back.scale


def test_passes_are_counted(model, vectors, monkeypatch):
    passes, forward = [], Model._forward

    def counted(self, tokens, *args, **kwargs):
        passes.append(len(tokens))
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Model, "_forward", counted)
    v = vectors[0].calibrated(model, PROMPTS, kl=0.2)
    assert sum(passes) == v.calibration.forward and v.calibration.positions == "all"
    assert vectors[0].calibrated(model, PROMPTS, kl=0.2, positions=[0, -1]).calibration.positions == "[0, -1]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": 0.0}, "calibrate: kl is 0.0"),
        ({"kl": "1"}, "calibrate: kl is '1'"),
        ({"continuation": -1}, "continuation is -1"),
        ({"kl": 1e4}, r"no scale of SteeringVector\(.* reaches a KL of 1e\+04 nats: the largest seen is \d"),
        ({"positions": "generated"}, "the largest seen is 0, up to 128 activation norms"),
        ({"positions": 99}, "no position 99"),
        ({"prompts": []}, "empty"),
        ({"vectors": []}, "list is empty"),
        ({"vectors": [None]}, "a SteeringVector or a list of them is needed"),
        ({"vectors": ps.SteeringVector([0.6, 0.8], 0, "mlp_out")}, "activations of this model have"),
    ],
)
def test_refusals(change, message, model, vectors):
    how = {"prompts": PROMPTS, "vectors": vectors, "kl": 1.0, **change}
    with pytest.raises(ps.InvalidInput, match=message):
        ps.evaluate.calibrate(model, **how)


def test_a_clamp_is_of_another_operation(model, vectors):
    vec = vectors[0].calibrated(model, PROMPTS, kl=0.1)
    assert vec.clamp().scale == vec.scale and vec.clamp().calibration is None and vec.ablate().calibration is None


def test_a_site_whose_activation_is_zero(rng):
    """It has no norm to begin from; its vector is found nevertheless."""
    hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=24, num_attention_heads=4, intermediate_size=32, num_hidden_layers=2, vocab_size=61,
    ))  # fmt: skip
    with torch.no_grad():
        hf.model.layers[0].mlp.down_proj.weight.zero_()
    model = ps.from_transformers(hf, dtype="float64", threads=1)
    v = ps.random_vectors(model, 0)[0].calibrated(model, [[5, 6, 7]], kl=1e-4)
    assert float(ps.evaluate.kl(model, [[5, 6, 7]], v)) == pytest.approx(1e-4, rel=0.01)


# ---- the search by itself


def solve(divergence, budget, unit=1.0, scale=1.0):
    """-> (scale, divergence, evaluations)"""
    search = _search(ps.SteeringVector([0.6, 0.8], 0, "mlp_out", scale), budget, unit)
    trial, n = next(search), 1
    while True:
        try:
            trial, n = search.send(divergence(trial)), n + 1
        except StopIteration:
            return trial, divergence(trial), n


@given(
    size=st.floats(-6, 4), power=st.floats(0.3, 6), budget=st.floats(-6, 2), top=st.floats(0.1, 3), unit=st.floats(-3, 3),
    sign=st.sampled_from([1.0, -1.0]), steps=st.booleans(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_growing_divergence(size, power, budget, top, unit, sign, steps):
    """Up to where it saturates; with a kink, or none."""
    budget, unit, half = 10.0**budget, 10.0**unit, 10.0**size

    def divergence(scale):
        x = (abs(scale) / unit / half) ** power
        return budget * (1 + top) * (x / (1 + x) if not steps else min(x, 0.3 * x + 0.2, 1.0))

    most, reached = divergence(128 * unit), divergence(2.0**-40 * unit)
    if reached < 0.99 * budget and most > 1.01 * budget:
        scale, value, n = solve(divergence, budget, unit, sign)
        assert abs(value - budget) <= 0.01 * budget and scale * sign > 0 and n <= 60
    elif most < 0.98 * budget:
        with pytest.raises(ps.InvalidInput, match="no scale of"):
            solve(divergence, budget, unit, sign)


def test_a_divergence_that_is_zero_at_first_and_one_that_is_quadratic():
    assert solve(lambda s: max(s - 3.0, 0.0), 1.0)[0] == pytest.approx(4, abs=0.011)
    scale, _, n = solve(lambda s: 2 * s**2, 0.5)
    assert scale == pytest.approx(0.5, rel=0.01) and n <= 4
    assert solve(lambda s: 2 * s**2, 1e-8)[2] <= 12


def test_a_divergence_that_jumps_over_the_budget():
    with pytest.raises(ps.InvalidInput, match=r"jumps over 1 nats at the scale -0\.7"):
        solve(lambda s: 0.5 if s > -0.7 else 2.0, 1.0, scale=-2.0)
    with pytest.raises(ps.InvalidInput, match="the smallest seen is 2"):
        solve(lambda s: 2.0, 1.0)
