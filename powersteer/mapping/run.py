"""Computing an atlas: the planned units that are missing, in this process or by an executor, most promising first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..model.model import Model
from .atlas import Atlas
from .compute import Batch, JobSpec, run_batch, run_remote
from .plan import Plan, PlannedUnit, batches, make_plan, plan_effects
from .settings import Settings, Target, make_settings
from .store import Memory, Store, open_folder

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
                    store.put_sketches(step.unit.prompt_group, step.unit.source, result)
                else:
                    store.put(step.unit, *result)
                report(_operations([step]))
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


def _open(out: str | Path | None, settings: Settings, model: Model, resume: bool) -> Store:
    if out is None:
        return Memory(settings)
    return open_folder(Path(out).expanduser(), settings, {"path": model.path}, resume)


def _operations(steps: Sequence[PlannedUnit]) -> int:
    return sum(int(step.flops) for step in steps)


def _job(model: Model, settings: Settings, threads: int) -> JobSpec:
    if model.path is None:
        raise InvalidInput("the workers of an executor load the model from its file, and this model has no file; run without executor")
    return JobSpec(model.path, threads, settings, model.interventions)


def _missing(store: Store, steps: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    def stored(step: PlannedUnit) -> bool:
        if step.kind == "sketch":
            return store.sketched(step.unit.prompt_group, step.unit.source)
        return store.has(step.unit)

    return [step for step in steps if not stored(step)]


def _promising(store: Store, steps: list[PlannedUnit]) -> list[PlannedUnit]:
    """Sort by the largest estimated gain of a unit's pairs: sigma_1 x site norm / target norm."""
    gain = {
        (s.prompt_group, s.source, s.target): s.sigma[0] * s.site_norm / s.base_norm if s.base_norm else 0.0
        for s in store.sketches()
    }
    worth = [max((gain.get((s.unit.prompt_group, s.unit.source, t), 0.0) for t in s.unit.targets), default=0.0) for s in steps]
    return [steps[i] for i in sorted(range(len(steps)), key=lambda i: -worth[i])]


@dataclass
class _Local:
    """Units in this process."""

    model: Model
    settings: Settings

    def run(self, steps: Sequence[PlannedUnit]) -> Iterator[tuple[PlannedUnit, Any]]:
        for step in steps:
            (result,) = run_batch(self.model, self.settings, Batch(step.kind, (step.unit,)))
            yield step, result


class _Remote:
    """Units in the workers of an executor. If a worker dies, its batch is submitted again."""

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
                if lost:  # the executor is broken, and with it every batch that was waiting
                    lost += [(batch, attempt) for batch, attempt in waiting.values()]
                    self.executor = self.make() if self.make else None
                    waiting = {self._submit(batch): (batch, attempt) for batch, attempt in lost}
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, batch: list[PlannedUnit]) -> Future[list[Any]]:
        work = Batch(batch[0].kind, tuple(step.unit for step in batch))
        future: Future[list[Any]] = self.executor.submit(run_remote, self.job, work)
        return future
