"""What steering does to a model, in figures with an interval. Public as `powersteer.evaluate`.

Measures of prompts take a model (or a steered view) and `vectors`: None, the model as it is; one vector; or a list with
one item a result, each a vector, a list of vectors to add together, or None. All of them run in the same batches. One
item gives one Measured, a list gives a list.
"""

from __future__ import annotations

import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.progress import Report, progress_bar
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Ids, Prompt, Prompts, split, token_ids
from ..methods.displacement import check_count
from ..model.generation import Generation
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .batched import Callback, Steer, forward_rows, generate_rows, joined
from .target_response import jvps, log_softmax, nonlinearity, target_delta, target_sites

__all__ = [
    "Choice", "LogitDifference", "LogitScore", "MetricResult", "Repetition", "Score", "accuracy", "bootstrap", "choice",
    "contains", "curve", "kl", "linearity", "perplexity", "presence_ratio", "repetition", "score_table", "summary",
    "token_id", "wilson",
]  # fmt: skip

Array = NDArray[Any]
Vectors = Sequence[Steer] | SteeringVector | None
_RESAMPLES = 2000
_LEVEL = 0.95


# ---- intervals


@dataclass(frozen=True)
class MetricResult:
    """A figure over several prompts, with its 95% interval over prompts."""

    value: float
    low: float  # NaN for one prompt, which says nothing about others
    high: float
    n: int  # prompts
    seed: int  # of the bootstrap
    values: tuple[float, ...]  # one a prompt
    unit: str
    interval: str = "bootstrap"  # "bootstrap": percentile; "wilson": of a proportion

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] {self.unit} (n = {self.n})"


