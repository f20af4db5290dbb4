"""Results of expensive calls, kept in a folder by the content of their arguments.

    <name>-<hash of function and arguments>-<hash of the file>.<format>

A file is written elsewhere and then renamed, so that it is complete or not there at all; the hash in its name shows whether
anything happened to it since.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from .._util.warn import warn_user
from .._version import __version__
from ..errors import InvalidInput, shown
from .content import content_hash
from .formats import FORMATS, format_of

__all__ = ["Cache"]

P = ParamSpec("P")
R = TypeVar("R")


class Cache:
    """Computes a result once and keeps it on disk: `cache(function, *args, **kwargs)` is `function(*args, **kwargs)`.

    A result is found again, in any process, by the content of the function and its arguments: of a model the fingerprint of its
    weights, its dtype and its steering; of a Jacobian also its prompts, sites and positions; of an array its bytes; of a
    function its code, its defaults, and the values and functions of its module that it refers to; of powersteer's functions the
    version. Vectors, lists of vectors, SVD results, effects and arrays can be kept.

    Several processes may share a folder. To forget everything, delete it.

    Parameters
    ----------
    folder
        Is made when the first result is written.

    Raises
    ------
    InvalidInput
        In a call: for an argument without a known content, and for a result of another kind, which nothing is kept of.

    Warns
    -----
    UserWarning
        In a call: if a file was damaged. Its result is computed again, and the file replaced.

    Examples
    --------
    >>> import powersteer as ps, tempfile
    >>> model = ps.load("demo")
    >>> J = model.jacobian("Q: 3*4\\nA:", source=1, target=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = ps.testing.Cache(folder)
    ...     svd = cache(J.svd, k=2)
    ...     again = cache(J.svd, k=2)  # from the disk
    >>> svd.seconds == again.seconds, svd.vectors == again.vectors
    (True, True)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not callable(function):
            raise InvalidInput(
                f"a cache is called with a function and its arguments, not with {shown(function)}: cache(J.svd, k=4)"
            )
        name = re.sub(r"\W+", "-", getattr(function, "__name__", type(function).__name__))
        stem = f"{name}-{content_hash((__version__, function, args, kwargs))}"
        there = sorted(self.folder.glob(f"{stem}-*"))
        file = next((path for path in there if _is_whole(path)), None)
        if file is None:
            value = function(*args, **kwargs)
            for damaged in there:
                damaged.unlink(missing_ok=True)
            file = self._write(stem, value)
            if there:
                warn_user(
                    f"{str(there[0])!r} was damaged: its result was computed again, and is kept in its place",
                    UserWarning,
                )
        return cast(R, FORMATS[_ending(file)].load(file))

    def _write(self, stem: str, value: Any) -> Path:
        ending = format_of(value)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as elsewhere:
            part = Path(elsewhere, ending)
            FORMATS[ending].save(value, part)
            file = self.folder / f"{stem}-{_digest(part)}.{ending}"
            os.replace(part, file)
        return file

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r})"


def _ending(path: Path) -> str:
    return path.name.partition(".")[2]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    """Whether the file holds what its name says. No: another process has just removed a damaged one."""
    try:
        return _ending(path) in FORMATS and path.name.partition(".")[0].endswith(_digest(path))
    except FileNotFoundError:
        return False
