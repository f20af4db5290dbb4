"""Planned units of work, joined into batches that are computed together, and given to workers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .store import WorkUnit

__all__ = ["PlannedUnit", "batches", "makespan", "operations"]


@dataclass(frozen=True)
class PlannedUnit:
    """A unit of work with its method and its expected number of operations.

    Attributes
    ----------
    unit : WorkUnit
        Source, targets and group of prompts.
    kind : str
        "krylov", "dense" or "sketch".
    flops : float
        Operations.
    row_flops : float
        Operations that one row would take, added up over all passes through the weights: a pass of few rows costs more than its
        operations (see `Plan.speed`).
    together : int
        Pairs, those of other units included, that are computed at the same time at most.
    read : int
        Bytes that are read from the model's file, where the model is larger than memory.

    Examples
    --------
    >>> step = ps.atlas_plan(model, "Task: 3 * 4 =", method="krylov", sketch=0).steps[0]
    >>> step.kind, step.unit.targets
    ('krylov', (1, 2, 3, 4, 'next_token'))
    """

    unit: WorkUnit
    kind: str
    flops: float
    row_flops: float = 0.0
    together: int = 1
    read: int = 0


def operations(steps: Iterable[PlannedUnit]) -> float:
    return sum(step.flops for step in steps)


_WITHOUT_END = ("krylov", "sketch")  # kinds that are joined in one process: those of dense units would share nothing that counts


def batches(steps: Iterable[PlannedUnit], flops: float | None = None) -> Iterator[list[PlannedUnit]]:
    """Join steps of one kind and one group of prompts, in their order, until they take so many operations. None: dense ones are
    alone, sketches are all together. Steps of the kind krylov never have more pairs than they may have together."""
    waiting: dict[tuple[str, int], list[PlannedUnit]] = {}
    for step in steps:
        key = step.kind, step.unit.prompt_group
        batch = waiting.pop(key, [])
        together = min(s.together for s in (*batch, step))
        if batch and step.kind == "krylov" and sum(len(s.unit.targets) for s in (*batch, step)) > together:
            yield batch
            batch = []
        batch.append(step)
        enough = flops if flops is not None else float("inf") if step.kind in _WITHOUT_END else 0.0
        if operations(batch) >= enough:
            yield batch
        else:
            waiting[key] = batch
    yield from waiting.values()


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until the last of some tasks ends, each of which is given to the first worker that is free, in their order."""
    free = [0.0] * min(workers, len(seconds))
    for task in seconds:
        heapq.heapreplace(free, free[0] + task)
    return max(free, default=0.0)
