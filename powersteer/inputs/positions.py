"""Which positions of a sequence are steered, or are rows of a Jacobian.

Positions are absolute: 0 is the first token of the prompt, T (the prompt's length) the first generated one. Negative
ones count from the prompt's end, so -1 is the prompt's last token whatever is generated after it. The forms are

    None, "all"     every position
    "prompt"        0 to T - 1
    "generated"     from T on
    slice(a, b)     from a up to b, b excluded; without b there is no end: generated positions are in it too
    3, [0, 3, -1]   these
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput, shown

__all__ = [
    "Canonical",
    "Positions",
    "canonical",
    "describe",
    "includes",
    "prompt_positions",
    "relative",
    "steering_ranges",
]

Positions = str | int | slice | Sequence[int] | NDArray[np.integer[Any]] | None
Canonical = str | slice | tuple[int, ...] | None

_FORMS = 'None, "all", "prompt", "generated", a slice, an integer or integers'
_END = np.iinfo(np.int32).max  # after every position


def canonical(positions: Positions) -> Canonical:
    """The same selection in a form that cannot change: None, "prompt", "generated", a slice or a tuple of integers.

    Raises InvalidInput for what is no selection, whatever the prompt.
    """
    if isinstance(positions, str):
        if positions not in ("all", "prompt", "generated"):
            raise InvalidInput(f"positions {positions!r} mean nothing: write {_FORMS}")
        return None if positions == "all" else positions
    if positions is None:
        return None
    if isinstance(positions, slice):
        parts = (positions.start, positions.stop, positions.step)
        start, stop, step = (None if part is None else _integer(part, positions) for part in parts)
        if step is not None and step < 1:
            raise InvalidInput(f"the slice of positions has step {step}; positions are read forward, from step 1 on")
        return slice(start, stop, step)
    if isinstance(positions, np.ndarray) and positions.ndim > 1:
        raise InvalidInput(f"positions have shape {positions.shape}; one row of integers is needed")
    several = isinstance(positions, Sequence) or (isinstance(positions, np.ndarray) and positions.ndim == 1)
    values = tuple(_integer(value, positions) for value in (positions if several else [positions]))  # type: ignore[union-attr]
    if not values:
        raise InvalidInput("positions are empty; None selects every position")
    return values


def steering_ranges(positions: Positions, prompt_length: int, total: int) -> NDArray[np.int32]:
    """Half-open ranges (n, 2), int32, of the positions to steer in a sequence of `total` tokens of which the first
    `prompt_length` are the prompt.

    "generated" selects nothing in a sequence that has no generated part. Any other selection that is empty, and any
    single position outside the sequence, raises InvalidInput: it would be steering that never happens.
    """
    positions = canonical(positions)
    if positions == "generated" and total == prompt_length:
        return np.empty((0, 2), dtype=np.int32)
    return _ranges(_select(positions, prompt_length, total))


def prompt_positions(positions: Positions, prompt_length: int) -> NDArray[np.int32]:
    """The selected positions of a prompt, ascending, int32 (n,), n >= 1. Raises InvalidInput if there are none."""
    positions = canonical(positions)
    if positions == "generated":
        raise InvalidInput('positions "generated" are not in a prompt: a Jacobian reads the prompt only')
    return _select(positions, prompt_length, prompt_length)


def includes(positions: Canonical, at: NDArray[np.integer[Any]], prompt_length: int) -> NDArray[np.bool_]:
    """Whether each of the positions `at` (n,) of a sequence is selected, however long it will become.

    Raises InvalidInput for a position before the first, and for one that is named twice.
    """
    if positions is None:
        return np.ones(len(at), dtype=bool)
    if isinstance(positions, str):
        return at < prompt_length if positions == "prompt" else at >= prompt_length
    if isinstance(positions, slice):
        start, stop = _bound(positions.start, 0, prompt_length), _bound(positions.stop, _END, prompt_length)
        inside: NDArray[np.bool_] = (at >= start) & (at < stop) & ((at - start) % (positions.step or 1) == 0)
        return inside
    return np.isin(at, _from_integers(positions, prompt_length, _END))


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
    if positions is None:
        return np.arange(total, dtype=np.int32)
    if isinstance(positions, str):
        start, stop = (0, prompt_length) if positions == "prompt" else (prompt_length, total)
        return np.arange(start, stop, dtype=np.int32)
    if isinstance(positions, slice):
        return _from_slice(positions, prompt_length, total)
    return _from_integers(positions, prompt_length, total)


def _bound(at: int | None, default: int, prompt_length: int) -> int:
    """An end of a slice, counted from the first position."""
    if at is None:
        return default
    return max(at + prompt_length, 0) if at < 0 else at


def _from_slice(positions: slice, prompt_length: int, total: int) -> NDArray[np.int32]:
    start = min(_bound(positions.start, 0, prompt_length), total)
    stop = min(_bound(positions.stop, total, prompt_length), total)
    selected = np.arange(start, stop, positions.step or 1, dtype=np.int32)
    if not len(selected):
        raise InvalidInput(
            f"positions {describe(positions)} select nothing in a sequence of {total} tokens, "
            f"{prompt_length} of them prompt"
        )
    return selected


def _from_integers(positions: tuple[int, ...], prompt_length: int, total: int) -> NDArray[np.int32]:
    selected: dict[int, int] = {}  # absolute -> as it was given
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
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"cannot read the positions {shown(positions)}: write {_FORMS}") from None


def _ranges(selected: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ascending positions (n,) -> half-open runs (r, 2)."""
    breaks = np.flatnonzero(np.diff(selected) != 1)
    starts = selected[np.concatenate([[0], breaks + 1])]
    stops = selected[np.concatenate([breaks, [len(selected) - 1]])] + 1
    return np.ascontiguousarray(np.stack([starts, stops], axis=1), dtype=np.int32)
