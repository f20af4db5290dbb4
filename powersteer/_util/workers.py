"""Calls in the workers of an executor, made again where a worker has died."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any

__all__ = ["ExecutorLike", "Workers"]

_ATTEMPTS = 3  # at a call whose worker died
ExecutorLike = Executor | Callable[[], Executor]


class Workers:
    """The workers of an executor, or of what a function returns: the function is called again when its executor breaks because a
    worker died, and the calls that were waiting are submitted again. An executor itself then raises."""

    def __init__(self, executor: ExecutorLike) -> None:
        self._make = executor if not isinstance(executor, Executor) and callable(executor) else None
        self._executor: Any = self._make() if self._make else executor

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """(index, function(*calls[index])) of every call, as they end. Calls that have not begun are cancelled if the iteration
        stops early."""
        waiting: dict[Future[Any], tuple[int, int]] = {}
        todo = [(index, 1) for index in range(len(calls))]
        try:
            while todo or waiting:
                for index, attempt in todo:
                    waiting[self._executor.submit(function, *calls[index])] = index, attempt
                todo = []
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    index, attempt = waiting.pop(future)
                    if isinstance(future.exception(), BrokenExecutor) and self._make and attempt < _ATTEMPTS:
                        todo.append((index, attempt + 1))
                    else:
                        yield index, future.result()
                if todo and self._make:  # the executor is broken, and with it every call that was waiting
                    todo += waiting.values()
                    waiting, self._executor = {}, self._make()
        finally:
            for future in waiting:
                future.cancel()
