"""Fields of a steering vector: the values each may have, and how they are written as JSON and read back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_integer
from .._version import __version__
from ..errors import InvalidInput
from ..inputs.sites import Site, parse_site

__all__ = [
    "Calibration", "Cost", "ProvenanceWarning", "check_fields", "finite_factor", "from_json", "json_fields", "normalised", "to_json",
]  # fmt: skip

_UNIT_TOLERANCE = 1e-4


class ProvenanceWarning(UserWarning):
    """A vector is used on another model than the one it was made with, or a file holds vectors that add nothing.

    Examples
    --------
    >>> import warnings
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> v = ps.SteeringVector.from_array([1.0] * 160, 2, "mlp_out", weights="those of another model")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", ps.ProvenanceWarning)
    ...     steered = model.steered(v)
    >>> caught[0].category.__name__
    'ProvenanceWarning'
    """


class Cost(NamedTuple):
    """Work of the call that made a vector, for all the vectors that it returned.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.Cost(forward=3, products=40, seconds=0.5).products
    40
    """

    forward: int
    """Forward passes of one prompt."""
    products: int
    """Products of J or its transpose with one vector, each of one prompt: JVP or VJP sweeps."""
    seconds: float


class Calibration(NamedTuple):
    """What `evaluate.calibrate` reached with the scale that it gave a vector.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> vec = ps.random_vectors(model, 2)[0].calibrated(model, ["Q: 3*4\\nA:", "Q: 5*6\\nA:"], kl=0.1)
    >>> vec.calibration.prompts, vec.calibration.budget, abs(vec.calibration.kl - 0.1) <= 0.001
    (2, 0.1, True)
    """

    kl: float
    """Mean KL(plain || steered) of the next-token distribution, in nats."""
    budget: float
    """The KL that was asked for."""
    prompts: int
    """Number of prompts, whose mean it is."""
    continuation: int
    """Tokens of the plain model's greedy continuation along which it was measured; 0: at the prompts' ends."""
    positions: str
    """Where the vector was added."""
    forward: int
    """Forward passes of one prompt."""


def normalised(value: Any) -> tuple[NDArray[Any], float]:
    """(unit vector (d,), 2-norm) of an array or a torch tensor. Raises InvalidInput unless the norm is finite and > 0."""
    array = _real_array(value)
    exact = array.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    if array.ndim != 1 or not (math.isfinite(norm) and norm > 0):
        raise InvalidInput(f"a steering vector needs a finite array (d,) that is not zero; got shape {array.shape}, norm {norm}")
    return (exact / norm).astype(array.dtype), norm


def finite_factor(value: Any) -> float:
    """A factor of the scale. Raises InvalidInput unless it is finite."""
    if not math.isfinite(number := float(value)):
        raise InvalidInput(f"a steering vector cannot be scaled by {number}; give a finite number")
    return number


def check_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, each converted to its type. Raises InvalidInput naming the field and the values it may have."""
    checked = {}
    for name, value in values.items():
        convert, needed = _FIELDS[name]
        try:
            checked[name] = convert(value)
        except InvalidInput:
            raise
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput(f"steering vector: {name} is {str(value)[:80]!r}; it must be {needed}") from None
    return checked


# ---- JSON


def to_json(provenance: Mapping[str, Any]) -> str:
    return json.dumps(provenance, ensure_ascii=False, allow_nan=False)


def from_json(text: str, path: str) -> Any:
    """The parsed text; NaN and infinity are refused. Raises InvalidInput naming the file."""

    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path!r}: its provenance is not JSON: {error}") from None


def json_fields(values: Any, path: str) -> dict[str, Any]:
    """The fields of one vector from parsed JSON. Raises InvalidInput for unknown, missing and wrong ones."""
    if not isinstance(values, dict) or not values.keys() <= _FIELDS.keys() - {"direction"}:
        unknown = sorted(values.keys() - _FIELDS.keys())[:5] if isinstance(values, dict) else type(values).__name__
        raise InvalidInput(f"{path!r}: its provenance has fields this version ({__version__}) does not know: {unknown}")
    if not {"layer", "site"} <= values.keys():
        raise InvalidInput(f"{path!r}: its provenance lacks the layer or the site")
    return check_fields(values)


# ---- one field


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
    if (number := as_integer(value)) is None or number < 0:
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


def _operation(value: Any) -> str:
    if value not in ("add", "clamp"):
        raise ValueError
    return value  # type: ignore[no-any-return]


def _cost(value: Any) -> Cost:
    forward, products, seconds = value
    return Cost(_natural(forward), _natural(products), _finite(seconds))


def _calibration(value: Any) -> Calibration:
    kl, budget, prompts, continuation, positions, forward = value
    return Calibration(
        _finite(kl), _finite(budget), _natural(prompts), _natural(continuation), _text(positions), _natural(forward)
    )


# names: (conversion, values it accepts)
_GROUPS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "direction": (_direction, "a finite array (d,) of length 1; SteeringVector.from_array takes any length"),
    "layer": (_natural, "an integer >= 0"),
    "site": (_site, "the name of a site"),
    "scale": (_finite, "a finite number"),
    "operation": (_operation, "'add' or 'clamp'"),
    "method version": (_text, "text"),
    "model model_type weights reduce": (_optional(_text), "text or None"),
    "site_norm sigma residual objective": (_optional(_finite), "a finite number or None"),
    "rank seed": (_optional(_natural), "an integer >= 0 or None"),
    "target": (_target, "(layer, site), 'logits', 'next_token' or None"),
    "prompts steering parents": (_tuple_of(_text), "texts"),
    "prompt_tokens": (_tuple_of(_tuple_of(_natural)), "rows of token ids"),
    "source_positions target_positions": (_tuple_of(_tuple_of(_natural)), "rows of positions"),
    "cost": (_optional(_cost), "(forward passes, products, seconds) or None"),
    "calibration": (_optional(_calibration), "(kl, budget, prompts, continuation, positions, forward passes) or None"),
}
_FIELDS = {name: field for names, field in _GROUPS.items() for name in names.split()}
