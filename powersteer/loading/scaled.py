"""Weights whose scales are tensors of their own, as two ways of quantising write them in safetensors.

- "fp8" (Qwen3-FP8, DeepSeek): X.weight of float8_e4m3fn, and X.weight_scale_inv with a factor for each block of
  weight_block_size, or one for the matrix. A number is float32(weight) * float32(factor).
- "mxfp4" (gpt-oss): stacks X_blocks (E, rows, n / 32, 16) of two numbers a byte, and X_scales (E, rows, n / 32) of the
  exponents that 32 numbers share.

A pair becomes one tensor of Blocks. Activations are not rounded to 8 bits, as they would be on a GPU: the model computes
with exactly the stored weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ..errors import BadCheckpoint, UnsupportedModel, shown
from .blocks import BLOCK_RUN, Array, Blocks, Matrix
from .tensor_ref import TensorRef

__all__ = ["QUANTIZATION", "Quantization", "join_scales", "read_quantization"]

QUANTIZATION = "quantization_config"
_ONLY = {"fmt": (None, "e4m3"), "expert_dtype": (None, "fp8")}  # of "fp8"


@dataclass(frozen=True)
class Quantization:
    """How a checkpoint is quantised. block: rows and columns that share a factor; None: one factor for a matrix."""

    method: str  # "fp8" | "mxfp4"
    block: tuple[int, int] | None = None


def read_quantization(config: Mapping[str, Any], where: str) -> Quantization | None:
    """How the weights of a config.json are quantised; None if they are not.

    Raises UnsupportedModel for other ways, by their names, BadCheckpoint for values of the wrong kind.
    """
    given = config.get(QUANTIZATION)
    if given is None:
        return None
    method = given.get("quant_method") if isinstance(given, dict) else given
    if method == "mxfp4":
        return Quantization(method)
    if method != "fp8":
        raise UnsupportedModel(
            f"{where} has a quantization_config of quant_method = {shown(method)}, which is not read; load an unquantised "
            "checkpoint of this model, a GGUF file, or a checkpoint of quant_method fp8"
        )
    for key, values in _ONLY.items():
        if given.get(key) not in values:
            raise UnsupportedModel(
                f"{where} has {key} = {shown(given[key])} in its quantization_config (only {values[1]} is supported); "
                "load an unquantised checkpoint of this model"
            )
    block = given.get("weight_block_size")
    if block is None:
        return Quantization(method)
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in block):
        raise BadCheckpoint(f"{where} has weight_block_size = {shown(block)} where two positive integers are needed")
    return Quantization(method, (block[0], block[1]))


def join_scales(tensors: Mapping[str, TensorRef], how: Quantization) -> dict[str, TensorRef]:
    """The tensors with every weight and its scales replaced by one tensor, under the name of the weight.

    Raises BadCheckpoint for scales that are missing or of another shape.
    """
    out = dict(tensors)
    for name, tensor in tensors.items():
        if how.method == "fp8" and tensor.dtype == "F8_E4M3" and len(tensor.shape) > 1:
            out[name] = _fp8(tensor, _take(out, name + "_scale_inv", tensor), how.block)
            out.pop(name.removesuffix("weight") + "activation_scale", None)  # of activations
        elif how.method == "mxfp4" and name.endswith("_blocks"):
            joined = _mxfp4(out.pop(name), _take(out, name.removesuffix("blocks") + "scales", tensor))
            out[joined.name] = joined
    return out


def _take(tensors: dict[str, TensorRef], name: str, of: TensorRef) -> TensorRef:
    if name not in tensors:
        raise BadCheckpoint(
            f"tensor {of.name!r} in {of.where} is quantised, and there is no tensor {name!r} with its scales; "
            "the download is incomplete"
        )
    return tensors.pop(name)


def _misshapen(scales: TensorRef, weight: TensorRef, needed: tuple[int, ...]) -> BadCheckpoint:
    return BadCheckpoint(
        f"tensor {scales.name!r} in {scales.where} has {scales.dtype} of shape {scales.shape} where scales of shape {needed} "
        f"belong to {weight.name!r} of shape {weight.shape}; one of them belongs to another model"
    )


# ---- fp8 -------------------------------------------------------------------------------------------------------------


def _fp8(weight: TensorRef, scales: TensorRef, block: tuple[int, int] | None) -> TensorRef:
    *stack, n_out, n_in = weight.shape
    # of a block that is larger than the matrix, its part of it; of a damaged matrix without rows or columns, 1
    rows, columns = (max(1, min(size, n)) for size, n in zip(block or (n_out, n_in), (n_out, n_in), strict=True))
    grid = (*stack, -(-n_out // rows), -(-n_in // columns))
    if scales.dtype not in ("F32", "BF16", "F16") or (scales.shape != grid and (block or prod(scales.shape) != prod(stack))):
        raise _misshapen(scales, weight, grid)

    @cache
    def view() -> Matrix:
        data = weight.raw().reshape(-1, n_in)
        factors = np.repeat(scales.numbers().reshape(grid), rows, axis=-2)[..., :n_out, :].reshape(-1, grid[-1])
        if n_in % BLOCK_RUN == 0 and columns % BLOCK_RUN == 0:
            return Blocks("F8_E4M3", data, factors, columns)
        with np.errstate(all="ignore"):  # damaged scales make infinities, which are looked for later
            numbers: Array = _E4M3[data] * np.repeat(factors, columns, axis=1)[:, :n_in]
        return numbers.reshape(weight.shape)

    return TensorRef(weight.name, "F8_E4M3", weight.shape, weight.where, view)


_E4M3 = Blocks("F8_E4M3", np.arange(256, dtype=np.uint8)[None], np.ones((1, 1), np.float32), 256).decode()[0]  # of every byte

# ---- mxfp4 -----------------------------------------------------------------------------------------------------------


def _mxfp4(blocks: TensorRef, scales: TensorRef) -> TensorRef:
    if blocks.dtype != "U8" or len(blocks.shape) != 4 or blocks.shape[3] != 16:
        raise BadCheckpoint(
            f"tensor {blocks.name!r} in {blocks.where} has {blocks.dtype} of shape {blocks.shape} where blocks are U8 of shape "
            "(experts, rows, n / 32, 16); the file is damaged"
        )
    n, rows, runs, _ = blocks.shape
    if scales.dtype != "U8" or scales.shape != (n, rows, runs):
        raise _misshapen(scales, blocks, (n, rows, runs))

    def view() -> Matrix:
        return Blocks("MXFP4_APART", blocks.raw().reshape(n * rows, -1), scales.raw().reshape(n * rows, -1), 32)

    return TensorRef(blocks.name.removesuffix("_blocks"), "MXFP4_APART", (n, rows, runs * 32), blocks.where, view)
