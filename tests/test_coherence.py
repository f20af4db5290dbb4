"""Scores that demand coherence: by hand from the texts, in every place that takes a score."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from test_search import SCALES

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import coherent, contains

PROMPTS = ["Once upon a time", "The dog", "One day, a girl", "Tim and Sam"]
NEW = 12
ANY = contains("")


@pytest.fixture(scope="module")
def model(stories):
    return ps.load(stories)


@pytest.fixture(scope="module")
def vectors(model):
    return ps.random_vectors(model, 2, k=3, seed=1, prompts=PROMPTS)


def by_hand(model, prompts, vector, score, repetition=None, perplexity=None):
    """Scores, from public calls alone, one text at a time."""
    made, plain = [], replace(model, _steering=())
    for prompt in prompts:
        g = model.generate(prompt, max_new_tokens=NEW, steer=vector)
        loops = repetition is not None and evaluate.repetition(g).value > repetition
        strange = perplexity is not None and evaluate.perplexity(plain, prompt, continuation=[g]) > perplexity
        made.append(0.0 if loops or strange else float(score(prompt, g.text)))
    return made


def limits(model, vector):
    """A limit of repetition and one of perplexity that half of the texts of a vector keep to."""
    made = [model.generate(p, max_new_tokens=NEW, steer=vector) for p in PROMPTS]
    values = sorted(float(evaluate.perplexity(model, p, continuation=[g])) for p, g in zip(PROMPTS, made, strict=True))
    return (values[1] + values[2]) / 2


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_a_text_counts_if_it_is_coherent(model, vectors, scale):
    vec = vectors[0].relative(scale)
    most = limits(model, vec)
    for how in ({"perplexity": most}, {"repetition": 0.0}, {"repetition": 0.5, "perplexity": most}):
        got = evaluate.accuracy(model, PROMPTS, vec, score=coherent(ANY, **how), max_new_tokens=NEW)
        assert list(got.values) == by_hand(model, PROMPTS, vec, ANY, **how), how
    got = evaluate.accuracy(model, PROMPTS, vec, score=coherent(ANY, perplexity=most), max_new_tokens=NEW)
    assert got.value == 0.5


def test_the_text_is_read_without_any_steering(model, vectors):
    view = model.steered(vectors[0].relative(2.0))
    most = limits(model, vectors[0].relative(2.0))
    score = coherent(ANY, perplexity=most)
    got = evaluate.accuracy(view, PROMPTS, score=score, max_new_tokens=NEW)
    assert list(got.values) == by_hand(view, PROMPTS, None, ANY, perplexity=most) and got.value == 0.5


def test_loops_do_not_count(model):
    loop, text = np.array([5, 6] * 8, np.int32), np.arange(5, 21, dtype=np.int32)
    one = model.generate("a", max_new_tokens=1)
    made = [replace(one, tokens=loop, text="ab" * 8), replace(one, tokens=text, text="no loop")]
    for share in (13 - 2) / 13, 0.8:  # of the loop's 13 4-grams two are new
        assert coherent(lambda *_: 2.5, repetition=share).values(model, ["a", "a"], made) == [0.0 if share == 0.8 else 2.5, 2.5]


def test_it_composes(model, vectors):
    vec = vectors[1].relative(1.0)
    most = limits(model, vec)
    both = coherent(ANY, repetition=0.1, perplexity=most)
    nested = coherent(coherent(ANY, perplexity=most), repetition=0.1)
    tables = [evaluate.score_table(model, PROMPTS, [None, vec], score, NEW) for score in (both, nested, pickle.loads(pickle.dumps(both)))]
    assert all(np.array_equal(table, tables[0]) for table in tables) and 0 < tables[0].mean() < 1


def test_effects_have_it(model, vectors):
    vec = vectors[0].relative(2.0)
    most = limits(model, vec)
    made = ps.effects(model, PROMPTS, vec, scales=2.0, signs=1, n_random=1, max_new_tokens=NEW, score=coherent(ANY, perplexity=most),
                      temperature=1.0, samples=2)  # fmt: skip
    for e in (*made, *made.random, *made.base):
        assert e.score == float(e.perplexity <= most) and len(e.sample_scores) == 2
    assert {e.score for e in made} == {0.0, 1.0}


def test_search_shows_both_rates(model, vectors):
    split = {"validation": PROMPTS, "test": ["A cat", "Lily had", "He was", "The sun"]}
    how = {"scales": SCALES, "n_random": 2, "max_new_tokens": NEW}
    most = limits(model, vectors[0].relative(2.0))
    found = ps.search(model, vectors, coherent(ANY, perplexity=most), **split, **how)
    want = by_hand(model, split["test"], found.vector, ANY, perplexity=most)
    assert list(found.test.values) == want and found.chosen[0].raw.value == 1.0 == found.unsteered_raw.value
    assert all(one.raw.value == 1.0 for one in found.random) and found.chosen[0].raw.unit == "share"
    assert f"raw         {found.chosen[0].raw}; unsteered {found.unsteered_raw}; random" in str(found)
    table = evaluate.score_table(model, split["test"], [None, found.vector], contains("[aeiou]"), NEW)
    again = ps.search(model, found.vector, coherent(contains("[aeiou]"), perplexity=most), **split, signs=1, scales=0.5, n_random=0,
                      max_new_tokens=NEW)  # fmt: skip
    assert list(again.unsteered_raw.values) == table[0].tolist()
    strict = ps.search(model, vectors, coherent(ANY, perplexity=1.001), **split, **how)
    assert strict.test.value == 0.0 and strict.chosen[0].raw.value == 1.0 == strict.unsteered_raw.value
    plain = ps.search(model, vectors, ANY, **split, **how)
    assert plain.chosen[0].raw is None is plain.unsteered_raw and "\nraw " not in str(plain)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: coherent(ANY), "give a limit"),
    (lambda: coherent(evaluate.LogitDifference(1, 2), perplexity=3), "a score of texts is needed.*LogitDifference"),
    (lambda: coherent("yes", perplexity=3), "a score of texts is needed.*'yes'"),
    (lambda: coherent(ANY, repetition=1.5), "repetition is 1.5"),
    (lambda: coherent(ANY, repetition="a"), "repetition is 'a'"),
    (lambda: coherent(ANY, repetition=float("nan")), "repetition is nan"),
    (lambda: coherent(ANY, perplexity=0), "coherent: perplexity is 0"),
])  # fmt: skip
def test_refusals(call, said):
    with pytest.raises(ps.InvalidInput, match=said):
        call()


def test_scores_below_zero_and_no_numbers(model):
    for value, said in ((-1.0, "gave -1; it must be at least 0"), (float("nan"), "finite number"), ("x", "finite number")):
        with pytest.raises(ps.InvalidInput, match=said):
            evaluate.accuracy(model, "a", score=coherent(lambda *_, value=value: value, repetition=0.5), max_new_tokens=2)
