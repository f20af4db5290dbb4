"""Progress of long calls: a bar in a notebook, else a line on stderr, in a pipe as on a terminal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidInput, shown

__all__ = ["Report", "progress_bar", "progress_line"]

Report = Callable[[int, int], object]  # (done, in all)


@contextmanager
def progress_bar(
    progress: bool | Report, total: int, what: str, unit: str = " rows", initial: int = 0, **options: Any
) -> Iterator[Callable[[int], object]]:
    """Yields a function to call with the amount of work done since the last call. progress: True for a bar, False for none,
    or a callable that gets (done, total). initial: work done before. Raises InvalidInput for anything else."""
    if callable(progress):
        done = initial

        def report(amount: int) -> None:
            nonlocal done
            done += amount
            progress(done, total)

        yield report
        return
    with progress_line(progress, what, total=total, unit=unit, initial=initial, **options) as line:
        yield line.update


@contextmanager
def progress_line(progress: bool, what: str, **options: Any) -> Iterator[Any]:
    """A tqdm bar, disabled unless `progress` is True. options: those of tqdm."""
    if not isinstance(progress, bool):
        raise InvalidInput(f"{what}: progress is {shown(progress)}; it must be True, False or a callable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the text bar, which needs no advice
        from tqdm.auto import tqdm
    with tqdm(desc=what, disable=not progress, dynamic_ncols=True, **options) as line:
        yield line
