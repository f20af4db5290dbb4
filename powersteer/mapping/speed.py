"""Speed of this machine, measured in about a second before long work is planned."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluate.batched import forward_rows, generate_rows
from ..evaluate.distributions import kl_divergence, log_softmax
from ..inputs.sites import Site
from ..model.cost import estimate
from ..model.model import Model

__all__ = ["EffectCost", "disk_rate", "effect_cost", "sweep_rate"]

_READ = 1 << 27  # bytes of a file that are read to measure the disk
_SWEEP = 2e10  # largest number of operations of a measured sweep: about a tenth of a second
_PREFILL = 5e10  # largest number of operations for the prompts of a measured continuation
_SECONDS = 0.3  # of a measured continuation
_ROWS = 8  # of the wider of two measured continuations
_RATES: dict[Any, float] = {}  # of models measured in this process


def sweep_rate(model: Model, n_tokens: int, columns: int) -> float:
    """Operations per second of a sweep of `columns` vectors over so many tokens, measured in one block, since all blocks
    have the same speed. Measured once for a model, its threads and these sizes."""
    n = min(n_tokens, 256, model.n_ctx)
    layer = next((i for i, of_layer in enumerate(model.spec.layers) if of_layer.experts), 0)
    start, end = Site(layer, "resid_pre"), Site(layer, "resid_post")
    flops = estimate(model, [n], start, end, n, 1).flops
    columns = max(1, min(columns, int(_SWEEP / flops)))
    key = model.identity["weights"], model.dtype, model.threads, n, columns
    if key not in _RATES:
        J = model.jacobian(np.arange(n) % model.n_vocab, start, end, target_positions=None)
        V = np.ones((columns, model.d_model), J.dtype)
        _RATES[key] = columns * flops / _fastest(lambda: J @ V.T)
    return _RATES[key]


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


def _fastest(work: Callable[[], object], least: float = 0.05) -> float:
    """Seconds of the fastest of a few runs, after a first run that reads the weights from the disk."""
    work()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < least and len(times) < 1000):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


@dataclass(frozen=True)
class EffectCost:
    """Seconds of the parts of `powersteer.effects`."""

    token: float  # one token of a forward pass, with logits
    logits: float  # comparing one row of logits
    step: float  # decoding a token of one row
    row: float  # decoding it for one more row
    new_tokens: float  # mean length of a continuation, in tokens

    def seconds(self, n_tokens: int, pushes: int, samples: int = 0) -> float:
        """Of so many pushes of a prompt: a pass along the base continuation, the continuations, and the greedy one's
        perplexity under the base model."""
        new = self.new_tokens
        if not new:
            return pushes * (n_tokens * self.token + self.logits)
        continued = pushes * (1 + samples)
        passes = (2 * pushes + continued) * n_tokens * self.token + 2 * pushes * new * (self.token + self.logits)
        batches = math.ceil(pushes / 128) + math.ceil(pushes * samples / 128)
        return passes + new * (batches * (self.step - self.row) + continued * self.row)


def effect_cost(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> EffectCost:
    """Measure on the prompts, truncated for a large model; continuations are measured until they end."""
    ids = [np.asarray(p, np.int32) for p in prompts]
    flops = estimate(model, [1], Site(0, "resid_pre"), "logits", 1, 1).flops
    most = max(2, int(_PREFILL / flops))
    rows = max(1, min(_ROWS, most // 4))
    some = [p[: max(1, most // rows)] for p in itertools.islice(itertools.cycle(ids), rows)]
    token = _fastest(lambda: list(forward_rows(model, some, [None] * rows))) / sum(map(len, some))
    logp = log_softmax(np.asarray(model(some[0]))[-4:])
    logits = _fastest(lambda: kl_divergence(logp, log_softmax(logp)), 0.01) / len(logp)
    if not max_new_tokens:
        return EffectCost(token, logits, 0.0, 0.0, 0.0)
    one, _ = _decoding(model, some[:1], max_new_tokens)
    wide, new = _decoding(model, some, max_new_tokens) if rows > 1 else (one, float(max_new_tokens))
    row = (wide - one) / (rows - 1) if rows > 1 else token
    return EffectCost(token, logits, one, max(row, 0.0), new)


def _decoding(model: Model, prompts: Sequence[NDArray[Any]], new: int) -> tuple[float, float]:
    """Seconds of a step, and the mean number of tokens of a continuation."""

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
    return max(step, 0.0), float(np.mean([length if length < n else new for length in lengths]))


def _until_end(model: Model, tokens: NDArray[Any]) -> int:
    """Number of tokens up to the first end token."""
    return next((i for i, token in enumerate(tokens.tolist(), 1) if token in model.end_tokens), len(tokens))
