"""How a result is kept in a file: vectors and effects in their own formats, arrays in NumPy's, an SVD as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import InvalidInput, shown
from ..evaluate.effect_table import Effects
from ..linalg.result import SVDResult
from ..model.jacobian import labelled
from ..vectors.codec import from_json, json_fields, to_json
from ..vectors.saved import load_vectors, save_vectors
from ..vectors.steering_vector import SteeringVector

__all__ = ["FORMATS", "Format", "format_of"]

_ARRAYS = ("U", "S", "Vh", "residuals", "certificate")
_FACTS = ("converged", "cluster_open", "applications", "certificate_applications", "method", "tol", "seed", "seconds", "stop",
          "missed_probability")  # fmt: skip


class Format(NamedTuple):
    """A kind of result: which values are of it, and how one is written and read."""

    fits: Callable[[Any], bool]
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]


def format_of(value: Any) -> str:
    """The key in FORMATS, which is also how the name of the file ends. Raises InvalidInput for a value that none fits."""
    for ending, one in FORMATS.items():
        if one.fits(value):
            return ending
    raise InvalidInput(
        f"{shown(value)} cannot be kept in a file; this can: SteeringVectors, Effects, arrays, and SVDs. Of a Jacobian keep "
        "what you compute with it: cache(J.svd, k=4), cache(J.dense)"
    )


def _save_svd(result: SVDResult, path: Path) -> None:
    facts = {name: getattr(result, name) for name in _FACTS}
    history = [(spent, worst, sigma.tolist()) for spent, worst, sigma in result.history]
    about = None
    if result.provenance is not None:  # as its vectors have it: only values that JSON has, too
        first = result.vectors[0]
        about = to_json({name: getattr(first, name) for name in result.provenance})
    metadata = {"facts": facts, "clusters": result.clusters, "history": history, "provenance": about}
    tensors = {name: np.ascontiguousarray(getattr(result, name)) for name in _ARRAYS}
    path.write_bytes(safetensors.numpy.save(tensors, {"svd": json.dumps(metadata)}))


def _load_svd(path: Path) -> SVDResult:
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        metadata = json.loads(file.metadata()["svd"])
    history = [(spent, worst, np.array(sigma)) for spent, worst, sigma in metadata["history"]]
    clusters = [tuple(ranks) for ranks in metadata["clusters"]]
    result = SVDResult(**arrays, **metadata["facts"], clusters=clusters, history=history)
    if metadata["provenance"] is None:
        return result
    about = json_fields(from_json(metadata["provenance"], str(path)), str(path))
    return labelled(result, lambda: about)


def _is_list_of_vectors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, SteeringVector) for v in value)


FORMATS = {
    "vector.safetensors": Format(lambda v: isinstance(v, SteeringVector), SteeringVector.save, SteeringVector.load),
    "vectors.safetensors": Format(_is_list_of_vectors, lambda v, path: save_vectors(path, v), load_vectors),
    "svd.safetensors": Format(lambda v: isinstance(v, SVDResult), _save_svd, _load_svd),
    "effects.json": Format(lambda v: isinstance(v, Effects), Effects.save, Effects.load),
    "array.npy": Format(
        lambda v: isinstance(v, np.ndarray) and not v.dtype.hasobject,
        lambda v, path: np.save(path, v, allow_pickle=False),
        lambda path: np.load(path, allow_pickle=False),
    ),
}
