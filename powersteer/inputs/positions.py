"""Selections of positions: those that are steered, and those that are rows of a Jacobian.

Positions are absolute: 0 is the first token of the prompt, T (the prompt's length) the first generated one. Negative
ones count from the prompt's end, so -1 is the prompt's last token however much is generated after it. The forms are

    None, "all"     every position
    "prompt"        0 to T - 1
    "generated"     from T on
    slice(a, b)     from a up to b, b excluded; without b it has no end, so it includes generated positions
    3, [0, 3, -1]   single positions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_integer
from ..errors import InvalidInput, shown

__all__ = ["Canonical", "Positions", "canonical", "describe", "includes", "prompt_positions", "relative", "steering_ranges"]

Positions = str | int | slice | Sequence[int] | NDArray[np.integer[Any]] | None
Canonical = str | slice | tuple[int, ...] | None

_FORMS = 'None, "all", "prompt", "generated", a slice, an integer or integers'
_END = np.iinfo(np.int32).max  # after every position


def canonical(positions: Positions) -> Canonical:
    """The same selection in an immutable form: None, "prompt", "generated", a slice or a tuple of integers. Raises
    InvalidInput for anything that selects no positions of any prompt.

    Examples
    --------
    >>> from powersteer.inputs.positions import canonical
    >>> canonical("all"), canonical([0, -1])
    (None, (0, -1))
    """
    if positions is None or isinstance(positions, str):
        if positions not in (None, "all", "prompt", "generated"):
            raise InvalidInput(f"positions {positions!r} are not known: write {_FORMS}")
        return None if positions == "all" else positions
    if isinstance(positions, slice):
        parts = (positions.start, positions.stop, positions.step)
        start, stop, step = (None if part is None else _integer(part, positions) for part in parts)
        if step is not None and step < 1:
            raise InvalidInput(f"the slice of positions has step {step}; positions are read forward, from step 1 on")
        return slice(start, stop, step)
    if isinstance(positions, np.ndarray) and positions.ndim > 1:
        raise InvalidInput(f"positions have shape {positions.shape}; one row of integers is needed")
    as_list = isinstance(positions, Sequence) or (isinstance(positions, np.ndarray) and positions.ndim == 1)
    values = tuple(_integer(value, positions) for value in (positions if as_list else [positions]))  # type: ignore[union-attr]
    if not values:
        raise InvalidInput("positions are empty; None selects every position")
    return values


def steering_ranges(positions: Positions, prompt_length: int, total: int) -> NDArray[np.int32]:
    """The positions to steer in a sequence of `total` tokens, as half-open ranges (n, 2).

    "generated" selects nothing in a sequence that has no generated part. Raises InvalidInput for any other empty
    selection, and for a single position outside the sequence, which would never be steered.

    Examples
    --------
    >>> from powersteer.inputs.positions import steering_ranges
    >>> steering_ranges([0, 1, -1], 6, 8).tolist()
    [[0, 2], [5, 6]]
    """
    positions = canonical(positions)
    if positions == "generated" and total == prompt_length:
        return np.empty((0, 2), dtype=np.int32)
    selected = _select(positions, prompt_length, total)
    breaks = np.flatnonzero(np.diff(selected) != 1)
    starts = selected[np.concatenate([[0], breaks + 1])]
    stops = selected[np.concatenate([breaks, [len(selected) - 1]])] + 1
    return np.stack([starts, stops], axis=1)


def prompt_positions(positions: Positions, prompt_length: int) -> NDArray[np.int32]:
    """The selected positions of a prompt, ascending, int32 (n,), n >= 1. Raises InvalidInput if there are none.

    Examples
    --------
    >>> from powersteer.inputs.positions import prompt_positions
    >>> prompt_positions(slice(-2, None), 6).tolist()
    [4, 5]
    """
    positions = canonical(positions)
    if positions == "generated":
        raise InvalidInput('positions "generated" are not in a prompt, and only positions of the prompt can be read here')
    return _select(positions, prompt_length, prompt_length)


def includes(positions: Canonical, at: NDArray[np.integer[Any]], prompt_length: int) -> NDArray[np.bool_]:
    """Whether each of `at` (n,) is selected in a sequence of any length; a negative one is not. Raises InvalidInput for
    a selected position before the first, and for one that is given twice."""
    if isinstance(positions, tuple):
        return np.isin(at, _from_integers(positions, prompt_length, _END))
    start, stop, step = _bounds(positions, prompt_length, _END)
    return np.asarray((at >= start) & (at < stop) & ((at - start) % step == 0))


def relative(positions: Canonical) -> bool:
    """Whether the selection depends on the prompt's length."""
    if isinstance(positions, slice):
        return any(part is not None and part < 0 for part in (positions.start, positions.stop))
    return isinstance(positions, str) or (positions is not None and min(positions) < 0)


def describe(positions: Positions) -> str:
    """Short text for a repr: "all", "prompt", "2:", "[0, 3]"."""
    positions = canonical(positions)
    if positions is None or isinstance(positions, str):
        return positions or "all"
    if isinstance(positions, slice):
        parts = [positions.start, positions.stop] + ([] if positions.step is None else [positions.step])
        return ":".join("" if part is None else str(part) for part in parts)
    return str(list(positions))


def _select(positions: Canonical, prompt_length: int, total: int) -> NDArray[np.int32]:
    if isinstance(positions, tuple):
        return _from_integers(positions, prompt_length, total)
    selected = np.arange(*_bounds(positions, prompt_length, total), dtype=np.int32)
    if not len(selected):
        raise InvalidInput(
            f"positions {describe(positions)} select nothing in a sequence of {total} tokens, "
            f"{prompt_length} of them prompt"
        )
    return selected


def _bounds(positions: str | slice | None, prompt_length: int, end: int) -> tuple[int, int, int]:
    """(start, stop, step), counted from the first position and at most `end`, of anything but single positions."""
    if not isinstance(positions, slice):
        positions = {None: slice(end), "prompt": slice(prompt_length), "generated": slice(prompt_length, end)}[positions]
    bounds = (0 if positions.start is None else positions.start, end if positions.stop is None else positions.stop)
    start, stop = (min(max(at + prompt_length, 0) if at < 0 else at, end) for at in bounds)
    return start, stop, positions.step or 1


def _from_integers(positions: tuple[int, ...], prompt_length: int, total: int) -> NDArray[np.int32]:
    selected: dict[int, int] = {}  # absolute → as given
    for at in positions:
        absolute = at + prompt_length if at < 0 else at
        if not 0 <= absolute < total:
            raise InvalidInput(
                f"there is no position {at} in a sequence of {total} tokens, {prompt_length} of them prompt"
            )
        if absolute in selected:
            raise InvalidInput(
                f"positions {selected[absolute]} and {at} are one position twice in a prompt of {prompt_length} tokens"
            )
        selected[absolute] = at
    return np.array(sorted(selected), dtype=np.int32)


def _integer(value: object, positions: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"positions {shown(positions)} hold a truth value; np.flatnonzero makes positions of a mask")
    if (number := as_integer(value)) is None:
        raise InvalidInput(f"cannot read the positions {shown(positions)}: write {_FORMS}")
    return number
