"""A GGUF model file as metadata and named tensors.

Matrices of the types that the core knows are used as they are stored. Those of other types are decoded by the `gguf`
library, to float32, when they are first viewed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependency, UnsupportedModel
from .blocks import BLOCK_TYPES, Array, Blocks
from .gguf_header import TYPE_F32, Header, TensorInfo, read_header
from .tensor_ref import ITEMSIZE, TensorRef, array_at, read_sparsely

__all__ = ["GGUF", "open_gguf"]

# Tensor types that are used as they are stored: number → dtype as safetensors spells it
_PLAIN = {TYPE_F32: "F32", 1: "F16", 28: "F64", 30: "BF16"}
_BLOCKS = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    20: "IQ4_NL", 23: "IQ4_XS", 39: "MXFP4",
}  # fmt: skip
_CHUNK = 1 << 22  # elements decoded at a time


@dataclass(frozen=True)
class GGUF:
    path: Path
    fields: dict[str, Any]  # arrays of numbers are arrays, arrays of texts are Texts
    tensors: dict[str, TensorRef]


def open_gguf(path: Path, mapped: bool = True) -> GGUF:
    """Read the header of a model file, and check it whole.

    Raises NotFound, BadCheckpoint; UnsupportedModel for another version or tensor type; MissingDependency if tensors must
    be decoded and there is no `gguf` library.
    """
    header = read_header(path, mapped)
    raw = header.raw(partial(_n_bytes, header))
    if all(info.kind in _PLAIN or info.kind in _BLOCKS for info in header.tensors):  # none is decoded at load
        read_sparsely(header.data)
    return GGUF(
        path=path,
        fields=header.fields,
        tensors={info.name: _tensor(info, data, str(path)) for info, data in zip(header.tensors, raw, strict=True)},
    )


def _n_bytes(header: Header, info: TensorInfo) -> int:
    if info.kind in _PLAIN:
        block, size = 1, ITEMSIZE[_PLAIN[info.kind]]
    else:
        block, size = BLOCK_TYPES[_BLOCKS[info.kind]][:2] if info.kind in _BLOCKS else _block(header, info)
    if info.shape[-1] % block:
        raise header.damaged(f"rows of {info.shape[-1]} numbers of tensor {info.name!r} are not whole blocks of {block}")
    return prod(info.shape) // block * size


def _block(header: Header, info: TensorInfo) -> tuple[int, int]:
    """Numbers and bytes of a block of a type that the core does not know."""
    try:
        sizes, decodable = _library()
    except ImportError:
        raise MissingDependency(
            f"tensor {info.name!r} in {header.path} has the type {info.kind}, which the gguf library decodes; install it "
            "(pip install 'powersteer[gguf]'), or get the model with another quantisation, such as Q4_K_M or Q8_0"
        ) from None
    if info.kind not in decodable:
        raise UnsupportedModel(
            f"tensor {info.name!r} in {header.path} has {_kind_name(info.kind)}, which cannot be decoded; "
            "get the model with another quantisation, such as Q8_0, or update the gguf library"
        )
    return sizes[info.kind]


def _tensor(info: TensorInfo, raw: Array, where: str) -> TensorRef:
    dtype = _PLAIN.get(info.kind)
    if dtype is not None:
        return TensorRef(info.name, dtype, info.shape, where, array_at(raw, dtype, info.shape))
    if info.kind in _BLOCKS:
        blocks = Blocks(_BLOCKS[info.kind], raw.reshape(prod(info.shape[:-1]), -1))
        if len(info.shape) in (2, 3):  # a stack of matrices is one above the other
            return TensorRef(info.name, blocks.kind, info.shape, where, lambda: blocks)
        return TensorRef(info.name, "F32", info.shape, where, cache(lambda: blocks.decode().reshape(info.shape)))
    return TensorRef(info.name, "F32", info.shape, where, cache(lambda: _decoded(raw, info)))


# ---- the gguf library ------------------------------------------------------------------------------------------------


@cache
def _library() -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
    """Numbers and bytes of a block of every type, and the types that can be decoded."""
    import gguf

    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}

    def can_decode(kind: int) -> bool:
        block, size = sizes[kind]
        try:
            gguf.dequantize(np.zeros((1, size), np.uint8), gguf.GGMLQuantizationType(kind))
        except NotImplementedError:
            return False
        return block > 1

    return sizes, frozenset(filter(can_decode, sizes))


def _kind_name(kind: int) -> str:
    import gguf

    names: dict[int, str] = {int(one): one.name for one in gguf.GGMLQuantizationType}
    return f"the type {names[kind]}" if kind in names else f"the unknown type {kind}"


def _decoded(raw: Array, info: TensorInfo) -> Array:
    """A quantised tensor in float32, some rows at a time so that little more than the result is in memory."""
    import gguf

    decode: Callable[..., Array] = gguf.dequantize
    kind = gguf.GGMLQuantizationType(info.kind)
    rows = raw.reshape(prod(info.shape[:-1]), -1)
    out = np.empty((len(rows), info.shape[-1]), np.float32)
    step = max(1, _CHUNK // info.shape[-1])
    with np.errstate(all="ignore"):  # damaged scales make NaN, which is looked for later
        for i in range(0, len(rows), step):
            out[i : i + step] = decode(rows[i : i + step], kind)
    return out.reshape(info.shape)
