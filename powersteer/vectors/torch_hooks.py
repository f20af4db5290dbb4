"""A steering vector in a loaded transformers model, by PyTorch's forward hooks.

Where transformers has no module for a site, the vector is added where the same sum is formed:

    resid_pre             the block's input; of the first block of a model whose layers have inputs of their own, the embedding's output
    attn_out, resid_mid   output of attention, or of the norm after it, divided by the residual multiplier
    down_proj             output of the MLP, before a norm after it
    mlp_out               output of the MLP, or of the norm after it, divided by the residual multiplier
    resid_post            the block's output

A vector that clamps the residual stream at resid_mid reads it as the sum of attn_out and the block's input, which another hook
records. Hooks of one site run in the order in which they were attached; so do those of attn_out and resid_mid, of which the
former must be attached first if one of them clamps.

Positions are those of powersteer.inputs.positions, computed from the arguments of each call of the model: a token's
position is the number of tokens before it that the attention mask keeps, those in the key-value cache included. The
prompt of a sequence is the content of its cache after the first call with that cache. Where mask, position_ids and cache
are ambiguous or contradict each other, the call raises InvalidInput and steers nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .._util.deprecated import deprecated_attribute
from .._util.warn import warn_user
from ..errors import InvalidInput, MissingDependency, UnsupportedModel
from ..inputs.positions import Canonical, Positions, canonical, describe, includes, relative
from ..inputs.sites import Site, parse_site

if TYPE_CHECKING:
    from ..loading.family import Family, Hyperparameters

__all__ = ["Hook", "attach", "import_torch", "site_modules"]

Array = NDArray[Any]
Edit = Callable[[Any], Any]  # activation (B, n, d) of one call -> the steered one


def import_torch(purpose: str) -> Any:
    """PyTorch, an optional dependency. Raises MissingDependency."""
    try:
        import torch
    except ImportError:
        raise MissingDependency(f"{purpose} needs PyTorch; pip install torch") from None
    return torch


class Hook:
    """A vector attached to a transformers model, which adds or clamps until `remove()` or the end of a `with` block.

    Made by `SteeringVector.hook`.

    Attributes
    ----------
    location : Site
        Layer and site at which the vector acts.
    positions
        Positions at which it acts.
    added : int
        Number of positions it was added to, or clamped, so far, over all rows and calls; with positions=None padding counts,
        too.

    Examples
    --------
    >>> hook = vec.hook(hf_model)  # doctest: +SKIP
    >>> hook  # doctest: +SKIP
    Hook(blocks.3.hook_mlp_out at all, added at 0 positions so far)
    >>> hook.remove()  # doctest: +SKIP
    """

    def __init__(self, location: Site, positions: Canonical) -> None:
        self.location, self.positions, self.added = location, positions, 0
        self._handles: list[Any] = []
        self._ran = False

    def remove(self) -> None:
        """Take the vector out of the model; further calls do nothing.

        Warns
        -----
        UserWarning
            If the model ran meanwhile and reached none of the positions.

        Examples
        --------
        >>> hook = vec.hook(hf_model, positions="prompt")  # doctest: +SKIP
        >>> hook.remove()  # doctest: +SKIP
        """
        attached, self._handles = self._handles, []
        for handle in attached:
            handle.remove()
        if attached and self._ran and not self.added:
            warn_user(f"nothing was steered: the model ran, but never at positions {describe(self.positions)}", UserWarning)

    place = deprecated_attribute("Hook", "place", "location")

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ran &= kind is None  # beside an error no warning
        self.remove()

    def __repr__(self) -> str:
        state = f"added at {self.added} positions so far" if self._handles else "removed"
        return f"Hook({self.location} at {describe(self.positions)}, {state})"


def attach(
    hf_model: Any, vector: Array, location: Site, positions: Positions = None, coefficient: float | None = None
) -> Hook:
    """Add `vector` (d,) at `location` in every forward pass of a transformers model, on its own device and in its dtype; or
    with a coefficient set that of the activation along `vector`, which then has length 1.

    Raises UnsupportedModel for a model of another family or without the module that the site needs, InvalidInput for a
    vector that does not fit. The hooks raise InvalidInput in the forward pass if the positions cannot be determined.
    """
    from ..loading.family import absent_parts, value_of

    torch = import_torch("hooking a transformers model")
    family, hyper = _read(hf_model)
    parallel = bool(value_of(family.parallel, hyper))
    absent = absent_parts(family, hyper)
    site, selected = parse_site(location, n_layers=hyper.n_layers, parallel=parallel, absent=absent), canonical(positions)
    if len(vector) != hyper.d_model:
        raise InvalidInput(f"the vector has {len(vector)} numbers; activations of this model have {hyper.d_model}")
    base, block = _base_and_block(hf_model, family, site.layer)
    module, is_input, factor = _point(base, block, site, family, hyper)
    added = torch.as_tensor(vector * (1.0 if coefficient is None else coefficient) / factor)
    if not bool(added.to(hf_model.dtype).isfinite().all()):
        raise InvalidInput(f"the vector, of length {added.norm() * factor:.6g}, is too large for {hf_model.dtype}")
    hook = Hook(site, selected)
    beside = _beside(block, site.name, family, factor) if coefficient is not None else None
    entered = threading.local()  # .x: what is added to the module's value, for a vector that clamps there
    calls = _Calls(selected, uuid.uuid4().hex, set())
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # torch.compile does not see hooks that come after it; a static cache on a GPU compiles
    eager = torch.compiler.disable  # positions are read anew in every call

    def step(x: Any) -> Any:
        """What the vector adds to x."""
        if coefficient is None:
            return added.to(x.dtype).to(x.device)
        wide = torch.promote_types(x.dtype, torch.float32)
        u = torch.as_tensor(vector).to(wide).to(x.device)
        site_value = factor * x.to(wide) + (0.0 if beside is None else beside[2] * entered.x.to(wide))
        return ((coefficient - (site_value * u).sum(-1, keepdim=True)) / factor * u).to(x.dtype)

    def enter(x: Any) -> Any:
        entered.x = x
        return x

    @eager  # type: ignore[untyped-decorator]
    def change(x: Any) -> Any:
        here = step(x)
        if selected is None:
            hook.added += x[..., 0].numel()
            return x + here
        where = calls.where
        if where is not None and x.ndim == 2 and len(x) == where.size:  # rows of all sequences, one after the other
            where = where.reshape(-1)
        if where is None or where.shape != x.shape[:-1]:
            raise InvalidInput(
                f"cannot determine the positions at {site}: its activations have shape {tuple(x.shape)} and the model was "
                f"given {None if where is None else where.shape} tokens; call the whole model, or use positions=None"
            )
        hook.added, hook._ran = hook.added + int(where.sum()), True
        return x + torch.as_tensor(where, device=x.device)[..., None] * here

    if selected is not None:
        if hf_model is not base:
            hook._handles.append(hf_model.register_forward_pre_hook(eager(calls.outermost), with_kwargs=True))
        hook._handles.append(base.register_forward_pre_hook(eager(calls.before), with_kwargs=True))
        hook._handles.append(base.register_forward_hook(eager(calls.after)))
    if beside is not None:
        hook._handles.append(_register(*beside[:2], eager(enter)))
    hook._handles.append(_register(module, is_input, change))
    return hook


def _read(hf_model: Any) -> tuple[Family, Hyperparameters]:
    from ..loading.config import family_of, read_hyperparameters

    if not hasattr(hf_model, "config") or not hasattr(hf_model, "named_modules"):
        raise InvalidInput(f"a transformers model is needed, not {type(hf_model).__name__}")
    where, stored = f"the config of {type(hf_model).__name__}", ("quantization_config", "compression_config")
    config = {key: value for key, value in hf_model.config.to_dict().items() if key not in stored}  # of the activations
    family = family_of(config, where)
    return family, read_hyperparameters(config, family, where)


def _base_and_block(hf_model: Any, family: Family, layer: int) -> tuple[Any, Any]:
    """The model without its LM head, and one of its blocks, found by the names of its weights."""
    modules = dict(hf_model.named_modules())
    path = family.layer.format(i=layer).rstrip(".")
    for prefix in family.prefixes:
        if prefix + path in modules:
            return modules[prefix.rstrip(".")], modules[prefix + path]
    raise UnsupportedModel(
        f"{type(hf_model).__name__} has no module {family.prefixes[0] + path!r}; give the transformers model itself, "
        "not a module that wraps it"
    )


def _point(base: Any, block: Any, site: Site, family: Family, hyper: Hyperparameters) -> tuple[Any, bool, float]:
    """(module, True for its input and False for its output, ratio of the site's value to the module's)"""
    if site == (0, "resid_pre") and hyper.d_input:  # the embedding, of which inputs of layers are made, too
        return base.get_submodule(family.embed), False, 1.0
    if site.name in ("resid_pre", "resid_post"):
        return block, site.name == "resid_pre", 1.0
    paths, factor = site_modules(site.name, family, hyper)
    return _first_module(block, paths, site.name), False, factor


def site_modules(site: str, family: Family, hyper: Hyperparameters) -> tuple[list[str], float]:
    """(names in a block of the module whose output a site inside the block is, of which the first that exists is meant; ratio
    of the site's value to the module's)"""
    from ..loading.family import value_of

    of_mlp, down = site in ("down_proj", "mlp_out"), site == "down_proj"
    post = "post2" if of_mlp else "post1"
    slot = "down" if of_mlp else "o"
    paths = [at.path for at in family.norms if at.slot == post and value_of(at.when, hyper) and not down]
    if slot in family.adds_residual:
        paths = [linear.path for linear in family.linears if slot in linear.slots]
    elif not paths:
        # "mlp" is the name in transformers of any family's mixture in memory
        paths = ["mlp"] * of_mlp + _parents(family, slot)
        if of_mlp and family.experts is not None:
            paths.append(family.experts.router.partition(".")[0])
    return paths, 1.0 if down else float(family.resid_scale(hyper))


def _beside(block: Any, site: str, family: Family, factor: float) -> tuple[Any, bool, float] | None:
    """What the site's value is the sum of, beside the output of its module: that is (module, True for its input and False for its
    output), and its factor."""
    if site == "resid_mid":  # what the norm before attention reads, or attention
        return _first_module(block, [at.path for at in family.norms if at.slot == "norm1"] or _parents(family, "o"), site), True, 1.0
    path = family.experts.beside if family.experts is not None and site in ("down_proj", "mlp_out") else None
    module = dict(block.named_modules()).get(path or "")
    return None if not path or module is None else (module, False, factor)


def _parents(family: Family, slot: str) -> list[str]:
    """The modules that hold the projection to a slot, or the projection itself where the block holds it."""
    of_mixers = [linear for mixer in family.mixers.values() for linear in mixer.linears]
    return [linear.path.rpartition(".")[0] or linear.path for linear in (*family.linears, *of_mixers) if slot in linear.slots]


def _first_module(block: Any, paths: Sequence[str], site: str) -> Any:
    modules = dict(block.named_modules())
    for path in paths:
        if path in modules:
            return modules[path]
    raise UnsupportedModel(
        f"{type(block).__name__} has no module {' or '.join(paths)!r}, where {site} would be hooked; use resid_post"
    )


def _register(module: Any, is_input: bool, edit: Edit) -> Any:
    """Hook a module. The activation is the first item of a tuple; which modules return tuples depends on transformers."""

    def first(values: Any) -> Any:
        return (edit(values[0]), *values[1:]) if isinstance(values, tuple) else edit(values)

    def before(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (first(args), kwargs) if args else (args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])})

    if is_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(lambda _, args, output: first(output))


class _Prompt(NamedTuple):
    lengths: Array  # (B,) tokens of every row
    columns: int  # of the batch, padding included


class _Calls(threading.local):
    """The positions to steer in every call of a model, computed from the call's arguments. Each thread has its own call:
    torch's DataParallel calls the model from several threads at once."""

    where: NDArray[np.bool_] | None = None  # mask (B, n) of the positions to steer in the current call
    candidates = False
    prompt: _Prompt

    def __init__(self, positions: Canonical, key: str, texts: set[bytes]) -> None:
        self.positions = positions
        self._key = key  # of this hook's entry in a cache
        self._texts = texts  # hashes of the rows that were given without a cache

    def outermost(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Assisted decoding requests the logits of every candidate: its first call has some after the prompt."""
        kept = kwargs.get("logits_to_keep", 1)
        self.candidates = isinstance(kept, int) and kept > 1

    def before(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.where = None
        call = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        tokens: Any = call.get("input_ids")
        tokens = call.get("inputs_embeds") if tokens is None else tokens
        if tokens is None:
            raise InvalidInput("cannot determine the positions: the model was given neither input_ids nor inputs_embeds")
        batch, n = (int(size) for size in tokens.shape[:2])
        cache = _cache_of(call.values())
        seen = 0 if cache is None else int(cache.get_seq_length())
        at, totals = _columns(call, batch, n, seen, getattr(module.config, "sliding_window", None))
        prompt = self._prompt(cache, seen, at, totals)
        if cache is None and relative(self.positions) and not tokens.is_meta:
            self._refuse_growth(tokens)
        where = np.zeros((batch, n), dtype=bool)
        for i in np.flatnonzero((at >= 0).any(1)):  # a row may be padding, where prompts are read in pieces
            where[i] = includes(self.positions, at[i], int(prompt.lengths[i]))
        self._remember(cache, prompt)
        self.where, self.prompt = where, prompt

    def after(self, module: Any, args: Any, output: Any) -> None:
        self.where = None
        values = output.values() if isinstance(output, Mapping) else output
        self._remember(_cache_of(values if isinstance(output, Mapping | tuple) else ()), self.prompt)

    def _remember(self, cache: Any, prompt: _Prompt) -> None:
        """Store the prompt in the cache itself, so that a copy of the cache has it, too."""
        if cache is not None:
            vars(cache).setdefault("_powersteer_prompts", {})[self._key] = prompt

    def _prompt(self, cache: Any, seen: int, at: Array, totals: Array) -> _Prompt:
        (batch, n), counted = at.shape, relative(self.positions)
        now = _Prompt(totals, seen + n)
        known = vars(cache).get("_powersteer_prompts", {}).get(self._key) if seen else None
        candidates, self.candidates = self.candidates, False
        if known is None and cache is not None and candidates and counted:
            self._refuse_end("candidates of assisted decoding may follow it in the same call")
        if known is None or (len(known.lengths) != batch and not counted):
            return now
        if counted and (n > 1 or len(known.lengths) != batch or bool((totals < known.lengths).any())):
            self._refuse_end(
                f"a cache that held {len(known.lengths)} x {known.columns} tokens after its first call holds {seen} a "
                f"row and is continued with {batch} x {n}"
            )
        if bool((totals - known.lengths > seen + n - known.columns).any()):
            _refuse(batch, n, seen, "the padding of the prompt is no longer masked, or rows of the cache have moved")
        return known if counted else now

    def _refuse_growth(self, tokens: Any) -> None:
        """Refuse a text that is an earlier one and one token more, as generation without a cache gives it."""
        import torch

        rows = tokens.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
        size = rows.shape[1] // tokens.shape[1]  # bytes of a token
        grown = all(_digest(row[:-size]) in self._texts for row in rows)
        self._texts.update(map(_digest, rows))
        if grown:
            self._refuse_end("without a cache, these are the tokens of an earlier call and one more")

    def _refuse_end(self, why: str) -> NoReturn:
        raise InvalidInput(
            f"cannot determine where the prompt ends, which positions {describe(self.positions)} count from: {why}; use "
            "positions that count from the start, generate plainly with a cache, or hook the model anew for each text"
        )


def _digest(row: Array) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _cache_of(values: Iterable[Any]) -> Any:
    """The key-value cache among arguments or outputs: its name depends on the version of transformers, its methods do not.

    Raises InvalidInput for a cache without a length: tuples of tensors, the pages of continuous batching.
    """
    found = {}
    for value in values:
        nested = isinstance(value, tuple | list) and any(isinstance(item, tuple | list) for item in value)
        if callable(getattr(value, "get_seq_length", None)):
            found[id(value)] = value
        elif nested or (callable(getattr(value, "update", None)) and not isinstance(value, Mapping | set)):
            raise InvalidInput(
                f"cannot determine the positions: a {type(value).__name__} does not say how many tokens of each row it "
                "holds; use a transformers Cache, or positions=None"
            )
    if len(found) > 1:
        raise InvalidInput(f"cannot determine the positions: the model was given {len(found)} caches")
    return next(iter(found.values()), None)


def _columns(call: Mapping[str, Any], batch: int, n: int, seen: int, window: int | None) -> tuple[Array, Array]:
    """(position of every token (B, n), -1 for padding; number of tokens of every row so far (B,)) of one call."""
    mask, columns = call.get("attention_mask"), np.arange(seen, seen + n)
    ids, start = (_integers(call.get(name), batch, n, seen) for name in ("position_ids", "cache_position"))
    if start is not None and not np.array_equal(start, np.broadcast_to(columns, (batch, n))):
        _refuse(batch, n, seen, "cache_position does not follow what the cache holds")
    if isinstance(mask, Mapping):  # by kind of layer
        window = None if "full_attention" in mask else window
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None or (getattr(mask, "ndim", 0) == 2 and tuple(mask.shape) == (batch, seen + n)):
        kept = np.ones((batch, seen + n), dtype=bool) if mask is None else (mask != 0).cpu().numpy()
        at = np.where(kept, kept.cumsum(1) - 1, -1)[:, seen:]
        if ids is not None and not any(((ids == count) | (at < 0)).all() for count in (at, columns)):
            _refuse(batch, n, seen, "position_ids do not count the tokens that the mask keeps")
        return at, kept.sum(1)
    if getattr(mask, "ndim", 0) != 4 or tuple(mask.shape[1:3]) != (1, n) or ids is None:
        _refuse(batch, n, seen, f"the attention mask has shape {tuple(getattr(mask, 'shape', ()))}")
    return _masked_columns(mask, ids, seen, window)


def _masked_columns(mask: Any, ids: Array, seen: int, window: int | None) -> tuple[Array, Array]:
    """`_columns` for a mask (B, 1, n, keys) that was made beforehand, as for a static cache: a token at position p attends to
    p + 1 tokens, or to the size of the sliding window. Padding does not, whatever its position_ids."""
    attended = (mask if mask.dtype.is_floating_point is False else mask == 0)[:, 0].sum(-1).cpu().numpy()
    real = (attended == ids + 1) | (attended == np.minimum(ids + 1, window or ids + 1))
    at = np.where(real, ids, -1)
    totals = at.max(1) + 1
    first = (totals - real.sum(1))[:, None]
    gaps = at != np.where(real, first + real.cumsum(1) - 1, -1)
    masked = np.isin(attended, (0, mask.shape[-1])).all(1)  # a row of padding attends to nothing, or to everything
    if gaps.any() or not (real.any(1) | masked).all() or (first > seen).any():
        _refuse(len(ids), ids.shape[1], seen, "position_ids do not count the tokens that the mask keeps")
    return at, totals


def _integers(tensor: Any, batch: int, n: int, seen: int) -> Array | None:
    if tensor is None:
        return None
    if tuple(tensor.shape) not in ((n,), (1, n), (batch, n)):
        _refuse(batch, n, seen, f"position_ids have shape {tuple(tensor.shape)}")
    return np.broadcast_to(tensor.cpu().numpy(), (batch, n))


def _refuse(batch: int, n: int, seen: int, why: str) -> NoReturn:
    raise InvalidInput(
        f"cannot determine the positions of {batch} x {n} tokens after {seen} in the cache: {why}; give the attention mask of "
        f"all of them, ({batch}, {seen + n}), padded on the left, and leave position_ids to the model"
    )
