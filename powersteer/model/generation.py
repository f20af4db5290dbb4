"""Generation: the loop around the core's decoder, from tokens to text, with its stops.

Text is emitted later than its tokens: an incomplete character, and a possible beginning of a stop string, is held back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_number, check_count, check_seed
from .._util.html import paragraphs
from ..errors import InvalidInput, shown
from ..inputs.prompts import Ids, token_ids
from ..inputs.tokenizer import Tokenizer
from .loaded import LoadedModel

if TYPE_CHECKING:
    from .._core._core32 import Decoder

__all__ = [
    "Generation",
    "Row",
    "Stops",
    "Stream",
    "check_sampling",
    "decode_rows",
    "follow_along",
    "follow_draft",
    "row_seeds",
    "total_lengths",
]

Piece = TypeVar("Piece")  # of text: str, or (row, str)
Result = TypeVar("Result")  # Generation, or a list of them
_CONTEXT = 8  # last tokens of the prompt, decoded together with the first new ones


@dataclass(frozen=True, eq=False, repr=False)
class Generation:
    """One continuation of a prompt, made by `Model.generate`.

    Two are equal if their tokens and texts are, and one equals its text; `"132" in out` searches the text.

    Attributes
    ----------
    text
        The continuation without its stop; prompt + text reads on. None if there is no tokenizer.
    tokens
        (n,) every new token, the stop included.
    prompt_tokens
        (T,) tokens of the prompt.
    finish_reason
        "stop" or "length".
    stop
        The text or token id that ended it; None for "length".
    seed
        `generate(prompt, seed=seed)` draws the same tokens alone.
    steering
        Descriptions of the interventions.

    Examples
    --------
    >>> import powersteer as ps
    >>> out = ps.load("demo").generate("Q: 3*4\\nA:")
    >>> out
    Generation(' It is 132.', 8 tokens, finish_reason 'stop')
    >>> out.tokens.dtype, out.prompt_tokens.shape, "132" in out, out == " It is 132."
    (dtype('int32'), (8,), True, True)
    """

    text: str | None
    tokens: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32]
    finish_reason: str
    stop: str | int | None
    seed: int
    steering: tuple[str, ...]
    prompt: str | None = None  # as text; None if there is no tokenizer

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.text == other
        if not isinstance(other, Generation):
            return NotImplemented
        return self.text == other.text and np.array_equal(self.tokens, other.tokens)

    def __hash__(self) -> int:  # that of the text, which equals this
        return hash(self.tokens.tobytes() if self.text is None else self.text)

    def __contains__(self, text: str) -> bool:
        if self.text is None:
            raise InvalidInput("this continuation has no text, as its model has no tokenizer; compare its tokens")
        return text in self.text

    def __repr__(self) -> str:
        shows = shown(self.tokens.tolist() if self.text is None else self.text)
        steered = f", steered by {len(self.steering)}" if self.steering else ""
        return f"Generation({shows}, {len(self.tokens)} tokens, finish_reason {self.finish_reason!r}{steered})"

    def _repr_html_(self) -> str:
        prompt = str(self.prompt_tokens.tolist()) if self.prompt is None else self.prompt
        text = str(self.tokens.tolist()) if self.text is None else self.text
        steering = [("steering", "\n".join(self.steering))] if self.steering else []
        return paragraphs([("prompt", prompt), ("generated", text), *steering])


def check_sampling(temperature: float, top_k: int, top_p: float) -> tuple[float, int, float]:
    """The options: greedy at temperature 0; else among the top_k likeliest tokens (0: all), of these the fewest whose
    probability reaches top_p."""
    heat, share = as_number(temperature), as_number(top_p)
    if heat is None or not 0 <= heat < math.inf:
        raise InvalidInput(f"temperature is {shown(temperature)}; it must be a finite number >= 0, 0 for greedy")
    top_k = check_count(top_k, "top_k", least=0)
    if share is None or not 0 < share <= 1:
        raise InvalidInput(f"top_p is {shown(top_p)}; it must be a number in (0, 1], 1 for every token")
    return heat, top_k, share


def row_seeds(seed: int | Sequence[int] | NDArray[np.integer[Any]], n: int) -> NDArray[np.uint64]:
    """(n,) seeds of the rows of a batch: seed, seed + 1, ... (mod 2^64), or a list of n seeds."""
    if np.ndim(seed) != 1:
        return np.array([(check_seed(seed) + i) % 2**64 for i in range(n)], dtype=np.uint64)
    seeds = list(seed)  # type: ignore[arg-type]
    if len(seeds) != n:
        raise InvalidInput(f"{len(seeds)} seeds for {n} prompts; give one seed, or one a prompt")
    return np.array([check_seed(s) for s in seeds], dtype=np.uint64)


def total_lengths(model: LoadedModel, tokens: Sequence[Ids], max_new_tokens: int) -> list[int]:
    """Tokens of each prompt with its continuation. Raises InvalidInput if they exceed the context."""
    check_count(max_new_tokens, "max_new_tokens")
    for t in tokens:
        if len(t) + max_new_tokens > model.n_ctx:
            raise InvalidInput(
                f"a prompt of {len(t)} tokens and {max_new_tokens} new ones do not fit the context of "
                f"{model._context}; shorten the prompt or set max_new_tokens to at most {model.n_ctx - len(t)}"
            )
    return [len(t) + int(max_new_tokens) for t in tokens]


class Stops(NamedTuple):
    """Token ids and texts that end a generation."""

    tokens: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()

    @classmethod
    def read(cls, stop: str | int | Iterable[str | int] | None, model: LoadedModel) -> Stops:
        """The argument `stop` of `generate`; None: the model's end tokens."""
        if stop is None:
            return cls(model.end_tokens)
        items = [stop] if isinstance(stop, (str, int, np.integer)) else list(stop) if np.iterable(stop) else None
        if items is None:
            raise InvalidInput(f"stop is {shown(stop)}; it must be a text, a token id, or a list of these")
        strings = [item for item in items if isinstance(item, str)]
        ids = [item for item in items if not isinstance(item, str)]
        if "" in strings:
            raise InvalidInput("a stop string is empty; stop=[] stops at nothing")
        if strings:
            special = model._need_tokenizer("stop at a text").special_tokens
            ids += [special[s] for s in strings if s in special]  # never part of a text, so recognised by id
        return cls(frozenset(token_ids(ids, model.n_vocab).tolist() if ids else ()), tuple(strings))

    def find(self, text: str) -> tuple[int, str] | None:
        """(start, string) of the stop string that is complete first in `text`."""
        ends = [(at + len(s), at, s) for s in self.strings if (at := text.find(s)) >= 0]
        return min(ends)[1:] if ends else None

    def held(self, text: str) -> int:
        """Number of characters at the end of `text` that may be the beginning of a stop string."""
        lengths = ((s, n) for s in self.strings for n in range(1, min(len(s), len(text) + 1)))
        return max((n for s, n in lengths if text.endswith(s[:n])), default=0)


