"""The GGUF format, of models and of control vectors: the header of a file, and the bytes of each tensor.

    "GGUF"  version  n_tensors  n_fields  fields (key, type, value)  tensor infos (name, dims, type, offset)  data

Such files are untrusted input, so the header is walked here and not by the `gguf` library, which is optional and reads
whatever a header claims: every length is checked against the bytes that are left before anything is read or allocated,
sizes are Python integers, and the tensors must lie in the file without overlap.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, NotFound, UnsupportedModel
from .blocks import Array
from .tensor_ref import file_bytes

__all__ = ["ALIGNMENT", "STRING", "TYPE_F32", "UINT32", "Header", "TensorInfo", "Texts", "read_header"]

ALIGNMENT = 32  # of a tensor's first byte, unless the file says otherwise
TYPE_F32 = 0  # number of the tensor type
_MAX_KEY = 1 << 16
# Types of values: number → struct code; 8 is a string, 9 an array
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
UINT32, _FLOAT32, _BOOL, STRING, _ARRAY = 4, 6, 7, 8, 9
_LENGTH = struct.Struct("<Q")  # of a text


@dataclass(frozen=True)
class TensorInfo:
    name: str
    kind: int  # number of the tensor type
    shape: tuple[int, ...]  # as NumPy's, the slowest axis first
    begin: int  # bytes from the start of the file


class Texts(Sequence[str]):
    """An array of texts, decoded when one is read: a vocabulary has hundreds of thousands."""

    def __init__(self, raw: mmap.mmap | bytes, start: int, n: int, bad: Callable[[str], BadCheckpoint]) -> None:
        """raw, start: where the first of n texts begins, the length before it; they lie within."""
        self._raw, self._start, self._n, self._bad = raw, start, n, bad

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        return self._texts[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    @cached_property
    def _texts(self) -> list[str]:
        """Raises BadCheckpoint for bytes that are not UTF-8."""
        texts, at, raw, length_at = [], self._start, self._raw, _LENGTH.unpack_from
        for _ in range(self._n):
            end = at + 8 + length_at(raw, at)[0]
            try:
                texts.append(raw[at + 8 : end].decode())
            except UnicodeDecodeError:
                raise self._bad(f"the text at byte {at + 8} is not UTF-8") from None
            at = end
        return texts


@dataclass(frozen=True)
class Header:
    path: Path
    data: mmap.mmap | bytes
    fields: dict[str, Any]  # arrays of numbers are arrays, arrays of texts are Texts
    tensors: tuple[TensorInfo, ...]

    def damaged(self, what: str) -> BadCheckpoint:
        return _damaged(self.path, what)

    def raw(self, n_bytes: Callable[[TensorInfo], int]) -> list[Array]:
        """The bytes of each tensor, uint8, sharing memory with the file. n_bytes: the size of a tensor.

        Raises BadCheckpoint if a tensor extends beyond the file or two tensors overlap.
        """
        sizes = [n_bytes(info) for info in self.tensors]
        for info, size in zip(self.tensors, sizes, strict=True):
            if info.begin + size > len(self.data):
                raise self.damaged(f"tensor {info.name!r} extends beyond the file's end at byte {len(self.data)}")
        ordered = sorted(zip(self.tensors, sizes, strict=True), key=lambda pair: pair[0].begin)
        for (before, size), (after, _) in pairwise(ordered):
            if after.begin < before.begin + size:
                raise self.damaged(f"tensors {before.name!r} and {after.name!r} overlap")
        return [
            np.frombuffer(self.data, np.uint8, size, info.begin) for info, size in zip(self.tensors, sizes, strict=True)
        ]


def read_header(path: Path, mapped: bool = True) -> Header:
    """Read the header of a file, and check it whole. Raises NotFound, BadCheckpoint, and UnsupportedModel for another
    version of the format."""
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    data = file_bytes(path, mapped)
    if len(data) < 24:
        raise BadCheckpoint(f"{path} is shorter than the header of a GGUF file; download it again")
    return _Walk(data, path).header()


def _damaged(path: Path, what: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path}: {what}; the file is damaged, download it again")


class _Walk:
    """Walks the bytes of a file from front to back."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def bad(self, what: str) -> BadCheckpoint:
        return _damaged(self.path, what)

    def take(self, n: int) -> int:
        """Step over n bytes; returns where they begin."""
        if n > len(self.data) - self.at:
            raise self.bad(f"its header extends beyond the file's end at byte {len(self.data)}")
        self.at += n
        return self.at - n

    def number(self, code: str) -> Any:
        return struct.unpack_from(code, self.data, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        start = self.take(length) if (length := self.number("<Q")) else self.at
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad(f"the text at byte {start} is not UTF-8") from None

    def name(self, known: dict[str, Any], what: str) -> str:
        name = self.text()
        if not name or len(name) > _MAX_KEY:
            raise self.bad(f"it has a {what} of {len(name)} letters")
        if name in known:
            raise self.bad(f"it has the {what} {name!r} twice")
        return name

    def value(self, key: str) -> Any:
        kind = self.number("<I")
        if kind == STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise self.bad(f"{key!r} has the unknown value type {kind}")
        value = self.number(_SCALARS[kind])
        if kind == _FLOAT32:
            return float(str(np.float32(value)))  # 1e-05, as the model's config has it, not 9.99999975e-06
        return bool(value) if kind == _BOOL else value

    def array(self, key: str) -> Array | Texts:
        kind, n = self.number("<I"), self.number("<Q")
        if kind == STRING:
            return self.texts(n)
        if kind not in _SCALARS:
            raise self.bad(f"{key!r} is an array of the value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        start = self.take(n * dtype.itemsize)
        return np.frombuffer(self.data, dtype, n, start)

    def texts(self, n: int) -> Texts:
        """Step over n texts. Each takes 8 bytes or more of the file, so a false n ends soon."""
        start = at = self.at
        last, length_at = len(self.data) - 8, _LENGTH.unpack_from
        for _ in range(n):
            if at > last:
                at += 8
                break
            at += 8 + length_at(self.data, at)[0]
        self.take(at - start)
        return Texts(self.data, start, n, self.bad)

    def header(self) -> Header:
        if self.data[self.take(4) : 4] != b"GGUF":
            raise BadCheckpoint(f"{self.path} does not begin with GGUF; is it a file in that format?")
        version = self.number("<I")
        if version not in (2, 3):
            raise UnsupportedModel(
                f"{self.path} has GGUF version {version}; little-endian files of version 2 and 3 are supported. "
                "Convert it again with a current llama.cpp"
            )
        n_tensors, n_fields = self.number("<Q"), self.number("<Q")
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            key = self.name(fields, "key")
            fields[key] = self.value(key)
        alignment = fields.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self.bad(f"general.alignment is {alignment!r}, not a power of two")
        infos: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(n_tensors):
            name = self.name(infos, "tensor")
            infos[name] = self.tensor_info(name)
        start = -(-self.at // alignment) * alignment
        tensors = tuple(TensorInfo(name, kind, shape, start + offset) for name, (kind, shape, offset) in infos.items())
        return Header(self.path, self.data, fields, tensors)

    def tensor_info(self, name: str) -> tuple[int, tuple[int, ...], int]:
        """(type, shape, offset from the first tensor's byte)"""
        n_dims = self.number("<I")
        if not 1 <= n_dims <= 4:
            raise self.bad(f"tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self.number("<Q") for _ in range(n_dims))[::-1]
        if not all(shape):
            raise self.bad(f"tensor {name!r} has shape {shape}")
        return self.number("<I"), shape, self.number("<Q")
