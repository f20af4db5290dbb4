"""Signs that a continuation degenerates into a loop."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._util.checks import check_count
from ..model.generation import Generation

__all__ = ["Repetition", "repetition"]


@dataclass(frozen=True)
class Repetition:
    """How much a continuation repeats itself.

    Attributes
    ----------
    value
        Share of n-grams that occurred before; 0 where there are none.
    n
        Length of the n-grams.
    compression
        Bytes of the text in UTF-8 over bytes of zlib's compression of it; NaN where there is no text.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.evaluate.repetition("the cat sat", n=2).value
    0.0
    """

    value: float
    n: int
    compression: float


def repetition(generated: Generation | str | Iterable[int], n: int = 4) -> Repetition:
    """Share of repeated n-grams, and compressibility, of one continuation.

    Parameters
    ----------
    generated
        A Generation or token ids, whose n-grams are of tokens; or a text, whose n-grams are of words.
    n
        Length of the n-grams.

    Returns
    -------
    Repetition
        `value` is 1 - distinct / all n-grams (seq-rep-n). `compression` above 2.4 is degenerate by Radford et al.; short
        texts compress badly, to ratios below 1.

    Raises
    ------
    InvalidInput
        Unless n is an integer >= 1.

    References
    ----------
    Welleck et al., Neural text generation with unlikelihood training, 2020, arXiv:1908.04319.
    Radford et al., Robust speech recognition via large-scale weak supervision, 2022, arXiv:2212.04356.

    Examples
    --------
    >>> import powersteer as ps
    >>> ps.evaluate.repetition([1, 2, 1, 2, 1], n=2).value
    0.5
    >>> ps.evaluate.repetition("na " * 200).compression > 2.4
    True
    """
    n = check_count(n, "repetition: n")
    if isinstance(generated, Generation):
        text, units = generated.text, list[Any](generated.tokens)
    elif isinstance(generated, str):
        text, units = generated, generated.split()
    else:
        text, units = None, list(map(int, generated))
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    share = 1 - len(set(grams)) / len(grams) if grams else 0.0
    data = b"" if text is None else text.encode("utf-8", "replace")
    return Repetition(share, n, math.nan if text is None else len(data) / len(zlib.compress(data, 9)))
