"""Solvers that advance together, so that their products are made in one call.

Each solver runs in a thread of its own. When every running solver has requested a product, the products of one kind, J or
J', are made in a single call on the calling thread: of the kind with more requests, so that solvers that are out of step
join the others. The grouping follows from the requests, never from timing: the same solvers give the same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .operator import LinearMap

__all__ = ["Column", "run_together"]

Array = NDArray[Any]
Result = TypeVar("Result")
Products = Callable[[Sequence[tuple[int, Array]]], Sequence[Array]]  # [(index, rows)] -> [their products]

_POLL = 0.2  # seconds between checks for Ctrl-C while the solvers compute


class _Stopped(BaseException):
    """Ends a solver's thread after another one failed; never leaves this module."""


class Column(LinearMap):
    """One solver's map, number `index`: its products wait for those of the other solvers."""

    def __init__(
        self, index: int, shape: tuple[int, int], dtype: np.dtype[Any], request: Callable[[int, bool, Array], Array]
    ) -> None:
        super().__init__(shape, dtype)
        self.index, self._request = index, request

    def apply(self, V: Array) -> Array:
        return self._request(self.index, False, V)

    def apply_t(self, U: Array) -> Array:
        return self._request(self.index, True, U)


class _Meeting:
    """Requests of the solvers and the products made for them, under one lock."""

    def __init__(self, n: int) -> None:
        self.changed = threading.Condition()
        self.running = n
        self.requested: dict[int, tuple[bool, Array]] = {}
        self.products: dict[int, Array] = {}
        self.stopped = False

    def request(self, index: int, transposed: bool, x: Array) -> Array:
        """Request a product and wait for it."""
        with self.changed:
            self.requested[index] = (transposed, x)
            self.changed.notify_all()
            while index not in self.products:
                if self.stopped:
                    raise _Stopped
                self.changed.wait()
            return self.products.pop(index)

    def leave(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def next_round(self) -> tuple[bool, list[tuple[int, Array]]]:
        """(transposed, [(index, rows)] of that kind), once every running solver has a request; no rows at the end."""
        with self.changed:
            while len(self.requested) < self.running:
                self.changed.wait(_POLL)
            transposed = 2 * sum(t for t, _ in self.requested.values()) > len(self.requested)
            chosen = sorted(index for index, (t, _) in self.requested.items() if t == transposed)
            return transposed, [(index, self.requested.pop(index)[1]) for index in chosen]

    def deliver(self, indices: Sequence[int], products: Sequence[Array]) -> None:
        with self.changed:
            self.products.update(zip(indices, products, strict=True))
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def run_together(
    shapes: Sequence[tuple[int, int]],
    dtype: np.dtype[Any],
    solve: Callable[[Column], Result],
    apply: Products,
    apply_t: Products,
) -> list[Result]:
    """[solve(map 0), ..., solve(map n - 1)] for maps of these shapes, run at the same time.

    apply and apply_t get the requested (index, rows) and return the product of each. They are called on this thread, one
    call at a time. The first exception, of a solver (lowest index) or of a product, is raised here after all threads
    have ended; so is KeyboardInterrupt.
    """
    meeting = _Meeting(len(shapes))
    results: dict[int, Result] = {}
    failures: dict[int, BaseException] = {}

    def work(index: int) -> None:
        try:
            results[index] = solve(Column(index, shapes[index], dtype, meeting.request))
        except _Stopped:
            return
        except BaseException as error:  # carried to the caller's thread
            failures[index] = error
        finally:
            meeting.leave()

    threads = [
        threading.Thread(target=work, args=(i,), name=f"powersteer-solver-{i}", daemon=True) for i in range(len(shapes))
    ]
    try:
        for thread in threads:
            thread.start()
        while not failures:
            transposed, requested = meeting.next_round()
            if not requested:
                break
            meeting.deliver([index for index, _ in requested], (apply_t if transposed else apply)(requested))
    finally:
        meeting.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[min(failures)]
    return [results[i] for i in range(len(shapes))]
