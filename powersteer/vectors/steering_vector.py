"""Steering vectors: a unit direction at a site of a layer, how far to go along it, and where it came from."""

from __future__ import annotations

import json
import math
import numbers
import operator
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._util.atomic import write_bytes
from .._version import __version__
from ..errors import InvalidInput, NotFound
from ..inputs.positions import Positions
from ..inputs.sites import Site, parse_site
from .control_vector import ControlVector, read_control_vector, write_control_vector
from .torch_hooks import Hook, attach, import_torch

__all__ = ["Cost", "ProvenanceWarning", "SteeringVector", "load_vectors", "rounding", "save_vectors"]

_GGUF_KEY = "powersteer.vector"  # with .N: the provenance of direction.N
FORMAT = "powersteer-vector-1"  # the one key of the safetensors metadata: several would be written in random order
_UNIT_TOLERANCE = 1e-4
_ROUNDING = 64  # float32 against float64 is off by 4 to 12 eps after six layers, and it grows slowly


class ProvenanceWarning(UserWarning):
    """A vector is used on another model than the one it was made with, or a file holds vectors that add nothing."""


def rounding(norm: float, dtype: DTypeLike) -> float:
    """How far an activation of this 2-norm may be off by rounding: a difference no longer than that is noise."""
    return _ROUNDING * float(np.finfo(np.dtype(dtype)).eps) * norm


