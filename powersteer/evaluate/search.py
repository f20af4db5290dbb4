"""Select a steering vector on validation prompts and report it on test prompts, next to the best of equally many random
vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_number, check_count
from .._util.deprecated import deprecated_arguments
from .._util.html import table
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..inputs.prompts import Ids, Prompts
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .effect_table import counted
from .effects import checked_pushes, pushed, random_direction, with_norms
from .intervals import MetricResult, summary
from .scores import LogitScore, Score, score_items, score_table

__all__ = ["Candidate", "SearchResult", "Selection", "random_like", "search"]

Array = NDArray[Any]
_FEWEST = 4  # validation prompts of the first round of a halving


@dataclass(frozen=True, eq=False, repr=False)
class Candidate:
    """One vector at one sign and scale, with its score on validation prompts.

    Attributes
    ----------
    index, sign, scale
        Index into the vectors, +1 or -1, and fraction of the site's mean activation norm.
    vector
        The vector as it is added.
    score, n
        Mean score over the n validation prompts on which the candidate was scored; NaN if there were none.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0]
    >>> found = ps.search(model, vec, score, validation=["Q: 1+2", "Q: 2+1"], test=["Q: 3+1"], n_random=0)
    >>> len(found.ranked), found.ranked[0].index, found.ranked[0].n
    (4, 0, 2)
    """

    index: int
    sign: int
    scale: float
    vector: SteeringVector
    score: float
    n: int

    def __repr__(self) -> str:
        return f"Candidate({self})"

    def __str__(self) -> str:
        v = self.vector
        target = "" if v.target is None else f" -> {v.target}"
        return f"{v.location}{target} {v.method} {v.rank}, {'+' if self.sign > 0 else '-'}{self.scale:g}: {self.score:.4g}"


@dataclass(frozen=True, eq=False)
class Selection:
    """The candidate that a search selected on validation prompts, and its score on test prompts.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0]
    >>> found = ps.search(model, vec, score, validation=["Q: 1+2", "Q: 2+1"], test=["Q: 3+1"], n_random=2)
    >>> found.chosen[0].test == found.test, len(found.random)
    (True, 2)
    """

    candidate: Candidate
    test: MetricResult


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """Result of `powersteer.search`.

    Attributes
    ----------
    chosen
        Selections of the best `top` vectors, best on validation first.
    gain
        Test score of the first minus that of the unsteered model, prompt by prompt.
    unsteered
        (mean score on validation, result on test) of the model without vectors.
    random
        For each random draw, the selection among equally many random vectors.
    share, random_share
        Share of vectors, and of random vectors (None without draws), that pass on validation at some sign and scale,
        with the Wilson interval over vectors.
    passing
        Score on validation from which a vector passes.
    ranked
        Every candidate, best first; with halving, candidates of later rounds first.
    rounds
        For each round (candidates, validation prompts on which they were scored at its end).
    seed
        Seed of the random vectors, the order of prompts and the intervals.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0]
    >>> found = ps.search(model, vec, score, validation=["Q: 1+2", "Q: 2+1"], test=["Q: 3+1"], n_random=2)
    >>> found.vector.location, found.random_range[0] <= found.random_range[1]
    (blocks.1.hook_mlp_out, True)
    """

    chosen: tuple[Selection, ...]
    gain: MetricResult
    unsteered: tuple[float, MetricResult]
    random: tuple[Selection, ...]
    share: MetricResult
    random_share: MetricResult | None
    passing: float
    ranked: tuple[Candidate, ...]
    rounds: tuple[tuple[int, int], ...]
    seed: int

    @property
    def vector(self) -> SteeringVector:
        """The chosen vector, at the chosen sign and scale."""
        return self.chosen[0].candidate.vector

    @property
    def test(self) -> MetricResult:
        """The chosen vector's score on test prompts."""
        return self.chosen[0].test

    @property
    def random_range(self) -> tuple[float, float]:
        """Least and greatest test score of the selected random vectors; NaN without draws."""
        values = [found.test.value for found in self.random] or [math.nan]
        return min(values), max(values)

    @property
    def random_best(self) -> MetricResult | None:
        """The greatest test score of the selected random vectors; None without draws."""
        return max((found.test for found in self.random), default=None)

    @property
    def beats_random(self) -> bool:
        """Whether the chosen vector's test interval lies above the test scores of all selected random vectors."""
        return self.test.low > self.random_range[1]

    def _lines(self) -> list[tuple[str, str]]:
        """(label, text) of every line of the summary."""
        (low, high), first, of_random = self.random_range, self.chosen[0].candidate, self.random_share
        lines = [
            ("chosen", f"{first}, its mean score on {counted(first.n, 'validation prompt')}"),
            ("test", f"{self.test}; unsteered {self.unsteered[1]}"),
            ("random", f"test {self.random_best}: the best of {len(self.random)} draws ({low:.4g} to {high:.4g}), each the "
             "validation choice among as many random vectors" if self.random
             else "none were drawn: the score of a selected random vector is not known"),
            ("share", f"{self.share.value:.3g} of {self.share.n} vectors reach {self.passing:g} on validation"
             + ("" if of_random is None else f", {of_random.value:.3g} of {of_random.n} random ones")),
        ]  # fmt: skip
        if len(self.rounds) > 1:
            lines.append(("halving", ", ".join(f"{m} candidates on {n} prompts" for m, n in self.rounds)))
        return lines

    def __str__(self) -> str:
        return "\n".join(f"{label:12}{text}" for label, text in self._lines())

    def __repr__(self) -> str:
        best = "" if self.random_best is None else f", best random {self.random_best.value:.4g}"
        return f"SearchResult({self.chosen[0].candidate}; test {self.test}{best})"

    def _repr_html_(self) -> str:
        return table(("", ""), self._lines(), repr(self))


