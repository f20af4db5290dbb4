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
    parts: dict[str, tuple[Any, ...]] = {}  # name → (names of stacks, their shape, rows of each expert), or another
    if at.gate is not None:
        parts[at.gate] = ((at.gate_stacks, (E, FE, C), slice(0, FE)), (at.gate_up_stacks, (E, 2 * FE, C), both[0]))
    parts |= {
        at.up: ((at.up_stacks, (E, FE, C), slice(0, FE)), (at.gate_up_stacks, (E, 2 * FE, C), both[1])),
        at.down: ((at.down_stacks, (E, C, FE), slice(0, C)),),
    }
    for layer in layers:
        for name in at.other_routers:
            for part in (".weight", ".bias"):
                if layer + name + part in out:
                    new = layer + at.router + part
                    out[new] = replace(out.pop(layer + name + part), name=new)
        for name, forms in parts.items():
            found = ((layer + one, shape, rows) for stacks, shape, rows in forms for one in stacks if layer + one in tensors)
            stack, shape, rows = next(found, ("", (), slice(0)))
            if not stack and at.stacked:
                first = next(one for stacks, _, _ in forms for one in stacks)
                raise BadCheckpoint(
                    f"there is no tensor {layer + first!r}, which its config asks for; "
                    "the download is incomplete or the config belongs to another model"
                )
            if not stack:
                continue
            _replace(out, tensors[stack], named(layer + at.path, name), ".weight", shape, rows, at.transposed)
            bias = stack.removesuffix(".weight") + ".bias" if stack.endswith(".weight") else stack + "_bias"
            if at.bias and bias in tensors:
                _replace(out, tensors[bias], named(layer + at.path, name), ".bias", shape[:2], rows, False)
    return out


def named(path: str, name: str) -> str:
    """The path of one matrix of an expert."""
    return path.replace("{name}", name) if "{name}" in path else f"{path}.{name}"


def _replace(
    out: dict[str, TensorRef], stack: TensorRef, path: str, part: str, shape: tuple[int, ...], rows: slice, transposed: bool
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

        return TensorRef(path.format(e=e) + part, stack.dtype, (n, *shape[2:]), stack.where, view)

    out.update({one.name: one for one in map(slice_of, range(shape[0]))})


def read_experts(reader: Reader, at: Experts, layer: str, f: Hyperparameters) -> dict[str, Any]:
    """The slots of one layer's mixture: router, experts, and what else this family has."""

    def expert(path: str, width: int, bias: bool) -> Expert:
        parts = {"gate": (at.gate, width, f.d_model), "up": (at.up, width, f.d_model), "down": (at.down, f.d_model, width)}
        slots: dict[str, Any] = {}
        for slot, (name, *shape) in parts.items():
            if name is None:
                continue
            slots[slot] = reader.matrix(named(path, name) + ".weight", tuple(shape))
            if bias:
                slots[slot + "_bias"] = reader.vector(named(path, name) + ".bias", (shape[0],))
        return Expert(**slots)

    slots: dict[str, Any] = {"router": reader.matrix(f"{layer}{at.router}.weight", (f.n_experts, f.d_model))}
    if at.bias:
        slots["router_bias"] = reader.vector(f"{layer}{at.router}.bias", (f.n_experts,))
    if at.correction:
        slots["correction"] = reader.vector(layer + at.correction, (f.n_experts,))
    if f.d_shared and at.shared_gate_up is not None:
        both = reader.matrix(f"{layer}{at.shared}.{at.shared_gate_up}.weight", (2 * f.d_shared, f.d_model))
        down = reader.matrix(f"{layer}{at.shared}.{at.shared_down}.weight", (f.d_model, f.d_shared))
        slots["shared"] = Expert(gate=both[: f.d_shared], up=both[f.d_shared :], down=down)
    elif f.d_shared:
        slots["shared"] = expert(layer + str(at.shared), f.d_shared, False)
    if at.shared_gate:
        slots["shared_gate"] = reader.matrix(f"{layer}{at.shared_gate}.weight", (1, f.d_model))
    slots["experts"] = tuple(expert(layer + at.path.replace("{e}", str(e)), f.d_expert, at.bias) for e in range(f.n_experts))
    return slots
