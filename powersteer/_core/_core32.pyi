"""The numerical core in single precision; _core64 has the same names in double. Arrays called `real` are float32 here
and float64 there."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]
_Ids = NDArray[np.int32]
_Site = tuple[int, int]  # (layer, index of the site in SITES, or where it is captured in SITES + READABLE)
_Target = _Site | Literal["logits", "next_token"]
# (layer, site, vector (d,) real, sequence or -1 for every one, ranges (n, 2) half-open absolute positions): adds. With a
# coefficient behind it clamps, unless that is None.
_Intervention = tuple[int, int, _Array, int, _Ids] | tuple[int, int, _Array, int, _Ids, float | None]

real_size: int  # bytes
MAX_THREADS: int
SWEEP_ROWS: int  # vectors times positions that a sweep of a Jacobian carries at a time
SITES: tuple[str, ...]
READABLE: tuple[str, ...]  # can be captured, but neither steered nor differentiated; numbered behind SITES
BLOCK_TYPES: dict[str, tuple[int, int, int]]  # name of a type of blocks: numbers and bytes of a block, bytes of a factor
BLOCK_RUN: int  # rows of blocks hold multiples of this many numbers
# A weight of blocks: (type, bytes (n_out, n) uint8, factors (n_out, n) or None, numbers that share a factor)
_Blocks = tuple[str, _Array, _Array | None, int]

class _BlasInfo(TypedDict):
    config: str
    corename: str
    path: str | None
    opened: bool

class _SVD(TypedDict):
    U: _Array
    S: _Array
    V: _Array
    residuals: _Array
    applications: int
    certificate_applications: int
    history: list[tuple[int, float, _Array]]
    next_sigma: float
    missed_probability: float
    stop: str

def blas_open(path: str, prefix: str, /) -> None: ...
def blas_info() -> _BlasInfo: ...
def cpu_features() -> tuple[str, ...]: ...
def instruction_sets() -> tuple[str, ...]: ...
def instruction_set() -> str: ...
def use_instructions(name: str, /) -> None: ...
def decode_blocks(weight: _Blocks, out: _Array, /) -> None: ...
def svd_krylov(
    op: Any,
    shape: tuple[int, int],
    k: int,
    block: int,
    tol: float,
    max_applications: int,
    seed: int,
    max_basis: int,
    callback: Callable[[int, float, _Array], object] | None = None,
) -> _SVD: ...
def svd_power(
    op: Any,
    shape: tuple[int, int],
    k: int,
    oversample: int,
    iterations: int,
    seed: int,
    tol: float,
    probe_most: int,
    max_basis: int,
    callback: Callable[[int, float, _Array], object] | None = None,
) -> _SVD: ...

class Model:
    def __init__(
        self, spec: dict[str, Any], layers: list[dict[str, Any]], top: dict[str, Any], threads: int
    ) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def rows_computed(self) -> int: ...
    def lm_head(self, x: _Array, /) -> _Array: ...
    def forward_bytes(self, lengths: Sequence[int], n_logits: int, /) -> int: ...
    def forward(
        self,
        tokens: Sequence[_Ids],
        steer: Sequence[_Intervention],
        sites: list[_Site],
        rows: Literal["all", "last", "none"] | _Ids,
    ) -> tuple[list[_Array] | None, list[list[_Array]]]: ...

class Decoder:
    def __init__(
        self,
        model: Model,
        prompts: Sequence[_Ids],
        capacity: _Ids,
        steer: Sequence[_Intervention],
        temperature: float,
        top_k: int,
        top_p: float,
        seeds: NDArray[np.uint64],
    ) -> None: ...
    @property
    def rows_computed(self) -> int: ...
    def feed(
        self, first: int, tokens: Sequence[_Ids], sites: list[_Site], rows: Literal["all", "last", "none"] | _Ids
    ) -> tuple[list[_Array] | None, list[list[_Array]]]: ...
    def resume(self, lengths: _Ids, tokens: _Ids, /) -> None: ...
    def step(self) -> _Ids: ...
    def stop(self, i: int, /) -> None: ...
    def logits(self) -> _Array: ...

class KrylovRuns:
    """runs: (rows, cols, k, block, max_applications, max_basis) of each."""

    def __init__(
        self, runs: list[tuple[int, int, int, int, int, int]], tol: float, seed: int, threads: int
    ) -> None: ...
    def requests(self) -> list[tuple[int, bool, _Array]]: ...
    def supply(self, products: list[tuple[int, _Array]], /) -> None: ...
    def result(self, i: int, /) -> _SVD: ...

class Jacobian:
    """One source and target, or lists of them with a list of positions each; then `source_norm`, `shape` and `base` are lists
    as well."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[_Ids],
        steer: Sequence[_Intervention],
        source: _Site | list[_Site],
        target: _Target | list[_Target],
        source_positions: Sequence[_Ids] | list[Sequence[_Ids]],
        target_positions: Sequence[_Ids] | list[Sequence[_Ids]],
        mean: bool,
    ) -> None: ...
    @classmethod
    def count_bytes(
        cls, model: Model, lengths: Sequence[int], source: _Site, target: _Target, n_target: int, n_columns: int, /
    ) -> dict[str, int]: ...
    @property
    def shape(self) -> Any: ...
    @property
    def base(self) -> Any: ...
    @property
    def source_norm(self) -> Any: ...
    @property
    def rows_per_vector(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def apply(self, V: _Array, /) -> _Array: ...
    def apply_t(self, U: _Array, /) -> _Array: ...
    def apply_each(self, columns: list[tuple[int, int, _Array, _Array]], /) -> None: ...
    def apply_t_each(self, columns: list[tuple[int, int, _Array, _Array]], /) -> None: ...
    def apply_all(self, source: int, V: _Array, /) -> list[_Array | None]: ...
    def apply_t_all(self, target: int, U: _Array, per_prompt: bool, /) -> list[_Array | None]: ...
