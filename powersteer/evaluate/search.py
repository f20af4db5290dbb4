"""Select a steering vector on validation prompts and report it on test prompts, next to the best of equally many random
vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .._util.checks import as_integer, as_number, check_count
from .._util.deprecated import deprecated_arguments
from .._util.html import table
from .._util.progress import Report, progress_bar
from .._util.workers import ExecutorLike, Workers
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompts
from ..model.generation import Generation
from ..model.model import Model
from ..model.remote import RemoteModel
from ..vectors.steering_vector import SteeringVector
from .coherence import Coherent
from .distributions import Array
from .effect_table import counted
from .effects import checked_pushes, pushed_vectors, random_vector, with_norms
from .gradients import check_gradient, first_order_changes, score_gradients
from .intervals import SHARE, MetricResult, summary
from .scores import LogitScore, Score, item_tokens, score_items, score_table, text_values
from .worker_tables import WorkerTables

__all__ = ["Candidate", "SearchResult", "Selection", "random_like", "search"]

_FEWEST = 4  # validation prompts of the first round of a halving


@dataclass(frozen=True, eq=False, repr=False)
class Candidate:
    """One vector at one sign and scale, with its score on validation prompts.

    Attributes
    ----------
    index, sign, scale
        Index into the vectors, +1 or -1, and fraction of the site's mean activation norm.
    budget
        The KL that the scale was found for, in nats; None for a given scale.
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
    budget: float | None = None

    def __repr__(self) -> str:
        return f"Candidate({self})"

    def __str__(self) -> str:
        v = self.vector
        kl = "" if self.budget is None else f" (KL {self.budget:g})"
        target = "" if v.target is None else f" -> {v.target}"
        return f"{v.location}{target} {v.method} {v.rank}, {'+' if self.sign > 0 else '-'}{self.scale:.4g}{kl}: {self.score:.4g}"


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
    raw: MetricResult | None = None  # of a `coherent` score: that of the score without the demand for coherence


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
    unsteered_raw
        Of a `coherent` score: the result on test of the model without vectors, without the demand for coherence, as
        `chosen[0].raw` is of the first vector. Else None.
    unreached
        Number of vectors, signs and budgets that were left out, random ones too, because no scale reaches the budget. A draw
        without any candidate has no selection.

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
    unsteered_raw: MetricResult | None = None
    unreached: int = 0

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
            ("share", f"{round(self.share.value * self.share.n)} of {self.share.n} vectors reach {self.passing:g} on validation"
             + ("" if of_random is None else f", {round(of_random.value * of_random.n)} of {of_random.n} random ones")),
        ]  # fmt: skip
        if (raw := self.chosen[0].raw) is not None:
            best = max((found.raw for found in self.random if found.raw is not None), default=None)
            random = "" if best is None else f"; random {best}, the greatest"
            lines.append(("raw", f"{raw}; unsteered {self.unsteered_raw}{random}: test without the demand for coherence"))
        if self.unreached:
            lines.append(("unreached", f"{counted(self.unreached, 'candidate')} left out that no scale brings to the KL"))
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
    scales: Sequence[float] | None = None,
    kl: float | Sequence[float] | None = None,
    skip_unreached: bool = False,
    positions: Positions = None,
    n_random: int = 5,
    seed: int = 0,
    max_new_tokens: int = 64,
    stop: Any = None,
    passing: float = 0.5,
    top: int = 1,
    halving: int | None = None,
    screen: LogitScore | int | None = None,
    screened: int = 32,
    executor: ExecutorLike | None = None,
    worker_threads: int = 1,
    progress: bool | Report = False,
) -> SearchResult:
    """Select the (vector, sign, scale) with the highest mean score on validation prompts, and score it on test prompts.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    vectors, signs, scales, kl, skip_unreached, positions
        As for `effects`; a site's norm that a vector lacks, and the divergences, are measured on the validation prompts.
    score
        As for `evaluate.accuracy`; higher is better, ties go to the smaller scale or budget, then to the earlier vector.
    validation, test
        Prompts, without any in common. Test prompts are used after the selection only.
    n_random
        Number of draws of equally many random unit vectors at the same sites, with the same signs and norms or budgets; in each
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
    executor, worker_threads
        As for `powersteer.atlas`: workers compute the scores, of the same bits; this process norms, budgets and gradients.
        `score` must be one that can be pickled, such as a function at the top level of a module.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    SearchResult

    Raises
    ------
    InvalidInput
        If validation and test share a prompt, a number is out of range, screen is a number and the score has no gradient, or
        the score cannot be sent to the workers.

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
    given, signs, strengths = checked_pushes(vectors, signs, scales, kl)
    n_random, seed = check_count(n_random, "search: n_random", least=0), check_count(seed, "search: seed", least=0)
    top = check_count(top, "search: top", len(given), "there are no more vectors")
    if halving is not None:
        halving = check_count(halving, "search: halving", least=2)
    threshold = as_number(passing)
    if threshold is None or math.isnan(threshold):
        raise InvalidInput(f"search: passing is {shown(passing)}; it must be a number, the score from which a vector passes")
    by_gradient, screened = _checked_screen(screen, screened, score, len(given) * len(signs) * len(strengths))
    scored = _tables_by(model, executor, worker_threads)
    items, unseen = score_items(score, validation), score_items(score, test)
    tokens = item_tokens(model, score, items)
    _apart(tokens, item_tokens(model, score, unseen))
    ids = [t for some in tokens for t in some]
    given = with_norms(model, ids, given)
    draws = [given, *(random_like(given, seed, draw) for draw in range(n_random))]
    by_kl = kl is not None
    random = [v for some in draws[1:] for v in some]
    scales, budgets = ([], strengths) if by_kl else (strengths, None)
    pushed = pushed_vectors(model, ids, given, random, signs, scales, budgets, positions, skip_unreached)
    top = min(top, len({i for i, *_ in pushed if i >= 0}))
    if not top:
        raise InvalidInput(f"search: none of the {counted(len(given), 'vector')} reaches a KL of {shown(kl)} nats at any scale")
    fields = [  # that of the vectors first
        _Field([
            _candidate(i, sign, s, pushed[key], by_kl)
            for s in sorted(strengths) for i in range(len(given)) for sign in signs
            if (key := (~((n - 1) * len(given) + i) if n else i, sign, s)) in pushed
        ])
        for n in range(len(draws))
    ]  # fmt: skip
    fields = [field for field in fields if field.candidates]
    permutation = np.random.default_rng(seed).permutation(len(items))
    order = [items[i] for i in permutation]
    plan = _rounds(screened, len(items), halving)
    total = _cells(fields, plan, screen) + (1 + by_gradient) * len(items) + (top + len(fields)) * len(unseen)
    with progress_bar(progress, total, "search") as callback:
        where: dict[str, Any] = {"callback": callback, "positions": positions}
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, **where}
        if isinstance(screen, LogitScore):
            _, tables = _tables(scored, fields, order[: plan[0][1]], screen, [], **where)
            for field, table in zip(fields, tables, strict=True):
                field.screen(table.mean(1), screened)
        elif by_gradient:
            gradients = score_gradients(model, items, score, [v.location for v in given], **where)
            for field in fields:
                field.screen(first_order_changes(model, field.vectors, gradients).mean(1), screened, predicted=True)
        plain, seen = np.empty(len(items)), 0
        for kept, n in plan:
            for field in fields:
                field.cut(kept)
            (plain[permutation[seen:n]],), tables = _tables(scored, fields, order[seen:n], score, [None], **how)
            for field, table in zip(fields, tables, strict=True):
                field.add(table, n)
            seen = n
        ranked, *drawn = (field.ranked for field in fields)
        best_of: dict[int, Candidate] = {}  # by vector
        for c in ranked:
            best_of.setdefault(c.index, c)
        winners = [*list(best_of.values())[:top], *(of_draw[0] for of_draw in drawn)]
        made: list[Generation] = []
        scores = scored(unseen, [None, *[c.vector for c in winners]], score, **how, made=made)
    raw = _raw(model, score, unseen, made, seed) if isinstance(score, Coherent) else [None] * len(scores)
    unit = score.unit if isinstance(score, LogitScore) else "share"
    results = [summary(row, unit, seed) for row in scores]
    found = [Selection(*one) for one in zip(winners, results[1:], raw[1:], strict=True)]
    return SearchResult(
        chosen=tuple(found[:top]),
        gain=summary(scores[1] - scores[0], f"difference of {unit}", seed),
        unsteered=(float(plain.mean()), results[0]),
        random=tuple(found[top:]),
        share=_share([ranked], len(given), threshold, seed),
        random_share=_share([*drawn, *[[]] * (n_random - len(drawn))], len(given), threshold, seed) if n_random else None,
        passing=threshold,
        ranked=tuple(ranked),
        rounds=tuple(plan),
        screen_correlation=_rank_correlation(ranked, plain[permutation]) if by_gradient else None,
        seed=seed,
        unsteered_raw=raw[0],
        unreached=len(draws) * len(given) * len(signs) * len(strengths) - len(pushed),
    )


def _candidate(index: int, sign: int, strength: float, v: SteeringVector, by_kl: bool) -> Candidate:
    scale, budget = (abs(v.scale) / (v.site_norm or math.nan), strength) if by_kl else (strength, None)
    return Candidate(index, sign, scale, v, math.nan, 0, budget=budget)


class _Field:
    """Candidates that compete with each other, those of the vectors or of one random draw, on their way through a search."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = list(candidates)  # in the order in which ties are decided
        self._alive, self._out = list(range(len(self.candidates))), list[int]()  # indices, the best first
        self._sums = np.zeros(len(self.candidates))

    @property
    def vectors(self) -> list[SteeringVector]:
        """Of the candidates that are still in the search."""
        return [self.candidates[i].vector for i in self._alive]

    @property
    def ranked(self) -> list[Candidate]:
        """All candidates, best first; those of later rounds before those of earlier rounds."""
        return [self.candidates[i] for i in self._alive + self._out]

    def screen(self, values: Array, most: int, predicted: bool = False) -> None:
        """Keep the candidates of the greatest values, which may be predicted changes of their scores."""
        if predicted:
            self.candidates = [replace(c, predicted=float(x)) for c, x in zip(self.candidates, values, strict=True)]
        best = np.argsort(-values, kind="stable").tolist()
        self._alive, self._out = sorted(best[:most]), best[most:]

    def cut(self, most: int) -> None:
        """Keep the best so far."""
        self._alive, self._out = self._alive[:most], self._alive[most:] + self._out

    def add(self, scores: Array, n: int) -> None:
        """Scores (candidates in the search, prompts) on further prompts, n prompts by now."""
        self._sums[self._alive] += scores.sum(1)
        for i in self._alive:
            self.candidates[i] = replace(self.candidates[i], score=float(self._sums[i] / n), n=n)
        self._alive.sort(key=lambda i: (-self._sums[i], i))


