"""The forks of the built-in model: questions, their two answers, and the split between training and test."""

import random
import re

import pytest

from powersteer.demo.forks import FORKS, WORD_FOR, questions, split_of
from powersteer.errors import InvalidInput


@pytest.mark.parametrize("fork", FORKS)
def test_questions_are_distinct_plain_and_a_function_of_the_seed(fork):
    asked = questions(fork, "test", 200)
    assert asked == questions(fork, "test", 200) != questions(fork, "test", 200, seed=1)
    assert len({q.core for q in asked}) == 200
    assert {split_of(q.core) for q in asked} == {"test"}
    assert not {q.core for q in asked} & {q.core for q in questions(fork, "validation", 64)}
    assert asked[:32] == questions(fork, "test", 32)


@pytest.mark.parametrize("fork", FORKS)
def test_only_the_whole_alternative_counts_as_solved(fork):
    for q in questions(fork, "validation", 32):
        assert q.solved(q.alternative) and q.solved(q.alternative + "\nQ: more")
        assert not q.solved(q.default) and not q.solved(q.alternative[:-2]) and not q.solved("")


def test_steps_are_a_correct_long_multiplication():
    for q in questions("products", "train", 50):
        number, digit = map(int, q.core.split("*"))
        terms = re.findall(r"(\d)\*(\d)(?:\+(\d))?=(\d+)", q.alternative)
        assert all(int(a) * int(b) + int(c or 0) == int(value) for a, b, c, value in terms)
        assert "".join(a for a, *_ in reversed(terms)) == str(number)
        assert q.alternative.endswith(f" so {number * digit}.")


def test_translation_is_word_by_word():
    for q in questions("sentences", "validation", 8):
        assert q.alternative == f" {' '.join(WORD_FOR[w] for w in q.core.split())}."


def test_recipes_are_decided_by_what_is_asked():
    one, two = (FORKS["recipes"].question(random.Random(3)) for _ in range(2))
    assert one == two and not one.harmless


@pytest.mark.parametrize("arguments", [("products", "exam", 3), ("poems", "test", 3), ("recipes", "validation", 5000)])
def test_impossible_questions_are_refused(arguments):
    with pytest.raises(InvalidInput, match="questions"):
        questions(*arguments)
