"""KL divergence between the next-token distributions of a plain and a steered model, at prompts and along continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .._util.checks import as_integer
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompts, split, token_ids
from ..model.generation import Generation
from ..model.model import Model
from .batched import Steer, forward_rows, generate_rows, joined
from .distributions import Array, Reference

__all__ = ["Continuations", "Path", "along", "continued", "kl_table", "logit_rows"]

Continuations = Sequence[Generation | Sequence[int] | Ids]  # one for each prompt
Path = tuple[Ids, int, int]  # tokens of a prompt and of what follows, length of the prompt, number of predicted tokens


def continued(model: Model, prompts: Prompts, continuation: int | Continuations) -> tuple[list[Ids], list[Ids]]:
    """(tokens of each prompt, tokens of its continuation): the given one, or the model's own."""
    tokens = [model.tokens(p) for p in split(prompts)[0]]
    if (new := as_integer(continuation)) is not None:
        greedy = generate_rows(model, tokens, [None] * len(tokens), new) if new else []
        return tokens, [g.tokens for g in greedy] or [np.empty(0, np.int32)] * len(tokens)
    if not isinstance(continuation, (list, tuple)) or len(continuation) != len(tokens):
        raise InvalidInput(f"continuation must be a number of tokens, or one continuation for each of {len(tokens)} prompts")
    given = [c.tokens if isinstance(c, Generation) else c for c in continuation]
    return tokens, [token_ids(c, model.n_vocab) for c in given]


def along(tokens: Sequence[Ids], generated: Sequence[Ids]) -> list[Path]:
    """What a forward pass reads that predicts every generated token, or the first one after each prompt where nothing was
    generated."""
    return [(joined(t, c[:-1]), len(t), max(len(c), 1)) for t, c in zip(tokens, generated, strict=True)]


def logit_rows(model: Model, paths: Sequence[Path], steer: Sequence[Steer], positions: Positions = None) -> Iterator[Array]:
    """Logits (predicted tokens, n_vocab) of each path under every steering, one path after the other, in batches."""
    sequences, lengths, counts = map(list, zip(*(path for path in paths for _ in steer), strict=True))
    every = forward_rows(model, sequences, [*steer] * len(paths), lengths, rows=counts, positions=positions)
    return (logits for logits, _ in every)


def kl_table(plain: Iterator[Array], steered: Iterator[Array], paths: int, items: int) -> Array:
    """KL(plain || steered), the mean over the predicted tokens of each path, in nats: (items, paths)."""
    table = np.empty((items, paths))
    for j in range(paths):
        reference = Reference(next(plain))
        table[:, j] = [reference.kl(next(steered)).mean() for _ in range(items)]
    return table
