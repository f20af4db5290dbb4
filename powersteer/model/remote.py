"""A model in another process, which maps the file of its weights itself."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ..errors import InvalidInput
from ..inputs.positions import Canonical
from ..vectors.steering_vector import SteeringVector
from .construct import load
from .model import Model

__all__ = ["RemoteModel"]


@dataclass(frozen=True)
class RemoteModel:
    """What a worker needs to load a model: small enough to be sent with every call."""

    path: str
    dtype: str
    threads: int
    weights: str  # fingerprint
    steering: tuple[tuple[SteeringVector, Canonical], ...] = ()

    @classmethod
    def of(cls, model: Model, threads: int) -> RemoteModel:
        """That of a model, with so many threads in every worker. Raises InvalidInput for a model without a file."""
        if model.path is None:
            raise InvalidInput(
                "the workers of an executor load the model from its file, and this model has no file; run without executor"
            )
        return cls(model.path, str(model.dtype), threads, model.identity["weights"], model.interventions)

    def load(self) -> Model:
        """The model, loaded once in a process. Raises InvalidInput if the file has other weights now."""
        model = _loaded(self.path, self.dtype, self.threads)
        if model.identity["weights"] != self.weights:
            raise InvalidInput(f"the model at {self.path!r} has changed: the weights differ")
        for vector, positions in self.steering:
            model = model.steered(vector, positions)
        return model


@functools.lru_cache(maxsize=1)
def _loaded(path: str, dtype: str, threads: int) -> Model:
    return load(path, dtype=dtype, threads=threads)
