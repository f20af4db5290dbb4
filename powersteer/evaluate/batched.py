"""Batched forward and generate under a memory budget, with one steering per sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._util.checks import check_count
from ..inputs.prompts import Ids
from ..inputs.sites import Site
from ..model.cost import forward_bytes
from ..model.generation import Generation
from ..model.model import Model
from ..vectors.interventions import Steering
from .distributions import Array

__all__ = ["Callback", "Steer", "forward_rows", "generate_rows", "joined", "spans"]

Steer = Steering | None  # steering of one row
Callback = Callable[[int], object]  # gets the number of rows completed since the last call

_BYTES = 2**28  # of buffers, logits and cache of one batch, unless a single row needs more
_ROWS = 128  # of one batch: more rows make products no faster, and progress is reported between batches


def spans(costs: Sequence[int], budget: int = _BYTES, most: int = _ROWS) -> Iterator[slice]:
    """Consecutive slices of at most `most` items whose costs add up to at most `budget`, or of one item."""
    first = total = 0
    for i, cost in enumerate(costs):
        if i > first and (total + cost > budget or i - first == most):
            yield slice(first, i)
            first, total = i, 0
        total += cost
    if costs:
        yield slice(first, len(costs))


def _batches(lengths: Sequence[int], cost: Callable[[int], int]) -> Iterator[slice]:
    """`spans` of sequences, given the bytes that one of n tokens costs."""
    cost_of = {n: cost(n) for n in set(lengths)}
    return spans([cost_of[n] for n in lengths])


def joined(prompt: Ids, *more: Ids) -> Ids:
    """Concatenated token ids."""
    return np.concatenate([prompt, *more]).astype(np.int32, copy=False)


def forward_rows(
    model: Model,
    tokens: Sequence[Ids],
    steer: Sequence[Steer],
    prompt_lengths: Sequence[int] | None = None,
    sites: Sequence[Site] = (),
    rows: str = "all",
    callback: Callback | None = None,
) -> Iterator[tuple[Array, dict[Site, Array]]]:
    """Forward pass of every sequence, steered in addition to the steering of the view.

    Yields (logits, {site: activation (T, d)}). rows: logits of "all" positions (T, n_vocab), of the "last"
    (1, n_vocab), or of "none" (0, n_vocab). prompt_lengths: number of tokens of each sequence that are its prompt, for a
    view that steers prompts and continuations differently; None: all.
    """
    none = np.empty((0, model.n_vocab), model.dtype)

    def cost(n: int) -> int:
        n_logits = {"all": n, "last": 1, "none": 0}[rows]
        return forward_bytes(model, [n], n_logits) + model.dtype.itemsize * n * model.d_model * len(sites)

    for part in _batches([len(t) for t in tokens], cost):
        extra = [() if item is None else model._interventions(item) for item in steer[part]]
        logits, acts = model._forward(list(tokens[part]), sites, rows, extra, prompt_lengths and prompt_lengths[part])
        if callback:  # before the last row, after which the generator may not be resumed
            callback(len(acts))
        for i, here in enumerate(acts):
            yield (none if rows == "none" else logits[i]), dict(zip(sites, here, strict=True))


def generate_rows(
    model: Model,
    prompts: Sequence[Ids],
    steer: Sequence[Steer],
    max_new_tokens: int,
    stop: Any = None,
    callback: Callback | None = None,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[Generation]:
    """A continuation of every prompt, each with its own steering at every position. stop, temperature: as for
    `Model.generate`. seeds: one for each prompt; None for greedy continuations, which use none."""
    spec, new = model.spec, check_count(max_new_tokens, "max_new_tokens")
    token = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * model.dtype.itemsize  # keys and values
    out: list[Generation] = []
    seeds = [0] * len(prompts) if seeds is None else seeds
    for part in _batches([len(p) for p in prompts], lambda n: forward_bytes(model, [n], 1) + (n + new) * token):
        generated = model.generate(
            list(prompts[part]), max_new_tokens=new, temperature=temperature, seed=list(seeds[part]), stop=stop,
            steer=list(steer[part]),
        )
        out += generated
        if callback:
            callback(len(generated))
    return out


