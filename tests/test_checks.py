"""Checks of arguments: integers and numbers of every library, never truth values, and messages with name, value and range."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from oracles import torch

from powersteer._util.checks import as_integer, as_list, as_number, check_count, check_positive, check_seed
from powersteer.errors import InvalidInput

NO_INTEGERS = [True, np.True_, 1.0, "1", None, [1], Fraction(1), Decimal(1), np.float32(1), math.nan]


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)])
def test_integers(value):
    assert as_integer(value) == 3 and type(as_integer(value)) is int and check_count(value, "n") == 3


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_no_integers(value):
    assert as_integer(value) is None
    with pytest.raises(InvalidInput, match="^n is .*; it must be an integer >= 1$"):
        check_count(value, "n")


def test_numbers():
    assert as_number(np.float32(0.5)) == as_number(0.5) == 0.5 and as_number(2) == 2.0 and math.isnan(as_number(math.nan))
    assert [as_number(x) for x in (True, np.True_, "1", None, 1j)] == [None] * 5
    for x in (0, -1.0, math.nan, math.inf, True, "1"):
        with pytest.raises(InvalidInput, match="^r is .*; it must be a finite number > 0$"):
            check_positive(x, "r")


def test_bounds():
    assert check_count(0, "n", least=0) == 0 and check_count(5, "n", 5) == 5 and check_seed(2**64 - 1) == 2**64 - 1
    with pytest.raises(InvalidInput, match="^n is 6; it must be at most 5: there are no more$"):
        check_count(6, "n", 5, "there are no more")
    with pytest.raises(InvalidInput, match="^n is 6; it must be at most 5$"):
        check_count(6, "n", 5)
    for seed in (-1, 2**64):
        with pytest.raises(InvalidInput, match="^seed is"):
            check_seed(seed)


def test_a_text_is_one():
    assert as_list("ab") == ["ab"] and as_list(3) == [3] and as_list((1, 2)) == [1, 2] and as_list(np.arange(2)) == [0, 1]
