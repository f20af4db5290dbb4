"""Memory and operations of a computation, before it starts.

The core counts bytes with the tables that it allocates by; operations follow from the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from .._util.checks import check_count
from ..inputs.sites import Site
from ..linalg.svd import krylov_basis
from ..loading.spec import MATRICES, Array, Layer, Spec
from .loaded import LoadedModel
from .residency import streamed_bytes

__all__ = [
    "ROWS", "Estimate", "cache_bytes", "estimate", "first_swept", "forward_bytes", "forward_costs", "generation_costs", "pass_flops",
    "spans",
]  # fmt: skip

_BYTES = 2**28  # of buffers, logits and cache of one batch, unless a single row needs more
ROWS = 128  # of one batch: more rows make products no faster, and progress is reported between batches


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


def forward_costs(model: LoadedModel, lengths: Sequence[int], counts: Sequence[int], n_sites: int = 0) -> list[int]:
    """Bytes of a forward pass of each sequence with so many rows of logits, as one of two, which may share."""

    @cache
    def cost(n: int, n_logits: int) -> int:
        return forward_bytes(model, [n, n], 2 * n_logits) // 2 + model.dtype.itemsize * n * model.d_model * n_sites

    return [cost(n, n_logits) for n, n_logits in zip(lengths, counts, strict=True)]


def generation_costs(model: LoadedModel, lengths: Sequence[int], max_new_tokens: int) -> list[int]:
    """Bytes of the continuation of each prompt, with its keys and values."""
    cost = {n: forward_bytes(model, [n], 1) + cache_bytes(model, n + max_new_tokens) for n in set(lengths)}
    return [cost[n] for n in lengths]


def cache_bytes(model: LoadedModel, n_tokens: int) -> int:
    """Bytes that a decoder keeps of a sequence of so many tokens: keys and values, and two states of layers without attention."""
    spec = model.spec
    numbers = sum(
        n_tokens * spec.cached(layer) if layer.mixer == "attention" else 2 * _state_size(spec, layer) for layer in spec.layers
    )
    return numbers * model.dtype.itemsize


def _state_size(spec: Spec, layer: Layer) -> int:
    """Numbers that a layer without attention carries from a token to the next."""
    convolved = layer.conv.size // spec.conv_taps * (spec.conv_taps - 1) if layer.conv is not None else 0
    return convolved + (spec.state_v_heads * spec.state_k_dim * spec.state_v_dim if layer.mixer in ("delta", "mamba") else 0)


def spans(costs: Sequence[int], budget: int = _BYTES, most: int = ROWS) -> Iterator[slice]:
    """Consecutive slices of at most `most` items whose costs add up to at most `budget`, or of one item."""
    first = total = 0
    for i, cost in enumerate(costs):
        if i > first and (total + cost > budget or i - first == most):
            yield slice(first, i)
            first, total = i, 0
        total += cost
    if costs:
        yield slice(first, len(costs))


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
    first, last = first_swept(source), spec.n_layers - 1 if isinstance(target, str) else target.layer
    return Estimate(
        weights=spec.nbytes,
        forward=counted["record"],
        tape=counted["tape"],
        sweep=counted["sweep"],
        basis=krylov_basis((m, d), k, 1, model.dtype) * 2 * (m + d) * model.dtype.itemsize,
        flops=pass_flops(spec, lengths, first, last, n_target) + (2.0 * m * d if to_head else 0.0),
        streamed=streamed_bytes(spec, model._loaded.resident, first, spec.n_layers if to_head else last),
    )


def first_swept(source: Site) -> int:
    """The first layer that a product from this source computes in: the next one where the source is behind the MLP."""
    return source.layer + (source.name in ("mlp_out", "resid_post"))


def pass_flops(spec: Spec, lengths: Sequence[int], first: int, last: int, n_target: int | None = None) -> float:
    """Operations of one pass of prompts through layers first to last, forward or of a tangent. n_target: number of rows that the
    last layer computes, apart from its keys and values; None: all."""
    rows, total = sum(lengths), 0.0
    for i in range(first, last + 1):
        layer = spec.layers[i]
        at_end = rows if n_target is None or i < last else n_target
        if layer.mixer != "attention":  # of all rows, apart from what is behind the mixer
            inner = sum(matrix.size for matrix in (layer.q, layer.k, layer.v, layer.z, layer.a, layer.b) if matrix is not None)
            passes = 2 if layer.mixer == "mamba" else 3  # of each row over the state
            total += 2.0 * (inner * rows + (_active(spec, layer) - inner) * at_end) + 2.0 * passes * rows * _state_size(spec, layer)
            continue
        keys = sum(matrix.size for matrix in (layer.k, layer.v) if matrix is not None)
        width = spec.n_heads * (layer.head_dim or spec.head_dim)
        seen = sum(n * min(n / 2, at_end / len(lengths)) for n in lengths)  # half of the keys are masked
        total += 2.0 * (keys * rows + (_active(spec, layer) - keys) * at_end) + 8.0 * seen * width
    return total


def _active(spec: Spec, layer: Layer) -> int:
    """Number of weights that a row is multiplied by: those of the layer, of top_k experts and of the shared one."""
    owners = (layer, *layer.experts[: spec.top_k], layer.shared)
    names = (*MATRICES, "router", "shared_gate")
    matrices: list[Array | None] = [getattr(owner, name, None) for owner in owners for name in names]
    return sum(matrix.size for matrix in matrices if matrix is not None)
