"""Computing an atlas: what is planned and not there yet, here or by an executor, most promising first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..model.model import Model
from .atlas import Atlas
from .compute import Batch, JobSpec, run_remote, run_task
from .plan import Plan, PlannedUnit, batches, make_plan, plan_effects
from .settings import Settings, Target, make_settings
from .store import Memory, Store, open_folder

__all__ = ["atlas", "atlas_plan"]

_SECONDS = 2.0  # of work a call of an executor should be worth
_ATTEMPTS = 3  # at a unit whose worker died
ExecutorLike = Executor | Callable[[], Executor]
_LAST_TWO = slice(-2, None)


def atlas(
    model: Model,
    prompts: Prompts,
    sources: Sequence[int] | None = None,
    targets: Sequence[Target] | None = None,
    k: int = 12,
    sites: str | Sequence[str] = "mlp_out",
    positions: Positions = _LAST_TWO,
    tol: float = 1e-2,
    out: str | Path | None = None,
    resume: bool = True,
    executor: ExecutorLike | None = None,
    progress: bool | Report = True,
    *,
    views: str = "stacked",
    next_token: bool = True,
    method: str = "auto",
    sketch: int = 16,
    seed: int = 0,
    max_applications: int | None = None,
    worker_threads: int = 1,
) -> Atlas:
    """The k leading singular triplets of the Jacobian from every source layer to every later target layer, certified.

    sources, targets: layers; None: every one. next_token: the Fisher target as one more column (see `Model.jacobian`).
    sites: of both ends, or a pair. positions: target rows in every prompt. views: the prompts "stacked" in one
    Jacobian, "each" alone, or "both". k: triplets, fewer where a Jacobian has fewer. tol: of the certificate.
    method: "krylov", "dense", "auto" (the cheaper for each source), or "sketch": only estimates from `sketch` random
    vectors a source, which otherwise come first and decide the order. max_applications: see `powersteer.svd`.

    out: a folder that is a valid atlas all the while, and goes on where it stopped (resume); None: in memory.
    executor: any `concurrent.futures.Executor` (processes, Dask's `client.get_executor()`, `mpi4py.futures`), or a
    function that makes one, which is called again if its workers die; each worker maps the model's file and uses
    `worker_threads` threads. progress: True prints the plan and shows a bar, on stderr; False; or a callable that gets
    (operations done, in all).

    Raises InvalidInput for what the model does not have, and for a folder with an atlas of other settings, naming them.
    The same settings, seed and number of threads give the same bits, however often it was interrupted.
    """
    settings = make_settings(
        model, prompts, sources, targets, k, sites, positions, tol, views, next_token, method, sketch, seed,
        max_applications,
    )  # fmt: skip
    job = _job(model, settings, worker_threads) if executor is not None else None
    store = _open(out, settings, model, resume)
    done = Atlas(store, model)
    if not _missing(store, make_plan(model, settings, rate=1.0).steps):
        return done
    plan = make_plan(model, settings)
    if progress is True:
        print(plan, file=sys.stderr)
    runner = _Local(model, settings) if job is None else _Remote(job, executor, plan.rate)
    total, left = _operations(plan.steps), _operations(_missing(store, plan.steps))
    with progress_bar(progress, total, "atlas", initial=total - left, bar_format=_BAR) as report:
        for phase in (("sketch",), ("dense", "krylov")):
            todo = _promising(store, _missing(store, plan.of_kind(*phase)))
            for step, result in runner.run(todo):
                if step.kind == "sketch":
                    store.put_sketches(step.unit.view, step.unit.source, result)
                else:
                    store.put(step.unit, *result)
                report(_operations([step]))
    return done


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def atlas_plan(
    model: Model, prompts: Prompts, *, effects: int | Mapping[str, Any] | None = None, **arguments: Any
) -> Plan:
    """What `atlas` with the same arguments would do, and its time, memory and disk: `print` it. Nothing is written.

    effects: also the time of `Atlas.effects` of every view: the ranks, or a dict of ranks, scales, signs,
    max_new_tokens and random. What this machine does in a second is measured in about a second, once for a model.
    """
    accepted = {**_DEFAULTS, **arguments}
    if set(accepted) != set(_DEFAULTS):
        raise InvalidInput(f"atlas_plan: unknown arguments {sorted(set(accepted) - set(_DEFAULTS))}")
    settings = make_settings(model, prompts, **accepted)
    plan = make_plan(model, settings)
    if effects is None:
        return plan
    how = {"ranks": effects} if isinstance(effects, int) else dict(effects)
    if unknown := set(how) - _EFFECTS:
        raise InvalidInput(f"atlas_plan: effects has {sorted(unknown)[0]!r}; it takes {', '.join(sorted(_EFFECTS))}")
    return replace(plan, effects=plan_effects(model, settings, plan.rate, **how))


_EFFECTS = {"ranks", "scales", "signs", "max_new_tokens", "random"}
_DEFAULTS: dict[str, Any] = {
    "sources": None, "targets": None, "k": 12, "sites": "mlp_out", "positions": _LAST_TWO, "tol": 1e-2,
    "views": "stacked", "next_token": True, "method": "auto", "sketch": 16, "seed": 0, "max_applications": None,
}  # fmt: skip


def _open(out: str | Path | None, settings: Settings, model: Model, resume: bool) -> Store:
    if out is None:
        return Memory(settings)
    return open_folder(Path(out).expanduser(), settings, {"path": model.path}, resume)


def _operations(steps: Sequence[PlannedUnit]) -> int:
    return sum(int(step.flops) for step in steps)


def _job(model: Model, settings: Settings, threads: int) -> JobSpec:
    if model.path is None:
        raise InvalidInput("an executor's workers load the model from its file, and this one has none; run without executor")
    return JobSpec(model.path, threads, settings, model.interventions)


def _missing(store: Store, steps: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    def there(step: PlannedUnit) -> bool:
        if step.kind == "sketch":
            return store.sketched(step.unit.view, step.unit.source)
        return store.has(step.unit)

    return [step for step in steps if not there(step)]


def _promising(store: Store, steps: list[PlannedUnit]) -> list[PlannedUnit]:
    """Those units first whose sketch promises the largest effect: sigma_1 x site norm, relative to the target's norm."""
    gain = {
        (s.view, s.source, s.target): s.sigma[0] * s.site_norm / s.base_norm if s.base_norm else 0.0
        for s in store.sketches()
    }
    worth = [max((gain.get((s.unit.view, s.unit.source, t), 0.0) for t in s.unit.targets), default=0.0) for s in steps]
    return [steps[i] for i in sorted(range(len(steps)), key=lambda i: -worth[i])]


@dataclass
class _Local:
    model: Model
    settings: Settings

    def run(self, steps: Sequence[PlannedUnit]) -> Iterator[tuple[PlannedUnit, Any]]:
        for step in steps:
            (result,) = run_task(self.model, self.settings, Batch(step.kind, (step.unit,)))
            yield step, result


class _Remote:
    """Units in the workers of an executor. A unit whose worker died is given out again."""

    def __init__(self, job: JobSpec, executor: ExecutorLike | None, rate: float) -> None:
        self.job, self.flops = job, _SECONDS * rate
        self.make = executor if not isinstance(executor, Executor) and callable(executor) else None
        self.executor: Any = self.make() if self.make else executor

    def run(self, steps: Sequence[PlannedUnit]) -> Iterator[tuple[PlannedUnit, Any]]:
        waiting: dict[Future[list[Any]], tuple[list[PlannedUnit], int]] = {}
        try:
            for batch in batches(steps, self.flops):
                waiting[self._submit(batch)] = (batch, 1)
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                lost: list[tuple[list[PlannedUnit], int]] = []
                for future in finished:
                    batch, attempt = waiting.pop(future)
                    if isinstance(future.exception(), BrokenExecutor) and self.make and attempt < _ATTEMPTS:
                        lost.append((batch, attempt + 1))
                    else:
                        yield from zip(batch, future.result(), strict=True)
                if lost:  # the executor is gone, and with it all that it had
                    lost += [(batch, attempt) for batch, attempt in waiting.values()]
                    self.executor = self.make() if self.make else None
                    waiting = {self._submit(batch): (batch, attempt) for batch, attempt in lost}
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, batch: list[PlannedUnit]) -> Future[list[Any]]:
        task = Batch(batch[0].kind, tuple(step.unit for step in batch))
        future: Future[list[Any]] = self.executor.submit(run_remote, self.job, task)
        return future
