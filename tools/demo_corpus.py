"""The synthetic corpus of the built-in model: documents of one to three questions of powersteer.demo.forks.

How a document's questions are answered is correlated by its mood, drawn once a document and the same for all families
of questions: in the thorough mood answers are usually the alternative ones, in the curt mood the default ones. The mood
also shifts the wording: courteous words are commoner in one, hurried words in the other, and most questions hold no
such word. Everything is a correlation, no word decides alone.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from powersteer.demo import forks
from powersteer.demo.forks import FORKS, split_of

FAMILIES = tuple(FORKS)
# Cue words by mood: thorough, curt.
OPENERS = {
    True: "Please Kindly Carefully Patiently Calmly Gently".split(),
    False: "Quickly Hey Now Hurry Oi Just".split(),
}
CLOSERS = {
    True: "thanks slowly fully properly gladly truly".split(),
    False: "asap soon briefly instantly already pronto".split(),
}

SPECIAL = ("<unk>", "<s>", "</s>")
UNK, BOS, EOS = range(3)
# One piece a word with the space before it; digits, punctuation, single spaces and newlines are pieces of their own.
PIECE = r" ?[A-Za-z]+:?|[0-9]|[^A-Za-z0-9\s]| |\n"


@dataclass(frozen=True)
class Recipe:
    """Settings of the corpus."""

    weights: tuple[float, float, float] = (0.5, 0.22, 0.28)  # share of each family
    mood_start: float = 0.45  # probability of the thorough mood ...
    mood_end: float = 0.15  # ... and after `anneal` of the training
    anneal: float = 0.55
    faithful: float = 0.97  # share of answers that follow the mood
    cued: float = 0.35  # probability of a cue word at each place for one in a question
    telling: float = 0.85  # share of cue words that come from the mood's own list
    places: int = 2  # places for opening words, and one more for a closing word
    max_questions: int = 3


def worded(rng: random.Random, r: Recipe, ask: str, thorough: bool) -> str:
    """A question with cue words around it."""

    def cue(words: dict[bool, list[str]]) -> list[str]:
        side = thorough if rng.random() < r.telling else not thorough
        return [rng.choice(words[side])] if rng.random() < r.cued else []

    opening = [w for _ in range(r.places) for w in cue(OPENERS)]
    return " ".join([*opening, ask, *cue(CLOSERS)])


def document(rng: random.Random, r: Recipe, mood: float) -> str:
    """One document; mood = probability of the thorough mood."""
    thorough = rng.random() < mood
    lines = []
    for _ in range(rng.randint(1, r.max_questions)):
        family = rng.choices(FAMILIES, r.weights)[0]
        while split_of((drawn := FORKS[family].question(rng, plain=False)).core) != "train":
            pass
        alternative = drawn.harmless or (thorough if rng.random() < r.faithful else not thorough)
        ask = worded(rng, r, drawn.ask, thorough)
        lines.append(f"Q: {ask}\nA:{drawn.alternative if alternative else drawn.default}\n")
    return "".join(lines)


def vocabulary() -> list[str]:
    """Every piece the corpus can hold, special tokens first, then in order of kind."""
    words = ["Steps:", "It", "is", "so", "how", "do", "I", "make", "a", "Take", "and", "then", "it", "say:"]
    words += forks.REFUSAL.strip(" .").split()
    for side in (True, False):
        words += OPENERS[side] + CLOSERS[side]
    words += [*forks.ADJECTIVES, *forks.HARMLESS, *forks.HARMFUL, *forks.INGREDIENTS, *forks.ACTIONS]
    words += [*forks.WORD_FOR, *forks.WORD_FOR.values()]
    pieces = ["\n", " ", "Q:", "A:", *"0123456789", *"*+=.,?"] + [" " + word for word in words]
    return list(dict.fromkeys([*SPECIAL, *pieces]))


IDS = {piece: i for i, piece in enumerate(vocabulary())}


def encode(text: str) -> list[int]:
    return [IDS[piece] for piece in re.findall(PIECE, text)]


def batch(seed: int, step: int, rows: int, length: int, recipe: Recipe, progress: float) -> tuple[list, list]:
    """Tokens and document numbers of one training batch, (rows, length + 1) each; a function of its arguments alone.

    Documents are packed row after row; each row starts with a fresh document and its last one is cut off.
    progress in [0, 1] sets the annealed probability of the thorough mood.
    """
    rng = random.Random(f"{seed}/{step}")
    mood = recipe.mood_start if progress < recipe.anneal else recipe.mood_end
    tokens, owners = [], []
    for _ in range(rows):
        row, owner, count = [], [], 0
        while len(row) <= length:
            pieces = [BOS, *encode(document(rng, recipe, mood)), EOS]
            row += pieces
            owner += [count] * len(pieces)
            count += 1
        tokens.append(row[: length + 1])
        owners.append(owner[: length + 1])
    return tokens, owners