class Cost(NamedTuple):
    """What the call that made a vector has spent, on all the vectors that it returned."""

    forward: int  # forward passes of one prompt
    products: int  # products with J or J' of one prompt and one vector: JVP or VJP sweeps
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """What is added at a site: `scale * direction`. Immutable; arithmetic gives new vectors.

    `4 * v`, `v / 2` and `-v` change the scale, `v.relative(0.35)` sets it, `v + w` and `v - w` join two vectors of the
    same site. `np.asarray(v)` is `v.vector`. `SteeringVector.from_array` makes one from any array.
    Raises InvalidInput for a field of the wrong kind, a direction that is not a finite unit vector, a scale of NaN.
    """

    direction: NDArray[Any]  # (d,), unit length, float32 or float64, read-only
    layer: int
    site: str
    scale: float = 1.0
    site_norm: float | None = None  # mean 2-norm of the site's activation over the source positions of its prompts
    method: str = "given"  # "krylov", "power", "dense", "sum", ...
    model: str | None = None  # name
    model_type: str | None = None  # of config.json
    weights: str | None = None  # fingerprint of the model's weights
    target: Site | tuple[int, str] | str | None = None  # a Site once here, "logits" or "next_token"
    prompts: tuple[str, ...] = ()
    prompt_tokens: tuple[tuple[int, ...], ...] = ()
    source_positions: tuple[tuple[int, ...], ...] = ()  # by prompt
    target_positions: tuple[tuple[int, ...], ...] = ()
    reduce: str | None = None  # over target positions: "stack" | "mean"
    steering: tuple[str, ...] = ()  # interventions that were there at the point of linearisation
    rank: int | None = None  # 0 is the largest singular value
    sigma: float | None = None
    residual: float | None = None  # the larger of |Jv - sigma u| and |J'u - sigma v|, over sigma_1
    objective: float | None = None  # what the method has maximised, at this vector
    seed: int | None = None
    cost: Cost | None = None
    version: str = __version__  # of the powersteer that made it

    # NumPy leaves `array * v` to this class, which refuses it, instead of building an array of objects
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        for name, (convert, needed) in _FIELDS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, convert(value))
            except InvalidInput:
                raise
            except (TypeError, ValueError, OverflowError):
                raise InvalidInput(f"steering vector: {name} is {str(value)[:80]!r}; it must be {needed}") from None

    @classmethod
    def from_array(cls, vector: Any, layer: int | str, site: str | None = None, **provenance: Any) -> SteeringVector:
        """The vector that adds exactly `vector` (d,) at `site` of `layer`: its scale is the array's 2-norm.

        layer and site may also be one name: `from_array(v, "blocks.3.hook_mlp_out")`. provenance: other fields.
        """
        place = parse_site(layer) if isinstance(layer, str) and site is None else parse_site((layer, site))  # type: ignore[arg-type]
        array = _real_array(vector)
        norm = float(np.linalg.norm(array.astype(np.float64)))
        if array.ndim != 1 or not (math.isfinite(norm) and norm > 0):
            raise InvalidInput(
                f"a steering vector needs a finite array (d,) that is not zero; got shape {array.shape}, norm {norm}"
            )
        direction = (array.astype(np.float64) / norm).astype(array.dtype)
        return cls(direction, place.layer, place.name, scale=norm, **provenance)

    @property
    def vector(self) -> NDArray[Any]:
        """scale * direction (d,): what is added."""
        scaled: NDArray[Any] = self.direction * self.direction.dtype.type(self.scale)
        return scaled

    @property
    def place(self) -> Site:
        return Site(self.layer, self.site)

    @property
    def target_layer(self) -> int | str | None:
        """Layer of the target, "logits" or "next_token"; None if the vector has no target."""
        return self.target[0] if isinstance(self.target, tuple) else self.target

    @property
    def provenance(self) -> dict[str, Any]:
        """Every field but the direction, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "direction"}

    def relative(self, fraction: float) -> SteeringVector:
        """This direction at `fraction` times the site's mean activation norm on the vector's own prompts. The sign of
        the present scale is kept, its size is not: `(-v).relative(0.35)` points against `v.relative(0.35)`."""
        if self.site_norm is None:
            raise InvalidInput(
                "this vector does not know its site's activation norm: multiply it by an absolute scale, or set the "
                "norm with dataclasses.replace(vec, site_norm=...)"
            )
        if not self.site_norm > 0:
            raise InvalidInput(
                f"the activation at {self.place} is zero on this vector's prompts, so that every fraction of its norm is: "
                "multiply the vector by an absolute scale"
            )
        return replace(self, scale=math.copysign(1.0, self.scale) * _factor(fraction) * self.site_norm)

    def __mul__(self, factor: float) -> SteeringVector:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        return replace(self, scale=self.scale * _factor(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> SteeringVector:
        if not isinstance(divisor, numbers.Real):
            return NotImplemented
        if divisor == 0:
            raise InvalidInput("a steering vector cannot be divided by 0")
        return replace(self, scale=self.scale / _factor(divisor))

    def __neg__(self) -> SteeringVector:
        return replace(self, scale=-self.scale)

    def __add__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        if self.place != other.place or len(self.direction) != len(other.direction):
            raise InvalidInput(
                f"vectors at {self.place} ({len(self.direction)}) and {other.place} ({len(other.direction)}) do not "
                "add up to one vector; steer with both: model.steered([a, b])"
            )
        total = np.add(self.vector, other.vector)
        size = abs(self.scale) + abs(other.scale)
        if np.linalg.norm(total.astype(np.float64)) <= 4 * np.finfo(total.dtype).eps * size:
            raise InvalidInput(
                f"{self!r} and {other!r} cancel, but for rounding; a steering vector must be one that is not zero"
            )
        common = {name: value for name, value in self.provenance.items() if getattr(other, name) == value}
        kept = ("site_norm", "model", "model_type", "weights")
        return self.from_array(
            total, self.layer, self.site,
            method="sum", **{name: common[name] for name in kept if name in common},
        )  # fmt: skip

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + -other if isinstance(other, SteeringVector) else NotImplemented

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self.vector if dtype is None else self.vector.astype(dtype)

    def to_torch(self, device: Any = None, dtype: Any = None) -> Any:
        """scale * direction as a new torch tensor (d,); on the CPU and in the direction's dtype if not said."""
        torch = import_torch("to_torch")
        return torch.from_numpy(self.vector).to(device=device, dtype=dtype)

    def hook(self, hf_model: Any, positions: Positions = None) -> Hook:
        """Add this vector in every forward pass of a loaded transformers model, on any device and in its dtype, until
        `remove()` of what is returned or the end of a `with` block; `model.steered(vec, positions)` does the same here.

        positions: as for `Model.steered`, with or without a key-value cache, and with padding if the model is given
        the attention mask. Raises UnsupportedModel for a family or module structure that is not known, InvalidInput
        for a vector that does not fit (and in the forward pass if it cannot be told which positions it is at); warns
        with ProvenanceWarning about a vector of another model_type.
        """
        model_type = getattr(getattr(hf_model, "config", None), "model_type", None)
        if self.model_type not in (None, model_type):
            warnings.warn(
                f"{self!r} was made with a {self.model_type} model and is hooked to a {model_type}",
                ProvenanceWarning,
                stacklevel=2,
            )
        return attach(hf_model, self.direction.astype(np.float64) * self.scale, self.place, positions)

    def __len__(self) -> int:
        return len(self.direction)

    def __repr__(self) -> str:
        facts = [f"{self.scale:.4g} × {self.place}", f"d={len(self.direction)}"]
        if self.rank is not None:
            facts.append(f"rank {self.rank}")
        if self.sigma is not None:
            facts.append(f"sigma {self.sigma:.4g}")
        if self.target is not None:
            facts.append(f"target {self.target}")
        return f"SteeringVector({', '.join(facts)}, {self.method})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: the direction, and every other field as JSON in its metadata. All or nothing."""
        _write_safetensors(path, {"direction": self.direction}, self.provenance)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SteeringVector:
        """Read a file that `save` wrote; it comes back bit by bit.

        Raises NotFound, or InvalidInput for a file that is damaged, of another kind, or contradicts itself.
        """
        directions, provenance = _read_safetensors(Path(path))
        if list(directions) != ["direction"]:
            raise InvalidInput(f"{str(path)!r} holds {len(directions)} vectors; powersteer.load_vectors reads them all")
        return cls(directions["direction"], **_check_fields(provenance, str(path)))

    def to_gguf(self, path: str | os.PathLike[str], model_hint: str | None = None) -> None:
        """Write a GGUF control vector, which llama.cpp adds to a block's output at every position.

        model_hint: the model_type that other tools check; by default that of the vector's model. The vector must stand
        where adding it equals adding it to the output of a block N >= 1: resid_post and mlp_out of layer N, resid_pre
        of layer N + 1. Raises InvalidInput for any other.
        """
        _write_gguf(path, [self], model_hint)

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str], layer: int | None = None) -> SteeringVector:
        """Read a GGUF control vector, ours or another tool's. layer: which, where the file has several.

        direction.N is read as what llama.cpp does with it, a vector at resid_post of layer N; a file that `to_gguf`
        wrote gives back its own site and provenance. Directions that are all zero add nothing, in llama.cpp too: they
        are left out, with a ProvenanceWarning that names them. Raises NotFound or InvalidInput.
        """
        file = _read_gguf(path)
        if layer is None and len(file.directions) > 1:
            raise InvalidInput(
                f"{str(path)!r} has vectors for the layers {sorted(file.directions)}; choose one: layer=..., or read "
                "all of them: powersteer.load_vectors"
            )
        block = next(iter(file.directions)) if layer is None else layer
        if block not in file.directions:
            raise InvalidInput(f"{str(path)!r} has no vector for layer {layer!r}, only for {sorted(file.directions)}")
        return _from_block(file, block, str(path))


