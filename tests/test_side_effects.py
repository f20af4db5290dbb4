"""Selectivity and curves over strength: equal to the metrics they are made of, and to random vectors made by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tiny import ids, tiny

import powersteer as ps
from powersteer import evaluate
from powersteer.evaluate import selectivity
from powersteer.evaluate.effects import random_vector

PROMPTS, UNRELATED, TEXT = ["va", "vb c", "vc", "vdd"], ["ta", "tbb"], ["a longer text", "another one"]
ALL = {"prompts": PROMPTS, "unrelated": UNRELATED, "text": TEXT}


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def vectors(model):
    return [v.relative(0.7) for v in ps.random_vectors(model, 1, k=2, seed=5, prompts=PROMPTS)]


@pytest.fixture(scope="module")
def score():
    return evaluate.LogitDifference(ids("y")[0], ids("n")[0])


def drawn(v, seed, draw):
    return dataclasses.replace(random_vector(v, seed, 0, draw), scale=v.scale)


def test_every_movement_is_that_of_its_metric(model, vectors, score):
    other = evaluate.LogitDifference(ids("a")[0], ids("b")[0])
    found = selectivity(model, vectors, score, **ALL, others={"a": other, "apart": (other, TEXT)}, n_random=2, seed=3)
    assert [[m.name for m in (one.wanted, *one.others)] for one in found] == [
        ["wanted", "a", "apart", "kl of unrelated prompts", "ln perplexity of the text"]
    ] * 2
    for v, one in zip(vectors, found, strict=True):
        for at, steer in enumerate([v, *(drawn(v, 3, draw) for draw in range(2))]):
            got = [(m.change, *m.random)[at] for m in (one.wanted, *one.others)]
            want = []
            for of, items in ((score, PROMPTS), (other, PROMPTS), (other, TEXT)):
                plain, moved = (evaluate.accuracy(model, items, x, score=of).values for x in (None, steer))
                want.append(np.subtract(moved, plain))
            want.append(evaluate.kl(model, UNRELATED, steer).values)
            plain, moved = (evaluate.perplexity(model, TEXT, x).values for x in (None, steer))
            want.append(np.log(moved) - np.log(plain))
            for result, values in zip(got, want, strict=True):
                assert np.allclose(result.values, values, rtol=1e-5, atol=1e-7) and result.value == pytest.approx(np.mean(values), rel=1e-4)
                low, high = evaluate.bootstrap(result.values, seed=3)
                assert (result.low, result.high) == pytest.approx((low, high), rel=1e-9)


def test_ratios_by_hand(model, vectors, score):
    found = selectivity(model, vectors[0], score, **ALL, n_random=3)
    name = found.others[0].name
    size = lambda m: abs(m.change) / np.mean([abs(r) for r in m.random])  # noqa: E731
    assert found.ratio(name) == pytest.approx(size(found.wanted) / size(found.others[0]), rel=1e-12)
    values = [r.value for r in found.wanted.random]
    assert found.wanted.random_range == (min(values), max(values))
    with pytest.raises(ps.InvalidInput, match="no 'kl' among"):
        found.ratio("kl")
    alone = selectivity(model, vectors[0], score, prompts=PROMPTS, text=TEXT, n_random=0)
    assert math.isnan(alone.wanted.times_random) and math.isnan(alone.wanted.random_range[0]) and not alone.wanted.beats_random


def test_a_planted_vector_is_selective(model, score):
    """A vector along the gradient of the wanted score, which random vectors hardly meet."""
    of = score.gradient(model, PROMPTS[0], [])[0]
    J = model.jacobian(PROMPTS[0], 1, "logits", target_positions=[-1])
    v = ps.SteeringVector.from_array(np.ravel(J.T @ of), 1, "mlp_out")
    found = selectivity(model, dataclasses.replace(v, scale=0.5), score, prompts=PROMPTS, text=TEXT, n_random=8)
    assert found.wanted.change > 0 and found.wanted.beats_random and found.ratio("ln perplexity of the text") > 1


def test_lists_to_add_and_vectors_that_clamp(model, vectors, score):
    both, clamped = selectivity(model, [vectors, vectors[0].clamp(2.0)], score, prompts=PROMPTS, unrelated=UNRELATED, n_random=1)
    assert both.others[0].change == pytest.approx(evaluate.kl(model, UNRELATED, [vectors])[0], rel=1e-5)
    like = dataclasses.replace(random_vector(vectors[0], 0, 0, 0), scale=2.0, operation="clamp")
    assert clamped.others[0].random[0] == pytest.approx(evaluate.kl(model, UNRELATED, like), rel=1e-5)


def test_texts_are_scored_and_reported(model, vectors):
    calls = []
    selectivity(model, vectors[0], evaluate.contains("a"), prompts=PROMPTS, unrelated=UNRELATED, max_new_tokens=2, n_random=1,
                progress=lambda *done: calls.append(done))  # fmt: skip
    assert calls[-1] == (2, 2)


def test_what_is_shown(model, vectors, score):
    found = selectivity(model, vectors[0], score, **ALL, n_random=2)
    head, *lines = str(found).splitlines()
    assert head.split() == ["change", "random", "vectors", "times", "random"] and len(lines) == 3
    assert lines[1].startswith("kl of unrelated prompts") and " of 2 " in lines[1] and "2 others" in repr(found)
    assert "times random" in found._repr_html_() and "wanted" in found._repr_html_()


@pytest.mark.parametrize(("change", "said"), [
    ({"unrelated": None, "text": None}, "nothing to compare with"),
    ({"others": {"wanted": evaluate.contains("a")}}, "cannot be named 'wanted'"),
    ({"n_random": -1}, "selectivity: n_random is -1"), ({"seed": 0.5}, "selectivity: seed is 0.5"),
    ({"vectors": []}, "vectors are \\[\\]"), ({"vectors": [[]]}, "vectors are"), ({"vectors": [None]}, "vectors are"),
])  # fmt: skip
def test_refusals(model, vectors, score, change, said):
    how = {"vectors": vectors, **ALL, **change}
    with pytest.raises(ps.InvalidInput, match=said):
        selectivity(model, how.pop("vectors"), score, **how)


# ---- curves


def test_a_curve_has_random_vectors_at_its_scales(model, vectors):
    v, seen = vectors[0], []

    def measure(vs):
        seen.extend(vs)
        return evaluate.kl(model, PROMPTS, vs)

    found = evaluate.curve(measure, -v, [0.5, -1.0], n_random=2, seed=4)
    assert [s for s, _ in found] == [0.5, -1.0] and len(seen) == 6 and found.relative
    for draw in range(2):
        like = random_vector(v, 4, draw)
        for s, result in zip([0.5, -1.0], found.random[draw], strict=True):
            assert result == pytest.approx(evaluate.kl(model, PROMPTS, like.relative(-s)), rel=1e-5)
    plain = evaluate.curve(measure, -v, [0.5, -1.0])
    for wrong in (lambda vs: measure(vs)[1:], lambda vs: [*measure(vs), *measure(vs)], lambda vs: measure(vs)[0]):
        with pytest.raises(ps.InvalidInput, match="must return a list of 1 metrics"):
            evaluate.curve(wrong, v, [1.0])
    with pytest.raises(ps.InvalidInput, match="norm"):
        evaluate.curve(measure, dataclasses.replace(v, site_norm=0.0), [1.0])
    assert plain.random == [] and [r.values for _, r in plain] == [r.values for _, r in found]
    with pytest.raises(ps.InvalidInput, match="curve: n_random is -1"):
        evaluate.curve(measure, v, [1.0], n_random=-1)


def test_the_plot_of_a_curve(model, vectors):
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    scales = [1.0, -0.5, 0.0]
    found = evaluate.curve(lambda vs: evaluate.kl(model, PROMPTS, vs), vectors[0], scales, n_random=3)
    ax = ps.plots.strength_curve(found, "KL")
    band, bars = ax.collections
    table = np.array([[r.value for r in draw] for draw in found.random])
    for i, scale in enumerate(scales):
        here = band.get_paths()[0].vertices
        at = here[np.isclose(here[:, 0], scale), 1]
        assert at.min() == pytest.approx(table[:, i].min()) and at.max() == pytest.approx(table[:, i].max())
        segment = next(s for s in bars.get_segments() if s[0, 0] == scale)
        assert segment[:, 1].tolist() == pytest.approx([found[i][1].low, found[i][1].high])
    median, line = ax.lines[0], ax.lines[1]
    assert line.get_xdata().tolist() == sorted(scales) == list(median.get_xdata())
    assert line.get_ydata().tolist() == [r.value for _, r in sorted(found)]
    assert ax.get_ylabel() == "KL (nats)" and "layer 1, random" in ax.get_title(loc="left")
    note = ax.texts[0].get_text()
    assert f"measured on n = {found[0][1].n}\n" in note and note.splitlines()[1].startswith("vector from ")
    one = evaluate.curve(lambda vs: evaluate.kl(model, PROMPTS[0], vs), vectors[0], [2.0], relative=False)  # without an interval
    bare = ps.plots.strength_curve(one)
    assert len(bare.collections) == 1 and bare.get_xlabel() == "length added" and bare.get_ylabel() == "nats"
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        figure.canvas.draw()
    pyplot.close("all")
    for wrong, said in (([], "must be a Curve"), (evaluate.Curve([], vectors[0], True, []), "no points")):
        with pytest.raises(ps.InvalidInput, match=said):
            ps.plots.strength_curve(wrong)
