"""Solvers that advance together: each runs in a thread of its own, and the products they ask for are made at once.

Whenever every solver that still runs has asked for a product, the products of one kind, J or J', are made in a single
call on the calling thread: of the kind that more of them ask for, so that those out of step fall in with the others.
Which products go together follows from what the solvers do, never from timing: the same solvers give the same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

__all__ = ["Column", "run_together"]

Array = NDArray[Any]
Result = TypeVar("Result")
Products = Callable[[Sequence[tuple[int, Array]]], Sequence[Array]]  # (lane, rows in) -> rows out of each

_POLL = 0.2  # seconds between looks for Ctrl-C while the solvers think


class _Stopped(BaseException):
    """Ends a solver's thread after another failed; never leaves this module."""


@dataclass(eq=False)
class Column:
    """What a solver sees: the operator of its lane."""

    index: int
    _ask: Callable[[int, bool, Array], Array]

    def apply(self, V: Array) -> Array:
        return self._ask(self.index, False, V)

    def apply_t(self, U: Array) -> Array:
        return self._ask(self.index, True, U)


class _Meeting:
    """Where solvers leave what they ask for and wait for the answer."""

    def __init__(self, n: int) -> None:
        self.changed = threading.Condition()
        self.running = n
        self.requested: dict[int, tuple[bool, Array]] = {}
        self.answers: dict[int, Array] = {}
        self.stopped = False

    def ask(self, lane: int, transposed: bool, x: Array) -> Array:
        with self.changed:
            self.requested[lane] = (transposed, x)
            self.changed.notify_all()
            while lane not in self.answers:
                if self.stopped:
                    raise _Stopped
                self.changed.wait()
            return self.answers.pop(lane)

    def leave(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def next_round(self) -> tuple[bool, list[tuple[int, Array]]]:
        """(transposed?, what is asked of that kind, by lane), once everyone who runs has asked; nothing at the end."""
        with self.changed:
            while len(self.requested) < self.running:
                self.changed.wait(_POLL)
            transposed = 2 * sum(t for t, _ in self.requested.values()) > len(self.requested)
            chosen = sorted(lane for lane, (t, _) in self.requested.items() if t == transposed)
            return transposed, [(lane, self.requested.pop(lane)[1]) for lane in chosen]

    def answer(self, lanes: Sequence[int], products: Sequence[Array]) -> None:
        with self.changed:
            self.answers.update(zip(lanes, products, strict=True))
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def run_together(
    n: int, solve: Callable[[Column], Result], apply: Products, apply_t: Products
) -> list[Result]:
    """[solve(lane 0), ..., solve(lane n - 1)], run at the same time.

    apply and apply_t get the (lane, rows) that were asked for, and return the product of each. They are called on this
    thread, one call at a time. The first exception, of a solver (lowest lane) or of a product, is raised here after
    all have ended; so is KeyboardInterrupt.
    """
    meeting = _Meeting(n)
    results: dict[int, Result] = {}
    failures: dict[int, BaseException] = {}

    def work(index: int) -> None:
        try:
            results[index] = solve(Column(index, meeting.ask))
        except _Stopped:
            return
        except BaseException as error:  # carried to the caller's thread
            failures[index] = error
        finally:
            meeting.leave()

    threads = [threading.Thread(target=work, args=(i,), name=f"powersteer-lane-{i}", daemon=True) for i in range(n)]
    try:
        for thread in threads:
            thread.start()
        while not failures:
            transposed, requested = meeting.next_round()
            if not requested:
                break
            meeting.answer([lane for lane, _ in requested], (apply_t if transposed else apply)(requested))
    finally:
        meeting.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[min(failures)]
    return [results[i] for i in range(n)]
