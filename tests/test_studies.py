"""The study of corrigibility: its questions against what is known of them, and a quick run on a tiny model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tiny
from oracles import needs

import powersteer as ps

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(autouse=True)
def _folder(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture(scope="module")
def model():
    return tiny.tiny("float32", n_layers=6, n_ctx=512)[0]


def published(stem, *options, right="A", form=" ({}) {}", begin="", end=""):
    choices = "\n".join(form.format(letter, text) for letter, text in zip("ABCD", options, strict=False))
    return {"question": f"{begin}{stem}\n\nChoices:\n{choices}{end}", "corrigible_letter": right}


@pytest.fixture
def file(tmp_path):
    """Enough questions for a quick run, and one with three choices."""
    sets = {
        "survival-instinct": [published(f"May we stop {i}?", "Yes", "Not now", right="AB"[i % 2]) for i in range(40)],
        "corrigible-neutral-HHH": [published(f"Shall we change {i}?", "No", "Do", right="BA"[i % 2]) for i in range(20)],
    }
    sets["survival-instinct"].insert(3, published("Which?", "This", "That", "Both"))
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(sets))
    return path


def test_questions_have_two_choices_in_any_of_the_published_forms(tmp_path):
    import questions

    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"s": [
        published("One?", "Yes", "No", right="B"),
        published("Which?", "This", "That", "Both"),
        published("Two?", "Go on", "Stop", form=" ({}){}", begin="Question: ", end="\n\nAnswer:"),
    ]}))  # fmt: skip
    one, two = questions.read(path, "s")
    assert (one.item, two.item) == (("One?", "No", "Yes"), ("Two?", "Go on", "Stop"))
    assert (one.wording, two.wording) == ("No", "otherwise")


def test_letters_and_content_are_apart(model):
    """Content is what `evaluate.choice` measures and changes its sign with the options; the preference for A does not."""
    import questions

    asked = questions.Asked(model)
    here, there = (questions.Question("", "Stop?", *pair) for pair in (("Yes", "No"), ("No", "Yes")))
    vector = tiny.vector(model)
    one, other = (asked.by_letters([q], [None, vector]) for q in (here, there))
    assert one["content"] == pytest.approx(-other["content"]) and one["letters"] == pytest.approx(other["letters"])
    expected = ps.evaluate.choice(model, [here.item], [None, vector], template=asked.letters, letters=("A", "B"))
    assert one["content"][:, 0] == pytest.approx([float(m) for m in expected])
    z = model(asked.letters(*here.item))[-1], model(asked.letters(*there.item))[-1]
    a, b = tiny.ids("AB")
    assert one["letters"][0, 0] == pytest.approx(sum(float(x[a] - x[b]) for x in z) / 2, abs=1e-4)


def test_words_are_scored_a_token(model):
    import questions

    asked = questions.Asked(model)
    question = questions.Question("", "Stop?", "Yes", "Of course not")

    def nats(option):
        start, words = model.tokens(asked.text("Stop?")), tiny.ids(option)
        logits = model([*start, *words])[len(start) - 1 : -1].astype(float)
        return float(np.mean([row[w] - np.log(np.exp(row).sum()) for row, w in zip(logits, words, strict=True)]))

    assert asked.by_words([question], [None])[0, 0] == pytest.approx(nats("Yes") - nats("Of course not"), abs=1e-4)


def test_a_quick_run_goes_on_where_it_stopped(model, file, tmp_path, monkeypatch):
    needs("matplotlib")
    import corrigibility
    import questions

    out = tmp_path / "out"
    monkeypatch.setattr(ps, "load", lambda path, threads: model)
    monkeypatch.setattr(sys, "argv", ["corrigibility.py", "tiny", "--questions", str(file), "--out", str(out), "--quick"])
    corrigibility.main()
    page = (out / "corrigibility_tiny.md").read_text()
    assert "no figure here means anything" in page and (out / "corrigibility_tiny.svg").exists()
    for method in ("power, certified", "power, published", "Fisher", "CAA", "pull-back", "DCT, linear", "MELBO", "random, draw 1"):
        assert f"| {method} |" in page
    assert "May we stop" not in page and "Shall we change" not in page  # pages quote no question

    asked = []
    by_letters = questions.Asked.by_letters
    monkeypatch.setattr(questions.Asked, "by_letters", lambda *args: asked.append(args) or by_letters(*args))
    (out / "CAA_test_of_survival-instinct_at_0.3.json").unlink()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only-page"])
    corrigibility.main()
    without = (out / "corrigibility_tiny.md").read_text()
    assert not asked and "Without test figures yet, or without a vector at the budget: CAA." in without
    sys.argv.remove("--only-page")
    corrigibility.main()
    assert len(asked) == 1 and (out / "corrigibility_tiny.md").read_text() == page


def test_a_folder_of_other_settings_is_refused(tmp_path):
    from results import Missing, Results

    results = Results(tmp_path, {"seed": 0})
    assert results.once("x", lambda: [1]) == Results(tmp_path, {"seed": 0}).once("x", lambda: [2]) == [1]
    with pytest.raises(SystemExit, match=r"other settings \(seed\)"):
        Results(tmp_path, {"seed": 1})
    results.reads_only = True
    with pytest.raises(Missing):
        results.once("y", lambda: [3])


def test_the_rule_of_beating_random():
    """A method beats random draws if the paired difference to the one that tests best has its interval above 0."""
    from corrigibility_figures import Figures

    class Told:
        sets, budgets, plain, power = ("main", "other"), (0.3,), "unsteered", "good"
        methods, draws = ["good", "luck", "draw 0", "draw 1"], ["draw 0", "draw 1"]
        noise = np.random.default_rng(0).normal(size=40)
        content = {"unsteered": noise, "draw 0": noise - 1, "draw 1": noise + 1, "good": noise + 1.5, "luck": noise[::-1] + 1.1}

        def test(self, method, of, kl, words):
            return {"content": self.content[method]}

    f = Figures(Told())
    assert f.best_draw == "draw 1" and f.methods == ["good", "luck"]
    assert [f.beats_random(m) for m in f.methods] == [True, False]
    assert f.shift("good").value == pytest.approx(1.5)


def test_correlations_are_resampled_by_group():
    from correlations import correlation

    x = np.arange(12.0)
    assert correlation(x, x**3, list(range(12))) == pytest.approx((1, 1, 1))
    assert correlation(x, -x, [0] * 6 + [1] * 6) is None  # two groups tell nothing
    noisy = x + np.random.default_rng(0).normal(size=12) * 6
    rho, low, high = correlation(x, noisy, list(range(12)))
    assert rho == pytest.approx(scipy.stats.spearmanr(x, noisy).statistic) and low < rho < high


def test_a_layer_whose_norm_is_one_tokens_is_left_out():
    """Content of a unit vector is what a vector of some length moves, over that length."""
    from correlations import correlation
    from corrigibility_figures import UNIT, Figures

    rng = np.random.default_rng(1)
    where = [(s, t, r) for s in range(4) for t in range(s + 1, 5) for r in range(2)]
    norm, unit = np.array([10.0 ** s for s, *_ in where]), rng.random(len(where))
    kept = {
        "where": where, "content": (-0.35 * norm * unit).tolist(), "length": 0.35, "norm": norm.tolist(),
        "mean over median norm": {"0": 1.0, "1": 2.9, "2": 20.0, "3": 1.1}, "known": {"σ": unit.tolist()},
    }  # fmt: skip

    class Told:
        sets, budgets, plain, power, methods, draws = ("main", "other"), (0.3,), "unsteered", "good", [], []
        model = tiny.tiny("float32", n_layers=5)[0]

        def to_first_order(self, folder):
            return kept

    found = Figures(Told()).first_order
    assert found["left out"] == [2] and found["where"] == [at for at in where if at[0] != 2] and found["pairs"] == 4 + 3 + 1
    assert found["known"][UNIT]["σ"].rho == pytest.approx(1)
    rest = [i for i, at in enumerate(where) if at[0] != 2]
    by_length = correlation(unit[rest], (norm * unit)[rest], [where[i][0] for i in rest])
    assert found["known"]["0.35 norms"]["σ"].rho == pytest.approx(by_length.rho) and by_length.rho < 0.9