def bootstrap(
    values: Sequence[float] | Array, level: float = _LEVEL, resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """(low, high): percentile bootstrap interval of the mean (Efron & Tibshirani 1993, ch. 13). The same bits for the
    same seed. NaN for fewer than two values."""
    x = _checked_values(values)
    _check_level(level)
    return _percentiles(_weights(len(x), resamples, seed) @ x / len(x), len(x), level)


def wilson(successes: int, n: int, level: float = _LEVEL) -> tuple[float, float]:
    """(low, high): score interval of a proportion (Wilson 1927), which stays sensible at 0 and n of n."""
    if not 0 <= successes <= n or n < 1:
        raise InvalidInput(f"wilson: {successes} successes of {n}; they must be 0 to n, and n >= 1")
    _check_level(level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, extra = successes / n, z * z / n
    middle = p + extra / 2
    half = z * math.sqrt((p * (1 - p) + extra / 4) / n)
    low, high = (middle - half) / (1 + extra), (middle + half) / (1 + extra)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def summary(values: Sequence[float] | Array, unit: str, seed: int = 0) -> MetricResult:
    """The mean of one value a prompt. Values that are all 0 or 1 are a proportion and get the Wilson interval."""
    x = _checked_values(values)
    if unit == _SHARE and set(x.tolist()) <= {0.0, 1.0}:
        low, high = wilson(int(x.sum()), len(x))
        return MetricResult(float(x.mean()), low, high, len(x), seed, tuple(x.tolist()), unit, "wilson")
    low, high = bootstrap(x, seed=seed)
    return MetricResult(float(x.mean()), low, high, len(x), seed, tuple(x.tolist()), unit)


_SHARE = "share"


def _checked_values(values: Sequence[float] | Array) -> Array:
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"an interval needs a list of numbers, not {shown(values)}") from None
    if x.ndim != 1 or not len(x):
        raise InvalidInput(f"an interval needs a list of at least one number; got an array of shape {x.shape}")
    return x


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidInput(f"the level of an interval is {level!r}; it must lie between 0 and 1, such as 0.95")


def _weights(n: int, resamples: int, seed: int) -> Array:
    """(resamples, n): how often each of n values is in each resample."""
    rng = np.random.default_rng(check_count(seed, "seed", least=0))
    return rng.multinomial(n, np.full(n, 1 / n), size=check_count(resamples, "resamples")).astype(np.float64)


def _percentiles(statistics: Array, n: int, level: float) -> tuple[float, float]:
    if n < 2:
        return math.nan, math.nan
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# ---- next-token distributions


def kl(
    model: Model,
    prompts: Prompts,
    vectors: Vectors = None,
    *,
    continuation: int | Sequence[Any] = 0,
    seed: int = 0,
) -> Any:
    """KL(base || steered) = sum p (ln p - ln q) of next-token distributions, in nats: p of the model, q with `vectors`;
    with vectors=None p of the bare model, q of this steered view.

    continuation: 0: at the prompt's end. n: mean per token along the base's own greedy continuation of up to n tokens,
    the first at the prompt's end; or one continuation a prompt (Generations, or token ids).
    Log-probabilities are taken in float64, so noise is that of the model's dtype.
    """
    if vectors is None and not model.steering:
        raise InvalidInput("kl compares a steered model with its base: give vectors, or a view: model.steered(...)")
    base = replace(model, _steering=()) if vectors is None else model
    items, several = _items(vectors)
    tokens, generated = _continued(base, prompts, continuation)
    full = [joined(t, c[:-1]) for t, c in zip(tokens, generated, strict=True)]
    lengths, rows = [len(t) for t in tokens], "all" if any(map(len, generated)) else "last"
    plain = forward_rows(base, full, [None] * len(full), lengths, rows=rows)
    moved = forward_rows(
        model, [f for f in full for _ in items], items * len(full), [n for n in lengths for _ in items], rows=rows
    )
    table = np.empty((len(items), len(full)))
    for j, (f, n) in enumerate(zip(full, lengths, strict=True)):
        first = n - 1 - len(f)  # from the end: the row that predicts the first token after the prompt
        p = log_softmax(next(plain)[0][first:])
        for i in range(len(items)):
            table[i, j] = kl_divergence(p, log_softmax(next(moved)[0][first:])).mean()
    return _measured(table, several, "nats", seed)


def kl_divergence(p: Array, q: Array) -> Array:
    """KL (...) of log-probabilities (..., n_vocab), nats, never below 0."""
    nats: Array = np.maximum(np.sum(np.exp(p) * (p - q), -1), 0.0)
    return nats


def perplexity(
    model: Model, prompts: Prompts, vectors: Vectors = None, *, continuation: Sequence[Any] | None = None, seed: int = 0
) -> Any:
    """exp(- mean ln p(token | those before)), over the tokens of all prompts from the second on; with one continuation a
    prompt (Generations or token ids) over the continuations' tokens instead, an end token included. The interval
    resamples prompts; `values` are each prompt's own perplexity."""
    items, several = _items(vectors)
    if continuation is None:
        prompts, _ = split(prompts)
        full: list[Ids] = model.tokens(prompts)
        lengths, starts = [len(t) for t in full], [1] * len(full)
        if min(lengths) < 2:
            raise InvalidInput("perplexity: a prompt has one token, and nothing to predict; give continuation=")
    elif isinstance(continuation, (int, np.integer)):
        raise InvalidInput(f"perplexity: continuation is {continuation}; give one for each prompt, such as model.generate's")
    else:
        tokens, generated = _continued(model, prompts, continuation)
        full = [joined(t, c) for t, c in zip(tokens, generated, strict=True)]
        starts = lengths = [len(t) for t in tokens]
    results = []
    rows = forward_rows(model, full * len(items), [i for i in items for _ in full], lengths * len(items))
    for _ in items:
        nats = np.array([nll(next(rows)[0], f, at) for f, at in zip(full, starts, strict=True)])  # (n, 2)
        weighted = _weights(len(full), _RESAMPLES, seed) @ nats
        low, high = _percentiles(np.exp(weighted[:, 0] / weighted[:, 1]), len(full), _LEVEL)
        total, count = nats.sum(0)
        each = tuple(np.exp(nats[:, 0] / nats[:, 1]).tolist())
        results.append(MetricResult(math.exp(total / count), low, high, len(full), seed, each, "perplexity"))
    return results if several else results[0]


def nll(logits: Array, tokens: Ids, start: int) -> tuple[float, int]:
    """(- sum of ln p of tokens[start:], how many), logits (len(tokens), n_vocab), nats."""
    logp = log_softmax(logits[start - 1 : -1])
    return -float(np.take_along_axis(logp, tokens[start:, None].astype(np.intp), 1).sum()), len(tokens) - start


def _continued(model: Model, prompts: Prompts, continuation: int | Sequence[Any]) -> tuple[list[Ids], list[Ids]]:
    """(tokens of each prompt, tokens of its continuation): what was given, or the model's own."""
    prompts, _ = split(prompts)
    tokens: list[Ids] = model.tokens(prompts)
    if isinstance(continuation, (int, np.integer)) and not isinstance(continuation, bool):
        if not continuation:
            return tokens, [np.empty(0, np.int32) for _ in tokens]
        return tokens, [g.tokens for g in generate_rows(model, tokens, [None] * len(tokens), int(continuation))]
    if not isinstance(continuation, (list, tuple)) or len(continuation) != len(tokens):
        raise InvalidInput(f"continuation must be a number of tokens, or one continuation for each of {len(tokens)} prompts")
    given = [c.tokens if isinstance(c, Generation) else c for c in continuation]
    return tokens, [token_ids(c, model.n_vocab) for c in given]


# ---- scores


class LogitScore(ABC):
    """A score that is read off logits at the ends of prompts, without generating."""

    unit = "nats"

    @abstractmethod
    def prompts(self, item: Any) -> Sequence[Prompt]:
        """The prompts of one item."""

    @abstractmethod
    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        """The score of the item from the logits (n_vocab,) at the end of each of its prompts."""


Score = LogitScore | Callable[[Any, str], float]  # else score(prompt, continuation) -> number or bool


@dataclass(frozen=True)
class LogitDifference(LogitScore):
    """logit of a minus logit of b at a prompt's end: ln p(a)/p(b). a, b: texts of one token, or token ids."""

    a: str | int
    b: str | int

    def prompts(self, item: Any) -> Sequence[Prompt]:
        return [item]

    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        return _difference(model, logits[0], self.a, self.b)


@dataclass(frozen=True)
class Choice(LogitScore):
    """The preference for the first of two options, of items (question, first, second): the logit difference of the
    options' letters, averaged over both orders, so that a liking for a letter or a place cancels.

    template: with {question}, {a}, {b}; or a function of these three that returns a prompt. letters: texts of one token,
    as they follow the template, or token ids.
    """

    template: str | Callable[[str, str, str], Prompt] = "{question}\nA: {a}\nB: {b}\nAnswer:"
    letters: tuple[str | int, str | int] = (" A", " B")

    def __post_init__(self) -> None:
        if not isinstance(self.letters, (tuple, list)) or len(self.letters) != 2:
            raise InvalidInput(f"a choice has two letters, such as (' A', ' B'), not {shown(self.letters)}")

    def prompts(self, item: Any) -> Sequence[Prompt]:
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
            raise InvalidInput(f"a template has {{question}}, {{a}} and {{b}} in it, not as {shown(self.template)}") from None

    def value(self, model: Model, item: Any, logits: Sequence[Array]) -> float:
        here, swapped = (_difference(model, z, *self.letters) for z in logits)
        return (here - swapped) / 2


def _difference(model: Model, logits: Array, a: str | int, b: str | int) -> float:
    return float(logits[token_id(model, a)]) - float(logits[token_id(model, b)])


def token_id(model: Model, token: str | int) -> int:
    """The one token that a text is when it goes on after other text (write " yes" for a word); ids come back checked.
    Raises InvalidInput for a text of several tokens."""
    if not isinstance(token, str):
        return int(token_ids([token], model.n_vocab)[0])
    tokenizer = model._need_tokenizer(f"find the token {token!r}")
    for before in ("\n", "a"):
        head, both = tokenizer.encode(before).tolist(), tokenizer.encode(before + token).tolist()
        if len(both) == len(head) + 1 and both[:-1] == head:
            if "".join(model.to_str_tokens(both[-1:])).strip() != token.strip():
                raise InvalidInput(f"{token!r} is unknown to the tokenizer of {model.name!r}; give another text, or a token id")
            return int(both[-1])
    raise InvalidInput(f"{token!r} is not one token of {model.name!r}; give its first token's id, or a shorter text")


@dataclass(frozen=True)
class _Contains:
    pattern: re.Pattern[str]

    def __call__(self, prompt: Any, text: str) -> bool:
        return self.pattern.search(text) is not None


def contains(pattern: str, flags: int = 0) -> Callable[[Any, str], bool]:
    """A score: whether a regular expression is found in the continuation."""
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
) -> Array:
    """(vectors, items): the score of every item under every vector, greedy continuations decoded together.

    items: prompts, or what a LogitScore takes. stop: as for `Model.generate`. Raises InvalidInput for a score that is
    not a finite number.
    """
    if isinstance(score, LogitScore):
        values = _logit_scores(model, items, vectors, score, callback)
    else:
        check_text_score(model, score, ", or a LogitScore such as evaluate.LogitDifference(a, b)")
        tokens: list[Ids] = [model.tokens(p) for p in items]
        steer = [v for v in vectors for _ in tokens]
        generated = generate_rows(model, tokens * len(vectors), steer, max_new_tokens, stop, callback)
        prompts = list(items) * len(vectors)
        values = [score(p, g.text or "") for p, g in zip(prompts, generated, strict=True)]
    return np.array([finite_score(v) for v in values]).reshape(len(vectors), len(items))