class TextReader:
    """Incremental decoder: tokens in, complete characters out. context: tokens of the prompt, decoded together with the
    first new ones so that a word's leading space is as in the whole text."""

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self.decode = tokenizer.decode
        self.ids = list(context)
        self.begin, self.read = 0, len(self.ids)  # text of ids[:read] is emitted; ids[begin:] are decoded together

    def push(self, token: int) -> str:
        self.ids.append(token)
        text = self.rest()
        if not text or text.endswith("\ufffd"):  # half a character, perhaps
            return ""
        self.begin, self.read = self.read, len(self.ids)
        return text

    def rest(self) -> str:
        """The text not emitted yet, with an incomplete character as it is."""
        before = self.decode(self.ids[self.begin : self.read])
        return self.decode(self.ids[self.begin :])[len(before) :]


@dataclass(eq=False)
class Row:
    """One sequence during generation. Without a tokenizer it has tokens and no text."""

    prompt: NDArray[np.int32]
    max_new_tokens: int
    stops: Stops
    tokenizer: Tokenizer | None
    seed: int
    steering: tuple[str, ...]
    tokens: list[int] = field(default_factory=list)
    generated: str = ""
    held: str = ""
    finish_reason: str = ""  # until it is finished
    stop: str | int | None = None

    def __post_init__(self) -> None:
        self.reader = None if self.tokenizer is None else TextReader(self.tokenizer, self.prompt[-_CONTEXT:].tolist())

    def push(self, token: int) -> str:
        """Add a token. Returns the text that became certain, often none; sets finish_reason at the end."""
        self.tokens.append(token)
        ended, text = token in self.stops.tokens, self.held
        if self.reader is not None and not ended:
            text += self.reader.push(token)
        at = len(text) - self.stops.held(text)  # what may become a stop string is held back
        if ended:
            self.finish_reason, self.stop = "stop", token
        elif found := self.stops.find(text):
            self.finish_reason, (at, self.stop) = "stop", found
        elif len(self.tokens) == self.max_new_tokens:
            self.finish_reason = "length"
        if ended or self.finish_reason == "length":
            text += "" if self.reader is None else self.reader.rest()
            at = len(text)
        piece, self.held = text[:at], text[at:]
        self.generated += piece
        return piece

    def generation(self) -> Generation:
        text = None if self.reader is None else self.generated
        prompt = None if self.tokenizer is None else "".join(self.tokenizer.to_str_tokens(self.prompt))
        tokens = np.array(self.tokens, dtype=np.int32)
        return Generation(text, tokens, self.prompt, self.finish_reason, self.stop, self.seed, self.steering, prompt)


