"""The plan of an atlas: its units of work, their method and their cost.

For every source, and every group of prompts, the cheaper of
    krylov   `applications` sweeps from the source to the target and back, for each pair separately
    dense    d sweeps from the source to its deepest target, shared by all targets, and the same solver on each matrix
and before the krylov units a sketch: some sweeps from each source, shared by all its targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .._core._core32 import SWEEP_ROWS
from .._util.checks import as_list, check_count
from .._util.deprecated import deprecated_arguments
from .._util.html import table
from ..evaluate.effects import checked_samples
from ..inputs.positions import prompt_positions
from ..inputs.sites import Site
from ..model.cost import estimate
from ..model.model import Model
from .settings import Settings, chosen_ranks
from .speed import disk_rate, effect_cost, sweep_rate
from .store import WorkUnit

__all__ = ["EffectsPlan", "Plan", "PlannedUnit", "make_plan", "plan_effects"]

MAX_COLUMNS = 16  # largest number of targets in a unit
_MATRIX_SLOWER = 10.0  # a product of a matrix with one vector than products of many, for the same operations
_FILLED = 2  # times SWEEP_ROWS: rows of all pairs that are computed together, about half of which cross a layer
_BASES = 1 << 30  # bytes that their bases take at most


def applications(k: int, d: int) -> float:
    """Expected products of one pair until k triplets are certified to 1e-2: about 6 k on the published spectra and on small
    trained models, the probe included, and at most 2 d, when both bases are full."""
    return min(6.0 * k + 4, 2.0 * d)


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
    together: int = 1
    read: int = 0


_ABOUT = {
    "sketch": "random vectors through every source: estimates of the singular values",
    "dense": "whole matrices, which are small here",
    "krylov": "pairs until certified, many together",
}


@dataclass(frozen=True, repr=False)
class Plan:
    """The plan of an atlas, returned by `atlas_plan`; `print` shows it as a table.

    Attributes
    ----------
    steps : tuple of PlannedUnit
        Units of work in order.
    pairs : int
        Pairs of layers, over all groups of prompts.
    memory, disk : int
        Bytes: of one worker, besides the weights; of the folder.
    rate : float
        Operations per second, measured by one sweep on this machine.
    disk_rate : float
        Bytes per second that the model's file is read at, where the model is larger than memory; else infinity.
    effects : EffectsPlan or None
        The plan of `Atlas.effects`, if it was requested.

    Examples
    --------
    >>> plan = ps.atlas_plan(model, "Task: 3 * 4 =", k=2)
    >>> plan.pairs, plan.seconds > 0
    (15, True)
    """

    steps: tuple[PlannedUnit, ...]
    pairs: int
    memory: int
    disk: int
    rate: float
    disk_rate: float = math.inf
    effects: EffectsPlan | None = None

    @property
    def seconds(self) -> float:
        """Expected seconds of one worker on this machine, effects included."""
        return self._seconds(self.steps) + (self.effects.seconds if self.effects else 0.0)

    def _seconds(self, steps: Sequence[PlannedUnit]) -> float:
        """Computing and reading overlap."""
        return max(_operations(steps) / self.rate, sum(step.read for step in steps) / self.disk_rate)

    def of_kind(self, *kinds: str) -> list[PlannedUnit]:
        """The steps of some kinds: "sketch", "dense", "krylov".

        Examples
        --------
        >>> plan = ps.atlas_plan(model, "Task: 3 * 4 =", method="krylov")
        >>> [len(step.unit.targets) for step in plan.of_kind("krylov")]
        [5, 4, 3, 2, 1]
        """
        return [step for step in self.steps if step.kind in kinds]

    def _table(self) -> list[tuple[str, str, str, str, str]]:
        """Kind, pairs, operations, time and description of every kind of step."""
        return [
            (kind, f"{sum(len(step.unit.targets) for step in steps)}", f"{_operations(steps) / 1e12:.3g} TFLOP",
             _time(self._seconds(steps)), about)
            for kind, about in _ABOUT.items() if (steps := self.of_kind(kind))
        ]  # fmt: skip

    def _summary(self) -> str:
        return (
            f"{self.pairs} pairs of layers; about {_time(self.seconds)}, {self.memory / 1e9:.2g} GB of memory beside the "
            f"weights, {self.disk / 1e6:.3g} MB on disk"
        )

    def __repr__(self) -> str:
        return f"Plan({self._summary()})"

    def __str__(self) -> str:
        rows = [f"  {kind:7s} {pairs:>5s} pairs, {work:>14s}, {time:>7s}: {about}" for kind, pairs, work, time, about in self._table()]
        effects = [str(self.effects)] if self.effects else []
        measured = f"  measured on one sweep: {self.rate / 1e9:.3g} GFLOP/s"
        if read := sum(step.read for step in self.steps):
            measured += f"; larger than memory: {read / 1e9:.3g} GB are read from its file at {self.disk_rate / 1e9:.2g} GB/s"
        return "\n".join([self._summary(), *rows, *effects, measured])

    def _repr_html_(self) -> str:
        effects = [("effects", "", "", _time(self.effects.seconds), str(self.effects).split(maxsplit=1)[1])] if self.effects else []
        return table(("step", "pairs", "operations", "time", ""), [*self._table(), *effects], self._summary())


def _operations(steps: Iterable[PlannedUnit]) -> float:
    return sum(step.flops for step in steps)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def make_plan(model: Model, settings: Settings, rate: float | None = None) -> Plan:
    """Plan an atlas. rate: operations per second; None: measured by a sweep through one block."""
    parts = [
        _source_steps(model, settings, WorkUnit(group, source, targets))
        for group in range(len(settings.groups)) for source in settings.sources if (targets := settings.targets_of(source))
    ]  # fmt: skip
    steps = [step for some, _ in parts for step in some]
    pairs = [step for step in steps if step.kind != "sketch"]
    count = sum(len(step.unit.targets) for step in (pairs or steps))
    width = settings.k * model.d_model * model.dtype.itemsize
    disk = sum(len(step.unit.targets) * (width + 1000) + 500 for step in pairs) + 600 * count
    file_rate = disk_rate(model._loaded.checkpoint.files) if rate is None and any(step.read for step in steps) else math.inf
    return Plan(tuple(steps), count, max(memory for _, memory in parts), disk, rate or _rate(model, settings, steps), file_rate)


def _source_steps(model: Model, settings: Settings, whole: WorkUnit) -> tuple[list[PlannedUnit], int]:
    """Steps of the targets of one source, and the bytes that they take at most."""
    lengths, targets = [len(settings.prompts[i].tokens) for i in settings.groups[whole.prompt_group]], whole.targets
    itemsize, d, k = model.dtype.itemsize, model.d_model, settings.k
    start = Site(whole.source, settings.source_site)
    at_layers = sum(len(prompt_positions(settings.target_positions, n)) for n in lengths)
    rows = [len(lengths) if isinstance(t, str) else at_layers for t in targets]
    ends = [t if isinstance(t, str) else Site(t, settings.target_site) for t in targets]
    costs = [estimate(model, lengths, start, e, n, k) for e, n in zip(ends, rows, strict=True)]
    heights = [n * (model.n_vocab if isinstance(t, str) else d) for t, n in zip(targets, rows, strict=True)]
    deepest = max(cost.flops for cost in costs)  # of a sweep, and of the forward pass that every unit starts with
    each = [applications(k, min(m, d)) * c.flops for m, c in zip(heights, costs, strict=True)]
    solving = sum(applications(k, min(m, d)) * 2 * m * d * _MATRIX_SLOWER for m in heights)
    dense = (d + 1) * deepest + solving
    method = settings.method
    if method == "auto":
        method = "dense" if dense < sum(each) else "krylov"

    tile, streamed = max(1, SWEEP_ROWS // sum(lengths)), max(cost.streamed for cost in costs)

    def passes(columns: int) -> int:
        """Bytes read by the forward pass and the sweeps of so many columns of one source."""
        return (1 + math.ceil(columns / tile)) * streamed

    def memory(columns: int, others: int) -> int:
        """Of sweeps of so many columns, and so many other bytes. Targets that are layers are alike."""
        swept = max(estimate(model, lengths, start, ends[i], rows[i], columns).sweep for i in (0, -1))
        return max(cost.tape for cost in costs) + max(*(cost.forward for cost in costs), swept + others)

    if method == "dense":
        others = itemsize * d * sum(heights) + sum(cost.basis for cost in costs)
        return [PlannedUnit(whole, "dense", dense, read=passes(d))], memory(tile, others)
    steps = [PlannedUnit(whole, "sketch", (settings.sketch + 1) * deepest, read=passes(settings.sketch))] if settings.sketch else []
    most = [memory(settings.sketch, itemsize * settings.sketch * sum(heights))] if settings.sketch else []
    every = sum(len(settings.targets_of(source)) for source in settings.sources)
    for i in range(0, len(targets) if method == "krylov" else 0, MAX_COLUMNS):
        part = slice(i, i + MAX_COLUMNS)
        basis = sum(cost.basis for cost in costs[part]) / len(costs[part])
        together = max(MAX_COLUMNS, min(_FILLED * SWEEP_ROWS // sum(lengths), int(_BASES / basis)))
        shared = len(targets[part]) / min(together, every)  # of the sweeps, which all pairs together make
        read = int((1 + applications(k, d)) * streamed * shared)
        steps.append(PlannedUnit(replace(whole, targets=targets[part]), "krylov", deepest + sum(each[part]), together, read))
        most.append(memory(min(together, every), int(min(together, every) * basis)))
    return steps, max(most)


def _rate(model: Model, settings: Settings, steps: Sequence[PlannedUnit]) -> float:
    """Operations per second in a sweep of as many vectors as the steps have on average: with few rows a sweep is slower."""
    columns = {"sketch": settings.sketch, "dense": model.d_model}
    pairs = sum(len(step.unit.targets) for step in steps if step.kind == "krylov")
    together = sum(step.flops * columns.get(step.kind, min(pairs, step.together // 2)) for step in steps)
    n = sum(len(settings.prompts[i].tokens) for i in settings.groups[steps[0].unit.prompt_group])
    return sweep_rate(model, n, max(1, min(round(together / _operations(steps)), MAX_COLUMNS, SWEEP_ROWS // n)))


@dataclass(frozen=True)
class EffectsPlan:
    """The plan of `Atlas.effects` of every group of prompts.

    Attributes
    ----------
    vectors : int
        Vectors, over all groups of prompts.
    pushes : int
        Steered prompts: vectors and random vectors by sign, scale and prompt.
    samples : int
        Sampled continuations of each, besides the greedy one.
    new_tokens : float
        Expected tokens of a continuation.
    seconds : float
        Expected time.

    Examples
    --------
    >>> plan = ps.atlas_plan(model, "Task: 3 * 4 =", effects={"k": 2, "n_random": 1, "max_new_tokens": 0})
    >>> plan.effects.vectors, plan.effects.pushes
    (30, 140)
    """

    vectors: int
    pushes: int
    samples: int
    new_tokens: float
    seconds: float

    def __str__(self) -> str:
        sampled = f" and {self.samples} samples of each" if self.samples else ""
        return (
            f"  effects {self.vectors:5d} vectors, {self.pushes} continuations{sampled} of about {self.new_tokens:.3g} tokens, "
            f"{_time(self.seconds)}"
        )


@deprecated_arguments(3, ranks="k", random="n_random")
def plan_effects(
    model: Model,
    settings: Settings,
    rate: float,
    *,
    k: int | Sequence[int] | None = None,
    scales: Sequence[float] = (0.35, 1.0),
    signs: Sequence[int] = (1, -1),
    max_new_tokens: int = 32,
    n_random: int = 8,
    temperature: float = 0.0,
    samples: int = 0,
) -> EffectsPlan:
    """Plan effects with these arguments, from a few measured continuations. rate: operations per second of sweeps."""
    max_new_tokens = check_count(max_new_tokens, "effects: max_new_tokens", least=0)
    n_random = check_count(n_random, "effects: n_random", least=0)
    _, samples = checked_samples(temperature, samples, max_new_tokens)
    cost = effect_cost(model, [p.tokens for p in settings.prompts[:8]], max_new_tokens)
    per_pair, ways = len(chosen_ranks(k, settings.k)), len(as_list(scales)) * len(as_list(signs))
    vectors = pushes = 0
    seconds = 0.0
    for group in settings.groups:
        for source in settings.sources:
            here = per_pair * len(settings.targets_of(source))
            if not here:
                continue
            vectors += here
            for n in (len(settings.prompts[i].tokens) for i in group):
                pushes += ways * (here + n_random)
                start, end = Site(source, settings.source_site), Site(model.n_layers - 1, "resid_post")
                sweep = estimate(model, [n], start, end, 1, 1).flops if source < end.layer else 0.0
                seconds += cost.seconds(n, ways * (here + n_random) + 1, samples) + here * sweep / rate
    return EffectsPlan(vectors, pushes, samples, cost.new_tokens, seconds)


def batches(steps: Iterable[PlannedUnit], flops: float | None = None) -> Iterator[list[PlannedUnit]]:
    """Join steps of one kind and one group of prompts, in their order, until they take so many operations. None: each alone, but
    steps of the kind krylov, which never fill more than their sweeps, until they fill them."""
    waiting: dict[tuple[str, int], list[PlannedUnit]] = {}
    for step in steps:
        key = step.kind, step.unit.prompt_group
        batch = waiting.pop(key, [])
        together = min(s.together for s in (*batch, step))
        if batch and step.kind == "krylov" and sum(len(s.unit.targets) for s in (*batch, step)) > together:
            yield batch
            batch = []
        batch.append(step)
        enough = flops if flops is not None else float("inf") if step.kind == "krylov" else 0.0
        if _operations(batch) >= enough:
            yield batch
        else:
            waiting[key] = batch
    yield from waiting.values()
