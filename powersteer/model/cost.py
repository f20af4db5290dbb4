"""Memory and operations of a computation, known before it starts.

Bytes are counted by the core, on the tables of sizes that allocate them; operations from the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..inputs.sites import Site
from ..linalg.svd import krylov_basis
from ..loading.spec import MATRICES, Array, Layer, Spec

__all__ = ["Estimate", "estimate", "forward_bytes"]


class LoadedModel(Protocol):
    """What counting needs of a Model."""

    @property
    def _loaded(self) -> Any: ...  # the core's module and model
    @property
    def spec(self) -> Spec: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass(frozen=True)
class Estimate:
    """Memory and operations of a forward pass, or of a Jacobian and its SVD. Made by `Model.estimate`.

    All in bytes, except `flops`.
    """

    weights: int  # as stored; pages of the file, shared and given back under pressure
    forward: int  # buffers and logits of a forward pass, or of the taped one
    tape: int  # of the layers from source to target, kept with the Jacobian
    sweep: int  # buffers and result of a product with k vectors
    basis: int  # of the SVD
    flops: float  # of J or its transpose on one vector

    @property
    def peak(self) -> int:
        """The most that is held beside the weights."""
        return self.tape + max(self.forward, self.sweep + self.basis)

    def __str__(self) -> str:
        gb = {name: getattr(self, name) / 1e9 for name in ("weights", "peak", "forward", "tape", "sweep", "basis")}
        parts = ", ".join(f"{name} {gb[name]:.3g}" for name in ("forward", "tape", "sweep", "basis") if gb[name])
        text = f"weights {gb['weights']:.3g} GB (mapped as stored) + at most {gb['peak']:.3g} GB ({parts})"
        return text + (f"; {self.flops / 1e9:.3g} GFLOP an application" if self.flops else "")


def forward_bytes(model: LoadedModel, lengths: Sequence[int], n_logits: int) -> int:
    """Buffers and logits of a forward pass of prompts of these lengths, n_logits rows of logits being returned."""
    return int(model._loaded.core.forward_bytes(lengths, n_logits))


def estimate(
    model: LoadedModel, lengths: Sequence[int], source: Site, target: Site | str, n_target: int, k: int
) -> Estimate:
    """A Jacobian of prompts of these lengths, with n_target target positions in all, and an SVD of k triplets."""
    spec = model.spec
    ends = target if isinstance(target, str) else (target.layer, target.index)
    counted = model._loaded.module.Jacobian.count_bytes(
        model._loaded.core, lengths, (source.layer, source.index), ends, n_target, k
    )
    head = isinstance(target, str)
    m, d = n_target * (spec.n_vocab if head else spec.d_model), spec.d_model
    first = source.layer + (source.name in ("mlp_out", "resid_post"))
    swept = spec.layers[first : spec.n_layers if isinstance(target, str) else target.layer + 1]
    matrices = sum(_active(spec, layer) for layer in swept) * sum(lengths) + (m * d if head else 0)
    width = spec.n_heads * spec.head_dim
    attention = sum(len(swept) * 4 * length * length * width for length in lengths)  # four products, half of each masked
    return Estimate(
        weights=spec.nbytes,
        forward=counted["record"],
        tape=counted["tape"],
        sweep=counted["sweep"],
        basis=krylov_basis((m, d), min(k, m, d), 1, model.dtype) * 2 * (m + d) * model.dtype.itemsize,
        flops=2.0 * matrices + attention,
    )


def _active(spec: Spec, layer: Layer) -> int:
    """Weights that a row meets: those of the layer, and of as many experts as it is routed to."""
    owners = (layer, *layer.experts[: spec.top_k])
    matrices: list[Array | None] = [getattr(owner, name, None) for owner in owners for name in (*MATRICES, "router")]
    return sum(matrix.size for matrix in matrices if matrix is not None)
