"""Computing an atlas: the planned units that are missing, in this process or by an executor, most promising first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from .._util.deprecated import deprecated_arguments
from .._util.progress import Report, progress_bar
from .._util.workers import ExecutorLike, Workers
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Prompts
from ..model.model import Model
from ..model.remote import RemoteModel
from .atlas import Atlas
from .batches import PlannedUnit, batches, operations
from .compute import compute, run_remote
from .costs import applications
from .plan import SECONDS, Plan, make_plan, plan_effects
from .settings import Settings, Target, make_settings
from .speed import Speed
from .store import Store, json_name, open_folder

__all__ = ["atlas", "atlas_plan"]

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
    workers: int | None = None,
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
    workers : int, optional
        Number of workers of the executor: the work is cut so that all of them have some until the end, and the longest parts come
        first. None: the most promising come first. No number depends on it.
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
    remote = None if executor is None else RemoteModel.of(model, worker_threads)
    store = Store(settings) if out is None else open_folder(Path(out).expanduser(), settings, {"path": model.path}, resume)
    done = Atlas(store, model)
    if not _missing(store, make_plan(model, settings, speed=Speed(1.0)).steps):
        return done
    plan = make_plan(model, settings, None if remote is None else workers, None if remote is None else worker_threads)
    if progress is True:
        print(plan, file=sys.stderr)
    total, left = _reported(plan.steps), _reported(_missing(store, plan.steps))
    with progress_bar(progress, total, "atlas", initial=total - left, bar_format=_BAR) as report:
        run = partial(_run_here, model, settings, report)
        if remote is not None and executor is not None:
            run = partial(_run_remote, Workers(executor), remote, settings, SECONDS * plan.rate, plan.workers is not None)
        for phase in (("sketch",), ("dense", "krylov")):
            todo = _missing(store, plan.of_kind(*phase))
            todo = _promising(store, todo) if plan.workers is None else todo
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
    workers: int | None = None,
    worker_threads: int = 1,
) -> Plan:
    """Plan `atlas`: its units of work, time, memory and disk. Nothing is written.

    The speed of this machine is measured in about a second, once for a model.

    Parameters
    ----------
    effects : int or dict, optional
        Also plan `Atlas.effects` of every group of prompts: its `k`, or a dict of its arguments k, scales, signs,
        max_new_tokens, n_random, temperature and samples.
    workers, worker_threads : int
        Plan for an executor with so many workers, as fast as this machine with as many threads.
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
    plan = make_plan(model, settings, workers, None if workers is None else worker_threads)
    if effects is None:
        return plan
    how = {"k": effects} if isinstance(effects, int) else dict(effects)
    if unknown := sorted(set(how) - _EFFECTS - {"ranks", "random"}):
        raise InvalidInput(f"atlas_plan: effects has {unknown[0]!r}; its keys are {', '.join(sorted(_EFFECTS))}")
    return replace(plan, effects=plan_effects(model, settings, plan, **how))


_EFFECTS = {"k", "scales", "signs", "max_new_tokens", "n_random", "temperature", "samples"}


def _reported(steps: Sequence[PlannedUnit]) -> int:
    return sum(int(step.flops) for step in steps)


def _missing(store: Store, steps: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    """What is not stored of the steps, whose units may be other ones than those that were stored."""
    there: dict[tuple[int, int], set[Target]] = {}
    left: list[PlannedUnit] = []
    for step in steps:
        at = step.unit.prompt_group, step.unit.source
        if step.kind == "sketch":
            left += [step] if store.text(json_name("sketches", *at)) is None else []
            continue
        stored = there[at] if at in there else there.setdefault(at, store.there(*at))
        for is_there, run in groupby(step.unit.targets, stored.__contains__):
            some = tuple(run)
            if not is_there:
                share = len(some) / len(step.unit.targets)
                left.append(replace(step, unit=replace(step.unit, targets=some), flops=share * step.flops))
    return left


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
        left = [int(step.flops) for step in batch]
        products = sum(len(step.unit.targets) for step in batch) * applications(settings.k, model.d_model)

        def progress(vectors: int, left: list[int] = left, share: float = sum(left) / products) -> None:
            amount = rest = min(int(vectors * share), sum(left))
            for i, most in enumerate(left):
                left[i] -= min(most, rest)
                rest -= min(most, rest)
            report(amount)

        results = compute(model, settings, batch[0].kind, [step.unit for step in batch], progress)
        yield from zip(batch, results, left, strict=True)


def _run_remote(
    workers: Workers, remote: RemoteModel, settings: Settings, flops: float, longest_first: bool, steps: Sequence[PlannedUnit]
) -> _Results:
    todo = list(batches(steps, flops))
    if longest_first:
        todo.sort(key=operations, reverse=True)
    for i, results in workers.run(run_remote, [(remote, settings, b[0].kind, [step.unit for step in b]) for b in todo]):
        yield from zip(todo[i], results, [int(step.flops) for step in todo[i]], strict=True)
