"""Checkpoints: safetensors folders, hub ids, GGUF files, and models that transformers has loaded, ready for the core."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._util.json_files import read_json
from ..errors import InvalidInput, NotFound, UnsupportedModel
from ..inputs.tokenizer import Tokenizer, wrap_tokenizer
from ..inputs.tokenizer_files import has_tokenizer
from .build import TensorReader, build_spec, fingerprint
from .config import family_of, read_hyperparameters
from .finite import FiniteWeights, search_when_used
from .gguf import GGUF, open_gguf
from .gguf_model import gguf_spec
from .gguf_tokenizer import end_ids, gguf_tokenizer, names_tokenizer, uncertain_cut
from .hub import check_no_revision, known_name, resolve
from .multimodal import text_part
from .safetensors import no_weights, open_weights
from .scaled import QUANTIZATION, join_scales, read_quantization
from .spec import Array, Spec
from .tensor_ref import TensorRef, sparse_reads

__all__ = ["Checkpoint", "load_checkpoint", "spec_from_transformers"]


@dataclass(frozen=True)
class Checkpoint:
    """A model for the core, its tokenizer, and its origin."""

    spec: Spec
    weights: FiniteWeights
    identity: dict[str, Any]  # name, model_type, sizes, and a hash of the weights (see build.fingerprint)
    config: dict[str, Any]  # config.json
    path: Path | None  # its folder
    files: tuple[Path, ...]  # its weights
    read_tokenizer: Callable[[], tuple[Tokenizer | None, tuple[str, ...]]]  # (tokenizer, notes)
    read_end_ids: Callable[[], tuple[int, ...]]  # of the checkpoint's configs
    quick: bool = False  # the tokenizer, or that there is none, is known at once
    mapped: bool = True  # from its files; else the weights are in this process's own memory
    part: str = ""  # which part of a larger model it is

    @cached_property
    def _words(self) -> tuple[Tokenizer | None, tuple[str, ...]]:
        return self.read_tokenizer()

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Built when it is first asked for, which can take seconds."""
        return self._words[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Which part of a larger model this is, why there is no tokenizer, and why its token ids are uncertain."""
        return (*self._part, *self._words[1])

    @property
    def _part(self) -> tuple[str, ...]:
        return (self.part,) if self.part else ()

    @property
    def known_notes(self) -> tuple[str, ...]:
        """The notes, none as long as a tokenizer would have to be built for them."""
        return self.notes if self.quick or "_words" in vars(self) else self._part

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a generation: the tokenizer's if no config names them."""
        return self.read_end_ids() or (self.tokenizer.eos_ids if self.tokenizer else ())


def load_checkpoint(
    path: str | os.PathLike[str], check: bool | None = None, mmap: bool = True, revision: str | None = None
) -> Checkpoint:
    """Load a checkpoint.

    Parameters
    ----------
    path
        A folder with config.json and safetensors weights, a hub id, or a .gguf file.
    check
        Whether all weights are searched for NaN and infinity, which reads them once. None: up to 2 GiB of weights are, when
        the model is first computed with (see FiniteWeights). Norms and biases are always searched.
    mmap
        Whether weights are memory-mapped; False: read.
    revision
        Branch, tag or commit of a hub id; None: "main".

    Returns
    -------
    Checkpoint
        Its matrices are as stored.

    Raises
    ------
    NotFound, BadCheckpoint, UnsupportedModel
        The message names the file and the key or tensor.
    """
    with nullcontext() if check else sparse_reads():
        if os.fspath(path).lower().endswith(".gguf"):
            check_no_revision(path, revision)
            return _load_gguf(Path(path).expanduser(), check, mmap)
        return _load_folder(path, check, mmap, revision)


def _load_folder(path: str | os.PathLike[str], check: bool | None, mmap: bool, revision: str | None) -> Checkpoint:
    folder = resolve(path, revision)
    if not (folder / "config.json").exists() and any(folder.glob("*.gguf")):
        raise no_weights(folder)
    where = str(folder / "config.json")
    part = text_part(read_json(folder / "config.json"), where)
    family = family_of(part.config, where)
    how = read_quantization(part.config, where)
    stored, files = open_weights(folder, mmap)
    tensors = part.tensors(stored)
    config = part.complete(tensors)
    hparams = read_hyperparameters({key: value for key, value in config.items() if key != QUANTIZATION}, family, where)
    if how is not None:
        tensors = join_scales(tensors, how)
    due = search_when_used(check, tensors)
    reader = TensorReader(tensors, str(folder), bool(check))
    spec = build_spec(config, family, hparams, reader, where)
    name = str(path) if not Path(path).expanduser().exists() else known_name(folder)
    ends = _end_ids(folder, config)
    return Checkpoint(
        spec=spec,
        weights=FiniteWeights(reader.search, due, done=bool(check)),
        identity=_identity(name, family.model_type, spec, reader),
        config=config,
        path=folder,
        files=files,
        read_tokenizer=lambda: _tokenizer(lambda: Tokenizer.from_folder(folder, spec.n_vocab, family.model_type)),
        read_end_ids=lambda: ends,
        quick=not has_tokenizer(folder),
        mapped=mmap,
        part=part.note,
    )


def _load_gguf(path: Path, check: bool | None, mmap: bool) -> Checkpoint:
    file = open_gguf(path, mmap)
    due = search_when_used(check, file.tensors)
    spec, reader, architecture = gguf_spec(file, bool(check))
    return Checkpoint(
        spec=spec,
        weights=FiniteWeights(reader.search, due, done=bool(check)),
        identity=_identity(path.stem, architecture, spec, reader),
        config={key: value for key, value in file.fields.items() if isinstance(value, (str, int, float))},
        path=path.parent,
        files=(path,),
        read_tokenizer=lambda: _gguf_words(file, spec.n_vocab),
        read_end_ids=lambda: end_ids(file.fields, spec.n_vocab),
        quick=not names_tokenizer(file.fields),
        mapped=mmap,
    )


def _gguf_words(file: GGUF, n_vocab: int) -> tuple[Tokenizer | None, tuple[str, ...]]:
    tokenizer, notes = _tokenizer(lambda: gguf_tokenizer(file.fields, n_vocab, str(file.path)))
    if tokenizer is not None and uncertain_cut(file.fields):
        notes = (
            f"{file.path} has no tokenizer.ggml.pre, so texts are split by llama.cpp's default rule, which may not be the "
            "model's own; convert the model again with a current llama.cpp",
        )
    return tokenizer, notes


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
    part = text_part(hf_model.config.to_dict(), where)
    config = part.config
    family = family_of(config, where)
    hparams = read_hyperparameters(config, family, where)
    stored = hf_model.state_dict().keys()  # a buffer that is stored belongs to the model as a parameter does
    named = [*hf_model.named_parameters(remove_duplicate=False), *(one for one in hf_model.named_buffers() if one[0] in stored)]
    tensors = part.tensors({name: _from_torch(name, parameter, type(hf_model).__name__) for name, parameter in named})
    due = search_when_used(check, tensors)
    reader = TensorReader(tensors, type(hf_model).__name__, bool(check))
    spec = build_spec(config, family, hparams, reader, where)
    name = str(config.get("_name_or_path") or getattr(hf_model, "name_or_path", "") or type(hf_model).__name__)
    notes = () if tokenizer is not None else ("no tokenizer was given: from_transformers(hf_model, tokenizer)",)
    wrapped = None if tokenizer is None else wrap_tokenizer(tokenizer, spec.n_vocab)
    generation = getattr(hf_model, "generation_config", None)
    end = _as_ids(getattr(generation, "eos_token_id", None)) or _as_ids(config.get("eos_token_id"))
    return Checkpoint(
        spec=spec,
        weights=FiniteWeights(reader.search, due, done=bool(check)),
        identity=_identity(Path(name).name if Path(name).exists() else name, family.model_type, spec, reader),
        config=config,
        path=None,
        files=(),
        read_tokenizer=lambda: (wrapped, notes),
        read_end_ids=lambda: end,
        quick=True,
        mapped=False,
        part=part.note,
    )


def _tokenizer(read: Callable[[], Tokenizer]) -> tuple[Tokenizer | None, tuple[str, ...]]:
    """(tokenizer, notes): without one, token ids are still valid prompts."""
    try:
        return read(), ()
    except NotFound as error:
        return None, (str(error),)


def _identity(name: str, model_type: str, spec: Spec, reader: TensorReader) -> dict[str, Any]:
    return {
        "name": name,
        "model_type": model_type,
        "n_layers": spec.n_layers,
        "d_model": spec.d_model,
        "n_vocab": spec.n_vocab,
        "weights": fingerprint(reader, model_type),
    }


def _end_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the end tokens, from the first that has them: generation_config.json, config.json."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    return _as_ids(generation.get("eos_token_id")) or _as_ids(config.get("eos_token_id"))


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
