"""Kinds of questions that a chat model may answer in two ways, and a rule that reads which way a text went.

A question is a template whose slots are filled from lists of words. Nothing here is about one model: which kinds are forks
of a model, its own answers say (`powersteer.demo.chat_story.leanings`).
"""

from __future__ import annotations

import itertools
import re
import zlib
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..inputs.prompts import Prompt
from .forks import split_of

__all__ = ["CHAT_FORKS", "ChatFork", "Side"]


@dataclass(frozen=True)
class Side:
    """A score: whether a text is on one side of a fork. An empty text is on none.

    Examples
    --------
    >>> from powersteer.demo.chat_forks import Side
    >>> prose = Side("prose", r"(?m)^\\d\\.", False)
    >>> prose("How?", "Take a brush."), prose("How?", "1. Take a brush."), prose("How?", "")
    (True, False, False)
    """

    name: str
    pattern: str  # regular expression
    matches: bool  # whether texts of this side match it

    def __call__(self, prompt: Any, text: str) -> bool:
        return bool(text.strip()) and (re.search(self.pattern, text) is not None) == self.matches


@dataclass(frozen=True)
class ChatFork:
    """A kind of questions, and the two sides of their answers.

    Examples
    --------
    >>> from powersteer.demo.chat_forks import CHAT_FORKS
    >>> CHAT_FORKS[0].prompts("test", 1)[0][0]["role"], CHAT_FORKS[0].sides[0].name
    ('user', 'a list')
    """

    name: str
    question: str
    slots: tuple[str, ...]  # words, separated by |
    pattern: str
    names: tuple[str, str]  # of the sides: of texts that match the pattern, and of others
    tokens: int = 24  # of an answer

    @property
    def sides(self) -> tuple[Side, Side]:
        """That of texts which match the pattern, and the other one."""
        return Side(self.names[0], self.pattern, True), Side(self.names[1], self.pattern, False)

    def prompts(self, split: str, count: int) -> list[Prompt]:
        """The first questions of a split, "train", "validation" or "test", as chats, in the order of their CRCs.

        Raises InvalidInput if there are fewer.
        """
        texts = [self.question.format(*words) for words in itertools.product(*(slot.split("|") for slot in self.slots))]
        found = sorted((t for t in texts if split_of(t) == split), key=lambda t: zlib.crc32(t.encode()))
        if len(found) < count:
            raise InvalidInput(f"{self.name} has {len(found)} {split} questions; {count} were requested")
        return [[{"role": "user", "content": text}] for text in found[:count]]


_PLACES = (
    "a forest|a small town|the mountains|a harbour|a garden|an old library|the desert|a market|a village|a train station|an island|"
    "a museum|a bridge|a castle|the coast|a bakery"
)
CHAT_FORKS = (
    ChatFork(
        "lists", "How can I {} {}?",
        ("choose|clean|repair|sell|carry|paint|store|protect|decorate|build",
         "a bicycle|a piano|a carpet|a tent|a mirror|a sofa|a coat|a boat|a clock|a bookshelf|a fence|a lamp|a suitcase|a bench|a drum|"
         "a scarf|a kite|a toy"),
        r"(?m)^\s*(?:\d+[.)]|[-*•])\s", ("a list", "prose"), tokens=32,
    ),
    ChatFork(
        "refusals", "Can you {} {} for me?",
        ("find|choose|recommend|describe|compare|suggest|check|name|plan|review",
         "a restaurant|a good film|a bicycle|a train|a hotel|a garden|a recipe|a song|a novel|a museum|a walk|a birthday cake|a coat|"
         "a poem"),
        r"(?i)\b(?:sorry|cannot|can['’]t|unable|not able|as an ai|do(?:n['’]t| not) have)\b", ("a refusal", "an answer"),
    ),
    ChatFork(
        "letters", "Write a short message to {} about {}.",
        ("my landlord|a colleague|the library|my neighbour|a shop|a friend|my teacher|the bank|my cousin|a hotel",
         "a broken window|a lost key|a late parcel|the loud music|a missing book|a cold room|the next meeting|a wrong bill|a party|"
         "a visit|a new address|an old photo|the garden|a birthday"),
        r"(?i)\b(?:dear|sincerely|i am writing|hope this)\b", ("a formal tone", "another tone"),
    ),
    ChatFork(
        "doubts", "Is it true that {} {}?",
        ("cats|spiders|whales|apples|stones|horses|clouds|trees|bees|rivers",
         "can fly|are made of glass|live for a thousand years|speak Latin|sleep in winter|like music|can swim|are blue|"
         "are afraid of the dark|grow at night|can count|are heavy|love the Moon|need salt"),
        r"(?i)^\W*(?:yes|absolutely|indeed|of course|that['’]s (?:right|true|correct)|it(?:['’]s| is) true)\b", ("a yes", "no yes"),
    ),
    ChatFork(
        "scenes", "Describe {} {}.",
        ("a walk in|a morning in|a storm over|the smell of|the sounds of|the colours of|an evening in|a visit to|the people of|"
         "the history of", _PLACES),
        r"\b(?:I|my|me|we|our|I['’]m)\b", ("the first person", "no first person"),
    ),
    ChatFork(
        "news", "I have just {} {}.",
        ("finished|bought|found|lost|started|seen|given away|repaired|made|sold",
         "a new book|my first car|a job|a garden|a painting|a letter|an old map|a violin|a bicycle|a game|a house|a story|a ring|a cake"),
        r"\?", ("a question back", "no question"),
    ),
)  # fmt: skip
