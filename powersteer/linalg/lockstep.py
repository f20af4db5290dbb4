"""Solvers that advance together, so that their products are made in one call.

A run of the core stops where it needs a product. In every round, the products of one kind, J or J', are made in a single
call: of the kind with more requests, so that runs that are out of step join the others. The runs then go on side by side, on
the threads of a pool. Grouping and results follow from the requests alone: the same runs give the same bits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import CORES
from .._util.checks import check_count, check_positive, check_seed
from .result import SVDResult, result_of
from .svd import krylov_sizes

__all__ = ["matrices_together", "run_together"]

Array = NDArray[Any]
Products = Callable[[Sequence[tuple[int, Array]]], Sequence[Array]]  # [(index, rows)] -> [their products]


def run_together(
    shapes: Sequence[tuple[int, int]],
    dtype: np.dtype[Any],
    k: int,
    tol: float,
    seed: int,
    max_applications: int | None,
    apply: Products,
    apply_t: Products,
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> list[SVDResult]:
    """The SVDs of maps of these shapes by Krylov iteration with one vector at a time for each.

    k is cut to what a map has. apply and apply_t get the requested (index, rows) and return the product of each. progress is
    called with the number of vectors that each call has multiplied. Every result's `seconds` are those of all together. The
    results have the bits of each run alone.
    """
    started = time.perf_counter()
    k = check_count(k, "svd: k", sys.maxsize)
    seed, tol = check_seed(seed, "svd: seed"), check_positive(tol, "svd: tol")
    sizes = []
    for shape in shapes:
        own = min(k, *shape)
        sizes.append((*shape, own, *krylov_sizes(shape, own, 1, max_applications, dtype)))
    runs = CORES[dtype].KrylovRuns(sizes, tol, seed, threads)
    while requests := runs.requests():
        transposed = 2 * sum(t for _, t, _ in requests) > len(requests)
        chosen = [(index, rows) for index, t, rows in requests if t == transposed]
        products = (apply_t if transposed else apply)(chosen)
        runs.supply([(index, product) for (index, _), product in zip(chosen, products, strict=True)])
        if progress:
            progress(sum(len(rows) for _, rows in chosen))
    seconds = time.perf_counter() - started
    return [result_of(runs.result(i), dtype, tol, method="krylov", seed=seed, seconds=seconds) for i in range(len(shapes))]


def matrices_together(matrices: Sequence[Array], k: int, tol: float, seed: int, threads: int) -> list[SVDResult]:
    """The k leading triplets of matrices, certified like those of any map; their method is "dense"."""
    results = run_together(
        [A.shape for A in matrices], matrices[0].dtype, k, tol, seed, None,
        lambda requested: [x @ matrices[i].T for i, x in requested], lambda requested: [x @ matrices[i] for i, x in requested],
        threads,
    )  # fmt: skip
    return [replace(r, method="dense") for r in results]
