"""What an atlas will take, and how each of its parts is best computed, before anything is.

For every source (in every view) the cheaper of
    krylov   APPLICATIONS sweeps from source to target and back, for each pair by itself
    dense    d sweeps from the source to its deepest target, read by all on the way, and LAPACK on each matrix
and before the krylov ones a sketch: some sweeps from each source, read by all its targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..evaluate.metrics import as_list
from ..inputs.positions import prompt_positions
from ..inputs.sites import Site
from ..methods.displacement import check_count
from ..model.cost import estimate
from ..model.model import Model
from .settings import Settings, Target
from .speed import effect_cost, sweep_rate
from .store import WorkUnit

__all__ = ["EffectsPlan", "Plan", "PlannedUnit", "make_plan", "plan_effects"]

MAX_COLUMNS = 16  # targets that advance together at most
ROWS = 1024  # of a sweep; beyond, its buffers leave the caches and nothing is gained
_SVD_FLOPS = 12.0  # times m d^2: LAPACK on a matrix (m, d), m >= d
_SVD_SLOWER = 4.0  # than matrix products, for the same operations


def applications(k: int, d: int) -> float:
    """Products that one pair takes until k triplets are certified to 1e-2, from the published spectra and small trained
    models: about 5 k; never more than both bases full."""
    return min(5.0 * k + 4, 2.0 * d)


@dataclass(frozen=True)
class PlannedUnit:
    """A unit of work, how it is done, and the operations that it should take."""

    unit: WorkUnit
    kind: str  # "krylov" | "dense" | "sketch"
    flops: float


@dataclass(frozen=True)
class Plan:
    """Made by `atlas_plan`; printed before an atlas is computed."""

    steps: tuple[PlannedUnit, ...]
    pairs: int  # in all views
    memory: int  # bytes beside the weights, of one worker
    disk: int  # bytes
    rate: float  # operations a second, measured by one sweep on this machine
    effects: EffectsPlan | None = None  # where they were requested

    @property
    def seconds(self) -> float:
        """Of one worker like this machine, effects included."""
        return sum(step.flops for step in self.steps) / self.rate + (self.effects.seconds if self.effects else 0.0)

    def of_kind(self, *kinds: str) -> list[PlannedUnit]:
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
        if self.effects:
            lines.append(str(self.effects))
        return "\n".join([*lines, f"  measured on one sweep: {self.rate / 1e9:.3g} GFLOP/s"])


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def make_plan(model: Model, settings: Settings, rate: float | None = None) -> Plan:
    """rate: operations a second; None: measured, by a sweep through one block."""
    steps: list[PlannedUnit] = []
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
    return Plan(tuple(steps), cells, memory, disk, rate or _rate(model, settings, steps))


def _source_steps(
    model: Model, settings: Settings, view: int, source: int, targets: tuple[Target, ...]
) -> tuple[list[PlannedUnit], int]:
    """Steps of one source, and the memory that the largest takes."""
    lengths = [len(settings.prompts[i].tokens) for i in settings.groups[view]]
    itemsize, d, k = model.dtype.itemsize, model.d_model, settings.k
    start = Site(source, settings.source_site)
    rows = [_target_rows(settings, t, lengths) for t in targets]
    ends = [t if isinstance(t, str) else Site(t, settings.target_site) for t in targets]
    costs = [estimate(model, lengths, start, e, n, k) for e, n in zip(ends, rows, strict=True)]
    whole = WorkUnit(view, source, targets)
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
        return [PlannedUnit(whole, "dense", dense)], tape + matrices
    steps = [PlannedUnit(whole, "sketch", settings.sketch * deepest)] if settings.sketch else []
    lanes = max(1, min(MAX_COLUMNS, ROWS // sum(lengths)))
    if method == "krylov":
        for i in range(0, len(targets), lanes):
            steps.append(PlannedUnit(replace(whole, targets=targets[i : i + lanes]), "krylov", sum(each[i : i + lanes])))
    return steps, tape + lanes * max(cost.basis for cost in costs)


def _target_rows(settings: Settings, target: Target, lengths: Sequence[int]) -> int:
    if isinstance(target, str):
        return len(lengths)
    return sum(len(prompt_positions(settings.target_positions, n)) for n in lengths)


def _rate(model: Model, settings: Settings, steps: Sequence[PlannedUnit]) -> float:
    """Operations a second in a sweep of as many vectors as a unit carries."""
    n = sum(len(settings.prompts[i].tokens) for i in settings.groups[steps[0].unit.view])
    return sweep_rate(model, n, max(1, min(MAX_COLUMNS, ROWS // n)))


@dataclass(frozen=True)
class EffectsPlan:
    """What `Atlas.effects` of every view will take."""

    vectors: int  # in all views
    pushes: int  # vectors and random ones, by sign, scale and prompt
    new_tokens: float  # of each, as far as it was measured
    seconds: float

    def __str__(self) -> str:
        return (
            f"  effects {self.vectors:5d} vectors, {self.pushes} continuations of about {self.new_tokens:.3g} tokens, "
            f"{_time(self.seconds)}"
        )


def plan_effects(
    model: Model,
    settings: Settings,
    rate: float,
    ranks: int | Sequence[int] | None = None,
    scales: Sequence[float] = (0.35, 1.0),
    signs: Sequence[int] = (1, -1),
    max_new_tokens: int = 32,
    random: int = 8,
) -> EffectsPlan:
    """The time of effects with these arguments, from a few measured continuations. rate: of sweeps."""
    max_new_tokens, random = (
        check_count(x, f"effects: {name}", least=0) for x, name in ((max_new_tokens, "max_new_tokens"), (random, "random"))
    )
    cost = effect_cost(model, [p.tokens for p in settings.prompts[:8]], max_new_tokens)
    per_pair = settings.k if ranks is None else ranks if isinstance(ranks, int) else len(as_list(ranks))
    ways = len(as_list(scales)) * len(as_list(signs))
    vectors = pushes = 0
    seconds = 0.0
    for group in settings.groups:
        for source in settings.sources:
            here = per_pair * len(settings.targets_of(source))
            if not here:
                continue
            vectors += here
            for n in (len(settings.prompts[i].tokens) for i in group):
                pushes += ways * (here + random)
                start, end = Site(source, settings.source_site), Site(model.n_layers - 1, "resid_post")
                sweep = estimate(model, [n], start, end, 1, 1).flops if source < end.layer else 0.0
                seconds += cost.seconds(n, ways * (here + random) + 1) + here * sweep / rate
    return EffectsPlan(vectors, pushes, cost.new_tokens, seconds)


def batches(steps: Sequence[PlannedUnit], flops: float) -> Iterator[list[PlannedUnit]]:
    """Neighbouring steps of one kind, joined until they take at least so many operations."""
    batch: list[PlannedUnit] = []
    for step in steps:
        if batch and (step.kind != batch[0].kind or sum(s.flops for s in batch) >= flops):
            yield batch
            batch = []
        batch.append(step)
    if batch:
        yield batch
