"""Safetensors weights of a checkpoint folder, in one file or in shards, as named tensors.

Headers are untrusted input. Everything in a header is checked against the file before any tensor is viewed: sizes are
Python integers, so nothing wraps around, and the tensors must tile the data exactly, as the format demands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .._util.json_files import parse_json_object, read_json
from ..errors import BadCheckpoint, NotFound, UnsupportedModel
from .tensor_ref import ITEMSIZE, TensorRef, array_at, file_bytes, read_sparsely

__all__ = ["INDEX", "SINGLE", "no_weights", "open_tensors", "open_weights"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library

def open_weights(folder: Path, mapped: bool = True) -> tuple[dict[str, TensorRef], tuple[Path, ...]]:
    """All tensors of a checkpoint folder by name, and their files.

    Raises NotFound if there are no safetensors weights, UnsupportedModel if the folder holds weights of another
    format (the message says how to convert them), BadCheckpoint for files that contradict themselves.
    """
    if (folder / SINGLE).is_file():
        files = (folder / SINGLE,)
        return open_tensors(files[0], mapped), files
    if (folder / INDEX).is_file():
        return _open_sharded(folder / INDEX, mapped)
    raise no_weights(folder)


# ---- one file --------------------------------------------------------------------------------------------------------


def open_tensors(path: Path, mapped: bool = True) -> dict[str, TensorRef]:
    """All tensors of one file by name. Raises NotFound, and BadCheckpoint for a file that contradicts itself."""
    return _by_name(_open_file(path, mapped))


def _open_file(path: Path, mapped: bool) -> list[TensorRef]:
    where = str(path)
    if not path.is_file():
        raise NotFound(f"there is no file {where}; the download is incomplete")
    source = file_bytes(path, mapped)
    data = np.frombuffer(source, np.uint8)
    size = len(data)
    if size < 8:
        raise BadCheckpoint(f"{where} has {size} bytes, too few for a safetensors file; download it again")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise BadCheckpoint(
            f"{where}: the header claims {length} bytes but the file has {size}; it is truncated or not safetensors"
        )
    header = parse_json_object(data[8 : 8 + length].tobytes(), f"the header of {where}")
    header.pop("__metadata__", None)
    body = data[8 + length :]
    entries = [_entry(name, entry, where) for name, entry in header.items()]
    _check_tiling(entries, len(body), where)
    read_sparsely(source)
    return [TensorRef(e.name, e.dtype, e.shape, where, array_at(body[e.begin : e.end], e.dtype, e.shape)) for e in entries]


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
    if dtype not in ITEMSIZE:
        raise UnsupportedModel(
            f"tensor {name!r} in {where} has dtype {dtype}, which only quantised checkpoints use; "
            "load an unquantised checkpoint of this model"
        )
    begin, end = offsets
    if end - begin != prod(shape) * ITEMSIZE[dtype]:
        raise bad(f"{dtype} of shape {tuple(shape)} does not fill bytes {begin} to {end}")
    return _Entry(name, dtype, tuple(shape), begin, end)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_tiling(entries: list[_Entry], size: int, where: str) -> None:
    """Raise unless the tensors cover the data without gaps and without overlaps."""
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
    """Raise unless the file is inside the checkpoint's folder, in the spelling of any operating system."""
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
    """The error for a folder without safetensors weights: it says how to use the weights that are there."""
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
