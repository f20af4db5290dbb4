"""First-order changes of scores: exact derivatives of what steering does to a score, one gradient for all vectors of a site."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import tables
from tiny import ids, tiny, vector

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import gradients
from powersteer.evaluate.scores import item_tokens
from powersteer.model.cost import spans

Y, N = ids("yn")
PAIR = evaluate.LogitDifference(Y, N)
LONGER_ONE_WAY = evaluate.Choice(lambda q, a, b: f"{q} {a} {'or ' * (a < b)}{b}:", (Y, N))  # prompts of two lengths
QUESTIONS = [("is it?", "1", "2"), ("or", "cd", "b")]
SITES = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")


class Entropy(evaluate.LogitScore):
    """A score that is not linear in the logits."""

    def prompts(self, item):
        return [item]

    def value(self, model, item, logits):
        p = np.exp(logits[0] - logits[0].max())
        p /= p.sum()
        return float(-(p * np.log(p)).sum())

    def gradient(self, model, item, logits):
        p = np.exp(logits[0] - logits[0].max())
        p /= p.sum()
        return [-p * (np.log(p) + self.value(model, item, logits))]


class NoGradient(evaluate.LogitScore):
    prompts, value = Entropy.prompts, Entropy.value


class OtherValue(evaluate.LogitDifference):
    """Inherits the gradient of another value."""

    def value(self, model, item, logits):
        return -super().value(model, item, logits)


class NoPrompts(Entropy):
    def prompts(self, item):
        return [item] * (item == "ab")


class Given(Entropy):
    def __init__(self, gradient):
        self.given = gradient

    def gradient(self, model, item, logits):
        return self.given


def by_steering(model, items, vec, score, positions, h):
    """Central difference of every item's score."""
    up, down = (evaluate.accuracy(model.steered(vec * s, positions), items, score=score).values for s in (h, -h))
    return (np.array(up) - down) / (2 * h)


@pytest.fixture(scope="module", params=["sequential", "parallel", "parallel-shared-norm", "post-norms"])
def model(request):
    return tiny(n_layers=3, **{
        "sequential": {}, "parallel": {"parallel": True}, "parallel-shared-norm": {"parallel": True, "norms": ("norm1",)},
        "post-norms": {"norms": ("norm1", "post1", "norm2", "post2"), "softcap": 1.5},
    }[request.param])[0]  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    return ps.load("demo", dtype="float64")


