"""Matrices of blocks: quantised weights as their file stores them, a few bits a number and factors that numbers share."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core._core32 import BLOCK_RUN, BLOCK_TYPES, decode_blocks

__all__ = ["BLOCK_RUN", "BLOCK_TYPES", "Array", "Blocks", "Matrix", "dense", "numbers"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix (n_out, n_in) of a type of BLOCK_TYPES, with the attributes of an array that loading needs.

    n_in is a multiple of BLOCK_RUN. Where factors lie apart, each row of the matrix has a row of them.
    """

    kind: str
    data: Array  # (n_out, bytes of a row) uint8
    factors: Array | None = None  # (n_out, n) float32 or uint8
    factor_run: int = 0  # numbers of a row that share a factor

    @property
    def shape(self) -> tuple[int, int]:
        numbers, size, _ = BLOCK_TYPES[self.kind]
        return self.data.shape[0], self.data.shape[1] // size * numbers

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.factors is None else self.factors.nbytes)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice) -> Blocks:
        """Some rows, sharing memory."""
        return Blocks(self.kind, self.data[rows], None if self.factors is None else self.factors[rows], self.factor_run)

    def decode(self) -> NDArray[np.float32]:
        """The numbers, (n_out, n_in)."""
        out = np.empty(self.shape, np.float32)
        decode_blocks(self.to_core(), out)
        return out

    def to_core(self) -> tuple[str, Array, Array | None, int]:
        """The matrix as the core takes it."""
        return self.kind, self.data, self.factors, self.factor_run


Matrix = Array | Blocks


def dense(matrix: Matrix) -> Array:
    """The matrix as an array, decoded if it consists of blocks."""
    return matrix.decode() if isinstance(matrix, Blocks) else matrix


def numbers(array: Array) -> Array:
    """The numbers of an array as weights are stored: float64 as it is, other floats and the bits of a bfloat16, which are a
    uint16, as float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32)
