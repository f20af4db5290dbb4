"""Memory and operations of a computation, before it starts.

The core counts bytes with the tables that it allocates by; operations follow from the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._util.checks import check_count
from ..inputs.sites import Site
from ..linalg.svd import krylov_basis
from ..loading.spec import MATRICES, Array, Layer, Spec
from .loaded import LoadedModel
from .residency import streamed_bytes

__all__ = ["Estimate", "estimate", "forward_bytes"]


@dataclass(frozen=True)
class Estimate:
    """Memory and operations of a forward pass, or of a Jacobian and its SVD, made by `Model.estimate`.

    Attributes
    ----------
    weights
        Bytes of the weights as stored. With mmap these are pages of the file, which the system can take back.
    forward
        Bytes of buffers and logits of a forward pass; of a Jacobian: of the pass that records the tape.
    tape
        Bytes that a Jacobian keeps for the layers from source to target.
    sweep
        Bytes of buffers and result of a product with k vectors.
    basis
        Bytes of the bases of the SVD.
    flops
        Floating-point operations of J or its transpose on one vector.
    streamed
        Bytes of weights that each forward pass, or each product with J or its transpose, reads from the file again because the
        model is larger than the memory that was free when it was loaded; 0 if it fits.

    Examples
    --------
    >>> import powersteer as ps
    >>> cost = ps.load("demo").estimate("Q: 3*4\\nA:", source=1, target=3)
    >>> cost.peak == cost.tape + max(cost.forward, cost.sweep + cost.basis)
    True
    """

    weights: int
    forward: int
    tape: int
    sweep: int
    basis: int
    flops: float
    streamed: int = 0

    @property
    def peak(self) -> int:
        """Most bytes allocated at a time beside the weights."""
        return self.tape + max(self.forward, self.sweep + self.basis)

    def __str__(self) -> str:
        gb = {name: getattr(self, name) / 1e9 for name in ("weights", "peak", "forward", "tape", "sweep", "basis")}
        parts = ", ".join(f"{name} {gb[name]:.3g}" for name in ("forward", "tape", "sweep", "basis") if gb[name])
        text = f"weights {gb['weights']:.3g} GB (mapped as stored) + at most {gb['peak']:.3g} GB ({parts})"
        if self.flops:
            text += f"; {self.flops / 1e9:.3g} GFLOP an application"
        return text + (f"; each pass reads {self.streamed / 1e9:.3g} GB from the file" if self.streamed else "")


def forward_bytes(model: LoadedModel, lengths: Sequence[int], n_logits: int) -> int:
    """Bytes of buffers and logits of a forward pass of prompts of these lengths that returns n_logits rows of logits."""
    return int(model._loaded.core.forward_bytes(lengths, n_logits))


def estimate(
    model: LoadedModel, lengths: Sequence[int], source: Site, target: Site | str, n_target: int, k: int
) -> Estimate:
    """Cost of a Jacobian of prompts of these lengths with n_target target positions in all, and of an SVD of k triplets."""
    spec = model.spec
    to_head = isinstance(target, str)
    m, d = n_target * (spec.n_vocab if to_head else spec.d_model), spec.d_model
    k = min(check_count(k, "k"), m, d)
    ends = target if isinstance(target, str) else (target.layer, target.index)
    counted = model._loaded.module.Jacobian.count_bytes(
        model._loaded.core, lengths, (source.layer, source.index), ends, n_target, k
    )
    first = source.layer + (source.name in ("mlp_out", "resid_post"))
    swept = spec.layers[first : spec.n_layers if isinstance(target, str) else target.layer + 1]
    matrices = sum(_active(spec, layer) for layer in swept) * sum(lengths) + (m * d if to_head else 0)
    width = spec.n_heads * spec.head_dim
    attention = sum(len(swept) * 4 * length * length * width for length in lengths)  # four products, half of each masked
    return Estimate(
        weights=spec.nbytes,
        forward=counted["record"],
        tape=counted["tape"],
        sweep=counted["sweep"],
        basis=krylov_basis((m, d), k, 1, model.dtype) * 2 * (m + d) * model.dtype.itemsize,
        flops=2.0 * matrices + attention,
        streamed=streamed_bytes(spec, model._loaded.resident, first, spec.n_layers if to_head else first + len(swept) - 1),
    )


def _active(spec: Spec, layer: Layer) -> int:
    """Number of weights that a row is multiplied by: those of the layer, and of top_k experts."""
    owners = (layer, *layer.experts[: spec.top_k])
    matrices: list[Array | None] = [getattr(owner, name, None) for owner in owners for name in (*MATRICES, "router")]
    return sum(matrix.size for matrix in matrices if matrix is not None)
