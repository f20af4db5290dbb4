"""`powersteer svd`: the singular directions between two sites."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._util.atomic import write_text
from .._version import __version__
from ..errors import InvalidInput
from ..inputs.sites import SITES
from ..linalg.svd import METHODS
from .arguments import PROMPTS, Argument, Command, given, load_model, read_prompts, site, target, target_positions
from .console import json_object, print_result


def _svd(args: Namespace) -> int:
    prompts = read_prompts(args)
    folder = _writable(args.out) if args.out is not None else None
    model = load_model(args)
    what = (prompts, args.source, args.target)
    where = given(args, "source_site", "target_site", "target_positions")
    cost = model.estimate(*what, k=args.k, **where)
    long = cost.peak > 1e9 or cost.flops * 10 * args.k > 1e12  # about ten applications a triplet: some seconds
    if long and args.k <= model.d_model:
        print(f"{model}\n{cost}", file=sys.stderr)
    J = model.jacobian(*what, **where)
    how = given(args, "method", "tol", "max_applications", "seed", "iterations")
    result = J.svd(args.k, **how, progress=long or sys.stderr.isatty())
    summary = json_object(COMMAND.json, model, J, result)
    try:
        if folder is not None:
            with _writing(folder):
                for vector in result.vectors:
                    vector.save(folder / f"{vector.rank}.safetensors")
                write_text(folder / "svd.json", json.dumps(summary, indent=1) + "\n")
    finally:  # the result is printed even if it cannot be saved
        print_result(args.json, summary, f"{J}\nmean activation norm at the source: {J.source_norm:.4g}\n{result}")
    if folder is not None and not args.json:
        print(f"saved {len(result.S)} vectors and svd.json in {folder}")
    return 0 if result.converged or args.method == "power" else 1


def _writable(name: str) -> Path:
    """The folder, created if it is missing. Raises before the computation if nothing can be written in it."""
    if not name:
        raise InvalidInput("--out: the name of the folder is empty; write --out . for this one")
    folder = Path(name)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    return folder


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"--out: cannot write in the folder {folder}: {error.strerror}; choose another") from error


COMMAND = Command(
    summary="Singular directions of the Jacobian between two sites of a prompt.",
    example='path/to/model --prompt "Once upon a time" --source 1 --target 4 --target-positions -2: -k 12 --out run/',
    arguments=(
        *PROMPTS,
        Argument("--source", type=site, required=True, help="layer, or a site such as blocks.1.hook_mlp_out"),
        Argument("--target", type=target, required=True, help="layer, site, next_token or logits"),
        Argument("--source-site", help=f"with a layer: {', '.join(SITES)} (default mlp_out)"),
        Argument("--target-site", help="likewise"),
        target_positions("the last two, or the last one"),
        Argument("-k", type=int, default=12, help="how many triplets (default 12)"),
        Argument("--method", choices=METHODS, default="krylov", help="krylov (default), power (as published) or dense"),
        Argument("--tol", type=float, default=1e-3, help="largest residual over sigma_1 (default 1e-3)"),
        Argument("--iterations", type=int, default=5, help="of power (default 5)"),
        Argument("--max-applications", type=int, help="budget of krylov"),
        Argument("--seed", type=int, default=0, help="of the starting vectors (default 0)"),
        Argument("--out", old="--save", metavar="FOLDER", help="write 0.safetensors, 1.safetensors, ... and svd.json"),
    ),
    run=_svd,
    json={
        "model": ("name, model_type, n_layers, d_model, n_vocab, and weights: their fingerprint", lambda model, *_: model.identity),
        "source": ("site", lambda _, J, result: str(J.source)),
        "target": ("site, next_token or logits", lambda _, J, result: str(J.target)),
        "shape": ("[m, d] of the Jacobian", lambda _, J, result: list(J.shape)),
        "prompt_tokens": ("ids, a list a prompt", lambda _, J, result: [tokens.tolist() for tokens in J.prompt_tokens]),
        "positions": ("of the target, a list a prompt", lambda _, J, result: [rows.tolist() for rows in J.target_positions]),
        "source_norm": ("mean 2-norm of the source activation", lambda _, J, result: J.source_norm),
        "method": "krylov, power or dense",
        "tol": "as requested",
        "seed": "as requested",
        "sigma": ("singular values, descending", lambda *found: found[-1].S.tolist()),
        "residuals": ("of each triplet, over sigma_1", lambda *found: found[-1].residuals.tolist()),
        "converged": "whether every residual is at most tol and no larger singular value was missed",
        "missed_probability": "bound of the probability that a value above sigma[-1] + tol * sigma[0] was missed; 1: unknown",
        "clusters": "ranks whose vectors cannot be told apart, one list for each cluster",
        "cluster_open": "whether the last cluster goes on beyond k",
        "applications": "of the Jacobian or its transpose to one vector",
        "certificate_applications": "further ones, for the residuals alone",
        "seconds": "of the SVD",
        "dtype": ("of the arithmetic", lambda model, *_: str(model.dtype)),
        "version": ("of powersteer", lambda *_: __version__),
    },
)
