"""References to tensors: name, dtype and shape, and the matrix on request, mapped from a file or shared with its owner."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel
from .blocks import BLOCK_TYPES, Array, Blocks, Matrix, dense, numbers

__all__ = ["ITEMSIZE", "TensorRef", "array_at", "check_finite", "file_bytes", "read_sparsely", "sparse_reads"]

# Bytes per element of each safetensors dtype, but for floats of 4 and 6 bits
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
# Bits of the largest finite magnitude of each dtype, as an integer; uint16: of bfloat16
_FINITE = {"float32": 0x7F7FFFFF, "float64": 0x7FEFFFFFFFFFFFFF, "float16": 0x7BFF, "uint16": 0x7F7F}
_PIECE = 1 << 18  # bytes that are searched at a time: what a core caches


@dataclass(frozen=True)
class TensorRef:
    """A named tensor that is not read yet. `view()` returns its matrix, which shares memory with the file or its owner.

    A matrix of blocks has two axes; a tensor of more has the rows of its first axes below each other.
    """

    name: str
    dtype: str  # as safetensors spells it, or a type of blocks
    shape: tuple[int, ...]
    where: str  # the file, for messages
    _view: Callable[[], Matrix]

    def view(self) -> Matrix:
        """The matrix, sharing memory. Raises UnsupportedModel for a dtype that is neither a float of 16 bits or more nor
        a type of blocks."""
        matrix = self._view() if self.dtype in _NUMPY or self.dtype in BLOCK_TYPES else None
        if matrix is None or (isinstance(matrix, np.ndarray) and matrix.dtype == np.uint8):
            raise UnsupportedModel(
                f"tensor {self.name!r} in {self.where} has dtype {self.dtype}; weights must be F32, F64, F16 or BF16. "
                "Load an unquantised checkpoint of this model"
            )
        return matrix

    def numbers(self, rows: Sequence[int] | None = None) -> Array:
        """The numbers, or those of some rows, as float64 if they are stored as such, else as float32."""
        array = dense(self.view())
        return numbers(array if rows is None else array[rows])

    def raw(self) -> Array:
        """The bytes of a tensor of a dtype of one byte, in its shape."""
        matrix = self._view()
        assert not isinstance(matrix, Blocks) and matrix.dtype == np.uint8
        return matrix

    @property
    def nbytes(self) -> int:
        numbers, size = BLOCK_TYPES[self.dtype][:2] if self.dtype in BLOCK_TYPES else (1, ITEMSIZE[self.dtype])
        return prod(self.shape) // numbers * size


def file_bytes(path: Path, mapped: bool = True) -> mmap.mmap | bytes:
    """The bytes of a file, mapped or read."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped and file.seek(0, 2) else file.read()


_SPARSE: ContextVar[list[mmap.mmap] | None] = ContextVar("_SPARSE", default=None)


@contextmanager
def sparse_reads() -> Iterator[None]:
    """Around loading, which needs a few bytes of each tensor: of files given to `read_sparsely` the system reads the pages
    that hold them, and not a hundred around each."""
    token = _SPARSE.set([])
    try:
        yield
    finally:
        for data in _SPARSE.get() or ():
            data.madvise(mmap.MADV_NORMAL)
        _SPARSE.reset(token)


def read_sparsely(data: mmap.mmap | bytes) -> None:
    """Until the end of `sparse_reads`, if this is within."""
    maps = _SPARSE.get()
    if maps is not None and isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        data.madvise(mmap.MADV_RANDOM)
        maps.append(data)


def array_at(raw: Array, dtype: str, shape: tuple[int, ...]) -> Callable[[], Array]:
    """The `view` of a TensorRef whose elements are the bytes `raw`; they are copied if they are not aligned."""

    def view() -> Array:
        aligned = raw.copy() if raw.ctypes.data % ITEMSIZE[dtype] else raw
        array: Array = aligned.view(_NUMPY.get(dtype, np.uint8)).reshape(shape)
        return array

    return view


def check_finite(tensor: TensorRef, matrix: Matrix) -> None:
    """Raise BadCheckpoint if the matrix, as `tensor.view()` gives it, holds a NaN or an infinity.

    Reads the bits as integers, a quarter of a megabyte at a time, so that the check needs little memory.
    """
    if isinstance(matrix, Blocks):
        step = max(1, _PIECE // (4 * max(1, matrix.shape[1])))
        finite = all(_is_finite(matrix[i : i + step].decode()) for i in range(0, len(matrix), step))
    else:
        finite = _is_finite(matrix)
    if not finite:
        raise BadCheckpoint(
            f"tensor {tensor.name!r} in {tensor.where} holds NaN or infinity; "
            "the file is damaged or the training diverged, so get another copy or an earlier checkpoint"
        )


def _is_finite(array: Array) -> bool:
    limit = _FINITE[str(array.dtype)]
    bits = np.dtype(f"u{array.dtype.itemsize}")
    magnitude = bits.type((1 << (8 * bits.itemsize - 1)) - 1)
    scratch = np.empty(_PIECE // bits.itemsize, bits)
    for rows in _pieces(array, scratch.size):
        part = scratch[: rows.size].reshape(rows.shape)
        np.bitwise_and(rows.view(bits), magnitude, out=part)
        if part.size and int(part.max()) > limit:
            return False
    return True


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
