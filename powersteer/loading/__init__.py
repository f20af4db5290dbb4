"""Checkpoints of transformers models, as they lie in a folder, in the hub cache, or in a loaded PyTorch model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput, NotFound, UnsupportedModel
from ..inputs.tokenizer import Tokenizer, wrap_tokenizer
from .build import TensorReader, build_spec, fingerprint
from .config import family_of, read_facts
from .gguf import open_gguf
from .gguf_model import gguf_spec
from .gguf_tokenizer import end_ids, gguf_tokenizer, uncertain_cut
from .hub import known_name, resolve
from .safetensors import TensorRef, no_weights, open_weights, read_json
from .spec import Array, Spec

__all__ = ["CHECK_LIMIT", "Checkpoint", "load_checkpoint", "spec_from_transformers"]

CHECK_LIMIT = 2 << 30  # bytes up to which all weights are searched for NaN when loading


@dataclass(frozen=True)
class Checkpoint:
    """A model ready for the core."""

    spec: Spec
    tokenizer: Tokenizer | None
    identity: dict[str, Any]  # name, model_type, sizes, and a hash of the weights (see build.fingerprint)
    config: dict[str, Any]  # config.json as it is
    path: Path | None  # its folder
    files: tuple[Path, ...]  # its weights
    eos_ids: tuple[int, ...]  # tokens that end a generation
    notes: tuple[str, ...] = ()  # what is missing, and why


def load_checkpoint(path: str | os.PathLike[str], check: bool | None = None, mmap: bool = True) -> Checkpoint:
    """Load a folder with config.json and safetensors weights, a hub id, or a .gguf file.

    Weights are memory-mapped (mmap=False: read) and stay as stored. check: search all of them for NaN and infinity, which reads them
    once; None does so up to 2 GiB. Beyond, a NaN shows as a NumericalError when it reaches an activation. Norms and
    biases are always checked.

    Raises NotFound, BadCheckpoint or UnsupportedModel, naming the file and the key or tensor.
    """
    if os.fspath(path).lower().endswith(".gguf"):
        return _load_gguf(Path(path).expanduser(), check, mmap)
    folder = resolve(path)
    if not (folder / "config.json").exists() and any(folder.glob("*.gguf")):
        raise no_weights(folder)
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder / "config.json"))
    facts = read_facts(config, family, str(folder / "config.json"))
    tensors, files = open_weights(folder, mmap)
    source = TensorReader(tensors, str(folder), _checked(check, tensors))
    spec = build_spec(config, family, facts, source, str(folder / "config.json"))
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()
    try:
        tokenizer = Tokenizer.from_folder(folder, spec.n_vocab, family.model_type)
    except NotFound as error:  # prompts of token ids still work
        notes = (str(error),)
    name = str(path) if not Path(path).expanduser().exists() else known_name(folder)
    return Checkpoint(
        spec=spec,
        tokenizer=tokenizer,
        identity=_identity(name, family.model_type, spec, source),
        config=config,
        path=folder,
        files=files,
        eos_ids=_end_ids(folder, config, tokenizer),
        notes=notes,
    )


def _load_gguf(path: Path, check: bool | None, mmap: bool) -> Checkpoint:
    """The same from a GGUF file. Quantised tensors are decoded to float32, which costs that memory."""
    file = open_gguf(path, mmap)
    spec, source, architecture = gguf_spec(file, _checked(check, file.tensors))
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()
    try:
        tokenizer = gguf_tokenizer(file.fields, spec.n_vocab, str(path))
        if uncertain_cut(file.fields):
            notes = (
                f"{path} has no tokenizer.ggml.pre, so texts are cut by llama.cpp's default, which may not be the "
                "model's own way; convert the model again with a current llama.cpp",
            )
    except NotFound as error:  # prompts of token ids still work
        notes = (str(error),)
    return Checkpoint(
        spec=spec,
        tokenizer=tokenizer,
        identity=_identity(path.stem, architecture, spec, source),
        config={key: value for key, value in file.fields.items() if isinstance(value, (str, int, float))},
        path=path.parent,
        files=(path,),
        eos_ids=end_ids(file.fields, spec.n_vocab) or (tokenizer.eos_ids if tokenizer else ()),
        notes=notes,
    )


def spec_from_transformers(hf_model: Any, tokenizer: Any = None, check: bool | None = None) -> Checkpoint:
    """The same from a loaded `transformers` model on the CPU, sharing its memory: it must not be trained meanwhile.

    tokenizer: a fast transformers tokenizer, a `tokenizers.Tokenizer`, ours, or None.
    Raises UnsupportedModel and BadCheckpoint as `load_checkpoint`, InvalidInput for parameters on another device.
    """
    if not hasattr(hf_model, "config") or not hasattr(hf_model, "named_parameters"):
        raise InvalidInput(f"a transformers model is needed, not {type(hf_model).__name__}")
    where = f"the config of {type(hf_model).__name__}"
    config = hf_model.config.to_dict()
    family = family_of(config, where)
    facts = read_facts(config, family, where)
    named = hf_model.named_parameters(remove_duplicate=False)
    tensors = {name: _from_torch(name, parameter, type(hf_model).__name__) for name, parameter in named}
    source = TensorReader(tensors, type(hf_model).__name__, _checked(check, tensors))
    spec = build_spec(config, family, facts, source, where)
    name = str(config.get("_name_or_path") or getattr(hf_model, "name_or_path", "") or type(hf_model).__name__)
    notes = () if tokenizer is not None else ("none was given: from_transformers(hf_model, tokenizer)",)
    wrapped = None if tokenizer is None else wrap_tokenizer(tokenizer, spec.n_vocab)
    generation = getattr(hf_model, "generation_config", None)
    end = _as_ids(getattr(generation, "eos_token_id", None)) or _as_ids(config.get("eos_token_id"))
    return Checkpoint(
        spec=spec,
        tokenizer=wrapped,
        identity=_identity(Path(name).name if Path(name).exists() else name, family.model_type, spec, source),
        config=config,
        path=None,
        files=(),
        eos_ids=end or (wrapped.eos_ids if wrapped else ()),
        notes=notes,
    )


def _checked(check: bool | None, tensors: Mapping[str, TensorRef]) -> bool:
    if check is not None and not isinstance(check, bool):
        raise InvalidInput(f"check is {check!r}; it must be True, False, or None for up to {CHECK_LIMIT >> 30} GiB")
    return sum(tensor.nbytes for tensor in tensors.values()) <= CHECK_LIMIT if check is None else check


def _identity(name: str, model_type: str, spec: Spec, source: TensorReader) -> dict[str, Any]:
    return {
        "name": name,
        "model_type": model_type,
        "n_layers": spec.n_layers,
        "d_model": spec.d_model,
        "n_vocab": spec.n_vocab,
        "weights": fingerprint(source, model_type),
    }


def _end_ids(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """What ends a generation, from the first that says so: generation_config.json, config.json, the tokenizer."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ids = _as_ids(generation.get("eos_token_id")) or _as_ids(config.get("eos_token_id"))
    return ids or (tokenizer.eos_ids if tokenizer else ())


def _as_ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(one for one in values if type(one) is int and one >= 0))


_TORCH = {"torch.float32": "F32", "torch.float64": "F64", "torch.float16": "F16", "torch.bfloat16": "BF16"}


def _from_torch(name: str, parameter: Any, where: str) -> TensorRef:
    """A parameter as a tensor of ours. The array it gives keeps the parameter's memory alive."""
    if parameter.device.type != "cpu":
        raise InvalidInput(f"parameter {name!r} of {where} is on {parameter.device}; move the model with .to('cpu')")
    dtype = _TORCH.get(str(parameter.dtype))
    if dtype is None:
        raise UnsupportedModel(
            f"parameter {name!r} of {where} has dtype {parameter.dtype}; load the model unquantised, "
            "in float32, float16 or bfloat16"
        )

    def view() -> Array:
        tensor = parameter.detach()
        if dtype != "BF16":
            return np.asarray(tensor.numpy())
        import torch

        return np.asarray(tensor.view(torch.int16).numpy().view(np.uint16))

    return TensorRef(name, dtype, tuple(parameter.shape), where, view)
