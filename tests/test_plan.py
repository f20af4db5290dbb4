"""What is foreseen before an atlas and its effects, against what they then take."""

from __future__ import annotations

import dataclasses
import time

import pytest
import tiny

import powersteer as ps
from powersteer.inputs.sites import Site
from powersteer.mapping import costs, speed
from powersteer.mapping import plan as planning
from powersteer.mapping.batches import batches, makespan
from powersteer.mapping.store import WorkUnit
from powersteer.model.cost import pass_flops

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


@pytest.mark.long
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
    monkeypatch.setattr(planning, "sweep_speed", lambda *sizes: speed.Speed(1e9))

    def seconds(**how):
        return ps.atlas_plan(model, PROMPTS, k=4, effects=how).effects.seconds

    base = {"k": 1, "max_new_tokens": 4, "n_random": 2}
    for more in ({"k": 4}, {"k": [0, 2, 3]}, {"max_new_tokens": 64}, {"n_random": 40}, {"scales": [0.1 * i for i in range(1, 9)]},
                 {"samples": 4, "temperature": 1.0}):  # fmt: skip
        assert seconds(**{**base, **more}) > 1.3 * seconds(**base)
    four, eight = (seconds(**base, samples=n, temperature=1.0) - seconds(**base) for n in (4, 8))
    assert 1.6 * four < eight < 2 * four  # what lies below the source is computed once for all


