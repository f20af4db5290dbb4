"""A GGUF file as metadata and named tensors.

Such files come from strangers, so the header is walked here: every length is checked against the bytes that are left
before anything is read or allocated, sizes are Python integers, and the tensors must lie in the file without overlap.
Blocks of quantised numbers are decoded by the `gguf` library, to float32, when a tensor is first viewed.

    "GGUF"  version  n_tensors  n_fields  fields (key, type, value)  tensor infos (name, dims, type, offset)  data
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, MissingDependency, NotFound, UnsupportedModel
from .safetensors import TensorRef, contents
from .spec import Array

__all__ = ["GGUF", "open_gguf"]

_ALIGNMENT = 32
_MAX_KEY = 1 << 16
# Value types: number → how struct spells it; 8 is a string, 9 an array
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_F32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
# Tensor types that are used as they are stored: number → (name, dtype); a bfloat16 is its bits
_PLAIN = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 28: ("F64", "<f8"), 30: ("BF16", "<u2")}
_CHUNK = 1 << 22  # elements decoded at a time


@dataclass(frozen=True)
class GGUF:
    path: Path
    fields: dict[str, Any]  # arrays of numbers are arrays, of texts lists
    tensors: dict[str, TensorRef]  # shapes as NumPy's, the slowest axis first
    quantised: tuple[str, ...]  # the tensors among them that are decoded when viewed


def open_gguf(path: Path, mapped: bool = True) -> GGUF:
    """Read the header of a file, and check it whole. Raises NotFound, BadCheckpoint; UnsupportedModel for another
    version or tensor type; MissingDependency if there are quantised tensors and no `gguf` library."""
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}; give a .gguf file, or the folder of a checkpoint")
    data = contents(path, mapped)
    if len(data) < 24:
        raise BadCheckpoint(f"{path} is shorter than the header of a GGUF file; download it again")
    return _Walk(data, path).file()


@dataclass(frozen=True)
class _Info:
    name: str
    kind: int
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


class _Walk:
    """Walks the bytes of a file from front to back."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: {what}; the file is damaged, download it again")

    def take(self, n: int) -> int:
        """Step over n bytes; returns where they begin."""
        if n > len(self.data) - self.at:
            raise self.bad(f"its header or a tensor goes on beyond its {len(self.data)} bytes")
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

    def name(self, known: dict[str, Any] | set[str], what: str) -> str:
        name = self.text()
        if not name or len(name) > _MAX_KEY:
            raise self.bad(f"it has a {what} of {len(name)} letters")
        if name in known:
            raise self.bad(f"it has the {what} {name!r} twice")
        return name

    def value(self, key: str) -> Any:
        kind = self.number("<I")
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise self.bad(f"{key!r} has the unknown value type {kind}")
        value = self.number(_SCALARS[kind])
        if kind == _F32:
            return float(str(np.float32(value)))  # 1e-05, as the model's config has it, not 9.99999975e-06
        return bool(value) if kind == _BOOL else value

    def array(self, key: str) -> Array | list[str]:
        kind, n = self.number("<I"), self.number("<Q")
        if kind == _STRING:  # each takes 8 bytes or more of the file, so a false n ends soon
            return [self.text() for _ in range(n)]
        if kind not in _SCALARS:
            raise self.bad(f"{key!r} is an array of the value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        start = self.take(n * dtype.itemsize)
        return np.frombuffer(self.data, dtype, n, start)

    def file(self) -> GGUF:
        if self.data[self.take(4) : 4] != b"GGUF":
            raise BadCheckpoint(f"{self.path} does not begin with GGUF; is it a model in that format?")
        version = self.number("<I")
        if version not in (2, 3):
            raise UnsupportedModel(
                f"{self.path} is of GGUF version {version}; little-endian files of version 2 and 3 are read. "
                "Convert the model again with a current llama.cpp"
            )
        n_tensors, n_fields = self.number("<Q"), self.number("<Q")
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            key = self.name(fields, "key")
            fields[key] = self.value(key)
        alignment = fields.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self.bad(f"general.alignment is {alignment!r}, not a power of two")
        names: set[str] = set()
        raw = []
        for _ in range(n_tensors):
            raw.append(self.tensor_info(names))
            names.add(raw[-1][0])
        start = -(-self.at // alignment) * alignment
        infos = [self.placed(*one, start) for one in raw]
        self.check_apart(infos)
        return GGUF(
            path=self.path,
            fields=fields,
            tensors={info.name: self.stored(info) for info in infos},
            quantised=tuple(info.name for info in infos if info.kind not in _PLAIN),
        )

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def tensor_info(self, names: set[str]) -> tuple[str, int, tuple[int, ...], int]:
        """(name, type, shape, offset)"""
        name, n_dims = self.name(names, "tensor"), self.number("<I")
        if not 1 <= n_dims <= 4:
            raise self.bad(f"tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self.number("<Q") for _ in range(n_dims))[::-1]
        kind, offset = self.number("<I"), self.number("<Q")
        if not all(shape):
            raise self.bad(f"tensor {name!r} has shape {shape}")
        return name, kind, shape, offset

    def placed(self, name: str, kind: int, shape: tuple[int, ...], offset: int, start: int) -> _Info:
        if kind in _PLAIN:
            block, size = 1, np.dtype(_PLAIN[kind][1]).itemsize
        else:
            block, size = self.block(name, kind)
        if shape[-1] % block:
            raise self.bad(f"rows of {shape[-1]} numbers of tensor {name!r} are no whole blocks of {block}")
        self.at = start + offset
        begin = self.take(prod(shape) // block * size)
        return _Info(name, kind, shape, begin, self.at)

    def block(self, name: str, kind: int) -> tuple[int, int]:
        """Numbers and bytes of a block of a quantised type."""
        try:
            sizes, decodable = _library()
        except ImportError:
            raise MissingDependency(
                f"{self.path} holds quantised tensors; install gguf to read them (pip install 'powersteer[gguf]'), "
                "or get the model in F16 or BF16"
            ) from None
        if kind not in decodable:
            raise UnsupportedModel(
                f"tensor {name!r} in {self.path} has {_kind_name(kind)}, which cannot be decoded; "
                "get the model with another quantisation, such as Q8_0, or update the gguf library"
            )
        return sizes[kind]

    def check_apart(self, infos: list[_Info]) -> None:
        ordered = sorted(infos, key=lambda info: info.begin)
        for before, after in pairwise(ordered):
            if after.begin < before.end:
                raise self.bad(f"tensors {before.name!r} and {after.name!r} overlap")

    def stored(self, info: _Info) -> TensorRef:
        raw = np.frombuffer(self.data, np.uint8, info.end - info.begin, info.begin)
        if info.kind not in _PLAIN:
            return TensorRef(info.name, "F32", info.shape, str(self.path), cache(lambda: _decoded(raw, info, self.path)))
        dtype, spelt = _PLAIN[info.kind]

        def view() -> Array:
            aligned = raw.copy() if raw.ctypes.data % np.dtype(spelt).itemsize else raw
            array: Array = aligned.view(spelt).reshape(info.shape)
            return array

        return TensorRef(info.name, dtype, info.shape, str(self.path), view)


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


def _decoded(raw: Array, info: _Info, path: Path) -> Array:
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
