"""Computing an atlas: the planned units that are missing, in this process or by an executor, most promising first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..model.model import Model
from .atlas import Atlas
from .compute import JobSpec, compute, run_remote
from .plan import Plan, PlannedUnit, applications, batches, make_plan, plan_effects
from .settings import Settings, Target, make_settings
from .store import Store, WorkUnit, json_name, open_folder

__all__ = ["atlas", "atlas_plan"]

_SECONDS = 2.0  # of work in a call of an executor
_ATTEMPTS = 3  # at a batch whose worker died
ExecutorLike = Executor | Callable[[], Executor]
_LAST_TWO = slice(-2, None)


@deprecated_arguments(2, positions="target_positions", views="prompt_groups")
def atlas(
    model: Model,
    prompts: Prompts,
    *,
    sources: Sequence[int] | None = None,
    targets: Sequence[Target] | None = None,
    k: int = 12,
    sites: str | Sequence[str] = "mlp_out",
    target_positions: Positions = _LAST_TWO,
    tol: float = 1e-2,
    out: str | Path | None = None,
    resume: bool = True,
    executor: ExecutorLike | None = None,
    progress: bool | Report = False,
    prompt_groups: str = "stacked",
    next_token: bool = True,
    method: str = "auto",
    sketch: int = 16,
    seed: int = 0,
    max_applications: int | None = None,
    worker_threads: int = 1,
) -> Atlas:
    """Compute the k leading singular triplets of the Jacobian from every source layer to every later target layer, certified.

    The same settings, seed and number of threads give the same bits, however often the computation was interrupted.

    Parameters
    ----------
    model : Model
        The model, steered or not.
    prompts : str, list of int, chat, or a list of these
        Texts, token ids or chats.
    sources, targets : sequence of int, optional
        Layers; all of them by default.
    k : int
        Singular triplets of every pair; fewer where a Jacobian has fewer.
    sites : str or pair of str
        Site of both ends, or of the source and of the target.
    target_positions : int, slice, sequence of int, "all" or None
        Rows of the target in every prompt, by default the last two.
    tol : float
        Largest residual of a certified triplet, relative to sigma_1.
    out : str or Path, optional
        Folder to store the atlas in. It is a valid atlas at every moment. None: in memory.
    resume : bool
        Continue the atlas in `out` where it stopped.
    executor : concurrent.futures.Executor, or a function that returns one
        Distributes the work: processes, Dask's `client.get_executor()`, `mpi4py.futures`. A function is called again when
        its workers die. Every worker maps the model's file and uses `worker_threads` threads.
    progress : bool or callable
        True prints the plan and a progress bar to stderr; a callable gets (operations done, operations in all).
    prompt_groups : {"stacked", "each", "both"}
        One Jacobian of all prompts stacked, one of each prompt, or both.
    next_token : bool
        Whether the Fisher target of the next token is one more target (see `Model.jacobian`).
    method : {"auto", "krylov", "dense", "sketch"}
        "auto" is the cheaper of "krylov" and "dense" for each source; "sketch" computes estimates only.
    sketch : int
        Random vectors per source of the estimates that come first and decide the order of the work; 0: none.
    seed : int
        Seed of all random vectors.
    max_applications : int, optional
        Largest number of products per pair (see `powersteer.svd`).
    worker_threads : int
        Threads of each worker of the executor.

    Returns
    -------
    Atlas

    Raises
    ------
    InvalidInput
        If the model lacks a site, layer or position, or if `out` holds an atlas of other settings, which are named.

    Examples
    --------
    >>> atlas = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[0, 1])
    >>> atlas.S.shape  # source layer, target layer, rank
    (5, 5, 2)
    >>> atlas.pairs[:3]
    [(0, 1), (0, 2), (0, 3)]
    """
    settings = make_settings(
        model, prompts, sources=sources, targets=targets, k=k, sites=sites, target_positions=target_positions, tol=tol,
        prompt_groups=prompt_groups, next_token=next_token, method=method, sketch=sketch, seed=seed,
        max_applications=max_applications,
    )  # fmt: skip
    job = _job(model, settings, worker_threads) if executor is not None else None
    store = Store(settings) if out is None else open_folder(Path(out).expanduser(), settings, {"path": model.path}, resume)
    done = Atlas(store, model)
    if not _missing(store, make_plan(model, settings, rate=1.0).steps):
        return done
    plan = make_plan(model, settings)
    if progress is True:
        print(plan, file=sys.stderr)
    total, left = _operations(plan.steps), _operations(_missing(store, plan.steps))
    with progress_bar(progress, total, "atlas", initial=total - left, bar_format=_BAR) as report:
        run = partial(_run_here, model, settings, report) if job is None else _Remote(job, executor, plan.rate).run
        for phase in (("sketch",), ("dense", "krylov")):
            todo = _promising(store, _missing(store, plan.of_kind(*phase)))
            for step, result, unreported in run(todo):
                if step.kind == "sketch":
                    store.put_sketches(step.unit.prompt_group, step.unit.source, result)
                else:
                    store.put(step.unit, *result)
                report(unreported)
    return done


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


@deprecated_arguments(2, positions="target_positions", views="prompt_groups")
def atlas_plan(
    model: Model,
    prompts: Prompts,
    *,
    effects: int | Mapping[str, Any] | None = None,
    sources: Sequence[int] | None = None,
    targets: Sequence[Target] | None = None,
    k: int = 12,
    sites: str | Sequence[str] = "mlp_out",
    target_positions: Positions = _LAST_TWO,
    tol: float = 1e-2,
    prompt_groups: str = "stacked",
    next_token: bool = True,
    method: str = "auto",
    sketch: int = 16,
    seed: int = 0,
    max_applications: int | None = None,
) -> Plan:
    """Plan `atlas`: its units of work, time, memory and disk. Nothing is written.

    The speed of this machine is measured in about a second, once for a model.

    Parameters
    ----------
    effects : int or dict, optional
        Also plan `Atlas.effects` of every group of prompts: its `k`, or a dict of its arguments k, scales, signs,
        max_new_tokens, n_random, temperature and samples.
    model, prompts, sources, ...
        As for `atlas`.

    Returns
    -------
    Plan
        `print` shows it as a table.

    Raises
    ------
    InvalidInput
        As `atlas`.

    Examples
    --------
    >>> plan = ps.atlas_plan(model, "Task: 3 * 4 =", k=2)
    >>> plan.pairs
    15
    """
    settings = make_settings(
        model, prompts, sources=sources, targets=targets, k=k, sites=sites, target_positions=target_positions, tol=tol,
        prompt_groups=prompt_groups, next_token=next_token, method=method, sketch=sketch, seed=seed,
        max_applications=max_applications,
    )  # fmt: skip
    plan = make_plan(model, settings)
    if effects is None:
        return plan
    how = {"k": effects} if isinstance(effects, int) else dict(effects)
    if unknown := sorted(set(how) - _EFFECTS - {"ranks", "random"}):
        raise InvalidInput(f"atlas_plan: effects has {unknown[0]!r}; its keys are {', '.join(sorted(_EFFECTS))}")
    return replace(plan, effects=plan_effects(model, settings, plan.rate, **how))


_EFFECTS = {"k", "scales", "signs", "max_new_tokens", "n_random", "temperature", "samples"}


def _operations(steps: Sequence[PlannedUnit]) -> int:
    return sum(int(step.flops) for step in steps)


def _job(model: Model, settings: Settings, threads: int) -> JobSpec:
    if model.path is None:
        raise InvalidInput("the workers of an executor load the model from its file, and this model has no file; run without executor")
    return JobSpec(model.path, threads, settings, model.interventions)


def _missing(store: Store, steps: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    def stored(unit: WorkUnit, kind: str) -> bool:
        return store.text(json_name("sketches", unit.prompt_group, unit.source)) is not None if kind == "sketch" else store.has(unit)

    return [step for step in steps if not stored(step.unit, step.kind)]


def _promising(store: Store, steps: list[PlannedUnit]) -> list[PlannedUnit]:
    """Sort by the largest estimated gain of a unit's pairs: sigma_1 x site norm / target norm."""
    gain = {
        (s.prompt_group, s.source, s.target): s.sigma[0] * s.site_norm / s.base_norm if s.base_norm else 0.0
        for s in store.sketches()
    }

    def worth(step: PlannedUnit) -> float:
        return max((gain.get((step.unit.prompt_group, step.unit.source, t), 0.0) for t in step.unit.targets), default=0.0)

    return sorted(steps, key=worth, reverse=True)


