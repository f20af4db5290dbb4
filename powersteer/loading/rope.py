"""Inverse frequencies of rotary embeddings, for each rope_type of configs.

    angle(position, i) = position * inv_freq[i],    i < dim / 2

transformers computes these tables in float32, and models are trained with those numbers, so they are reproduced
operation by operation: each float32 result below is the rounded float64 one, as a correctly rounded float32 operation
gives it. PyTorch divides scalar / tensor as reciprocal(tensor) * scalar; so does `_over`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadCheckpoint, UnsupportedModel
from .keys_read import ROPE

__all__ = ["ROPE_KINDS", "TURNS_ALL", "RopeTable", "rope_table", "score_scale"]

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class RopeTable:
    inv_freq: NDArray[np.float64]  # (dim/2,), float32 values
    scale: float  # multiplies cos and sin
    long: tuple[NDArray[np.float64], int] | None = None  # another inv_freq, for sequences of more tokens than this
    limit: str = ""  # why no sequence may exceed max_positions, if the kind has a reason

    def reversed(self) -> RopeTable:
        """The table that turns heads the other way round."""
        return replace(self, inv_freq=-self.inv_freq, long=self.long and (-self.long[0], self.long[1]))


@dataclass(frozen=True)
class _Setting:
    """Inputs of a kind: its dictionary, and hyperparameters of the model."""

    values: Mapping[str, Any]
    where: str
    dim: int  # rotated dimensions of a head
    max_positions: int
    original_positions: int | None

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise BadCheckpoint(f"{self.where} has {key} = {value!r} where a positive number is needed; correct it")
        return value

    def powers(self, stretch: float = 1.0) -> F32:
        """(stretch * theta) ** (2i / dim), in float32 as PyTorch's scalar ** tensor."""
        exponents = np.arange(0, self.dim, 2, dtype=np.float32) / np.float32(self.dim)
        theta = np.float64(np.float32(self.theta() * stretch))
        powers: F32 = (theta ** exponents.astype(np.float64)).astype(np.float32)
        return powers

    def theta(self) -> float:
        theta = self.number("rope_theta")
        if theta <= 1:
            raise BadCheckpoint(f"{self.where} has rope_theta = {theta!r}, which must exceed 1; correct it")
        return theta

    def factors(self, key: str) -> F32:
        values = self.values.get(key)
        if not isinstance(values, list) or len(values) != self.dim // 2:
            raise BadCheckpoint(f"{self.where} needs a {key} list of {self.dim // 2} numbers; correct it")
        if not all(type(value) in (int, float) and math.isfinite(value) and value > 0 for value in values):
            raise BadCheckpoint(f"{self.where} has a {key} that is not all positive numbers; correct it")
        return np.array(values, np.float32)

    def original(self) -> float:
        if self.original_positions is not None:
            return self.original_positions
        return self.number("original_max_position_embeddings", self.max_positions)


def _over(scalar: float, tensor: F32) -> F32:
    product: F32 = (np.float32(1) / tensor) * np.float32(scalar)
    return product


def _default(s: _Setting) -> RopeTable:
    return _table(_over(1.0, s.powers()))


def _linear(s: _Setting) -> RopeTable:
    return _table(_over(1.0, s.powers()) / np.float32(s.number("factor")))


def _dynamic(s: _Setting) -> RopeTable:
    """NTK scaling changes theta only beyond max_position_embeddings, which is our context; up to there nothing."""
    s.number("factor")
    return replace(_default(s), limit="its rotary scaling 'dynamic' changes with the length beyond it, which is not computed")


def _ntk_alpha(s: _Setting) -> RopeTable:
    """Hunyuan's NTK scaling, which does not depend on the length."""
    if s.dim < 4:
        raise BadCheckpoint(f"{s.where} turns {s.dim} dimensions of a head; alpha needs more than 2")
    return _table(_over(1.0, s.powers(s.number("alpha") ** (s.dim / (s.dim - 2)))))


