"""The plan of an atlas: its units of work, their method, the time of one worker or of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._util.checks import as_list, check_count
from .._util.deprecated import deprecated_arguments
from .._util.html import table
from ..errors import InvalidInput
from ..evaluate.effects import checked_samples
from ..inputs.sites import Site
from ..model.cost import estimate, first_swept
from ..model.model import Model
from .batches import PlannedUnit, batches, makespan, operations
from .costs import MAX_COLUMNS, shared, source_steps
from .settings import Settings, Target, chosen_ranks
from .speed import Speed, disk_rate, effect_cost, sweep_speed
from .store import WorkUnit

__all__ = ["EffectsPlan", "Plan", "PlannedUnit", "WorkersPlan", "make_plan", "plan_effects"]

SECONDS = 2.0  # of work in a call of an executor, at least
_FIELDS = 1000  # bytes of a pair beside its vectors


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
    speed : Speed
        Of sweeps of one worker, measured on this machine.
    disk_rate : float
        Bytes per second that the model's file is read at, where the model is larger than memory; else infinity.
    workers : WorkersPlan or None
        What many workers have each, if their number was given.
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
    speed: Speed
    disk_rate: float = math.inf
    workers: WorkersPlan | None = None
    effects: EffectsPlan | None = None

    @property
    def rate(self) -> float:
        """Operations per second of one worker, with many rows."""
        return self.speed.rate

    @property
    def seconds(self) -> float:
        """Expected seconds until all is computed, effects included: by this process, or by the workers."""
        ours = self.workers.seconds if self.workers else self._seconds(self.steps)
        return ours + (self.effects.seconds if self.effects else 0.0)

    def _seconds(self, steps: Sequence[PlannedUnit]) -> float:
        """Of one worker. Computing and reading overlap."""
        computing = self.speed.seconds(operations(steps), sum(step.row_flops for step in steps))
        return max(computing, sum(step.read for step in steps) / self.disk_rate)

    def method(self, source: int, target: Target, prompt_group: int = 0) -> str:
        """How a pair is computed: "dense", "krylov", or "sketch" for one that is estimated only.

        Raises InvalidInput if the pair is not in the plan.

        Examples
        --------
        >>> ps.atlas_plan(model, "Task: 3 * 4 =", k=2).method(0, 1)
        'krylov'
        """
        kinds = {s.kind for s in self.steps if (s.unit.prompt_group, s.unit.source) == (prompt_group, source) and target in s.unit.targets}
        if not kinds:
            raise InvalidInput(f"the pair {source} -> {target} of prompt group {prompt_group} is not in this plan")
        return next(kind for kind in ("dense", "krylov", "sketch") if kind in kinds)

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
        """Kind, pairs, operations, time of one worker and description of every kind of step."""
        return [
            (kind, f"{sum(len(step.unit.targets) for step in steps)}", f"{operations(steps) / 1e12:.3g} TFLOP",
             _time(self._seconds(steps)), f"{about}; from {_layers({step.unit.source for step in steps})}")
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
        workers = [str(self.workers)] if self.workers else []
        measured = f"  measured on sweeps: {self.rate / 1e9:.3g} GFLOP/s"
        if read := sum(step.read for step in self.steps):
            measured += f"; larger than memory: {read / 1e9:.3g} GB are read from its file at {self.disk_rate / 1e9:.2g} GB/s"
        return "\n".join([self._summary(), *rows, *effects, *workers, measured])

    def _repr_html_(self) -> str:
        effects = [("effects", "", "", _time(self.effects.seconds), str(self.effects).split(maxsplit=1)[1])] if self.effects else []
        return table(("step", "pairs", "operations", "time", ""), [*self._table(), *effects], self._summary())


def _layers(layers: set[int]) -> str:
    """ "layers 0-3, 7" """
    starts = sorted(i for i in layers if i - 1 not in layers)
    ends = sorted(i for i in layers if i + 1 not in layers)
    return "layers " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


@dataclass(frozen=True)
class WorkersPlan:
    """What many workers have to do.

    Attributes
    ----------
    workers, threads : int
        Number of workers, and threads of each.
    batches : int
        Calls of the executor.
    largest : int
        Targets of a unit at most: with more workers, units are smaller.
    seconds : float
        Until the last worker has ended.
    idle : float
        Share of their time in which workers wait for the last ones, of the sketches and of the pairs.
    memory : int
        Bytes of a worker, the weights included, which it maps from the model's file.
    start : int
        Bytes that a worker reads when it starts: the model's file.
    moved : int
        Bytes of the largest result of a call.

    Examples
    --------
    >>> plan = ps.atlas_plan(model, "Task: 3 * 4 =", k=2, workers=4)
    >>> plan.workers.threads, plan.workers.idle < 1
    (1, True)
    """

    workers: int
    threads: int
    batches: int
    largest: int
    seconds: float
    idle: float
    memory: int
    start: int
    moved: int

    def __str__(self) -> str:
        return (
            f"  {self.workers} workers of {self.threads} threads: {_time(self.seconds)}, of which {self.idle:.0%} are waiting; "
            f"{self.batches} calls, of which the largest returns {self.moved / 1e6:.2g} MB; each worker takes "
            f"{self.memory / 1e9:.2g} GB, and reads {self.start / 1e9:.2g} GB when it starts"
        )


def make_plan(
    model: Model, settings: Settings, workers: int | None = None, threads: int | None = None, speed: Speed | None = None
) -> Plan:
    """Plan an atlas. workers, threads: workers of an executor, and threads of each; None: this process. speed: of this process;
    None: it is measured."""
    measured = speed or sweep_speed(model, sum(len(settings.prompts[i].tokens) for i in settings.groups[0]))
    if threads is not None:
        measured = Speed(measured.rate * threads / model.threads, measured.rows)
    plans = [_plan(model, settings, measured, most, workers, threads or 1, speed is None) for most in _sizes(workers)]
    return min(plans, key=lambda plan: plan.seconds)  # the first of equal ones


def _sizes(workers: int | None) -> Sequence[int]:
    """Largest numbers of targets of a unit to choose from: those that leave some units to every worker."""
    return [MAX_COLUMNS] if workers is None else [MAX_COLUMNS, 4, 2, 1]


def _plan(
    model: Model, settings: Settings, speed: Speed, most: int, workers: int | None, threads: int, measure: bool
) -> Plan:
    parts = [
        source_steps(model, settings, WorkUnit(group, source, targets), most)
        for group in range(len(settings.groups)) for source in settings.sources if (targets := settings.targets_of(source))
    ]  # fmt: skip
    order = [step for some, _ in parts for step in some]
    cut = list(batches(order, None if workers is None else SECONDS * speed.rate))
    whole = {(step.kind, step.unit): step for batch in cut for step in shared(model, settings, batch)}
    steps = tuple(whole[step.kind, step.unit] for step in order)
    pairs = [step for step in steps if step.kind != "sketch"]
    count = sum(len(step.unit.targets) for step in (pairs or steps))
    disk = sum(_stored(model, settings, step) for step in pairs) + 600 * count
    file_rate = disk_rate(model._loaded.checkpoint.files) if measure and any(step.read for step in steps) else math.inf
    plan = Plan(steps, count, max(memory for _, memory in parts), disk, speed, file_rate)
    if workers is None:
        return plan
    calls = [[whole[step.kind, step.unit] for step in batch] for batch in cut]
    phases = [[plan._seconds(batch) for batch in calls if (batch[0].kind == "sketch") == sketch] for sketch in (True, False)]
    ends = [makespan(sorted(phase, reverse=True), workers) for phase in phases]
    seconds, moved = sum(ends), max(sum(_stored(model, settings, step) for step in batch) for batch in calls)
    of_workers = WorkersPlan(
        workers=workers, threads=threads, batches=len(cut), largest=most, seconds=seconds,
        idle=1 - sum(map(sum, phases)) / (workers * seconds), memory=plan.memory + model.spec.nbytes, start=model.spec.nbytes, moved=moved,
    )  # fmt: skip
    return replace(plan, workers=of_workers)


def _stored(model: Model, settings: Settings, step: PlannedUnit) -> int:
    """Bytes of the result of a unit."""
    vectors = 0 if step.kind == "sketch" else settings.k * model.d_model * model.dtype.itemsize
    return len(step.unit.targets) * (vectors + _FIELDS) + 500


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
    plan: Plan,
    *,
    k: int | Sequence[int] | None = None,
    scales: Sequence[float] = (0.35, 1.0),
    signs: Sequence[int] = (1, -1),
    max_new_tokens: int = 32,
    n_random: int = 8,
    temperature: float = 0.0,
    samples: int = 0,
) -> EffectsPlan:
    """Plan effects with these arguments, from a few measured continuations, after an atlas with this plan. Workers of it get calls
    of one source and one prompt."""
    max_new_tokens = check_count(max_new_tokens, "effects: max_new_tokens", least=0)
    n_random = check_count(n_random, "effects: n_random", least=0)
    _, samples = checked_samples(temperature, samples, max_new_tokens)
    cost = effect_cost(model, [p.tokens for p in settings.prompts[:8]], max_new_tokens)
    per_pair, ways = len(chosen_ranks(k, settings.k)), len(as_list(scales)) * len(as_list(signs))
    slower = model.threads / plan.workers.threads if plan.workers else 1.0
    vectors = pushes = 0
    calls: list[float] = []
    for group in settings.groups:
        for source in settings.sources:
            here = per_pair * len(settings.targets_of(source))
            if not here:
                continue
            vectors += here
            above = 1 - first_swept(Site(source, settings.source_site)) / model.n_layers
            for n in (len(settings.prompts[i].tokens) for i in group):
                pushes += ways * (here + n_random)
                start, end = Site(source, settings.source_site), Site(model.n_layers - 1, "resid_post")
                sweep = estimate(model, [n], start, end, 1, 1).flops if source < end.layer else 0.0
                calls.append(slower * cost.seconds(n, ways * (here + n_random) + 1, above, samples) + here * sweep / plan.rate)
    seconds = makespan(sorted(calls, reverse=True), plan.workers.workers) if plan.workers else sum(calls)
    return EffectsPlan(vectors, pushes, samples, cost.new_tokens, seconds)
