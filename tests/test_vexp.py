"""The vectorised exponential, with every instruction set that this machine has, against NumPy in extended precision."""

import ctypes

import numpy as np
import pytest
from c_core import DTYPES, Core
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module", params=list(DTYPES))
def core(request, tmp_path_factory):
    return Core(tmp_path_factory.mktemp("vexp"), request.param)


def by(core, instructions, x):
    y = np.empty_like(x)
    core.lib.vexp(instructions, ctypes.c_size_t(len(x)), core.pointer(x), core.pointer(y))
    return y


def kinds(core):
    return range(core.lib.cpu_best() + 1)


def ulps(got, x):
    exact = np.exp(x.astype(np.longdouble))
    return float((np.abs(got - exact) / np.spacing(exact.astype(x.dtype))).max())


@given(n=st.integers(0, 70), seed=st.integers(0, 2**32), scale=st.sampled_from([1e-30, 1e-3, 1.0, 20.0]))
@settings(max_examples=100, deadline=None)
def test_within_its_bound(core, n, seed, scale):
    x = np.clip(np.random.default_rng(seed).standard_normal(n) * scale, -86.9, 88.7).astype(core.dtype)
    for instructions in kinds(core):
        assert n == 0 or ulps(by(core, instructions, x), x) <= 1.5


def test_a_million_numbers(core):
    x = np.linspace(-86.9, 88.7, 10**6).astype(core.dtype)
    for instructions in kinds(core):
        assert ulps(by(core, instructions, x), x) <= 1.5


def test_edges(core):
    x = np.array([-np.inf, -1e30, -200, -0.0, 0.0, 90, 1e30, np.inf, np.nan], core.dtype)
    for instructions in kinds(core):
        y = by(core, instructions, x)
        assert (y[:3] <= np.exp(-87.0)).all() and (y[:3] >= 0).all() and (y[3:5] == 1).all()
        assert (y[5:8] >= np.exp(89.0)).all() and np.isnan(y[8])
        if core.dtype == np.float32:
            assert (y[:3] == 0).all() and np.isinf(y[5:8]).all()
