"""The exceptions of powersteer. Each is also the built-in exception that a caller would expect, and each message names
the thing that is wrong, where it stands, and what to do about it."""

import reprlib
from typing import Any

__all__ = [
    "BadCheckpoint",
    "ConvergenceWarning",
    "InvalidInput",
    "MissingDependency",
    "MissingSite",
    "NotFound",
    "NumericalError",
    "OutOfMemory",
    "PowersteerError",
    "UnsupportedModel",
]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """repr(value) truncated to 80 characters without building the full repr."""
    return _SHORT.repr(value)


class PowersteerError(Exception):
    """Base of every exception that powersteer raises on purpose.

    Examples
    --------
    >>> try:
    ...     model.activations("Q: 12*3\\nA:", (9, "mlp_out"))
    ... except ps.PowersteerError as error:
    ...     print(type(error).__name__)
    InvalidInput
    """


class InvalidInput(PowersteerError, ValueError):
    """An argument that cannot be used: a site, a layer, a token id, a prompt longer than the context, k too large.

    Examples
    --------
    >>> model.jacobian("Q: 12*3\\nA:", source=4, target=1)
    Traceback (most recent call last):
    powersteer.errors.InvalidInput: ...
    """


class MissingSite(InvalidInput, KeyError):
    """A site that is not among the activations of a cache, or not a site of the model.

    Examples
    --------
    >>> _, acts = model.run_with_cache("Q: 12*3\\nA:", sites=[(1, "mlp_out")])
    >>> acts[2, "mlp_out"]
    Traceback (most recent call last):
    powersteer.errors.MissingSite: ...
    """

    __str__ = Exception.__str__  # a KeyError would show the repr of its message


class NotFound(PowersteerError, FileNotFoundError):
    """A file, a folder or a hub id that does not exist.

    Examples
    --------
    >>> ps.load("./missing")
    Traceback (most recent call last):
    powersteer.errors.NotFound: ...
    """


class BadCheckpoint(PowersteerError, ValueError):
    """A file that contradicts itself or its config: truncated, misshapen, missing or extra tensors, NaN weights.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("config.json").write_text("{")
    >>> ps.load(".")
    Traceback (most recent call last):
    powersteer.errors.BadCheckpoint: ...
    """


class UnsupportedModel(PowersteerError, ValueError):
    """A sound checkpoint that needs something powersteer does not compute: a family, a config key, a quantisation.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("config.json").write_text('{"model_type": "mamba"}')
    >>> ps.load(".")
    Traceback (most recent call last):
    powersteer.errors.UnsupportedModel: ...
    """


class MissingDependency(PowersteerError, ImportError):
    """An optional package that this call needs; the message has the command that installs it.

    Examples
    --------
    >>> issubclass(ps.MissingDependency, ImportError)
    True
    """


class NumericalError(PowersteerError, ArithmeticError):
    """A computation gave NaN or infinity.

    Examples
    --------
    >>> ps.svd(np.full((4, 4), np.nan), k=2)
    Traceback (most recent call last):
    powersteer.errors.NumericalError: ...
    """


class OutOfMemory(PowersteerError, MemoryError):
    """The buffers of a computation do not fit into memory.

    Examples
    --------
    >>> issubclass(ps.OutOfMemory, MemoryError)
    True
    """


class ConvergenceWarning(UserWarning):
    """A result whose residuals exceed the requested tolerance, or whose vectors cannot be told apart.

    Examples
    --------
    >>> import warnings
    >>> J = model.jacobian("Q: 12*3\\nA:", source=1, target=4)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     svd = J.svd(k=4, max_applications=20)
    >>> svd.converged, caught[0].category.__name__
    (False, 'ConvergenceWarning')
    """