def save_vectors(
    path: str | os.PathLike[str], vectors: Iterable[SteeringVector], model_hint: str | None = None
) -> None:
    """Write several vectors to one file, all or nothing: GGUF if its name ends in .gguf, else safetensors.

    A GGUF control vector has one direction a block; see `SteeringVector.to_gguf` for what it can say and model_hint.
    Raises InvalidInput for no vectors, and for what a GGUF file cannot say.
    """
    several = list(vectors)
    if not several or not all(isinstance(v, SteeringVector) for v in several):
        raise InvalidInput("save_vectors needs one SteeringVector or more; SteeringVector.from_array makes them")
    if os.fspath(path).lower().endswith(".gguf"):
        return _write_gguf(path, several, model_hint)
    if model_hint is not None:
        raise InvalidInput(f"model_hint belongs to a .gguf file, not to {os.fspath(path)!r}; leave it out")
    if len(several) == 1:
        return several[0].save(path)
    names = [f"direction.{i}" for i in range(len(several))]
    _write_safetensors(
        path,
        {name: vector.direction for name, vector in zip(names, several, strict=True)},
        {name: vector.provenance for name, vector in zip(names, several, strict=True)},
    )


def load_vectors(path: str | os.PathLike[str]) -> list[SteeringVector]:
    """Every vector of a file that `save_vectors`, `SteeringVector.save`, `to_gguf` or another tool's GGUF export wrote,
    in the order they were given; those of a GGUF file by layer. `model.steered(load_vectors(path))` adds all of them.
    Directions of a GGUF file that are all zero are left out, with a ProvenanceWarning.

    Raises NotFound or InvalidInput as `SteeringVector.load` and `from_gguf`.
    """
    if os.fspath(path).lower().endswith(".gguf"):
        file = _read_gguf(path)
        return [_from_block(file, block, str(path)) for block in sorted(file.directions)]
    directions, provenance = _read_safetensors(Path(path))
    names = [f"direction.{i}" for i in range(len(directions))]
    if list(directions) == ["direction"]:
        names, provenance = ["direction"], {"direction": provenance}
    if not isinstance(provenance, dict) or not directions.keys() == provenance.keys() == set(names):
        raise InvalidInput(f"{str(path)!r} contradicts itself: its directions are not those its provenance is of")
    return [SteeringVector(directions[name], **_check_fields(provenance[name], str(path))) for name in names]


