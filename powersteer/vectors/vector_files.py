"""Files of steering vectors, safetensors and GGUF, as records: a direction and the fields of its provenance."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.atomic import write_bytes
from .._util.warn import warn_user
from ..errors import InvalidInput, NotFound
from ..inputs.sites import Site
from ..loading.architectures import ARCHITECTURE_OF
from ..loading.families import FAMILIES
from .codec import ProvenanceWarning, from_json, json_fields, normalised, to_json
from .control_vector import ControlVector, read_control_vector, write_control_vector

__all__ = ["FORMAT", "Record", "gguf_record", "read_gguf", "read_safetensors", "write_gguf", "write_safetensors"]

FORMAT = "powersteer-vector-1"  # the one key of the safetensors metadata: several would be written in random order
_GGUF_KEY = "powersteer.vector"  # with .N: the provenance of direction.N

Record = tuple[NDArray[Any], dict[str, Any]]  # direction (d,), every other field


# ---- safetensors


def write_safetensors(path: str | os.PathLike[str], records: Sequence[Record]) -> None:
    """One record under the name "direction", more under "direction.0" and so on. All or nothing."""
    from safetensors.numpy import save

    one = len(records) == 1
    tensors = {"direction" if one else f"direction.{i}": np.ascontiguousarray(v) for i, (v, _) in enumerate(records)}
    fields = dict(zip(tensors, (provenance for _, provenance in records), strict=True))
    write_bytes(path, save(tensors, {FORMAT: to_json(fields["direction"] if one else fields)}))


def read_safetensors(path: str | os.PathLike[str]) -> list[Record]:
    """The records in the order they were written. Raises NotFound or InvalidInput."""
    from safetensors import SafetensorError, safe_open

    where = str(path)
    if not Path(path).is_file():
        raise NotFound(f"there is no file {where!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            found, metadata = list(file.keys()), file.metadata() or {}
            if found != ["direction"] and not (found and all(re.fullmatch(r"direction\.\d{1,9}", n) for n in found)):
                raise InvalidInput(f"{where!r} is not a powersteer vector: it holds {sorted(found)[:5]}, not 'direction'")
            for name in found:
                if (dtype := file.get_slice(name).get_dtype()) not in ("F32", "F64"):
                    raise InvalidInput(f"{where!r}: {name} has dtype {dtype}; F32 or F64 is needed")
            directions = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {where!r} as safetensors: {error}") from None
    if FORMAT not in metadata:
        raise InvalidInput(
            f"{where!r} is not a powersteer vector (its metadata have no {FORMAT!r}); "
            "SteeringVector.from_array makes one from an array"
        )
    provenance, names = from_json(metadata[FORMAT], where), [f"direction.{i}" for i in range(len(found))]
    if found == ["direction"]:
        provenance, names = {"direction": provenance}, found
    if not isinstance(provenance, dict) or not directions.keys() == provenance.keys() == set(names):
        raise InvalidInput(f"{where!r} contradicts itself: its directions and its provenance have different names")
    return [(directions[name], json_fields(provenance[name], where)) for name in names]


# ---- GGUF


def write_gguf(path: str | os.PathLike[str], records: Sequence[Record], model_hint: str | None) -> None:
    """A control vector, one direction a block. All or nothing. Raises InvalidInput for records it cannot hold."""
    sites: dict[int, Site] = {}
    vectors: dict[int, NDArray[Any]] = {}
    texts: dict[str, str | int] = {}
    for direction, fields in records:
        site = Site(fields["layer"], fields["site"])
        if fields["operation"] != "add":
            raise InvalidInput(f"a control vector can only be added, and the vector at {site} clamps; save it as .safetensors")
        block = _gguf_block(site)
        family = FAMILIES.get(fields["model_type"] or model_hint or "")
        if site.name == "mlp_out" and family and (family.inputs or family.out_scale):
            raise InvalidInput(
                f"a control vector is added to a block's output, and in {family.model_type} adding at {site} is not the same: the "
                "block's input and scale come after it; export resid_post"
            )
        if block in sites:
            raise InvalidInput(
                f"{sites[block]} and {site} are both added to the output of block {block}, and a "
                "control vector has one direction a block; export their sum"
            )
        sites[block], vectors[block] = site, direction * direction.dtype.type(fields["scale"])
        if not vectors[block].any():
            raise InvalidInput(f"the vector at {site} is zero; there is nothing to export")
        if len(direction) != len(records[0][0]):
            raise InvalidInput(f"vectors of {len(records[0][0])} and {len(direction)} numbers are of different models")
        texts[f"{_GGUF_KEY}.{block}"] = to_json(fields)
    hints = {fields["model_type"] for _, fields in records} if model_hint is None else {model_hint}
    hint = hints.pop()
    if model_hint is None and hint:
        hint = ARCHITECTURE_OF.get(hint, hint)
    if hints or not hint:
        raise InvalidInput("the vectors do not name one model_type; give it: model_hint='llama'")
    write_control_vector(path, vectors, {
        "general.architecture": "controlvector",
        "controlvector.model_hint": hint,
        "controlvector.layer_count": len(vectors),
        **texts,
    })  # fmt: skip


def read_gguf(path: str | os.PathLike[str]) -> ControlVector:
    """The file without the directions that are all zero, which are named in a ProvenanceWarning.

    Raises NotFound, or InvalidInput for a damaged file, NaN, and if no direction is left.
    """
    file = read_control_vector(path)
    for block, direction in file.directions.items():
        if not np.isfinite(direction).all():
            raise InvalidInput(f"{str(path)!r}: direction.{block} holds NaN or infinity; export it again")
    zero = sorted(block for block, direction in file.directions.items() if not direction.any())
    if len(zero) == len(file.directions):
        raise InvalidInput(f"{str(path)!r}: every direction is zero, which steers nothing; export it again")
    if zero:
        names = ", ".join(f"direction.{block}" for block in zero)
        warn_user(f"{str(path)!r}: {names} is zero and left out: it adds nothing", ProvenanceWarning)
    return file._replace(directions={n: v for n, v in file.directions.items() if n not in zero})


def gguf_record(file: ControlVector, block: int, path: str) -> Record:
    """direction.N of a file: with its own provenance if powersteer wrote it, else at resid_post of layer N."""
    direction, norm = normalised(file.directions[block])
    own, hint = file.fields.get(f"{_GGUF_KEY}.{block}"), file.fields.get("controlvector.model_hint")
    if not isinstance(own, str):
        known = {"layer": block, "site": "resid_post", "scale": norm, "method": "gguf"}
        return direction, {**known, "model_type": hint if isinstance(hint, str) else None}
    fields = json_fields(from_json(own, path), path)
    site = Site(fields["layer"], fields["site"])
    if _gguf_block(site) != block:
        raise InvalidInput(f"{path!r} contradicts itself: the provenance of direction.{block} names the site {site}")
    sign = math.copysign(1.0, fields.get("scale", 1.0))
    return sign * direction, {**fields, "scale": sign * norm}


def _gguf_block(site: Site) -> int:
    """The block to whose output llama.cpp must add what is added at `site`."""
    if site.name not in ("resid_post", "mlp_out", "resid_pre"):
        raise InvalidInput(
            f"a control vector is added to a block's output, and adding at {site} is not the same: what comes after "
            "it in the block sees the vector; export resid_post, mlp_out or resid_pre"
        )
    block = site.layer - 1 if site.name == "resid_pre" else site.layer
    if block < 1:
        raise InvalidInput(
            f"{site} is at or before the output of block 0, which llama.cpp cannot steer (direction.N has N >= 1); "
            "use a later layer"
        )
    return block
