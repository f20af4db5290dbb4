"""A layer's mixture of experts from its tensors: separate matrices, as in most files, or stacked ones, as in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ..errors import BadCheckpoint
from .blocks import BLOCK_TYPES, Array, Blocks, Matrix
from .family import Experts, Hyperparameters
from .spec import Expert
from .tensor_ref import TensorRef

__all__ = ["one_by_one", "read_experts"]


class Reader(Protocol):
    def matrix(self, name: str, shape: tuple[int, ...]) -> Matrix: ...
    def vector(self, name: str, shape: tuple[int, ...]) -> Array: ...


def one_by_one(tensors: Mapping[str, TensorRef], at: Experts, layers: list[str], f: Hyperparameters) -> dict[str, TensorRef]:
    """The tensors with every stack replaced by its experts' matrices and biases, views under the names of `at`.

    layers: the prefix of each layer that has a mixture. Raises BadCheckpoint for a stack whose shape differs from the config's,
    and for one that is missing where nothing else can take its place.
    """
    out = dict(tensors)
    E, FE, C = f.n_experts, f.d_expert, f.d_model
    both = (slice(0, 2 * FE, 2), slice(1, 2 * FE, 2)) if at.alternate else (slice(0, FE), slice(FE, 2 * FE))
    parts = {  # name → (names of the stack, its shape, rows of each expert)
        at.gate: (at.gate_up_stacks, (E, 2 * FE, C), both[0]),
        at.up: (at.gate_up_stacks, (E, 2 * FE, C), both[1]),
        at.down: (at.down_stacks, (E, C, FE), slice(0, C)),
    }
    for layer in layers:
        for name in at.other_routers:
            for part in (".weight", ".bias"):
                if layer + name + part in out:
                    new = layer + at.router + part
                    out[new] = replace(out.pop(layer + name + part), name=new)
        for name, (stacks, shape, rows) in parts.items():
            stack = next((layer + one for one in stacks if layer + one in tensors), None)
            if stack is None and at.stacked:
                raise BadCheckpoint(
                    f"there is no tensor {layer + stacks[0]!r}, which its config asks for; "
                    "the download is incomplete or the config belongs to another model"
                )
            if stack is None:
                continue
            _replace(out, tensors[stack], layer + at.path, name + ".weight", shape, rows, at.transposed)
            if at.bias and stack + "_bias" in tensors:
                _replace(out, tensors[stack + "_bias"], layer + at.path, name + ".bias", shape[:2], rows, False)
    return out


def _replace(
    out: dict[str, TensorRef], stack: TensorRef, path: str, name: str, shape: tuple[int, ...], rows: slice, transposed: bool
) -> None:
    """Take the stack out, if it is still there, and put in these rows of every expert's matrix or vector."""
    transposed = transposed and stack.dtype not in BLOCK_TYPES  # whose rows are always outputs
    stored = (shape[0], shape[2], shape[1]) if transposed else shape
    if stack.shape != stored:
        raise BadCheckpoint(
            f"tensor {stack.name!r} in {stack.where} has shape {stack.shape} where the config says "
            f"{stored}; one of them belongs to another model"
        )
    out.pop(stack.name, None)  # gate and up share one
    n = len(range(*rows.indices(shape[1])))

    def slice_of(e: int) -> TensorRef:
        def view() -> Any:
            matrix = stack.view()
            if isinstance(matrix, Blocks):
                return matrix[e * shape[1] + rows.start : e * shape[1] + rows.stop : rows.step]
            return matrix[e, :, rows].T if transposed else matrix[e, rows]

        return TensorRef(f"{path.format(e=e)}.{name}", stack.dtype, (n, *shape[2:]), stack.where, view)

    out.update({one.name: one for one in map(slice_of, range(shape[0]))})


def read_experts(reader: Reader, at: Experts, layer: str, f: Hyperparameters) -> dict[str, Any]:
    """The slots of one layer's mixture: router, experts, and what else this family has."""

    def expert(path: str, width: int, bias: bool) -> Expert:
        parts = {"gate": (at.gate, width, f.d_model), "up": (at.up, width, f.d_model), "down": (at.down, f.d_model, width)}
        slots: dict[str, Any] = {}
        for slot, (name, *shape) in parts.items():
            slots[slot] = reader.matrix(f"{path}.{name}.weight", tuple(shape))
            if bias:
                slots[slot + "_bias"] = reader.vector(f"{path}.{name}.bias", (shape[0],))
        return Expert(**slots)

    slots: dict[str, Any] = {"router": reader.matrix(f"{layer}{at.router}.weight", (f.n_experts, f.d_model))}
    if at.bias:
        slots["router_bias"] = reader.vector(f"{layer}{at.router}.bias", (f.n_experts,))
    if at.correction:
        slots["correction"] = reader.vector(layer + at.correction, (f.n_experts,))
    if f.d_shared:
        slots["shared"] = expert(layer + str(at.shared), f.d_shared, False)
    if at.shared_gate:
        slots["shared_gate"] = reader.matrix(f"{layer}{at.shared_gate}.weight", (1, f.d_model))
    slots["experts"] = tuple(expert(layer + at.path.format(e=e), f.d_expert, at.bias) for e in range(f.n_experts))
    return slots
