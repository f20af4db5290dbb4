"""Speed of this machine, measured in about a second before long work is planned."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core._core32 import SWEEP_ROWS
from ..evaluate.batched import forward_rows, generate_rows
from ..evaluate.distributions import Reference
from ..inputs.sites import Site
from ..model.cost import ROWS, estimate, pass_flops
from ..model.model import Model

__all__ = ["EffectCost", "Speed", "disk_rate", "effect_cost", "sweep_speed"]

_READ = 1 << 27  # bytes of a file that are read to measure the disk
_SWEEP = 2e10  # largest number of operations of a measured sweep: about a tenth of a second
_PREFILL = 5e10  # largest number of operations for the prompts of a measured continuation
_SECONDS = 0.3  # of a measured continuation
_DISTINCT = 0.5  # share of the tokens of continuations that no other continuation of the prompt begins with
_ROWS = 8  # of the wider of two measured continuations
_TOKENS = 256  # largest number of tokens of a measured sweep
_SPEEDS: dict[Any, Speed] = {}  # of models measured in this process


@dataclass(frozen=True)
class Speed:
    """Speed of sweeps.

    Attributes
    ----------
    rate : float
        Operations per second, with many rows.
    rows : float
        What a pass through the weights costs besides, however few its rows are, in rows.

    Examples
    --------
    >>> speed = ps.atlas_plan(model, "Task: 3 * 4 =").speed
    >>> speed.seconds(2e9, 0) == 2e9 / speed.rate
    True
    """

    rate: float
    rows: float = 0.0

    def seconds(self, flops: float, row_flops: float) -> float:
        """Of so many operations, in passes through weights with which one row takes row_flops."""
        return (flops + self.rows * row_flops) / self.rate


def sweep_speed(model: Model, n_tokens: int) -> Speed:
    """Measured in one block, since all blocks have the same speed, with few rows and with many. Measured once for a model, its
    threads and this number of tokens."""
    n = min(n_tokens, _TOKENS, model.n_ctx)
    layer = next((i for i, of_layer in enumerate(model.spec.layers) if of_layer.experts), 0)
    flops = pass_flops(model.spec, [n], layer, layer)
    columns = max(1, min(SWEEP_ROWS // n, int(_SWEEP / flops)))
    few = n if columns > 2 else max(1, n // 4)
    key = model.identity["weights"], model.dtype, model.threads, n, columns
    if key not in _SPEEDS:
        narrow, wide = _fastest(_block_sweep(model, layer, few, 1), _block_sweep(model, layer, n, columns))
        per_row = (wide - narrow) / (columns * n - few)
        if per_row * columns * n < wide / 10:  # the machine was disturbed
            per_row = wide / (columns * n)
        _SPEEDS[key] = Speed(flops / n / per_row, max(wide / per_row - columns * n, 0.0))
    return _SPEEDS[key]


def _block_sweep(model: Model, layer: int, n: int, columns: int) -> Callable[[], object]:
    """A product of a block's Jacobian over n tokens with so many vectors."""
    tokens, start, end = np.arange(n) % model.n_vocab, Site(layer, "resid_pre"), Site(layer, "resid_post")
    J, V = model.jacobian(tokens, start, end, target_positions=None), np.ones((model.d_model, columns), model.dtype)
    return lambda: J @ V


def disk_rate(files: Sequence[Path]) -> float:
    """Bytes per second that the end of the largest file is read at, once the system has forgotten what it holds of it."""
    with open(max(files, key=lambda file: file.stat().st_size), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        n = min(_READ, size)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), size - n, n, os.POSIX_FADV_DONTNEED)
        file.seek(size - n)
        started = time.perf_counter()
        while file.read(1 << 20):
            continue
        return n / max(time.perf_counter() - started, 1e-6)


def _fastest(*works: Callable[[], object], least: float = 0.05) -> list[float]:
    """Seconds of the fastest of a few runs of each, in turns, after a first run that reads the weights from the disk."""
    times: list[list[float]] = [[] for _ in works]
    while len(times[0]) < 3 or (sum(map(sum, times)) < least and len(times[0]) < 1000):
        for work, of_work in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            of_work.append(time.perf_counter() - started)
    return [min(of_work[1:]) for of_work in times]


