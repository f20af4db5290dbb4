"""Random weights of blocks, as the core takes them."""

from __future__ import annotations

from functools import cache

import numpy as np

from powersteer._core import _core32

TYPES = _core32.BLOCK_TYPES
# places of the float16 factors in a block; MXFP4 has one of another kind, in byte 0
HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
          "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,)}  # fmt: skip


def random_blocks(name, n_out, n_in, rng, factors=None):
    """A weight of blocks with random bits. factors: what the float16 ones are drawn from, the others being of any size;
    None: such that the numbers are about as large as a model's."""
    numbers, size, _ = TYPES[name]
    usual = factors is None
    data = rng.integers(0, 256, (n_out, n_in // numbers, size), dtype=np.uint8)
    for at in HALVES.get(name, ()):
        drawn = rng.normal(size=data.shape[:2]) * usual_factor(name) if usual else rng.choice(factors, data.shape[:2])
        data[..., at : at + 2] = drawn.astype(np.float16 if usual else np.uint16)[..., None].view(np.uint8)
    powers = (120, 124) if usual else (0, 256)
    if name == "MXFP4":
        data[..., 0] = rng.integers(*powers, data.shape[:2])
    data = data.reshape(n_out, n_in // numbers * size)
    if name == "MXFP4_APART":
        return name, data, rng.integers(*powers, (n_out, n_in // 32), dtype=np.uint8), 32
    if name == "F8_E4M3":
        if usual:
            data[data & 127 == 127] = 0  # NaN
        run = int(rng.choice([32, 96, 128]))
        return name, data, (2e-4 * rng.normal(size=(n_out, -(-n_in // run)))).astype(np.float32), run
    return name, data, None, 0


@cache
def usual_factor(name):
    one = np.array([0x3C00], np.uint16)
    return 0.08 / decoded(random_blocks(name, 64, 256, np.random.default_rng(0), one), 256).std()


def decoded(blocks, n_in, core=_core32):
    out = np.full((len(blocks[1]), n_in), 7, np.float32)
    core.decode_blocks(blocks, out)
    return out
