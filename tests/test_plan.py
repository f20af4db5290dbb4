"""What is foreseen before an atlas and its effects, against what they then take."""

from __future__ import annotations

import time

import pytest
import tiny

import powersteer as ps
from powersteer.mapping import plan as planning
from powersteer.mapping import speed

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
    how = {"ranks": 2, "scales": [0.35, 1.0], "max_new_tokens": 16, "random": 4}
    atlas = ps.atlas(model, PROMPTS, k=2, progress=False)
    ratios = []
    for _ in range(4):  # interleaved
        plan, _ = shortest(lambda: ps.atlas_plan(model, PROMPTS, k=2, effects=how), 1)
        made, seconds = shortest(lambda: atlas.effects(**how, resume=False, progress=False), 1)
        ratios.append(plan.effects.seconds / seconds)
        assert plan.effects.pushes == len(made) + len(made.random)
        assert plan.effects.vectors == len({e.vector for e in made})
    assert min(abs(r - 1) for r in ratios) < 0.5 or sorted(ratios)[0] < 1 < sorted(ratios)[-1], ratios


def test_more_effects_take_longer(model):
    def seconds(**how):
        return shortest(lambda: ps.atlas_plan(model, PROMPTS, k=4, effects=how).effects.seconds)[0]

    base = {"ranks": 1, "max_new_tokens": 4, "random": 2}
    for more in ({"ranks": 4}, {"max_new_tokens": 64}, {"random": 40}, {"scales": [0.1 * i for i in range(1, 9)]}):
        assert seconds(**{**base, **more}) > 1.3 * seconds(**base)


def test_the_plan_counts_them(model):
    plan = ps.atlas_plan(model, PROMPTS, k=4, effects=2)
    alone = ps.atlas_plan(model, PROMPTS, k=4)
    assert alone.effects is None and plan.seconds == pytest.approx(alone.seconds + plan.effects.seconds)
    assert "effects" in str(plan) and "effects" not in str(alone)
    for wrong in ({"rank": 1}, {"max_new_tokens": -1}, {"random": 1.5}):
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
    ps.atlas(deep, [[1, 2, 3]], k=1, progress=False, sources=[20], next_token=False)
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
    assert speed.sweep_rate(model, 50, planning.LANES) > 0 and seen == [1]
