"""Selectivity of steering vectors: movement of a wanted score against movement of everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._util.checks import check_count
from .._util.html import table
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..inputs.prompts import Prompts, split
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Steer
from .distributions import Array
from .effects import random_vector
from .intervals import SHARE, MetricResult, summaries
from .metrics import kl, perplexity
from .scores import LogitScore, Score, score_items, score_table

__all__ = ["Movement", "Selectivity", "selectivity"]

WANTED, KL, TEXT = "wanted", "kl of unrelated prompts", "ln perplexity of the text"
Vectors = SteeringVector | Sequence[SteeringVector | Sequence[SteeringVector]]
Measure = Callable[[list[Steer]], tuple[Array, str]]  # steerings -> changes (steerings, items), unit


@dataclass(frozen=True, eq=False)
class Movement:
    """What a vector changes in one measure, next to random vectors of the same size.

    Attributes
    ----------
    name
        "wanted", the name of another score, "kl of unrelated prompts" or "ln perplexity of the text".
    change
        Steered minus unsteered, item by item.
    random
        The same of each random vector.

    Examples
    --------
    >>> import powersteer as ps
    >>> change = ps.evaluate.summary([2.0, 4.0], "nats")
    >>> ps.evaluate.Movement("wanted", change, (ps.evaluate.summary([1.0, -2.0], "nats"),)).times_random
    6.0
    """

    name: str
    change: MetricResult
    random: tuple[MetricResult, ...]

    @property
    def random_range(self) -> tuple[float, float]:
        """Least and greatest change by a random vector; NaN without draws."""
        values = [r.value for r in self.random] or [math.nan]
        return min(values), max(values)

    @property
    def times_random(self) -> float:
        """Size of the change over the mean size of those of the random vectors: a measure without a unit. NaN without draws."""
        size = float(np.mean([abs(r.value) for r in self.random])) if self.random else math.nan
        return abs(self.change.value) / size if size else math.inf if self.change.value else math.nan

    @property
    def beats_random(self) -> bool:
        """Whether the whole interval of the change lies outside the range of the random vectors."""
        low, high = self.random_range
        return self.change.low > high or self.change.high < low


@dataclass(frozen=True, eq=False, repr=False)
class Selectivity:
    """Movements of the wanted score and of everything else by one vector, made by `selectivity`.

    Attributes
    ----------
    wanted
        Of the wanted score.
    others
        Of the other scores, then KL, then perplexity.
    seed
        Seed of the random vectors and the intervals.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0].relative(0.5)
    >>> found = ps.evaluate.selectivity(model, vec, score, prompts=["Q: 1+2", "Q: 2+1"], unrelated=["Once", "The dog"])
    >>> [m.name for m in found.others], found.ratio("kl of unrelated prompts") > 0
    (['kl of unrelated prompts'], True)
    """

    wanted: Movement
    others: tuple[Movement, ...]
    seed: int

    def ratio(self, name: str) -> float:
        """Movement of the wanted score over that of another, each in multiples of the movement by random vectors: above 1
        for a vector that moves what is wanted more than a random vector of its size does, compared with the other.

        Parameters
        ----------
        name
            Of one of `others`.

        Raises
        ------
        InvalidInput
            For a name that is not there.

        Examples
        --------
        >>> import powersteer as ps
        >>> of = lambda name, by: ps.evaluate.Movement(name, ps.evaluate.summary([by], "nats"), (ps.evaluate.summary([1.0], "nats"),))
        >>> ps.evaluate.Selectivity(of("wanted", 6.0), (of("kl", 2.0),), 0).ratio("kl")
        3.0
        """
        for other in self.others:
            if other.name == name:
                return self.wanted.times_random / other.times_random if other.times_random else math.inf
        raise InvalidInput(f"selectivity: there is no {shown(name)} among {[other.name for other in self.others]}")

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for m in (self.wanted, *self.others):
            low, high = m.random_range
            beside = [f"{low:.4g} to {high:.4g} of {len(m.random)}", f"{m.times_random:.3g}"] if m.random else ["", ""]
            rows.append((m.name, str(m.change), *beside))
        return rows

    def __str__(self) -> str:
        head = ("", "change", "random vectors", "times random")
        rows = [head, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)

    def __repr__(self) -> str:
        return f"Selectivity(wanted {self.wanted.change}, {len(self.others)} others)"

    def _repr_html_(self) -> str:
        return table(("", "change [95% interval]", "random vectors", "times random"), self._rows())


def selectivity(
    model: Model,
    vectors: Vectors,
    wanted: Score,
    *,
    prompts: Prompts | Sequence[Any],
    others: Mapping[str, Score | tuple[Score, Any]] | None = None,
    unrelated: Prompts | None = None,
    continuation: int = 0,
    text: Prompts | None = None,
    n_random: int = 8,
    seed: int = 0,
    max_new_tokens: int = 64,
    stop: Any = None,
    progress: bool | Report = False,
) -> Selectivity | list[Selectivity]:
    """How far vectors move a wanted score, and how far everything else, next to random vectors of the same size.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    vectors
        One vector at its own scale, or a list with one item for each result, a vector or a list of vectors to add together.
    wanted, prompts
        A score, as for `evaluate.accuracy`, and the prompts or items that it takes.
    others
        Other scores by name, on the same prompts; or (score, prompts of its own).
    unrelated, continuation
        Prompts at which KL(unsteered || steered) of the next token is measured, in nats, as by `evaluate.kl`.
    text
        Texts whose perplexity is measured; the change is that of its logarithm, in nats a token, text by text.
    n_random
        Number of random unit vectors drawn for each vector, at its site with its size; a vector that clamps is compared with
        clamping along random directions.
    seed
        Seed of the random vectors and the intervals.
    max_new_tokens, stop
        Of the continuations, as for `Model.generate`.
    progress
        True for a progress bar, or a function that is called with (done, total) in measures.

    Returns
    -------
    Selectivity
        For a list of vectors a list of them. Intervals are of the mean change over items, by bootstrap.

    Raises
    ------
    InvalidInput
        Without anything to compare the wanted score with, and as `accuracy`, `kl` and `perplexity`.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0].relative(0.5)
    >>> found = ps.evaluate.selectivity(model, vec, score, prompts=["Q: 1+2", "Q: 2+1"], text="Once upon a time", n_random=2)
    >>> found.wanted.change.unit, found.others[0].change.unit, len(found.wanted.random)
    ('difference of nats', 'nats a token', 2)
    """
    items, is_batch = _checked(vectors)
    n_random, seed = check_count(n_random, "selectivity: n_random", least=0), check_count(seed, "selectivity: seed", least=0)
    measures = _measures(model, wanted, prompts, others or {}, unrelated, continuation, text, max_new_tokens, stop)
    if len(measures) == 1:
        raise InvalidInput("selectivity: there is nothing to compare with: give others=, unrelated= or text=")
    drawn = [_random(item, seed, draw) for item in items for draw in range(n_random)]
    steer: list[Steer] = [*items, *drawn]
    with progress_bar(progress, len(measures), "selectivity") as callback:
        results = []
        for name, measure in measures:
            changes, unit = measure(steer)
            results.append((name, summaries(changes, unit, seed)))
            callback(1)
    made = []
    for i in range(len(items)):
        first = len(items) + i * n_random
        of_item = [Movement(name, r[i], tuple(r[first : first + n_random])) for name, r in results]
        made.append(Selectivity(of_item[0], tuple(of_item[1:]), seed))
    return made if is_batch else made[0]


def _measures(
    model: Model, wanted: Score, prompts: Any, others: Mapping[str, Any], unrelated: Any, continuation: int, text: Any,
    max_new_tokens: int, stop: Any,
) -> list[tuple[str, Measure]]:  # fmt: skip
    """(name, measure) of all of them, the wanted one first."""
    scored = {WANTED: (wanted, prompts)}
    for name, other in others.items():
        if name in (WANTED, KL, TEXT):
            raise InvalidInput(f"selectivity: another score cannot be named {name!r}")
        scored[name] = other if isinstance(other, tuple) else (other, prompts)

    def of_score(score: Score, items: list[Any]) -> Measure:
        def measure(steer: list[Steer]) -> tuple[Array, str]:
            plain, *moved = score_table(model, items, [None, *steer], score, max_new_tokens, stop)
            unit = score.unit if isinstance(score, LogitScore) else SHARE
            return np.array(moved) - plain, f"difference of {unit}"

        return measure

    def of_kl(steer: list[Steer]) -> tuple[Array, str]:
        return np.array([r.values for r in kl(model, unrelated, steer, continuation=continuation, seed=0)]), "nats"

    def of_text(steer: list[Steer]) -> tuple[Array, str]:
        plain, *moved = (np.log(r.values) for r in perplexity(model, split(text)[0], [None, *steer]))
        return np.array(moved) - plain, "nats a token"

    found: list[tuple[str, Measure]] = [(name, of_score(score, score_items(score, given))) for name, (score, given) in scored.items()]
    return found + [(KL, of_kl)] * (unrelated is not None) + [(TEXT, of_text)] * (text is not None)


def _checked(vectors: Any) -> tuple[list[Any], bool]:
    """(one item for each result, whether a list was given)"""
    items = [vectors] if isinstance(vectors, SteeringVector) else list(vectors) if isinstance(vectors, (list, tuple)) else []
    several = [item if isinstance(item, (list, tuple)) else [item] for item in items]
    if not items or not all(some and all(isinstance(v, SteeringVector) for v in some) for some in several):
        raise InvalidInput(f"selectivity: vectors are {shown(vectors)}; give a SteeringVector, or a list of them")
    return items, not isinstance(vectors, SteeringVector)


def _random(item: Any, seed: int, draw: int) -> Steer:
    """Random directions in place of those of an item, which do the same with the same size."""
    if not isinstance(item, SteeringVector):
        return [_random_like(v, seed, j, draw) for j, v in enumerate(item)]
    return _random_like(item, seed, 0, draw)


def _random_like(v: SteeringVector, seed: int, *key: int) -> SteeringVector:
    return replace(random_vector(v, seed, *key), scale=v.scale, operation=v.operation)
