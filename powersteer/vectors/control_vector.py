"""GGUF control vectors, the files that llama.cpp's --control-vector reads.

A little-endian GGUF file whose tensors are `direction.N`, float32, (d,), N >= 1: llama.cpp adds direction.N to the
output of block N (counted from 0) at every position. It reads the tensors only; other tools also want the keys
general.architecture = "controlvector", controlvector.model_hint (the model_type) and controlvector.layer_count.

Whose N is whose: repeng trains direction.N on the output of block N and adds it there, as llama.cpp does; it may also
have N = 0, which llama.cpp refuses. llama.cpp's own cvector-generator names the direction of block N's output
direction.N+1, so that it is applied one block later than where it was found: what is read here is where it is applied.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._util.atomic import write_bytes
from ..errors import BadCheckpoint, InvalidInput, UnsupportedModel
from ..loading.gguf_header import ALIGNMENT, STRING, TYPE_F32, UINT32, TensorInfo, read_header

__all__ = ["ControlVector", "read_control_vector", "write_control_vector"]


class ControlVector(NamedTuple):
    directions: dict[int, NDArray[np.float32]]  # N -> (d,)
    fields: dict[str, Any]  # the file's keys; arrays are skipped


def write_control_vector(
    path: str | os.PathLike[str], directions: Mapping[int, NDArray[Any]], fields: Mapping[str, str | int]
) -> None:
    """Write `directions` (N -> (d,), N >= 1) with the keys `fields`, text or non-negative integers, all or nothing."""
    infos, data = bytearray(), bytearray()
    for n, direction in sorted(directions.items()):
        infos += _text(f"direction.{n}") + struct.pack("<IQIQ", 1, len(direction), TYPE_F32, len(data))
        data += np.asarray(direction, dtype="<f4").tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(directions), len(fields))
    for key, value in fields.items():
        typed = struct.pack("<II", UINT32, value) if isinstance(value, int) else struct.pack("<I", STRING) + _text(value)
        head += _text(key) + typed
    head += infos
    write_bytes(path, head + bytes(-len(head) % ALIGNMENT) + data)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def read_control_vector(path: str | os.PathLike[str]) -> ControlVector:
    """Read a file of `direction.N` tensors. Raises NotFound, or InvalidInput naming what the file has instead."""
    try:
        header = read_header(Path(path))
        if not header.tensors:
            raise header.damaged("it holds no tensor")
        raw = header.raw(lambda info: 4 * _length(info, str(path)))
    except (BadCheckpoint, UnsupportedModel) as error:
        raise InvalidInput(f"cannot read a GGUF control vector: {error}") from None
    directions: dict[int, NDArray[np.float32]] = {}
    for info, data in zip(header.tensors, raw, strict=True):
        n = int(info.name.removeprefix("direction."))
        if n in directions:
            raise InvalidInput(f"{str(path)!r} holds direction.{n} twice; export it again")
        directions[n] = np.frombuffer(data.tobytes(), "<f4").astype(np.float32)
    return ControlVector(directions, {k: v for k, v in header.fields.items() if isinstance(v, (str, int, float))})


def _length(info: TensorInfo, path: str) -> int:
    """The length d of a tensor direction.N. Raises InvalidInput for any other tensor."""
    match = re.fullmatch(r"direction\.([0-9]{1,6})", info.name)
    if match is None:
        why = f"its tensor {info.name[:80]!r} is not a direction.N: is this a model?"
    elif int(match[1]) < 1:
        why = f"{info.name} is out of range: N counts from 1"
    elif len(info.shape) != 1:
        why = f"{info.name} has {len(info.shape)} dimensions; 1 is needed"
    elif info.kind != TYPE_F32:
        why = f"{info.name} has GGML type {info.kind}; F32 (0) is needed"
    else:
        return info.shape[0]
    raise InvalidInput(f"cannot read {path!r} as a GGUF control vector: {why}")
