"""Decoder rows of a sparse autoencoder or transcoder, from the files that SAELens writes.

A folder has `cfg.json` and `sae_weights.safetensors`. Its tensor W_dec (d_sae, d_in) has a row for each feature: what the
feature adds at the autoencoder's hook, `hook_name` in the configuration (`hook_name_out` of a transcoder).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._util.checks import as_list, check_count
from .._util.json_files import read_json
from ..errors import InvalidInput, NotFound, shown
from ..inputs.prompts import Prompts, split
from ..inputs.sites import Site, parse_site
from ..loading.safetensors import open_tensors
from ..model.model import Model
from ..vectors.steering_vector import Cost, SteeringVector
from .activations import Activations, model_fields

__all__ = ["sae_vectors"]

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"


def sae_vectors(
    model: Model, path: str | os.PathLike[str], features: int | Sequence[int], *, prompts: Prompts | None = None
) -> list[SteeringVector]:
    """What features of a sparse autoencoder add: rows of its decoder, from a folder that SAELens wrote.

    Parameters
    ----------
    model : Model
        The model whose activations the autoencoder reconstructs.
    path
        Folder with cfg.json and sae_weights.safetensors.
    features : int or list of int
        Indices of features, from 0.
    prompts : prompt or list of prompts, optional
        Measures the mean activation norm of the site, which `SteeringVector.relative` needs.

    Returns
    -------
    list of SteeringVector
        One for each feature, in their order, at the site of the autoencoder's hook. `scale` is the norm of the row, in the
        units of the autoencoder, and `rank` the index of the feature.

    Raises
    ------
    NotFound
        If a file does not exist.
    InvalidInput
        For a hook that is no site of this model, an autoencoder of one head or of another width, one whose decoder writes
        whitened activations, and a feature that is not there or whose row is zero or not finite.
    BadCheckpoint
        For a damaged file.

    References
    ----------
    J. Bloom et al., SAELens, 2024, github.com/decoderesearch/SAELens.

    Examples
    --------
    >>> ps.sae_vectors(model, "gpt2-small-res-jb/blocks.8.hook_resid_pre", [1105, 64])  # doctest: +SKIP
    [SteeringVector(1 × blocks.8.hook_resid_pre, d=768, rank 1105, sae),
     SteeringVector(1 × blocks.8.hook_resid_pre, d=768, rank 64, sae)]
    """
    started, folder = time.perf_counter(), Path(path)
    if not folder.is_dir():
        raise NotFound(f"there is no folder {str(path)!r}; give the one that holds {_CONFIG} and {_WEIGHTS}")
    at = _site(read_json(folder / _CONFIG), model, str(folder / _CONFIG))
    weights = open_tensors(folder / _WEIGHTS)
    W_dec = weights.get("W_dec")
    if W_dec is None or len(W_dec.shape) != 2:
        raise InvalidInput(f"{folder / _WEIGHTS} has no matrix W_dec, the decoder; it holds {sorted(weights)[:8]}")
    if W_dec.shape[1] != model.d_model:
        raise InvalidInput(
            f"the decoder in {folder} has rows of {W_dec.shape[1]} numbers; activations of {model.name!r} have {model.d_model}"
        )
    n = W_dec.shape[0]
    chosen = [check_count(f, "sae_vectors: a feature", n - 1, f"the autoencoder has {n}", least=0) for f in as_list(features)]
    if not chosen:
        raise InvalidInput("sae_vectors: features are empty; name one or more")
    rows = W_dec.numbers(chosen)
    for feature, row in zip(chosen, rows, strict=True):
        if not 0 < float(np.linalg.norm(row.astype(np.float64))) < np.inf:
            raise InvalidInput(f"the decoder row of feature {feature} in {folder} is zero or not finite, and steers nothing")
    about, passes = model_fields(model), 0
    if prompts is not None:
        read = Activations(model, split(prompts)[0], [at], None)
        about, passes = {**read.fields(at), "source_positions": read.rows}, len(read.rows)
    cost = Cost(passes, 0, time.perf_counter() - started)
    return [
        SteeringVector.from_array(row.astype(model.dtype), *at, method="sae", rank=feature, cost=cost, **about)
        for feature, row in zip(chosen, rows, strict=True)
    ]


def _site(config: dict[str, Any], model: Model, where: str) -> Site:
    """The site at which the decoder writes. SAELens keeps what it knows of the model under "metadata" since version 6."""
    about = config.get("metadata")
    known = {**config, **about} if isinstance(about, dict) else config
    hook = known.get("hook_name_out") or known.get("hook_name") or known.get("hook_point")
    if not isinstance(hook, str):
        raise InvalidInput(f"{where} names no hook: it has neither hook_name nor hook_point")
    for name in ("hook_head_index_out", "hook_head_index", "hook_point_head_index"):
        if known.get(name) is not None:
            raise InvalidInput(f"{where}: the autoencoder is of head {shown(known[name])} alone, which is no site")
    if known.get("normalize_activations") == "covariance_whitening":
        raise InvalidInput(f"{where}: its decoder writes whitened activations; fold the whitening into its weights and save it again")
    try:
        return parse_site(hook, **model._site_rules)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: its hook is {hook!r}: {error}") from None
