"""Effects and searches at scales found by their divergence, and at some positions only."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from oracles import oracle
from tiny import tiny

import powersteer as ps
from powersteer.cli import main
from powersteer.evaluate.effects import random_vector
from powersteer.evaluate.target_response import jvps

matplotlib = oracle("matplotlib")
matplotlib.use("agg")
PROMPTS, OTHERS = ["ab", "hello (", "what? 12"], ["xyz", "12 + 3"]
SCORE = ps.evaluate.LogitDifference("a", "b")


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture(scope="module")
def vectors(model):
    return [model.jacobian(PROMPTS, 0, 1).svd(k=1).vectors[0], -2.0 * ps.random_vectors(model, 1, site="resid_pre")[0]]


def groups(records):
    """The records of one vector at one sign and budget, on all prompts."""
    found = {}
    for e in records:
        found.setdefault((e.source, e.vector, e.rank, e.sign, e.budget), []).append(e)
    return found


@pytest.mark.parametrize("positions", [None, -1])
def test_effects_at_a_budget(model, vectors, positions, tmp_path):
    budgets = [0.05, 0.2]
    found = ps.effects(model, PROMPTS, vectors, kl=budgets, positions=positions, max_new_tokens=3, n_random=2)
    for records, n in [(found.effects, 2), (found.random, 4)]:
        each = groups(records)
        assert len(each) == n * 2 * 2
        for (*_, budget), of_one in each.items():
            assert len(of_one) == 3 and len({(e.scale, e.norm) for e in of_one}) == 1
            assert abs(np.mean([e.kl_end for e in of_one]) - budget) <= 0.01 * budget + 1e-9
    for e in found:
        v = vectors[e.vector]
        alone = (e.sign * v).calibrated(model, PROMPTS, kl=e.budget, positions=positions)
        assert e.norm == abs(alone.scale) and (v.site_norm is None or e.scale == pytest.approx(e.norm / v.site_norm, rel=1e-12))
        assert e.text == model.steered(alone, positions).generate(PROMPTS[e.prompt], max_new_tokens=3).text
    some = found.where(budget=0.2, source=1)
    assert (len(some.effects), len(some.random), len(some.base)) == (6, 12, 3)
    assert len(found.where(scale=some.effects[0].scale).random) == len(found.random)  # theirs are other scales
    assert found.settings["kl"] == budgets and found.settings["scales"] == [] and "KL [0.05, 0.2] nats" in repr(found)
    found.save(tmp_path / "e.json")
    assert ps.Effects.load(tmp_path / "e.json").to_json() == found.to_json()
    ax = ps.plots.effect_curve(found.where(source=1), "kl_end")
    assert ax.get_xlabel() == "KL at the prompts' ends (nats)"
    assert {tuple(line.get_xdata()) for line in ax.lines} == {tuple(budgets)}


def reaching(model, like, budget, n):
    """Draws of random vectors that reach a budget, each calibrated by itself."""
    found = set()
    for draw in range(n):
        with contextlib.suppress(ps.InvalidInput):
            random_vector(like, 0, draw).calibrated(model, PROMPTS, kl=budget)
            found.add(draw)
    return found


def test_random_vectors_that_do_not_reach_a_budget_are_left_out_and_counted(model):
    some, done = ps.random_vectors(model, 1, k=8, prompts=PROMPTS), []
    v = max(some, key=lambda v: float(ps.evaluate.kl(model, PROMPTS, v.relative(100.0))))
    budget = 0.9 * float(ps.evaluate.kl(model, PROMPTS, v.relative(100.0)))
    how = {"kl": [0.1, budget], "signs": 1, "n_random": 6, "progress": lambda *at: done.append(at)}
    reach = reaching(model, v, budget, 6)
    assert 0 < len(reach) < 6
    found = ps.effects(model, PROMPTS, v, max_new_tokens=0, **how)
    assert {b: {e.rank for e in found.random if e.budget == b} for b in how["kl"]} == {0.1: {*range(6)}, budget: reach}
    assert found.settings["unreached"] == 6 - len(reach) and f"({6 - len(reach)} left out" in repr(found) and done[-1][0] == done[-1][1]
    for kl, left in [(0.1, 0), (budget, 6)]:
        searched = ps.search(model, v, SCORE, validation=PROMPTS, test=OTHERS, **{**how, "kl": kl})
        reached = [s.candidate for s in searched.random]
        assert all(abs(c.vector.calibration.kl - kl) <= 0.01 * kl for c in reached) and done[-1][0] == done[-1][1]
        assert searched.unreached == 6 - len(reached) <= left and searched.random_share.n == 6
        assert ("unreached" in str(searched)) == bool(searched.unreached) == bool(left)
    with pytest.raises(ps.InvalidInput, match="no scale of"):
        ps.effects(model, PROMPTS, v, max_new_tokens=0, **{**how, "kl": 2 * budget})


def test_vectors_that_do_not_reach_a_budget_are_left_out_where_that_is_wanted(model, vectors):
    target = vectors[0].target  # so that their linearity is measured
    some = [dataclasses.replace(v, target=target) for v in ps.random_vectors(model, 0, k=4, prompts=PROMPTS)]
    most = [float(ps.evaluate.kl(model, PROMPTS, v.relative(100.0))) for v in some]
    some = [some[i] for i in np.argsort(most)]  # the last one reaches furthest
    budget = 0.99 * max(most)
    each = ps.evaluate.calibrate(model, PROMPTS, some, kl=budget, skip_unreached=True)
    reach = [i for i, v in enumerate(each) if v is not None]
    assert reach and reach[-1] == 3 and 0 not in reach
    assert [each[i] for i in reach] == [some[i].calibrated(model, PROMPTS, kl=budget) for i in reach]
    assert ps.evaluate.calibrate(model, PROMPTS, some, kl=0.1, skip_unreached=True) == ps.evaluate.calibrate(model, PROMPTS, some, kl=0.1)
    with pytest.raises(ps.InvalidInput, match="no scale of"):
        ps.evaluate.calibrate(model, PROMPTS, some[0], kl=budget, skip_unreached=True)
    how = {"kl": budget, "signs": 1, "n_random": 0}
    found = ps.effects(model, PROMPTS, some, max_new_tokens=2, skip_unreached=True, **how)
    alone = ps.effects(model, PROMPTS, [some[i] for i in reach], max_new_tokens=2, **how)
    assert [e.vector for e in found] == reach * len(PROMPTS) and found.settings["unreached"] == 4 - len(reach)
    assert [dataclasses.replace(e, vector=reach.index(e.vector)) for e in found] == list(alone) and found[0].linearity > 0
    searched = ps.search(model, some, SCORE, validation=PROMPTS, test=OTHERS, top=4, skip_unreached=True, **how)
    assert {c.index for c in searched.ranked} == set(reach) and len(searched.chosen) == len(reach)
    assert searched.unreached == 4 - len(reach) and searched.share.n == 4 and "candidate" in str(searched)
    with pytest.raises(ps.InvalidInput, match="none of the 4 vectors reaches a KL of"):
        ps.search(model, some, SCORE, validation=PROMPTS, test=OTHERS, skip_unreached=True, **{**how, "kl": 1e3})


def test_effects_at_scales_have_no_budget(model, vectors):
    found = ps.effects(model, PROMPTS, vectors, n_random=1, max_new_tokens=0)
    assert {e.scale for e in found} == {0.35, 1.0} and {e.budget for e in (*found, *found.random)} == {None}
    assert found.settings["kl"] is None and found.settings["positions"] == "all"


def test_a_search_at_a_budget(model, vectors):
    found = ps.search(model, vectors, SCORE, validation=PROMPTS, test=OTHERS, kl=[0.1, 0.02], n_random=3)
    assert sorted((c.index, c.sign, c.budget) for c in found.ranked) == sorted(
        (i, s, b) for i in (0, 1) for s in (1, -1) for b in (0.02, 0.1)
    )
    for c in (*found.ranked, *(r.candidate for r in found.random)):
        assert abs(c.vector.calibration.kl - c.budget) <= 0.01 * c.budget and c.vector.calibration.prompts == 3
        assert c.scale * c.vector.site_norm == pytest.approx(abs(c.vector.scale)) and f"(KL {c.budget:g})" in str(c)
        assert c.score == pytest.approx(float(ps.evaluate.accuracy(model, PROMPTS, c.vector, score=SCORE)), abs=1e-9)
    assert all(r.candidate.vector.method == "random" for r in found.random)
    alone = (found.ranked[0].sign * vectors[found.ranked[0].index]).calibrated(model, PROMPTS, kl=found.ranked[0].budget)
    assert alone.scale == found.vector.scale
    quick = ps.search(model, vectors, SCORE, validation=PROMPTS, test=OTHERS, kl=0.1, n_random=1, screen=2)
    assert [c.n for c in quick.ranked] == [3, 3, 0, 0]


@pytest.mark.parametrize("positions", [-1, "prompt", "generated", [0, 1], slice(1, None)])
def test_positions_are_those_of_a_view(model, vectors, positions):
    """Of continuations, logits, first-order changes and the target's response."""
    some = [v.relative(1.5) for v in ps.random_vectors(model, 0, k=2, prompts=PROMPTS)]
    each = model.generate(PROMPTS, max_new_tokens=4, steer=[some[0], None, [some[0], some[1]]], steer_positions=positions)
    views = [model.steered(some[0], positions), model, model.steered(some, positions)]
    assert [g.text for g in each] == [v.generate(p, max_new_tokens=4).text for v, p in zip(views, PROMPTS, strict=True)]
    assert each[0].steering == views[0].steering
    score = ps.evaluate.contains("[a-z]")
    found = ps.search(model, some, score, validation=PROMPTS, test=OTHERS, positions=positions, scales=[0.7], n_random=1,
                      max_new_tokens=4)  # fmt: skip
    view = model.steered(found.vector, positions)
    assert found.test.values == ps.evaluate.accuracy(view, OTHERS, score=score, max_new_tokens=4).values
    effects = ps.effects(model, PROMPTS, vectors[0], positions=positions, max_new_tokens=3, n_random=0, temperature=1.0, samples=1)
    for e in effects:
        v = e.sign * vectors[0].relative(e.scale)
        view = model.steered(v, positions)
        assert e.text == view.generate(PROMPTS[e.prompt], max_new_tokens=3).text
        assert e.samples == (view.generate(PROMPTS[e.prompt], max_new_tokens=3, temperature=1.0).text,)
        assert e.kl_end == pytest.approx(float(ps.evaluate.kl(view, PROMPTS[e.prompt])) if positions != "generated" else 0, abs=1e-9)
        assert np.isnan(e.linearity) == (positions == "generated")
        if positions != "generated":
            J, moved = (m.jacobian(PROMPTS[e.prompt], v.location, v.target, source_positions=positions) for m in (model, view))
            change = moved.base - J.base
            assert e.linearity == pytest.approx(np.linalg.norm(change - J @ v.vector) / np.linalg.norm(change), rel=1e-6)


