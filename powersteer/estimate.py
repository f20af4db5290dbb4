"""What a computation will take, before it is started: bytes by what they are for, and floating-point operations.

The formulas are those of the core's arenas (csrc/tape.c, block.c, svd_krylov.c); tests compare them with what is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .sites import Site
from .spec import Layer, Spec

__all__ = ["Estimate", "estimate"]

_SWEEP_ROWS = 1024  # csrc/jacobian.c


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
    spec: Spec, lengths: Sequence[int], itemsize: int, source: Site | None, target: Site | str | None, n_targets: int, k: int
) -> Estimate:
    """lengths: tokens of the prompts, one batch. itemsize: of the core's scalar. source None: a forward pass only.
    n_targets: target positions of all prompts together. k: singular triplets."""
    n, C = sum(lengths), spec.d_model
    W, WKV = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    width = max(_hidden(spec, layer) for layer in spec.layers)
    forward = n * (5 * C + 2 * W + 2 * WKV + 3 * width + spec.n_vocab)
    if source is None or target is None:
        return Estimate(spec.nbytes, itemsize * forward, 0, 0, 0, 0.0)
    head = isinstance(target, str)
    first = source.layer + (source.name in ("mlp_out", "resid_post"))
    last = spec.n_layers - 1 if isinstance(target, str) else target.layer
    taped = spec.layers[first : last + 1]
    n_t = max(1, min(k, _SWEEP_ROWS // n))
    rows = n_targets * (spec.n_vocab if head else C)
    basis = min(rows, C, 4 * k + 150) * 2 * (rows + C)
    sweep = n_t * n * (4 * C + 2 * W + 2 * WKV + 2 * width) + (n_t * rows if head else 0)
    matrices = sum(_active(spec, layer) for layer in taped) * n + (n_targets * C * spec.n_vocab if head else 0)
    attention = sum(len(taped) * 4 * length * length * W for length in lengths)  # four products a head, half of each masked
    return Estimate(
        weights=spec.nbytes,
        forward=itemsize * forward,
        tape=itemsize * n * sum(_taped(spec, layer) for layer in taped),
        sweep=itemsize * sweep,
        basis=itemsize * basis,
        flops=2.0 * matrices + attention,
    )


def _hidden(spec: Spec, layer: Layer) -> int:
    """Numbers of the MLP's hidden layer that a row needs."""
    return spec.top_k * spec.d_expert if layer.experts else spec.d_ff


def _active(spec: Spec, layer: Layer) -> int:
    """Weights that a row meets."""
    matrices = [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down, layer.router]
    for expert in layer.experts[: spec.top_k]:  # all of one size
        matrices += [expert.gate, expert.up, expert.down]
    return sum(m.size for m in matrices if m is not None)


def _taped(spec: Spec, layer: Layer) -> int:
    """Numbers a row of the layer's tape takes."""
    C, W, WKV = spec.d_model, spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    norms = sum(norm is not None for norm in (layer.norm1, layer.post1, layer.norm2, layer.post2))
    heads = {"none": 0, "full": 2, "head": spec.n_heads + spec.n_kv_heads}[spec.qk_norm]
    qk_norm = W + WKV + heads if heads else 0
    routing = spec.n_experts + spec.top_k * (C + 4) if layer.experts else 0
    return norms * (C + 1) + qk_norm + W + 2 * WKV + routing + _hidden(spec, layer) * (2 if spec.gated else 1)
