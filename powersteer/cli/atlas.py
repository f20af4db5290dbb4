"""`powersteer atlas`: the map of all pairs of layers, into a folder."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from .._util.checks import check_positive
from ..errors import InvalidInput
from ..mapping import Atlas
from ..mapping.run import atlas, atlas_plan
from ..mapping.settings import METHODS, PROMPT_GROUPS
from .arguments import (
    Command,
    Parser,
    add_prompts,
    add_target_positions,
    load_model,
    nonempty,
    number,
    numbers,
    read_prompts,
    whole,
    wholes,
)
from .console import print_json


def _arguments(parser: Parser) -> None:
    add_prompts(parser)
    parser.add_argument("--out", type=nonempty, metavar="FOLDER", help="of the atlas; an atlas of the same settings in it is resumed")
    parser.add_argument("-k", type=whole, default=12, help="triplets a pair (default 12)")
    parser.add_argument("--sources", type=wholes, metavar="LAYERS", help="0-11 or 0,4,8 (default: every layer)")
    parser.add_argument("--targets", type=wholes, metavar="LAYERS", help="likewise")
    parser.add_argument("--sites", type=lambda text: text.split(","), default=["mlp_out", "mlp_out"],
                        help="source,target (default mlp_out,mlp_out)")  # fmt: skip
    add_target_positions(parser, "the last two")
    parser.add_argument("--tol", type=number, default=1e-2, help="largest residual over sigma_1 (default 1e-2)")
    parser.add_option("--prompt-groups", "--views", choices=PROMPT_GROUPS, default="stacked",
                      help="prompts together (default), each alone, or both")  # fmt: skip
    parser.add_argument("--method", choices=METHODS, default="auto", help="auto (default) takes the cheaper for each source")
    parser.add_argument("--sketch", type=whole, default=16, help="random vectors of the sketch (default 16)")
    parser.add_argument("--no-next-token", action="store_true", help="leave out the Fisher target")
    parser.add_argument("--seed", type=whole, default=0, help="of starting and random vectors (default 0)")
    parser.add_argument("--effects", type=whole, metavar="K", default=0,
                        help="also measure the effects of the first K vectors of every pair on the prompts, for the report")  # fmt: skip
    parser.add_argument("--scales", type=numbers, default=[0.35, 1.0], help="of effects, in site norms (default 0.35,1)")
    parser.add_option("--max-new-tokens", "--new-tokens", type=whole, default=32, help="of every continuation (default 32)")
    parser.add_argument("--samples", type=whole, default=0, help="of effects: drawn continuations beside the greedy one (default 0)")
    parser.add_argument("--temperature", type=number, default=0.0, help="of these, above 0")
    parser.add_argument("--workers", type=whole, default=0, help="processes, with --threads threads each or 1 (default: none)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan: time, memory, disk")


def _atlas(args: Namespace) -> int:
    prompts = read_prompts(args)
    if args.out is None and not args.dry_run:
        raise InvalidInput("an atlas needs a folder: --out FOLDER (or --dry-run for the plan alone)")
    if args.workers < 0:
        raise InvalidInput(f"--workers is {args.workers}; it must be 0 or more")
    if not 0 <= args.effects <= args.k:
        raise InvalidInput(f"--effects is {args.effects}; a pair has {args.k} vectors (-k)")
    for scale in args.scales:
        check_positive(scale, "a scale of --scales")
    model = load_model(args)
    what: dict[str, Any] = {
        "sources": args.sources, "targets": args.targets, "k": args.k, "sites": args.sites, "tol": args.tol,
        "prompt_groups": args.prompt_groups, "next_token": not args.no_next_token, "method": args.method, "sketch": args.sketch,
        "seed": args.seed,
    }  # fmt: skip
    if args.positions is not None:
        what["target_positions"] = args.positions
    how: dict[str, Any] | None = None
    if args.effects:
        how = {"k": args.effects, "scales": args.scales, "max_new_tokens": args.max_new_tokens,
               "samples": args.samples, "temperature": args.temperature}  # fmt: skip
    if args.dry_run:
        plan = atlas_plan(model, prompts, effects=how, **what)
        if args.json:
            print_json({"pairs": plan.pairs, "seconds": plan.seconds, "memory": plan.memory, "disk": plan.disk,
                        "effects_seconds": plan.effects.seconds if plan.effects else None})  # fmt: skip
        else:
            print(plan)
        return 0
    if how is not None:  # the atlas prints the rest of its plan itself
        print(f"after the atlas:{atlas_plan(model, prompts, effects=how, **what).effects}", file=sys.stderr)
    with _Workers(args.workers) as executor:
        made = atlas(
            model, prompts, out=args.out, executor=executor, worker_threads=args.threads or 1,
            progress=True, **what,
        )  # fmt: skip
    if how is not None:
        for group in made.prompt_groups():
            group.effects(**how, seed=args.seed, progress=True)
    if args.json:
        print_json(_summary(made))
    else:
        print("\n".join(map(repr, made.prompt_groups())))
        print(_map(made))
    return 0 if all(pair.converged for group in made.prompt_groups() for pair in group) else 1


class _Workers:
    """An executor of n processes for `atlas`, or None for n = 0."""

    def __init__(self, n: int) -> None:
        self.n, self.pools = n, list[Executor]()

    def __enter__(self) -> Callable[[], Executor] | None:
        return self._make if self.n else None

    def _make(self) -> Executor:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self.pools.append(ProcessPoolExecutor(self.n, mp_context=multiprocessing.get_context("spawn")))
        return self.pools[-1]

    def __exit__(self, *unused: object) -> None:
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)


def _summary(made: Atlas) -> dict[str, Any]:
    pairs = [pair for group in made.prompt_groups() for pair in group]
    return {
        "out": str(made.path),
        "model": made.model_name,
        "views": [group.prompt_group_name for group in made.prompt_groups()],
        "pairs": len(pairs),
        "converged": sum(pair.converged for pair in pairs),
        "worst_residual": max((max(pair.residuals) for pair in pairs), default=None),
        "applications": sum(pair.applications for pair in pairs),
        "cells": [
            {"source": c.source, "target": c.target, "method": c.method, "sigma": c.sigma, "residuals": c.residuals}
            for c in made
        ],
    }


def _map(made: Atlas) -> str:
    """sigma_1 of every pair as a table, sources down."""
    S, n = made.S[..., 0], made.next_token.S[:, 0]
    layers: Sequence[int] = [t for t in made.targets if not isinstance(t, str)]
    if len(layers) > 12 or not len(made):
        return f"Atlas.load({str(made.path)!r}) in Python"
    head = "sigma_1, source down, target across\n      " + "".join(f"{t:>8}" for t in layers) + "   next token"
    rows = [
        f"{s:>5} " + "".join(_number(S[s, t]) for t in layers) + "     " + _number(n[s])
        for s in made.sources if np.isfinite(S[s]).any() or np.isfinite(n[s])
    ]  # fmt: skip
    return "\n".join([head, *rows])


def _number(x: float) -> str:
    return f"{x:8.3g}" if np.isfinite(x) else "       ."


COMMAND = Command(
    summary="The singular directions of all pairs of layers, certified, into a folder that can be resumed.",
    example='path/to/model --prompt "Once upon a time" --sources 0-2 -k 4 --out run/',
    arguments=_arguments,
    run=_atlas,
    json={
        "out": "the folder",
        "model": "name",
        "views": "groups of prompts: all stacked, or each alone",
        "pairs": "number of computed ones, in all groups",
        "converged": "number of those within tol",
        "worst_residual": "over sigma_1",
        "applications": "of J or its transpose to one vector, in all",
        "cells": "pairs of the first group",
        "cells.source": "layer",
        "cells.target": "layer, or next_token",
        "cells.method": "krylov or dense",
        "cells.sigma": "singular values",
        "cells.residuals": "of each",
    },
)
