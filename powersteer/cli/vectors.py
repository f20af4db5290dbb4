"""Vectors as arguments of commands: from files, from an atlas, or from the folder that `powersteer svd --out` wrote."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InvalidInput, NotFound
from ..evaluate.effects import with_norms
from ..inputs.prompts import Prompt
from ..mapping import Atlas
from ..model.model import Model
from ..vectors.arithmetic import check_adds
from ..vectors.saved import load_vectors
from ..vectors.steering_vector import SteeringVector
from .arguments import Argument, layer_target

__all__ = ["CHOICE", "PROMPT_GROUP", "STRENGTH", "chosen_atlas", "chosen_vectors", "scaled", "target_name"]

STRENGTH = (
    Argument("--relative", group="strength", type=float, help="strength, as a multiple of the site's activation norm"),
    Argument("--scale", group="strength", type=float, help="strength, absolute (default: as saved)"),
)
PROMPT_GROUP = Argument("--prompt-group", old="--view", type=int, default=0, help="of an atlas with several (default 0, the first)")
CHOICE = (  # of the vectors of an atlas, or of a folder of `svd`
    Argument("--source", type=int, help="layer, of an atlas"),
    Argument("--target", type=layer_target, help="layer or next_token, of an atlas"),
    Argument("--rank", type=list[int], metavar="RANKS", help="0 or 0-3 (default: all that are there)"),
    PROMPT_GROUP,
)


def scaled(
    vectors: Sequence[SteeringVector], args: Namespace, model: Model | None = None, prompts: Sequence[Prompt] = ()
) -> list[SteeringVector]:
    """The vectors at the strength of the arguments. A missing activation norm is measured on the prompts."""
    if args.scale is not None:
        for v in vectors:
            check_adds(v, "given a scale by --scale")
        return [replace(v, scale=args.scale, calibration=None) for v in vectors]
    if args.relative is None:
        return list(vectors)
    if model is not None:
        vectors = with_norms(model, [model.tokens(p) for p in prompts], vectors)
    if unknown := next((v for v in vectors if v.site_norm is None), None):
        raise InvalidInput(f"--relative: {unknown!r} has no activation norm of its site; give --scale instead")
    return [v.relative(args.relative) for v in vectors]


def chosen_atlas(folder: str | Path, group: int, model: Model | None = None) -> Atlas:
    groups = Atlas.load(folder, model).prompt_groups()
    if group not in range(len(groups)):
        names = ", ".join(f"{i}: {g.prompt_group_name}" for i, g in enumerate(groups))
        raise InvalidInput(f"--prompt-group is {group}; the atlas in {folder} has {names}")
    return groups[group]


def chosen_vectors(args: Namespace) -> list[SteeringVector]:
    """Vectors that --source, --target and --rank choose from `args.vectors`: an atlas, a folder of `svd`, or a file."""
    path = Path(args.vectors)
    of_atlas = (path / "atlas.json").exists() and not (args.source is None and (path / "svd.json").exists())
    if of_atlas:
        return _of_atlas(path, args)
    if args.source is not None or args.target is not None:
        raise InvalidInput(f"--source and --target choose from an atlas, and {path} is not one")
    found = _of_folder(path) if path.is_dir() else load_vectors(path)
    if args.rank is None:
        return found
    ranks = {v.rank: v for v in found}
    if unknown := [r for r in args.rank if r not in ranks]:
        raise InvalidInput(f"--rank: {path} has no vector of rank {unknown[0]}, only {', '.join(map(str, ranks))}")
    return [ranks[r] for r in args.rank]


def _of_atlas(path: Path, args: Namespace) -> list[SteeringVector]:
    if args.source is None or args.target is None:
        raise InvalidInput(f"{path} is an atlas: choose a pair of it by --source LAYER and --target LAYER or next_token")
    atlas = chosen_atlas(path, args.prompt_group)
    if args.rank is None:
        return atlas.vectors(args.source, args.target)
    return [atlas.vector(args.source, args.target, rank) for rank in args.rank]


def _of_folder(path: Path) -> list[SteeringVector]:
    files = sorted((f for f in path.glob("*.safetensors") if f.stem.isdecimal()), key=lambda f: int(f.stem))
    if not files:
        raise NotFound(f"{path} has neither an atlas (atlas.json) nor what `powersteer svd --out` writes (0.safetensors)")
    return [v for file in files for v in load_vectors(file)]


def target_name(vector: SteeringVector) -> str | None:
    return None if vector.target is None else str(vector.target)
