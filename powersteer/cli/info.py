"""`powersteer info`: what a checkpoint is."""

from __future__ import annotations

from argparse import Namespace

from ..inputs.sites import SITES
from .arguments import Command, load_model
from .console import print_json


def _info(args: Namespace) -> int:
    model = load_model(args)
    spec = model.spec
    matrices = [array for array in spec.arrays() if array.ndim > 1]
    facts = {
        "name": model.name,
        "model_type": model.identity.get("model_type"),
        "weights": model.identity.get("weights"),
        "parameters": spec.n_params,
        "weight_bytes": spec.nbytes,
        "stored_as": sorted({"bfloat16" if str(a.dtype) == "uint16" else str(a.dtype) for a in matrices}),
        "layers": spec.n_layers,
        "d_model": spec.d_model,
        "heads": spec.n_heads,
        "kv_heads": spec.n_kv_heads,
        "d_ff": spec.d_ff,
        "vocabulary": spec.n_vocab,
        "context": spec.n_ctx,
        "sites": [site for site in SITES if not (site == "resid_mid" and spec.parallel)],
        "chat_template": model.tokenizer is not None and bool(model.tokenizer.templates),
        "notes": list(model.notes),
        "dtype": str(model.dtype),
        "threads": model.threads,
    }
    if args.json:
        print_json(facts)
        return 0
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else f"{value:,}" if type(value) is int else value
        print(f"{name.replace('_', ' '):<14} {text}")
    return 0


COMMAND = Command(
    summary="What a checkpoint is, and how it will be computed.",
    example="path/to/model",
    arguments=lambda parser: None,
    run=_info,
    json={
        "name": "of the folder or file, or the hub id",
        "model_type": "family, as config.json names it",
        "weights": "a fingerprint of the weights",
        "parameters": "number of weights",
        "weight_bytes": "as stored",
        "stored_as": "dtypes of the matrices",
        "layers": "number of blocks",
        "d_model": "width of the residual stream",
        "heads": "of queries",
        "kv_heads": "of keys and values",
        "d_ff": "width of the MLP",
        "vocabulary": "number of tokens",
        "context": "longest sequence, in tokens",
        "sites": "names of the sites that its blocks have",
        "chat_template": "whether --chat can be used",
        "notes": "why there is no tokenizer, or why its token ids may differ from the model's own",
        "dtype": "of the arithmetic",
        "threads": "of the computation",
    },
)
