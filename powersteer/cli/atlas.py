"""`powersteer atlas`: the map of all pairs of layers, into a folder."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._util.checks import check_positive
from ..errors import InvalidInput
from ..mapping import Atlas
from ..mapping.run import atlas, atlas_plan
from ..mapping.settings import METHODS, PROMPT_GROUPS
from .arguments import (
    PROMPTS,
    Argument,
    Command,
    given,
    load_model,
    nonempty,
    read_prompts,
    target_positions,
    worker_pools,
)
from .console import json_object, print_result


def _atlas(args: Namespace) -> int:
    prompts = read_prompts(args)
    if args.out is None and not args.dry_run:
        raise InvalidInput("an atlas needs a folder: --out FOLDER (or --dry-run for the plan alone)")
    if not 0 <= args.effects <= args.k:
        raise InvalidInput(f"--effects is {args.effects}; a pair has {args.k} vectors (-k)")
    for scale in args.scales:
        check_positive(scale, "a scale of --scales")
    model = load_model(args)
    what = given(args, "sources", "targets", "k", "sites", "target_positions", "tol", "prompt_groups", "next_token", "method",
                 "sketch", "seed")  # fmt: skip
    how = {"k": args.effects, **given(args, "scales", "max_new_tokens", "samples", "temperature")} if args.effects else None
    if args.dry_run or how:
        plan = atlas_plan(model, prompts, effects=how, workers=args.workers or None, worker_threads=args.threads or 1, **what)
        if args.dry_run:
            facts = {key: getattr(plan, key) for key in ("pairs", "seconds", "memory", "disk")}
            return print_result(args.json, facts | {"effects_seconds": plan.effects.seconds if plan.effects else None}, plan)
        print(f"after the atlas:{plan.effects}", file=sys.stderr)  # the atlas prints the rest of its plan itself
    with worker_pools(args.workers) as executor:
        by: dict[str, Any] = {"executor": executor, "worker_threads": args.threads or 1, "progress": True}
        made = atlas(model, prompts, out=args.out, workers=args.workers or None, **by, **what)
        groups = made.prompt_groups()
        if how:
            for group in groups:
                group.effects(**how, seed=args.seed, **by)
    pairs = [pair for group in groups for pair in group]
    print_result(args.json, json_object(COMMAND.json, groups, pairs, made), "\n".join([*map(repr, groups), _map(made)]))
    return 0 if all(pair.converged for pair in pairs) else 1


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
    arguments=(
        *PROMPTS,
        Argument("--out", type=nonempty, metavar="FOLDER", help="of the atlas; an atlas of the same settings in it is resumed"),
        Argument("-k", type=int, default=12, help="triplets a pair (default 12)"),
        Argument("--sources", type=list[int], metavar="LAYERS", help="0-11 or 0,4,8 (default: every layer)"),
        Argument("--targets", type=list[int], metavar="LAYERS", help="likewise"),
        Argument("--sites", type=lambda text: text.split(","), default=["mlp_out", "mlp_out"],
                 help="source,target (default mlp_out,mlp_out)"),
        target_positions("the last two"),
        Argument("--tol", type=float, default=1e-2, help="largest residual over sigma_1 (default 1e-2)"),
        Argument("--prompt-groups", old="--views", choices=PROMPT_GROUPS, default="stacked",
                 help="prompts together (default), each alone, or both"),
        Argument("--method", choices=METHODS, default="auto", help="auto (default) takes the cheaper for each source"),
        Argument("--sketch", type=int, default=16, help="random vectors of the sketch (default 16)"),
        Argument("--no-next-token", action="store_false", dest="next_token", help="leave out the Fisher target"),
        Argument("--seed", type=int, default=0, help="of starting and random vectors (default 0)"),
        Argument("--effects", type=int, metavar="K", default=0,
                 help="also measure the effects of the first K vectors of every pair on the prompts, for the report"),
        Argument("--scales", type=list[float], default=[0.35, 1.0], help="of effects, in site norms (default 0.35,1)"),
        Argument("--max-new-tokens", old="--new-tokens", type=int, default=32, help="of every continuation (default 32)"),
        Argument("--samples", type=int, default=0, help="of effects: drawn continuations beside the greedy one (default 0)"),
        Argument("--temperature", type=float, default=0.0, help="of these, above 0"),
        Argument("--workers", type=int, default=0, help="processes, with --threads threads each or 1; also for effects (default: none)"),
        Argument("--dry-run", action="store_true", help="print the plan: time, memory, disk"),
    ),
    run=_atlas,
    json={
        "out": ("the folder", lambda *found: str(found[-1].path)),
        "model": ("name", lambda *found: found[-1].model_name),
        "views": ("groups of prompts: all stacked, or each alone", lambda groups, *_: [group.prompt_group_name for group in groups]),
        "pairs": ("number of computed ones, in all groups", lambda _, pairs, made: len(pairs)),
        "converged": ("number of those within tol", lambda _, pairs, made: sum(pair.converged for pair in pairs)),
        "worst_residual": ("over sigma_1", lambda _, pairs, made: max((max(pair.residuals) for pair in pairs), default=None)),
        "applications": ("of J or its transpose to one vector, in all", lambda _, pairs, made: sum(pair.applications for pair in pairs)),
        "cells": ("pairs of the first group", lambda *found: zip(found[-1])),
        "cells.source": "layer",
        "cells.target": "layer, or next_token",
        "cells.method": "krylov or dense",
        "cells.sigma": "singular values",
        "cells.residuals": "of each",
    },
)