def _llama3(s: _Setting) -> RopeTable:
    inv_freq = _over(1.0, s.powers())
    factor, low, high = s.number("factor"), s.number("low_freq_factor"), s.number("high_freq_factor")
    original = s.original()
    if high < low:
        raise BadCheckpoint(f"{s.where} has high_freq_factor {high} below low_freq_factor {low}; correct it")
    wavelength = _over(2 * math.pi, inv_freq)
    scaled = np.where(wavelength > np.float32(original / low), inv_freq / np.float32(factor), inv_freq)
    smooth = (_over(original, wavelength) - np.float32(low)) / np.float32(high - low)
    blend = (1 - smooth) * scaled / np.float32(factor) + smooth * scaled
    medium = ~(wavelength < np.float32(original / high)) & ~(wavelength > np.float32(original / low))
    return _table(np.where(medium, blend, scaled))


def _yarn(s: _Setting) -> RopeTable:
    original, theta = s.original(), s.theta()
    factor = s.number("factor", s.max_positions / original)
    powers = s.powers()
    far = _over(1.0, powers)  # extrapolated
    near = _over(1.0, np.float32(factor) * powers)  # interpolated

    def correction(rotations: float) -> float:
        return s.dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = correction(s.number("beta_fast", 32)), correction(s.number("beta_slow", 1))
    if s.values.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, s.dim - 1)
    if low == high:
        high += 0.001
    ramp = (np.arange(len(powers), dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    keep = 1 - np.clip(ramp, np.float32(0), np.float32(1))
    return _table(near * (1 - keep) + far * keep, s.number("attention_factor", _yarn_scale(s, factor)))


def _yarn_scale(s: _Setting, factor: float) -> float:
    if s.values.get("mscale") and s.values.get("mscale_all_dim"):
        return _mscale(factor, s.number("mscale")) / _mscale(factor, s.number("mscale_all_dim"))
    return _mscale(factor, 1)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def score_scale(values: Mapping[str, Any], where: str) -> float:
    """What multiplies the scores of latent attention, for the settings of a rotary table."""
    setting = _Setting(values, where, 0, 0, None)
    if values.get("rope_type", "default") == "default" or not values.get("mscale_all_dim"):
        return 1.0
    return _mscale(setting.number("factor"), setting.number("mscale_all_dim")) ** 2


def _longrope(s: _Setting) -> RopeTable:
    """One table for sequences up to the original length, another for longer ones."""
    original = int(s.original())
    factor = s.number("factor", s.max_positions / original)
    scale = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    powers = s.powers()
    short, long = (_over(1.0, s.factors(key) * powers) for key in ("short_factor", "long_factor"))
    table = _table(short, s.number("attention_factor", scale))
    return table if s.max_positions <= original else replace(table, long=(long.astype(np.float64), original))


def _proportional(s: _Setting) -> RopeTable:
    """The first pairs of a part of the head turn, with the frequencies of the whole; the others do not."""
    turning = int(s.number("partial_rotary_factor", 1.0) * s.dim // 2)
    inv_freq = np.zeros(s.dim // 2, np.float32)
    inv_freq[:turning] = _over(1.0, s.powers()[:turning])
    return _table(inv_freq / np.float32(s.number("factor", 1.0)))


def _table(inv_freq: F32, scale: float = 1.0) -> RopeTable:
    if inv_freq.dtype != np.float32:
        raise TypeError(f"a rotary table was computed in {inv_freq.dtype}")
    return RopeTable(inv_freq.astype(np.float64), float(scale))


_Kind = Callable[[_Setting], RopeTable]
_COMMON = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})
_LENGTHS = frozenset({"factor", "original_max_position_embeddings"})

# kind → (its table, the keys it reads beyond the common ones)
ROPE_KINDS: dict[str, tuple[_Kind, frozenset[str]]] = {
    "default": (_default, frozenset()),
    "linear": (_linear, frozenset({"factor"})),
    "dynamic": (_dynamic, _LENGTHS),
    "llama3": (_llama3, _LENGTHS | {"low_freq_factor", "high_freq_factor"}),
    "yarn": (
        _yarn,
        _LENGTHS | {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
    # its files have the keys of yarn, too, which nothing reads
    "ntk_alpha": (_ntk_alpha, _LENGTHS | {"alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}),
    "longrope": (_longrope, _LENGTHS | {"attention_factor", "short_factor", "long_factor"}),
    "proportional": (_proportional, frozenset({"factor"})),
}
TURNS_ALL = ("proportional",)  # kinds whose tables are for the whole head, however large the part that turns


# key without effect for a kind that does not read it → the value at which that holds; ...: any
_IDLE: Mapping[str, Any] = {
    "factor": 1, "attention_factor": 1, "mscale": 1, "original_max_position_embeddings": ...,
    "mrope_section": ...,  # which dimensions turn by a picture's rows and columns; a text's three positions are the same
}  # fmt: skip
# names that transformers does not read → the key that they mean
_SAME = {"theta": "rope_theta", "base": "rope_theta", "rope_base": "rope_theta", "scaling_factor": "factor"}


def _refuse_unknown(values: Mapping[str, Any], kind: str, keys: frozenset[str], where: str) -> None:
    """Refuse keys that transformers reads for another kind, and other names of a key with a value that differs."""
    read = {key for all_ in ROPE.values() for key in all_}
    for key in sorted(values.keys() - _COMMON - keys):
        value, same = values[key], _SAME.get(key, "")
        if key in read and _IDLE.get(key, None) not in (value, ...):
            raise UnsupportedModel(
                f"{where} has the key {key!r} = {value!r}, which the rotary kind {kind!r} does not have; "
                "if it does not change the model, remove it"
            )
        if same in values and values[same] != value:
            raise BadCheckpoint(f"{where} has {same} = {values[same]!r} and {key} = {value!r}; remove one")


def rope_table(
    values: Mapping[str, Any],
    where: str,
    head_dim: int,
    max_positions: int,
    original_positions: int | None = None,
    round_up: bool = False,
    width: int | None = None,
) -> RopeTable:
    """The table of one dictionary of rotary settings, complete with rope_theta and partial_rotary_factor.

    where: names the dictionary in errors. original_positions: overrides the dictionary's own original length.
    round_up: an odd number of rotated dimensions means the next even one. width: that number, instead of a part of head_dim.
    Raises UnsupportedModel for an unknown kind or key, BadCheckpoint for invalid values.
    """
    kind = values.get("rope_type", values.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_KINDS:
        raise UnsupportedModel(
            f"{where} names the rotary kind {kind!r}; supported are {', '.join(ROPE_KINDS)}. Use transformers instead"
        )
    compute, keys = ROPE_KINDS[kind]
    _refuse_unknown(values, kind, keys, where)
    setting = _Setting(values, where, 0, max_positions, original_positions)
    part = 1.0 if kind in TURNS_ALL else setting.number("partial_rotary_factor", 1.0)
    dim = int(head_dim * part) if width is None else width
    turning = dim + dim % 2 if round_up else dim
    if turning < 2 or turning % 2 or turning > head_dim:
        raise UnsupportedModel(
            f"{where} turns {dim} of {head_dim} dimensions of a head; an even number from 2 to {head_dim} is needed"
        )
    try:
        with np.errstate(all="ignore"):
            table = compute(_Setting(values, where, dim, max_positions, original_positions))
        frequencies = [table.inv_freq, *(table.long or ())[:1]]
        sound = all(np.isfinite(one).all() for one in frequencies) and math.isfinite(table.scale)
    except ArithmeticError:
        sound = False
    if not sound:
        raise BadCheckpoint(f"{where} = {dict(values)!r} gives no finite rotary table; correct its numbers")
    return table
