"""A checkpoint folder as named tensors: safetensors in one file or in shards, memory-mapped or, where that is asked for, read.

Headers come from strangers. Everything in one is checked against the file before any tensor is viewed: sizes are
Python integers, so nothing wraps around, and the tensors must tile the data exactly, as the format demands.
"""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, NotFound, UnsupportedModel
from .spec import Array

__all__ = ["TensorRef", "check_finite", "contents", "no_weights", "open_weights", "read_json"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_MAX_JSON = 64 << 20

# Bytes an element of each dtype of the format; those that are not here (4- and 6-bit floats) exist only quantised.
_ITEMSIZE = {
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
# Largest finite magnitude of each, as the integer that its bits without the sign spell
_FINITE = {"F32": 0x7F7FFFFF, "F64": 0x7FEFFFFFFFFFFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}


@dataclass(frozen=True)
class TensorRef:
    """A tensor where it lies. `view()` is its array: a window on the file, or on memory someone else holds."""

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
        return prod(self.shape) * _ITEMSIZE[self.dtype]


def contents(path: Path, mapped: bool) -> mmap.mmap | bytes:
    """The bytes of a file: a window on it, or a copy."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped and file.seek(0, 2) else file.read()


def open_weights(folder: Path, mapped: bool = True) -> tuple[dict[str, TensorRef], tuple[Path, ...]]:
    """All tensors of a checkpoint folder by name, and the files they are in.

    Raises NotFound if there are no safetensors weights, UnsupportedModel if the folder holds weights of another
    format (saying how to convert them), BadCheckpoint for files that contradict themselves.
    """
    if (folder / SINGLE).is_file():
        files = (folder / SINGLE,)
        return _by_name(_open_file(files[0], mapped)), files
    if (folder / INDEX).is_file():
        return _open_sharded(folder / INDEX, mapped)
    raise no_weights(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises NotFound, or BadCheckpoint if it is not one object with distinct keys."""
    try:
        size = path.stat().st_size
        if size > _MAX_JSON:
            raise BadCheckpoint(f"{path} has {size} bytes, too many for a JSON file of a checkpoint; download it again")
        text = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no {path.name} in {path.parent}; is this the folder of a checkpoint?") from None
    return _parse_object(text, str(path))


def check_finite(tensor: TensorRef, array: Array) -> None:
    """Raise BadCheckpoint if the array, as `tensor.view()` gives it, holds a NaN or an infinity.

    Reads the bits as integers, a megabyte at a time, so that the check needs no memory to speak of.
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
    """Views that cover `array`, of at most `size` elements each."""
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


# ---- one file --------------------------------------------------------------------------------------------------------


def _open_file(path: Path, mapped: bool) -> list[TensorRef]:
    where = str(path)
    if not path.is_file():
        raise NotFound(f"there is no file {where}; the download is incomplete")
    data = np.frombuffer(contents(path, mapped), np.uint8)
    size = len(data)
    if size < 8:
        raise BadCheckpoint(f"{where} has {size} bytes, too few for a safetensors file; download it again")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise BadCheckpoint(
            f"{where}: the header claims {length} bytes but the file has {size}; it is truncated or not safetensors"
        )
    header = _parse_object(data[8 : 8 + length].tobytes(), f"the header of {where}")
    header.pop("__metadata__", None)
    body = data[8 + length :]
    entries = [_entry(name, entry, where) for name, entry in header.items()]
    _check_tiling(entries, len(body), where)
    return [_stored(entry, body, where) for entry in entries]


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _entry(name: str, entry: Any, where: str) -> _Entry:
    def bad(why: str) -> BadCheckpoint:
        return BadCheckpoint(f"tensor {name!r} in {where}: {why}; the file is damaged, download it again")

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise bad("its header entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise bad("its header entry has values of the wrong type")
    if dtype not in _ITEMSIZE:
        raise UnsupportedModel(
            f"tensor {name!r} in {where} has dtype {dtype}, which only quantised checkpoints use; "
            "load an unquantised checkpoint of this model"
        )
    begin, end = offsets
    if end - begin != prod(shape) * _ITEMSIZE[dtype]:
        raise bad(f"{dtype} of shape {tuple(shape)} does not fill bytes {begin} to {end}")
    return _Entry(name, dtype, tuple(shape), begin, end)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_tiling(entries: list[_Entry], size: int, where: str) -> None:
    """The tensors must cover the data without gaps and without overlaps."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            why = "overlaps another tensor" if entry.begin < at else "leaves a gap before it"
            raise BadCheckpoint(f"tensor {entry.name!r} in {where} {why}; the file is damaged, download it again")
        at = entry.end
    if at != size:
        raise BadCheckpoint(
            f"{where} holds {size} bytes of tensors where its header describes {at}; "
            "it is truncated or has a tail, download it again"
        )


def _stored(entry: _Entry, body: Array, where: str) -> TensorRef:
    def view() -> Array:
        raw = body[entry.begin : entry.end]
        dtype = _NUMPY[entry.dtype]
        if raw.ctypes.data % dtype.itemsize:
            raw = raw.copy()  # a writer that does not align its data; the library's own always does
        array: Array = raw.view(dtype).reshape(entry.shape)
        return array

    return TensorRef(entry.name, entry.dtype, entry.shape, where, view)


# ---- folders ---------------------------------------------------------------------------------------------------------


def _open_sharded(index: Path, mapped: bool) -> tuple[dict[str, TensorRef], tuple[Path, ...]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise BadCheckpoint(f"{index} has no weight_map of tensor names to file names; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        _check_inside(name, index)
    files = tuple(index.parent / name for name in names)
    tensors = _by_name(tensor for file in files for tensor in _open_file(file, mapped))
    for name, file_name in weight_map.items():
        if name not in tensors or tensors[name].where != str(index.parent / file_name):
            raise BadCheckpoint(f"tensor {name!r} is not in {file_name}, where {index} says it is; download both again")
    if extra := next((name for name in tensors if name not in weight_map), None):
        raise BadCheckpoint(f"tensor {extra!r} in {tensors[extra].where} is not in {index}; download both again")
    return tensors, files


def _check_inside(name: str, index: Path) -> None:
    """A file name in an index may not lead out of the checkpoint's folder, in any system's spelling."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not name or "\0" in name or path.is_absolute() or path.drive or path.root or ".." in path.parts:
            raise BadCheckpoint(f"{index} names the file {name!r}, which is not inside its folder; do not trust it")


def _by_name(tensors: Iterable[TensorRef]) -> dict[str, TensorRef]:
    found: dict[str, TensorRef] = {}
    for tensor in tensors:
        if other := found.get(tensor.name):
            raise BadCheckpoint(f"tensor {tensor.name!r} is in {other.where} and {tensor.where}; download both again")
        found[tensor.name] = tensor
    return found


_CONVERT = (
    "convert it once with transformers: AutoModelForCausalLM.from_pretrained(path).save_pretrained(new_path) "
    "and AutoTokenizer.from_pretrained(path).save_pretrained(new_path)"
)


def no_weights(folder: Path) -> Exception:
    names = sorted(path.name for path in folder.iterdir())
    if models := [name for name in names if name.lower().endswith(".gguf") and not name.startswith("mmproj")]:
        more = f", or another of its {len(models)} .gguf files" if len(models) > 1 else ""
        return UnsupportedModel(f"{folder} holds GGUF weights, and no {SINGLE}; give the file: {folder / models[0]}{more}")
    for suffixes, what, remedy in (
        ((".bin", ".pt", ".pth", ".ckpt"), "pickled weights, which can run code when read", _CONVERT),
        ((".h5", ".msgpack"), "weights of TensorFlow or Flax", _CONVERT),
    ):
        if found := next((name for name in names if name.endswith(suffixes)), None):
            return UnsupportedModel(f"{folder} holds {what} ({found}), and no {SINGLE}; {remedy}")
    if "adapter_config.json" in names:
        return UnsupportedModel(
            f"{folder} holds an adapter, not a model; merge it into its base (PEFT: merge_and_unload) and save that"
        )
    others = [name for name in names if name.endswith(".safetensors")]
    hint = f" ({', '.join(others[:3])} there is not read without an index)" if others else ""
    return NotFound(f"there is neither {SINGLE} nor {INDEX} in {folder}{hint}; give the folder of a checkpoint")


def _parse_object(text: bytes, where: str) -> dict[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise BadCheckpoint(f"{where} has the key {twice!r} twice; the file is damaged or hostile")
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=distinct)
    except BadCheckpoint:
        raise
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{where} is not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{where} is not a JSON object; download it again")
    return value
