"""The numerical core in double precision: see _core32."""

from ._core32 import BLOCK_RUN as BLOCK_RUN
from ._core32 import BLOCK_TYPES as BLOCK_TYPES
from ._core32 import MAX_THREADS as MAX_THREADS
from ._core32 import READABLE as READABLE
from ._core32 import SITES as SITES
from ._core32 import SWEEP_ROWS as SWEEP_ROWS
from ._core32 import Decoder as Decoder
from ._core32 import Jacobian as Jacobian
from ._core32 import KrylovRuns as KrylovRuns
from ._core32 import Model as Model
from ._core32 import blas_info as blas_info
from ._core32 import blas_open as blas_open
from ._core32 import cpu_features as cpu_features
from ._core32 import decode_blocks as decode_blocks
from ._core32 import instruction_set as instruction_set
from ._core32 import instruction_sets as instruction_sets
from ._core32 import real_size as real_size
from ._core32 import svd_krylov as svd_krylov
from ._core32 import svd_power as svd_power
from ._core32 import use_instructions as use_instructions