@deprecated_arguments(3, random="n_random")
def search(
    model: Model,
    vectors: SteeringVector | Sequence[SteeringVector],
    score: Score,
    *,
    validation: Prompts | Sequence[Any],
    test: Prompts | Sequence[Any],
    signs: Sequence[int] = (1, -1),
    scales: Sequence[float] = (0.35, 1.0),
    n_random: int = 5,
    seed: int = 0,
    max_new_tokens: int = 64,
    stop: Any = None,
    passing: float = 0.5,
    top: int = 1,
    halving: int | None = None,
    screen: LogitScore | None = None,
    screened: int = 32,
    progress: bool | Report = False,
) -> SearchResult:
    """Select the (vector, sign, scale) with the highest mean score on validation prompts, and score it on test prompts.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    vectors
        One vector or several, added at every position.
    score
        A function of (prompt, continuation) that returns a number or bool, such as `evaluate.contains(regex)`; or a
        `LogitScore`, such as `evaluate.LogitDifference(a, b)` or `evaluate.Choice()`, with its own items as prompts.
        Higher is better; ties go to the smaller scale, then to the earlier vector.
    validation, test
        Prompts, without any in common. Test prompts are used after the selection only.
    signs
        1, -1 or both.
    scales
        Fractions of the site's mean activation norm: that of the vector, or else that on the validation prompts.
    n_random
        Number of draws of equally many random unit vectors at the same sites, with the same signs and norms; in each
        draw the best one on validation is selected and tested.
    seed
        Seed of the random vectors, the order of prompts and the intervals.
    max_new_tokens, stop
        Of the continuations, as for `Model.generate`.
    passing
        Score on validation from which a vector passes, for `share`.
    top
        Number of vectors that are tested.
    halving
        h > 1 saves time by successive halving: all candidates on a few prompts, the best 1/h of them on h times as many,
        and so on, random ones too. Shares then use the prompts on which a vector was scored.
    screen, screened
        A `LogitScore` that saves time where `score` needs continuations: it ranks all candidates on the prompts of the
        first round; the best `screened` of them go on, the others count as not passing.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    SearchResult

    Raises
    ------
    InvalidInput
        If validation and test share a prompt, or a number is out of range.

    References
    ----------
    Jamieson & Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, 2016 (halving).

    Examples
    --------
    >>> import powersteer as ps
    >>> model, score = ps.load("demo"), ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian("Q: 1+2", 1, 3).svd(k=1).vectors[0]
    >>> found = ps.search(model, vec, score, validation=["Q: 1+2", "Q: 2+1"], test=["Q: 3+1", "Q: 4+1"])
    >>> found.test.n, found.test.unit, len(found.random)
    (2, 'nats', 5)
    """
    given, signs, scales = checked_pushes(vectors, signs, scales)
    n_random, seed = check_count(n_random, "search: n_random", least=0), check_count(seed, "search: seed", least=0)
    top = check_count(top, "search: top", len(given), "there are no more vectors")
    if halving is not None:
        halving = check_count(halving, "search: halving", least=2)
    threshold = as_number(passing)
    if threshold is None or math.isnan(threshold):
        raise InvalidInput(f"search: passing is {shown(passing)}; it must be a number, the score from which a vector passes")
    if screen is not None and not isinstance(screen, LogitScore):
        raise InvalidInput(f"search: screen is {shown(screen)}; it must be a LogitScore, such as evaluate.LogitDifference(a, b)")
    items, unseen = score_items(score, validation), score_items(score, test)
    tokens = _tokens(model, score, items)
    _apart(tokens, _tokens(model, score, unseen))
    given = with_norms(model, [t for some in tokens for t in some], given)
    order = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    count = len(given) * len(signs) * len(scales)
    screened = count if screen is None else min(check_count(screened, "search: screened"), count)
    plan = _rounds(screened, len(items), halving)
    first = order[: plan[0][1]]
    total = (1 + n_random) * (_cost(plan) + (screen is not None) * count * len(first))
    total += len(items) + (top + n_random + 1) * len(unseen)
    with progress_bar(progress, total, "search") as callback:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "callback": callback}

        def rank(vectors: Sequence[SteeringVector]) -> list[Candidate]:
            candidates, out = _candidates(vectors, signs, scales), list[Candidate]()
            if screen is not None:
                values = score_table(model, first, [c.vector for c in candidates], screen, callback=callback).mean(1)
                best = np.lexsort((range(count), -values))
                out = [candidates[i] for i in best[screened:]]
                candidates = [candidates[i] for i in sorted(best[:screened])]
            return _rank(model, candidates, score, order, plan, how) + out

        ranked = rank(given)
        drawn = [rank(random_like(model, given, seed, draw)) for draw in range(n_random)]
        winners = _distinct(ranked, top) + [of_draw[0] for of_draw in drawn]
        plain_validation = float(score_table(model, items, [None], score, **how).mean())
        scores = score_table(model, unseen, [None, *[c.vector for c in winners]], score, **how)
    unit = score.unit if isinstance(score, LogitScore) else "share"
    results = [summary(row, unit, seed) for row in scores]
    found = [Selection(c, m) for c, m in zip(winners, results[1:], strict=True)]
    return SearchResult(
        chosen=tuple(found[:top]),
        gain=summary(scores[1] - scores[0], f"difference of {unit}", seed),
        unsteered=(plain_validation, results[0]),
        random=tuple(found[top:]),
        share=_share([ranked], len(given), threshold, seed),
        random_share=_share(drawn, len(given), threshold, seed) if n_random else None,
        passing=threshold,
        ranked=tuple(ranked),
        rounds=tuple(plan),
        seed=seed,
    )