def check_text_score(model: Model, score: Any, instead: str = "") -> None:
    """Raises InvalidInput for what is no function, and for a model without texts."""
    if not callable(score):
        raise InvalidInput(
            f"a score is a function of (prompt, continuation), such as evaluate.contains('yes'){instead}; got {shown(score)}"
        )
    model._need_tokenizer("score texts")


def score_items(score: Score, given: Any) -> list[Any]:
    """What there is to score: one prompt or several, or the items of a LogitScore. Raises InvalidInput for none."""
    if not isinstance(score, LogitScore) or isinstance(given, str):
        return split(given)[0]
    if not (items := list(given)):
        raise InvalidInput("the list of prompts to score is empty")
    return items


def _logit_scores(
    model: Model, items: Sequence[Any], vectors: Sequence[Steer], score: LogitScore, callback: Callback | None
) -> list[float]:
    requested = [[model.tokens(p) for p in score.prompts(item)] for item in items]
    tokens = [t for some in requested for t in some]
    steer = [v for v in vectors for _ in tokens]
    rows = forward_rows(model, tokens * len(vectors), steer, rows="last")
    values = []
    for _ in vectors:
        for item, some in zip(items, requested, strict=True):
            values.append(score.value(model, item, [next(rows)[0][0] for _ in some]))
            if callback:
                callback(1)  # an item, of one prompt or more
    return values


