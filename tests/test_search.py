"""Search: selected on validation alone, reported on test, and random vectors treated in the same way."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import dying
import numpy as np
import pytest
import scipy.stats
from test_html import Reader
from tiny import ids, tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import search, worker_tables
from powersteer.evaluate.search import random_like
from powersteer.model.remote import RemoteModel

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
        others = random_like(vectors, 3, draw)
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
        alone = ps.search(model, random_like(vectors, 0, draw), score, **SPLIT, scales=SCALES, n_random=0, screen=3)
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
    all_pass = ps.search(model, vectors, lambda p, t: 1.0, **SPLIT, n_random=1, max_new_tokens=1)
    assert "4 of 4 vectors reach 0.5 on validation, 4 of 4 random ones" in str(all_pass)


def test_the_vectors_and_all_draws_share_their_batches(model, vectors, score, monkeypatch):
    """A round is one table of scores, with the unsteered model in it; the test is one more."""
    tables, scored = [], search.score_table

    def noted(model, items, vectors, *args, **how):
        tables.append((len(items), len(vectors)))
        return scored(model, items, vectors, *args, **how)

    monkeypatch.setattr(search, "score_table", noted)
    found = ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=2, halving=2, top=2)
    assert tables == [(4, 1 + 3 * 16), (4, 1 + 3 * 8), (len(TEST), 1 + 2 + 2)]
    base = evaluate.accuracy(model, VALIDATION, score=score).value
    assert found.unsteered[0] == pytest.approx(base, rel=1e-12)


def test_unsteered_scores_are_those_of_their_prompts(model, vectors, score, monkeypatch):
    seen, order = [], np.random.default_rng(0).permutation(8)
    monkeypatch.setattr(search, "_rank_correlation", lambda ranked, plain: seen.append(plain) or (0.0, len(ranked)))
    ps.search(model, vectors, score, **SPLIT, scales=SCALES, n_random=0, screen=6, halving=2)
    want = evaluate.accuracy(model, [VALIDATION[i] for i in order], score=score).values
    np.testing.assert_allclose(seen[0], want, rtol=1e-12)


# ---- many processes

SUMS = [f"Q: {a}+{a + b}\nA:" for b in (1, 2) for a in range(1, 4)]


@pytest.fixture(scope="module")
def demo():
    """A model with a file, which workers can load."""
    return ps.load("demo", threads=1)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def odd(prompt, text):
    return float(len(text) % 2)


def broken(prompt, text):
    raise TypeError("no score of a pickle")


class Backwards:
    """Workers that end the last call first, in this process, with closures."""

    def run(self, function, calls):
        for index in reversed(range(len(calls))):
            yield index, function(*calls[index])


def figures(found):
    """All numbers of a result, to the bit."""
    results = [r for s in (*found.chosen, *found.random) for r in (s.test, s.raw)] + [found.gain, found.unsteered[1], found.unsteered_raw]
    ranked = [(c.index, c.sign, c.scale, c.n, repr((c.score, c.predicted)), c.vector.vector.tobytes()) for c in found.ranked]
    return str(found), found.unsteered[0], ranked, [r is None or (r.value, r.low, r.high, *r.values) for r in results]


DIFFERENCE = evaluate.LogitDifference("3", "4")
SEARCHES = [
    (DIFFERENCE, {"screen": 6, "halving": 2, "positions": slice(1, None)}),
    (evaluate.coherent(odd, repetition=0.9), {"screen": DIFFERENCE, "screened": 3, "max_new_tokens": 4, "kl": 0.1}),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
@pytest.mark.parametrize(("score", "how"), SEARCHES, ids=["logits", "texts"])
def test_workers_find_the_same_bits(demo, pool, monkeypatch, score, how):
    monkeypatch.setattr(worker_tables, "_CELLS", 6)
    some, calls = ps.random_vectors(demo, 1, k=2), []
    view = demo.steered(ps.random_vectors(demo, 2, k=1, seed=1)[0])
    how = {"validation": SUMS[:4], "test": SUMS[4:], "n_random": 2, "top": 2, **how}
    want = ps.search(view, some, score, **how)
    found = ps.search(view, some, score, **how, executor=pool, progress=lambda done, total: calls.append((done, total)))
    assert figures(found) == figures(want) and (want.chosen[0].raw is None) == (score is DIFFERENCE)
    assert calls[-1][0] == calls[-1][1] and calls == sorted(calls)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
def test_a_search_goes_on_where_a_worker_dies(demo, tmp_path):
    made, how = [], {"validation": SUMS[:4], "test": SUMS[4:], "n_random": 0}

    def executor():
        made.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        made[-1].submit(dying.once, str(tmp_path / "flag"))
        return made[-1]

    some = ps.random_vectors(demo, 1)
    found = ps.search(demo, some, DIFFERENCE, **how, executor=executor)
    for one in made:
        one.shutdown()
    assert len(made) == 2 and figures(found) == figures(ps.search(demo, some, DIFFERENCE, **how))


@pytest.mark.parametrize(("k", "cells", "parts"), [(5, 2, 9), (2, 3, 3), (2, 6, 2), (2, 64, 1)])
def test_parts_of_a_table_are_joined_in_order(demo, monkeypatch, k, cells, parts):
    monkeypatch.setattr(worker_tables, "_CELLS", cells)
    tables, done = worker_tables.WorkerTables(RemoteModel.of(demo, 1), Backwards()), []
    steer, made, want = [None, *ps.random_vectors(demo, 1, k=k, prompts=SUMS)], [], []
    score = lambda prompt, text: float(sum(map(ord, prompt + text)))  # noqa: E731
    table = tables(SUMS[:3], steer, score, max_new_tokens=3, made=made, callback=done.append)
    alone = evaluate.score_table(demo, SUMS[:3], steer, score, 3, made=want)
    assert np.array_equal(table, alone) and len(np.unique(alone)) > 3
    assert len(done) == parts and sum(done) == table.size
    assert [(g.prompt, g.steering, g.text) for g in made] == [(g.prompt, g.steering, g.text) for g in want]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
def test_scores_that_workers_cannot_have(model, vectors, demo, pool):
    how = {"validation": SUMS[:2], "test": SUMS[4:], "n_random": 0, "max_new_tokens": 1}
    some = ps.random_vectors(demo, 1, prompts=SUMS)
    with pytest.raises(ps.InvalidInput, match=r"(?s)the score .*lambda.* cannot be sent .*top level of a module.*Dask"):
        ps.search(demo, some, lambda prompt, text: 1.0, **how, executor=pool)
    with pytest.raises(TypeError, match="no score of a pickle"):  # one that is sent, and fails there
        ps.search(demo, some, broken, **how, executor=pool)
    with pytest.raises(TypeError, match="concatenate"):  # and one that other workers can have
        worker_tables.WorkerTables(RemoteModel.of(demo, 1), Backwards())(SUMS, [None], lambda p, t: t + 1, max_new_tokens=1)
    with pytest.raises(ps.InvalidInput, match="from its file"):
        ps.search(model, vectors, DIFFERENCE, **how, executor=pool)