# ---- prompts


def _tokens(model: Model, score: Score, items: Sequence[Any]) -> list[list[Ids]]:
    """Token ids of the prompts of every item."""
    prompts_of = [score.prompts(item) if isinstance(score, LogitScore) else [item] for item in items]
    return [[model.tokens(p) for p in some] for some in prompts_of]


def _apart(validation: list[list[Ids]], test: list[list[Ids]]) -> None:
    seen = {t.tobytes(): i for i, some in enumerate(validation) for t in some}
    for j, some in enumerate(test):
        for t in some:
            if t.tobytes() in seen:
                raise InvalidInput(
                    f"search: test prompt {j} is also validation prompt {seen[t.tobytes()]}; a vector that is selected on a "
                    "prompt cannot be tested on it: take one of them out"
                )


# ---- selection


def random_like(model: Model, vectors: Sequence[SteeringVector], seed: int, draw: int) -> list[SteeringVector]:
    """A random unit vector for every vector, at its site and with its norm."""
    return [
        SteeringVector(
            random_direction(model, v.location, seed, draw, i), v.layer, v.site, site_norm=v.site_norm, method="random",
            rank=i, seed=seed,
        )
        for i, v in enumerate(vectors)
    ]  # fmt: skip


def _candidates(vectors: Sequence[SteeringVector], signs: Sequence[int], scales: Sequence[float]) -> list[Candidate]:
    """In the order in which ties are decided: the smaller scale, then the earlier vector, then the earlier sign."""
    return [
        Candidate(i, int(sign), float(scale), pushed(v, sign, scale), math.nan, 0)
        for scale in sorted(scales) for i, v in enumerate(vectors) for sign in signs
    ]  # fmt: skip


