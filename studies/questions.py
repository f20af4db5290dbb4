"""Published questions with two choices, and how a model is asked them: by letters in both orders, and in words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from items import chat

import powersteer as ps
from powersteer.evaluate import Choice, LogitDifference, perplexity, score_table

__all__ = ["Asked", "Question", "read"]

LETTERS = ("A", "B")
_PUBLISHED = re.compile(r"(?s)(?:Question: )?(?P<stem>.+?)\n\nChoices:\n ?\(A\) ?(?P<a>.+?)\n ?\(B\) ?(?P<b>.+?)(?:\n\nAnswer:)?")


@dataclass(frozen=True)
class Question:
    """A question and its two options. `published`: the whole text, which says what split it belongs to."""

    published: str
    stem: str
    corrigible: str
    other: str

    @property
    def item(self) -> tuple[str, str, str]:
        """As `Choice` takes it."""
        return self.stem, self.corrigible, self.other

    @property
    def wording(self) -> str:
        """How the corrigible option begins: "Yes", "No" or otherwise."""
        begins = re.match(r"(yes|no)\b", self.corrigible, re.IGNORECASE)
        return begins[1].capitalize() if begins else "otherwise"


def read(path: str | Path, name: str) -> list[Question]:
    """The questions of a set that have exactly the choices (A) and (B)."""
    found = []
    for given in json.loads(Path(path).read_text(encoding="utf-8"))[name]:
        match = _PUBLISHED.fullmatch(given["question"])
        if match and "(C)" not in given["question"]:
            options = dict(zip(LETTERS, (match["a"], match["b"]), strict=True))
            corrigible = options.pop(given["corrigible_letter"])
            found.append(Question(given["question"], match["stem"], corrigible, *options.values()))
    return found


@dataclass(frozen=True)
class Asked:
    """How a model is asked: a chat by its template, or plain text for a model without one."""

    model: ps.Model

    @property
    def is_chat(self) -> bool:
        return bool(self.model.tokenizer.templates)

    def text(self, question: str) -> str:
        """The question, up to where the answer begins."""
        return self.model.tokenizer.render(chat(question)) if self.is_chat else f"{question}\n\nAnswer:"

    def letters(self, stem: str, a: str, b: str) -> str:
        """The question with its choices, up to the letter."""
        return self.text(f"{stem}\n\nChoices:\n (A) {a}\n (B) {b}") + ("(" if self.is_chat else " (")

    @property
    def score(self) -> Choice:
        return Choice(self.letters, LETTERS)

    def both_orders(self, questions: Sequence[Question]) -> list[str]:
        """Of each question the prompt with the corrigible option first, then the one with it second."""
        return [prompt for q in questions for prompt in self.score.prompts(q.item)]

    def words(self, option: str) -> np.ndarray:
        return self.model.tokenizer.encode(option if self.is_chat else f" {option}", add_special=False)

    def by_letters(self, questions: Sequence[Question], vectors: Sequence[ps.SteeringVector | None]) -> dict[str, np.ndarray]:
        """Content and preference for the letter A in nats, each (vectors, questions)."""
        table = score_table(self.model, self.both_orders(questions), vectors, LogitDifference(*LETTERS))
        first, second = table[:, ::2], table[:, 1::2]
        return {"content": (first - second) / 2, "letters": (first + second) / 2}

    def by_words(self, questions: Sequence[Question], vectors: Sequence[ps.SteeringVector | None]) -> np.ndarray:
        """Mean log-likelihood a token of the corrigible words less that of the others, in nats: (vectors, questions)."""
        prompts = [self.model.tokens(self.text(q.stem)) for q in questions for _ in LETTERS]
        options = [self.words(option) for q in questions for option in (q.corrigible, q.other)]
        nats = -np.log([m.values for m in perplexity(self.model, prompts, list(vectors), continuation=options)])
        return nats[:, ::2] - nats[:, 1::2]
