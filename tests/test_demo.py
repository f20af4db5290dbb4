"""The built-in model and what it is there to show."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from oracles import needs

import powersteer as ps
from powersteer.demo import story as demo
from powersteer.demo.forks import FORKS, questions


@pytest.fixture(scope="module")
def model():
    return ps.load("demo")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The whole demo, once: (what it prints as JSON, the page)."""
    needs("plotly")
    page = tmp_path_factory.mktemp("demo") / "atlas.html"
    words = [sys.executable, "-m", "powersteer", "demo", "--json", "--atlas", page]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), page, done.stderr


@pytest.mark.parametrize(("fork", "goal"), [("products", 0.95), ("recipes", 0.9), ("sentences", 0.9)])
def test_the_claim(shown, fork, goal):
    (r,) = [r for r in shown[0]["forks"] if r["name"] == fork]
    assert r["baseline"] <= 0.1 and r["forced"] >= 0.95 and r["n_test"] == 200
    assert r["steered"] >= goal and r["target"] == "next_token" and r["rank"] == 0
    assert r["ci"][0] > max(r["random_best"], r["random_same_norm"], r["baseline"])
    assert r["random_same_norm"] < 0.1


def test_power_vectors_flip_too(shown):
    by = {r["name"]: r for r in shown[0]["forks"]}
    clear = [r["power"] for r in by.values() if r["power_vector"]["ci"][0] > r["random_best"]]
    assert max(clear) >= 0.8 and sum(p >= 0.6 for p in clear) >= 2  # 87.5 and 82.5% where this was written; choices may tie
    assert sum(r["random_share"] < r["share"] for r in by.values()) >= 2
    assert all(isinstance(r["power_vector"]["target"], int) for r in by.values())


def test_the_page_has_the_texts(shown):
    text = shown[1].read_text("utf-8")
    assert text.startswith("<!doctype html>") and shown[0]["seconds"] > 0


def test_it_says_how_far_it_is(shown):
    steps = [re.match(r"(\w+): +(\d+)%", part) for part in re.split(r"[\r\n]", shown[2])]
    seen = [(step[1], int(step[2])) for step in steps if step]
    assert list(dict.fromkeys(name for name, _ in seen)) == [*FORKS, "map"] and seen[0] == ("products", 0)
    for name in [*FORKS, "map"]:
        of_one = [percent for n, percent in seen if n == name]
        assert of_one == sorted(of_one) and len(set(of_one)) > 5 and of_one[-1] <= 100


@pytest.mark.long
def test_parts_of_a_measurement_are_its_whole(model):
    seen = []
    demo.measure(model, "recipes", k=1, n_test=4, same_norm=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and {total for _, total in seen} == {100} and seen[-1] == (100, 100)
    assert len({done for done, _ in seen}) > 20


def test_what_it_shows_on_a_terminal(model, capsys):
    from powersteer.cli import demo as command

    vec = demo.fisher_vectors(model, [q.prompt for q in questions("recipes", "validation", 4)])[-1].relative(0.35)
    question = questions("recipes", "test", 1)[0]
    command._show(model, question.prompt, {"Fisher": vec})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Q:", "unsteered", "Fisher", "Fisher"]
    wanted = [g.text.strip() for g in model.generate([question.prompt] * 3, max_new_tokens=demo.ANSWER, steer=[None, vec, -vec])]
    assert [line[18:].strip() for line in lines[1:]] == wanted and question.alternative.strip() in wanted


# ---- scores


def test_solved_wants_the_whole_answer():
    q = questions("products", "test", 1)[0]
    score = demo.Solved.of([q])
    assert score(q.prompt, q.alternative) and score(q.prompt, q.alternative + "\nQ: 1")
    assert not score(q.prompt, q.default) and not score(q.prompt, q.alternative[:-2] + ".")


@pytest.mark.parametrize("fork", FORKS)
def test_first_word_is_what_generation_begins_with(model, fork):
    asked = questions(fork, "validation", 6)
    screen = demo.FirstWord.of(model, asked)
    vec = demo.fisher_vectors(model, [q.prompt for q in asked])[2]
    for v in (None, vec.relative(1.0), vec.relative(-1.0)):
        got = ps.evaluate.accuracy(model, [q.prompt for q in asked], v, score=screen).values
        said = model.generate([q.prompt for q in asked], max_new_tokens=1, steer=v)
        assert got == tuple(float(g.tokens[0] == screen.begins[q.prompt]) for g, q in zip(said, asked, strict=True))


def test_forced_is_the_alternatives_first_token(model):
    for fork in FORKS:
        q = questions(fork, "test", 1)[0]
        tokens = demo.forced(model, q)
        assert "".join(model.to_str_tokens(tokens)).endswith(q.prompt + q.alternative[: len(q.alternative.split()[0]) + 1])
    assert demo.forced_accuracy(model, questions("recipes", "test", 8)) >= 0.9


# ---- the model


def test_it_is_exact_to_transformers(model):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    hf = transformers.AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.path)
    for fork in FORKS:
        q = questions(fork, "test", 1)[0]
        ids = model.tokens(q.prompt)
        assert tokenizer(q.prompt)["input_ids"] == ids.tolist()
        with torch.no_grad():
            want = hf(torch.tensor([ids.tolist()])).logits[0].numpy()
        np.testing.assert_allclose(model(ids), want, atol=2e-4)
        asked = [{"role": "user", "content": q.ask}]
        chat = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=True)["input_ids"]
        assert model.tokens(asked).tolist() == chat == ids.tolist()


def test_it_knows_every_word_of_its_questions(model):
    unknown = model.tokens("<unk>")[-1]
    for fork in FORKS:
        for q in questions(fork, "test", 50):
            for text in (q.prompt + q.default, q.prompt + q.alternative):
                ids = model.tokens(text)
                assert unknown not in ids[1:] and "".join(model.to_str_tokens(ids)).endswith(text)


def test_an_unknown_word_is_no_token(model):
    with pytest.raises(ps.InvalidInput, match="unknown to the tokenizer"):
        ps.evaluate.accuracy(model, ["Q: 12*3\nA:"], score=ps.evaluate.LogitDifference(" yes", " no"))


def test_a_folder_called_demo(tmp_path, monkeypatch):
    """It comes first if it is a checkpoint; the demo itself never takes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert ps.load("demo").identity["weights"] == demo.load_demo().identity["weights"]
    (tmp_path / "demo" / "config.json").write_text("{}")
    with pytest.raises(ps.PowersteerError, match="demo"):
        ps.load("demo")
    assert demo.load_demo().n_layers == 5
