"""The exceptions of powersteer. Each is also the built-in exception that a caller would expect, and each message names
the thing that is wrong, where it stands, and what to do about it."""

import reprlib
from typing import Any

__all__ = [
    "BadCheckpoint",
    "ConvergenceWarning",
    "InvalidInput",
    "MissingDependency",
    "NotFound",
    "NumericalError",
    "OutOfMemory",
    "PowersteerError",
    "UnsupportedModel",
    "shown",
]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value in a message, cut before it is written out: a list of millions takes no time."""
    return _SHORT.repr(value)


class PowersteerError(Exception):
    """Base of every exception that powersteer raises on purpose."""


class InvalidInput(PowersteerError, ValueError):
    """An argument that cannot be used: a site, a layer, a token id, a prompt longer than the context, k too large."""


class NotFound(PowersteerError, FileNotFoundError):
    """A file, a folder or a hub id that is not there."""


class BadCheckpoint(PowersteerError, ValueError):
    """A file that contradicts itself or its config: truncated, misshapen, missing or extra tensors, NaN weights."""


class UnsupportedModel(PowersteerError, ValueError):
    """A sound checkpoint that says something powersteer does not compute: a family, a config key, a quantisation."""


class MissingDependency(PowersteerError, ImportError):
    """An optional package that this call needs."""


class NumericalError(PowersteerError, ArithmeticError):
    """NaN or infinity came out of a computation."""


class OutOfMemory(PowersteerError, MemoryError):
    """The buffers of a computation do not fit."""


class ConvergenceWarning(UserWarning):
    """A result whose certificate exceeds the tolerance that was asked for."""
