"""The studies of forks and of latent behaviours: the rules of texts, the splits, the counting of clusters, and a run on little."""

import runpy
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

import powersteer as ps

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
fork_kinds, forks, forks_page, items, latent, latent_page, results, selection = (
    pytest.importorskip(name, reason="the studies are not in an installed copy")
    for name in ("fork_kinds", "forks", "forks_page", "items", "latent", "latent_page", "results", "selection")
)
KINDS, split, Results = fork_kinds.KINDS, items.split, results.Results

TEXTS = {  # of the first side, of the second, of neither
    "refusing": ("I'm sorry, but as an AI I don't have a body.", "I love cycling in winter, it is fun.", "Oh."),
    "working out": (
        "To find the total, we need to add 4 and 5, which gives 9 apples in all.", "She has 9 apples.",
        "It depends on many things, and nobody can know.",
    ),
    "agreeing": ("Yes, that is correct.", "No, a spider has eight legs.", "Spiders live in many countries."),
    "list": ("Here are some:\n\n1. It is healthy.", "Planting trees is good for the air.", "Trees."),
    "language": ("La mer est un endroit que les enfants aiment.", "The sea is a setup that is blue.", "Mer 12 %"),
    "tone": ("Dear Anna,\n\nI hope this message finds you well.", "Hey there, just checking about the keys!", "The keys are here."),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_rule_reads_the_side_of_a_text(kind):
    first, second, neither = TEXTS[kind.name]
    sides = [[side.rule(text) for side in kind.sides] for text in (first, second, neither)]
    assert sides == [[True, False], [False, True], [False, False]]


def test_no_text_takes_both_sides():
    texts = [text for of_kind in TEXTS.values() for text in of_kind]
    texts += [one + " " + other for one in texts for other in texts]
    assert not [(kind.name, text) for kind in KINDS for text in texts if all(side.rule(text) for side in kind.sides)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_splits_of_a_kind_are_disjoint_and_large_enough(kind):
    parts = {name: set(split(kind.topics, name, 10**6)) for name in ("train", "validation", "test")}
    assert len(set(kind.topics)) == len(kind.topics) == sum(map(len, parts.values()))
    assert set.union(*parts.values()) == set(kind.topics)
    assert len(parts["test"]) >= 100 and len(parts["validation"]) >= 8 and len(parts["train"]) >= 8
    assert all("{}" in phrasing for phrasing in kind.phrasings)


def test_the_opening_of_an_answer_belongs_to_what_is_scored():
    lists, prose = KINDS[3].sides
    assert lists.opened(None, " Fresh air") and not lists.score(None, " Fresh air") and not prose.opened(None, "\n1. air")


@pytest.fixture(scope="module")
def model():
    return tiny(n_layers=3, n_ctx=384)[0]


def test_a_study_of_forks_goes_on_where_it_stopped(model, tmp_path):
    sizes = replace(forks.QUICK, kinds=1)

    def study(phases):
        return forks.run(model, Results(tmp_path, {"model": "tiny", "SHA-256": "0"}), sizes, phases)

    study(["main"])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (fork,) = study(forks.PHASES)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert len(fork.kept("unsteered")["texts"]) == sizes.test and fork.kept("unsteered")["raw"] is not None
    told = [got for c in fork.conditions("budgets") if (got := fork.kept(*c))]
    assert told and all(len(got["coherent"]) == sizes.short_test for got in told)
    page = tmp_path / "page.md"
    forks_page.write_page([fork], page)
    text = page.read_text()
    assert "On 1 forks" in text and "Not run" not in text and page.with_suffix(".svg").exists()
    for section in ("The forks", "The chosen vectors", "At other positions", "At other budgets", "Texts"):
        assert f"## {section}" in text


def test_a_run_as_a_command_tells_of_all_test_prompts(model, tmp_path, monkeypatch):
    """The page imports the module that runs, a second time."""
    monkeypatch.setattr(ps, "load", lambda path, threads: model)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"weights")
    monkeypatch.setattr(sys, "argv", ["forks.py", str(file), "--out", str(tmp_path / "out"), "--quick", "--phase", "main"])
    runpy.run_path(forks.__file__, run_name="__main__")
    text = (tmp_path / "out/forks.md").read_text()
    n = forks.QUICK.test
    none_of_all, none_of_few = (str(forks_page.cell(ps.evaluate.summary([0.0] * k, "share"))) for k in (n, forks.QUICK.short_test))
    (row,) = (line for line in text.splitlines() if line.startswith("| refusing: "))
    assert row.split(" | ")[1] == none_of_all != none_of_few and "budget: `0.3 nats`" in text


def test_a_page_says_what_was_not_run(model, tmp_path):
    sizes = replace(forks.QUICK, kinds=2)
    done, missing = (forks.Fork(model, Results(tmp_path, {}), kind, sizes) for kind in KINDS[:2])
    for condition in done.conditions("main"):
        _keep(done, condition, [0.0] * 3)
    done.results.once("refusing.plain", lambda: {"rates": [0, 1], "wanted": 0, "repetition": 0.0, "perplexity": 9.0})
    assert not forks_page._complete(missing) and forks_page._complete(done)
    assert done.beats("Fisher") is False and missing.beats("Fisher") is None
    forks_page.write_page([missing], tmp_path / "page.md")
    assert "**Not run to the end: working out.**" in (tmp_path / "page.md").read_text()


def _keep(fork, condition, coherent):
    method, setup = condition
    kept = {"coherent": coherent, "raw": coherent, "texts": ["a"] * len(coherent), "repetition": 0.0}
    fork.results.once(f"{fork.kind.name}.test {fork.key(method, setup)}", lambda: kept)


@pytest.mark.parametrize(("mine", "random", "expected"), [(90, 10, True), (90, 85, False), (15, 10, False)])
def test_a_method_beats_every_random_draw_or_none(model, tmp_path, mine, random, expected):
    fork = forks.Fork(model, Results(tmp_path, {}), KINDS[0], forks.FULL)
    for method, n in (("unsteered", 5), ("random 0", 0), ("random 1", random), ("random 2", 0), ("Fisher", mine)):
        _keep(fork, (method, forks.MAIN), [1.0] * n + [0.0] * (100 - n))
    assert fork.beats("Fisher") is expected and fork.beats("power") is None


def test_what_passes_is_tested_again_on_the_prompts_that_are_left(model, tmp_path):
    """The first 40 test prompts at another budget, then the other 60, each beside the plain texts of the same prompts."""
    setup = forks.Setup(kl=0.1)
    again = setup._replace(again=True)
    fork = forks.Fork(model, Results(tmp_path, {}), KINDS[0], forks.FULL)
    _keep(fork, ("unsteered", forks.MAIN), [0.0] * 40 + [1.0] * 60)
    for method, first, left in (("Fisher", 30, 60), ("power", 5, 0), *((r, 4, 0) for r in forks.RANDOM)):
        _keep(fork, (method, setup), [1.0] * first + [0.0] * (40 - first))
        _keep(fork, (method, again), [1.0] * left + [0.0] * (60 - left))
    assert fork.passed() == [("Fisher", setup)]
    assert fork.conditions("again") == [("Fisher", again), *((r, again) for r in forks.RANDOM)]
    assert [float(fork.share("unsteered", p)) for p in (forks.MAIN, setup, again)] == [0.6, 0, 1]
    assert fork.beats("Fisher", again) is False  # the plain model does it there, too
    prompts = fork.sizes.test
    assert [range(prompts)[fork.part(p)] for p in (setup, again)] == [range(40), range(40, 100)]


def test_the_budget_of_the_choice_is_no_other_budget(model, tmp_path):
    fork = forks.Fork(model, Results(tmp_path, {}), KINDS[0], replace(forks.FULL, budget=0.1))
    assert [setup.kl for setup in fork.elsewhere["budgets"]] == [1.0]
    _keep(fork, ("Fisher", forks.MAIN), [1.0] * 100)
    assert fork.has("Fisher") and not any(fork.has(*c) for phase in fork.elsewhere for c in fork.conditions(phase))


def test_random_draws_are_independent_at_every_site():
    like = [ps.SteeringVector(np.eye(40)[0], layer, "mlp_out", site_norm=3.0) for layer in (4, 4, 10, 10)]
    draws = selection.random_draws(like, 3)
    directions = np.array([v.direction for draw in draws for v in draw])
    assert np.abs(directions @ directions.T - np.eye(12)).max() < 0.7  # chance: 1 / sqrt(40) = 0.16
    assert [(v.layer, v.site_norm) for v in draws[2]] == [(4, 3), (4, 3), (10, 3), (10, 3)]
    assert selection.random_draws(like, 2) == draws[:2]


def test_latent_clusters_hold_two_vectors_and_nothing_else():
    at = np.array([0, 0.1, 0.2, 5, 5.1, 9, 9.1, 20, 20.1, 20.2, 30, 30.1])
    sampled = at < 1
    vector = np.array(["", "", "", "a", "b", "c", "c", "d", "e", "", "e", "f"])  # the text at 20.2 is of a random vector
    control = at == 20.2
    labels, threshold = latent.clusters(np.abs(at[:, None] - at), sampled)
    assert threshold == pytest.approx(0.1) and labels[3] == labels[4] != labels[5]
    groups = np.round(at).astype(int)
    assert latent.latent(groups, vector, sampled | control) == [5, 30]  # at 9 is one vector, at 20 there is a random one
    assert latent.latent(groups, vector, sampled | control, np.isin(vector, ["a", "b", "e"])) == [5]
    wide = np.abs(groups[:, None] - groups) + 0.05 * (1 - np.eye(len(at)))  # between neighbours 0.05, which is the threshold
    assert latent.count(wide, sampled, vector, control) == 2
    assert latent.count(wide, sampled, vector, np.zeros(len(at), bool)) == 3


def test_distances_are_those_of_equal_and_unequal_texts():
    texts = ["a lighthouse at sea", "a lighthouse at sea", "nine green bottles", "a lighthouse at sea, and nine green bottles on a wall"]
    D = latent.compression_distances(texts)
    assert D[0, 1] == 0 and (D == D.T).all() and D[0, 3] < D[0, 2]
    short, long, both = (len(zlib.compress(text.encode(), 9)) for text in (texts[2], texts[3], f"{texts[2]}\n{texts[3]}"))
    assert D[2, 3] == (both - short) / long
    X = np.array([[1.0, 0], [2, 0], [0, 1]])
    assert latent.cosine_distances(X) == pytest.approx(np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]]))


