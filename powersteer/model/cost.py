"""What a computation will take, before it is started: bytes by what they are for, and floating-point operations.

The formulas are those of the core's arenas (csrc/model/tape.c, block.c, jacobian.c, svd_krylov.c), without their small change; tests
compare them with what is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..inputs.sites import Site
from ..loading.spec import MATRICES, Array, Layer, Spec

__all__ = ["Estimate", "estimate"]

_SWEEP_ROWS = 1024  # csrc/model/jacobian.c


@dataclass(frozen=True)
class Estimate:
    """Bytes, unless said otherwise."""

    weights: int  # as stored; pages of the file, shared and given back under pressure
    forward: int  # the buffers of a forward pass and its logits
    tape: int  # of the layers from source to target, kept with the Jacobian
    sweep: int  # buffers of an application
    basis: int  # of the SVD
    flops: float  # of one application: J or its transpose on one vector

    @property
    def peak(self) -> int:
        """The most that is held beside the weights."""
        return self.tape + max(self.forward, self.sweep + self.basis)

    def __str__(self) -> str:
        gb = {name: getattr(self, name) / 1e9 for name in ("weights", "peak", "forward", "tape", "sweep", "basis")}
        parts = ", ".join(f"{name} {gb[name]:.3g}" for name in ("forward", "tape", "sweep", "basis") if gb[name])
        text = f"weights {gb['weights']:.3g} GB (mapped as stored) + at most {gb['peak']:.3g} GB ({parts})"
        return text + (f"; {self.flops / 1e9:.3g} GFLOP an application" if self.flops else "")


def estimate(
    spec: Spec,
    lengths: Sequence[int],
    itemsize: int,
    source: Site | None,
    target: Site | str | None,
    n_targets: int,
    k: int,
    threads: int = 1,
) -> Estimate:
    """lengths: tokens of the prompts, one batch. itemsize: of the core's scalar. source None: a forward pass only.
    n_targets: target positions of all prompts together. k: singular triplets."""
    n, C, V = sum(lengths), spec.d_model, spec.n_vocab
    W, WKV = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    worker = threads * (_attention(spec, max(lengths)) + max(_panel(m, itemsize) for y in spec.layers for m in _matrices(y)))
    block = n * (3 * C + W + spec.d_ff + _moe(spec)) + worker
    head_panel = threads * _panel(spec.lm_head, itemsize)
    if source is None or target is None:
        block += n * _widest(spec, spec.layers, itemsize)
        forward = n * (C + V) + max(block, n * (C + 1) + head_panel)
        return Estimate(spec.nbytes, itemsize * forward, 0, 0, 0, 0.0)
    head = isinstance(target, str)
    first = source.layer + (source.name in ("mlp_out", "resid_post"))
    last = spec.n_layers - 1 if isinstance(target, str) else target.layer
    taped = spec.layers[first : last + 1]
    n_t = max(1, min(k, _SWEEP_ROWS // n))
    rows = n_targets * (V if head else C)
    block += n * _widest(spec, spec.layers[:first], itemsize)
    forward = 4 * n * C + max(block, head_panel if head else 0)
    mlp = spec.d_ff * (1 + spec.gated) if not all(layer.experts for layer in taped) else 0
    sweep = n_t * n * (4 * C + 2 * W + 2 * WKV + mlp + _moe(spec)) + n * W + worker
    basis = min(rows, C, 4 * k + 150) * 2 * (rows + C)
    matrices = sum(_active(spec, layer) for layer in taped) * n + (n_targets * C * V if head else 0)
    attention = sum(len(taped) * 4 * length * length * W for length in lengths)  # four products, half of each masked
    return Estimate(
        weights=spec.nbytes,
        forward=itemsize * forward,
        tape=itemsize * (n * sum(_taped(spec, y, itemsize) for y in taped) + rows + (rows + n_targets * C if head else 0)),
        sweep=itemsize * (sweep + (n_t * rows + head_panel if head else 0)),
        basis=itemsize * basis,
        flops=2.0 * matrices + attention,
    )


def _attention(spec: Spec, max_keys: int) -> int:
    """Scratch of a worker in attention: csrc/ops/attention.c."""
    return 32 * (3 * max_keys + spec.head_dim)


def _panel(matrix: Array, itemsize: int) -> int:
    """Scratch of a worker that widens a matrix on its way into a product: csrc/kernels/linear.c."""
    n_in: int = matrix.shape[-1]
    if matrix.dtype.kind == "f" and matrix.itemsize == itemsize:
        return 0
    return n_in * min(matrix.size // n_in, max(16, 128 * 1024 // n_in))


def _moe(spec: Spec) -> int:
    """Scratch of a row and tangent in a mixture: moe_scratch of csrc/ops/moe.h."""
    return 2 * spec.d_model + 2 * spec.d_expert + spec.n_experts + spec.top_k if spec.n_experts else 0


def _matrices(layer: Layer) -> list[Array]:
    """The matrices of a layer, the first of its experts for all of them: they are alike."""
    owners = (layer, *layer.experts[:1])
    found = [getattr(owner, name, None) for owner in owners for name in (*MATRICES, "router")]
    return [matrix for matrix in found if matrix is not None]


def _active(spec: Spec, layer: Layer) -> int:
    """Weights that a row meets."""
    met: int = sum(matrix.size for matrix in _matrices(layer))
    for expert in layer.experts[1 : spec.top_k]:
        met += sum(matrix.size for matrix in vars(expert).values() if matrix is not None)
    return met


def _widest(spec: Spec, layers: Sequence[Layer], itemsize: int) -> int:
    """Numbers a row of the tape takes that layers share one after the other."""
    return max((_taped(spec, layer, itemsize) for layer in layers), default=0)


def _taped(spec: Spec, layer: Layer, itemsize: int) -> int:
    """Numbers a row of the layer's tape takes: csrc/model/tape.c, moe.c."""
    C, W, WKV = spec.d_model, spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    norms = sum(norm is not None for norm in (layer.norm1, layer.post1, layer.norm2, layer.post2))
    heads = {"none": 0, "full": 2, "head": spec.n_heads + spec.n_kv_heads}[spec.qk_norm]
    qk_norm = W + WKV + heads if heads else 0
    hidden, routing = spec.d_ff, 0
    if layer.experts:  # and three indices an assignment
        hidden = spec.top_k * spec.d_expert
        routing = spec.n_experts + spec.top_k * (C + 1 + 3 * 8 // itemsize)
    return norms * (C + 1) + qk_norm + routing + W + 2 * WKV + hidden * (1 + spec.gated)
