"""Models from checkpoints, GGUF files, the hub's cache and transformers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from .._core import CORES
from .._core._core32 import MAX_THREADS
from .._core.blas import default_threads
from .._util.checks import check_count
from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from .loaded import Loaded
from .model import Model
from .residency import resident_layers

if TYPE_CHECKING:
    from ..loading import Checkpoint

__all__ = ["from_transformers", "load", "model_from_checkpoint"]



@deprecated_arguments(1)
def load(
    path_or_hub_id: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    check: bool | None = None,
    mmap: bool = True,
    revision: str | None = None,
) -> Model:
    """Load a model from a folder, a .gguf file, or a hub id: from the Hugging Face cache, or downloaded.

    Parameters
    ----------
    path_or_hub_id
        A folder with config.json and safetensors, a .gguf file, a hub id, or "demo" for the built-in model.
    dtype
        dtype of the arithmetic: float32 (also for None) or float64. Weights stay as they are stored.
    threads
        Size of the model's thread pool; None: one thread for each physical core that this process may use.
    check
        Whether to search all weights for NaN and infinity, which reads the files once. None: search up to 2 GiB, when the
        model first computes. Norms and biases are always searched. A NaN that was not searched for raises NumericalError
        when it reaches an activation, and the message names its tensor.
    mmap
        True: map the weights instead of reading them. If another process truncates the file, this process dies with
        SIGBUS. False: read them into memory.
    revision
        Branch, tag or commit of a hub id; None: "main". Which commit it was is in `Model.path`, the cache's folder.

    Returns
    -------
    Model
        Only the headers of its files are read yet. Quantised weights are computed with as they are stored, and activations
        are not rounded. The tokenizer is built when it is first used, which raises BadCheckpoint if its file is damaged.

    Raises
    ------
    NotFound
        If there is no such path or hub id.
    BadCheckpoint
        If the files are damaged or contradict each other.
    UnsupportedModel
        If the model needs something that powersteer does not compute; the message names the config key.
    MissingDependency
        If a .gguf file has blocks of a type that only the gguf library decodes (IQ and TQ but IQ4_NL and IQ4_XS).
    InvalidInput
        For an argument outside its domain.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo", dtype="float64", threads=1)
    >>> model.n_layers, model.d_model
    (5, 160)
    >>> model
    Model('demo', 5 layers, d_model 160, n_vocab 255, float64, 1 threads)
    """
    from ..loading import load_checkpoint

    _real_dtype(dtype)  # before any work
    return model_from_checkpoint(load_checkpoint(path_or_hub_id, check, mmap, revision), dtype, threads)


@deprecated_arguments(2)
def from_transformers(
    hf_model: Any,
    tokenizer: Any = None,
    *,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    check: bool | None = None,
) -> Model:
    """Make a model of a transformers model, sharing its CPU memory where possible.

    Later changes of the PyTorch weights may or may not show.

    Parameters
    ----------
    hf_model
        A `transformers` causal language model.
    tokenizer
        A tokenizer of `transformers` or `tokenizers`; None: prompts are token ids.
    dtype, threads, check
        As for `load`.

    Returns
    -------
    Model

    Raises
    ------
    UnsupportedModel, BadCheckpoint, InvalidInput
        As `load`.

    Examples
    --------
    >>> import powersteer as ps
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer  # doctest: +SKIP
    >>> hf = AutoModelForCausalLM.from_pretrained("gpt2")  # doctest: +SKIP
    >>> model = ps.from_transformers(hf, AutoTokenizer.from_pretrained("gpt2"))  # doctest: +SKIP
    """
    from ..loading import spec_from_transformers

    return model_from_checkpoint(spec_from_transformers(hf_model, tokenizer, check), dtype, threads)


def model_from_checkpoint(checkpoint: Checkpoint, dtype: DTypeLike | None = None, threads: int | None = None) -> Model:
    """The model of a checkpoint that has been read. dtype, threads: as for `load`."""
    real = _real_dtype(dtype)
    if threads is None:
        threads = default_threads()
    threads = check_count(threads, "threads", MAX_THREADS)
    module, spec = CORES[real], checkpoint.spec
    resident = resident_layers(spec) if checkpoint.mapped else spec.n_layers + 1
    core = module.Model(*spec.to_core(real, resident), threads)
    return Model(Loaded(module, core, real, checkpoint, resident))


def _real_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    try:
        real = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError:
        real = None
    if real not in CORES:
        raise InvalidInput(f"dtype is {dtype!r}; powersteer computes in float32 or float64 (weights stay as they are stored)")
    return real
