"""A steering vector in a loaded transformers model, by PyTorch's forward hooks.

Where transformers has no module for a site, the vector is added where the same sum is formed:

    resid_pre             the block's input
    attn_out, resid_mid   what attention, or the norm behind it, returns, over the residual multiplier
    down_proj             what the MLP returns, before a norm behind it
    mlp_out, resid_post   the block's output

Positions are those of powersteer.positions. What the model is given tells them: a column's position is the number of
tokens before it that the attention mask keeps, those in the key-value cache included, and a sequence's prompt is what
the first call with its cache holds.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput, MissingDependency, UnsupportedModel
from .positions import Canonical, Positions, canonical, describe, includes, relative
from .sites import Site, parse_site

if TYPE_CHECKING:
    from .loading.family import Facts, Family

__all__ = ["Hook", "attach", "import_torch"]

Array = NDArray[Any]
Change = Callable[[Any], Any]  # of the activation (B, n, d) of one call


def import_torch(purpose: str) -> Any:
    """PyTorch, which only those who exchange tensors with it have. Raises MissingDependency."""
    try:
        import torch
    except ImportError:
        raise MissingDependency(f"{purpose} needs PyTorch; pip install torch") from None
    return torch


class Hook:
    """A vector attached to a transformers model, until `remove()` or the end of a `with` block.

    `added`: how many positions it was added at so far, over all rows and calls; with positions=None paddings count.
    """

    def __init__(self, place: Site, positions: Canonical) -> None:
        self.place, self.positions, self.added = place, positions, 0
        self._handles: list[Any] = []
        self._ran = False

    def remove(self) -> None:
        """Take the vector out again; once is enough, and more does no harm. Warns if the model ran meanwhile and
        reached none of the positions."""
        if self._detach() and self._ran and not self.added:
            what = f"nothing was steered: the model ran, but never at positions {describe(self.positions)}"
            warnings.warn(what, stacklevel=2)

    def _detach(self) -> bool:
        attached = bool(self._handles)
        while self._handles:
            self._handles.pop().remove()
        return attached

    def __enter__(self) -> Hook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.remove()
        else:
            self._detach()

    def __repr__(self) -> str:
        state = f"added at {self.added} positions so far" if self._handles else "removed"
        return f"Hook({self.place} at {describe(self.positions)}, {state})"


def attach(hf_model: Any, vector: Array, place: Site, positions: Positions = None) -> Hook:
    """Add `vector` (d,) at `place` in every forward pass of a transformers model, on its own device and in its dtype.

    Raises UnsupportedModel for a model of another family or without the module that the site needs, InvalidInput for a
    vector that does not fit. The hooks raise InvalidInput in the forward pass if the positions cannot be told.
    """
    from .loading.family import value_of

    torch = import_torch("hooking a transformers model")
    family, facts = _read(hf_model)
    parallel = bool(value_of(family.parallel, facts))
    place, selected = parse_site(place, n_layers=facts.n_layers, parallel=parallel), canonical(positions)
    if len(vector) != facts.d_model:
        raise InvalidInput(f"the vector has {len(vector)} numbers; activations of this model have {facts.d_model}")
    base, block = _base_and_block(hf_model, family, place.layer)
    module, is_input, factor = _point(block, place.name, family, facts)
    tensor = torch.as_tensor(vector / factor)
    if not bool(tensor.to(hf_model.dtype).isfinite().all()):
        raise InvalidInput(f"the vector, of length {np.linalg.norm(vector):.6g}, is too large for {hf_model.dtype}")
    hook = Hook(place, selected)
    calls = _Calls(selected)

    def change(x: Any) -> Any:
        here = tensor.to(x.dtype).to(x.device)
        if selected is None:
            hook.added += x[..., 0].numel()
            return x + here
        where = calls.where
        if where is None or where.shape != x.shape[:-1]:
            raise InvalidInput(
                f"cannot tell the positions at {place}: its activations have shape {tuple(x.shape)} and the model was "
                f"given {None if where is None else where.shape} tokens; call the whole model, or use positions=None"
            )
        hook.added, hook._ran = hook.added + int(where.sum()), True
        return x + torch.as_tensor(where, device=x.device)[..., None] * here

    if selected is not None:
        hook._handles.append(base.register_forward_pre_hook(calls.before, with_kwargs=True))
        hook._handles.append(base.register_forward_hook(calls.after))
    hook._handles.append(_register(module, is_input, change))
    return hook


def _read(hf_model: Any) -> tuple[Family, Facts]:
    from .loading.config import family_of, read_facts

    if not hasattr(hf_model, "config") or not hasattr(hf_model, "named_modules"):
        raise InvalidInput(f"a transformers model is needed, not {type(hf_model).__name__}")
    where = f"the config of {type(hf_model).__name__}"
    config = hf_model.config.to_dict()
    for key in ("quantization_config", "compression_config"):  # of how weights are kept; activations are plain
        config.pop(key, None)
    family = family_of(config, where)
    return family, read_facts(config, family, where)


def _base_and_block(hf_model: Any, family: Family, layer: int) -> tuple[Any, Any]:
    """The model without its head, and one of its blocks, by the names that its weights have."""
    modules = dict(hf_model.named_modules())
    path = family.layer.format(i=layer).rstrip(".")
    for prefix in family.prefixes:
        if prefix + path in modules:
            return modules[prefix.rstrip(".")], modules[prefix + path]
    raise UnsupportedModel(
        f"{type(hf_model).__name__} has no module {family.prefixes[0] + path!r}; give the transformers model itself, "
        "not what wraps it"
    )


def _point(block: Any, site: str, family: Family, facts: Facts) -> tuple[Any, bool, float]:
    """(module, whether its input is meant, the site's value over the module's)"""
    from .loading.family import value_of

    if site in ("resid_pre", "mlp_out", "resid_post"):
        return block, site == "resid_pre", 1.0
    if site == "down_proj":
        # "mlp" is what transformers calls any family's mixture in memory
        paths = ["mlp", *(linear.path.rpartition(".")[0] for linear in family.linears if "down" in linear.slots)]
        if family.experts is not None:
            paths.append(family.experts.router.rpartition(".")[0])
        return _submodule(block, paths, site), False, 1.0
    norms = [at.path for at in family.norms if at.slot == "post1" and value_of(at.when, facts)]
    paths = norms or [linear.path.rpartition(".")[0] for linear in family.linears if "o" in linear.slots]
    return _submodule(block, paths, site), False, float(family.resid_scale(facts))


def _submodule(block: Any, paths: list[str], site: str) -> Any:
    modules = dict(block.named_modules())
    for path in paths:
        if path in modules:
            return modules[path]
    raise UnsupportedModel(
        f"{type(block).__name__} has no module {' or '.join(paths)!r}, where {site} would be hooked; use resid_post"
    )


def _register(module: Any, is_input: bool, change: Change) -> Any:
    """The first of a tuple is the activation; which modules return tuples depends on the version of transformers."""

    def first(values: Any) -> Any:
        return (change(values[0]), *values[1:]) if isinstance(values, tuple) else change(values)

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return first(args), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    if is_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(lambda _, args, output: first(output))


class _Calls:
    """Reads what every call of a model is given: which of its tokens are steered."""

    def __init__(self, positions: Canonical) -> None:
        self.positions = positions
        self.where: NDArray[np.bool_] | None = None  # (B, n), of the call under way
        self._prompts: weakref.WeakKeyDictionary[Any, Array] = weakref.WeakKeyDictionary()  # cache -> lengths (B,)
        self._lengths: Array = np.empty(0, dtype=np.int64)
        self._tokens: Any = None  # of the last call without a cache

    def before(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        call = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        tokens: Any = call.get("input_ids")
        tokens = call.get("inputs_embeds") if tokens is None else tokens
        cache = call.get("past_key_values")
        seen = 0 if cache is None else int(cache.get_seq_length())
        batch, n = (int(size) for size in tokens.shape[:2])
        at, totals = _columns(call, batch, n, seen)
        self._lengths = self._prompt_lengths(cache, seen, at, totals)
        if call.get("use_cache") is False and relative(self.positions):
            self._refuse_growth(tokens)
        rows = [includes(self.positions, row, int(n)) for row, n in zip(at, self._lengths, strict=True)]
        self.where = np.stack(rows) & (at >= 0)
        if cache is not None:
            self._prompts[cache] = self._lengths

    def after(self, module: Any, args: Any, output: Any) -> None:
        self.where = None
        if (cache := getattr(output, "past_key_values", None)) is not None:
            self._prompts[cache] = self._lengths

    def _prompt_lengths(self, cache: Any, seen: int, at: Array, totals: Array) -> Array:
        known = self._prompts.get(cache) if seen else None
        if known is None or not relative(self.positions):
            return totals
        if at.shape[1] > 1 or len(known) != len(at):
            raise InvalidInput(
                f"cannot tell where the prompt ends, which positions {describe(self.positions)} count from: a cache "
                f"was continued with tokens of shape {at.shape}; use positions that count from the start"
            )
        return known

    def _refuse_growth(self, tokens: Any) -> None:
        """Generation without a cache gives the whole text at every step, one token longer each time."""
        last, self._tokens = self._tokens, tokens.detach().clone()
        if last is None or last.shape[1] + 1 != tokens.shape[1] or last.shape[2:] != tokens.shape[2:]:
            return
        same = (tokens[:, None, :-1] == last[None].to(tokens.device)).flatten(2).all(-1)
        if bool(same.any(1).all()):
            raise InvalidInput(
                f"cannot tell where the prompt ends, which positions {describe(self.positions)} count from, without a "
                "cache: these are the tokens of the call before and one more; generate with use_cache=True, or hook "
                "the model anew for each text"
            )


def _columns(call: Mapping[str, Any], batch: int, n: int, seen: int) -> tuple[Array, Array]:
    """(position of every token (B, n), -1 for padding; tokens of every row so far (B,)) of one call."""
    mask, ids = call.get("attention_mask"), call.get("position_ids")
    if mask is None:
        at = np.broadcast_to(np.arange(seen, seen + n), (batch, n))
        if ids is None or np.array_equal(np.broadcast_to(ids.cpu().numpy(), (batch, n)), at):
            return at, np.full(batch, seen + n)
    elif getattr(mask, "ndim", 0) == 2 and tuple(mask.shape) == (batch, seen + n):
        kept = mask.cpu().numpy() != 0
        return np.where(kept, kept.cumsum(1) - 1, -1)[:, seen:], kept.sum(1)
    elif ids is not None and ids.ndim == 2:  # a mask that is made already: of a static cache
        at = np.broadcast_to(ids.cpu().numpy(), (batch, n))
        return at, at.max(1) + 1
    raise InvalidInput(
        f"cannot tell the positions of {batch} x {n} tokens after {seen} in the cache: give the attention mask of all "
        f"of them, ({batch}, {seen + n}), and leave position_ids to the model"
    )