@pytest.mark.parametrize(("score", "item"), [
    (evaluate.LogitDifference("3", "4"), "Q: 1+2"), (evaluate.LogitDifference(5, 5), "Q: 1+2"), (Entropy(), "Q: 1+2"),
    (evaluate.Choice("{question} {a} or {b}?", ("3", "4")), ("Q: 1+2:", "3", "4")),
])  # fmt: skip
def test_gradient_is_the_slope_of_the_value(demo, rng, score, item):
    logits = [demo(p)[-1] for p in score.prompts(item)]
    gradient = score.gradient(demo, item, logits)
    assert len(gradient) == len(logits)
    for _ in range(3):
        delta, h = [rng.normal(size=demo.n_vocab) for _ in logits], 1e-5
        up, down = (score.value(demo, item, [z + s * d for z, d in zip(logits, delta, strict=True)]) for s in (h, -h))
        slope = sum(float(g @ d) for g, d in zip(gradient, delta, strict=True))
        assert slope == pytest.approx((up - down) / (2 * h), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("positions", [None, -1, 0, slice(1, 3), [0, -2], "prompt"])
@pytest.mark.parametrize(("score", "items"), [(PAIR, ["ab", "is it?"]), (LONGER_ONE_WAY, QUESTIONS), (Entropy(), ["abc"])])
def test_first_order_is_the_slope_of_steering(model, score, items, positions):
    sites = [s for s in SITES if s != "resid_mid" or not model.spec.parallel]
    vectors = [vector(model, seed, 0.5, layer, site) for layer in (0, 2) for seed, site in enumerate(sites)]
    found = evaluate.first_order(model, items, vectors, score=score, positions=positions)
    for v, result in zip(vectors, found, strict=True):
        want = by_steering(model, items, v, score, positions, 1e-5)
        np.testing.assert_allclose(result.values, want, rtol=1e-6, atol=1e-8, err_msg=str(v))


def test_first_order_of_a_trained_model_and_of_a_view(demo):
    items, score = ["Q: 12*3\nA:", "Q: 1+2"], evaluate.LogitDifference("3", "4")
    view = demo.steered(vector(demo, 5, 0.3, 2, "resid_mid"), slice(2, None))
    vectors = [vector(demo, layer, 0.2, layer, site) for layer, site in ((0, "attn_out"), (1, "mlp_out"), (4, "resid_post"))]
    found = [evaluate.first_order(base, items, vectors, score=score) for base in (demo, view)]
    for base, results in zip((demo, view), found, strict=True):
        for v, result in zip(vectors, results, strict=True):
            np.testing.assert_allclose(result.values, by_steering(base, items, v, score, None, 1e-4), rtol=1e-5, atol=1e-9)
    assert found[0][0].values != found[1][0].values


FACTORS = st.floats(-4, 4).filter(lambda a: abs(a) > 1e-3)


@given(table=tables(), seed=st.integers(0, 99), a=FACTORS, site=st.sampled_from(SITES), last=st.booleans())
@settings(max_examples=25, deadline=None)
def test_first_order_is_linear_in_the_vector(table, seed, a, site, last):
    model = tiny(**{k: v for k, v in table.items() if k != "n_vocab"})[0]
    layer = seed % model.n_layers
    site = site if site in model.spec.sites(layer) else model.spec.sites(layer)[1]
    v, w = (vector(model, s, layer=layer, site=site) for s in (seed, seed + 1))
    both = ps.SteeringVector.from_array(a * v.vector + w.vector, layer, site)
    positions = -1 if last else None
    of_both, of_v, of_w, of_a = evaluate.first_order(
        model, [[3, 1, 4], [1, 5]], [both, v, w, a * v], score=PAIR, positions=positions
    )  # fmt: skip
    sizes = np.abs(a * np.array(of_v.values)) + np.abs(of_w.values)
    assert np.all(np.abs(np.array(of_both.values) - a * np.array(of_v.values) - of_w.values) <= 1e-9 * sizes)
    np.testing.assert_allclose(of_a.values, a * np.array(of_v.values), rtol=1e-9)


@given(table=tables(), seed=st.integers(0, 99), site=st.sampled_from(SITES))
@settings(max_examples=25, deadline=None)
def test_first_order_of_any_block(table, seed, site):
    smooth = {"act": "silu", "n_experts": 0}  # a step across a kink has no slope
    model = tiny(**{k: v for k, v in table.items() if k != "n_vocab"} | smooth)[0]
    layer = seed % model.n_layers
    site = site if site in model.spec.sites(layer) else model.spec.sites(layer)[1]
    v, items = vector(model, seed, 1.0, layer, site), [[3, 1, 4, 1], [1, 5]]
    found = evaluate.first_order(model, items, v, score=PAIR)
    coarse, fine = (by_steering(model, items, v, PAIR, None, h) for h in (2e-6, 1e-6))
    error = np.abs(coarse - fine) + 1e-7 * (1 + np.abs(fine))  # of the difference itself
    assert np.all(np.abs(np.array(found.values) - fine) <= 10 * error)


def test_results_have_items_intervals_and_a_unit(model):
    items, v, w = ["ab", "is it?", "cde"], vector(model), vector(model, 1, layer=1)
    one, (again, other) = (evaluate.first_order(model, items, some, score=PAIR, seed=3) for some in (v, [v, w]))
    np.testing.assert_allclose(one.values, again.values, rtol=1e-12)
    assert other.values != again.values and (one.n, one.seed, one.unit) == (3, 3, "nats to first order")
    assert one.value == pytest.approx(np.mean(one.values)) and one.low <= one.value <= one.high
    for result in (one, again, other):
        assert (result.low, result.high) == evaluate.bootstrap(result.values, seed=3)
    alone = evaluate.first_order(model, "is it?", v, score=PAIR)
    assert alone.values == pytest.approx(one.values[1:2], rel=1e-12) and np.isnan(alone.low)
    seen = []
    evaluate.first_order(model, items, [v, w], score=PAIR, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_the_sites_of_all_vectors_share_a_forward_pass(model, monkeypatch):
    calls, linearise = [], gradients.linearise
    monkeypatch.setattr(gradients, "linearise", lambda *a, **k: calls.append(a[2]) or linearise(*a, **k))
    vectors = [vector(model, s, 1.0, layer, "mlp_out") for s, layer in enumerate((0, 2, 0, 1))]
    evaluate.first_order(model, ["ab", "cd"], vectors, score=PAIR)
    assert [[site.layer for site, _ in groups] for groups in calls] == [[0, 2, 1]]


def test_an_item_has_the_same_gradient_in_any_batch(model, monkeypatch):
    """Items of two prompts each, of different lengths, one by one and as many as memory permits."""
    batches, linearise = [], gradients.linearise
    monkeypatch.setattr(gradients, "linearise", lambda *a, **k: batches.append(len(a[1])) or linearise(*a, **k))
    sites = [ps.Site(layer, name) for layer, name in ((2, "mlp_out"), (0, "attn_out"), (1, "down_proj"))]
    items = [("is it?", "1", "2"), ("or", "cd", "b"), ("", "b", "cd"), ("is", "a", "b")]
    together = gradients.score_gradients(model, items, LONGER_ONE_WAY, sites)
    costs = [gradients._item_bytes(model, [len(t) for t in some], sites) for some in item_tokens(model, LONGER_ONE_WAY, items)]
    assert batches == [8]
    for budget, want in ((1, [2] * 4), (sum(costs) - 1, [6, 2])):
        batches.clear()
        done = []
        monkeypatch.setattr(gradients, "spans", lambda costs, budget=budget: spans(costs, budget))
        again = gradients.score_gradients(model, items, LONGER_ONE_WAY, sites, callback=done.append)
        assert batches == want and done == [n // 2 for n in want]
        for site in sites:
            assert np.array_equal(together[site], again[site]) and len(np.unique(together[site][:, 0])) == len(items)


@pytest.mark.parametrize(("change", "said"), [
    ({"score": len}, "the score <built-in function len> has no gradient"),
    ({"score": NoGradient()}, "has no gradient.*define"),
    ({"score": OtherValue(Y, N)}, "OtherValue.*has no gradient"),
    ({"score": Given([np.ones(258)] * 2)}, "1 arrays of 258 finite numbers"),
    ({"score": Given([np.ones(257)])}, "1 arrays of 258 finite numbers"),
    ({"score": Given([np.full(258, np.nan)])}, "finite numbers"),
    ({"score": Given("no")}, "finite numbers"),
    ({"vectors": None}, "first_order is about single vectors"),
    ({"vectors": [[vector(tiny()[0])]]}, "first_order is about single vectors"),
    ({"vectors": ps.SteeringVector.from_array(np.ones(5), 0, "mlp_out")}, "the vector has 5 numbers"),
    ({"prompts": []}, "empty"),
    ({"score": NoPrompts(), "prompts": ["ab", "cd"]}, "no prompts for item 1"),
    ({"positions": "generated"}, "not in a prompt"),
])  # fmt: skip
def test_refusals(change, said):
    model = tiny()[0]
    how = {"prompts": ["ab"], "vectors": vector(model), "score": PAIR, **change}
    with pytest.raises(ps.InvalidInput, match=said):
        evaluate.first_order(model, **how)


def test_a_score_without_a_gradient_says_so():
    with pytest.raises(ps.InvalidInput, match="NoGradient does not define gradient"):
        NoGradient().gradient(tiny()[0], "ab", [])
