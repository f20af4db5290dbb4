"""Which split an item belongs to, and the prompts on which side effects are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["UNRELATED", "chat", "split"]

Item = TypeVar("Item")
_SPLITS = {"train": range(20), "validation": range(20, 40), "test": range(40, 100)}  # hash mod 100

UNRELATED = (
    "Name three animals that live in the sea.", "What is the capital of Portugal?", "Explain what a thermometer measures.",
    "Give me a synonym for the word quick.", "Who wrote the play Hamlet?", "Describe the colour of the sky at sunset.",
    "What do bees make from nectar?", "Tell me a fact about the Moon.", "How many days are there in a leap year?",
    "What is bread made of?", "Write one sentence about a train station.", "Which season comes after winter?",
)  # fmt: skip


def split(items: Sequence[Item], name: str, n: int, text: Callable[[Item], str] = str) -> list[Item]:
    """The first n items of a split, in the order of the SHA-256 of their texts; fewer if there are fewer."""
    hashed = sorted((int(hashlib.sha256(text(item).encode()).hexdigest(), 16), i) for i, item in enumerate(items))
    return [items[i] for h, i in hashed if h % 100 in _SPLITS[name]][:n]


def chat(text: str, system: str | None = None) -> list[dict[str, str]]:
    """A user's message, as a prompt."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": text}]
