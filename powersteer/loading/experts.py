"""A layer's mixture of experts from its tensors: separate matrices, as in files, or stacked ones, as in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import BadCheckpoint
from .blocks import Blocks, Matrix
from .family import Experts, Hyperparameters
from .spec import Expert
from .tensor_ref import TensorRef

__all__ = ["one_by_one", "read_experts"]

# Names of the stacks in transformers, for every family; gate and up follow each other within each expert
_ROUTER, _GATE_UP, _DOWN = "mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"


def one_by_one(tensors: Mapping[str, TensorRef], at: Experts, layers: list[str], f: Hyperparameters) -> dict[str, TensorRef]:
    """The tensors with every stack replaced by its experts' matrices, views under the names of files.

    layers: the prefix of each layer. Raises BadCheckpoint for a stack whose shape differs from the config's.
    """
    out = dict(tensors)
    E, FE, C = f.n_experts, f.d_expert, f.d_model
    for layer in layers:
        if layer + _ROUTER in out:
            name = f"{layer}{at.router}.weight"
            out[name] = replace(out.pop(layer + _ROUTER), name=name)
        parts = {  # name → (matrix, shape of the stack, rows of each expert)
            at.gate: (_GATE_UP, (E, 2 * FE, C), slice(0, FE)),
            at.up: (_GATE_UP, (E, 2 * FE, C), slice(FE, None)),
            at.down: (_DOWN, (E, C, FE), slice(None)),
        }
        for name, (stack, shape, rows) in parts.items():
            tensor = tensors.get(layer + stack)
            if tensor is None:
                continue
            if tensor.shape != shape:
                raise BadCheckpoint(
                    f"tensor {layer + stack!r} in {tensor.where} has shape {tensor.shape} where the config says "
                    f"{shape}; one of them belongs to another model"
                )
            out.pop(layer + stack, None)  # gate and up share one
            for e in range(E):
                path = f"{layer}{at.path.format(e=e)}.{name}.weight"
                out[path] = _slice_of(tensor, path, e, rows, shape)
    return out


def _slice_of(tensor: TensorRef, name: str, e: int, rows: slice, shape: tuple[int, ...]) -> TensorRef:
    first, end, _ = rows.indices(shape[1])

    def view() -> Matrix:
        stack = tensor.view()
        return stack[e * shape[1] + first : e * shape[1] + end] if isinstance(stack, Blocks) else stack[e, first:end]

    return TensorRef(name, tensor.dtype, (end - first, shape[2]), tensor.where, view)


def read_experts(matrix: Callable[..., Matrix], at: Experts, layer: str, f: Hyperparameters) -> tuple[Matrix, tuple[Expert, ...]]:
    """Router and experts of one layer. matrix(name, shape) finds a tensor."""
    wide, tall = (f.d_expert, f.d_model), (f.d_model, f.d_expert)
    router = matrix(f"{layer}{at.router}.weight", (f.n_experts, f.d_model))

    def expert(path: str) -> Expert:
        return Expert(
            gate=matrix(f"{path}.{at.gate}.weight", wide),
            up=matrix(f"{path}.{at.up}.weight", wide),
            down=matrix(f"{path}.{at.down}.weight", tall),
        )

    return router, tuple(expert(layer + at.path.format(e=e)) for e in range(f.n_experts))
