"""Scores of single items: read off logits, or computed from a generated continuation."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompt, split
from ..model.generation import Generation
from ..model.model import Model
from ..model.one_token import token_id
from .batched import Callback, Steer, forward_rows, generate_rows
from .distributions import Array

__all__ = [
    "Choice", "LogitDifference", "LogitScore", "Score", "TextScore", "check_text_score", "contains", "finite_score",
    "item_tokens", "score_items", "score_table", "text_values", "token_id",
]  # fmt: skip


class LogitScore(ABC):
    """A score that is read off logits at the ends of prompts, without generating. Subclasses define which prompts an
    item has, and its score; for `first_order` and the screen of `search` also the score's gradient.

    Attributes
    ----------
    unit
        What the score is measured in.

    Examples
    --------
    >>> import powersteer as ps
    >>> class Spread(ps.evaluate.LogitScore):
    ...     unit = "logits"
    ...
    ...     def prompts(self, item):
    ...         return [item]
    ...
    ...     def value(self, model, item, logits):
    ...         return float(logits[0].std())
    >>> result = ps.evaluate.accuracy(ps.load("demo"), ["Q: 1+2", "Q: 2+2"], score=Spread())
    >>> result.unit, result > 0
    ('logits', True)
    """

    unit = "nats"

    @abstractmethod
    def prompts(self, item: Any) -> Sequence[Prompt]:
        """The prompts of one item.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.evaluate.LogitDifference(" yes", " no").prompts("Is it?")
        ['Is it?']
        """

    @abstractmethod
    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        """The score of one item.

        Parameters
        ----------
        model
            The model that computed the logits.
        item
            The item.
        logits
            One array (n_vocab,) for each of the item's prompts: the logits at its end.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> ps.evaluate.LogitDifference("3", "4").value(model, "Q: 1+2", [model("Q: 1+2")[-1] * 0])
        0.0
        """

    def gradient(self, model: Model, item: Any, logits: Sequence[Array]) -> Sequence[Array]:
        """Gradient of the score of one item with respect to the logits of its prompts. Optional: a class that overrides
        `value` has a gradient only if it overrides this, too. Where `value` is a step function, such as whether one logit
        is the largest, it can be that of the margin: the score then predicted is the margin.

        Parameters
        ----------
        model, item, logits
            As for `value`.

        Returns
        -------
        One array (n_vocab,) for each of the item's prompts.

        Raises
        ------
        InvalidInput
            If the class does not define it.

        Examples
        --------
        >>> import powersteer as ps
        >>> class Log(ps.evaluate.LogitScore):
        ...     def prompts(self, item):
        ...         return [item]
        ...
        ...     def value(self, model, item, logits):
        ...         return float(np.log(np.exp(logits[0]).sum()))
        ...
        ...     def gradient(self, model, item, logits):
        ...         p = np.exp(logits[0] - logits[0].max())
        ...         return [p / p.sum()]
        >>> model = ps.load("demo")
        >>> [row.shape for row in Log().gradient(model, "Q: 1+2", [model("Q: 1+2")[-1]])]
        [(255,)]
        """
        raise InvalidInput(f"{type(self).__name__} does not define gradient, the derivative of its value by the logits")


class TextScore(ABC):
    """A score of continuations that needs the model or the tokens. Other scores of texts are functions of (prompt,
    continuation) that return a number or bool.

    Examples
    --------
    >>> import powersteer as ps
    >>> isinstance(ps.evaluate.coherent(ps.evaluate.contains("yes"), repetition=0.2), ps.evaluate.TextScore)
    True
    """

    @abstractmethod
    def values(self, model: Model, items: Sequence[Any], generated: Sequence[Generation]) -> list[float]:
        """The scores (n,) of the continuations of n items.

        Examples
        --------
        >>> import powersteer as ps
        >>> class Short(ps.evaluate.TextScore):
        ...     def values(self, model, items, generated):
        ...         return [float(len(g.tokens) < 9) for g in generated]
        >>> ps.evaluate.accuracy(ps.load("demo"), "Q: 3*4\\nA:", score=Short()).value
        1.0
        """


Score = LogitScore | TextScore | Callable[[Any, str], float]


@dataclass(frozen=True)
class LogitDifference(LogitScore):
    """Logit of `a` minus logit of `b` at a prompt's end, which is ln p(a)/p(b), in nats.

    Parameters
    ----------
    a, b
        Texts of one token each, or token ids.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> score = ps.evaluate.LogitDifference("3", "4")
    >>> ps.evaluate.accuracy(model, ["Q: 1+2", "Q: 2+2"], score=score).unit
    'nats'
    """

    a: str | int
    b: str | int

    def prompts(self, item: Any) -> Sequence[Prompt]:
        """The item itself, which is a prompt.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.evaluate.LogitDifference("3", "4").prompts("Q: 1+2")
        ['Q: 1+2']
        """
        return [item]

    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        """Logit of `a` minus logit of `b`; parameters as for `LogitScore.value`.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> logits = [model("Q: 1+2")[-1]]
        >>> there, back = ps.evaluate.LogitDifference("3", "4"), ps.evaluate.LogitDifference("4", "3")
        >>> there.value(model, "Q: 1+2", logits) == -back.value(model, "Q: 1+2", logits)
        True
        """
        a, b = (float(logits[0][token_id(model, token)]) for token in (self.a, self.b))
        return a - b

    def gradient(self, model: Model, item: Any, logits: Sequence[Array]) -> Sequence[Array]:
        """1 at `a` and -1 at `b`, the gradient of `value`; parameters as for `LogitScore.gradient`.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> (row,) = ps.evaluate.LogitDifference("3", "4").gradient(model, "Q: 1+2", [model("Q: 1+2")[-1]])
        >>> row.shape, float(row.max()), float(row.min())
        ((255,), 1.0, -1.0)
        """
        row = np.zeros(model.n_vocab)
        for token, slope in ((self.a, 1), (self.b, -1)):
            row[token_id(model, token)] += slope
        return [row]


@dataclass(frozen=True)
class Choice(LogitScore):
    """Preference for the first of two options, of items (question, first, second), in nats: the logit difference of the
    options' letters, averaged over both orders, so that a preference for a letter or for an order cancels.

    Parameters
    ----------
    template
        A text with {question}, {a} and {b}; or a function of these three that returns a prompt.
    letters
        Two texts of one token each, as they follow the template, or token ids.

    Raises
    ------
    InvalidInput
        Unless there are two letters.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.evaluate.Choice("{question} A{a} B{b}:", ("A", "B")).prompts(("sum?", "3", "4"))
    ['sum? A3 B4:', 'sum? A4 B3:']
    """

    template: str | Callable[[str, str, str], Prompt] = "{question}\nA: {a}\nB: {b}\nAnswer:"
    letters: tuple[str | int, str | int] = (" A", " B")

    def __post_init__(self) -> None:
        if not isinstance(self.letters, (tuple, list)) or len(self.letters) != 2:
            raise InvalidInput(f"a choice has two letters, such as (' A', ' B'), not {shown(self.letters)}")

    def prompts(self, item: Any) -> Sequence[Prompt]:
        """The question with its options in both orders. Raises InvalidInput unless the item is (question, first, second).

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.evaluate.Choice("{question} {a} or {b}?").prompts(("1+2:", "3", "4"))
        ['1+2: 3 or 4?', '1+2: 4 or 3?']
        """
        if not isinstance(item, (tuple, list)) or len(item) != 3:
            raise InvalidInput(f"a choice is (question, first option, second option), not {shown(item)}")
        question, first, second = item
        return [self._prompt(question, first, second), self._prompt(question, second, first)]

    def _prompt(self, question: str, a: str, b: str) -> Prompt:
        if not isinstance(self.template, str):
            return self.template(question, a, b)
        try:
            return self.template.format(question=question, a=a, b=b)
        except (AttributeError, LookupError, ValueError):
            raise InvalidInput(
                f"a template contains {{question}}, {{a}} and {{b}}; cannot fill in {shown(self.template)}"
            ) from None

    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        """Mean over both orders of the logit difference in favour of the first option; parameters as for
        `LogitScore.value`.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> same = [model("1+2: 3 or 4?")[-1]] * 2  # a preference for a letter alone cancels
        >>> ps.evaluate.Choice(letters=("3", "4")).value(model, ("1+2:", "3", "4"), same)
        0.0
        """
        difference = LogitDifference(*self.letters)
        here, swapped = (difference.value(model, item, [z]) for z in logits)
        return (here - swapped) / 2

    def gradient(self, model: Model, item: Any, logits: Sequence[Array]) -> Sequence[Array]:
        """Gradient of `value`, which is linear in the logits of both orders: half the letters' difference in the first, and
        minus that in the other; parameters as for `LogitScore.gradient`.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> here, swapped = ps.evaluate.Choice(letters=("3", "4")).gradient(model, ("1+2:", "3", "4"), [])
        >>> float(here.max()), float(here.min()), bool((here == -swapped).all())
        (0.5, -0.5, True)
        """
        (row,) = LogitDifference(*self.letters).gradient(model, item, logits)
        return [row / 2, -row / 2]


@dataclass(frozen=True)
class _Contains:
    pattern: re.Pattern[str]

    def __call__(self, prompt: Any, text: str) -> bool:
        return self.pattern.search(text) is not None


def contains(pattern: str, flags: int = 0) -> Callable[[Any, str], bool]:
    """A score of texts: whether a regular expression matches anywhere in the continuation.

    Parameters
    ----------
    pattern, flags
        As for `re.compile`.

    Returns
    -------
    score
        A function of (prompt, continuation).

    Raises
    ------
    InvalidInput
        If the pattern is not a regular expression.

    Examples
    --------
    >>> import powersteer as ps
    >>> score = ps.evaluate.contains("sorry|cannot")
    >>> score("Q: how?", " I cannot help."), score("Q: how?", " Like this.")
    (True, False)
    """
    try:
        return _Contains(re.compile(pattern, flags))
    except (re.error, TypeError) as error:
        raise InvalidInput(f"contains: {pattern!r} is no regular expression: {error}") from None


def score_table(
    model: Model,
    items: Sequence[Any],
    vectors: Sequence[Steer],
    score: Score,
    max_new_tokens: int = 64,
    stop: Any = None,
    callback: Callback | None = None,
    positions: Positions = None,
    made: list[Generation] | None = None,
) -> Array:
    """The score of every item under every vector; greedy continuations are decoded in batches, item after item, which share
    what lies before the vectors' layers.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    items
        Prompts; for a `LogitScore` the items that it takes.
    vectors
        For each row of the result a vector, a list of vectors to add together, or None.
    score, max_new_tokens, stop
        As for `accuracy`.
    callback
        Called with the number of items that were scored since the last call.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere.
    made
        A list that the continuations are appended to, item after item.

    Returns
    -------
    table : (vectors, items)

    Raises
    ------
    InvalidInput
        If the score does not return a finite number.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> score = ps.evaluate.contains("It is")
    >>> ps.evaluate.score_table(model, ["Q: 12*3\\nA:", "Q: 7*5\\nA:"], [None], score, max_new_tokens=8)
    array([[1., 1.]])
    """
    if not isinstance(score, LogitScore):
        check_text_score(model, score, ", or a LogitScore such as evaluate.LogitDifference(a, b)")
    tokens_of = item_tokens(model, score, items)
    every = [(item, some) for item, some in zip(items, tokens_of, strict=True) for _ in vectors]
    tokens = [t for _, some in every for t in some]
    steer = [v for some in tokens_of for v in vectors for _ in some]
    if isinstance(score, LogitScore):
        values, rows = list[float](), forward_rows(model, tokens, steer, rows="last", positions=positions)
        for item, some in every:
            values.append(score.value(model, item, [next(rows)[0][0] for _ in some]))
            if callback:
                callback(1)  # an item, of one prompt or more
    else:
        generated = generate_rows(model, tokens, steer, max_new_tokens, stop, callback, positions=positions)
        values = text_values(model, score, [item for item, _ in every], generated)
        if made is not None:
            made += generated
    return np.ascontiguousarray(np.array([finite_score(v) for v in values]).reshape(len(items), len(vectors)).T)


def text_values(model: Model, score: Score, items: Sequence[Any], generated: Sequence[Generation]) -> list[float]:
    """The score of every continuation of the items, for a score of texts. Raises InvalidInput unless they are finite."""
    if isinstance(score, TextScore):
        values: Sequence[Any] = score.values(model, items, generated)
    else:
        assert not isinstance(score, LogitScore)
        values = [score(item, g.text or "") for item, g in zip(items, generated, strict=True)]
    return [finite_score(value) for value in values]


def item_tokens(model: Model, score: Score, items: Sequence[Any]) -> list[list[Ids]]:
    """Token ids of the prompts of every item."""
    prompts_of = [score.prompts(item) if isinstance(score, LogitScore) else [item] for item in items]
    return [[model.tokens(p) for p in some] for some in prompts_of]


def check_text_score(model: Model, score: Any, instead: str = "") -> None:
    """Raises InvalidInput for a score that is not a function, and for a model without texts."""
    if not callable(score) and not isinstance(score, TextScore):
        raise InvalidInput(
            f"a score is a function of (prompt, continuation), such as evaluate.contains('yes'){instead}; got {shown(score)}"
        )
    model._need_tokenizer("score texts")


def score_items(score: Score, given: Any) -> list[Any]:
    """The items to score: one prompt or several, or the items of a LogitScore. Raises InvalidInput for an empty list."""
    if not isinstance(score, LogitScore) or isinstance(given, str):
        return split(given)[0]
    if not (items := list(given)):
        raise InvalidInput("the list of prompts to score is empty")
    return items


def finite_score(value: Any) -> float:
    """The number that a score returned. Raises InvalidInput for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"the score gave {shown(value)}; it must give a finite number, True or False")
    return number
