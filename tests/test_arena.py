"""The one allocation that a computation's buffers are cut from."""

from __future__ import annotations

import ctypes

import c_core
import pytest

MEMORY, OVERFLOW = 1, 3  # csrc/base/status.h


class Arena(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class Slice(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_void_p), ("name", ctypes.c_char_p), ("item", ctypes.c_size_t), ("dims", ctypes.c_size_t * 3))


pytestmark = pytest.mark.long  # it compiles C


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    return c_core.Core(tmp_path_factory.mktemp("arena"), "float64").lib


def make(lib, *sizes):
    """(status, addresses of the slices, the arena); sizes: (item, dims)"""
    slots = [ctypes.c_void_p(None) for _ in sizes]
    table = (Slice * len(sizes))(
        *(Slice(ctypes.addressof(slot), b"the buffer", item, (ctypes.c_size_t * 3)(*dims))
          for slot, (item, dims) in zip(slots, sizes, strict=True))
    )  # fmt: skip
    arena, status = Arena(), c_core.Status()
    code = lib.arena_make(ctypes.byref(arena), table, ctypes.c_size_t(len(sizes)), ctypes.byref(status))
    assert code == status.code
    return status, [slot.value for slot in slots], arena


def test_slices_are_aligned_and_apart(lib):
    sizes = [(8, (3, 5, 1)), (1, (1, 1, 1)), (4, (0, 7, 2)), (2, (33, 1, 1)), (8, (1, 1, 1))]
    status, at, arena = make(lib, *sizes)
    assert status.code == 0
    assert all(address % 64 == 0 for address in at)
    ends = [address + item * dims[0] * dims[1] * dims[2] for address, (item, dims) in zip(at, sizes, strict=True)]
    assert all(end <= after for end, after in zip(ends, [*at[1:], arena.base + arena.bytes], strict=True))
    lib.arena_free(ctypes.byref(arena))
    assert arena.base is None and arena.bytes == 0
    lib.arena_free(ctypes.byref(arena))  # twice does no harm


@pytest.mark.parametrize(
    "sizes",
    [
        [(8, (2**62, 1, 1))],  # one product
        [(1, (2**32, 2**32, 1))],
        [(1, (2**62, 1, 1)), (1, (2**62, 1, 1))],  # their sum
        [(1, (2**63, 1, 1))],  # more than half of all addresses
    ],
)
def test_sizes_that_overflow_are_refused(lib, sizes):
    status, at, arena = make(lib, *sizes)
    assert status.code == OVERFLOW and (b"not fit" in status.message or b"would take" in status.message)
    assert set(at) == {None} and arena.base is None


def test_more_than_there_is(lib):
    status, at, arena = make(lib, (1, (2**61, 1, 1)))
    assert status.code == MEMORY and b"out of memory" in status.message
    assert at == [None] and arena.base is None