def _rounds(candidates: int, prompts: int, halving: int | None) -> list[tuple[int, int]]:
    """(candidates, prompts on which they were scored at its end) of every round."""
    if halving is None:
        return [(candidates, prompts)]
    counts = [prompts]
    while math.ceil(counts[0] / halving) >= _FEWEST and math.ceil(counts[0] / halving) < counts[0]:
        counts.insert(0, math.ceil(counts[0] / halving))
    plan = []
    for n in counts:
        plan.append((candidates, n))
        candidates = math.ceil(candidates / halving)
    return plan


def _cost(plan: Sequence[tuple[int, int]]) -> int:
    """Number of scores that are computed."""
    seen = [0, *[n for _, n in plan]]
    return sum(m * (n - before) for (m, n), before in zip(plan, seen, strict=False))


def _rank(
    model: Model,
    candidates: list[Candidate],
    score: Score,
    items: Sequence[Any],
    plan: Sequence[tuple[int, int]],
    how: dict[str, Any],
) -> list[Candidate]:
    """The candidates with their scores, best first; candidates of later rounds before those of earlier rounds."""
    out: list[Candidate] = []
    first = {(c.index, c.sign, c.scale): i for i, c in enumerate(candidates)}  # decides ties
    sums = np.zeros(len(candidates))
    alive, seen = candidates, 0
    for kept, n in plan:
        out = alive[kept:] + out
        alive, sums = alive[:kept], sums[:kept]
        sums = sums + score_table(model, items[seen:n], [c.vector for c in alive], score, **how).sum(1)
        seen = n
        best = np.lexsort(([first[c.index, c.sign, c.scale] for c in alive], -sums))
        alive, sums = [replace(alive[i], score=float(sums[i] / n), n=n) for i in best], sums[best]
    return alive + out


def _distinct(ranked: Sequence[Candidate], top: int) -> list[Candidate]:
    """The best candidate of each of the `top` best vectors."""
    best: dict[int, Candidate] = {}
    for c in ranked:
        best.setdefault(c.index, c)
    return list(best.values())[:top]


def _share(rankings: Sequence[Sequence[Candidate]], n_vectors: int, passing: float, seed: int) -> MetricResult:
    passed = []
    for ranked in rankings:
        good = {c.index for c in ranked if c.score >= passing}
        passed += [float(i in good) for i in range(n_vectors)]
    return replace(summary(passed, "share", seed), unit="share of vectors")
