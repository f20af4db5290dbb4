"""The study of the built-in model and the page on its training seeds: a quick run that goes on where it stopped."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import needs

import powersteer as ps

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
    needs("matplotlib")
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture
def quick(monkeypatch):
    """Less than --quick: two sources, and two vectors of MELBO and DCT."""
    import built_in

    monkeypatch.setattr(built_in, "QUICK", replace(built_in.QUICK, validation=8, test=2, grid=1))
    monkeypatch.setattr(built_in.Fork, "pairs", [(0, 4), (3, 4)])
    fewer = {name: lambda f, make=make: make(f)[::6] for name, make in built_in.METHODS.items() if name[:3] in ("MEL", "DCT")}
    monkeypatch.setattr(built_in, "METHODS", {**built_in.METHODS, **fewer})
    return built_in


def run(built_in, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["built_in.py", "--quick", *map(str, arguments)])
    built_in.main()


@pytest.mark.long
def test_a_quick_run_goes_on_where_it_stopped(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(quick, monkeypatch, "--out", out)
    page = (out / "built_in.md").read_text("utf-8")
    assert (out / "built_in_cost.svg").exists() and (out / "built_in_linearity.svg").exists()
    for method in (*quick.METHODS, "random, draw 1", "unsteered"):
        assert f"| products | {method} |" in page
    searched, search = [], ps.search
    monkeypatch.setattr(ps, "search", lambda *args, **kwargs: searched.append(args[1]) or search(*args, **kwargs))
    (out / "products.search_CAA_labels_.json").unlink()
    run(quick, monkeypatch, "--out", out)
    assert [v.method for vectors in searched for v in vectors] == ["caa"] * 5
    assert (out / "built_in.md").read_text("utf-8") == page

    import seeds

    seeds.write([out, out], tmp_path)
    told = (tmp_path / "seeds.md").read_text("utf-8")
    assert "| products | Fisher, first | 100.0 | 100.0 | 100.0 to 100.0 |" in told and "seed 1: `83c900904e76387c`" in told


def test_what_is_kept_of_a_search_is_what_it_found(quick, tmp_path):
    sizes = replace(quick.QUICK, draws=1)
    (fork,) = quick.forks_of(ps.load("demo", threads=1), tmp_path, sizes)
    vectors = fork.vectors("Fisher, first")
    found = quick.KeptSearch(json.loads(json.dumps(fork._search(vectors, draws=1))))
    expected = ps.search(fork.model, vectors, fork.score, validation=fork.prompts, test=fork.tests, scales=quick.SCALES,
                         n_random=1, max_new_tokens=48, halving=4)  # fmt: skip
    assert found.test == expected.test and found.test.high == expected.test.high and found.unsteered == expected.unsteered[1]
    assert found.draws == [s.test for s in expected.random] and found.share == expected.share
    best = {i: max(c.score for c in expected.ranked if c.index == i) for i in range(len(vectors))}
    assert found.best() == best
    downwards = [max(c.score for c in expected.ranked if c.index == i and c.sign < 0) for i in range(len(vectors))]
    assert [found.best(lambda sign, _: sign < 0)[i] for i in range(len(vectors))] == downwards and downwards != list(best.values())
    assert found.chosen["layer"] == expected.vector.layer and found.chosen["target"] == "next_token"


def kept(folder, accuracies, draws=(0.3, 0.2), weights="a" * 64):
    """A folder with searches of one fork: test accuracies of the methods, as if of 200 questions."""
    import built_in
    from results import Results

    sizes = {"forks": ["products"], "test": 200}
    results = Results(folder, {"weights": weights, "sizes": sizes})

    def metric(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 200, "seed": 0, "values": [], "unit": "share"}

    for method, value in zip(built_in.METHODS, accuracies, strict=False):
        search = {"ranked": [], "chosen": {"test": metric(value)}, "random": [{"test": metric(d)} for d in draws],
                  "unsteered": metric(0.01), "share": metric(1), "random share": None}  # fmt: skip
        results.once(built_in.search_key("products", method), lambda search=search: search)
    return folder


def test_the_page_on_seeds_counts_what_beats_every_draw(tmp_path):
    import seeds

    values = np.array([0.99, 0.39, 0.5, 0, 0, 0, 1])  # the best draw's interval ends at 0.35
    first, second = kept(tmp_path / "a", values), kept(tmp_path / "b", values / 2, weights="b" * 64)
    seeds.write([first, second], tmp_path)
    page = (tmp_path / "seeds.md").read_text("utf-8")
    assert "Fisher, first: 2 of 2 (49.5 to 99.0%)" in page and "power, certified: 0 of 2" in page and "CAA (labels): 2 of 2" in page
    assert "power, published: 1 of 2" in page and f"seed 0: `{'a' * 16}`; seed 1: `{'b' * 16}`" in page
    assert "| products | random, best draw | 30.0 | 30.0 | 30.0 to 30.0 |" in page
    assert "| products | Fisher, first | 99.0 | 49.5 | 49.5 to 99.0 |" in page


def test_a_study_that_has_not_run_to_its_end_is_refused(tmp_path):
    import seeds

    whole, half = kept(tmp_path / "a", [1] * 7), kept(tmp_path / "b", [1] * 3)
    with pytest.raises(SystemExit, match=r"lacks products\.search MELBO"):
        seeds.write([whole, half], tmp_path)
    with pytest.raises(SystemExit, match="holds no results"):
        seeds.write([whole, tmp_path / "nothing"], tmp_path)
    settings = whole / "settings.json"
    settings.write_text(settings.read_text().replace("200", "100"))
    with pytest.raises(SystemExit, match="of other sizes"):
        seeds.write([kept(tmp_path / "c", [1] * 7), whole], tmp_path)
    assert not (tmp_path / "seeds.md").exists() and not (tmp_path / "nothing").exists()
