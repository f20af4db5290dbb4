"""A score of texts that demands coherence: no loops, and likely under the plain model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._util.checks import as_number, check_positive
from ..errors import InvalidInput, shown
from ..model.generation import Generation
from ..model.model import Model
from .batched import forward_rows, joined
from .degeneration import repetition as repetition_of
from .distributions import nll
from .scores import LogitScore, Score, TextScore, text_values

__all__ = ["Coherent", "coherent"]


@dataclass(frozen=True)
class Coherent(TextScore):
    """A score of texts that is 0 for a text that loops or is unlikely under the plain model, made by `coherent`.

    Attributes
    ----------
    score
        The score of a text that does neither.
    repetition
        Largest share of 4-grams of tokens that occurred before; None: any.
    perplexity
        Largest perplexity under the model without steering; None: any.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.evaluate.coherent(ps.evaluate.contains("yes"), repetition=0.2).repetition
    0.2
    """

    score: Score
    repetition: float | None
    perplexity: float | None

    def values(self, model: Model, items: Sequence[Any], generated: Sequence[Generation]) -> list[float]:
        """The score of every continuation. Raises InvalidInput for a score below 0, which an incoherent text would exceed.

        Parameters
        ----------
        model
            The model; its steering is left out where texts are read.
        items, generated
            (n,) prompts as they were given, and their continuations.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, score = ps.load("demo"), ps.evaluate.coherent(ps.evaluate.contains("It is"), perplexity=20)
        >>> score.values(model, ["Q: 3*4\\nA:"], [model.generate("Q: 3*4\\nA:")])
        [1.0]
        """
        values = text_values(model, self.score, items, generated)
        if least := [v for v in values if v < 0]:
            raise InvalidInput(f"coherent: the score gave {least[0]:.4g}; it must be at least 0, which is what an incoherent text gets")
        kept = [i for i, value in enumerate(values) if value and self._varied(generated[i])]
        if self.perplexity is not None:
            read = _perplexities(model, [generated[i] for i in kept])
            kept = [i for i, value in zip(kept, read, strict=True) if value <= self.perplexity]
        counted = set(kept)
        return [value if i in counted else 0.0 for i, value in enumerate(values)]

    def _varied(self, generated: Generation) -> bool:
        return self.repetition is None or repetition_of(generated).value <= self.repetition


def coherent(score: Score, *, repetition: float | None = None, perplexity: float | None = None) -> Coherent:
    """A score that counts a text only if it is coherent: the given score, or 0 for a text that loops or is unlikely.

    Parameters
    ----------
    score
        A function of (prompt, continuation), such as `contains(regex)`, which returns numbers of at least 0.
    repetition
        Largest share of 4-grams of the continuation's tokens that occurred before (`evaluate.repetition`), 0 to 1.
    perplexity
        Largest perplexity of the continuation, given its prompt, under the model without any steering. Only texts that
        count otherwise are read. At least one of the two limits must be given.

    Returns
    -------
    Coherent
        For `accuracy`, `score_table`, `effects` and `search`; the result of a search has the rates without this demand as
        well.

    Raises
    ------
    InvalidInput
        Without a limit, for a limit out of range, and for a score that does not read texts.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Q: 12*3\\nA:", "Q: 7*5\\nA:"]
    >>> wanted = ps.evaluate.coherent(ps.evaluate.contains("It is"), repetition=0.5, perplexity=20)
    >>> ps.evaluate.accuracy(model, prompts, score=wanted, max_new_tokens=8).value
    1.0
    """
    if isinstance(score, LogitScore) or not (callable(score) or isinstance(score, TextScore)):
        raise InvalidInput(f"coherent: a score of texts is needed, a function of (prompt, continuation); got {shown(score)}")
    if repetition is None and perplexity is None:
        raise InvalidInput("coherent: give a limit: repetition=0.3, perplexity=30, or both")
    share = as_number(repetition)
    if repetition is not None and (share is None or not 0 <= share <= 1):
        raise InvalidInput(f"coherent: repetition is {shown(repetition)}; it must be a number from 0 to 1")
    return Coherent(score, share, None if perplexity is None else check_positive(perplexity, "coherent: perplexity"))


def _perplexities(model: Model, generated: Sequence[Generation]) -> list[float]:
    """Of every continuation given its prompt, under the model without steering. Equal ones are read once."""
    keys = [(g.prompt_tokens.tobytes(), g.tokens.tobytes()) for g in generated]
    different = dict(zip(keys, generated, strict=True))
    rows = forward_rows(
        replace(model, _steering=()), [joined(g.prompt_tokens, g.tokens[:-1]) for g in different.values()], [None] * len(different),
        [len(g.prompt_tokens) for g in different.values()], rows=[len(g.tokens) for g in different.values()],
    )  # fmt: skip
    read = {
        key: math.exp(min(nll(logits, g.tokens) / len(g.tokens), 700.0))
        for (key, g), (logits, _) in zip(different.items(), rows, strict=True)
    }
    return [read[key] for key in keys]