def _tables_by(model: Model, executor: ExecutorLike | None, threads: int) -> Callable[..., Array]:
    """`score_table` of the model, in this process or by the workers of an executor."""
    if executor is None:
        return partial(score_table, model)
    return WorkerTables(RemoteModel.of(model, threads), Workers(executor))


def _tables(
    scored: Callable[..., Array], fields: Sequence[_Field], items: Sequence[Any], score: Score, others: Sequence[None], **how: Any
) -> tuple[Array, list[Array]]:
    """Scores (vectors, items) of others, and of the vectors of each field, all in the same batches."""
    of_fields = [field.vectors for field in fields]
    table = scored(items, [*others, *(v for some in of_fields for v in some)], score, **how)
    ends = np.cumsum([len(others), *map(len, of_fields)])
    first, *rest = np.split(table, ends[:-1])
    return first, rest


def _checked_screen(screen: Any, screened: int, score: Score, candidates: int) -> tuple[bool, int]:
    """(whether candidates are screened by the score's gradient, how many are kept)."""
    if screen is None:
        return False, candidates
    by_gradient = not isinstance(screen, LogitScore)
    if by_gradient:
        if as_integer(screen) is None:
            raise InvalidInput(f"search: screen is {shown(screen)}; it must be a number of candidates, or a LogitScore")
        screened = check_count(screen, "search: screen")
        check_gradient(score)
    return by_gradient, min(check_count(screened, "search: screened"), candidates)