def test_products_at_positions(model, vectors):
    prompt = model.tokens(PROMPTS[1])
    for positions in (None, -1, [0, 2]):
        (found,) = jvps(model, prompt, vectors[:1], positions)
        J = model.jacobian(prompt, vectors[0].location, vectors[0].target, source_positions=positions)
        np.testing.assert_allclose(found, J @ vectors[0].direction, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kl": 1.0, "scales": 0.5}, "strengths are given twice"),
        ({"kl": [0.1, 0.1]}, r"kl are \[0\.1, 0\.1\]; give one or more, each once"),
        ({"kl": []}, "kl are"),
        ({"kl": -1.0}, "kl is -1"),
        ({"kl": 1e3}, "no scale of"),
        ({"positions": 99}, "no position 99"),
    ],
)
def test_refusals(how, message, model, vectors):
    for call in (lambda: ps.effects(model, PROMPTS, vectors, max_new_tokens=2, **how),
                 lambda: ps.search(model, vectors, SCORE, validation=PROMPTS, test=OTHERS, **how)):  # fmt: skip
        with pytest.raises(ps.InvalidInput, match=message):
            call()


def test_the_shell_takes_budgets(capsys, tmp_path):
    model = ps.load("demo")
    ps.save_vectors(tmp_path / "v.safetensors", ps.random_vectors(model, 2, k=2))
    for name, prompts in (("a", ["Q: 1+2", "Q: 3+4"]), ("b", ["Q: 2+2"])):
        (tmp_path / name).write_text("\n".join(map(json.dumps, prompts)))
    words = ["search", str(tmp_path / "v.safetensors"), "--model", "demo", "--prefer", "3", "--over", "4", "--validation",
             str(tmp_path / "a"), "--test", str(tmp_path / "b"), "--n-random", "1", "--json",
             "--out", str(tmp_path / "w.safetensors")]  # fmt: skip
    assert main([*words, "--kl", "0.1,0.3", "--positions", "-1"]) == 0
    told, vec = json.loads(capsys.readouterr().out), ps.SteeringVector.load(tmp_path / "w.safetensors")
    assert told["kl"] == vec.calibration.budget in (0.1, 0.3) and vec.calibration.positions == "[-1]"
    assert abs(told["norm"]) == abs(vec.scale) and float(ps.evaluate.kl(model, ["Q: 1+2", "Q: 3+4"], vec, positions=-1)) == (
        pytest.approx(told["kl"], rel=0.01)
    )
    assert main([*words, "--scales", "0.5"]) == 0 and json.loads(capsys.readouterr().out)["kl"] is None
    assert main([*words, "--scales", "0.5", "--kl", "1"]) == 2 and "not allowed with" in capsys.readouterr().err
    loaded = dataclasses.replace(vec, calibration=None)
    assert 2 * loaded == 2 * vec
