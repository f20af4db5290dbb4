"""`powersteer svd`: the singular directions between two sites."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from .._util.atomic import write_text
from .._version import __version__
from ..errors import InvalidInput
from ..linalg.svd import METHODS, SVDResult
from ..model.jacobian import Jacobian
from ..model.model import Model
from .arguments import (
    Command,
    Parser,
    add_prompts,
    add_sites,
    add_target_positions,
    load_model,
    number,
    read_prompts,
    whole,
)
from .console import print_json


def _arguments(parser: Parser) -> None:
    add_prompts(parser)
    add_sites(parser)
    add_target_positions(parser, "the last two, or the last one")
    parser.add_argument("-k", type=whole, default=12, help="how many triplets (default 12)")
    parser.add_argument(
        "--method", choices=METHODS, default="krylov", help="krylov (default), power (as published) or dense"
    )
    parser.add_argument("--tol", type=number, default=1e-3, help="largest residual over sigma_1 (default 1e-3)")
    parser.add_argument("--iterations", type=whole, default=5, help="of power (default 5)")
    parser.add_argument("--max-applications", type=whole, help="budget of krylov")
    parser.add_argument("--seed", type=whole, default=0, help="of the starting vectors (default 0)")
    parser.add_option("--out", "--save", metavar="FOLDER", help="write 0.safetensors, 1.safetensors, ... and svd.json")


def _svd(args: Namespace) -> int:
    prompts = read_prompts(args)
    folder = _writable(args.out) if args.out is not None else None
    model = load_model(args)
    positions = {} if args.positions is None else {"target_positions": args.positions}
    what = (prompts, args.source, args.target)
    where = {"source_site": args.source_site, "target_site": args.target_site, **positions}
    cost = model.estimate(*what, k=args.k, **where)
    long = cost.peak > 1e9 or cost.flops * 10 * args.k > 1e12  # about ten applications a triplet: some seconds
    if long and args.k <= model.d_model:
        print(f"{model}\n{cost}", file=sys.stderr)
    J = model.jacobian(*what, **where)
    result = J.svd(
        args.k, method=args.method, tol=args.tol, max_applications=args.max_applications, seed=args.seed,
        iterations=args.iterations, progress=long or sys.stderr.isatty(),
    )  # fmt: skip
    summary = _summary(model, J, result)
    try:
        if folder is not None:
            _save(folder, result, summary)
    finally:  # the result is printed even if it cannot be saved
        if args.json:
            print_json(summary)
        else:
            print(f"{J}\nmean activation norm at the source: {J.source_norm:.4g}\n{result}")
    if folder is not None and not args.json:
        print(f"saved {len(result.S)} vectors and svd.json in {folder}")
    return 0 if result.converged or args.method == "power" else 1


def _writable(name: str) -> Path:
    """The folder, created if it is missing. Raises before the computation if nothing can be written in it."""
    if not name:
        raise InvalidInput("--out: the name of the folder is empty; write --out . for this one")
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InvalidInput(f"--out: cannot write in the folder {folder}: {error.strerror}; choose another") from error
    return folder


def _save(folder: Path, result: SVDResult, summary: dict[str, Any]) -> None:
    try:
        for vector in result.vectors:
            vector.save(folder / f"{vector.rank}.safetensors")
        write_text(folder / "svd.json", json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise InvalidInput(f"--out: cannot write in the folder {folder}: {error.strerror}; choose another") from error


def _summary(model: Model, J: Jacobian, result: SVDResult) -> dict[str, Any]:
    return {
        "model": model.identity,
        "source": str(J.source),
        "target": str(J.target),
        "shape": list(J.shape),
        "prompt_tokens": [tokens.tolist() for tokens in J.prompt_tokens],
        "positions": [positions.tolist() for positions in J.target_positions],
        "source_norm": J.source_norm,
        "method": result.method,
        "tol": result.tol,
        "seed": result.seed,
        "sigma": result.S.tolist(),
        "residuals": result.residuals.tolist(),
        "converged": result.converged,
        "missed_probability": result.missed_probability,
        "clusters": [list(ranks) for ranks in result.clusters],
        "cluster_open": result.cluster_open,
        "applications": result.applications,
        "certificate_applications": result.certificate_applications,
        "seconds": result.seconds,
        "dtype": str(model.dtype),
        "version": __version__,
    }


COMMAND = Command(
    summary="Singular directions of the Jacobian between two sites of a prompt.",
    example='path/to/model --prompt "Once upon a time" --source 1 --target 4 --target-positions -2: -k 12 --out run/',
    arguments=_arguments,
    run=_svd,
    json={
        "model": "name, model_type, n_layers, d_model, n_vocab, and weights: their fingerprint",
        "source": "site",
        "target": "site, next_token or logits",
        "shape": "[m, d] of the Jacobian",
        "prompt_tokens": "ids, a list a prompt",
        "positions": "of the target, a list a prompt",
        "source_norm": "mean 2-norm of the source activation",
        "method": "krylov, power or dense",
        "tol": "as requested",
        "seed": "as requested",
        "sigma": "singular values, descending",
        "residuals": "of each triplet, over sigma_1",
        "converged": "whether every residual is at most tol and no larger singular value was missed",
        "missed_probability": "bound of the probability that a value above sigma[-1] + tol * sigma[0] was missed; 1: unknown",
        "clusters": "ranks whose vectors cannot be told apart, one list for each cluster",
        "cluster_open": "whether the last cluster goes on beyond k",
        "applications": "of the Jacobian or its transpose to one vector",
        "certificate_applications": "further ones, for the residuals alone",
        "seconds": "of the SVD",
        "dtype": "of the arithmetic",
        "version": "of powersteer",
    },
)