def finite_score(value: Any) -> float:
    """What a score gave, as a number. Raises InvalidInput for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"the score gave {shown(value)}; it must give a finite number, True or False")
    return number


def choice(
    model: Model,
    questions: Sequence[tuple[str, str, str]],
    vectors: Vectors = None,
    *,
    template: str | Callable[[str, str, str], Prompt] = Choice.template,
    letters: tuple[str | int, str | int] = Choice.letters,
    seed: int = 0,
) -> Any:
    """Mean preference for the first option of (question, first, second), in nats, with both orders averaged: see
    `Choice`. Multiple choice by letter as in contrastive activation addition (Rimsky et al. 2023)."""
    items, several = _items(vectors)
    requested = Choice(template, letters)
    table = score_table(model, score_items(requested, questions), items, requested)
    return _measured(table, several, Choice.unit, seed)


def accuracy(
    model: Model,
    prompts: Prompts | Sequence[Any],
    score: Score,
    vectors: Vectors = None,
    *,
    max_new_tokens: int = 64,
    stop: Any = None,
    seed: int = 0,
    progress: bool | Report = False,
) -> Any:
    """Mean score of the greedy continuations. score(prompt, text): a number or bool, e.g. `contains(regex)`; bools get the
    Wilson interval, numbers the bootstrap's. stop: as for `Model.generate`. Raises InvalidInput as `score_table`."""
    items, several = _items(vectors)
    prompts = score_items(score, prompts)
    with progress_bar(progress, len(items) * len(prompts), "accuracy") as callback:
        table = score_table(model, prompts, items, score, max_new_tokens, stop, callback)
    return _measured(table, several, score.unit if isinstance(score, LogitScore) else _SHARE, seed)


# ---- signs of degeneration


@dataclass(frozen=True)
class Repetition:
    """How much a continuation repeats itself."""

    value: float  # share of n-grams that occurred before; 0 where there is none
    n: int  # of the n-grams
    compression: float  # bytes of the UTF-8 text over bytes of zlib's compression of it; above 2.4 it loops


def repetition(generated: Generation | str | Iterable[int], n: int = 4) -> Repetition:
    """n-gram share: 1 - distinct / all n-grams (seq-rep-n, Welleck et al. 2020, arXiv:1908.04319), of tokens, or of
    words where a text is given. Compression: the ratio of Radford et al. 2022 (arXiv:2212.04356), who call a text
    degenerate above 2.4; NaN where there is no text. Short texts compress badly, to ratios below 1."""
    n = check_count(n, "repetition: n")
    units: Sequence[Any]
    if isinstance(generated, Generation):
        text, units = generated.text, generated.tokens.tolist()
    elif isinstance(generated, str):
        text, units = generated, generated.split()
    else:
        text, units = None, [int(token) for token in generated]
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    share = 1 - len(set(grams)) / len(grams) if grams else 0.0
    data = b"" if text is None else text.encode("utf-8", "replace")
    return Repetition(share, n, math.nan if text is None else len(data) / len(zlib.compress(data, 9)))


# ---- vectors and activations