def _apart(validation: list[list[Ids]], test: list[list[Ids]]) -> None:
    seen = {t.tobytes(): i for i, some in enumerate(validation) for t in some}
    for j, some in enumerate(test):
        for t in some:
            if t.tobytes() in seen:
                raise InvalidInput(
                    f"search: test prompt {j} is also validation prompt {seen[t.tobytes()]}; a vector that is selected on a "
                    "prompt cannot be tested on it: take one of them out"
                )


def random_like(vectors: Sequence[SteeringVector], seed: int, draw: int) -> list[SteeringVector]:
    """A random unit vector for every vector, at its site and with its norm."""
    return [random_vector(v, seed, draw, i) for i, v in enumerate(vectors)]


def _rounds(candidates: int, prompts: int, halving: int | None) -> list[tuple[int, int]]:
    """(candidates, prompts on which they were scored at its end) of every round."""
    counts = [prompts]
    while halving is not None and _FEWEST <= (fewer := math.ceil(counts[0] / halving)) < counts[0]:
        counts.insert(0, fewer)
    return [(math.ceil(candidates / (halving or 1) ** i), n) for i, n in enumerate(counts)]


def _cells(fields: Sequence[_Field], plan: Sequence[tuple[int, int]], screen: Any) -> int:
    """Number of scores of candidates in all rounds, and in a screen by a score."""
    sizes, ends = [len(field.candidates) for field in fields], [0, *(n for _, n in plan)]
    measured = sum(min(m, size) * (n - before) for (m, n), before in zip(plan, ends, strict=False) for size in sizes)
    return measured + isinstance(screen, LogitScore) * sum(sizes) * ends[1]


def _raw(model: Model, score: Coherent, items: Sequence[Any], made: Sequence[Generation], seed: int) -> list[MetricResult]:
    """For every vector the score without the demand for coherence, of continuations that are in the order of the items."""
    each = text_values(model, score.score, [item for item in items for _ in range(len(made) // len(items))], made)
    return [summary(row, SHARE, seed) for row in np.array(each).reshape(len(items), -1).T]


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
