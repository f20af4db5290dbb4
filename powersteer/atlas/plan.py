"""What an atlas will take, and how each of its parts is best computed, before anything is.

For every source (in every view) the cheaper of
    krylov   APPLICATIONS sweeps from source to target and back, for each pair by itself
    dense    d sweeps from the source to its deepest target, read by all on the way, and LAPACK on each matrix
and before the krylov ones a sketch: some sweeps from each source, read by all its targets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..estimate import estimate
from ..model import Model
from ..positions import prompt_positions
from ..sites import Site
from .settings import Settings, Target
from .store import Unit
from .work import jacobians_of

__all__ = ["Plan", "Step", "make_plan"]

LANES = 16  # targets that advance together at most
ROWS = 1024  # of a sweep; beyond, its buffers leave the caches and nothing is gained
_SVD_FLOPS = 12.0  # times m d^2: LAPACK on a matrix (m, d), m >= d
_SVD_SLOWER = 4.0  # than matrix products, for the same operations


def applications(k: int, d: int) -> float:
    """Products that one pair takes until k triplets are certified to 1e-2, from the published spectra and small trained
    models: about 5 k; never more than both bases full."""
    return min(5.0 * k + 4, 2.0 * d)


@dataclass(frozen=True)
class Step:
    """A unit of work, how it is done, and the operations that it should take."""

    unit: Unit
    kind: str  # "krylov" | "dense" | "sketch"
    flops: float


@dataclass(frozen=True)
class Plan:
    """Made by `atlas_plan`; printed before an atlas is computed."""

    steps: tuple[Step, ...]
    pairs: int  # in all views
    memory: int  # bytes beside the weights, of one worker
    disk: int  # bytes
    rate: float  # operations a second, measured by one sweep on this machine

    @property
    def seconds(self) -> float:
        """Of one worker like this machine."""
        return sum(step.flops for step in self.steps) / self.rate

    def of_kind(self, *kinds: str) -> list[Step]:
        return [step for step in self.steps if step.kind in kinds]

    def __str__(self) -> str:
        lines = [f"{self.pairs} pairs of layers; about {_time(self.seconds)}, {self.memory / 1e9:.2g} GB of memory beside "
                 f"the weights, {self.disk / 1e6:.3g} MB on disk"]  # fmt: skip
        what = {
            "sketch": "every source swept by random vectors: estimates of all singular values",
            "dense": "whole matrices, which are small here",
            "krylov": "pair by pair until certified, the targets of a source together",
        }
        for kind, text in what.items():
            steps = self.of_kind(kind)
            if steps:
                pairs = sum(len(step.unit.targets) for step in steps)
                flops = sum(step.flops for step in steps)
                lines.append(f"  {kind:7s} {pairs:5d} pairs, {flops / 1e12:8.3g} TFLOP, {_time(flops / self.rate):>7s}: {text}")
        return "\n".join([*lines, f"  measured on one sweep: {self.rate / 1e9:.3g} GFLOP/s"])


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def make_plan(model: Model, settings: Settings, rate: float | None = None) -> Plan:
    """rate: operations a second; None: measured, by one sweep."""
    steps: list[Step] = []
    memory = 0
    for view in range(len(settings.groups)):
        for source in settings.sources:
            targets = settings.targets_of(source)
            if targets:
                some, bytes_ = _source_steps(model, settings, view, source, targets)
                steps += some
                memory = max(memory, bytes_)
    pairs = [step for step in steps if step.kind != "sketch"]
    cells = sum(len(step.unit.targets) for step in (pairs or steps))
    width = settings.k * model.d_model * model.dtype.itemsize
    disk = sum(len(step.unit.targets) * (width + 1000) + 500 for step in pairs) + 600 * cells
    return Plan(tuple(steps), cells, memory, disk, rate or _measure(model, settings, steps))


def _source_steps(
    model: Model, settings: Settings, view: int, source: int, targets: tuple[Target, ...]
) -> tuple[list[Step], int]:
    """Steps of one source, and the memory that the largest takes."""
    lengths = [len(settings.prompts[i].tokens) for i in settings.groups[view]]
    itemsize, d, k = model.dtype.itemsize, model.d_model, settings.k
    start = Site(source, settings.source_site)
    rows = [_target_rows(settings, t, lengths) for t in targets]
    ends = [t if isinstance(t, str) else Site(t, settings.target_site) for t in targets]
    costs = [estimate(model.spec, lengths, itemsize, start, e, n, k) for e, n in zip(ends, rows, strict=True)]
    whole = Unit(view, source, targets)
    heights = [n * (model.n_vocab if isinstance(t, str) else d) for t, n in zip(targets, rows, strict=True)]
    deepest = max(cost.flops for cost in costs)
    each = [applications(k, min(m, d)) * c.flops for m, c in zip(heights, costs, strict=True)]
    lapack = sum(_SVD_SLOWER * _SVD_FLOPS * max(m, d) * min(m, d) ** 2 for m in heights)
    dense = d * deepest + lapack
    matrices = itemsize * d * sum(heights)
    method = settings.method
    if method == "auto":
        method = "dense" if dense < sum(each) else "krylov"
    tape = max(cost.tape + cost.sweep for cost in costs)
    if method == "dense":
        return [Step(whole, "dense", dense)], tape + matrices
    steps = [Step(whole, "sketch", settings.sketch * deepest)] if settings.sketch else []
    lanes = max(1, min(LANES, ROWS // sum(lengths)))
    if method == "krylov":
        for i in range(0, len(targets), lanes):
            steps.append(Step(replace(whole, targets=targets[i : i + lanes]), "krylov", sum(each[i : i + lanes])))
    return steps, tape + lanes * max(cost.basis for cost in costs)


def _target_rows(settings: Settings, target: Target, lengths: Sequence[int]) -> int:
    if isinstance(target, str):
        return len(lengths)
    return sum(len(prompt_positions(settings.target_positions, n)) for n in lengths)


def _measure(model: Model, settings: Settings, steps: Sequence[Step]) -> float:
    """Operations a second in a sweep of the first source, of as many vectors as a unit carries."""
    step = steps[0]
    J = jacobians_of(model, settings, step.unit)
    lengths = [len(settings.prompts[i].tokens) for i in settings.groups[step.unit.view]]
    last = step.unit.targets[-1]
    end = last if isinstance(last, str) else Site(last, settings.target_site)
    flops = estimate(
        model.spec, lengths, model.dtype.itemsize, Site(step.unit.source, settings.source_site), end,
        _target_rows(settings, last, lengths), settings.k,
    ).flops  # fmt: skip
    n = max(1, min(LANES, ROWS // sum(lengths)))
    V = np.ones((n, model.d_model), J.dtype)
    J.fan(V)  # first use reads the weights from the disk
    started = time.perf_counter()
    repeats = 0
    while repeats < 3 or (time.perf_counter() - started < 0.05 and repeats < 1000):
        J.fan(V)
        repeats += 1
    return n * flops * repeats / (time.perf_counter() - started)


def batches(steps: Sequence[Step], flops: float) -> Iterator[list[Step]]:
    """Neighbouring steps of one kind, joined until they take at least so many operations."""
    batch: list[Step] = []
    for step in steps:
        if batch and (step.kind != batch[0].kind or sum(s.flops for s in batch) >= flops):
            yield batch
            batch = []
        batch.append(step)
    if batch:
        yield batch
