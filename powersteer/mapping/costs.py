"""What the units of an atlas cost: operations, passes through the weights, bytes.

For every source, and every group of prompts, the cheaper of
    krylov   `applications` products with each pair's Jacobian or its transpose; those of all pairs share their sweeps
    dense    d products from the source to its deepest target, shared by all targets, and the same solver on each matrix
and before them a sketch: some products from each source, shared by all its targets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from .._core._core32 import SWEEP_ROWS
from ..inputs.positions import prompt_positions
from ..inputs.sites import Site
from ..model.cost import estimate, first_swept, pass_flops
from ..model.model import Model
from .batches import PlannedUnit, operations
from .settings import Settings
from .store import WorkUnit

__all__ = ["MAX_COLUMNS", "applications", "shared", "source_steps"]

MAX_COLUMNS = 16  # largest number of targets in a unit
_SLOWER = (10.0, 40.0)  # of a matrix with one vector, than of many, for the same operations: in cache, in memory
_CACHE = 1 << 22  # bytes of all matrices of a source up to which they are in cache
_FILLED = 2  # times SWEEP_ROWS: rows of all pairs that are computed together, about half of which cross a layer
_BASES = 1 << 30  # bytes that their bases take at most
_PASS = 50.0  # rows that a pass through the weights costs besides, where a method is chosen: the same on every machine
_PACKED = 16  # rows from which a pass costs as much as with many; products of fewer rows do not pack the weights
_TAIL = 1.3  # sweeps of pairs that advance together, by the applications of one: some need more than others, or are out of step


def applications(k: int, d: int) -> float:
    """Expected products of one pair until k triplets are certified to 1e-2, the probe included: about 7.5 k on trained models with
    d of 576 and 640, and at most 2 d, when both bases are full."""
    return min(7.5 * k, 2.0 * d)


class _Sizes:
    """Sizes of the products of one group of prompts."""

    def __init__(self, model: Model, settings: Settings, group: int) -> None:
        self.model, self.settings = model, settings
        self.lengths = [len(settings.prompts[i].tokens) for i in settings.groups[group]]
        self.rows, self.tile = sum(self.lengths), max(1, SWEEP_ROWS // sum(self.lengths))
        self.at_layers = sum(len(prompt_positions(settings.target_positions, n)) for n in self.lengths)
        self.lm_head = 2.0 * model.n_vocab * model.d_model  # operations of one row

    def first(self, source: int) -> int:
        return first_swept(Site(source, self.settings.source_site))

    def last(self, target: int | str) -> int:
        return self.model.n_layers - 1 if isinstance(target, str) else target

    def whole(self, first: int, targets: Collection[int | str]) -> tuple[float, float]:
        """(flops, row_flops) of a pass that computes all rows, as far as the deepest of the targets."""
        last, heads = max(map(self.last, targets)), self.lm_head * sum(isinstance(t, str) for t in targets)
        spec, n_head = self.model.spec, len(self.lengths)
        return pass_flops(spec, self.lengths, first, last) + n_head * heads, pass_flops(spec, [1], first, last) + heads


def source_steps(model: Model, settings: Settings, whole: WorkUnit, most: int = MAX_COLUMNS) -> tuple[list[PlannedUnit], int]:
    """Steps of the targets of one source, of at most so many targets each where they are krylov's, and the bytes that they take
    at most. What units share is not counted yet (see `shared`)."""
    sizes, targets = _Sizes(model, settings, whole.prompt_group), whole.targets
    lengths, itemsize, d, k = sizes.lengths, model.dtype.itemsize, model.d_model, settings.k
    start = Site(whole.source, settings.source_site)
    rows = [len(lengths) if isinstance(t, str) else sizes.at_layers for t in targets]
    ends = [t if isinstance(t, str) else Site(t, settings.target_site) for t in targets]
    costs = [estimate(model, lengths, start, e, n, k) for e, n in zip(ends, rows, strict=True)]
    heights = [n * (model.n_vocab if isinstance(t, str) else d) for t, n in zip(targets, rows, strict=True)]
    flops, row_flops = sizes.whole(sizes.first(whole.source), targets)  # of a sweep
    products = [applications(k, min(m, d)) for m in heights]
    each = [n * c.flops + _SLOWER[1] * n**2 * (m + d) for n, m, c in zip(products, heights, costs, strict=True)]
    slower = _SLOWER[itemsize * d * sum(heights) > _CACHE]
    solving = slower * sum(n * 2 * m * d for n, m in zip(products, heights, strict=True))
    streamed = max(cost.streamed for cost in costs)
    every = sum(len(settings.targets_of(source)) for source in settings.sources)

    def swept(kind: str, columns: int, more: float = 0.0) -> PlannedUnit:
        passes = math.ceil(columns / sizes.tile)
        return PlannedUnit(whole, kind, columns * flops + more, passes * row_flops, 1, (1 + passes) * streamed)

    def memory(columns: int, others: int) -> int:
        """Of sweeps of so many columns, and so many other bytes. Targets that are layers are alike."""
        widest = max(estimate(model, lengths, start, ends[i], rows[i], columns).sweep for i in (0, -1))
        return max(cost.tape for cost in costs) + max(*(cost.forward for cost in costs), widest + others)

    steps, bytes_ = [], []
    for i in range(0, len(targets), most):
        part = slice(i, i + most)
        basis = sum(cost.basis for cost in costs[part]) / len(costs[part])
        together = max(MAX_COLUMNS, min(_FILLED * SWEEP_ROWS // sizes.rows, int(_BASES / basis)))
        share = len(targets[part]) / min(together, every)  # of the sweeps, which all pairs together make
        read = int((1 + applications(k, d)) * streamed * share)
        steps.append(PlannedUnit(replace(whole, targets=targets[part]), "krylov", sum(each[part]), 0.0, together, read))
        bytes_.append(memory(min(together, every), int(min(together, every) * basis)))
    dense, method = swept("dense", d, solving), settings.method
    if method == "auto":
        passes = _TAIL * applications(k, d) * 2 * row_flops * min(1.0, len(targets) / steps[0].together)
        krylov = operations(steps) + _PASS * passes
        method = "dense" if dense.flops + _PASS * dense.row_flops < krylov else "krylov"
    if method == "dense":
        return [dense], memory(sizes.tile, itemsize * d * sum(heights) + sum(cost.basis for cost in costs))
    sketch = [swept("sketch", settings.sketch)] if settings.sketch else []
    of_sketch = [memory(settings.sketch, itemsize * settings.sketch * sum(heights))] if settings.sketch else []
    return (sketch, max(of_sketch)) if method == "sketch" else (sketch + steps, max(of_sketch + bytes_))


def shared(model: Model, settings: Settings, batch: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    """The units of a batch, each with its share of what they have in common: the forward pass, and the passes through the weights
    of the sweeps of Krylov runs."""
    sizes = _Sizes(model, settings, batch[0].unit.prompt_group)
    flops, row_flops = sizes.whole(0, {target for step in batch for target in step.unit.targets})
    if batch[0].kind == "krylov":
        row_flops += _sweep_passes(sizes, batch)
    total = operations(batch)
    return [
        replace(s, flops=s.flops + flops * s.flops / total, row_flops=s.row_flops + row_flops * s.flops / total) for s in batch
    ]


def _sweep_passes(sizes: _Sizes, batch: Sequence[PlannedUnit]) -> float:
    """row_flops of the sweeps of Krylov runs. In a layer, the columns that pass through it are multiplied together, and those
    that end there once more, at few rows: those of the target."""
    spec, pairs = sizes.model.spec, [(sizes.first(s.unit.source), t) for s in batch for t in s.unit.targets]
    ends, row_flops = Counter(target for _, target in pairs), 0.0
    for target, count in ends.items():
        head, last = isinstance(target, str), sizes.last(target)
        rows = count / _TAIL * (len(sizes.lengths) if head else sizes.at_layers)
        row_flops += min(1.0, rows / _PACKED) * (pass_flops(spec, [1], last, last) + sizes.lm_head * head)
    for layer in range(sizes.model.n_layers):
        passing = sum(first <= layer < sizes.last(target) for first, target in pairs)
        row_flops += math.ceil(passing / _TAIL / sizes.tile) * pass_flops(spec, [1], layer, layer) if passing else 0.0
    return row_flops * applications(sizes.settings.k, sizes.model.d_model) * (_TAIL if len(pairs) > 1 else 1.0)
