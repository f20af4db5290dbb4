"""An honest search among steering vectors: chosen on validation prompts, reported on test prompts, and held against the
best of as many random vectors, chosen the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..inputs.prompts import Ids, Prompts
from ..methods.displacement import check_count
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .effects import checked_pushes, pushed, random_direction, with_norms
from .metrics import LogitScore, MetricResult, Score, score_items, score_table, summary

__all__ = ["Candidate", "SearchResult", "Selection", "random_like", "search"]

Array = NDArray[Any]
_FEWEST = 4  # validation prompts of the first round of a halving


@dataclass(frozen=True, eq=False)
class Candidate:
    """One vector at one sign and scale, and how it did on validation prompts."""

    index: int  # into the vectors
    sign: int
    scale: float  # fraction of the site's mean activation norm
    vector: SteeringVector  # as it is added
    score: float  # mean over the validation prompts that it was tried on
    n: int  # how many those were

    def __str__(self) -> str:
        v = self.vector
        target = "" if v.target is None else f" -> {v.target}"
        return f"{v.place}{target} {v.method} {v.rank}, {'+' if self.sign > 0 else '-'}{self.scale:g}: {self.score:.4g}"


@dataclass(frozen=True, eq=False)
class Selection:
    """What a search among some vectors chose, and what that is worth on prompts that it has not seen."""

    candidate: Candidate
    test: MetricResult


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Made by `powersteer.search`."""

    chosen: tuple[Selection, ...]  # the best `top` vectors, best on validation first
    gain: MetricResult  # of the first over the unsteered model: differences by test prompt
    unsteered: tuple[float, MetricResult]  # (mean score on validation, on test)
    random: tuple[Selection, ...]  # the best of as many random vectors, one a draw
    share: MetricResult  # of vectors with a sign and scale that passes on validation; Wilson interval over vectors
    random_share: MetricResult | None  # the same of all random vectors; None without draws
    passing: float  # the score on validation from which a vector passes
    ranked: tuple[Candidate, ...]  # every candidate, best first; in a halving those that were kept longest first
    rounds: tuple[tuple[int, int], ...]  # (candidates, validation prompts that they had seen at its end)
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
        """Least and greatest test score of the random draws' choices; NaN without draws."""
        values = [found.test.value for found in self.random] or [math.nan]
        return min(values), max(values)

    @property
    def random_best(self) -> MetricResult | None:
        """The greatest test score among the random draws' choices; None without draws."""
        return max((found.test for found in self.random), key=lambda m: m.value, default=None)

    @property
    def beats_random(self) -> bool:
        """Whether the chosen vector's test interval lies above the test scores of every random draw."""
        return self.test.low > self.random_range[1]

    def __str__(self) -> str:
        low, high = self.random_range
        lines = [
            f"chosen      {self.chosen[0].candidate}, its mean score on {_count(self.chosen[0].candidate.n, 'validation prompt')}",
            f"test        {self.test}; unsteered {self.unsteered[1]}",
            f"random      test {self.random_best}: the best of {len(self.random)} draws ({low:.4g} to {high:.4g}), each the "
            "validation choice among as many random vectors" if self.random
            else "random      none were drawn: what a vector of no meaning would reach is not known",
            f"share       {self.share.value:.3g} of {self.share.n} vectors reach {self.passing:g} on validation"
            + (f", {self.random_share.value:.3g} of {self.random_share.n} random ones" if self.random_share else ""),
        ]
        if len(self.rounds) > 1:
            lines.append("halving     " + ", ".join(f"{m} candidates on {n} prompts" for m, n in self.rounds))
        return "\n".join(lines)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def search(
    model: Model,
    vectors: SteeringVector | Sequence[SteeringVector],
    score: Score,
    validation: Prompts | Sequence[Any],
    test: Prompts | Sequence[Any],
    *,
    signs: Sequence[int] = (1, -1),
    scales: Sequence[float] = (0.35, 1.0),
    random: int = 5,
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
    """The (vector, sign, scale) with the highest mean score on validation prompts, and its score on test prompts.

    score: `score(prompt, continuation)` -> number or bool, such as `evaluate.contains(regex)`; or
    `evaluate.LogitDifference(a, b)`, `evaluate.Choice()`, whose prompts are then questions. Higher is better; ties go to
    the smaller scale, then to the earlier vector. scales: fractions of the site's mean activation norm that the vector
    knows, or else of that on the validation prompts; vectors are added at every position.
    random: draws of as many random unit vectors at the same sites, tried at the same signs and norms, each draw choosing
    its own best on validation. passing: the validation score that counts as passing, for `share`.
    halving: h > 1 spares passes: all candidates on a few prompts, the best 1/h of them on h times as many, and so on,
    random ones too; shares then count scores on the prompts that a vector was tried on. screen: spares more where `score`
    needs continuations: a score of logits that ranks all candidates first, on the prompts of the first round; the best
    `screened` of them go on, the others count as not passing. top: how many vectors are tested.

    Test prompts are looked at only once the choice is made. Raises InvalidInput if validation and test share a prompt.
    """
    given, signs, scales = checked_pushes(vectors, signs, scales)
    random, seed = check_count(random, "search: random", least=0), check_count(seed, "search: seed", least=0)
    top = check_count(top, "search: top", len(given), "there are no more vectors")
    if halving is not None:
        halving = check_count(halving, "search: halving", least=2)
    if not isinstance(passing, (int, float, np.integer, np.floating)) or math.isnan(passing):
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
    total = (1 + random) * (_cost(plan) + (screen is not None) * count * len(first))
    total += len(items) + (top + random + 1) * len(unseen)
    with progress_bar(progress, total, "search") as callback:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "tell": callback}

        def rank(vectors: Sequence[SteeringVector]) -> list[Candidate]:
            candidates, out = _candidates(vectors, signs, scales), list[Candidate]()
            if screen is not None:
                values = score_table(model, first, [c.vector for c in candidates], screen, callback=callback).mean(1)
                best = np.lexsort((range(count), -values))
                out = [candidates[i] for i in best[screened:]]
                candidates = [candidates[i] for i in sorted(best[:screened])]
            return _rank(model, candidates, score, order, plan, how) + out

        ranked = rank(given)
        drawn = [rank(random_like(model, given, seed, draw)) for draw in range(random)]
        winners = _distinct(ranked, top) + [of_draw[0] for of_draw in drawn]
        plain_validation = float(score_table(model, items, [None], score, **how).mean())
        scores = score_table(model, unseen, [None, *[c.vector for c in winners]], score, **how)
    unit = score.unit if isinstance(score, LogitScore) else "share"
    measured = [summary(row, unit, seed) for row in scores]
    found = [Selection(c, m) for c, m in zip(winners, measured[1:], strict=True)]
    return SearchResult(
        chosen=tuple(found[:top]),
        gain=summary(scores[1] - scores[0], f"difference of {unit}", seed),
        unsteered=(plain_validation, measured[0]),
        random=tuple(found[top:]),
        share=_share([ranked], len(given), passing, seed),
        random_share=_share(drawn, len(given), passing, seed) if random else None,
        passing=float(passing),
        ranked=tuple(ranked),
        rounds=tuple(plan),
        seed=seed,
    )


