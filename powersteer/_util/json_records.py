"""Dataclasses read from JSON, every field checked, since a file may come from anywhere."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import shown

__all__ = ["record"]

T = TypeVar("T")


def record(kind: type[T], data: Any) -> T:
    """A dataclass from JSON's form of its `asdict`. Raises ValueError naming the field if a key without a default is
    missing, a key is unknown, or a value is not of the field's type."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    if not isinstance(data, dict) or not needed <= set(data) <= set(names):
        there = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"a {kind.__name__} has the keys {', '.join(names)}, not {there!s:.200}")
    return kind(**{name: _value(hints[name], data[name], f"{kind.__name__}.{name}") for name in names if name in data})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return record(hint, value)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        for one in arguments:
            try:
                return _value(one, value, where)
            except ValueError:
                continue
    elif origin is tuple and isinstance(value, (list, tuple)):
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(hints) == len(value):
            return tuple(_value(h, v, where) for h, v in zip(hints, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {_value(arguments[0], k, where): _value(arguments[1], v, where) for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {shown(value)}")