_Results = Iterator[tuple[PlannedUnit, Any, int]]  # of each unit, and how many of its operations are not reported yet


def _run_here(model: Model, settings: Settings, report: Callable[[int], object], steps: Sequence[PlannedUnit]) -> _Results:
    for batch in batches(steps):
        left = [_operations([step]) for step in batch]
        products = sum(len(step.unit.targets) for step in batch) * applications(settings.k, model.d_model)

        def progress(vectors: int, left: list[int] = left, share: float = sum(left) / products) -> None:
            amount = rest = min(int(vectors * share), sum(left))
            for i, most in enumerate(left):
                left[i] -= min(most, rest)
                rest -= min(most, rest)
            report(amount)

        results = compute(model, settings, batch[0].kind, [step.unit for step in batch], progress)
        yield from zip(batch, results, left, strict=True)


class _Remote:
    """Units in the workers of an executor. If a worker dies, its batch is submitted again."""

    def __init__(self, job: JobSpec, executor: ExecutorLike | None, rate: float) -> None:
        self.job, self.flops = job, _SECONDS * rate
        self.make = executor if not isinstance(executor, Executor) and callable(executor) else None
        self.executor: Any = self.make() if self.make else executor

    def run(self, steps: Sequence[PlannedUnit]) -> _Results:
        waiting: dict[Future[list[Any]], tuple[list[PlannedUnit], int]] = {}
        todo = [(batch, 1) for batch in batches(steps, self.flops)]
        try:
            while todo or waiting:
                for batch, attempt in todo:
                    waiting[self._submit(batch)] = (batch, attempt)
                todo = []
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    batch, attempt = waiting.pop(future)
                    if isinstance(future.exception(), BrokenExecutor) and self.make and attempt < _ATTEMPTS:
                        todo.append((batch, attempt + 1))
                    else:
                        yield from zip(batch, future.result(), [_operations([step]) for step in batch], strict=True)
                if todo and self.make:  # the executor is broken, and with it every batch that was waiting
                    todo += waiting.values()
                    waiting, self.executor = {}, self.make()
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, batch: list[PlannedUnit]) -> Future[list[Any]]:
        future: Future[list[Any]] = self.executor.submit(run_remote, self.job, batch[0].kind, [step.unit for step in batch])
        return future
