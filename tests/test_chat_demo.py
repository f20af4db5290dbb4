"""The demo on a chat model: on the built-in one, which has a chat template, and on a real one."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import real_files
from oracles import needs
from tiny import tiny

import powersteer as ps
from powersteer.cli import main
from powersteer.demo import chat_story
from powersteer.demo.chat_forks import CHAT_FORKS, ChatFork, Side
from powersteer.demo.chat_story import Sizes, check_chat, measure_chat, most_uncertain
from powersteer.demo.chat_text import described
from powersteer.demo.forks import HARMFUL, HARMLESS

SMALL = Sizes(questions=6, samples=2, validation=6, test=8, draws=2, kl=2.0, shown=1)
THINGS = "|".join(HARMFUL[:8] + HARMLESS[:8])
RECIPES = ChatFork("recipes", "how do I make a {} {}?", ("big|small|red|blue|old|new", THINGS), "cannot", ("a refusal", "an answer"))
SUMS = ChatFork("sums", "{}*{}", ("628|124|335|417", "2|3|4|5|6|7|8|9"), "Steps", ("steps", "a guess"))  # it guesses always


@pytest.fixture(scope="module")
def model():
    return ps.load("demo")


@pytest.fixture(scope="module")
def found(model):
    seen = []
    made = measure_chat(model, [SUMS, RECIPES], SMALL, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen) and {total for _, total in seen} == {100} and seen[-1] == (100, 100)
    return made


def test_the_fork_is_that_of_the_samples(model, found):
    r = found.result
    assert r.name == "recipes" and r.leanings["sums"] == 0.0
    rows = [p for p in RECIPES.prompts("train", 6) for _ in range(2)]
    texts = [g.text for g in model.generate(rows, max_new_tokens=24, temperature=0.7, seed=0)]
    assert r.leanings["recipes"] == np.mean(["cannot" in t for t in texts]) and 0.05 <= r.leanings["recipes"] <= 0.95


def test_shares_are_those_of_coherent_texts_on_other_questions(model, found):
    r, tests = found.result, RECIPES.prompts("test", 8)
    score = ps.evaluate.coherent(found.side, repetition=r.repetition, perplexity=r.perplexity)
    steer = [None, *found.vectors.values()]
    for wanted, how in [((r.baseline, r.steered, r.power, r.random_best), score), (r.any_text, found.side)]:
        table = ps.evaluate.score_table(model, tests, steer, how, 24, positions=chat_story.POSITIONS)
        assert tuple(table.mean(1)) == tuple(wanted)
    assert r.random_best == max(r.random_draws) and len(r.random_draws) == 2


@pytest.mark.parametrize(("things", "wanted"), [(HARMFUL[:16], "an answer"), (HARMLESS[:16], "a refusal")])
def test_the_wanted_side_is_the_rarer_one(model, things, wanted):
    fork = dataclasses.replace(RECIPES, slots=(RECIPES.slots[0], "|".join(things)))
    prompts = fork.prompts("validation", 8)
    side, score = chat_story._side_and_limits(model, fork, prompts, model.generate(prompts, max_new_tokens=24, temperature=0.7))
    assert side.name == wanted and score.score == side and 0 <= score.repetition < 1 <= score.perplexity


def test_vectors_are_of_the_map_at_the_budget(model, found):
    r, validation = found.result, RECIPES.prompts("validation", 6)
    for name, v in found.vectors.items():
        assert float(ps.evaluate.kl(model, validation, v, positions=chat_story.POSITIONS)) == pytest.approx(2.0, rel=0.011), name
    for name, choice in [("Fisher", r.fisher_vector), ("power", r.power_vector)]:
        v, target = found.vectors[name], choice.target if name == "power" else "next_token"
        assert np.array_equal(v.direction, found.atlas.vector(choice.source, target, choice.rank).direction)
        assert choice.norm == abs(v.scale) and choice.sign == math.copysign(1, v.scale)
    assert {(p.source, p.target) for p in r.map} == set(found.atlas.pairs) and max(p.residual for p in r.map) <= 1e-2
    assert found.atlas.prompts == [model.tokenizer.render(p) for p in RECIPES.prompts("train", 2)]


def test_texts_are_what_the_vectors_write(model, found):
    (texts,) = found.result.texts
    plain = {p[0]["content"]: model.generate(p, max_new_tokens=24).text for p in RECIPES.prompts("test", 4)}
    assert texts.question == min(plain, key=lambda q: found.side("", plain[q]))  # the first on the other side, if there is one
    prompt = [{"role": "user", "content": texts.question}]
    wanted = [model.steered(v, chat_story.POSITIONS).generate(prompt, max_new_tokens=24).text for v in found.vectors.values()]
    assert [texts.fisher, texts.power, texts.random] == wanted
    assert texts.unsteered == plain[texts.question]


def test_texts_are_of_questions_that_are_answered_the_other_way(model):
    harmless, harmful = ([{"role": "user", "content": f"how do I make a red {thing}?"}] for thing in (HARMLESS[0], HARMFUL[0]))
    for side, first in zip(RECIPES.sides, (harmless, harmful), strict=True):
        for order in ([harmless, harmful], [harmful, harmless]):
            assert chat_story._usual(model, order, side, 1, 24) == [first]


@pytest.mark.long
def test_the_same_bits_again(model, found):
    again = measure_chat(model, [SUMS, RECIPES], SMALL).result
    assert again == found.result


def test_it_is_told_in_the_order_in_which_it_was_found(found):
    text, r = described(found.result), found.result
    marks = ["sums", "recipes  ", "<- the nearest", f"Wanted is {r.wanted}", "next token", f"layer {r.map[0].source}", "  unsteered\n",
             "first Fisher", f"power vector {r.power_vector.rank}", "best of 2 draws", r.texts[0].question]  # fmt: skip
    at = [text.index(mark) for mark in marks]
    assert at == sorted(at) and f"{100 * r.steered:.1f}% [" in text and f"{r.map[0].sigma[0]:.3g}" in text


def test_without_random_vectors(model):
    r = measure_chat(model, [RECIPES], dataclasses.replace(SMALL, draws=0, k=1, validation=4, test=4)).result
    assert math.isnan(r.random_best) and math.isnan(r.any_text[3]) and r.texts[0].random == "" and "nan" in described(r)


def test_a_model_without_any_fork(model):
    with pytest.raises(ps.NotFound, match=r"none of the demo's forks.*\(steps 0% of sampled"):
        measure_chat(model, [SUMS], SMALL)


@pytest.mark.parametrize(("rates", "which"), [([0.0, 0.3, 0.6], 2), ([0.05], 0), ([1.0, 0.95], 1), ([0.04, 0.96], None)])
def test_the_most_uncertain_kind(rates, which):
    if which is None:
        with pytest.raises(ps.NotFound):
            most_uncertain(CHAT_FORKS[: len(rates)], rates)
    else:
        assert most_uncertain(CHAT_FORKS[: len(rates)], rates) == which


def test_models_that_cannot_be_asked(model, monkeypatch):
    check_chat(model)
    with pytest.raises(ps.InvalidInput, match="'demo', which does not know their words"):
        measure_chat(model)
    monkeypatch.setattr(model.tokenizer, "templates", {})
    with pytest.raises(ps.InvalidInput, match="has no chat template: it is a base model"):
        check_chat(model)
    with pytest.raises(ps.InvalidInput, match="came without a tokenizer"):
        check_chat(tiny(words=False)[0])


# ---- questions


@pytest.mark.parametrize("fork", CHAT_FORKS, ids=lambda f: f.name)
def test_questions(fork):
    sizes = Sizes()
    counts = {"train": sizes.questions, "validation": sizes.validation, "test": sizes.test}
    splits = {name: [p[0]["content"] for p in fork.prompts(name, n)] for name, n in counts.items()}
    every = [text for texts in splits.values() for text in texts]
    assert len(set(every)) == len(every) == sum(counts.values()) and not any("{" in text for text in every)
    assert fork.prompts("test", 2) == fork.prompts("test", 40)[:2]
    with pytest.raises(ps.InvalidInput, match=f"{fork.name} has .* validation questions; 999"):
        fork.prompts("validation", 999)


@pytest.mark.parametrize(
    ("name", "first", "other"),
    [
        ("lists", "Here is how:\n\n1. Wash it.", "Wash it 2 times. Dry it."),
        ("refusals", "I'm sorry, but I can't do that.", "The best film is about a dog."),
        ("letters", "Dear neighbour,", "Hey! The window is broken."),
        ("doubts", "Yes, that is so.", "No, stones cannot say yes."),
        ("scenes", "As I walk, the leaves fall.", "The leaves fall. In May it rains."),
        ("news", "How nice! What is it about?", "How nice!"),
    ],
)
def test_sides(name, first, other):
    (fork,) = [f for f in CHAT_FORKS if f.name == name]
    for side, mine, theirs in zip(fork.sides, (first, other), (other, first), strict=True):
        assert side("", mine) and not side("", theirs) and not side("", " \n")
    assert fork.sides[0] == Side(fork.names[0], fork.pattern, True)


# ---- the command


def test_the_command(model, found, capsys, monkeypatch, tmp_path):
    needs("plotly")
    monkeypatch.setattr("powersteer.cli.demo.measure_chat", lambda m, seed, progress: found)
    assert main(["demo", "--model", "demo", "--json", "--seed", "3"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["forks"]
    assert set(told) == {f.name for f in dataclasses.fields(found.result)}
    assert told["steered"] == found.result.steered and told["texts"][0]["power"] == found.result.texts[0].power
    page = tmp_path / "map.html"
    assert main(["demo", "--model", "demo", "--atlas", str(page)]) == 0
    out = capsys.readouterr().out
    assert described(found.result) in out and f"{page} is the map" in out and page.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_a_real_chat_model(capsys):
    path = real_files.smollm2()
    assert main(["demo", "--model", str(path), "--json"]) == 0
    (r,) = json.loads(capsys.readouterr().out)["forks"]
    assert r["n_test"] == 40 and max(pair["residual"] for pair in r["map"]) <= 1e-2
    assert max(r["steered"], r["power"]) > r["baseline"]
    assert max(r["ci"][0], r["power_vector"]["ci"][0]) > r["random_best"]
