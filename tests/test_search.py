"""Search: selected on validation alone, reported on test, and random vectors treated in the same way."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from test_html import Reader
from tiny import ids, tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate.search import random_like

VALIDATION = [f"v{c}" for c in "abcdefgh"]
TEST = [f"t{c}" for c in "abcdefghij"]
SPLIT = {"validation": VALIDATION, "test": TEST}
SCALES = (0.5, 2.0)


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def vectors(model):
    return ps.random_vectors(model, 1, k=4, seed=5, prompts=VALIDATION)


@pytest.fixture(scope="module")
def score():
    return evaluate.LogitDifference(ids("y")[0], ids("n")[0])


def test_the_best_on_validation_by_brute_force(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2, top=2)
    table = {
        (i, sign, s): evaluate.accuracy(model, VALIDATION, v.relative(sign * s), score=score).value
        for i, v in enumerate(vectors) for sign in (1, -1) for s in SCALES
    }  # fmt: skip
    best = max(table, key=table.get)
    c = found.chosen[0].candidate
    assert (c.index, c.sign, c.scale) == best and c.score == pytest.approx(table[best], rel=1e-9) and c.n == len(VALIDATION)
    assert [x.score for x in found.ranked] == sorted((x.score for x in found.ranked), reverse=True)
    assert len(found.ranked) == len(table) and found.chosen[1].candidate.index != c.index
    want = evaluate.accuracy(model, TEST, found.vector, score=score)
    assert found.test.value == pytest.approx(want.value, rel=1e-9) and found.test.n == len(TEST)
    base = evaluate.accuracy(model, TEST, score=score).value
    assert found.gain.value == pytest.approx(want.value - base, rel=1e-6)
    assert found.unsteered[1].value == pytest.approx(base, rel=1e-9)
    passing = {i for (i, _, _), x in table.items() if x >= found.passing}
    assert found.share.value == len(passing) / len(vectors)


def test_random_draws_choose_on_validation_too(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2, seed=3)
    assert len(found.random) == 2
    for draw, r in enumerate(found.random):
        others = random_like(model, vectors, 3, draw)
        alone = ps.search(model, others, score, **SPLIT, scales=SCALES, n_random=0)
        assert np.array_equal(r.candidate.vector.vector, alone.vector.vector)
        assert r.test.value == pytest.approx(alone.test.value, rel=1e-9)
        assert all(o.location == v.location and o.site_norm == v.site_norm for o, v in zip(others, vectors, strict=True))
    low, high = found.random_range
    assert found.beats_random == (found.test.low > high) and low <= high
    assert found.random_share.n == 2 * len(vectors)
    none = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0)
    assert none.random_share is None and math.isnan(none.random_range[0]) and "share" in str(none)


def test_test_prompts_are_looked_at_last(model, vectors):
    seen = []

    def score(prompt, text):
        seen.append(prompt)
        return float(prompt[0] == "v" and len(text) % 2)

    ps.search(model, vectors[:2], score, validation=VALIDATION[:3], test=TEST[:3], scales=(1.0,), n_random=1, max_new_tokens=3)
    first = next(i for i, p in enumerate(seen) if p[0] == "t")
    assert all(p[0] == "t" for p in seen[first:]) and len(seen) - first == 3 * 3


class Turned(evaluate.LogitDifference):
    """What is good on validation prompts is bad on test prompts."""

    def value(self, model, item, logits):
        return super().value(model, item, logits) * (1 if item[0] == "v" else -1)


def test_test_scores_choose_nothing(model, vectors, score):
    straight, turned = (
        ps.search(model, vectors, s, **SPLIT, scales=SCALES, n_random=0) for s in (score, Turned(score.a, score.b))
    )
    assert np.array_equal(straight.vector.vector, turned.vector.vector)
    np.testing.assert_allclose(turned.test.values, -np.array(straight.test.values), rtol=1e-9)
    rest = [evaluate.accuracy(model, TEST, c.vector, score=Turned(score.a, score.b)).value for c in turned.ranked]
    assert turned.test.value < max(rest)


def test_a_vector_passes_at_the_score_itself(model, vectors):
    def share(passing):
        return ps.search(
            model, vectors, lambda p, t: 0.25, **SPLIT, n_random=1, passing=passing, max_new_tokens=1
        )  # fmt: skip

    at, above = share(0.25), share(0.26)
    assert (at.share.value, at.random_share.value) == (1, 1) and (at.share.low, at.share.high) == evaluate.wilson(4, 4)
    assert (above.share.value, above.random_share.value, above.passing) == (0, 0, 0.26)


def test_an_item_of_several_prompts_shares_none(model, vectors):
    """A question with its options in the other order is not a new one."""
    how = evaluate.Choice("{question}{a}{b}", ("A", "B"))
    with pytest.raises(ps.InvalidInput, match="test prompt 1 is also validation prompt 0"):
        ps.search(model, vectors, how, validation=[("q", "1", "2"), ("r", "1", "2")], test=[("s", "1", "2"), ("q", "2", "1")])
    with pytest.raises(ps.InvalidInput, match="test prompt 0 is also validation prompt 0"):  # the same, as token ids
        ps.search(model, vectors, evaluate.LogitDifference(1, 2), validation=["ab"], test=[model.tokens("ab")])


def test_beating_random_takes_the_whole_interval(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=1)
    (r,) = found.random
    for low, beats in ((r.test.value + 1e-6, True), (r.test.value - 1e-6, False)):
        test = dataclasses.replace(found.test, low=low, value=r.test.value + 1)
        chosen = (dataclasses.replace(found.chosen[0], test=test),)
        assert dataclasses.replace(found, chosen=chosen).beats_random is beats


def test_a_planted_vector_is_found(model, rng):
    """The unembedding of a letter at the last layer makes the model say it; random vectors do not."""
    letter = ids("z")[0]
    last = (model.n_layers - 1, "resid_post")
    planted = model.jacobian("ab", last, "logits").dense()[letter]
    others = ps.random_vectors(model, last, k=5, prompts=VALIDATION)
    vec = dataclasses.replace(others[0], direction=planted / np.linalg.norm(planted), method="array", seed=None)
    found = ps.search(
        model, [*others[1:], vec], lambda p, t: t[:1] == "z", **SPLIT, scales=(1.0, 8.0), n_random=3, max_new_tokens=1
    )
    assert found.chosen[0].candidate.index == 4 and found.chosen[0].candidate.sign == 1
    assert found.test.value == 1.0 and found.test.interval == "wilson" and found.beats_random
    assert found.share.value == 0.2 and found.random_share.value < 0.2


def test_ties_go_to_the_smaller_scale_then_the_earlier_vector(model, vectors):
    found = ps.search(model, vectors, lambda p, t: 1.0, **SPLIT, scales=(2.0, 0.5), n_random=0, max_new_tokens=1)
    assert [(c.scale, c.index, c.sign) for c in found.ranked[:3]] == [(0.5, 0, 1), (0.5, 0, -1), (0.5, 1, 1)]


def test_halving_keeps_the_best(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=1, halving=2)
    assert found.rounds == ((16, 4), (8, 8)) and [c.n for c in found.ranked] == [8] * 8 + [4] * 8
    order = [VALIDATION[i] for i in np.random.default_rng(0).permutation(8)][:4]
    first = {c: evaluate.accuracy(model, order, c.vector, score=score).value for c in found.ranked}
    kept = sorted(first.values(), reverse=True)[:8]
    assert sorted(x for c, x in first.items() if c.n == 8) == sorted(kept)


def test_screen_ranks_first(model, vectors):
    """A score of texts is only asked for the candidates that the cheap one puts first."""
    screen, asked = evaluate.LogitDifference(ids("y")[0], ids("n")[0]), []
    cheap = ps.search(model, vectors, screen, **SPLIT, scales=SCALES, n_random=0)

    def score(prompt, text):
        asked.append(prompt)
        return len(text)

    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0, max_new_tokens=2, screen=screen, screened=3)
    kept = {(c.index, c.sign, c.scale) for c in found.ranked[:3]}
    assert kept == {(c.index, c.sign, c.scale) for c in cheap.ranked[:3]} and found.rounds == ((3, 8),)
    assert sum(p[0] == "v" for p in asked) == 3 * 8 + 8 and len(found.ranked) == 16
    assert all(math.isnan(c.score) for c in found.ranked[3:])


class Counted(evaluate.LogitDifference):
    """Notes every item that is scored."""

    def value(self, model, item, logits):
        COUNTED.append(item)
        return super().value(model, item, logits)

    def gradient(self, model, item, logits):
        return super().gradient(model, item, logits)


COUNTED: list[str] = []


def key(c):
    return c.index, c.sign, c.scale


def rank_correlation(candidates, base):
    changes = np.array([c.score for c in candidates]) - base
    return np.corrcoef(scipy.stats.rankdata([c.predicted for c in candidates]), scipy.stats.rankdata(changes))[0, 1]


def test_a_screen_of_all_candidates_changes_nothing(model, vectors, score):
    plain, found = (ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2, screen=n) for n in (None, 16))
    assert [(*key(c), c.score, c.n) for c in found.ranked] == [(*key(c), c.score, c.n) for c in plain.ranked]
    assert found.test.values == plain.test.values and found.rounds == plain.rounds and found.share == plain.share
    assert [r.test.values for r in found.random] == [r.test.values for r in plain.random] and found.gain == plain.gain
    assert plain.screen_correlation is None and all(math.isnan(c.predicted) for c in plain.ranked)
    for c in found.ranked:
        want = evaluate.first_order(model, VALIDATION, vectors[c.index].relative(c.sign * c.scale), score=score)
        assert c.predicted == pytest.approx(want.value, rel=1e-9)
    rho, n = found.screen_correlation
    assert n == 16 and rho == pytest.approx(rank_correlation(found.ranked, found.unsteered[0]), rel=1e-9) and rho > 0.5
    assert ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0, screen=99).screen_correlation == (rho, n)


def test_a_screen_measures_the_candidates_of_the_greatest_predicted_change(model, vectors, score):
    vectors = [*vectors, *ps.random_vectors(model, (0, "resid_post"), k=2, seed=6, prompts=VALIDATION)]
    COUNTED.clear()
    counted = Counted(score.a, score.b)
    progress = []
    found = ps.search(model, vectors, counted, **SPLIT, scales=SCALES, n_random=2, screen=3,
                      progress=lambda done, total: progress.append((done, total)))  # fmt: skip
    assert sum(item[0] == "v" for item in COUNTED) == (3 * 3 + 1) * len(VALIDATION)  # the vectors, two draws, no vector
    assert progress[-1][0] == progress[-1][1]
    plain = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0)
    scores = {key(c): c.score for c in plain.ranked}
    predicted = {
        k: evaluate.first_order(model, VALIDATION, vectors[k[0]].relative(k[1] * k[2]), score=score).value for k in scores
    }
    best = sorted(predicted, key=predicted.get)[-3:]
    assert {key(c) for c in found.ranked[:3]} == set(best) and found.rounds == ((3, 8),) and len(found.ranked) == 24
    assert [c.score for c in found.ranked[:3]] == sorted((scores[k] for k in best), reverse=True)
    assert all(math.isnan(c.score) and c.n == 0 for c in found.ranked[3:])
    assert [c.predicted for c in found.ranked[3:]] == pytest.approx(sorted(predicted.values(), reverse=True)[3:], rel=1e-9)
    for draw, r in enumerate(found.random):  # screened as the vectors are
        alone = ps.search(model, random_like(model, vectors, 0, draw), score, **SPLIT, scales=SCALES, n_random=0, screen=3)
        assert np.array_equal(r.candidate.vector.vector, alone.vector.vector)


def test_a_screen_before_halving(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0, screen=6, halving=2)
    assert found.rounds == ((6, 4), (3, 8)) and [c.n for c in found.ranked] == [8] * 3 + [4] * 3 + [0] * 10
    order = [VALIDATION[i] for i in np.random.default_rng(0).permutation(8)]
    base = [evaluate.accuracy(model, order[: c.n], score=score).value for c in found.ranked[:6]]
    rho, n = found.screen_correlation
    assert n == 6 and rho == pytest.approx(rank_correlation(found.ranked[:6], base), rel=1e-9)


def test_a_screen_that_leaves_one_has_no_correlation(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, n_random=0, screen=1)
    assert math.isnan(found.screen_correlation[0]) and found.screen_correlation[1] == 1 and "correlation" in str(found)
    cheap = ps.search(model, vectors, score, **SPLIT, n_random=0, screen=score, screened=2)
    assert cheap.screen_correlation is None and math.isnan(cheap.ranked[0].predicted)


def test_the_same_arguments_give_the_same_bits(model, vectors, score):
    a, b = (ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2, seed=1) for _ in range(2))
    assert str(a) == str(b) and a.test.values == b.test.values and [r.test for r in a.random] == [r.test for r in b.random]


@pytest.mark.parametrize(("change", "said"), [
    ({"test": ["ta", VALIDATION[2]]}, "test prompt 1 is also validation prompt 2"),
    ({"validation": []}, "empty"),
    ({"vectors": []}, "one SteeringVector or more"),
    ({"signs": (2,)}, "signs are"),
    ({"scales": ()}, "scales are"),
    ({"scales": (0.5, 0.5)}, "each once"),
    ({"scales": (-1.0,)}, "a scale is -1"),
    ({"halving": 1}, "halving is 1"),
    ({"top": 5}, "top is 5"),
    ({"n_random": -1}, "n_random is -1"),
    ({"seed": -1}, "seed is -1"),
    ({"passing": math.nan}, "passing is nan"),
    ({"passing": "half"}, "passing is 'half'"),
    ({"score": "yes"}, "a score is a function"),
    ({"screen": len}, "screen is <built-in"),
    ({"screen": True}, "screen is True; it must be a number of candidates, or a LogitScore"),
    ({"screen": 0}, "screen is 0"),
    ({"screen": 2, "score": len}, "the score <built-in function len> has no gradient"),
    ({"screen": 2, "score": Turned(1, 2)}, "Turned.*has no gradient"),
    ({"test": []}, "empty"),
    ({"screened": 0, "screen": evaluate.LogitDifference(1, 2)}, "screened is 0"),
])  # fmt: skip
def test_refusals(model, vectors, score, change, said):
    how = {"vectors": vectors, "score": score, **SPLIT, **change}
    with pytest.raises(ps.InvalidInput, match=said):
        ps.search(model, **how)


def test_what_is_shown(model, vectors, score):
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2)
    assert "\n" not in repr(found) and str(found.test) in repr(found) and f"{found.random_best.value:.4g}" in repr(found)
    assert repr(found.ranked[0]) == f"Candidate({found.ranked[0]})" and "array" not in repr(found.chosen[0])
    read = Reader(found._repr_html_())
    for line in str(found).splitlines():
        assert set(line.split(maxsplit=1)) <= set(read.texts)
    assert "best random" not in repr(ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0))
    screened = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0, screen=8)
    for text in (str(screened), repr(screened), screened._repr_html_()):
        assert f"{screened.screen_correlation[0]:.3g}" in text and "screen" in text and "rank correlation" in text
    assert "measured 8 of 16 candidates" in str(screened) and "screen" not in f"{found}{found!r}"


def test_old_calls(model, vectors, score):
    want = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=1)
    with pytest.warns(DeprecationWarning) as warned:
        found = ps.search(model, vectors, score, VALIDATION, TEST, scales=SCALES, random=1)
    assert str(found) == str(want) and found.test.values == want.test.values
    assert [w.filename for w in warned] == [__file__] * 2
    assert "validation, test by keyword" in str(warned[0].message) and "'n_random'" in str(warned[1].message)


def test_a_share_of_none_is_shown(model, vectors):
    """A result is a number, and 0 is false."""
    found = ps.search(model, vectors, lambda p, t: 0.0, **SPLIT, n_random=1, max_new_tokens=1)
    assert found.random_share == 0 and "0 of 4 random ones" in str(found)
