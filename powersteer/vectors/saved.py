"""Several steering vectors in one file, safetensors or GGUF by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from .steering_vector import SteeringVector
from .vector_files import gguf_record, read_gguf, read_safetensors, write_gguf, write_safetensors

__all__ = ["load_vectors", "save_vectors"]


@deprecated_arguments(2)
def save_vectors(
    path: str | os.PathLike[str], vectors: Iterable[SteeringVector], *, model_hint: str | None = None
) -> None:
    """Write vectors to one file: GGUF if its name ends in .gguf, else safetensors. It is complete or not there at all.

    Parameters
    ----------
    path
        Name of the file; an existing one is replaced.
    vectors : iterable of SteeringVector
        At least one. A GGUF control vector has one direction a block, see `SteeringVector.to_gguf`.
    model_hint : str, optional
        For GGUF: the model_type that other tools check; by default that of the vectors' model.

    Raises
    ------
    InvalidInput
        Without vectors, and for vectors that a GGUF file cannot hold.

    Examples
    --------
    >>> import os, tempfile
    >>> import powersteer as ps
    >>> vectors = [ps.SteeringVector.from_array([3.0, 4.0], layer, "mlp_out") for layer in (1, 2)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "vectors.safetensors")
    ...     ps.save_vectors(path, vectors)
    ...     ps.load_vectors(path) == vectors
    True
    """
    vectors = list(vectors)
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("save_vectors needs one SteeringVector or more; SteeringVector.from_array makes them")
    records = [(v.direction, v.provenance) for v in vectors]
    if _is_gguf(path):
        write_gguf(path, records, model_hint)
    elif model_hint is not None:
        raise InvalidInput(f"model_hint belongs to a .gguf file, not to {os.fspath(path)!r}; leave it out")
    else:
        write_safetensors(path, records)


def load_vectors(path: str | os.PathLike[str]) -> list[SteeringVector]:
    """Read every vector of a file: `model.steered(load_vectors(path))` adds all of them.

    Parameters
    ----------
    path
        A file that `save_vectors`, `SteeringVector.save`, `to_gguf` or another tool's GGUF export wrote.

    Returns
    -------
    list of SteeringVector
        In the order they were given; those of a GGUF file by layer, without the directions that are all zero.

    Raises
    ------
    NotFound, InvalidInput
        As `SteeringVector.load` and `SteeringVector.from_gguf`.

    Warns
    -----
    ProvenanceWarning
        Names the directions of a GGUF file that are all zero.

    Examples
    --------
    >>> import os, tempfile
    >>> import powersteer as ps
    >>> vectors = [ps.SteeringVector.from_array([3.0, 4.0], layer, "mlp_out") for layer in (1, 2)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "vectors.safetensors")
    ...     ps.save_vectors(path, vectors)
    ...     [v.layer for v in ps.load_vectors(path)]
    [1, 2]
    """
    if _is_gguf(path):
        file = read_gguf(path)
        records = [gguf_record(file, block, str(path)) for block in sorted(file.directions)]
    else:
        records = read_safetensors(path)
    return [SteeringVector(direction, **provenance) for direction, provenance in records]


def _is_gguf(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(".gguf")
