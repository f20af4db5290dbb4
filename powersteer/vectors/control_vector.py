"""GGUF control vectors, the files that llama.cpp's --control-vector reads.

A little-endian GGUF file whose tensors are `direction.N`, float32, (d,), N >= 1: llama.cpp adds direction.N to the
output of block N (counted from 0) at every position. It reads the tensors only; other tools also want the keys
general.architecture = "controlvector", controlvector.model_hint (the model_type) and controlvector.layer_count.

Whose N is whose: repeng trains direction.N on the output of block N and adds it there, as llama.cpp does; it may also
have N = 0, which llama.cpp refuses. llama.cpp's own cvector-generator names the direction of block N's output
direction.N+1, so that it is applied one block later than where it was found: what is read here is where it is applied.

The codec is written out here because the file is small and may come from a stranger: every length is checked against
the bytes that are left before anything is read or allocated.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.atomic import write_bytes
from ..errors import InvalidInput, NotFound

__all__ = ["ControlVector", "read_control_vector", "write_control_vector"]

_ALIGNMENT = 32
_MAX_STRING = 1 << 24
# GGUF value types: number -> struct code; 8 is a string, 9 an array
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_F32 = 0


@dataclass(frozen=True)
class ControlVector:
    directions: dict[int, NDArray[np.float32]]  # N -> (d,)
    fields: dict[str, Any]  # the file's keys; arrays are skipped


def write_control_vector(
    path: str | os.PathLike[str], directions: Mapping[int, NDArray[Any]], fields: Mapping[str, str | int]
) -> None:
    """Write `directions` (N -> (d,), N >= 1) with the keys `fields`, text or non-negative integers, all or nothing."""
    infos, data = bytearray(), bytearray()
    for n, direction in sorted(directions.items()):
        infos += _text(f"direction.{n}") + struct.pack("<IQIQ", 1, len(direction), _F32, len(data))
        data += np.asarray(direction, dtype="<f4").tobytes()
        data += bytes(-len(data) % _ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(directions), len(fields))
    for key, value in fields.items():
        head += _text(key)
        head += (
            struct.pack("<II", _UINT32, value) if isinstance(value, int) else struct.pack("<I", _STRING) + _text(value)
        )
    head += infos
    write_bytes(path, head + bytes(-len(head) % _ALIGNMENT) + data)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def read_control_vector(path: str | os.PathLike[str]) -> ControlVector:
    """Read a file of `direction.N` tensors. Raises NotFound, or InvalidInput naming what the file has instead."""
    if not Path(path).is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 24:
            raise InvalidInput(f"{str(path)!r} is no GGUF file: it is shorter than the header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, str(path)).control_vector()


class _Reader:
    """Walks the bytes of a file from front to back."""

    def __init__(self, data: mmap.mmap, path: str) -> None:
        self.data, self.path, self.at = data, path, 0

    def error(self, what: str) -> InvalidInput:
        return InvalidInput(f"cannot read {self.path!r} as a GGUF control vector: {what}")

    def take(self, n: int) -> int:
        """Step over n bytes; returns where they begin."""
        if n > len(self.data) - self.at:
            raise self.error(f"it ends early, at byte {len(self.data)}")
        self.at += n
        return self.at - n

    def number(self, code: str) -> Any:
        return struct.unpack_from(code, self.data, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        length = self.number("<Q")
        if length > _MAX_STRING:
            raise self.error(f"it holds a text of {length} bytes")
        start = self.take(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"the text at byte {start} is not UTF-8") from None

    def value(self) -> Any:
        kind = self.number("<I")
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.skip_array()
        if kind not in _SCALARS:
            raise self.error(f"unknown value type {kind}")
        return self.number(_SCALARS[kind])

    def skip_array(self) -> None:
        kind, n = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            self.take(n * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(n):  # each takes 8 bytes or more of the file, so a false n ends soon
                self.string()
        else:
            raise self.error(f"an array of value type {kind}")

    def control_vector(self) -> ControlVector:
        if self.data[self.take(4) : 4] != b"GGUF":
            raise self.error("it does not begin with GGUF")
        version = self.number("<I")
        if version not in (2, 3):
            raise self.error(f"GGUF version {version}; little-endian files of version 2 and 3 are read")
        n_tensors, n_fields = self.number("<Q"), self.number("<Q")
        fields = {}
        for _ in range(n_fields):
            key = self.string()
            fields[key] = self.value()
        tensors = [self.tensor_info() for _ in range(n_tensors)]
        if not tensors:
            raise self.error("it holds no tensor")
        alignment = fields.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.error(f"general.alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        directions: dict[int, NDArray[np.float32]] = {}
        for n, length, offset in tensors:
            if n in directions:
                raise self.error(f"direction.{n} is there twice")
            self.at = start + offset
            begin = self.take(4 * length)
            directions[n] = np.frombuffer(self.data[begin : begin + 4 * length], dtype="<f4").astype(np.float32)
        return ControlVector(directions, fields)

    def tensor_info(self) -> tuple[int, int, int]:
        """(N, length, offset) of a tensor direction.N"""
        name, n_dims = self.string(), self.number("<I")
        match = re.fullmatch(r"direction\.([0-9]{1,6})", name)
        if match is None:
            raise self.error(f"the tensor {name[:80]!r} is no direction.N: is this a model?")
        if n_dims != 1:
            raise self.error(f"{name} has {n_dims} dimensions; 1 is needed")
        length, kind, offset = self.number("<Q"), self.number("<I"), self.number("<Q")
        if kind != _F32:
            raise self.error(f"{name} has GGML type {kind}; F32 (0) is needed")
        if not length or int(match[1]) < 1:
            raise self.error(f"{name} of length {length}: N counts from 1 and a direction is not empty")
        return int(match[1]), length, offset
