"""What is foreseen before an atlas and its effects, against what they then take."""

from __future__ import annotations

import time

import pytest
import tiny

import powersteer as ps
from powersteer.inputs.sites import Site
from powersteer.mapping import plan as planning
from powersteer.mapping import speed
from powersteer.mapping.store import WorkUnit

PROMPTS = ["Once upon a time there was a little girl", "The dog ran"]


@pytest.fixture(scope="module")
def model(stories):
    return ps.load(stories, threads=1)


def shortest(work, times=3):
    """(result, seconds): the machine may be busy."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        found.append(time.perf_counter() - started)
    return result, min(found)


def test_effects_take_the_time_that_was_foreseen(model):
    how = {"k": 2, "scales": [0.35, 1.0], "max_new_tokens": 16, "n_random": 4}
    atlas = ps.atlas(model, PROMPTS, k=2, progress=False)
    ratios = []
    for _ in range(4):  # interleaved
        plan, _ = shortest(lambda: ps.atlas_plan(model, PROMPTS, k=2, effects=how), 1)
        made, seconds = shortest(lambda: atlas.effects(**how, resume=False, progress=False), 1)
        ratios.append(plan.effects.seconds / seconds)
        assert plan.effects.pushes == len(made) + len(made.random)
        assert plan.effects.vectors == len({e.vector for e in made})
    assert min(abs(r - 1) for r in ratios) < 0.5 or sorted(ratios)[0] < 1 < sorted(ratios)[-1], ratios


def test_more_effects_take_longer(model, monkeypatch):
    """On a machine of fixed speed, whatever else this one does."""
    monkeypatch.setattr(planning, "effect_cost", lambda model, prompts, new: speed.EffectCost(1e-4, 1e-5, 1e-3, 1e-4, float(new)))
    monkeypatch.setattr(planning, "sweep_rate", lambda *sizes: 1e9)

    def seconds(**how):
        return ps.atlas_plan(model, PROMPTS, k=4, effects=how).effects.seconds

    base = {"k": 1, "max_new_tokens": 4, "n_random": 2}
    for more in ({"k": 4}, {"k": [0, 2, 3]}, {"max_new_tokens": 64}, {"n_random": 40}, {"scales": [0.1 * i for i in range(1, 9)]},
                 {"samples": 4, "temperature": 1.0}):  # fmt: skip
        assert seconds(**{**base, **more}) > 1.3 * seconds(**base)
    four, eight = (seconds(**base, samples=n, temperature=1.0) - seconds(**base) for n in (4, 8))
    assert eight == pytest.approx(2 * four, rel=0.05)


def test_the_rate_is_that_of_the_columns_of_the_plan(model, monkeypatch):
    """A sweep of few vectors is slower a vector, so the rate is measured with as many as the units have."""
    columns = []
    monkeypatch.setattr(planning, "sweep_rate", lambda model, n, c: columns.append(c) or 1e9)
    ps.atlas_plan(model, PROMPTS, method="krylov", sources=[2], targets=[4], next_token=False, sketch=0)
    ps.atlas_plan(model, PROMPTS, method="krylov", sources=[0], sketch=0)
    ps.atlas_plan(model, PROMPTS, method="sketch", sketch=8)
    assert columns == [1, 5, 8]


def step_of(kind, pairs, group=0, flops=1.0, together=16):
    return planning.PlannedUnit(WorkUnit(group, 0, tuple(range(pairs))), kind, flops, together)


def test_units_that_are_computed_together():
    """Those of a kind and a group of prompts, whatever lies between them; never more pairs than any of them allows."""
    dense, many = step_of("dense", 20), [step_of("krylov", 6, group=i % 2) for i in range(6)]
    few, one = step_of("krylov", 8, together=13), step_of("krylov", 1)
    got = list(planning.batches([many[0], dense, *many[1:], few, one]))
    assert got == [[dense], [many[0], many[2]], [many[1], many[3]], [many[4]], [many[5]], [few, one]]
    assert list(planning.batches([step_of("krylov", 20)])) == [[step_of("krylov", 20)]]


def test_units_of_a_worker():
    """A call takes so many operations, so that every worker has some, and no more pairs than advance together."""
    long, short = step_of("krylov", 2, flops=9.0), step_of("krylov", 10, flops=1.0)
    assert list(planning.batches([long, long, long], 18.0)) == [[long, long], [long]]
    assert list(planning.batches([short, short], 18.0)) == [[short], [short]]
    sketch = step_of("sketch", 2, flops=9.0)
    assert list(planning.batches([sketch, long, sketch, long], 18.0)) == [[sketch, sketch], [long, long]]


def test_a_large_vocabulary_does_not_part_the_other_pairs(monkeypatch):
    """The bases of the next token's pair are much larger than those of the others, and there is one of a source."""
    monkeypatch.setattr(planning, "sweep_rate", lambda *sizes: 1e9)
    model, _ = tiny.tiny(n_layers=12, threads=1)
    steps = ps.atlas_plan(model, [[1, 2, 3]], k=2, method="krylov", sketch=0).steps
    sizes = {s.unit.source: planning.estimate(model, [3], Site(s.unit.source, "mlp_out"), "next_token", 1, 2).basis for s in steps}
    monkeypatch.setattr(planning, "_BASES", 20 * max(sizes.values()))
    steps = ps.atlas_plan(model, [[1, 2, 3]], k=2, method="krylov", sketch=0).steps
    assert steps[0].together > 30 and steps[-1].together == 20


