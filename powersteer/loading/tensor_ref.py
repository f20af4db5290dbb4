"""References to tensors: name, dtype and shape, and the array on request, mapped from a file or shared with its owner."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .spec import Array

__all__ = ["ITEMSIZE", "TensorRef", "array_at", "check_finite", "file_bytes"]

# Bytes per element of each safetensors dtype. The missing ones (4- and 6-bit floats) occur only in quantised checkpoints.
ITEMSIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
# bfloat16 has no NumPy dtype: its bits are a uint16
_NUMPY: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
# Bits of the largest finite magnitude of each dtype, as an integer
_FINITE = {"F32": 0x7F7FFFFF, "F64": 0x7FEFFFFFFFFFFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}


@dataclass(frozen=True)
class TensorRef:
    """A named tensor that is not read yet. `view()` returns its array, which shares memory with the file or its owner."""

    name: str
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    where: str  # the file, for messages
    _view: Callable[[], Array]

    def view(self) -> Array:
        """The array, sharing memory. Raises UnsupportedModel for a dtype that is not a float of 16 bits or more."""
        if self.dtype not in _NUMPY:
            raise UnsupportedModel(
                f"tensor {self.name!r} in {self.where} has dtype {self.dtype}; weights must be F32, F64, F16 or BF16. "
                "Load an unquantised checkpoint of this model"
            )
        return self._view()

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEMSIZE[self.dtype]


def file_bytes(path: Path, mapped: bool = True) -> mmap.mmap | bytes:
    """The bytes of a file, mapped or read."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped and file.seek(0, 2) else file.read()


def array_at(raw: Array, dtype: str, shape: tuple[int, ...]) -> Callable[[], Array]:
    """The `view` of a TensorRef whose elements are the bytes `raw`; they are copied if they are not aligned."""

    def view() -> Array:
        aligned = raw.copy() if raw.ctypes.data % ITEMSIZE[dtype] else raw
        array: Array = aligned.view(_NUMPY[dtype]).reshape(shape)
        return array

    return view


def check_finite(tensor: TensorRef, array: Array) -> None:
    """Raise BadCheckpoint if the array, as `tensor.view()` gives it, holds a NaN or an infinity.

    Reads the bits as integers, a megabyte at a time, so that the check needs little memory.
    """
    limit = _FINITE[tensor.dtype]
    bits = np.dtype(f"u{array.dtype.itemsize}")
    magnitude = bits.type((1 << (8 * bits.itemsize - 1)) - 1)
    scratch = np.empty((1 << 20) // bits.itemsize, bits)
    for rows in _pieces(array, scratch.size):
        part = scratch[: rows.size].reshape(rows.shape)
        np.bitwise_and(rows.view(bits), magnitude, out=part)
        if part.size and int(part.max()) > limit:
            raise BadCheckpoint(
                f"tensor {tensor.name!r} in {tensor.where} holds NaN or infinity; "
                "the file is damaged or the training diverged, so get another copy or an earlier checkpoint"
            )


def _pieces(array: Array, size: int) -> Iterable[Array]:
    """Views of at most `size` elements that together cover `array`."""
    if array.ndim == 0:
        yield array.reshape(1)
    elif array.size <= size:
        yield array
    elif array.ndim == 1:
        yield from (array[i : i + size] for i in range(0, len(array), size))
    elif (row := array[0].size) <= size:
        step = size // row
        yield from (array[i : i + step] for i in range(0, len(array), step))
    else:
        for part in array:
            yield from _pieces(part, size)
