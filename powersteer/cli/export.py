"""`powersteer export`: vectors of an atlas, or of files, as one file."""

from __future__ import annotations

from argparse import Namespace

from .._util.atomic import check_writable
from ..errors import InvalidInput
from ..vectors.steering_vector import save_vectors
from .arguments import Command, Parser, nonempty
from .console import print_json
from .vectors import add_choice, add_strength, chosen_vectors, scaled

_SUFFIXES = (".gguf", ".safetensors")


def _arguments(parser: Parser) -> None:
    parser.add_argument("vectors", type=nonempty, help="folder of an atlas or of `powersteer svd --out`, or a file of vectors")
    parser.add_argument("--out", type=nonempty, required=True, metavar="FILE", help=".safetensors, or .gguf for llama.cpp")
    add_choice(parser)
    add_strength(parser)
    parser.add_argument("--model-hint", type=nonempty, metavar="TYPE", help="model_type of a .gguf file, where the vectors have none")


def _export(args: Namespace) -> int:
    path = args.out
    if not path.lower().endswith(_SUFFIXES):
        raise InvalidInput(f"--out {path}: its name must end in {' or '.join(_SUFFIXES)}, which chooses the format")
    check_writable(path)
    vectors = scaled(chosen_vectors(args), args)
    save_vectors(path, vectors, model_hint=args.model_hint)
    if args.json:
        print_json({"file": path, "vectors": [
            {"layer": v.layer, "site": v.site, "scale": v.scale, "rank": v.rank, "method": v.method,
             "target": None if v.target is None else str(v.target)}
            for v in vectors
        ]})  # fmt: skip
    else:
        print("\n".join(map(repr, vectors)) + f"\nwritten to {path}")
    return 0


COMMAND = Command(
    summary="Vectors of an atlas or of a file as one file: .safetensors, or a control vector in .gguf.",
    example="run/ --source 1 --target 2 --rank 0 --relative 0.5 --out v.gguf",
    subject="",
    arguments=_arguments,
    run=_export,
    json={
        "file": "path that was written",
        "vectors": "a list, one object a vector",
        "vectors.layer": "where it is added",
        "vectors.site": "likewise",
        "vectors.scale": "its length",
        "vectors.rank": "among the singular vectors of its pair, or null",
        "vectors.method": "how it was found",
        "vectors.target": "site, next_token, logits or null",
    },
)
