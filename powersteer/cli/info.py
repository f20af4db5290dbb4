"""`powersteer info`: what a checkpoint is."""

from __future__ import annotations

from argparse import Namespace

from ..model import Model
from .arguments import Command, load_model
from .console import Keys, json_object, print_result


def _stored_as(model: Model) -> dict[str, dict[str, int]]:
    return {name: {"count": count, "bytes": n_bytes} for name, (count, n_bytes) in model.spec.stored.items()}


_FACTS: Keys = {
    "name": "of the folder or file, or the hub id",
    "model_type": ("family, as config.json names it", lambda model: model.identity.get("model_type")),
    "weights": ("a fingerprint of the weights", lambda model: model.identity.get("weights")),
    "parameters": ("number of weights", lambda model: model.spec.n_params),
    "weight_bytes": ("as stored", lambda model: model.spec.nbytes),
    "stored_as": ("types of numbers or blocks: how many matrices and vectors, and their bytes", _stored_as),
    "layers": ("number of blocks", lambda model: model.n_layers),
    "d_model": "width of the residual stream",
    "heads": ("of queries", lambda model: model.spec.n_heads),
    "kv_heads": ("of keys and values", lambda model: model.spec.n_kv_heads),
    "d_ff": ("width of the MLP", lambda model: model.spec.d_ff),
    "vocabulary": ("number of tokens", lambda model: model.n_vocab),
    "context": ("longest sequence, in tokens", lambda model: model.n_ctx),
    "sites": ("names of the sites that its blocks have",
              lambda model: list(dict.fromkeys(site for layer in range(model.n_layers) for site in model.spec.sites(layer)))),
    "chat_template": ("whether --chat can be used", lambda model: model.tokenizer is not None and bool(model.tokenizer.templates)),
    "notes": ("which part of a model this is, why there is no tokenizer, or why its token ids may differ from the model's own",
              lambda model: list(model.notes)),
    "dtype": ("of the arithmetic", lambda model: str(model.dtype)),
    "threads": "of the computation",
}  # fmt: skip


def _info(args: Namespace) -> int:
    model = load_model(args)
    facts = json_object(_FACTS, model)
    texts = {
        name: ", ".join(value) if isinstance(value, list) else f"{value:,}" if type(value) is int else value
        for name, value in {**facts, "stored_as": model.spec.stored_text}.items()
    }
    return print_result(args.json, facts, "\n".join(f"{name.replace('_', ' '):<14} {text}" for name, text in texts.items()))


COMMAND = Command(
    summary="What a checkpoint is, and how it will be computed.",
    example="path/to/model",
    run=_info,
    json=_FACTS,
)