def presence_ratio(
    model: Model, prompts: Prompts, vectors: Vectors, *, positions: Positions = None, seed: int = 0
) -> Any:
    """How present a direction is in what the model computes anyway: mean |a.v| / mean |a.u| over the activations a at
    the vector's site, u random unit vectors ("Power Steering", 2026); 1 for a direction like any other.

    The mean over u is taken in closed form, |a| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)). positions: of each prompt, by
    default all; the first token's activation is often much larger than others. `values` are each prompt's ratio.
    """
    items, several = _items(vectors)
    single = _single(items, "presence_ratio")
    prompts, _ = split(prompts)
    tokens: list[Ids] = model.tokens(prompts)
    sites = list(dict.fromkeys(v.place for v in single))
    d = model.d_model
    expected = math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    table = np.empty((len(single), len(tokens)))
    for j, (_, acts) in enumerate(forward_rows(model, tokens, [None] * len(tokens), sites=sites, rows="none")):
        at = prompt_positions(positions, len(tokens[j]))
        for i, v in enumerate(single):
            a = acts[sites.index(v.place)][at].astype(np.float64)
            table[i, j] = np.abs(a @ v.direction).mean() / (np.linalg.norm(a, axis=1).mean() * expected)
    return _measured(table, several, "ratio", seed)


def linearity(model: Model, prompts: Prompts, vectors: Vectors, *, seed: int = 0) -> Any:
    """|dF - J delta| / |dF| at the vector's own target and scale: 0 where the target's answer is linear, towards 1 and
    beyond where the Jacobian does not describe it. J at each prompt; see powersteer.response for positions and for
    "next_token". Raises InvalidInput for a vector that names no target."""
    items, several = _items(vectors)
    single = _single(items, "linearity")
    for v in single:
        if v.target is None:
            raise InvalidInput(f"linearity: {v!r} names no target; say which: dataclasses.replace(vec, target=(9, 'mlp_out'))")
    prompts, _ = split(prompts)
    tokens: list[Ids] = model.tokens(prompts)
    sites = target_sites(single)
    table = np.empty((len(single), len(tokens)))
    for j, t in enumerate(tokens):
        predicted = jvps(model, t, single)
        rows = forward_rows(model, [t] * (1 + len(single)), [None, *single], sites=sites, rows="last")
        base = next(rows)
        for i, v in enumerate(single):
            steered = next(rows)
            read = [z[0] if isinstance(v.target, str) else a[sites.index(v.target)] for z, a in (base, steered)]  # type: ignore[arg-type]
            table[i, j] = nonlinearity(target_delta(v, len(t), *read), v.scale * predicted[i])
    return _measured(table, several, "ratio", seed)


def curve(
    measure: Callable[[list[SteeringVector]], list[MetricResult]],
    vector: SteeringVector,
    scales: Sequence[float],
    *,
    relative: bool = True,
) -> list[tuple[float, MetricResult]]:
    """(scale, figure) for every scale, from one call of `measure(vectors)`, such as
    `lambda vs: ps.evaluate.kl(model, prompts, vs)`. relative: scales are fractions of the site's mean activation norm,
    else lengths. Negative ones push the other way."""
    if relative and vector.site_norm is None:
        raise InvalidInput("curve: this vector does not know its site's norm; give relative=False and lengths as scales")
    unit = float(vector.site_norm or 1.0) if relative else 1.0
    sign = math.copysign(1.0, vector.scale)
    given = [float(s) for s in as_list(scales)]
    pushed = [replace(vector, scale=sign * s * unit) for s in given]
    return list(zip(given, measure(pushed), strict=True))


# ---- results


def _items(vectors: Vectors) -> tuple[list[Steer], bool]:
    """(one item a result, several?)"""
    if vectors is None or isinstance(vectors, SteeringVector):
        return [vectors], False
    if not isinstance(vectors, (list, tuple)) or not vectors:
        raise InvalidInput("vectors must be a SteeringVector, or a list with an item for every result")
    return list(vectors), True


def as_list(one_or_more: Any) -> list[Any]:
    """A list of what may be one, or several; a text is one."""
    several = isinstance(one_or_more, Iterable) and not isinstance(one_or_more, str)
    return list(one_or_more) if several else [one_or_more]


def _single(items: Sequence[Steer], what: str) -> list[SteeringVector]:
    single = [v for v in items if isinstance(v, SteeringVector)]
    if len(single) != len(items):
        raise InvalidInput(f"{what} is about single vectors; give a SteeringVector or a list of them")
    return single


def _measured(table: Array, several: bool, unit: str, seed: int) -> Any:
    results = [summary(row, unit, seed) for row in table]
    return results if several else results[0]
