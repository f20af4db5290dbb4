"""`powersteer export`: vectors of an atlas, or of files, as one file."""

from __future__ import annotations

from argparse import Namespace

from .._util.atomic import check_writable
from ..errors import InvalidInput
from ..vectors.saved import save_vectors
from .arguments import Argument, Command, nonempty
from .console import json_object, print_result
from .vectors import CHOICE, STRENGTH, chosen_vectors, scaled, target_name

_SUFFIXES = (".gguf", ".safetensors")


def _export(args: Namespace) -> int:
    path = args.out
    if not path.lower().endswith(_SUFFIXES):
        raise InvalidInput(f"--out {path}: its name must end in {' or '.join(_SUFFIXES)}, which chooses the format")
    check_writable(path)
    vectors = scaled(chosen_vectors(args), args)
    save_vectors(path, vectors, model_hint=args.model_hint)
    return print_result(args.json, json_object(COMMAND.json, path, vectors), "\n".join([*map(repr, vectors), f"written to {path}"]))


COMMAND = Command(
    summary="Vectors of an atlas or of a file as one file: .safetensors, or a control vector in .gguf.",
    example="run/ --source 1 --target 2 --rank 0 --relative 0.5 --out v.gguf",
    has_model=False,
    arguments=(
        Argument("vectors", type=nonempty, help="folder of an atlas or of `powersteer svd --out`, or a file of vectors"),
        Argument("--out", type=nonempty, required=True, metavar="FILE", help=".safetensors, or .gguf for llama.cpp"),
        *CHOICE,
        *STRENGTH,
        Argument("--model-hint", type=nonempty, metavar="TYPE", help="model_type of a .gguf file, where the vectors have none"),
    ),
    run=_export,
    json={
        "file": ("path that was written", lambda path, _: path),
        "vectors": ("a list, one object a vector", lambda _, vectors: zip(vectors)),
        "vectors.layer": "where it is added",
        "vectors.site": "likewise",
        "vectors.scale": "its length",
        "vectors.rank": "among the singular vectors of its pair, or null",
        "vectors.method": "how it was found",
        "vectors.target": ("site, next_token, logits or null", target_name),
    },
)
