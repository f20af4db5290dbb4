"""Which positions are meant: against Python's own indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powersteer.errors import InvalidInput
from powersteer.inputs.positions import canonical, describe, prompt_positions, steering_ranges

LENGTHS = st.integers(1, 12)
BOUNDS = st.none() | st.integers(-15, 25)


def expand(ranges):
    return [i for start, stop in ranges.tolist() for i in range(start, stop)]


@given(LENGTHS, st.integers(0, 8))
def test_names(length, new):
    total = length + new
    assert expand(steering_ranges(None, length, total)) == list(range(total))
    assert expand(steering_ranges("all", length, total)) == list(range(total))
    assert expand(steering_ranges("prompt", length, total)) == list(range(length))
    assert expand(steering_ranges("generated", length, total)) == list(range(length, total))
    assert prompt_positions(None, length).tolist() == prompt_positions("prompt", length).tolist() == list(range(length))


@given(LENGTHS, BOUNDS, BOUNDS, st.none() | st.integers(1, 4))
def test_a_slice_of_a_prompt_is_pythons(length, start, stop, step):
    """Within the prompt a slice means what it means on the list of its tokens, except that an empty one is refused."""
    wanted = list(range(length))[start:stop:step]
    if wanted:
        assert prompt_positions(slice(start, stop, step), length).tolist() == wanted
    else:
        with pytest.raises(InvalidInput, match="select nothing"):
            prompt_positions(slice(start, stop, step), length)


@given(LENGTHS, st.integers(1, 8), st.none() | st.integers(-12, 12))
def test_an_open_slice_goes_on_into_what_is_generated(length, new, start):
    begin = 0 if start is None else max(start + length, 0) if start < 0 else start
    if begin < length + new:
        ranges = steering_ranges(slice(start, None), length, length + new)
        assert expand(ranges) == list(range(begin, length + new)) and len(ranges) == 1


@given(LENGTHS, st.integers(0, 8), st.data())
def test_integers(length, new, data):
    """Negative ones count from the prompt's end, not from the sequence's."""
    chosen = data.draw(st.lists(st.integers(0, length + new - 1), min_size=1, unique=True))
    spelled = [p - length if p < length and data.draw(st.booleans()) else p for p in chosen]
    for form in (spelled, tuple(spelled), np.array(spelled)):
        ranges = steering_ranges(form, length, length + new)
        assert expand(ranges) == sorted(chosen)
        assert ranges.dtype == np.int32 and ranges.flags.c_contiguous
        assert (ranges[1:, 0] > ranges[:-1, 1]).all()  # as few ranges as possible
    assert expand(steering_ranges(spelled[0], length, length + new)) == chosen[:1]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("last", "are not known"),
        (6, "no position 6"),
        (-7, "no position -7"),
        ([0, 9], "no position 9"),
        ([], "empty"),
        (np.zeros(0, int), "empty"),
        ([1, 1], "twice"),
        ([5, -1], "twice"),
        (1.0, "cannot read"),
        ([0.5], "cannot read"),
        (np.array([1.0]), "cannot read"),
        (True, "truth value"),
        (np.array([True, False, True, False, False, False]), "truth value"),
        (np.zeros((2, 2), int), r"shape \(2, 2\)"),
        (slice(4, 2), "select nothing"),
        (slice(6, None), "select nothing"),
        (slice(None, None, -1), "step -1"),
        (slice(None, None, 0), "step 0"),
        (slice("a", None), "cannot read"),
        (slice(0.0, None), "cannot read"),
        ({1, 2}, "cannot read"),
        (10**30, "no position"),
    ],
)
def test_refusals(positions, message):
    for resolve in (lambda p: prompt_positions(p, 6), lambda p: steering_ranges(p, 6, 6)):
        with pytest.raises(InvalidInput, match=message):
            resolve(positions)


def test_generated_positions_are_in_no_prompt():
    with pytest.raises(InvalidInput, match="generated"):
        prompt_positions("generated", 6)
    assert steering_ranges("generated", 6, 6).shape == (0, 2)


def test_beyond_the_prompt_is_reached_by_generation_only():
    assert steering_ranges([7], 6, 8).tolist() == [[7, 8]]
    with pytest.raises(InvalidInput, match="no position 8 in a sequence of 8 tokens, 6 of them prompt"):
        steering_ranges([8], 6, 8)


@pytest.mark.parametrize(
    ("positions", "text"),
    [(None, "all"), ("prompt", "prompt"), (slice(-2, None), "-2:"), (slice(1, 9, 2), "1:9:2"), (3, "[3]"),
     ([0, -1], "[0, -1]"),
     (np.array([4, 5]), "[4, 5]")],
)  # fmt: skip
def test_description(positions, text):
    assert describe(positions) == text


def test_the_canonical_form_cannot_change():
    given = [0, -1]
    kept = canonical(given)
    given.append(2)
    array = np.array([1, 2])
    copied = canonical(array)
    array[:] = 9
    assert kept == (0, -1) and copied == (1, 2) and canonical(3) == (3,) and canonical("all") is None
    assert canonical(slice(np.int64(-2), None)) == slice(-2, None)
    for form in (None, "prompt", "generated", slice(1, 9, 2), (0, 4)):
        assert canonical(canonical(form)) == canonical(form)
