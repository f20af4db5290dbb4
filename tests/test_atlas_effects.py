"""Effects and search of an atlas: those of its vectors, kept beside the cells, never lost."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import atlas_pages
import checkpoints
import dying
import numpy as np
import pytest
import tiny

import powersteer as ps
from powersteer.evaluate import effects as measuring
from powersteer.mapping import effects_cache as kept
from powersteer.report.check import check

PROMPTS = [[1, 5, 9, 3, 3, 7], [2, 8, 4, 4]]
HOW = {"scales": [0.5, 2.0], "max_new_tokens": 4, "n_random": 3, "progress": False}


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")


@pytest.fixture(scope="module")
def model():
    return tiny.tiny(n_layers=4)[0]


def make(model, **arguments):
    return ps.atlas(model, PROMPTS, **{"k": 3, "progress": False, "prompt_groups": "both", **arguments})


def plain(records):
    """Records to compare, NaN included."""
    return [repr(dataclasses.replace(e, prompt=0, vector=0)) for e in records]


def test_they_are_those_of_its_vectors(model):
    atlas = make(model)
    found = atlas.effects(2, tokens=[3], **HOW)
    vectors = [v for pair in atlas.pairs for v in atlas.vectors(*pair)[:2]]
    assert len(found) == len(vectors) * 2 * 2 * 2
    for source in atlas.sources:
        some = [v for v in vectors if v.layer == source]
        want = ps.effects(model, PROMPTS, some, tokens=[3], **HOW)
        got = found.where(source=source)
        assert plain(sorted(got, key=lambda e: e.prompt)) == plain(want) and plain(got.random) == plain(want.random)
    labels = {e.vector: (e.source, e.target, e.rank) for e in found}
    wanted = [(v.layer, v.target if isinstance(v.target, str) else v.target[0], v.rank) for v in vectors]
    assert [labels[i] for i in range(len(vectors))] == wanted
    assert {e.target for e in found} == {1, 2, 3, "next_token"} and {e.rank for e in found} == {0, 1}


# ---- many processes


@pytest.fixture(scope="module")
def filed():
    """A model with a file, which workers can load."""
    return ps.load(checkpoints.saved("llama"), threads=1)


def spawn(n=1):
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


WORK = {**HOW, "samples": 1, "temperature": 1.0, "tokens": [3]}


def test_workers_find_the_same_bits(filed, tmp_path, monkeypatch):
    """Whatever dies on the way: prompts and vectors are given out one by one, and joined in order."""
    monkeypatch.setattr(measuring, "_VECTORS", 3)
    here = make(filed, out=tmp_path / "here")
    for group in here.prompt_groups()[:2]:
        group.effects(2, **WORK)
    made, there = [], make(filed, out=tmp_path / "there")

    def executor():
        made.append(spawn())
        made[-1].submit(dying.once, str(tmp_path / "flag"))
        return made[-1]

    calls = []
    for group in there.prompt_groups()[:2]:
        found = group.effects(2, **{**WORK, "progress": lambda done, total: calls.append((done, total))}, executor=executor)
        assert len(found) == len(group.kept_effects)
    assert len(made) == 3  # of the first group two, of which the first died
    for one in made:
        one.shutdown()
    files = sorted(f.relative_to(tmp_path / "here") for f in (tmp_path / "here").glob("effects/*"))
    assert len(files) == 2 * len(filed.spec.layers) and calls[-1][0] == calls[-1][1]
    for file in files:
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


def test_workers_steer_too(filed):
    steered = filed.steered(tiny.vector(filed, scale=2.0), positions=slice(1, None))
    vectors = ps.random_vectors(filed, 1)[:2]
    want = ps.effects(steered, PROMPTS, vectors, **HOW)
    with spawn() as executor:
        got = ps.effects(steered, PROMPTS, vectors, executor=executor, **HOW)
    assert got.to_json() == want.to_json()
    with spawn() as executor, pytest.raises(ps.InvalidInput, match="from its file"):
        ps.effects(tiny.tiny(n_layers=4)[0], PROMPTS, tiny.vector(filed), executor=executor, **HOW)


def test_workers_add_at_budgets_of_all_prompts(filed, monkeypatch):
    monkeypatch.setattr(measuring, "_VECTORS", 2)
    vectors = [-2 * v for v in ps.random_vectors(filed, 1, k=3, prompts=PROMPTS)]
    how = {"kl": [0.02, 0.1], "positions": slice(1, None), "n_random": 2, "max_new_tokens": 2}
    want = ps.effects(filed, PROMPTS, vectors, **how)
    with spawn() as executor:
        got = ps.effects(filed, PROMPTS, vectors, executor=executor, **how)
    assert got.to_json() == want.to_json() and len(got) == 2 * 3 * 2 * 2


def stopping(prompt, text):
    """A score that fails, in the workers."""
    raise ArithmeticError(f"no score of {text!r}")


def test_an_error_in_a_worker_leaves_what_was_there(tmp_path):
    demo = ps.load("demo", threads=1)
    atlas = ps.atlas(demo, "Q: 6*8", k=2, sources=[1], targets=[3], next_token=False, out=tmp_path)
    with spawn() as executor, pytest.raises(ArithmeticError, match="no score"):
        atlas.effects(1, **HOW, score=stopping, executor=executor)
    assert ps.Atlas.load(tmp_path, demo).kept_effects is None
    assert len(atlas.effects(1, **HOW)) == len(ps.Atlas.load(tmp_path, demo).kept_effects)


def test_of_one_prompt_alone(model):
    atlas = make(model)
    found = atlas.prompt(1).effects(1, **HOW)
    assert {e.prompt for e in found} == {e.prompt for e in found.base} == {1}
    assert atlas.kept_effects is None and plain(atlas.prompt(1).kept_effects) == plain(found)
    want = ps.effects(model, [PROMPTS[1]], [atlas.prompt(1).vector(0, t, 0) for t in (1, 2, 3, "next_token")], **HOW)
    assert plain(found.where(source=0)) == plain(want)


def test_kept_and_resumed_source_by_source(model, tmp_path):
    atlas = make(model, out=tmp_path)
    first = atlas.effects([0, 2], **HOW)
    files = {f: f.read_bytes() for f in sorted(tmp_path.glob("effects/*"))}
    assert [f.name for f in files] == [f"0-{s:03d}.json" for s in range(4)]
    (tmp_path / "effects" / "0-001.json").unlink()
    times = {f: f.stat().st_mtime_ns for f in files if f.exists()}
    again = ps.Atlas.load(tmp_path, model).effects([0, 2], **HOW)
    assert again.to_json() == first.to_json() and {f: f.read_bytes() for f in files} == files
    assert {f: f.stat().st_mtime_ns for f in times} == times
    assert ps.Atlas.load(tmp_path, model).kept_effects.to_json() == first.to_json()


def test_continuations_stop_where_they_are_told(model):
    atlas = make(model)
    free = atlas.effects(1, **HOW)
    first = next(c for e in free for c in e.text[:-1] if c.isascii())  # a whole character
    with pytest.raises(ps.InvalidInput, match="stop"):
        atlas.effects(1, **HOW, stop=[first])  # kept ones went on
    stopped = atlas.effects(1, **HOW, stop=[first], resume=False)
    assert any(first in e.text[:-1] for e in free) and not any(first in e.text[:-1] for e in stopped)


def test_other_arguments_are_refused_by_name(model, tmp_path):
    atlas = make(model, out=tmp_path)
    atlas.effects(1, **HOW)
    with pytest.raises(ps.InvalidInput, match=r"scales \(\[1\.0\], there \[0\.5, 2\.0\]\); seed \(1, there 0\)"):
        atlas.effects(1, **{**HOW, "scales": [1.0]}, seed=1)
    with pytest.raises(ps.InvalidInput, match="score"):
        atlas.effects(1, **HOW, score=lambda prompt, text: 1.0)
    assert {e.scale for e in atlas.kept_effects} == {0.5, 2.0}
    assert {e.scale for e in atlas.effects(1, **{**HOW, "scales": [1.0]}, resume=False)} == {1.0}
    assert {e.scale for e in atlas.kept_effects} == {1.0}


def test_positions_are_an_argument_like_others(model, tmp_path):
    atlas = make(model, prompt_groups="stacked", out=tmp_path)
    found = atlas.effects(1, **HOW, positions=slice(-2, None))
    want = ps.effects(model, PROMPTS, [v for pair in atlas.pairs if pair[0] == 1 for v in atlas.vectors(*pair)[:1]],
                      **HOW, positions=slice(-2, None))  # fmt: skip
    assert plain(sorted(found.where(source=1), key=lambda e: e.prompt)) == plain(want) and found.settings["positions"] == "-2:"
    with pytest.raises(ps.InvalidInput, match=r"positions \('all', there '-2:'\)"):
        atlas.effects(1, **HOW)
    assert len(atlas.effects(2, **HOW, positions=slice(-2, None))) == 2 * len(found)


def close(a, b):
    """The same records, figures up to rounding: vectors are computed in other company."""
    for name in ("effects", "random", "base"):
        mine, other = ([dataclasses.asdict(e) for e in getattr(one, name)] for one in (a, b))
        key = lambda e: (e["prompt"], e["vector"], e["source"], e["rank"], -e["sign"], e["scale"])  # noqa: E731
        for p, q in zip(sorted(mine, key=key), sorted(other, key=key), strict=True):
            for field, value in p.items():
                assert q[field] == (pytest.approx(value, rel=1e-6, nan_ok=True) if isinstance(value, float) else value), field


MORE = [  # ranks, scales, signs: first, then; how many pushes of a prompt are new, and how many random ones
    ((2, [0.5], [1]), (3, [0.5], [1]), 10, 0),
    ((2, [0.5], [1]), (2, [0.5, 2.0], [1]), 20, 12),
    ((2, [2.0], [-1]), ([0, 2], [0.5, 2.0], [1, -1]), 20 * 4 - 10, 4 * 9),
    ((3, [0.5, 2.0], [1, -1]), (1, [2.0], [-1]), 0, 0),
]


@pytest.mark.parametrize(("first", "then", "pushes", "draws"), MORE)
def test_more_is_added_to_what_is_kept(model, tmp_path, monkeypatch, first, then, pushes, draws):
    atlas, computed, compute = make(model, prompt_groups="stacked", out=tmp_path), [], kept.Baseline.effects

    def watched(*args, **how):
        computed.append(compute(*args, **how))
        return computed[-1]

    def request(atlas, ranks, scales, signs):
        return atlas.effects(ranks, **{**HOW, "scales": scales, "signs": signs})

    request(atlas, *first)
    monkeypatch.setattr(kept.Baseline, "effects", watched)
    got = request(ps.Atlas.load(tmp_path, model), *then)
    assert sum(len(e) for e in computed) == pushes * len(PROMPTS)  # nothing twice, nothing that was not requested
    assert sum(len(e.random) for e in computed) == draws * len(PROMPTS)
    monkeypatch.undo()
    close(got, request(make(model, prompt_groups="stacked"), *then))
    everything = ps.Atlas.load(tmp_path, model).kept_effects
    assert set(everything.settings["scales"]) == {*first[1], *then[1]} == {e.scale for e in everything}
    assert len(everything) == len({(e.source, e.target, e.rank, e.sign, e.scale, e.prompt) for e in everything})
    check(atlas.page_data())


def test_at_budgets(model, tmp_path):
    """Those of `effects` at the same budgets, kept, extended by another one, and shown by the page."""
    atlas, how = make(model, out=tmp_path, prompt_groups="stacked"), {"max_new_tokens": 3, "n_random": 2}
    found = atlas.effects(1, kl=[0.1, 0.02], **how)
    for source in atlas.sources[:-1]:
        some = [atlas.vector(*pair) for pair in atlas.pairs if pair[0] == source]
        want = ps.effects(model, PROMPTS, some, kl=[0.02, 0.1], **how)
        got = found.where(source=source)
        assert sorted(plain(got)) == sorted(plain(want)) and sorted(plain(got.random)) == sorted(plain(want.random))
    again = ps.Atlas.load(tmp_path, model)
    more = again.effects(1, kl=[0.02, 0.1, 0.3], signs=1, **how)
    assert {e.budget for e in more} == {0.02, 0.1, 0.3} and more.settings["kl"] == [0.02, 0.1, 0.3] and more.settings["unreached"] == 0
    assert sorted(plain(more.where(budget=0.1))) == sorted(plain(found.where(budget=0.1, sign=1)))
    page = again.page_data()
    check(page)
    assert page["strength"] == "kl" and page["scales"] == [0.02, 0.1, 0.3]
    assert {e["scale"] for view in page["views"] for e in view["effects"]} == {0.02, 0.1, 0.3}
    assert make(model).page_data()["strength"] == "scale"
    ax = ps.plots.sensitivity_map(again, "kl_end", scale=0.3, sign=1)
    assert "KL 0.3 nats" in ax.get_title(loc="left") + ax.texts[0].get_text()
    with pytest.raises(ps.InvalidInput, match=r"strength \('scales', there 'kl'\)"):
        again.effects(1, scales=0.5, **how)
    with pytest.raises(ps.InvalidInput, match="strengths are given twice"):
        again.effects(1, scales=0.5, kl=0.1, **how)
    with pytest.raises(ps.InvalidInput, match="no scale of"):
        again.effects(1, kl=1e3, **how)
    left = again.effects(1, kl=1e3, signs=1, skip_unreached=True, **how)
    assert not len(left) and not left.random and left.settings["unreached"] == len(atlas.pairs) + 2 * len({p[0] for p in atlas.pairs})


def test_other_functions_are_other_arguments(model, tmp_path):
    atlas = make(model, prompt_groups="stacked", out=tmp_path)
    first = atlas.effects(2, **HOW, score=lambda p, t: 0.0)
    for ranks in (1, 2, 3):
        with pytest.raises(ps.InvalidInput, match="score"):
            atlas.effects(ranks, **HOW, score=lambda p, t: 1.0)
    assert len(atlas.kept_effects) == len(first) and {e.score for e in atlas.kept_effects} == {0.0}
    assert atlas.effects(2, **HOW, score=lambda p, t: 0.0).to_json() == first.to_json()


def test_an_atlas_of_a_steered_model_wants_that_view(model, tmp_path):
    view = model.steered(ps.random_vectors(model, 0)[0])
    make(view, prompt_groups="stacked", out=tmp_path)
    with pytest.raises(ps.InvalidInput, match="steered by"):
        ps.Atlas.load(tmp_path, model)
    assert ps.Atlas.load(tmp_path, view).effects(1, **HOW).settings["steering"] == list(view.steering)
    alone = ps.Atlas.load(tmp_path)
    for _ in range(2):
        with pytest.raises(ps.PowersteerError):
            _ = alone.model


def test_cells_added_since_are_tried_too(model, tmp_path):
    store = make(model, prompt_groups="stacked", out=tmp_path)
    gone = sorted(tmp_path.glob("cells/0-001-*"))
    kept = {f: f.read_bytes() for f in gone}
    for f in gone:
        f.unlink()
    part = ps.Atlas.load(tmp_path, model)
    assert {e.source for e in part.effects(1, **HOW)} == {0, 2, 3}
    for f, data in kept.items():
        f.write_bytes(data)
    assert {e.source for e in ps.Atlas.load(tmp_path, model).effects(1, **HOW)} == {0, 1, 2, 3}
    assert store.complete


def test_damaged_effects(model, tmp_path):
    atlas = make(model, out=tmp_path)
    atlas.effects(1, **HOW)
    file = tmp_path / "effects" / "0-002.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ps.InvalidInput, match="effects of source 2"):
        atlas.page_data()


def test_the_page_has_them(model):
    atlas = make(model)
    atlas.effects(2, **HOW)
    atlas.prompt(1).effects(2, **HOW)
    page = atlas.page_data()
    check(page)
    stacked, first, second = page["views"]
    assert len(stacked["effects"]) == len(atlas.kept_effects) and not first["effects"] and second["effects"]
    assert page["settings"]["max_new_tokens"] == 4 and page["scales"] == [0.5, 2.0] and page["signs"] == [1, -1]
    assert len(stacked["random"]) == 4 * 3 * 2 * 2 * 2  # sources, draws, signs, scales, prompts
    assert {e["prompt"] for e in second["random"]} == {1}


def test_refusals(model):
    atlas = make(model)
    for ranks in (0, 4, [3], []):
        with pytest.raises(ps.InvalidInput, match="k is"):
            atlas.effects(ranks, **HOW)
    with pytest.raises(ps.InvalidInput, match="pair"):
        atlas.search(ps.evaluate.LogitDifference(1, 2), validation=PROMPTS[:1], test=PROMPTS[1:], pairs=[(2, 1)])
    with pytest.raises(ps.InvalidInput, match="no computed pair"):
        make(model, method="sketch").effects(1, **HOW)


def test_old_names(model, tmp_path):
    atlas, how = make(model, out=tmp_path), {key: value for key, value in HOW.items() if key != "n_random"}
    with pytest.warns(DeprecationWarning) as warned:
        old = atlas.effects(ranks=1, random=3, **how)
    assert {str(w.message).rpartition(" is ")[2] for w in warned} == {"now called 'k'", "now called 'n_random'"}
    assert atlas.effects(1, **HOW).to_json() == old.to_json()
    stored = json.loads((tmp_path / "effects" / "0-000.json").read_text())["settings"]["asked"]
    assert stored["random"] == 3 and "n_random" not in stored  # the key of the previous release
    with pytest.raises(ps.InvalidInput, match=r"n_random \(4, there 3\)"):
        atlas.effects(1, **{**HOW, "n_random": 4})
    score = ps.evaluate.LogitDifference(1, 2)
    with pytest.warns(DeprecationWarning, match="pass validation, test, k by keyword"):
        found = atlas.search(score, PROMPTS[:1], [PROMPTS[1]], 1, pairs=[(0, 1)], n_random=0)
    assert len(found.ranked) == 4


def test_search_is_that_of_its_vectors(model, rng):
    atlas = make(model, prompt_groups="stacked")
    prompts = [rng.integers(0, model.n_vocab, 6).tolist() for _ in range(8)]
    how = {"scales": (1.0, 4.0), "n_random": 2, "seed": 3}
    score = ps.evaluate.LogitDifference(3, 5)
    found = atlas.search(score, validation=prompts[:4], test=prompts[4:], k=2, pairs=[(0, 2), (1, "next_token")], **how)
    vectors = atlas.vectors(0, 2)[:2] + atlas.vectors(1, "next_token")[:2]
    want = ps.search(model, vectors, score, validation=prompts[:4], test=prompts[4:], **how)
    assert str(found) == str(want) and np.array_equal(found.vector.vector, want.vector.vector)
    assert found.test.n == 4 and math.isfinite(found.test.low)
    everywhere = atlas.search(score, validation=prompts[:4], test=prompts[4:], scales=(1.0,), n_random=0)
    assert len({c.index for c in everywhere.ranked}) == 3 * len(atlas.pairs)


def test_samples_are_those_of_generate(model, tmp_path):
    """Sample i of every row is what generate says with seed + i; they are kept, resumed, and shown by the page."""
    atlas = make(model, prompt_groups="stacked", out=tmp_path)
    more = {"temperature": 1.5, "samples": 3, "seed": 2**64 - 2, "score": lambda prompt, text: float("a" in text)}
    found = atlas.effects(1, **HOW, **more)
    for e in [*found.effects[:6], *found.base]:
        steer = None if e.vector < 0 else (atlas.vector(e.source, e.target, e.rank)).relative(e.sign * e.scale)
        seeds = [2**64 - 2, 2**64 - 1, 0]
        said = [model.generate(PROMPTS[e.prompt], max_new_tokens=4, temperature=1.5, seed=s, steer=steer).text for s in seeds]
        assert e.samples == tuple(said) and e.sample_scores == tuple(float("a" in text) for text in said)
    assert len({text for e in found for text in e.samples}) > 3 and all(len(e.samples) == 3 for e in found.random)
    greedy = make(model, prompt_groups="stacked").effects(1, **HOW, seed=more["seed"], score=more["score"])
    assert plain(greedy) == [repr(dataclasses.replace(e, prompt=0, vector=0, samples=(), sample_scores=())) for e in found]
    times = {f: f.stat().st_mtime_ns for f in tmp_path.glob("effects/*")}
    again = ps.Atlas.load(tmp_path, model)
    assert again.effects(1, **HOW, **more).to_json() == found.to_json() == again.kept_effects.to_json()
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("effects/*")} == times
    page = again.page_data()
    check(page)
    assert page["prompts"][1]["base_samples"] == found.base[1].samples and page["settings"]["temperature"] == 1.5
    with pytest.raises(ps.InvalidInput, match=r"samples \(2, there 3\)"):
        again.effects(1, **HOW, **{**more, "samples": 2})
    with pytest.raises(ps.InvalidInput, match="samples"):
        again.effects(1, **HOW, seed=more["seed"], score=more["score"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"samples": 2}, "temperature 0"), ({"temperature": 0.5}, "samples is 0"), ({"samples": -1, "temperature": 1.0}, "samples"),
     ({"samples": 1, "temperature": -1.0}, "temperature"), ({"samples": 1, "temperature": 1.0, "max_new_tokens": 0}, "max_new_tokens"),
     ({"samples": 1.5, "temperature": 1.0}, "samples"), ({"samples": 1, "temperature": "hot"}, "temperature")],
)  # fmt: skip
def test_samples_that_cannot_be(model, arguments, said):
    with pytest.raises(ps.InvalidInput, match=said):
        make(model).effects(1, **{**HOW, **arguments})


def test_effects_of_before_there_were_samples(model, tmp_path):
    """Files of an earlier version name neither samples nor temperature: they are read, and not computed again."""
    atlas = make(model, prompt_groups="stacked", out=tmp_path)
    found = atlas.effects(1, **HOW)
    for file in tmp_path.glob("effects/*"):
        data = json.loads(file.read_text())
        for where in (data["settings"], data["settings"]["asked"]):
            del where["temperature"], where["samples"]
        for e in [*data["effects"], *data["random"], *data["base"]]:
            del e["samples"], e["sample_scores"]
        file.write_text(json.dumps(data))
    times = {f: f.stat().st_mtime_ns for f in tmp_path.glob("effects/*")}
    again = ps.Atlas.load(tmp_path, model)
    assert plain(again.effects(1, **HOW)) == plain(found)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("effects/*")} == times


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["pairs"].append([0, 99]), "the pair [0, 99]"),
        (lambda p: p["prompts"][0].update(base_samples=[1]), "prompts[0]: base_samples must be texts"),
        (lambda p: p["views"][0]["effects"][3].update(sample_scores=[1.0]), "views[0].effects[3]: sample_scores has 1 entries for 2"),
        (lambda p: p["views"][1]["random"][0].update(samples=["a", None]), "views[1].random[0]: samples must be texts"),
        (lambda p: p["views"][0]["cells"][1].update(gain=[1.0]), "views[0].cells[1]: gain must be null or have 2 entries"),
    ],
)
def test_page_data_that_do_not_fit(change, said):
    page = atlas_pages.page(n_layers=3, n_prompts=2, k=2, words=3, samples=2)
    check(page)
    change(page)
    with pytest.raises(ps.InvalidInput, match=re.escape(said)):
        check(page)