def test_effects_of_later_sources_are_cheaper(model, monkeypatch):
    """The layers up to the source are computed once for all pushes of a prompt, the head for the continuation's rows."""
    per_token = speed.EffectCost(1.0, 0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr(planning, "effect_cost", lambda *sizes: per_token)
    monkeypatch.setattr(planning, "sweep_speed", lambda *sizes: speed.Speed(1e30))
    n = len(model.tokens(PROMPTS[0]))
    for source in range(4):
        plan = ps.atlas_plan(model, PROMPTS[0], k=1, sources=[source], targets=[4], next_token=False, effects={"k": 1, "max_new_tokens": 0})
        above = (4 - source) / 5
        assert plan.effects.seconds == pytest.approx(n * ((4 * 9 + 1) * above + 1 - above))
    written = dataclasses.replace(per_token, logits=2.0, new_tokens=3.0)
    assert written.seconds(10, 1, 0.0) == pytest.approx(10 + 2 + 3 * 2 + 2 * 10 + 0.5 * 3 * 3)


def test_passes_of_few_rows_are_slower(model):
    """A pass through the weights costs as much as some rows more. The speeds of few rows and of many are both measured."""
    few = ps.atlas_plan(model, PROMPTS, method="krylov", sources=[2], targets=[4], next_token=False, sketch=0)
    many = ps.atlas_plan(model, PROMPTS, method="sketch", sketch=16)
    for plan in (few, many):
        work, passes = (sum(getattr(step, name) for step in plan.steps) for name in ("flops", "row_flops"))
        assert plan.seconds == pytest.approx((work + plan.speed.rows * passes) / plan.speed.rate)
    rows = [sum(s.flops for s in plan.steps) / sum(s.row_flops for s in plan.steps) for plan in (few, many)]
    assert rows[0] < 50 and 100 < rows[1] < 200  # of a pass
    twice = ps.atlas_plan(model, PROMPTS, method="sketch", sketch=32)
    forward = 2 * sum(s.flops for s in many.steps) - sum(s.flops for s in twice.steps)  # once for all sources
    layers = pass_flops(model.spec, [len(model.tokens(p)) for p in PROMPTS], 0, 4)
    assert forward == pytest.approx(layers + 2 * 2 * model.n_vocab * model.d_model)


def step_of(kind, pairs, group=0, flops=1.0, together=16):
    return planning.PlannedUnit(WorkUnit(group, 0, tuple(range(pairs))), kind, flops, together=together)


def test_units_that_are_computed_together():
    """Those of a kind and a group of prompts, whatever lies between them; never more pairs than any of them allows."""
    dense, many = step_of("dense", 20), [step_of("krylov", 6, group=i % 2) for i in range(6)]
    few, one = step_of("krylov", 8, together=13), step_of("krylov", 1)
    got = list(planning.batches([many[0], dense, *many[1:], few, one]))
    assert got == [[dense], [many[0], many[2]], [many[1], many[3]], [many[4]], [many[5]], [few, one]]
    assert list(planning.batches([step_of("krylov", 20)])) == [[step_of("krylov", 20)]]
    sketches = [step_of("sketch", 20)] * 3
    assert list(planning.batches(sketches)) == [sketches]


def test_units_of_a_worker():
    """A call takes so many operations, so that every worker has some, and no more pairs than advance together."""
    long, short = step_of("krylov", 2, flops=9.0), step_of("krylov", 10, flops=1.0)
    assert list(planning.batches([long, long, long], 18.0)) == [[long, long], [long]]
    assert list(planning.batches([short, short], 18.0)) == [[short], [short]]
    sketch = step_of("sketch", 2, flops=9.0)
    assert list(planning.batches([sketch, long, sketch, long], 18.0)) == [[sketch, sketch], [long, long]]


def test_a_large_vocabulary_does_not_part_the_other_pairs(monkeypatch):
    """The bases of the next token's pair are much larger than those of the others, and there is one of a source."""
    monkeypatch.setattr(planning, "sweep_speed", lambda *sizes: speed.Speed(1e9))
    model, _ = tiny.tiny(n_layers=12, threads=1)
    steps = ps.atlas_plan(model, [[1, 2, 3]], k=2, method="krylov", sketch=0).steps
    sizes = {s.unit.source: costs.estimate(model, [3], Site(s.unit.source, "mlp_out"), "next_token", 1, 2).basis for s in steps}
    monkeypatch.setattr(costs, "_BASES", 20 * max(sizes.values()))
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
    monkeypatch.setattr(speed, "_fastest", lambda *works, **least: measured.append(works) or fastest(*works, **least))
    monkeypatch.setattr(speed, "_SPEEDS", {})
    jacobians, jacobian = [], type(deep).jacobian
    monkeypatch.setattr(type(deep), "jacobian", lambda self, *a, **k: jacobians.append(a[1:3]) or jacobian(self, *a, **k))
    plan = ps.atlas_plan(deep, [[1, 2, 3]], k=1)
    ps.atlas_plan(deep, [[1, 2, 3]], k=1, seed=1)
    assert len(measured) == 1 and jacobians == [((0, "resid_pre"), (0, "resid_post"))] * 2 and plan.rate > 0
    ps.atlas_plan(tiny.tiny(n_layers=24, threads=2)[0], [[1, 2, 3]], k=1)
    assert len(measured) == 2  # of other threads


@pytest.mark.parametrize("most, rows", [(1.0, (12, 50)), (1e12, (50, 1000))])
def test_a_measured_sweep_is_bounded(monkeypatch, most, rows):
    """Of a large model few vectors are swept, and fewer tokens for the smaller number of rows."""
    monkeypatch.setattr(speed, "_SPEEDS", {})
    model, _ = tiny.tiny(n_layers=2)
    seen = []

    def watched(*works):
        seen.append(tuple(work().size // model.d_model for work in works))
        return [1e-3 + 1e-5 * n for n in seen[-1]]

    monkeypatch.setattr(speed, "_SWEEP", most)
    monkeypatch.setattr(speed, "_fastest", watched)
    found = speed.sweep_speed(model, 50)
    assert seen == [rows] and found.rows == pytest.approx(100)  # 1e-3 seconds are 100 rows
    assert found.rate == pytest.approx(pass_flops(model.spec, [50], 0, 0) / 50 / 1e-5)
    assert found.seconds(3e9, 2.0) == pytest.approx((3e9 + 200) / found.rate)


def test_speed_on_a_disturbed_machine(monkeypatch):
    """Few rows that took longer than many say nothing of a pass."""
    monkeypatch.setattr(speed, "_SPEEDS", {})
    monkeypatch.setattr(speed, "_fastest", lambda *works: [2.0, 1.0])
    found = speed.sweep_speed(tiny.tiny(n_layers=2)[0], 50)
    assert found.rows == 0 and found.rate > 0


def test_methods_of_pairs():
    """Dense where the matrices are small, and Krylov's where few vectors are wanted of large ones."""
    model, _ = tiny.tiny(n_layers=8, d_model=48, threads=1)
    tokens = list(range(1, 41))
    plan = ps.atlas_plan(model, tokens, k=3)
    methods = {source: plan.method(source, 7) for source in range(7)}
    made = ps.atlas(model, tokens, k=3)
    assert methods == {source: made.pair(source, 7).method for source in range(7)} and set(methods.values()) == {"dense", "krylov"}
    assert ps.atlas_plan(model, tokens, method="sketch").method(0, 1) == "sketch"
    with pytest.raises(ps.InvalidInput, match="3 -> 2 of prompt group 0 is not"):
        plan.method(3, 2)
    dense = [source for source, kind in methods.items() if kind == "dense"]
    assert f"from layers 0-{dense[-1]}" in str(plan) and dense == [*range(len(dense))]


# ---- many workers


def listed(seconds, workers):
    """Seconds until all tasks have ended, by the clock: every free worker takes the next task."""
    clock, waiting, running = 0.0, list(seconds), []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(clock + waiting.pop(0))
        clock = min(running)
        running.remove(clock)
    return clock


def test_makespan_is_that_of_list_scheduling(rng):
    for workers in (1, 2, 5, 64):
        for n in (0, 1, 3, 40):
            tasks = rng.exponential(size=n).tolist()
            got = makespan(tasks, workers)
            assert got == pytest.approx(listed(tasks, workers))
            assert max([sum(tasks) / workers, *tasks]) <= got + 1e-12
            assert got <= sum(tasks) / workers + max(tasks, default=0.0) + 1e-12  # Graham


def test_a_plan_for_workers(model, monkeypatch):
    """Its seconds are those of list scheduling of the calls that `atlas` then submits, the longest first."""
    monkeypatch.setattr(planning, "sweep_speed", lambda *sizes: speed.Speed(1e6, 30.0))
    alone = ps.atlas_plan(model, PROMPTS, k=2, method="krylov")
    for workers in (1, 3, 8):
        plan = ps.atlas_plan(model, PROMPTS, k=2, method="krylov", workers=workers, worker_threads=1)
        assert plan.pairs == alone.pairs == sum(len(s.unit.targets) for s in plan.of_kind("krylov"))
        phases = []
        for kind in ("sketch", "krylov"):
            calls = list(batches(plan.of_kind(kind), planning.SECONDS * plan.rate))
            calls.sort(key=lambda steps: plan._seconds(steps), reverse=True)
            phases.append([plan._seconds(steps) for steps in calls])
        assert plan.seconds == pytest.approx(sum(listed(phase, workers) for phase in phases), rel=0.02)
        assert plan.workers.idle == pytest.approx(1 - sum(map(sum, phases)) / workers / plan.seconds, abs=0.02)
        assert plan.workers.memory > plan.workers.start == model.spec.nbytes
    assert plan.workers.largest < planning.MAX_COLUMNS and plan.seconds < alone.seconds / 3
    assert "8 workers of 1 threads" in str(plan)
    faster = ps.atlas_plan(model, PROMPTS, k=2, method="krylov", workers=8, worker_threads=4)
    assert faster.rate == 4 * plan.rate and faster.seconds < plan.seconds
