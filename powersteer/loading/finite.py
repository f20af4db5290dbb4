"""When weights are searched for NaN and infinity: at load, when a model is first computed with, or after an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..errors import BadCheckpoint, InvalidInput, NumericalError
from .tensor_ref import TensorRef

__all__ = ["CHECK_LIMIT", "FiniteWeights", "search_when_used"]

T = TypeVar("T")
CHECK_LIMIT = 2 << 30  # bytes up to which all weights are searched without being asked


@dataclass
class FiniteWeights:
    """The search of a model's weights, which reads all of them once."""

    search: Callable[[], None]  # raises BadCheckpoint that names the tensor
    due: bool  # before the model is first computed with
    done: bool = False

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around a computation with the weights: search them if that is due, and name the tensor that is to blame for a
        NumericalError if there is one."""
        if self.due:
            self._search()
        try:
            yield
        except NumericalError as error:
            if self.done:
                raise
            try:
                self._search()
            except BadCheckpoint as found:
                raise NumericalError(f"{error}. The {found}") from None
            raise

    def iterating(self, items: Iterator[T]) -> Iterator[T]:
        """The items of an iterator whose steps are computations."""
        with self.computing():
            yield from items

    def _search(self) -> None:
        self.search()
        self.due, self.done = False, True


def search_when_used(check: bool | None, tensors: Mapping[str, TensorRef]) -> bool:
    """Whether weights are searched when they are first computed with. check: as for `load_checkpoint`."""
    if check is not None and not isinstance(check, bool):
        raise InvalidInput(f"check is {check!r}; it must be True, False, or None for up to {CHECK_LIMIT >> 30} GiB")
    return check is None and sum(tensor.nbytes for tensor in tensors.values()) <= CHECK_LIMIT
