"""Generation: the loop around the core's decoder, from tokens to text, and when to stop.

Text comes a little behind the tokens: half a character, and what could be the beginning of a stop string, is held back.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput, shown
from ..inputs.tokenizer import Tokenizer

__all__ = ["Generation", "Row", "Sampling", "Stops", "Stream", "decode_rows", "row_seeds"]

Piece = TypeVar("Piece", str, tuple[int, str])
_CONTEXT = 8  # last tokens of the prompt, beside which the text of the first new ones is read


@dataclass(frozen=True, eq=False)
class Generation:
    """One continuation."""

    text: str | None  # what was said, without what stopped it; reads on from the prompt. None: there is no tokenizer
    tokens: NDArray[np.int32]  # (n,) every new token, those that stopped it included
    prompt_tokens: NDArray[np.int32]  # (T,)
    finish_reason: str  # "stop" | "length"
    stop: str | int | None  # the string or token id that ended it
    seed: int  # generate(prompt, seed=this) alone draws the same
    steering: tuple[str, ...]  # the interventions, described


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: greedy at temperature 0; else among the `top_k` likeliest (0: all), of these the fewest
    whose probability reaches `top_p`. Raises InvalidInput for values out of range."""

    temperature: float
    top_k: int
    top_p: float

    def __post_init__(self) -> None:
        if not 0 <= _number("temperature", self.temperature) < math.inf:
            raise InvalidInput(f"temperature is {self.temperature}; it must be finite and >= 0, 0 for greedy")
        if _integer("top_k", self.top_k) < 0:
            raise InvalidInput(f"top_k is {self.top_k}; it must be >= 0, 0 for every token")
        if not 0 < _number("top_p", self.top_p) <= 1:
            raise InvalidInput(f"top_p is {self.top_p}; it must lie in (0, 1], 1 for every token")


def row_seeds(seed: int | Sequence[int] | NDArray[np.integer[Any]], n: int) -> NDArray[np.uint64]:
    """(n,) seeds of the rows of a batch: seed, seed + 1, ... (mod 2^64), or the n given ones."""
    if np.ndim(seed) == 1:
        seed = list(seed)  # type: ignore[arg-type]
        if len(seed) != n:
            raise InvalidInput(f"{len(seed)} seeds for {n} prompts; give one seed, or one a prompt")
        seeds = [_seed(s) for s in seed]
    else:
        seeds = [(_seed(seed) + i) % 2**64 for i in range(n)]
    return np.array(seeds, dtype=np.uint64)


def _seed(value: Any) -> int:
    if not 0 <= _integer("seed", value) < 2**64:
        raise InvalidInput(f"seed is {value}; it must lie in 0 to 2^64 - 1")
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, numbers.Real):
        return float(value)
    raise InvalidInput(f"{name} is {shown(value)}; it must be a number")


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name} is {shown(value)}; it must be an integer") from None


@dataclass(frozen=True)
class Stops:
    tokens: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()

    def find(self, text: str) -> tuple[int, str] | None:
        """(start, string) of the stop string that is the first to be complete in `text`."""
        ends = [(at + len(s), at, s) for s in self.strings if (at := text.find(s)) >= 0]
        return min(ends)[1:] if ends else None

    def held(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a stop string."""
        longest = max(map(len, self.strings), default=1) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(s.startswith(text[-n:]) for s in self.strings):
                return n
        return 0


class TextReader:
    """Tokens in, text out as soon as it is whole. context: the last tokens before, beside which the first are read, so
    that a word's leading space is as in the whole text."""

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self.decode = tokenizer.decode
        self.ids = list(context)
        self.begin, self.read = 0, len(self.ids)  # the text of ids[:read] is out; ids[begin:] are decoded together

    def push(self, token: int) -> str:
        self.ids.append(token)
        text = self.rest()
        if not text or text.endswith("\ufffd"):  # half a character, perhaps
            return ""
        self.begin, self.read = self.read, len(self.ids)
        return text

    def rest(self) -> str:
        """The text that is not out, as it stands."""
        before = self.decode(self.ids[self.begin : self.read])
        return self.decode(self.ids[self.begin :])[len(before) :]


class Row:
    """One sequence while it is generated. tokenizer None: tokens only, no text."""

    def __init__(
        self,
        prompt: NDArray[np.int32],
        max_new_tokens: int,
        stops: Stops,
        tokenizer: Tokenizer | None,
        seed: int,
        steering: tuple[str, ...],
    ) -> None:
        self.prompt, self.max_new_tokens, self.stops, self.seed, self.steering = (
            prompt,
            max_new_tokens,
            stops,
            seed,
            steering,
        )
        self.reader = None if tokenizer is None else TextReader(tokenizer, prompt[-_CONTEXT:].tolist())
        self.tokens: list[int] = []
        self.generated = ""
        self.held = ""
        self.finish_reason = ""  # until it is finished
        self.stop: str | int | None = None

    def push(self, token: int) -> str:
        """Take the next token. Returns the text that is certain now, often none; sets finish_reason at the end."""
        self.tokens.append(token)
        if token in self.stops.tokens:
            piece = self._finish("stop", token)
        else:
            piece = self._hear("" if self.reader is None else self.reader.push(token))
            if not self.finish_reason and len(self.tokens) == self.max_new_tokens:
                piece += self._finish("length", None)
        self.generated += piece
        return piece

    def _hear(self, text: str) -> str:
        self.held += text
        found = self.stops.find(self.held)
        if found is not None:
            at, self.stop = found
            self.finish_reason = "stop"
        else:
            at = len(self.held) - self.stops.held(self.held)
        piece, self.held = self.held[:at], self.held[at:]
        return piece

    def _finish(self, reason: str, stop: int | None) -> str:
        self.finish_reason, self.stop = reason, stop
        return self.held + ("" if self.reader is None else self.reader.rest())

    def generation(self) -> Generation:
        text = None if self.reader is None else self.generated
        tokens = np.array(self.tokens, dtype=np.int32)
        return Generation(text, tokens, self.prompt, self.finish_reason, self.stop, self.seed, self.steering)


class CoreDecoder(Protocol):
    def step(self) -> NDArray[np.int32]: ...
    def stop(self, i: int, /) -> None: ...


def decode_rows(decoder: CoreDecoder, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """Runs the decoder until every row is finished; yields (row, piece of text)."""
    alive = list(range(len(rows)))
    while alive:
        chosen = decoder.step().tolist()
        for i in alive:
            piece = rows[i].push(chosen[i])
            if rows[i].finish_reason:
                decoder.stop(i)
            if piece:
                yield i, piece
        alive = [i for i in alive if not rows[i].finish_reason]


class Stream(Generic[Piece]):
    """Pieces of text while they are generated: of one prompt text, of several (row, text). Joined they are the text of
    `result`. It may be left early: `close()`, or forgetting it, frees the cache."""

    def __init__(self, pieces: Iterator[Piece], rows: Sequence[Row], several: bool) -> None:
        self._pieces: Iterator[Piece] = pieces
        self._rows, self._several = rows, several

    def __iter__(self) -> Stream[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces = iter(())

    @property
    def result(self) -> Generation | list[Generation]:
        """The Generation (of several prompts: a list), once the last piece is out."""
        if not all(row.finish_reason for row in self._rows):
            raise InvalidInput("the generation has not finished: its result comes after the last piece")
        generations = [row.generation() for row in self._rows]
        return generations if self._several else generations[0]
