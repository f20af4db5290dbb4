"""Select a steering vector on validation prompts and report it on test prompts, next to the best of equally many random
vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._util.checks import as_integer, as_number, check_count
from .._util.deprecated import deprecated_arguments
from .._util.html import table
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..inputs.prompts import Ids, Prompts
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .distributions import Array
from .effect_table import counted
from .effects import checked_pushes, random_vector, with_norms
from .gradients import check_gradient, first_order_changes, score_gradients
from .intervals import MetricResult, summary
from .scores import LogitScore, Score, item_tokens, score_items, score_table

__all__ = ["Candidate", "SearchResult", "Selection", "random_like", "search"]

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
    predicted
        Change of the mean score on all validation prompts, to first order; NaN unless the search screened by it.

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
    predicted: float = math.nan

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
    screen_correlation
        (Spearman's rank correlation of the predicted with the measured change of the score, n) over the n vectors, signs and
        scales that passed a screen by first-order change; the correlation is NaN if one of them does not vary, the whole None
        without such a screen. The measured change is on the prompts on which a candidate was scored.
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
    screen_correlation: tuple[float, int] | None
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
        if self.screen_correlation is not None:
            rho, n = self.screen_correlation
            lines.append(("screen", f"measured {n} of {len(self.ranked)} candidates, those of the greatest predicted change; rank "
                          f"correlation of predicted and measured change {rho:.3g}"))  # fmt: skip
        return lines

    def __str__(self) -> str:
        return "\n".join(f"{label:12}{text}" for label, text in self._lines())

    def __repr__(self) -> str:
        best = "" if self.random_best is None else f", best random {self.random_best.value:.4g}"
        screen = "" if self.screen_correlation is None else f", rank correlation of the screen {self.screen_correlation[0]:.3g}"
        return f"SearchResult({self.chosen[0].candidate}; test {self.test}{best}{screen})"

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
    screen: LogitScore | int | None = None,
    screened: int = 32,
    progress: bool | Report = False,
) -> SearchResult:
    """Select the (vector, sign, scale) with the highest mean score on validation prompts, and score it on test prompts.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    vectors, signs, scales
        As for `effects`; a site's norm that a vector lacks is measured on the validation prompts.
    score
        As for `evaluate.accuracy`; higher is better, ties go to the smaller scale, then to the earlier vector.
    validation, test
        Prompts, without any in common. Test prompts are used after the selection only.
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
        A screen ranks all candidates, random ones too; the best go on, the others count as not passing. A number n: by the
        change of `score` on the validation prompts to first order (`evaluate.first_order`), and the best n go on; one
        gradient of each prompt serves all vectors, so this saves time where there are many, and `score` must have a
        gradient. A `LogitScore`: by its mean on the prompts of the first round, and the best `screened` go on; this saves
        time where `score` needs continuations.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    SearchResult

    Raises
    ------
    InvalidInput
        If validation and test share a prompt, a number is out of range, or screen is a number and the score has no gradient.

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
    >>> quick = ps.search(model, vec, score, validation=["Q: 1+2", "Q: 2+1"], test=["Q: 3+1", "Q: 4+1"], screen=2)
    >>> [c.n for c in quick.ranked], quick.ranked[0].predicted > 0, quick.screen_correlation[1]
    ([2, 2, 0, 0], True, 2)
    """
    given, signs, scales = checked_pushes(vectors, signs, scales)
    n_random, seed = check_count(n_random, "search: n_random", least=0), check_count(seed, "search: seed", least=0)
    top = check_count(top, "search: top", len(given), "there are no more vectors")
    if halving is not None:
        halving = check_count(halving, "search: halving", least=2)
    threshold = as_number(passing)
    if threshold is None or math.isnan(threshold):
        raise InvalidInput(f"search: passing is {shown(passing)}; it must be a number, the score from which a vector passes")
    by_gradient = screen is not None and not isinstance(screen, LogitScore)
    if by_gradient:
        if as_integer(screen) is None:
            raise InvalidInput(f"search: screen is {shown(screen)}; it must be a number of candidates, or a LogitScore")
        screened = check_count(screen, "search: screen")
        check_gradient(score)
    items, unseen = score_items(score, validation), score_items(score, test)
    tokens = item_tokens(model, score, items)
    _apart(tokens, item_tokens(model, score, unseen))
    given = with_norms(model, [t for some in tokens for t in some], given)
    permutation = np.random.default_rng(seed).permutation(len(items))
    order = [items[i] for i in permutation]
    count = len(given) * len(signs) * len(scales)
    screened = count if screen is None else min(check_count(screened, "search: screened"), count)
    plan = _rounds(screened, len(items), halving)
    first = order[: plan[0][1]]
    scores_of_one = sum(m * (n - before) for (m, n), before in zip(plan, [0, *(n for _, n in plan)], strict=False))
    total = (1 + n_random) * (scores_of_one + isinstance(screen, LogitScore) * count * len(first))
    total += (1 + by_gradient) * len(items) + (top + n_random + 1) * len(unseen)
    with progress_bar(progress, total, "search") as callback:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "callback": callback}
        gradients = {}
        if by_gradient:
            gradients = score_gradients(model, items, score, [v.location for v in given], callback=callback)

        def rank(vectors: Sequence[SteeringVector]) -> list[Candidate]:
            """Candidates with their scores, best first; those of later rounds before those of earlier rounds."""
            candidates = [  # in the order in which ties are decided
                Candidate(i, sign, scale, v.relative(sign * scale), math.nan, 0)
                for scale in sorted(scales) for i, v in enumerate(vectors) for sign in signs
            ]  # fmt: skip
            alive, out, sums, seen = list(range(count)), list[int](), np.zeros(count), 0
            if screen is not None:
                every = [c.vector for c in candidates]
                if isinstance(screen, LogitScore):
                    values = score_table(model, first, every, screen, callback=callback).mean(1)
                else:
                    values = first_order_changes(model, every, gradients).mean(1)
                    candidates = [replace(c, predicted=float(x)) for c, x in zip(candidates, values, strict=True)]
                best = np.argsort(-values, kind="stable").tolist()
                alive, out = sorted(best[:screened]), best[screened:]
            for kept, n in plan:
                alive, out = alive[:kept], alive[kept:] + out
                some = [candidates[i].vector for i in alive]
                sums[alive] += score_table(model, order[seen:n], some, score, **how).sum(1)
                for i in alive:
                    candidates[i] = replace(candidates[i], score=float(sums[i] / n), n=n)
                alive, seen = sorted(alive, key=lambda i: (-sums[i], i)), n
            return [candidates[i] for i in alive + out]

        ranked = rank(given)
        drawn = [rank(random_like(model, given, seed, draw)) for draw in range(n_random)]
        best_of: dict[int, Candidate] = {}  # by vector
        for c in ranked:
            best_of.setdefault(c.index, c)
        winners = [*list(best_of.values())[:top], *(of_draw[0] for of_draw in drawn)]
        (plain,) = score_table(model, items, [None], score, **how)
        scores = score_table(model, unseen, [None, *[c.vector for c in winners]], score, **how)
    unit = score.unit if isinstance(score, LogitScore) else "share"
    results = [summary(row, unit, seed) for row in scores]
    found = [Selection(c, m) for c, m in zip(winners, results[1:], strict=True)]
    return SearchResult(
        chosen=tuple(found[:top]),
        gain=summary(scores[1] - scores[0], f"difference of {unit}", seed),
        unsteered=(float(plain.mean()), results[0]),
        random=tuple(found[top:]),
        share=_share([ranked], len(given), threshold, seed),
        random_share=_share(drawn, len(given), threshold, seed) if n_random else None,
        passing=threshold,
        ranked=tuple(ranked),
        rounds=tuple(plan),
        screen_correlation=_rank_correlation(ranked, plain[permutation]) if by_gradient else None,
        seed=seed,
    )


def _apart(validation: list[list[Ids]], test: list[list[Ids]]) -> None:
    seen = {t.tobytes(): i for i, some in enumerate(validation) for t in some}
    for j, some in enumerate(test):
        for t in some:
            if t.tobytes() in seen:
                raise InvalidInput(
                    f"search: test prompt {j} is also validation prompt {seen[t.tobytes()]}; a vector that is selected on a "
                    "prompt cannot be tested on it: take one of them out"
                )


def random_like(model: Model, vectors: Sequence[SteeringVector], seed: int, draw: int) -> list[SteeringVector]:
    """A random unit vector for every vector, at its site and with its norm."""
    return [random_vector(model, v, seed, draw, i) for i, v in enumerate(vectors)]


def _rounds(candidates: int, prompts: int, halving: int | None) -> list[tuple[int, int]]:
    """(candidates, prompts on which they were scored at its end) of every round."""
    counts = [prompts]
    while halving is not None and _FEWEST <= (fewer := math.ceil(counts[0] / halving)) < counts[0]:
        counts.insert(0, fewer)
    return [(math.ceil(candidates / (halving or 1) ** i), n) for i, n in enumerate(counts)]


def _rank_correlation(ranked: Sequence[Candidate], plain: Array) -> tuple[float, int]:
    """(Spearman's correlation of predicted and measured change, number of candidates that were measured). plain: scores of the
    unsteered model on the validation prompts, in their order."""
    measured = [c for c in ranked if c.n]
    pairs = [(c.predicted, c.score - plain[: c.n].mean()) for c in measured]
    if min(len(set(x)) for x in zip(*pairs, strict=True)) < 2:
        return math.nan, len(measured)
    from scipy.stats import spearmanr  # slow to import, and needed here only

    return float(spearmanr(pairs)[0]), len(measured)


def _share(rankings: Sequence[Sequence[Candidate]], n_vectors: int, passing: float, seed: int) -> MetricResult:
    good = [{c.index for c in ranked if c.score >= passing} for ranked in rankings]
    passed = [float(i in of_draw) for of_draw in good for i in range(n_vectors)]
    return replace(summary(passed, "share", seed), unit="share of vectors")