@dataclass(frozen=True)
class EffectCost:
    """Seconds of the parts of `powersteer.effects`."""

    token: float  # one token through all layers
    logits: float  # one row of logits, and comparing it
    step: float  # decoding a token of one row
    row: float  # decoding it for one more row
    new_tokens: float  # mean length of a continuation, in tokens

    def seconds(self, n_tokens: int, pushes: int, above: float, samples: int = 0) -> float:
        """Of so many pushes of a prompt: a pass along the base continuation, the continuations, and the greedy one's
        perplexity under the base model. above: share of the layers that are above the source. What lies below is computed once
        for a batch, and so is the prompt under the base model."""
        new, batches = self.new_tokens, math.ceil(pushes / ROWS)
        along = (n_tokens + max(new - 1, 0)) * self.token
        seconds = (pushes * above + batches * (1 - above)) * along + pushes * max(new, 1) * self.logits
        if not new:
            return seconds
        batches_of_samples, continued = math.ceil(pushes * samples / ROWS), pushes * (1 + samples)
        prompts = (pushes * (1 + (samples > 0)) * above + (batches + batches_of_samples) * (1 - above) + batches) * n_tokens
        perplexity = _DISTINCT * pushes * new * (self.token + self.logits)
        decoding = new * ((batches + batches_of_samples) * (self.step - self.row) + continued * self.row)
        return seconds + prompts * self.token + perplexity + decoding


def effect_cost(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> EffectCost:
    """Measure on the prompts, truncated for a large model; continuations are measured until they end."""
    ids = [np.asarray(p, np.int32) for p in prompts]
    flops = estimate(model, [1], Site(0, "resid_pre"), "logits", 1, 1).flops
    most = max(2, int(_PREFILL / flops))
    rows = max(1, min(_ROWS, most // 4))
    some = [np.roll(ids[i % len(ids)], i // len(ids))[: max(1, most // rows)] for i in range(rows)]  # equal rows would be shared
    counts = [min(4, len(p)) for p in some]
    last = np.asarray(model(some[0]))[-4:]
    reference = Reference(last)

    def forward(rows: str | list[int]) -> Callable[[], object]:
        return lambda: list(forward_rows(model, some, [None] * len(some), rows=rows))

    layers, with_logits, compared = _fastest(forward("none"), forward(counts), lambda: reference.kl(last))
    token = layers / sum(map(len, some))
    logits = max(with_logits - layers, 0.0) / sum(counts) + compared / len(last)
    if not max_new_tokens:
        return EffectCost(token, logits, 0.0, 0.0, 0.0)
    one, lengths = _decoding(model, some[:1], max_new_tokens)
    wide, lengths = _decoding(model, some, max_new_tokens) if rows > 1 else (one, [max_new_tokens])
    row = (wide - one) / (rows - 1) if rows > 1 else token + logits
    return EffectCost(token, logits, one, max(row, 0.0), float(np.mean(lengths[: len(ids)])))


def _decoding(model: Model, prompts: Sequence[NDArray[Any]], new: int) -> tuple[float, list[int]]:
    """Seconds of a step, and the number of tokens of each continuation."""

    def run(n: int) -> tuple[float, list[int]]:
        started = time.perf_counter()
        generated = generate_rows(model, prompts, [None] * len(prompts), n, [])
        return time.perf_counter() - started, [_until_end(model, g.tokens) for g in generated]

    run(1)  # the first use
    first, lengths = run(1)
    second, _ = run(min(new, 3))
    n = min(new, 3 + int(_SECONDS / max((second - first) / 2, 1e-6)))
    last, lengths = run(n) if n > 3 else (second, lengths)
    step = (last - first) / max(n - 1, 1)
    return max(step, 0.0), [length if length < n else new for length in lengths]


def _until_end(model: Model, tokens: NDArray[Any]) -> int:
    """Number of tokens up to the first end token."""
    return next((i for i, token in enumerate(tokens.tolist(), 1) if token in model.end_tokens), len(tokens))
