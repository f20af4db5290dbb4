"""Strength by side effect: the scale at which a steering vector moves the next token by a given KL divergence."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Literal, overload

import numpy as np

from .._util.checks import as_list, check_count, check_positive
from ..errors import InvalidInput
from ..inputs.positions import Positions, describe
from ..inputs.prompts import Prompts
from ..model.model import Model
from ..vectors.arithmetic import check_adds
from ..vectors.steering_vector import Calibration, SteeringVector
from .batched import forward_rows
from .distributions import Array
from .divergence import along, continued, kl_table, logit_rows

__all__ = ["attempts", "calibrate"]

_TOLERANCE = 0.01  # of the budget
_START, _LEAST, _MOST = 2.0**-3, 2.0**-40, 2.0**7  # scales, in activation norms of the site
_NARROWEST = 1e-9  # of a bracket, relative: what lies within is a jump


@overload
def calibrate(
    model: Model, prompts: Prompts, vectors: SteeringVector, *, kl: float = ..., positions: Positions = ...,
    continuation: int = ..., skip_unreached: bool = ...,
) -> SteeringVector: ...  # fmt: skip
@overload
def calibrate(
    model: Model, prompts: Prompts, vectors: Sequence[SteeringVector], *, kl: float = ..., positions: Positions = ...,
    continuation: int = ..., skip_unreached: Literal[False] = ...,
) -> list[SteeringVector]: ...  # fmt: skip
@overload
def calibrate(
    model: Model, prompts: Prompts, vectors: Sequence[SteeringVector], *, kl: float = ..., positions: Positions = ...,
    continuation: int = ..., skip_unreached: bool,
) -> list[SteeringVector | None]: ...  # fmt: skip
def calibrate(
    model: Model,
    prompts: Prompts,
    vectors: SteeringVector | Sequence[SteeringVector],
    *,
    kl: float = 1.0,
    positions: Positions = None,
    continuation: int = 0,
    skip_unreached: bool = False,
) -> SteeringVector | list[SteeringVector] | list[SteeringVector | None]:
    """Each vector, with its present sign, at the scale at which its mean KL divergence reaches a budget, to 1%.

    The divergence is that of `evaluate.kl`: KL(plain || steered) of the next-token distribution, the mean over the prompts.
    The scale is bracketed from an eighth of the site's mean activation norm and refined by regula falsi on the logarithms
    of both; the vectors' forward passes run in the same batches.

    Parameters
    ----------
    model : Model
        The plain model, or a steered view that takes its place.
    prompts : prompt or list of prompts
    vectors : SteeringVector or list of them
        Their sizes do not matter.
    kl : float
        The budget, in nats.
    positions
        Where the vectors are added, in the forms of `Model.steered`; None is everywhere.
    continuation : int
        0: the divergence at the prompts' ends. n: the mean along the plain model's greedy continuation of up to n tokens,
        the first at the prompt's end.
    skip_unreached : bool
        True: of a list, None takes the place of a vector that reaches the budget at no scale. A single vector raises.

    Returns
    -------
    SteeringVector
        Its `calibration` says what was reached, where, and in how many passes. A list of them for a list of vectors.

    Raises
    ------
    InvalidInput
        If no scale up to 128 activation norms reaches the budget, naming the largest divergence; where the divergence jumps
        over it; for vectors that clamp, and an argument outside its domain.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompts = ps.load("demo"), ["Q: 3*4\\nA:", "Q: 5*6\\nA:"]
    >>> one, other = ps.evaluate.calibrate(model, prompts, ps.random_vectors(model, 2, k=2), kl=0.2)
    >>> [round(float(ps.evaluate.kl(model, prompts, v)), 2) for v in (one, other)]
    [0.2, 0.2]
    >>> one.scale == other.scale, one.calibration.prompts
    (False, 2)
    """
    found = attempts(model, prompts, as_list(vectors), kl, positions, continuation)
    reached = [v if isinstance(v, SteeringVector) else None for v in found]
    if isinstance(vectors, SteeringVector) or not skip_unreached:
        for v in found:
            if not isinstance(v, SteeringVector):
                raise v
    return reached[0] if isinstance(vectors, SteeringVector) else reached  # type: ignore[return-value]  # it is no None


def attempts(
    model: Model, prompts: Prompts, given: Sequence[SteeringVector], kl: float, positions: Positions = None, continuation: int = 0
) -> list[SteeringVector | InvalidInput]:
    """As `calibrate`, with the error of every vector that does not reach the budget in its place."""
    budget, new = check_positive(kl, "calibrate: kl"), check_count(continuation, "calibrate: continuation", least=0)
    model._interventions(given, positions)  # refuses vectors that do not fit
    for v in given:
        check_adds(v, "calibrated")
    paths = along(*continued(model, prompts, new))
    sites = list(dict.fromkeys(v.location for v in given))
    full, lengths, counts = map(list, zip(*paths, strict=True))
    plain: list[Array] = []
    norms: list[list[Array]] = [[] for _ in sites]
    for n, (logits, acts) in zip(lengths, forward_rows(model, full, [None] * len(full), lengths, sites, counts), strict=True):
        plain.append(logits.copy())  # not a view of the logits of a batch
        for of_site, act in zip(norms, acts.values(), strict=True):
            of_site.append(np.linalg.norm(act[:n].astype(np.float64), axis=1))
    unit_of = {site: float(np.concatenate(of_site).mean()) or 1.0 for site, of_site in zip(sites, norms, strict=True)}
    searches = [_search(v, budget, unit_of[v.location]) for v in given]
    trials = [next(search) for search in searches]
    found: dict[int, SteeringVector | InvalidInput] = {}
    passes = [len(paths)] * len(given)
    while waiting := [i for i in range(len(given)) if i not in found]:
        some = [replace(given[i], scale=trials[i]) for i in waiting]
        steered = logit_rows(model, paths, some, positions)
        reached = kl_table(iter(plain), steered, len(paths), len(some)).mean(1).tolist()
        for i, trial, value in zip(waiting, some, reached, strict=True):
            passes[i] += len(paths)
            try:
                trials[i] = searches[i].send(value)
            except StopIteration:
                about = Calibration(value, budget, len(paths), new, describe(positions), passes[i])
                found[i] = replace(trial, calibration=about)
            except InvalidInput as error:
                found[i] = error
    return [found[i] for i in range(len(given))]


def _search(vector: SteeringVector, budget: float, unit: float) -> Generator[float, float, None]:
    """Yields scales with the sign of the vector's, and is sent the KL at each; ends after the scale that reaches the
    budget. `unit`: the activation norm."""
    sign, most = math.copysign(1.0, vector.scale), 0.0
    below: tuple[float, float] | None = None  # (scale, KL)
    above: tuple[float, float] | None = None
    scale = _START * unit
    while below is None or above is None:
        value = yield sign * scale
        if abs(value - budget) <= _TOLERANCE * budget:
            return
        most = max(most, value)
        if value < budget:
            below = scale, value
        else:
            above = scale, value
        if scale == unit * (_MOST if above is None else _LEAST):
            raise InvalidInput(
                f"no scale of {vector!r} reaches a KL of {budget:.4g} nats: the {'largest' if above is None else 'smallest'} seen is "
                f"{most if above is None else value:.4g}, up to {_MOST:g} activation norms of the site; give another budget, or "
                "positions that the predicted tokens attend to"
            )
        # KL grows as the square of a small scale
        factor = math.sqrt(budget / value) if value > 0 else math.inf
        factor = min(max(factor, math.sqrt(2.0)), 4.0) if value < budget else max(min(factor, math.sqrt(0.5)), 0.25)
        scale = min(max(factor * scale, _LEAST * unit), _MOST * unit)
    yield from _refine(vector, sign, budget, below, above)


def _refine(
    vector: SteeringVector, sign: float, budget: float, below: tuple[float, float], above: tuple[float, float]
) -> Generator[float, float, None]:
    """Regula falsi (Illinois) between a scale whose KL is below the budget and one whose KL is above, in logarithms."""
    x = [math.log(below[0]), math.log(above[0])]
    g = [_log_ratio(below[1], budget), _log_ratio(above[1], budget)]
    last = -1
    while abs(x[1] - x[0]) > _NARROWEST:
        share = 0.5 if math.isinf(g[0]) else g[0] / (g[0] - g[1])
        trial = x[0] + min(max(share, 0.01), 0.99) * (x[1] - x[0])
        value = yield sign * math.exp(trial)
        if abs(value - budget) <= _TOLERANCE * budget:
            return
        side = int(value > budget)
        x[side], g[side] = trial, _log_ratio(value, budget)
        if side == last:  # the other end has stayed twice: halve its weight
            g[1 - side] /= 2
        last = side
    raise InvalidInput(
        f"the KL of {vector!r} jumps over {budget:.4g} nats at the scale {sign * math.exp(x[0]):.6g}; give another budget, more "
        'prompts, or ps.load(..., dtype="float64")'
    )


def _log_ratio(value: float, budget: float) -> float:
    return math.log(value / budget) if value > 0 else -math.inf
