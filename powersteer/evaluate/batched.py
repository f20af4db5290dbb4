"""Batched forward and generate under a memory budget, with one steering per sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._util.checks import check_count
from ..inputs.positions import Positions
from ..inputs.prompts import Ids
from ..inputs.sites import Site
from ..model.cost import cache_bytes, forward_costs, generation_costs, spans
from ..model.forward import Rows
from ..model.generation import Generation, decode_rows, follow_draft
from ..model.model import Model
from ..vectors.interventions import Steering
from .distributions import Array

__all__ = ["Callback", "Steer", "followed_rows", "forward_rows", "generate_rows", "joined"]

Steer = Steering | None  # steering of one row
Callback = Callable[[int], object]  # gets the number of rows completed since the last call

_CACHE = 2**29  # of keys and values of one decoder that goes on from forward passes, whose steps are fast with many rows


def joined(prompt: Ids, *more: Ids) -> Ids:
    """Concatenated token ids."""
    return np.concatenate([prompt, *more]).astype(np.int32, copy=False)


def forward_rows(
    model: Model,
    tokens: Sequence[Ids],
    steer: Sequence[Steer],
    prompt_lengths: Sequence[int] | None = None,
    sites: Sequence[Site] = (),
    rows: Rows = "all",
    callback: Callback | None = None,
    positions: Positions = None,
) -> Iterator[tuple[Array, dict[Site, Array]]]:
    """Forward pass of every sequence, steered at `positions` in addition to the steering of the view.

    Yields (logits, {site: activation (T, d)}). rows: logits of "all" positions (T, n_vocab), of the "last"
    (1, n_vocab), of "none" (0, n_vocab), or of the last rows[i] positions of sequence i. What sequences of one batch have
    in common is computed once, so those with the same prompt should follow each other. prompt_lengths: number of tokens
    of each sequence that are its prompt, for a view that steers prompts and continuations differently; None: all.
    """
    lengths = [len(t) for t in tokens]
    counts = {"all": lengths, "last": [1] * len(lengths), "none": [0] * len(lengths)}[rows] if isinstance(rows, str) else rows
    for part in spans(forward_costs(model, lengths, counts, len(sites))):
        extra = [() if item is None else model._interventions(item, positions) for item in steer[part]]
        logits, acts = model._forward(list(tokens[part]), sites, counts[part], extra, prompt_lengths and prompt_lengths[part])
        if callback:  # before the last row, after which the generator may not be resumed
            callback(len(acts))
        for i, here in enumerate(acts):
            yield logits[i], dict(zip(sites, here, strict=True))


def followed_rows(
    model: Model,
    prompts: Sequence[Ids],
    drafts: Sequence[Ids],
    steer: Sequence[Steer],
    sites: Sequence[Site],
    max_new_tokens: int,
    stop: Any,
    generated: list[Generation],
    callback: Callback,
    positions: Positions = None,
) -> Iterator[tuple[Array, dict[Site, Array]]]:
    """Forward pass of every prompt along a draft of its continuation, and its greedy continuation, each with its own steering
    at `positions`.

    Yields (logits (n, n_vocab) that predict the draft's n tokens, {site: activation}), and appends the continuations to
    `generated`, before the last row of a batch. They go on from the keys and values of the forward pass: tokens that agree
    with the draft are not decoded. callback: as of `forward_rows`, for the passes and again for the continuations.
    """
    full, counts = [joined(p, d[:-1]) for p, d in zip(prompts, drafts, strict=True)], [len(d) for d in drafts]
    lengths = [len(p) for p in prompts]
    changes = [table[3] for table in model.spec.rope if len(table) > 2]  # lengths after which a rotary table changes
    if any(n <= change < len(f) for n, f in zip(lengths, full, strict=True) for change in changes):
        generated += generate_rows(model, prompts, steer, max_new_tokens, stop, callback, positions=positions)
        yield from forward_rows(model, full, steer, lengths, sites, counts, callback, positions)
        return
    costs = forward_costs(model, list(map(len, full)), counts, len(sites))
    for part in spans([cache_bytes(model, n + max_new_tokens) for n in lengths], _CACHE):
        extra = [() if item is None else model._interventions(item, positions) for item in steer[part]]
        seeds = np.zeros(len(extra), np.uint64)
        decoder, rows = model._decoder(list(prompts[part]), extra, max_new_tokens, stop, (0.0, 0, 1.0), seeds)
        follows: list[int] = []
        for some in (batches := list(spans(costs[part]))):
            here = slice(part.start + some.start, part.start + some.stop)
            with model._loaded.computing():
                logits, acts = decoder.feed(
                    some.start, full[here], [(s.layer, s.index) for s in sites], np.array(counts[here], np.int32)
                )
            assert logits is not None
            follows += [follow_draft(*one) for one in zip(rows[some], drafts[here], logits, strict=True)]
            callback(len(acts))
            if some == batches[-1]:
                held = np.array([len(row.prompt) + len(row.tokens) - 1 for row in rows], np.int32)
                decoder.resume(held, np.array(follows, np.int32))
                for _ in model._loaded.checkpoint.weights.iterating(decode_rows(decoder, rows)):
                    pass
                generated += [row.generation() for row in rows]
                callback(len(rows))
            for z, one in zip(logits, acts, strict=True):
                yield z, dict(zip(sites, one, strict=True))


def generate_rows(
    model: Model,
    prompts: Sequence[Ids],
    steer: Sequence[Steer],
    max_new_tokens: int,
    stop: Any = None,
    callback: Callback | None = None,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    positions: Positions = None,
) -> list[Generation]:
    """A continuation of every prompt, each with its own steering at `positions`. stop, temperature: as for
    `Model.generate`. seeds: one for each prompt; None for greedy continuations, which use none."""
    new = check_count(max_new_tokens, "max_new_tokens")
    out: list[Generation] = []
    seeds = [0] * len(prompts) if seeds is None else seeds
    for part in spans(generation_costs(model, list(map(len, prompts)), new)):
        generated = model.generate(
            list(prompts[part]), max_new_tokens=new, temperature=temperature, seed=list(seeds[part]), stop=stop,
            steer=list(steer[part]), steer_positions=positions,
        )
        out += generated
        if callback:
            callback(len(generated))
    return out


