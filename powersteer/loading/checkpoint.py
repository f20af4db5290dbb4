"""Checkpoints: safetensors folders, hub ids, GGUF files, and models that transformers has loaded, ready for the core."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._util.json_files import read_json
from ..errors import InvalidInput, NotFound, UnsupportedModel
from ..inputs.tokenizer import Tokenizer, wrap_tokenizer
from .build import TensorReader, build_spec, fingerprint
from .config import family_of, read_hyperparameters
from .gguf import open_gguf
from .gguf_model import gguf_spec
from .gguf_tokenizer import end_ids, gguf_tokenizer, uncertain_cut
from .hub import known_name, resolve
from .safetensors import no_weights, open_weights
from .spec import Array, Spec
from .tensor_ref import TensorRef

__all__ = ["Checkpoint", "load_checkpoint", "spec_from_transformers"]

CHECK_LIMIT = 2 << 30  # bytes up to which all weights are searched for NaN when loading


@dataclass(frozen=True)
class Checkpoint:
    """A model for the core, its tokenizer, and its origin."""

    spec: Spec
    tokenizer: Tokenizer | None
    identity: dict[str, Any]  # name, model_type, sizes, and a hash of the weights (see build.fingerprint)
    config: dict[str, Any]  # config.json
    path: Path | None  # its folder
    files: tuple[Path, ...]  # its weights
    eos_ids: tuple[int, ...]  # tokens that end a generation
    notes: tuple[str, ...] = ()  # why there is no tokenizer, or why its token ids are uncertain


def load_checkpoint(path: str | os.PathLike[str], check: bool | None = None, mmap: bool = True) -> Checkpoint:
    """Load a checkpoint.

    Parameters
    ----------
    path
        A folder with config.json and safetensors weights, a hub id, or a .gguf file.
    check
        Whether all weights are searched for NaN and infinity, which reads them once; None: up to 2 GiB of weights. A NaN
        that is not searched for is a NumericalError when it reaches an activation. Norms and biases are always searched.
    mmap
        Whether weights are memory-mapped; False: read.

    Returns
    -------
    Checkpoint
        Its matrices are as stored.

    Raises
    ------
    NotFound, BadCheckpoint, UnsupportedModel
        The message names the file and the key or tensor.
    """
    if os.fspath(path).lower().endswith(".gguf"):
        return _load_gguf(Path(path).expanduser(), check, mmap)
    folder = resolve(path)
    if not (folder / "config.json").exists() and any(folder.glob("*.gguf")):
        raise no_weights(folder)
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder / "config.json"))
    hparams = read_hyperparameters(config, family, str(folder / "config.json"))
    tensors, files = open_weights(folder, mmap)
    reader = TensorReader(tensors, str(folder), _checked(check, tensors))
    spec = build_spec(config, family, hparams, reader, str(folder / "config.json"))
    tokenizer, notes = _tokenizer(lambda: Tokenizer.from_folder(folder, spec.n_vocab, family.model_type))
    name = str(path) if not Path(path).expanduser().exists() else known_name(folder)
    return Checkpoint(
        spec=spec,
        tokenizer=tokenizer,
        identity=_identity(name, family.model_type, spec, reader),
        config=config,
        path=folder,
        files=files,
        eos_ids=_end_ids(folder, config, tokenizer),
        notes=notes,
    )


def _load_gguf(path: Path, check: bool | None, mmap: bool) -> Checkpoint:
    """Load a GGUF file. Quantised tensors are decoded to float32 in memory."""
    file = open_gguf(path, mmap)
    spec, reader, architecture = gguf_spec(file, _checked(check, file.tensors))
    tokenizer, notes = _tokenizer(lambda: gguf_tokenizer(file.fields, spec.n_vocab, str(path)))
    if tokenizer is not None and uncertain_cut(file.fields):
        notes = (
            f"{path} has no tokenizer.ggml.pre, so texts are split by llama.cpp's default rule, which may not be the "
            "model's own; convert the model again with a current llama.cpp",
        )
    return Checkpoint(
        spec=spec,
        tokenizer=tokenizer,
        identity=_identity(path.stem, architecture, spec, reader),
        config={key: value for key, value in file.fields.items() if isinstance(value, (str, int, float))},
        path=path.parent,
        files=(path,),
        eos_ids=end_ids(file.fields, spec.n_vocab) or (tokenizer.eos_ids if tokenizer else ()),
        notes=notes,
    )


def spec_from_transformers(hf_model: Any, tokenizer: Any = None, check: bool | None = None) -> Checkpoint:
    """The checkpoint of a `transformers` model on the CPU. It shares the model's memory, so the model must not be trained.

    Parameters
    ----------
    hf_model
        The model.
    tokenizer
        A fast transformers tokenizer, a `tokenizers.Tokenizer`, a powersteer Tokenizer, or None.
    check
        As in `load_checkpoint`.

    Returns
    -------
    Checkpoint

    Raises
    ------
    UnsupportedModel, BadCheckpoint
        As `load_checkpoint`.
    InvalidInput
        For parameters on another device.
    """
    if not hasattr(hf_model, "config") or not hasattr(hf_model, "named_parameters"):
        raise InvalidInput(f"a transformers model is needed, not {type(hf_model).__name__}")
    where = f"the config of {type(hf_model).__name__}"
    config = hf_model.config.to_dict()
    family = family_of(config, where)
    hparams = read_hyperparameters(config, family, where)
    named = hf_model.named_parameters(remove_duplicate=False)
    tensors = {name: _from_torch(name, parameter, type(hf_model).__name__) for name, parameter in named}
    reader = TensorReader(tensors, type(hf_model).__name__, _checked(check, tensors))
    spec = build_spec(config, family, hparams, reader, where)
    name = str(config.get("_name_or_path") or getattr(hf_model, "name_or_path", "") or type(hf_model).__name__)
    notes = () if tokenizer is not None else ("no tokenizer was given: from_transformers(hf_model, tokenizer)",)
    wrapped = None if tokenizer is None else wrap_tokenizer(tokenizer, spec.n_vocab)
    generation = getattr(hf_model, "generation_config", None)
    end = _as_ids(getattr(generation, "eos_token_id", None)) or _as_ids(config.get("eos_token_id"))
    return Checkpoint(
        spec=spec,
        tokenizer=wrapped,
        identity=_identity(Path(name).name if Path(name).exists() else name, family.model_type, spec, reader),
        config=config,
        path=None,
        files=(),
        eos_ids=end or (wrapped.eos_ids if wrapped else ()),
        notes=notes,
    )


def _tokenizer(read: Callable[[], Tokenizer]) -> tuple[Tokenizer | None, tuple[str, ...]]:
    """(tokenizer, notes): without one, token ids are still valid prompts."""
    try:
        return read(), ()
    except NotFound as error:
        return None, (str(error),)


def _checked(check: bool | None, tensors: Mapping[str, TensorRef]) -> bool:
    if check is not None and not isinstance(check, bool):
        raise InvalidInput(f"check is {check!r}; it must be True, False, or None for up to {CHECK_LIMIT >> 30} GiB")
    return sum(tensor.nbytes for tensor in tensors.values()) <= CHECK_LIMIT if check is None else check


def _identity(name: str, model_type: str, spec: Spec, reader: TensorReader) -> dict[str, Any]:
    return {
        "name": name,
        "model_type": model_type,
        "n_layers": spec.n_layers,
        "d_model": spec.d_model,
        "n_vocab": spec.n_vocab,
        "weights": fingerprint(reader, model_type),
    }


def _end_ids(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Ids of the end tokens, from the first that has them: generation_config.json, config.json, the tokenizer."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ids = _as_ids(generation.get("eos_token_id")) or _as_ids(config.get("eos_token_id"))
    return ids or (tokenizer.eos_ids if tokenizer else ())


def _as_ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(one for one in values if type(one) is int and one >= 0))


_TORCH = {"torch.float32": "F32", "torch.float64": "F64", "torch.float16": "F16", "torch.bfloat16": "BF16"}


def _from_torch(name: str, parameter: Any, where: str) -> TensorRef:
    """A reference to a parameter. Its array keeps the parameter's memory alive."""
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