def test_a_plan_in_one_line_and_as_a_table(model):
    plan = ps.atlas_plan(model, PROMPTS, k=2, method="krylov", effects={"k": 1, "samples": 2, "temperature": 1.0, "max_new_tokens": 2})
    assert repr(plan).startswith("Plan(15 pairs of layers; about") and "\n" not in repr(plan)
    assert "and 2 samples of each" in str(plan) and plan.effects.samples == 2
    html = plan._repr_html_()
    assert html.count("<tr>") == 4 and "krylov" in html and "2 samples" in html


def test_old_names(model):
    with pytest.warns(DeprecationWarning, match="'positions' is now called 'target_positions'"):
        plan = ps.atlas_plan(model, PROMPTS, positions=-1)
    assert plan.pairs == 15
    with pytest.warns(DeprecationWarning) as warned:
        plan = ps.atlas_plan(model, PROMPTS, k=2, effects={"ranks": 2, "random": 1, "max_new_tokens": 0})
    assert {"'ranks'" in str(w.message) or "'random'" in str(w.message) for w in warned} == {True} and plan.effects.vectors == 30


def test_the_plan_counts_them(model):
    plan = ps.atlas_plan(model, PROMPTS, k=4, effects=2)
    alone = ps.atlas_plan(model, PROMPTS, k=4)
    assert alone.effects is None and plan.seconds == pytest.approx(alone.seconds + plan.effects.seconds)
    assert "effects" in str(plan) and "effects" not in str(alone)
    for wrong in ({"rank": 1}, {"max_new_tokens": -1}, {"n_random": 1.5}, {"samples": 2}, {"k": 13}):
        with pytest.raises(ps.InvalidInput, match=next(iter(wrong))):
            ps.atlas_plan(model, PROMPTS, effects=wrong)


def test_the_machine_is_measured_once_and_shallowly(monkeypatch):
    deep, _ = tiny.tiny(n_layers=24)
    measured, fastest = [], speed._fastest
    monkeypatch.setattr(speed, "_fastest", lambda work, *least: measured.append(work) or fastest(work, *least))
    monkeypatch.setattr(speed, "_RATES", {})
    jacobians, jacobian = [], type(deep).jacobian
    monkeypatch.setattr(type(deep), "jacobian", lambda self, *a, **k: jacobians.append(a[1:3]) or jacobian(self, *a, **k))
    plan = ps.atlas_plan(deep, [[1, 2, 3]], k=1)
    ps.atlas_plan(deep, [[1, 2, 3]], k=1, seed=1)
    assert len(measured) == 1 and jacobians == [((0, "resid_pre"), (0, "resid_post"))] and plan.rate > 0
    ps.atlas_plan(tiny.tiny(n_layers=24, threads=2)[0], [[1, 2, 3]], k=1)
    assert len(measured) == 2  # of other threads


def test_a_measured_sweep_is_bounded(monkeypatch):
    """Of a large model fewer vectors are swept."""
    monkeypatch.setattr(speed, "_RATES", {})
    model, _ = tiny.tiny(n_layers=2)
    seen, fan = [], speed._fastest
    monkeypatch.setattr(speed, "_SWEEP", 1.0)
    monkeypatch.setattr(speed, "_fastest", lambda work, *least: seen.append(work().shape[1]) or fan(work, *least))
    assert speed.sweep_rate(model, 50, planning.MAX_COLUMNS) > 0 and seen == [1]