# ---- GGUF ------------------------------------------------------------------------------------------------------------


def _write_gguf(path: str | os.PathLike[str], vectors: Sequence[SteeringVector], model_hint: str | None) -> None:
    directions: dict[int, SteeringVector] = {}
    for vector in vectors:
        block = _gguf_block(vector.place)
        if block in directions:
            raise InvalidInput(
                f"{directions[block].place} and {vector.place} are both added to the output of block {block}, and a "
                "control vector has one direction a block; export their sum"
            )
        if not vector.vector.any():
            raise InvalidInput(f"the vector at {vector.place} is zero; there is nothing to export")
        if len(vector) != len(vectors[0]):
            raise InvalidInput(f"vectors of {len(vectors[0])} and {len(vector)} numbers are of different models")
        directions[block] = vector
    hints = {vector.model_type for vector in vectors} if model_hint is None else {model_hint}
    hint = hints.pop()
    if hints or not hint:
        raise InvalidInput("the vectors do not name one model_type; give it: model_hint='llama'")
    write_control_vector(path, {block: vector.vector for block, vector in directions.items()}, {
        "general.architecture": "controlvector",
        "controlvector.model_hint": hint,
        "controlvector.layer_count": len(directions),
        **{f"{_GGUF_KEY}.{block}": _json(vector.provenance) for block, vector in directions.items()},
    })  # fmt: skip


def _read_gguf(path: str | os.PathLike[str]) -> ControlVector:
    """The file without its directions that are all zero. Raises InvalidInput for NaN, and if no direction is left."""
    file = read_control_vector(path)
    for block, direction in file.directions.items():
        if not np.isfinite(direction).all():
            raise InvalidInput(f"{str(path)!r}: direction.{block} holds NaN or infinity; export it again")
    zero = sorted(block for block, direction in file.directions.items() if not direction.any())
    if len(zero) == len(file.directions):
        raise InvalidInput(f"{str(path)!r}: every direction is zero, which steers nothing; export it again")
    if zero:
        names = ", ".join(f"direction.{block}" for block in zero)
        warnings.warn(f"{str(path)!r}: {names} is zero and left out: it adds nothing", ProvenanceWarning, stacklevel=3)
    return replace(file, directions={n: v for n, v in file.directions.items() if n not in zero})


def _from_block(file: ControlVector, block: int, path: str) -> SteeringVector:
    found = SteeringVector.from_array(file.directions[block], block, "resid_post", method="gguf")
    own, hint = file.fields.get(f"{_GGUF_KEY}.{block}"), file.fields.get("controlvector.model_hint")
    if not isinstance(own, str):
        return replace(found, model_type=hint if isinstance(hint, str) else None)
    known = SteeringVector(found.direction, **_check_fields(_parse(own, path), path))
    if _gguf_block(known.place) != block:
        raise InvalidInput(f"{path!r} contradicts itself: direction.{block} is said to be at {known.place}")
    sign = math.copysign(1.0, known.scale)
    return replace(known, direction=sign * found.direction, scale=sign * found.scale)


def _gguf_block(place: Site) -> int:
    """The block to whose output llama.cpp must add what is added at `place`."""
    if place.name not in ("resid_post", "mlp_out", "resid_pre"):
        raise InvalidInput(
            f"a control vector is added to a block's output, and adding at {place} is not the same: what comes after "
            "it in the block sees the vector; export resid_post, mlp_out or resid_pre"
        )
    block = place.layer - 1 if place.name == "resid_pre" else place.layer
    if block < 1:
        raise InvalidInput(
            f"{place} is at or before the output of block 0, which llama.cpp cannot steer (direction.N has N >= 1); "
            "use a later layer"
        )
    return block


# ---- safetensors and JSON --------------------------------------------------------------------------------------------