def test_a_study_of_latent_behaviours_goes_on_where_it_stopped(model, tmp_path):
    def study():
        return latent.run(model, Results(tmp_path, {"model": "tiny", "SHA-256": "0"}), latent.QUICK)

    (one,) = study()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    study()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    kinds = [text["kind"] for text in one.texts()]
    assert kinds.count("sample") == 8 and kinds.count("map") > 0 and kinds.count("random") > 0
    assert one.embeddings().shape == (len(kinds), model.d_model)
    page = tmp_path / "page.md"
    latent_page.write_page([one], page)
    assert "## Latent clusters" in page.read_text() and page.with_suffix(".svg").exists()


def test_the_verdict_needs_two_of_three_prompts():
    rows = [{"half map": m, "half random": r} for m, r in ((2, 1), (1, 1), (3, 0))]
    assert latent_page.verdict(rows, 3) and not latent_page.verdict(rows[:2] + [rows[1]], 3)


def test_a_page_tells_families_apart_and_intervals_over_stems(model, tmp_path):
    """A method that agrees on every capital and on no animal, beside random draws that never agree."""
    fork = forks.Fork(model, Results(tmp_path, {}), KINDS[2], forks.FULL)
    families = [family for family, _ in fork.stems()]
    for method in ("unsteered", "forced", *forks.METHODS):
        _keep(fork, (method, forks.MAIN), [float(method == "power" and family == "capitals") for family in families])
    page = forks_page.Page("", "", {})
    forks_page._alike(page, [fork])
    text = "\n".join(page.lines)
    n, stems = families.count("capitals"), len(set(fork.stems()))
    (row,) = (line for line in text.splitlines() if line.startswith("| agreeing | everywhere | power |"))
    assert row.split(" | ")[3] == str(stems) and row.endswith("| yes |") and f"| capitals | {n} |" in text
    (capitals,) = (line.split(" | ") for line in text.splitlines() if line.startswith("| capitals |"))
    assert capitals[4].startswith("100%") and capitals[2].startswith("0%")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_topic_has_its_stem(kind):
    stems = [kind.stem(topic) for topic in kind.topics]
    assert {stem for _, stem in stems} == {s for some in kind.stems.values() for s in some}
    assert all(sum(topic.startswith(s) or topic.endswith(s) for some in kind.stems.values() for s in some) == 1 for topic in kind.topics)


def test_an_interval_over_stems_is_as_wide_as_its_stems_are_alike(model, tmp_path):
    """Prompts of one stem that all give the same answer count as one."""
    fork = forks.Fork(model, Results(tmp_path, {}), KINDS[3], forks.FULL)
    stems = fork.stems()
    half = sorted(set(stems))[: len(set(stems)) // 2]
    _keep(fork, ("Fisher", forks.MAIN), [float(stem in half) for stem in stems])
    _keep(fork, ("power", forks.MAIN), [float(i % 2) for i in range(len(stems))])
    alike, apart = ((fork.share(m), fork.share_by_stem(m)) for m in ("Fisher", "power"))
    widths = [[r.high - r.low for r in pair] for pair in (alike, apart)]
    assert widths[0][1] > 1.7 * widths[0][0] and widths[1][1] < 1.2 * widths[1][0]
    assert alike[1].value == alike[0].value and alike[1].low < alike[1].value < alike[1].high
