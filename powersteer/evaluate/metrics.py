"""Metrics of a steered model, with 95% confidence intervals.

Metrics of prompts take a model (or a steered view) and `vectors`: None for the model as it is; one vector; or a list with
one item for each result, each a vector, a list of vectors to add together, or None. All of them run in the same batches.
One item gives one MetricResult, a list gives a list.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import numpy as np

from .._util.checks import as_integer
from .._util.deprecated import deprecated_arguments, warn_deprecated
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.positions import Positions, prompt_positions
from ..inputs.prompts import Prompt, Prompts, split
from ..model.model import Model
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import SteeringVector
from .batched import Steer, forward_rows, joined
from .distributions import Array, nll
from .divergence import Continuations, along, continued, kl_table, logit_rows
from .gradients import first_order_changes, score_gradients
from .intervals import RESAMPLES, SHARE, MetricResult, percentiles, resample_counts, summaries
from .scores import Choice, LogitScore, Score, score_items, score_table
from .target_response import jvps, nonlinearity, target_sites

__all__ = ["accuracy", "choice", "first_order", "kl", "linearity", "perplexity", "presence_ratio"]

P = ParamSpec("P")
R = TypeVar("R")
Items = TypeVar("Items", contravariant=True)
Vectors = Sequence[Steer] | SteeringVector | None
Template = str | Callable[[str, str, str], Prompt]


class _Metric(Protocol[Items, P]):
    """A metric of prompts, by type: one result for one vector or none, a list for a list."""

    @overload
    def __call__(
        self, model: Model, prompts: Items, vectors: SteeringVector | None = ..., *args: P.args, **kwargs: P.kwargs
    ) -> MetricResult: ...
    @overload
    def __call__(
        self, model: Model, prompts: Items, vectors: Sequence[Steer], *args: P.args, **kwargs: P.kwargs
    ) -> list[MetricResult]: ...


def _metric(
    function: Callable[Concatenate[Model, Items, Vectors, P], MetricResult | list[MetricResult]],
) -> _Metric[Items, P]:
    """Decorator: the types of `_Metric`."""
    return cast(_Metric[Items, P], function)


@_metric
def kl(
    model: Model, prompts: Prompts, vectors: Vectors = None, *, continuation: int | Continuations = 0,
    positions: Positions = None, seed: int = 0,
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """KL(base || steered) = sum p (ln p - ln q) of next-token distributions, in nats.

    Parameters
    ----------
    model
        The base, whose distribution is p; or a steered view, if there are no `vectors`: then it gives q, and p is that
        of the model without steering.
    prompts
        One prompt or several.
    vectors
        One vector, or a list with one item for each result.
    continuation
        0: at the prompt's end. n: the mean per token along the base's own greedy continuation of up to n tokens, the
        first at the prompt's end. Or one continuation (Generation, or token ids) for each prompt.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere.
    seed
        Seed of the bootstrap over prompts.

    Returns
    -------
    MetricResult
        In nats; a list of them for a list of vectors. Log-probabilities are taken in float64, so the rounding is that of
        the model's dtype.

    Raises
    ------
    InvalidInput
        If nothing is steered, or the number of continuations differs from that of prompts.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Task: 3 * 4 =", "Task: 7 * 8 ="]
    >>> vec = model.jacobian(prompts, 1, 3).svd(k=1).vectors[0]
    >>> weak, strong, none = ps.evaluate.kl(model, prompts, [vec.relative(0.01), vec.relative(1.0), None])
    >>> none < weak < strong, strong.unit, strong.n
    (True, 'nats', 2)
    """
    if vectors is None and not model.steering:
        raise InvalidInput("kl compares a steered model with its base: give vectors, or a view: model.steered(...)")
    base = replace(model, _steering=()) if vectors is None else model
    items, is_batch = _items(vectors)
    paths = along(*continued(base, prompts, continuation))
    moved = logit_rows(model, paths, items if vectors is None else [None, *items], positions)
    plain = logit_rows(base, paths, [None]) if vectors is None else moved
    return _results(kl_table(plain, moved, len(paths), len(items)), is_batch, "nats", seed)


@_metric
def perplexity(
    model: Model, prompts: Prompts, vectors: Vectors = None, *, continuation: Continuations | None = None,
    positions: Positions = None, seed: int = 0,
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """exp(- mean ln p(token | tokens before it)), over the tokens of all prompts.

    Parameters
    ----------
    model
        The model, or a steered view of it.
    prompts
        One prompt or several; of each, the tokens from the second on are predicted.
    vectors
        None, one vector, or a list with one item for each result.
    continuation
        One (Generation, or token ids) for each prompt: only its tokens are predicted, an end token included.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere. "generated" is the continuation.
    seed
        Seed of the bootstrap over prompts.

    Returns
    -------
    MetricResult
        Its `values` are the perplexities of the single prompts; a list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        For a prompt of one token without a continuation.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Q: 12*3\\nA:", "Q: 7*5\\nA:"]
    >>> own = model.generate(prompts, max_new_tokens=6)
    >>> strange = [[5, 6, 7], [8, 9]]
    >>> ps.evaluate.perplexity(model, prompts, continuation=own) < 2
    True
    >>> ps.evaluate.perplexity(model, prompts, continuation=strange) > 100
    True
    """
    items, is_batch = _items(vectors)
    if continuation is None:
        full = [model.tokens(p) for p in split(prompts)[0]]
        lengths, predicted = [len(t) for t in full], [t[1:] for t in full]
        if min(lengths) < 2:
            raise InvalidInput("perplexity: a prompt has one token, and nothing to predict; give continuation=")
    elif as_integer(continuation) is not None:
        raise InvalidInput(f"perplexity: continuation is {continuation}; give one for each prompt, such as model.generate's")
    else:
        tokens, predicted = continued(model, prompts, continuation)
        full = [joined(t, c) for t, c in zip(tokens, predicted, strict=True)]
        lengths = [len(t) for t in tokens]
    each = [x for x in zip(full, lengths, predicted, strict=True) for _ in items]
    rows = forward_rows(
        model, [f for f, *_ in each], items * len(full), [n for _, n, _ in each], rows=[len(c) + 1 for *_, c in each],
        positions=positions,
    )  # fmt: skip
    table = np.array([nll(z[:-1], c) for (z, _), (*_, c) in zip(rows, each, strict=True)]).reshape(len(full), len(items))
    counts, results = np.array([len(c) for c in predicted], dtype=float), []
    for nats in table.T:
        sums = resample_counts(len(full), RESAMPLES, seed) @ np.stack([nats, counts], 1)
        low, high = percentiles(np.exp(sums[:, 0] / sums[:, 1]), len(full))
        of_prompts = tuple(np.exp(nats / counts).tolist())
        value = math.exp(nats.sum() / counts.sum())
        results.append(MetricResult(value, low, high, len(full), seed, of_prompts, "perplexity"))
    return results if is_batch else results[0]


@_metric
@deprecated_arguments(3, questions="prompts")
def choice(
    model: Model, prompts: Sequence[tuple[str, str, str]], vectors: Vectors = None, *,
    template: Template = Choice.template, letters: tuple[str | int, str | int] = Choice.letters,
    positions: Positions = None, seed: int = 0,
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """Mean preference for the first option of multiple-choice questions, by the logits of two letters.

    Parameters
    ----------
    model, vectors, positions, seed
        As for `accuracy`.
    prompts
        Questions (question, first option, second option); each is asked in both orders, see `Choice`.
    template, letters
        As for `Choice`.

    Returns
    -------
    MetricResult
        In nats, above 0 where the first options are preferred; a list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        For an empty list, questions of another form, and letters that are not one token.

    References
    ----------
    Rimsky et al., Steering Llama 2 via Contrastive Activation Addition, 2023, arXiv:2312.06681.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, how = ps.load("demo"), {"template": "{question} 1: {a}, 2: {b}. ", "letters": ("1", "2")}
    >>> first = ps.evaluate.choice(model, [("Q: 1+2?", "3", "4")], **how)
    >>> second = ps.evaluate.choice(model, [("Q: 1+2?", "4", "3")], **how)
    >>> first.unit, abs(first + second) < 1e-6
    ('nats', True)
    """
    return accuracy(model, prompts, vectors, score=Choice(template, letters), positions=positions, seed=seed)


def _score_in_third_place(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: accept (model, prompts, score, vectors), as the previous release did."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        if len(args) > 2 and (callable(args[2]) or isinstance(args[2], LogitScore)) and "score" not in kwargs:
            warn_deprecated("accuracy: pass score by keyword: accuracy(model, prompts, vectors, score=...)")
            args, kwargs = args[:2] + args[3:], {**kwargs, "score": args[2]}
        return function(*args, **kwargs)

    return call


@_metric
@_score_in_third_place
def accuracy(
    model: Model, prompts: Prompts | Sequence[Any], vectors: Vectors = None, *, score: Score, max_new_tokens: int = 64,
    stop: Any = None, positions: Positions = None, seed: int = 0, progress: bool | Report = False,
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """Mean score of the greedy continuations of prompts, or of the logits at their ends.

    Parameters
    ----------
    model, vectors, seed
        As for `perplexity`.
    prompts
        One prompt or several; for a `LogitScore` the items that it takes.
    score
        A function of (prompt, continuation) that returns a number or bool, such as `contains(regex)`; or a `LogitScore`,
        such as `LogitDifference(a, b)`.
    max_new_tokens, stop
        Of the continuations, as for `Model.generate`.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    MetricResult
        A share with the Wilson interval if all scores are 0 or 1; a list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        For a score that is not a function or does not return a finite number, and for a model without a tokenizer.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Q: 12*3\\nA:", "Q: 7*5\\nA:"]
    >>> print(ps.evaluate.accuracy(model, prompts, score=ps.evaluate.contains("It is"), max_new_tokens=6))
    1 [0.3424, 1] share (n = 2)
    """
    items, is_batch = _items(vectors)
    prompts = score_items(score, prompts)
    with progress_bar(progress, len(items) * len(prompts), "accuracy") as callback:
        table = score_table(model, prompts, items, score, max_new_tokens, stop, callback, positions)
    return _results(table, is_batch, score.unit if isinstance(score, LogitScore) else SHARE, seed)


@_metric
def first_order(
    model: Model, prompts: Prompts | Sequence[Any], vectors: Vectors, *, score: LogitScore, positions: Positions = None,
    seed: int = 0, progress: bool | Report = False,
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """Change of a score that a vector makes, to first order: the mean over prompts of d score(h v) / dh at h = 0.

    The score's gradient goes down once from the logits at the ends of an item's prompts and is read at every site of the
    vectors on its way. The cost hardly depends on the number of vectors and of sites: all vectors of an atlas,
    `atlas.vectors()`, take little more than one.

    Parameters
    ----------
    model, seed
        As for `perplexity`.
    prompts
        One prompt or several; in general the items that the score takes.
    vectors
        One vector, or a list with one for each result, each taken with its scale: the result of `2 * vec` is twice that of
        `vec`.
    score
        A `LogitScore` with a gradient, such as `LogitDifference(a, b)` or `Choice()`.
    positions
        Where the vectors are added in every prompt, in the forms of `Model.steered`; None: everywhere.
    progress
        True for a progress bar, or a function that is called with (done, total).

    Returns
    -------
    MetricResult
        In units of the score; `values` are those of the items. A list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        For a score without a gradient, lists of vectors to add together, and None.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts, score = ps.load("demo", dtype="float64"), ["Q: 1+2", "Q: 2+2"], ps.evaluate.LogitDifference("3", "4")
    >>> vec = model.jacobian(prompts, 1, 3).svd(k=1).vectors[0] * 1e-4
    >>> predicted = ps.evaluate.first_order(model, prompts, vec, score=score)
    >>> up, down = ps.evaluate.accuracy(model, prompts, [vec, -1 * vec], score=score)
    >>> bool(abs(predicted - (up - down) / 2) < 1e-4 * abs(predicted)), predicted.n, predicted.unit
    (True, 2, 'nats to first order')
    """
    single, is_batch = _single(vectors, "first_order")
    items = score_items(score, prompts)
    with progress_bar(progress, len(items), "first order") as callback:
        gradients = score_gradients(model, items, score, [v.location for v in single], positions, callback)
    return _results(first_order_changes(model, single, gradients), is_batch, f"{score.unit} to first order", seed)


@_metric
@deprecated_arguments(3, positions="read_positions")
def presence_ratio(
    model: Model, prompts: Prompts, vectors: Vectors, *, read_positions: Positions = None, seed: int = 0
) -> MetricResult | list[MetricResult]:
    """Mean |a.v| / mean |a.u| over the activations a at the vector's site, u random unit vectors: 1 for a direction that
    is as present in the activations as a random one.

    Parameters
    ----------
    model, seed
        As for `perplexity`.
    prompts
        One prompt or several.
    vectors
        One vector, or a list with one for each result.
    read_positions
        Positions of each prompt whose activations are read, by default all. The first token's activation is often much
        larger than the others.

    Returns
    -------
    MetricResult
        A ratio; a list of them for a list of vectors. The mean over u is taken in closed form,
        |a| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)).

    Raises
    ------
    InvalidInput
        For lists of vectors to add together, and for None.

    References
    ----------
    O. Ayyub, "Power Steering", https://omar.bet/2026/02/17/Power-Steering, 2026.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Task: 3 * 4 =", "Task: 7 * 8 ="]
    >>> vec = model.jacobian(prompts, 1, 3).svd(k=1).vectors[0]
    >>> own = ps.SteeringVector.from_array(model.activations(prompts[0], (1, "mlp_out"))[-1], 1, "mlp_out")
    >>> ps.evaluate.presence_ratio(model, prompts, own) > ps.evaluate.presence_ratio(model, prompts, vec)
    True
    """
    single, is_batch = _single(vectors, "presence_ratio")
    tokens = [model.tokens(p) for p in split(prompts)[0]]
    sites = list(dict.fromkeys(v.location for v in single))
    d = model.d_model
    expected = math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    table = np.empty((len(single), len(tokens)))
    for j, (_, acts) in enumerate(forward_rows(model, tokens, [None] * len(tokens), sites=sites, rows="none")):
        for i, v in enumerate(single):
            a = acts[v.location][prompt_positions(read_positions, len(tokens[j]))].astype(np.float64)
            table[i, j] = np.abs(a @ v.direction).mean() / (np.linalg.norm(a, axis=1).mean() * expected)
    return _results(table, is_batch, "ratio", seed)


@_metric
def linearity(
    model: Model, prompts: Prompts, vectors: Vectors, *, positions: Positions = None, seed: int = 0
) -> MetricResult | list[MetricResult]:  # fmt: skip
    """|dF - J delta| / |dF| at the vector's own target and scale, F the target, J its Jacobian at each prompt, and delta
    the vector: 0 where F responds linearly, towards 1 and beyond where J does not describe the response.

    Parameters
    ----------
    model, seed
        As for `perplexity`.
    prompts
        One prompt or several.
    vectors
        One vector that has a target, or a list with one for each result. Target positions are those that the vector was
        made with, counted from the prompt's end.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None: everywhere.

    Returns
    -------
    MetricResult
        A ratio; a list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        For a vector without a target, and for "generated" positions, which a prompt does not have.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> small, large = ps.evaluate.linearity(model, prompt, [vec.relative(0.01), vec.relative(1.0)])
    >>> small < 0.1 < large
    True
    """
    single, is_batch = _single(vectors, "linearity")
    if lacking := [v for v in single if v.target is None]:
        raise InvalidInput(f"linearity: {lacking[0]!r} has no target; name one: dataclasses.replace(vec, target=(9, 'mlp_out'))")
    if isinstance(positions, str) and positions == "generated":
        raise InvalidInput('linearity is measured at prompts, which have no positions "generated"; choose among those of the prompt')
    tokens = [model.tokens(p) for p in split(prompts)[0]]
    sites = target_sites(single)
    table = np.empty((len(single), len(tokens)))
    for j, t in enumerate(tokens):
        rows = forward_rows(model, [t] * (1 + len(single)), [None, *single], sites=sites, rows="last", positions=positions)
        reads = ((logits[0], acts) for logits, acts in rows)
        base = next(reads)
        responses = zip(single, jvps(model, t, single, positions), reads, strict=True)
        table[:, j] = [nonlinearity(v, len(t), cast(Array, jvp), base, steered) for v, jvp, steered in responses]
    return _results(table, is_batch, "ratio", seed)


def _items(vectors: Vectors) -> tuple[list[Steer], bool]:
    """(one item for each result, whether a list was given)"""
    if vectors is None or isinstance(vectors, SteeringVector):
        return [vectors], False
    if not isinstance(vectors, (list, tuple)) or not vectors:
        raise InvalidInput("vectors must be a SteeringVector, or a list with an item for every result")
    return list(vectors), True


def _single(vectors: Vectors, what: str) -> tuple[list[SteeringVector], bool]:
    items, is_batch = _items(vectors)
    single = [v for v in items if isinstance(v, SteeringVector)]
    if len(single) != len(items):
        raise InvalidInput(f"{what} is about single vectors; give a SteeringVector or a list of them")
    for vector in single:
        check_adds(vector, f"measured by {what}")
    return single, is_batch


def _results(table: Array, is_batch: bool, unit: str, seed: int) -> MetricResult | list[MetricResult]:
    """One result for each row of a table (vectors, prompts)."""
    results = summaries(table, unit, seed)
    return results if is_batch else results[0]
