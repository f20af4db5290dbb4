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

from .errors import InvalidInput

__all__ = ["Positions", "describe", "prompt_positions", "steering_ranges"]

Positions = str | int | slice | Sequence[int] | NDArray[np.integer[Any]] | None

_FORMS = 'None, "all", "prompt", "generated", a slice, an integer or integers'


def steering_ranges(positions: Positions, prompt_length: int, total: int) -> NDArray[np.int32]:
    """Half-open ranges (n, 2), int32, of the positions to steer in a sequence of `total` tokens of which the first
    `prompt_length` are the prompt.

    "generated" selects nothing in a sequence that has no generated part. Any other selection that is empty, and any
    single position outside the sequence, raises InvalidInput: it would be steering that never happens.
    """
    if isinstance(positions, str):
        named = {"all": (0, total), "prompt": (0, prompt_length), "generated": (prompt_length, total)}
        if positions not in named:
            raise InvalidInput(f"positions {positions!r} mean nothing: write {_FORMS}")
        start, stop = named[positions]
        return np.array([[start, stop]] if start < stop else np.empty((0, 2)), dtype=np.int32)
    return _ranges(_select(positions, prompt_length, total))


def prompt_positions(positions: Positions, prompt_length: int) -> NDArray[np.int32]:
    """The selected positions of a prompt, ascending, int32 (n,), n >= 1. Raises InvalidInput if there are none."""
    if isinstance(positions, str):
        if positions == "generated":
            raise InvalidInput('positions "generated" are not in a prompt: a Jacobian reads the prompt only')
        if positions not in ("all", "prompt"):
            raise InvalidInput(f"positions {positions!r} mean nothing: write {_FORMS}")
        positions = None
    return _select(positions, prompt_length, prompt_length)


def describe(positions: Positions) -> str:
    """Short text for a repr: "all", "prompt", "2:", "[0, 3]"."""
    if positions is None or isinstance(positions, str):
        return positions or "all"
    if isinstance(positions, slice):
        parts = [positions.start, positions.stop] + ([] if positions.step is None else [positions.step])
        return ":".join("" if part is None else str(part) for part in parts)
    return str(np.atleast_1d(np.asarray(positions)).tolist())


def _select(positions: Positions, prompt_length: int, total: int) -> NDArray[np.int32]:
    if positions is None:
        return np.arange(total, dtype=np.int32)
    if isinstance(positions, slice):
        return _from_slice(positions, prompt_length, total)
    return _from_integers(positions, prompt_length, total)


def _from_slice(positions: slice, prompt_length: int, total: int) -> NDArray[np.int32]:
    def bound(value: object, default: int) -> int:
        if value is None:
            return default
        at = _integer(value, positions)
        return min(max(at + prompt_length, 0) if at < 0 else at, total)

    step = 1 if positions.step is None else _integer(positions.step, positions)
    if step < 1:
        raise InvalidInput(f"the slice {describe(positions)} has step {step}; positions are read forward, from step 1 on")
    selected = np.arange(bound(positions.start, 0), bound(positions.stop, total), step, dtype=np.int32)
    if not len(selected):
        raise InvalidInput(
            f"positions {describe(positions)} select nothing in a sequence of {total} tokens, {prompt_length} of them prompt"
        )
    return selected


def _from_integers(positions: Any, prompt_length: int, total: int) -> NDArray[np.int32]:
    if isinstance(positions, np.ndarray) and positions.ndim > 1:
        raise InvalidInput(f"positions have shape {positions.shape}; one row of integers is needed")
    values = list(positions) if isinstance(positions, (Sequence, np.ndarray)) and np.ndim(positions) else [positions]
    if not values:
        raise InvalidInput("positions are empty; None selects every position")
    selected = []
    for value in values:
        at = _integer(value, positions)
        absolute = at + prompt_length if at < 0 else at
        if not 0 <= absolute < total:
            raise InvalidInput(f"there is no position {at} in a sequence of {total} tokens, {prompt_length} of them prompt")
        selected.append(absolute)
    if len(set(selected)) < len(selected):
        raise InvalidInput(f"positions {describe(values)} name one position twice in a prompt of {prompt_length} tokens")
    return np.array(sorted(selected), dtype=np.int32)


def _integer(value: object, positions: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"positions {positions!r} hold a truth value; give the positions themselves, as np.flatnonzero does")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"cannot read the positions {positions!r}: write {_FORMS}") from None


def _ranges(selected: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ascending positions (n,) -> half-open runs (r, 2)."""
    breaks = np.flatnonzero(np.diff(selected) != 1)
    starts = selected[np.concatenate([[0], breaks + 1])]
    stops = selected[np.concatenate([breaks, [len(selected) - 1]])] + 1
    return np.ascontiguousarray(np.stack([starts, stops], axis=1), dtype=np.int32)