# ---- prompts


def _tokens(model: Model, score: Score, items: Sequence[Any]) -> list[list[Ids]]:
    """What the model reads of every item."""
    requested = [score.prompts(item) if isinstance(score, LogitScore) else [item] for item in items]
    return [[model.tokens(p) for p in some] for some in requested]


def _apart(validation: list[list[Ids]], test: list[list[Ids]]) -> None:
    seen = {t.tobytes(): i for i, some in enumerate(validation) for t in some}
    for j, some in enumerate(test):
        for t in some:
            if t.tobytes() in seen:
                raise InvalidInput(
                    f"search: test prompt {j} is also validation prompt {seen[t.tobytes()]}; what is chosen on a prompt "
                    "cannot be tested on it: take one of them out"
                )


# ---- selection


def random_like(model: Model, vectors: Sequence[SteeringVector], seed: int, draw: int) -> list[SteeringVector]:
    """A random unit vector for every vector, at its site and with its norm."""
    return [
        SteeringVector(
            random_direction(model, v.place, seed, draw, i), v.layer, v.site, site_norm=v.site_norm, method="random",
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
    """(candidates, prompts that they have seen after it) of every round."""
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
    """Scores that are computed."""
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
    """The candidates with their scores, best first; those of the last round before those that fell out earlier."""
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
