"""ps.evaluate: against PyTorch on the same weights, SciPy's intervals, and cases small enough to do by hand."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import zlib

import hf_models
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from oracles import torch
from tiny import ids, tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import batched as rows
from powersteer.evaluate.distributions import Reference, nll

PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6]]


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def vectors(model):
    return [v.relative(0.7) for v in ps.random_vectors(model, 1, k=3, prompts=PROMPTS)]


def hf_logits(hf, tokens, vec=None):
    if vec is None:
        with torch.no_grad():
            return hf(torch.tensor([tokens])).logits[0]
    with vec.hook(hf), torch.no_grad():
        return hf(torch.tensor([tokens])).logits[0]


# ---- intervals


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(counts, level):
    want = scipy.stats.binomtest(*counts).proportion_ci(level, "wilson")
    np.testing.assert_allclose(evaluate.wilson(*counts, level), want, atol=1e-12)
    n = counts[1]
    assert evaluate.wilson(0, n, level)[0] == 0.0 and evaluate.wilson(n, n, level)[1] == 1.0


def test_bootstrap_is_scipys_up_to_its_draws(rng):
    x = rng.exponential(size=40)
    want = scipy.stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    got = evaluate.bootstrap(x, resamples=20_000)
    np.testing.assert_allclose(got, want, atol=0.03 * x.std())
    assert got == evaluate.bootstrap(x, resamples=20_000) != evaluate.bootstrap(x, resamples=20_000, seed=1)
    assert all(map(math.isnan, evaluate.bootstrap([2.0])))


def test_summary_knows_a_share_from_a_mean():
    share, mean = evaluate.summary([1, 0, 1, 1], "share"), evaluate.summary([1, 0, 1, 1], "nats")
    assert (share.interval, mean.interval) == ("wilson", "bootstrap") and share.value == mean.value == 0.75
    assert (share.low, share.high) == evaluate.wilson(3, 4) and share.n == 4 and share.values == (1, 0, 1, 1)
    assert evaluate.summary([0.5, 1.0], "share").interval == "bootstrap"


def test_a_result_is_a_number_with_an_interval():
    share, other = evaluate.summary([1, 0, 1, 1], "share"), evaluate.summary([0.75, 0.75], "nats")
    assert float(share) == share == 0.75 and 0.7 < share < 1 and not share >= 0.8 and sorted([1.0, share, 0.0])[1] is share
    assert share == pytest.approx(0.75) and pytest.approx(share, abs=0.01) == 0.7501 and share != pytest.approx(0.8)
    assert np.mean([share, 0.25]) == 0.5 and f"{share:.0%}" == "75%" and json.dumps([share]) == "[0.75]"
    assert share == other and hash(share) == hash(0.75) and share.values != other.values  # as numbers
    assert math.isnan(evaluate.summary([math.nan], "nats")) and evaluate.summary([0.0], "nats") == 0
    for copied in (pickle.loads(pickle.dumps(share)), copy.deepcopy(share), dataclasses.replace(share)):
        assert dataclasses.asdict(copied) == dataclasses.asdict(share) and copied == share and type(copied) is ps.MetricResult
    assert float(dataclasses.replace(share, value=0.5)) == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        share.value = 1.0
    assert repr(share) == f"MetricResult(0.75 [{share.low:.4g}, {share.high:.4g}] share (n = 4))"
    assert all(text in share._repr_html_() for text in ("<td>0.75</td>", "<td>share</td>", f"{share.low:.4g} to {share.high:.4g}"))


def test_what_would_pass_by_mistake_is_an_error():
    share, of_one = evaluate.summary([1, 0, 1, 1], "share"), evaluate.summary([2.0], "nats")
    for use in (lambda: bool(share), lambda: share or 1, lambda: any([share])):
        with pytest.raises(ps.InvalidInput, match=r"no truth value: compare it .* this one is 0.75 \[0.3006"):
            use()
    assert 0.3007 in share and share.low in share and share.high in share and 0.3 not in share and 0.96 not in share
    with pytest.raises(ps.InvalidInput, match=r"one prompt has no interval that could hold 2.0"):
        assert 2.0 in of_one


def test_the_difference_of_two_results_is_prompt_by_prompt(rng):
    """Against SciPy's paired bootstrap: what two results share between prompts does not widen the interval."""
    common, x, y = 10 * rng.standard_normal(60), rng.standard_normal(60) + 0.5, rng.standard_normal(60)
    a, b = evaluate.summary(common + x, "nats"), evaluate.summary(common + y, "nats")
    difference = a - b
    want = scipy.stats.bootstrap((x - y,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose((difference.low, difference.high), want, atol=0.05)
    assert (
        difference == pytest.approx(a.value - b.value)
        and difference.n == 60
        and difference.unit == "difference of nats"
    )
    assert difference.high - difference.low < 0.5 * (a.high - a.low)
    better = evaluate.summary([1, 1, 1], "share") - evaluate.summary([0, 0, 1], "share")
    assert better.interval == "bootstrap" and better.low >= 0  # not Wilson's: a difference is no proportion


def test_other_differences_are_plain_numbers(model):
    of_two, of_three = evaluate.summary([1.0, 2.0], "nats"), evaluate.summary([1.0, 2.0, 3.0], "nats")
    worse, better = (evaluate.perplexity(model, ["abc", text]) for text in ("what?", "abcabc"))
    for a, b in (
        (of_two, of_three),
        (of_two, evaluate.summary([1, 0], "share")),
        (worse, better),
        (of_two, 1.0),
        (1.0, of_two),
    ):
        assert type(a - b) is float and a - b == float(a) - float(b)
    np.testing.assert_array_equal(of_two - np.arange(3.0), [1.5, 0.5, -0.5])
    with pytest.raises(TypeError, match="unsupported operand"):
        of_two - "1"


# ---- next-token distributions


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_kl_is_pytorchs(name, loaded, kept):
    model = loaded(name)
    vecs = [v.relative(0.8) for v in ps.random_vectors(model, 1, k=2, prompts=PROMPTS)]
    said = [[7, 8, 2], [4]]
    got = evaluate.kl(model, PROMPTS, vecs), evaluate.kl(model, PROMPTS, vecs, continuation=said)

    def nats(hf, v, j):
        logp, logq = (hf_logits(hf, PROMPTS[j] + said[j][:-1], x).log_softmax(-1) for x in (None, v))
        return (logp.exp() * (logp - logq)).sum(-1)[len(PROMPTS[j]) - 1 :].numpy()

    def ask():
        with hf_models.exact(name) as hf:
            return [[nats(hf, v, j) for j in range(len(PROMPTS))] for v in vecs]

    for i, of_vector in enumerate(kept(ask)):
        for j, row in enumerate(of_vector):
            np.testing.assert_allclose(got[0][i].values[j], row[0], rtol=1e-8)
            np.testing.assert_allclose(got[1][i].values[j], row.mean(), rtol=1e-8)


def test_kl_along_the_bases_own_words(model, vectors):
    said = model.generate(PROMPTS, max_new_tokens=5)
    want = evaluate.kl(model, PROMPTS, vectors, continuation=said)
    assert [m.values for m in evaluate.kl(model, PROMPTS, vectors, continuation=5)] == [m.values for m in want]
    assert evaluate.kl(model.steered(vectors[0]), PROMPTS).values == evaluate.kl(model, PROMPTS, vectors[0]).values
    both = evaluate.kl(model, PROMPTS, [[vectors[0], vectors[1]], None])
    view = model.steered(vectors[0]).steered(vectors[1])
    np.testing.assert_allclose(both[0].values, evaluate.kl(view, PROMPTS).values, rtol=1e-9)
    assert both[1].values == (0.0, 0.0) and both[0].unit == "nats"
    with pytest.raises(ps.InvalidInput, match="steered model with its base"):
        evaluate.kl(model, PROMPTS)
    with pytest.raises(ps.InvalidInput, match="one continuation for each of 2"):
        evaluate.kl(model, PROMPTS, vectors, continuation=[[1]])


def test_perplexity_is_pytorchs(loaded, kept):
    model, said = loaded("llama"), [[7, 8, 2], [4]]
    (vec,) = (v.relative(0.8) for v in ps.random_vectors(model, 1, prompts=PROMPTS))
    (steered, whole), after = evaluate.perplexity(model, PROMPTS, [vec, None]), evaluate.perplexity(model, PROMPTS, continuation=said)

    def losses(hf, tokens, vec=None):
        return -hf_logits(hf, tokens, vec).log_softmax(-1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()

    def ask():
        with hf_models.exact("llama") as hf:
            later = [losses(hf, p + c)[len(p) - 1 :] for p, c in zip(PROMPTS, said, strict=True)]
            return [losses(hf, p) for p in PROMPTS], [losses(hf, p, vec) for p in PROMPTS], later

    for got, want in zip((whole, steered, after), kept(ask), strict=True):
        assert got.value == pytest.approx(np.exp(np.concatenate(want).mean()), rel=1e-9)
        np.testing.assert_allclose(got.values, [np.exp(x.mean()) for x in want], rtol=1e-9)
        assert got.low <= got.value <= got.high
    several = [[i, 2 * i, 7, 9 + i] for i in range(6)]
    a, b = (evaluate.perplexity(model, several, seed=seed) for seed in (0, 1))
    assert a.value == b.value and (a.low, a.high) != (b.low, b.high)
    with pytest.raises(ps.InvalidInput, match="one token"):
        evaluate.perplexity(model, [[1]])


# ---- scores


def test_logit_difference_and_choice(model, vectors):
    a, b = ids("y")[0], ids("n")[0]
    z = model.steered(vectors[0])("is it?")[-1].astype(float)
    got = evaluate.accuracy(model, ["is it?"], vectors[0], score=evaluate.LogitDifference("y", b))
    assert got.value == pytest.approx(z[a] - z[b], rel=1e-9) and got.unit == "nats"
    template = "{question} A{a} B{b}:"
    logits = [model(template.format(question="q", a=x, b=y))[-1].astype(float) for x, y in (("1", "2"), ("2", "1"))]
    A, B = ids("A")[0], ids("B")[0]
    want = ((logits[0][A] - logits[0][B]) - (logits[1][A] - logits[1][B])) / 2
    got = evaluate.choice(model, [("q", "1", "2")], template=template, letters=("A", "B"))
    assert got.value == pytest.approx(want, rel=1e-9)
    turned = evaluate.choice(model, [("q", "2", "1")], template=template, letters=("A", "B"))
    assert turned.value == pytest.approx(-want, rel=1e-9)
    with pytest.raises(ps.InvalidInput, match="not one token"):
        evaluate.choice(model, [("q", "1", "2")])
    with pytest.raises(ps.InvalidInput, match="question, first option"):
        evaluate.choice(model, ["q"], letters=("A", "B"))


def test_a_text_is_the_token_it_is_after_other_text(stories):
    """Where a text begins, this tokenizer adds a space."""
    model = ps.load(stories)
    for text in (" the", "s", "ing", "\n"):
        assert evaluate.token_id(model, text) == model.tokens("Once" + text)[-1]


def test_accuracy_scores_what_is_generated(model, vectors):
    prompts = ["one", "two two", "three"]
    texts = [[g.text for g in model.generate(prompts, max_new_tokens=6, steer=v)] for v in (None, vectors[0])]
    letter = next(c for c in texts[0][0] if c not in texts[1][2])
    got = evaluate.accuracy(model, prompts, [None, vectors[0]], score=evaluate.contains(f"[{letter}]"), max_new_tokens=6)
    assert [m.values for m in got] == [tuple(float(letter in t) for t in some) for some in texts]
    seen = []
    evaluate.accuracy(model, prompts, vectors[0], score=lambda p, t: seen.append((p, t)) or 1, max_new_tokens=6)
    assert seen == list(zip(prompts, texts[1], strict=True))
    assert evaluate.accuracy(model, prompts, score=lambda p, t: len(t), max_new_tokens=6).interval == "bootstrap"


@pytest.mark.parametrize("positions", ["prompt", "generated", -1, slice(1, 3)])
def test_scores_of_vectors_at_positions_are_those_of_views(model, positions):
    """Of a view that is steered there. What is read at a prompt's end does not depend on generated positions."""
    vector, said = ps.random_vectors(model, 0, prompts=PROMPTS)[0].relative(3), [[7, 8, 2], [4]]

    def checksum(prompt, text):
        return zlib.crc32(text.encode())

    calls = {
        "accuracy": lambda m, *v, **at: evaluate.accuracy(m, ["one", "two two"], *v, score=checksum, max_new_tokens=4, **at),
        "perplexity": lambda m, *v, **at: evaluate.perplexity(m, PROMPTS, *v, continuation=said, **at),
        "choice": lambda m, *v, **at: evaluate.choice(m, WORDS, *v, letters=AB, template="{question} A{a} B{b}:", **at),
    }
    for name, call in calls.items():
        at, everywhere = call(model, vector, positions=positions), call(model, vector)
        np.testing.assert_allclose(at.values, call(model.steered(vector, positions)).values, rtol=1e-9, err_msg=name)
        assert (at.values == everywhere.values) == (name == "choice" and positions == "prompt"), name
    assert (calls["choice"](model, vector, positions=positions) == calls["choice"](model)) == (positions == "generated")


@pytest.mark.parametrize("value", [None, "yes", float("nan"), math.inf, [1]])
def test_scores_that_are_no_numbers(model, value):
    with pytest.raises(ps.InvalidInput, match="finite number"):
        evaluate.accuracy(model, ["a"], score=lambda p, t: value, max_new_tokens=1)


def test_a_score_must_be_called(model):
    for score in ("yes", None):
        with pytest.raises(ps.InvalidInput, match="a score is a function"):
            evaluate.accuracy(model, ["a"], score=score)


def test_contains_refuses_what_is_no_pattern():
    with pytest.raises(ps.InvalidInput, match="regular expression"):
        evaluate.contains("(")
    assert evaluate.contains("^ab")("", "abc") and not evaluate.contains("^b")("", "abc")


# ---- degeneration, vectors


def test_repetition_by_hand():
    assert evaluate.repetition([1, 2, 1, 2, 1], 2).value == 0.5  # 12 21 12 21
    assert evaluate.repetition([1, 2, 3], 4).value == 0.0
    found = evaluate.repetition("a b a b a", 2)
    assert found.value == 0.5 and found.compression == len(b"a b a b a") / len(zlib.compress(b"a b a b a", 9))
    assert evaluate.repetition("na " * 200).compression > 2.4 > evaluate.repetition("the quick brown fox").compression
    assert math.isnan(evaluate.repetition([1, 2]).compression)


def test_presence_ratio_is_the_mean_over_random_vectors(model, vectors, rng):
    got = evaluate.presence_ratio(model, PROMPTS, vectors)
    u = rng.standard_normal((20_000, model.d_model))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for j, p in enumerate(PROMPTS):
        a = model.activations(p, vectors[0].location)
        for v, m in zip(vectors, got, strict=True):
            want = np.abs(a @ v.direction).mean() / np.abs(a @ u.T).mean()
            assert m.values[j] == pytest.approx(want, rel=0.02)
    last = evaluate.presence_ratio(model, PROMPTS[:1], vectors[0], read_positions=-1)
    assert last.value != got[0].values[0] and last.n == 1


@pytest.mark.parametrize("target", [1, "next_token", "logits"])
def test_linearity_is_the_first_order_remainder(model, target):
    """To second order |dF - J d| / |dF| falls in proportion to |d|; and by hand at one scale."""
    vec = model.jacobian(PROMPTS, 0, target).svd(1, tol=1e-8).vectors[0]
    small, half = (evaluate.linearity(model, PROMPTS, vec * s).value for s in (1e-3, 5e-4))
    assert 0 < small < 0.02 and half == pytest.approx(small / 2, rel=0.05)
    p, big = PROMPTS[0], vec.relative(0.5)
    J = model.jacobian(p, 0, target)
    if target == 1:
        dF = (model.steered(big).activations(p, (1, "mlp_out")) - model.activations(p, (1, "mlp_out")))[-2:].ravel()
    else:
        dF = (model.steered(big)(p) - model(p))[-1].astype(float)
    if target == "next_token":
        prob = np.exp(model(p)[-1] - np.logaddexp.reduce(model(p)[-1]))
        dF = np.sqrt(prob) * (dF - prob @ dF)
    want = np.linalg.norm(dF - J @ big.vector) / np.linalg.norm(dF)
    assert evaluate.linearity(model, [p], big).value == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("reduce", ["stack", "mean"])
@pytest.mark.parametrize(("positions", "prompt", "read"), [
    ([-3, -1], PROMPTS[0], [-3, -1]),
    ([-3, -1], [5, 1], [-1]),  # as far as the prompt goes
    ([-3], [5, 1], [-1]),
    ([1], PROMPTS[0], [-2, -1]),  # not the same from the end of its prompts
])  # fmt: skip
def test_linearity_at_the_positions_of_the_vector(model, reduce, positions, prompt, read):
    """The derivative by central differences."""
    vec = model.jacobian(PROMPTS, 0, 1, target_positions=positions, reduce=reduce).svd(1).vectors[0].relative(0.5)

    def F(s):
        rows = model.steered(vec * s).activations(prompt, (1, "mlp_out"))[read].astype(float)
        return rows.mean(0) if reduce == "mean" else rows.ravel()

    slope = (F(1e-5) - F(-1e-5)) / 2e-5
    want = np.linalg.norm(F(1) - F(0) - slope) / np.linalg.norm(F(1) - F(0))
    assert evaluate.linearity(model, [prompt], vec).value == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("target", [1, "logits"])
@pytest.mark.parametrize("positions", [0, slice(1, None), "prompt"])
def test_linearity_of_a_vector_at_positions(model, positions, target):
    """The derivative by central differences."""
    vec = model.jacobian(PROMPTS, 0, target).svd(1).vectors[0].relative(0.5)

    def F(s):
        view = model.steered(vec * s, positions)
        rows = view(PROMPTS[0])[-1:] if target == "logits" else view.activations(PROMPTS[0], (1, "mlp_out"))[-2:]
        return rows.astype(float).ravel()

    slope = (F(1e-5) - F(-1e-5)) / 2e-5
    want = np.linalg.norm(F(1) - F(0) - slope) / np.linalg.norm(F(1) - F(0))
    assert evaluate.linearity(model, PROMPTS[:1], vec, positions=positions).value == pytest.approx(want, rel=1e-6)


def test_linearity_of_several_at_once(model):
    made = [J.svd(2).vectors for J in (model.jacobian(PROMPTS, 0, 1, reduce=r) for r in ("stack", "mean"))]
    vecs = [v.relative(0.5) for some in made for v in some] + [model.jacobian(PROMPTS, 1, "logits").svd(1).vectors[0]]
    for together, v in zip(evaluate.linearity(model, PROMPTS, vecs), vecs, strict=True):
        np.testing.assert_allclose(together.values, evaluate.linearity(model, PROMPTS, v).values, rtol=1e-6)


def test_linearity_needs_a_target(model, vectors):
    with pytest.raises(ps.InvalidInput, match="has no target"):
        evaluate.linearity(model, PROMPTS, vectors)


def test_curve(model, vectors):
    v = vectors[0]
    found = evaluate.curve(lambda vs: evaluate.kl(model, PROMPTS, vs), v, [-1.0, 0.0, 0.5])
    assert [s for s, _ in found] == [-1.0, 0.0, 0.5] and found[1][1].value == 0.0
    assert found[2][1].value == pytest.approx(evaluate.kl(model, PROMPTS, v.relative(0.5)).value, rel=1e-12)
    assert found[0][1].value == pytest.approx(evaluate.kl(model, PROMPTS, v.relative(-1.0)).value, rel=1e-12)
    ((_, turned),) = evaluate.curve(lambda vs: evaluate.kl(model, PROMPTS, vs), v * -1, 0.5)
    assert turned.value == pytest.approx(evaluate.kl(model, PROMPTS, v.relative(-0.5)).value, rel=1e-12)
    ((_, length),) = evaluate.curve(lambda vs: evaluate.kl(model, PROMPTS, vs), v, [3.0], relative=False)
    assert length.value == pytest.approx(evaluate.kl(model, PROMPTS, dataclasses.replace(v, scale=3.0)).value, rel=1e-12)
    with pytest.raises(ps.InvalidInput, match="activation norm"):
        evaluate.curve(lambda vs: [], ps.SteeringVector.from_array(v.direction, 1, "mlp_out"), [1.0])


# ---- batches, and what is refused


def test_batches_of_one_say_the_same(model, vectors, monkeypatch):
    """However many rows go through the model together."""

    def everything():
        said = model.generate(PROMPTS, max_new_tokens=4)
        found = [
            *evaluate.kl(model, PROMPTS, vectors, continuation=said),
            *evaluate.perplexity(model, PROMPTS, [None, *vectors]),
            *evaluate.accuracy(model, ["is it?", "q"], vectors, score=evaluate.LogitDifference(5, 6)),
            *evaluate.accuracy(model, ["is it?", "q"], vectors, score=lambda p, t: len(t) + ord(t[0]), max_new_tokens=4),
        ]
        return [m.values for m in found]

    together = everything()
    monkeypatch.setattr(rows, "spans", lambda costs: (slice(i, i + 1) for i in range(len(costs))))
    np.testing.assert_allclose(everything(), together, rtol=1e-9)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100), st.integers(1, 6))
def test_spans_are_as_long_as_they_may_be(costs, budget, most):
    parts = list(rows.spans(costs, budget, most))
    assert [i for part in parts for i in range(len(costs))[part]] == list(range(len(costs)))
    for part in parts:
        inside, following = costs[part], costs[part.stop : part.stop + 1]
        assert len(inside) == 1 or (sum(inside) <= budget and len(inside) <= most)
        assert not following or len(inside) == most or sum(inside + following) > budget


def test_one_prompt_for_a_score_of_logits(model):
    score = evaluate.LogitDifference("y", "n")
    assert evaluate.accuracy(model, "is it?", score=score).values == evaluate.accuracy(model, ["is it?"], score=score).values


def test_old_calls(model, vectors):
    """(model, prompts, score, vectors) for accuracy, and names of arguments."""
    score = evaluate.LogitDifference("y", "n")
    want = evaluate.accuracy(model, ["is it?"], vectors[0], score=score)
    for call in (
        lambda: evaluate.accuracy(model, ["is it?"], score, vectors[0]),
        lambda: evaluate.accuracy(model, ["is it?"], score, vectors=vectors[0]),
    ):
        with pytest.warns(DeprecationWarning, match="score by keyword"):
            assert call().values == want.values
    with pytest.warns(DeprecationWarning, match="score by keyword"):
        assert evaluate.accuracy(model, ["is it?"], lambda p, t: len(t), max_new_tokens=1).n == 1
    with pytest.raises(TypeError):
        evaluate.accuracy(model, ["is it?"], vectors[0])
    with pytest.raises(ps.InvalidInput, match="vectors must be"):
        evaluate.accuracy(model, ["is it?"], score, score=score)
    with pytest.warns(DeprecationWarning, match="'positions' is now called 'read_positions'"):
        last = evaluate.presence_ratio(model, PROMPTS, vectors[0], positions=-1)
    assert last.values == evaluate.presence_ratio(model, PROMPTS, vectors[0], read_positions=-1).values
    with pytest.warns(DeprecationWarning, match="'questions' is now called 'prompts'"):
        evaluate.choice(model, questions=WORDS, letters=AB, template="{question} A{a} B{b}:")


WORDS = [("q", "1", "2")]
AB = ("A", "B")


@pytest.mark.parametrize(("call", "said"), [
    (lambda m, v: evaluate.wilson(3, 2), "3 successes of 2"),
    (lambda m, v: evaluate.wilson(0, 0), "n >= 1"),
    (lambda m, v: evaluate.wilson(1, 2, 95), "level of an interval is 95"),
    (lambda m, v: evaluate.bootstrap([1, 2], 0.0), "level of an interval is 0.0"),
    (lambda m, v: evaluate.bootstrap([1, 2], resamples=0), "resamples is 0"),
    (lambda m, v: evaluate.bootstrap([1, 2], seed=-1), "seed is -1"),
    (lambda m, v: evaluate.bootstrap([]), "at least one number"),
    (lambda m, v: evaluate.summary([[1.0]], "nats"), r"shape \(1, 1\)"),
    (lambda m, v: evaluate.summary(["a"], "nats"), "a list of numbers, not"),
    (lambda m, v: evaluate.kl(m, PROMPTS, []), "an item for every result"),
    (lambda m, v: evaluate.kl(m, PROMPTS, [3]), "cannot steer with 3"),
    (lambda m, v: evaluate.kl(m, PROMPTS, v, continuation=True), "one continuation for each of 2"),
    (lambda m, v: evaluate.kl(m, PROMPTS, v, continuation=-1), "max_new_tokens is -1"),
    (lambda m, v: evaluate.perplexity(m, PROMPTS, continuation=0), "continuation is 0"),
    (lambda m, v: evaluate.choice(m, WORDS, letters=("A", "B", "C")), "two letters"),
    (lambda m, v: evaluate.choice(m, WORDS, letters=AB, template="{x}"), r"cannot fill in '\{x\}'"),
    (lambda m, v: evaluate.choice(m, WORDS, letters=AB, template="{"), "a template contains"),
    (lambda m, v: evaluate.choice(m, []), "list of prompts to score is empty"),
    (lambda m, v: evaluate.contains(None), "no regular expression"),
    (lambda m, v: evaluate.accuracy(m, "a", score=len, max_new_tokens="a"), "max_new_tokens is 'a'"),
    (lambda m, v: evaluate.accuracy(tiny(words=False)[0], PROMPTS, score=len), "cannot score texts"),
    (lambda m, v: evaluate.repetition([1], 0), "repetition: n is 0"),
    (lambda m, v: evaluate.repetition([1], 1.5), "repetition: n is 1.5"),
    (lambda m, v: evaluate.presence_ratio(m, PROMPTS, None), "presence_ratio is about single vectors"),
    (lambda m, v: evaluate.linearity(m, PROMPTS, [[v, v]]), "linearity is about single vectors"),
    (lambda m, v: evaluate.linearity(m, PROMPTS, v * 1, positions="generated"), "no target"),
    (lambda m, v: evaluate.linearity(m, PROMPTS, dataclasses.replace(v, target=(1, "mlp_out")), positions="generated"), "at prompts"),
    (lambda m, v: evaluate.choice(m, WORDS, v, letters=AB, positions=99), "no position 99"),
    (lambda m, v: evaluate.token_id(m, ""), "not one token"),
    (lambda m, v: evaluate.token_id(m, True), "cannot read True"),
    (lambda m, v: evaluate.token_id(m, 258), "no token id 258"),
])  # fmt: skip
def test_refusals(model, vectors, call, said):
    with pytest.raises(ps.InvalidInput, match=said):
        call(model, vectors[0])


@given(st.integers(0, 2**32), st.floats(-5, 2), st.sampled_from([np.float32, np.float64]))
def test_divergences_are_scipys(seed, size, dtype):
    """Of logits far from 0, near ones too, whose divergence is a small difference of large numbers."""
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(3, 40)) * 4 + rng.normal() * 50).astype(dtype)
    other = (z + 10**size * rng.normal(size=z.shape)).astype(dtype)
    logp, logq = (scipy.special.log_softmax(x.astype(np.float64), axis=-1) for x in (z, other))
    want = scipy.special.rel_entr(np.exp(logp), np.exp(logq)).sum(-1)
    reference, tokens = Reference(z), rng.integers(0, 40, 3)
    np.testing.assert_allclose(reference.kl(other), want, rtol=1e-6, atol=1e-13)
    assert (reference.kl(z) == 0).all()
    assert nll(z, tokens) == pytest.approx(-logp[range(3), tokens].sum(), rel=1e-12)
