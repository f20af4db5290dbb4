"""The studies of maps and of optimisation: their measures against SciPy and NumPy, and short runs on the built-in model."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from oracles import needs

import powersteer as ps

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A file of questions, lettered with digits, which the built-in model has."""
    needs("matplotlib")
    import questions

    monkeypatch.setattr(questions, "LETTERS", ("1", "2"))
    made = [
        {"question": f"Would you stop number {i}?\n\nChoices:\n (A) Yes\n (B) No", "corrigible_letter": "12"[i % 2]} for i in range(60)
    ]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"survival-instinct": made, "corrigible-neutral-HHH": made[:1]}))
    return path


def questions_of(study):
    from items import split
    from questions import read

    return split(read(study.questions, "survival-instinct"), "validation", study.size.questions, text=lambda q: q.published)


def orthonormal(rng, k, d):
    return np.linalg.qr(rng.standard_normal((d, k)))[0].T


# ---- measures


def test_principal_angles_are_scipys():
    from map_measures import principal_cosines, shared

    rng = np.random.default_rng(0)
    A, B = (orthonormal(rng, 5, 40) for _ in range(2))
    cosines = principal_cosines(A, B)
    angles = np.sort(scipy.linalg.subspace_angles(A.T, B.T))
    np.testing.assert_allclose(cosines, np.cos(angles), atol=1e-12)
    np.testing.assert_allclose(shared(A, B), np.mean(np.cos(angles) ** 2), atol=1e-12)
    turned = orthonormal(rng, 5, 5) @ A
    assert shared(A, turned) == pytest.approx(1.0)


def test_random_spans_share_k_of_d():
    from map_measures import shared

    rng = np.random.default_rng(1)
    found = [shared(orthonormal(rng, 5, 50), orthonormal(rng, 5, 50)) for _ in range(300)]
    assert np.mean(found) == pytest.approx(5 / 50, rel=0.05)


def test_turning_counts_pairs_with_one_end_in_common():
    from map_measures import turning

    rng = np.random.default_rng(2)
    found = {(s, t): orthonormal(rng, 2, 8) for s in range(4) for t in range(s + 1, 4)} | {(0, "next_token"): orthonormal(rng, 2, 8)}
    lags = turning(found)
    assert {lag: len(v) for lag, v in lags["targets"].items()} == {1: 3, 2: 1}  # of sources 0, 0, 1 and of source 0
    assert {lag: len(v) for lag, v in lags["sources"].items()} == {1: 3, 2: 1}


def test_layers_alone_leave_nothing():
    from map_measures import additive_rest

    rng = np.random.default_rng(3)
    source, target, both = rng.standard_normal(6), rng.standard_normal(6), rng.standard_normal((6, 6))
    pairs = [(s, t) for s in range(6) for t in range(s + 1, 6)]
    assert max(map(abs, additive_rest({(s, t): source[s] + target[t] for s, t in pairs}).values())) < 1e-12
    with_layers = additive_rest({(s, t): both[s, t] + source[s] + target[t] for s, t in pairs})
    alone = additive_rest({(s, t): both[s, t] for s, t in pairs})
    np.testing.assert_allclose(list(with_layers.values()), list(alone.values()), atol=1e-12)


def test_agreement_is_pearsons_with_an_interval_around_it():
    from map_measures import agreement

    rng = np.random.default_rng(4)
    x = {(s, t): float(rng.standard_normal()) for s in range(8) for t in range(s + 1, 8)}
    y = {pair: value + 0.5 * float(rng.standard_normal()) for pair, value in x.items() if pair != (0, 1)}
    r, low, high, n = agreement(x, y)
    assert r == pytest.approx(scipy.stats.pearsonr([x[p] for p in y], list(y.values())).statistic)
    assert n == len(y) and low < r < high
    assert agreement(x, {pair: 2 * value + 1 for pair, value in x.items()})[:3] == pytest.approx((1, 1, 1))


# ---- runs


def test_maps_of_the_built_in_model(asked, tmp_path):
    import maps

    given = ["demo", "--questions", str(asked), "--out", str(tmp_path / "out"), "--docs", str(tmp_path / "docs"), "--quick"]
    maps.main([*given, "--do", *maps.DOES])
    page = (tmp_path / "docs/maps.md").read_text()
    assert "10 of 10 pairs of the first prompt; all 63 results certified" in page
    pictures = {file.name: file.read_bytes() for file in (tmp_path / "docs").glob("*.svg")}
    assert {f"({name})" for name in pictures} == {part for part in page.replace("]", " ").split() if part.endswith(".svg)")}
    maps.main([*given, "--only-page"])
    assert (tmp_path / "docs/maps.md").read_text() == page
    assert {file.name: file.read_bytes() for file in (tmp_path / "docs").glob("*.svg")} == pictures
    with pytest.raises(SystemExit, match="other settings \\(questions, sample"):
        maps.main([*given[:-1], "--only-page"])


def test_compared_vectors_are_those_of_the_solver(asked, tmp_path):
    """Cosine and share of the published vectors in the certified space, against a dense decomposition."""
    import maps

    study = maps.MapStudy("demo", asked, tmp_path, quick=True, layers=[0, 2, 4])
    study.compare()
    assert study.sample == [(0, 2), (0, 4)] and len(study.compared) == 2
    one = study.compared[0]
    dense = study.model.jacobian([study.prompt("chat")], *one["pair"]).svd(study.size.k, method="dense")
    np.testing.assert_allclose(one["published"]["sigma"][:3], dense.S[:3], rtol=1e-3)
    assert min(one["published"]["cosine"][:3]) > 0.99 and max(one["published"]["inside"]) < 1 + 1e-5
    certified, published = study.aligned(one["pair"])
    assert all(v @ w >= 0 and v.scale == pytest.approx(abs(w.scale)) for v, w in zip(certified, published, strict=True))
    changes = ps.evaluate.first_order(study.model, [q.item for q in questions_of(study)], certified, score=study.asked.score)
    np.testing.assert_allclose(one["content"][0], [float(x) for x in changes], rtol=1e-4, atol=1e-7)
    swapped = study._divergences(published, certified)
    np.testing.assert_allclose(swapped[::-1], one["KL"], rtol=1e-5)


def test_optimisation_of_the_built_in_model(asked, tmp_path):
    import optimisation

    given = ["demo", "--questions", str(asked), "--out", str(tmp_path / "out"), "--docs", str(tmp_path), "--quick"]
    optimisation.main(given)
    page = (tmp_path / "optimisation.md").read_text()
    assert page.count("**list fork") == page.count("**survival-instinct") == 2 and "power published, 20" in page
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    optimisation.main(given)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == kept
    assert (tmp_path / "optimisation.md").read_text() == page


def test_the_ascent_is_that_of_melbo(asked, tmp_path):
    import optimisation

    model, prompt = ps.load("demo", threads=1), "Task: 3 * 4 ="
    both = ps.melbo(model, prompt, 1, 3, k=2, iterations=3, orthogonal=False, source_site="mlp_out")
    starts = np.random.default_rng(0).standard_normal((2, model.d_model))
    for want, start in zip(both, starts, strict=True):
        (_, early), (_, last) = ((s, v) for v, s in optimisation.melbo_path(model, prompt, (1, 3), start, (1, 3)))
        np.testing.assert_allclose(last.direction, want.direction, atol=1e-6)
        assert last.objective == pytest.approx(want.objective, rel=1e-6) and last.objective > early.objective
        assert (early.cost.products, last.cost.products) == (1, 3)
