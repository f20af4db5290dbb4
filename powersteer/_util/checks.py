"""Checks of arguments: numbers of the right kind and size, or one InvalidInput that names the argument."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import InvalidInput, shown

__all__ = ["as_integer", "as_list", "as_number", "check_count", "check_positive", "check_seed"]


def as_integer(value: Any) -> int | None:
    """The int that a value is; None for a bool and for anything that is not an integer."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_number(value: Any) -> float | None:
    """The float that a real number is; None for a bool and for anything else."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return float(value) if real else None


def as_list(one_or_more: Any) -> list[Any]:
    """The items of an iterable; anything else, a text included, is one item."""
    is_batch = isinstance(one_or_more, Iterable) and not isinstance(one_or_more, str)
    return list(one_or_more) if is_batch else [one_or_more]


def check_count(value: Any, name: str, most: int | None = None, why: str = "", least: int = 1) -> int:
    """An integer from `least` to `most`; InvalidInput says `why` no more are possible."""
    number = as_integer(value)
    if number is None or number < least:
        raise InvalidInput(f"{name} is {shown(value)}; it must be an integer >= {least}")
    if most is not None and number > most:
        raise InvalidInput(f"{name} is {number}; it must be at most {most}{why and f': {why}'}")
    return number


def check_positive(value: Any, name: str) -> float:
    """A finite number > 0."""
    number = as_number(value)
    if number is None or not 0 < number < math.inf:
        raise InvalidInput(f"{name} is {shown(value)}; it must be a finite number > 0")
    return number


def check_seed(value: Any, name: str = "seed") -> int:
    """A seed of the core's random numbers, 0 to 2^64 - 1."""
    return check_count(value, name, 2**64 - 1, "the core's seeds have 64 bits", least=0)