def decode_rows(decoder: Decoder, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """Run the decoder until every row is finished; yields (row, piece of text)."""
    alive = {i: row for i, row in enumerate(rows) if not row.finish_reason}
    while alive:
        chosen = decoder.step().tolist()
        for i, row in list(alive.items()):
            piece = row.push(chosen[i])
            if row.finish_reason:
                decoder.stop(i)
                del alive[i]
            if piece:
                yield i, piece


def follow_draft(row: Row, draft: Ids, logits: NDArray[Any]) -> int:
    """Give the row its greedy tokens, read off logits (n, n_vocab) along a draft (n,) of them, up to the first that differs.
    Returns the token that the decoder goes on with, -1 if the row is finished."""
    for wanted, z in zip(draft.tolist(), logits, strict=True):
        row.push(int(z.argmax()))
        if row.finish_reason or row.tokens[-1] != wanted:
            break
    return -1 if row.finish_reason else row.tokens[-1]


def follow_along(model: LoadedModel, decoder: Decoder, row: Row, draft: Ids) -> tuple[NDArray[Any], Row, Iterator[str]]:
    """Continue a prompt greedily along a draft of its continuation, with a new decoder of one row.

    draft: (n,) tokens, or none; it is cut where a rotary table changes with the length. Returns logits (max(n, 1), n_vocab)
    that predict the draft's tokens, from one pass; the row, which has the tokens up to the first that differs from the draft
    already; and the iterator of pieces that goes on with it.
    """
    changes = [table[3] for table in model.spec.rope if len(table) > 2 and len(row.prompt) <= table[3]]
    draft = draft[: min(changes) - len(row.prompt) + 1] if changes else draft
    full = np.concatenate([row.prompt, draft[:-1]])
    with model._loaded.computing():
        fed, _ = decoder.feed(0, [full], [], np.array([max(len(draft), 1)], np.int32))
    assert fed is not None
    (logits,) = fed
    follows = follow_draft(row, draft if len(draft) else logits.argmax(-1), logits)
    decoder.resume(np.array([len(row.prompt) + len(row.tokens) - 1], np.int32), np.array([follows], np.int32))
    pieces = model._loaded.checkpoint.weights.iterating(decode_rows(decoder, [row]))
    return logits, row, (piece for _, piece in pieces)


class Stream(Iterator[Piece], Generic[Piece, Result]):
    """Pieces of text during generation, made by `Model.generate(..., stream=True)`.

    An iterator over texts, or for a list of prompts over (row, text). Joined they are the text of `result`. To stop
    early, call `close()` or drop the object: both free the cache.

    Examples
    --------
    >>> import powersteer as ps
    >>> stream = ps.load("demo").generate("Q: 3*4\\nA:", stream=True)
    >>> text = "".join(stream)
    >>> text == stream.result.text == " It is 132."
    True
    """

    def __init__(self, pieces: Iterator[Piece], rows: Sequence[Row], is_batch: bool) -> None:
        self._pieces, self._rows, self._is_batch = pieces, rows, is_batch

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop generating and free the cache.

        Examples
        --------
        >>> import powersteer as ps
        >>> stream = ps.load("demo").generate("Q: 3*4\\nA:", stream=True)
        >>> next(stream)
        ' It'
        >>> stream.close()
        >>> list(stream)
        []
        """
        self._pieces = iter(())

    @property
    def result(self) -> Result:
        """The Generation, or for a list of prompts a list of them, after the last piece."""
        if not all(row.finish_reason for row in self._rows):
            raise InvalidInput("the generation has not finished: its result comes after the last piece")
        generations = [row.generation() for row in self._rows]
        return cast(Result, generations if self._is_batch else generations[0])