def _write_safetensors(
    path: str | os.PathLike[str], directions: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]
) -> None:
    from safetensors.numpy import save

    write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in directions.items()}, {FORMAT: _json(provenance)}))


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], Any]:
    """(directions, parsed provenance) of a file with the tensor "direction", or with "direction.0" and so on."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            if names != ["direction"] and not (names and all(re.fullmatch(r"direction\.\d{1,9}", n) for n in names)):
                raise InvalidInput(
                    f"{str(path)!r} is no powersteer vector: it holds {sorted(names)[:5]}, not 'direction'"
                )
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in ("F32", "F64"):
                    raise InvalidInput(f"{str(path)!r}: {name} has dtype {dtype}; F32 or F64 is needed")
            directions = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {str(path)!r} as safetensors: {error}") from None
    if FORMAT not in metadata:
        raise InvalidInput(
            f"{str(path)!r} is no powersteer vector (its metadata have no {FORMAT!r}); "
            "SteeringVector.from_array makes one from an array"
        )
    return directions, _parse(metadata[FORMAT], str(path))


def _json(provenance: Mapping[str, Any]) -> str:
    return json.dumps(provenance, ensure_ascii=False, allow_nan=False)


def _parse(text: str, path: str) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path!r}: its provenance is not JSON: {error}") from None


def _check_fields(values: Any, path: str) -> dict[str, Any]:
    """The parsed `provenance` of one vector. Unknown names are refused here, the values by SteeringVector."""
    if not isinstance(values, dict) or not values.keys() <= _FIELDS.keys() - {"direction"}:
        unknown = sorted(values.keys() - _FIELDS.keys())[:5] if isinstance(values, dict) else type(values).__name__
        raise InvalidInput(f"{path!r}: its provenance has fields this version ({__version__}) does not know: {unknown}")
    if not {"layer", "site"} <= values.keys():
        raise InvalidInput(f"{path!r}: its provenance lacks the layer or the site")
    return values


# ---- fields ----------------------------------------------------------------------------------------------------------


def _factor(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise InvalidInput(f"a steering vector cannot be scaled by {number}; give a finite number")
    return number


def _real_array(value: Any) -> NDArray[Any]:
    """A copy in float32 or float64 of an array, or a torch tensor, of real numbers."""
    if hasattr(value, "detach"):  # from any device; NumPy has no bfloat16
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"a steering vector needs real numbers; got an array of {array.dtype}")
    return np.array(array, dtype=np.float32 if array.dtype.itemsize <= 4 and array.dtype.kind == "f" else np.float64)


def _direction(value: Any) -> NDArray[Any]:
    array = _real_array(value)
    if array.ndim != 1 or not abs(float(np.linalg.norm(array.astype(np.float64))) - 1) < _UNIT_TOLERANCE:
        raise ValueError
    array.flags.writeable = False
    return array


def _finite(value: Any) -> float:
    if isinstance(value, (str, bool)) or not math.isfinite(number := float(value)):
        raise ValueError
    return number


def _natural(value: Any) -> int:
    if isinstance(value, bool) or (number := operator.index(value)) < 0:
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode("utf-8")  # a lone surrogate could not be written
    return value


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _tuple_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def converted(value: Any) -> tuple[Any, ...]:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        return tuple(convert(item) for item in value)

    return converted


def _site(value: Any) -> str:
    return parse_site((0, _text(value))).name


def _target(value: Any) -> Site | str | None:
    if value is None or value in ("logits", "next_token"):
        return value  # type: ignore[no-any-return]
    layer, site = value
    return Site(_natural(layer), _site(site))


def _cost(value: Any) -> Cost:
    forward, products, seconds = value
    return Cost(_natural(forward), _natural(products), _finite(seconds))


# every field: how it is read, and what it must be
_FIELDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "direction": (_direction, "a finite array (d,) of length 1; SteeringVector.from_array takes any length"),
    "layer": (_natural, "an integer >= 0"),
    "site": (_site, "the name of a site"),
    "scale": (_finite, "a finite number"),
    "site_norm": (_optional(_finite), "a finite number or None"),
    "method": (_text, "text"),
    "model": (_optional(_text), "text or None"),
    "model_type": (_optional(_text), "text or None"),
    "weights": (_optional(_text), "text or None"),
    "target": (_target, "(layer, site), 'logits', 'next_token' or None"),
    "prompts": (_tuple_of(_text), "texts"),
    "prompt_tokens": (_tuple_of(_tuple_of(_natural)), "rows of token ids"),
    "source_positions": (_tuple_of(_tuple_of(_natural)), "rows of positions"),
    "target_positions": (_tuple_of(_tuple_of(_natural)), "rows of positions"),
    "reduce": (_optional(_text), "text or None"),
    "steering": (_tuple_of(_text), "texts"),
    "rank": (_optional(_natural), "an integer >= 0 or None"),
    "sigma": (_optional(_finite), "a finite number or None"),
    "residual": (_optional(_finite), "a finite number or None"),
    "objective": (_optional(_finite), "a finite number or None"),
    "seed": (_optional(_natural), "an integer >= 0 or None"),
    "cost": (_optional(_cost), "(forward passes, products, seconds) or None"),
    "version": (_text, "text"),
}
