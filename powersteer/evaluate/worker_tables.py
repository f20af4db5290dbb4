"""Tables of scores that the workers of an executor compute, part by part."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from .._util.workers import Workers
from ..errors import InvalidInput, shown
from ..model.generation import Generation
from ..model.remote import RemoteModel
from .batched import Callback, Steer
from .distributions import Array
from .scores import Score, score_table

__all__ = ["WorkerTables"]

_CELLS = 32  # of a call: an item under many vectors, which share what lies before the vectors' layers, or more items under few


@dataclass(frozen=True)
class WorkerTables:
    """What `score_table` is for a model, computed by workers: the same bits, since no score depends on what is in its batch."""

    remote: RemoteModel
    workers: Workers

    def __call__(
        self, items: Sequence[Any], vectors: Sequence[Steer], score: Score, callback: Callback | None = None,
        made: list[Generation] | None = None, **how: Any,
    ) -> Array:  # fmt: skip
        """The table (vectors, items); arguments of `score_table`. Raises InvalidInput for a score that cannot be sent."""
        wide = min(len(vectors), _CELLS)
        tall = _CELLS // wide
        corners = list(product(range(0, len(items), tall), range(0, len(vectors), wide)))
        calls = [(self.remote, items[i : i + tall], vectors[j : j + wide], score, how, made is not None) for i, j in corners]
        table, continued = np.empty((len(vectors), len(items))), dict[tuple[int, int], Generation]()
        try:
            for index, (part, generated) in self.workers.run(_part, calls):
                (i, j), (m, n) = corners[index], part.shape
                table[j : j + m, i : i + n] = part
                continued.update(zip(product(range(i, i + n), range(j, j + m)), generated, strict=False))
                if callback:
                    callback(part.size)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if str(error) != _refused(score):
                raise
            raise InvalidInput(
                f"the score {shown(score)} cannot be sent to the workers of the executor ({error}); define it at the top level of a "
                "module, or take an executor that pickles closures, such as that of Dask"
            ) from None
        if made is not None:
            made += [continued[cell] for cell in sorted(continued)]
        return table


def _part(
    remote: RemoteModel, items: Sequence[Any], vectors: Sequence[Steer], score: Score, how: dict[str, Any], collects: bool
) -> tuple[Array, list[Generation]]:
    """Scores of some items under some vectors, and the continuations if they are collected."""
    made: list[Generation] = []
    return score_table(remote.load(), items, vectors, score, **how, made=made if collects else None), made


def _refused(score: Score) -> str | None:
    """Why a score cannot be pickled; None: it can."""
    try:
        pickle.dumps(score)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return str(error)
    return None
