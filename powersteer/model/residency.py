"""Models larger than memory: the layers that stay in it, and what a pass reads from the file again."""

from __future__ import annotations

from collections.abc import Iterator

from .._core.memory import available_bytes
from ..loading.spec import Spec

__all__ = ["layer_bytes", "resident_layers", "streamed_bytes"]

_SHARE = 0.7  # of the memory that is free, for the weights


def layer_bytes(spec: Spec) -> Iterator[int]:
    """Bytes of the weights of each layer as stored, and of the LM head."""
    for layer in spec.layers:
        yield sum(weight.nbytes for owner in (layer, *layer.every_expert) for weight in vars(owner).values() if hasattr(weight, "nbytes"))
    yield spec.lm_head.nbytes


def resident_layers(spec: Spec) -> int:
    """How many of the first layers, and behind them the LM head, fit into the memory that is free now."""
    free = available_bytes()
    if free is None or spec.nbytes <= _SHARE * free:
        return spec.n_layers + 1
    taken = 0
    for layer, n_bytes in enumerate(layer_bytes(spec)):
        taken += n_bytes
        if taken > _SHARE * free:
            return layer
    return spec.n_layers + 1


def streamed_bytes(spec: Spec, resident: int, first: int, last: int) -> int:
    """Bytes that each pass through the layers first .. last reads from the file: 0 if these layers fit by themselves."""
    if resident > spec.n_layers:  # a plan asks for every pair
        return 0
    sizes = list(layer_bytes(spec))
    if sum(sizes[first : last + 1]) <= sum(sizes[:resident]):
        return 0
    return sum(sizes[max(first, resident) : last + 1])
