"""The thread that generates while sliders move: one answer at a time, always the one to the newest request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

__all__ = ["Worker"]

Request = TypeVar("Request")


class Worker(Generic[Request]):
    """Runs `answer(request)` in a thread and gives each item to `show`.

    A newer request ends the answer to the one before at its next item; so does the end of the interpreter. The thread
    exists only while there is something to answer. An exception of an answer goes to `fail`.
    """

    def __init__(
        self,
        answer: Callable[[Request], Iterator[Any]],
        show: Callable[[Any], object],
        fail: Callable[[Exception], object],
    ) -> None:
        self._answer, self._show, self._fail = answer, show, fail
        self._changed = threading.Condition()
        self._requests: list[Request] = []  # the newest, if it is not being answered yet
        self._thread: threading.Thread | None = None
        self._closed = False

    def request(self, request: Request) -> None:
        """Answer this instead of everything before; nothing after `close`."""
        with self._changed:
            if self._closed:
                return
            self._requests = [request]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="powersteer.play")
                self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Until every request is answered; whether it is after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, seconds)

    def close(self) -> None:
        """Stop at the next item, and wait for that. The thread itself must not call it."""
        with self._changed:
            self._closed, self._requests = True, []
        self.wait()

    def _outdated(self) -> bool:
        return self._closed or bool(self._requests) or not threading.main_thread().is_alive()

    def _run(self) -> None:
        while requests := self._take():
            try:
                with closing(self._answer(requests[0])) as items:  # type: ignore[type-var]
                    for item in items:
                        if self._outdated():
                            break
                        self._show(item)
            except Exception as error:
                self._fail(error)

    def _take(self) -> list[Request]:
        """The newest request as a list; an empty one ends the thread."""
        with self._changed:
            taken, self._requests = self._requests, []
            if not taken or self._closed or not threading.main_thread().is_alive():
                self._thread = None
                self._changed.notify_all()
                return []
            return taken
