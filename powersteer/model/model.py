"""A model: weights that are never changed, and views of them with interventions attached."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core import _core32, _core64
from .._core import blas as _blas
from ..errors import InvalidInput, shown
from ..inputs.positions import Canonical, Positions, prompt_positions
from ..inputs.prompts import Ids, Prompt, Prompts, encode, is_text, split, token_ids
from ..inputs.sites import HEADS, SITES, Site, SiteLike, near_head, parse_site, precedes, resolve_site
from ..loading.spec import Spec
from ..vectors.interventions import Intervention, Steering, core_steering, make_interventions
from ..vectors.steering_vector import SteeringVector
from .cost import Estimate, estimate, forward_bytes
from .generation import Row, Sampling, Stops, Stream, decode_rows, row_seeds
from .jacobian import Jacobian, Jacobians, Linearization

if TYPE_CHECKING:
    from ..inputs.tokenizer import Tokenizer
    from ..loading import Checkpoint

__all__ = ["Model", "from_transformers", "load", "model_from_checkpoint"]

Array = NDArray[Any]

_CORES = {np.dtype(np.float32): _core32, np.dtype(np.float64): _core64}
_MOST_THREADS = 4096  # csrc/base/thread_pool.c
_LAST_TWO = slice(-2, None)  # the default of a layer target; recognised by identity


def load(
    path_or_hub_id: str | os.PathLike[str],
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    check: bool | None = None,
    mmap: bool = True,
) -> Model:
    """Load a checkpoint from a folder, by hub id from the Hugging Face cache, or from a .gguf file.

    dtype: of the arithmetic, float32 (also for None) or float64; weights stay as they are stored. threads: of the one
    pool that works on this model; None: one a physical core that this process may use.
    check: search all weights for NaN and infinity, which reads the file once; None: up to 2 GiB of them. Unsearched
    ones show when they reach an activation, as NumericalError. Norms and biases are always searched.
    mmap: weights are a window on the file, which costs no memory of their own and no time, and ends the process (SIGBUS)
    should somebody cut the file short meanwhile; False reads them.

    Raises NotFound, BadCheckpoint (damaged or contradictory files), UnsupportedModel (names the config key),
    MissingDependency (a quantised .gguf file without the gguf library) and InvalidInput.
    """
    from ..loading import load_checkpoint

    _core_of(dtype)  # before any work
    return model_from_checkpoint(load_checkpoint(path_or_hub_id, check, mmap), dtype, threads)


def from_transformers(
    hf_model: Any,
    tokenizer: Any = None,
    dtype: DTypeLike | None = None,
    threads: int | None = None,
    check: bool | None = None,
) -> Model:
    """Take over a transformers model, sharing its CPU memory where it can. Later changes of the PyTorch weights may or
    may not show. tokenizer: of transformers or `tokenizers`; None: prompts are token ids. Else as `load`."""
    from ..loading import spec_from_transformers

    return model_from_checkpoint(spec_from_transformers(hf_model, tokenizer, check), dtype, threads)


def model_from_checkpoint(checkpoint: Checkpoint, dtype: DTypeLike | None = None, threads: int | None = None) -> Model:
    """The model of a checkpoint that is read already. dtype, threads: as for `load`."""
    core = _core_of(dtype)
    if threads is None:
        threads = _blas.default_threads()
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= _MOST_THREADS:
        raise InvalidInput(f"threads is {shown(threads)}; it must be an integer from 1 to {_MOST_THREADS}")
    real = np.dtype(np.float32 if core is _core32 else np.float64)
    return Model(_Loaded(core, core.Model(*checkpoint.spec.to_core(real), int(threads)), real, checkpoint))


def _core_of(dtype: DTypeLike | None) -> Any:
    try:
        return _CORES[np.dtype(np.float32 if dtype is None else dtype)]
    except (KeyError, TypeError):
        raise InvalidInput(
            f"dtype is {dtype!r}; powersteer computes in float32 or float64 (weights stay as they are stored)"
        ) from None


@dataclass(frozen=True)
class _Loaded:
    """What every view of a model shares."""

    module: Any  # _core32 | _core64
    core: Any  # its Model
    real: np.dtype[Any]
    checkpoint: Checkpoint


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A language model, or a steered view of one. Immutable; safe to use from several threads at once.

    `model(prompt)`, `run_with_cache`, `generate`, `jacobian`; `steered(vectors)` is another view of the same weights.
    A prompt is a text, a chat (list of messages) or token ids; where a method takes one it also takes a list of them
    and then returns a list, computed as one batch without padding. Made by `load` and `from_transformers`.

    On one machine a prompt's logits, activations, generated tokens and effects have the same bits alone and in any list,
    with any number of threads. So has each column of `J @ V`. The columns of `J.T @ U`, and the logits of a token that
    is generated against those of the whole text at once, agree to rounding.
    """

    _loaded: _Loaded
    _steering: tuple[Intervention, ...] = ()

    @property
    def spec(self) -> Spec:
        """What the model is made of: sizes, block table, weights."""
        return self._loaded.checkpoint.spec

    @property
    def config(self) -> dict[str, Any]:
        """A copy of config.json."""
        return copy.deepcopy(self._loaded.checkpoint.config)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the checkpoint has none that can be read; `notes` says why."""
        return self._loaded.checkpoint.tokenizer

    @property
    def notes(self) -> tuple[str, ...]:
        """What the checkpoint lacks, and why."""
        return self._loaded.checkpoint.notes

    @property
    def name(self) -> str:
        return cast(str, self._loaded.checkpoint.identity["name"])

    @property
    def path(self) -> str | None:
        """What `load` finds these weights by, in any process of this machine; None if they came from memory."""
        checkpoint = self._loaded.checkpoint
        if checkpoint.path is None:
            return None
        one_file = len(checkpoint.files) == 1 and checkpoint.files[0].suffix.lower() == ".gguf"
        return str((checkpoint.files[0] if one_file else checkpoint.path).absolute())

    @property
    def identity(self) -> dict[str, Any]:
        """name, model_type, sizes, and under "weights" a fingerprint of the weights."""
        return dict(self._loaded.checkpoint.identity)

    @property
    def n_layers(self) -> int:
        return self.spec.n_layers

    @property
    def d_model(self) -> int:
        return self.spec.d_model

    @property
    def n_vocab(self) -> int:
        return self.spec.n_vocab

    @property
    def n_ctx(self) -> int:
        """Longest sequence, in tokens."""
        return self.spec.n_ctx

    @property
    def _context(self) -> str:
        return f"{self.n_ctx}" + (f" ({self.spec.n_ctx_why})" if self.spec.n_ctx_why else "")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the arithmetic and of every result."""
        return self._loaded.real

    @property
    def threads(self) -> int:
        return cast(int, self._loaded.core.threads)

    @property
    def steering(self) -> tuple[str, ...]:
        """The interventions of this view, described; empty for the model itself."""
        return tuple(map(str, self._steering))

    @property
    def interventions(self) -> tuple[tuple[SteeringVector, Canonical], ...]:
        """(vector, positions) of each intervention of this view, as `steered` takes them."""
        return tuple((i.vector, i.positions) for i in self._steering)

    @property
    def steering_hash(self) -> str:
        """A fingerprint of the interventions of this view, numbers included; "" for the model itself."""
        if not self._steering:
            return ""
        parts = [f"{i.place} {i.positions}".encode() + i.array.tobytes() for i in self._steering]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    @property
    def end_tokens(self) -> frozenset[int]:
        """Token ids at which generation stops by default."""
        return frozenset(self._loaded.checkpoint.eos_ids)

    def __repr__(self) -> str:
        steered = f", steered by {len(self._steering)}" if self._steering else ""
        steered += "" if self.tokenizer else ", no tokenizer (see notes)"
        return (
            f"Model({self.name!r}, {self.n_layers} layers, d_model {self.d_model}, n_vocab {self.n_vocab}, "
            f"{self.dtype}, {self.threads} threads{steered})"
        )

    # ---- prompts

    def tokens(self, prompt: Prompts, **template: Any) -> Any:
        """The token ids that a prompt stands for, int32 (T,), BOS exactly once; token ids come back as they are.
        A list of prompts gives a list. template: variables of the chat template (`enable_thinking`, `tools`, ...)."""
        prompts, is_batch = split(prompt)
        tokens = [self._encode(p, **template) for p in prompts]
        return tokens if is_batch else tokens[0]

    def to_str_tokens(self, prompt: Prompts) -> Any:
        """The text of every token of a prompt, as a list; for a list of prompts a list of them."""
        prompts, is_batch = split(prompt)
        tokenizer = self._need_tokenizer("show tokens as text")
        texts = [tokenizer.to_str_tokens(encode(p, tokenizer, self.n_vocab)) for p in prompts]
        return texts if is_batch else texts[0]

    def _need_tokenizer(self, purpose: str) -> Tokenizer:
        if self.tokenizer is None:
            why = "".join(f" ({note})" for note in self.notes)
            raise InvalidInput(f"cannot {purpose}: {self.name!r} came without a tokenizer{why}; give token ids")
        return self.tokenizer

    def _encode(self, prompt: Prompt, **template: Any) -> Ids:
        if is_text(prompt):
            self._need_tokenizer("read a prompt of text")
        return encode(prompt, self.tokenizer, self.n_vocab, **template)

    def _read(self, prompt: Prompts) -> tuple[list[Prompt], list[Ids], bool]:
        """(prompts, their tokens, several?), none longer than the context."""
        prompts, is_batch = split(prompt)
        tokens = [self._encode(p) for p in prompts]
        for i, t in enumerate(tokens):
            if len(t) > self.n_ctx:
                which = f"prompt {i}" if is_batch else "the prompt"
                raise InvalidInput(
                    f"{which} has {len(t)} tokens; the context of {self.name!r} has {self._context}; shorten it"
                )
        return prompts, tokens, is_batch

    # ---- forward

    def __call__(self, prompt: Prompts) -> Any:
        """Logits (T, n_vocab) of a prompt; for a list of prompts a list."""
        _, tokens, is_batch = self._read(prompt)
        logits, _ = self._forward(tokens, [])
        return logits if is_batch else logits[0]

    def run_with_cache(self, prompt: Prompts, sites: SiteLike | Iterable[SiteLike] | None = None) -> Any:
        """(logits (T, n_vocab), {(layer, site): activation (T, d)}); for a list of prompts a list of each.

        sites: "blocks.3.hook_mlp_out", (5, "resid_post"), ...; None: every one. Steering is in the activations.
        """
        _, tokens, is_batch = self._read(prompt)
        wanted = self._sites(sites)
        logits, acts = self._forward(tokens, wanted)
        caches = [dict(zip(map(tuple, wanted), one, strict=True)) for one in acts]
        return (logits, caches) if is_batch else (logits[0], caches[0])

    def activations(self, prompt: Prompts, site: SiteLike) -> Any:
        """The activation (T, d) at one site, without the cost of logits; for a list of prompts a list."""
        _, tokens, is_batch = self._read(prompt)
        _, acts = self._forward(tokens, [parse_site(site, **self._site_rules)], "none")
        return [one for (one,) in acts] if is_batch else acts[0][0]

    def _forward(
        self,
        tokens: list[Ids],
        sites: Sequence[Site],
        rows: str = "all",
        steer: Sequence[tuple[Intervention, ...]] = (),
        prompt_lengths: Sequence[int] | None = None,
    ) -> tuple[list[Array], list[list[Array]]]:
        """rows: those that get logits: "all", "last" or "none". steer: of each sequence, on top of this view's.
        prompt_lengths: how much of each sequence is its prompt; None: all of it."""
        totals = [len(t) for t in tokens]
        lengths = totals if prompt_lengths is None else prompt_lengths
        core_steer = core_steering(self._steering, lengths, totals)
        for i, extra in enumerate(steer):
            core_steer += core_steering(extra, lengths, totals, row=i)
        result = self._loaded.core.forward(tokens, core_steer, [(s.layer, s.index) for s in sites], rows)
        return cast(tuple[list[Array], list[list[Array]]], result)

    def _sites(self, sites: SiteLike | Iterable[SiteLike] | None) -> list[Site]:
        if sites is None:
            names = [name for name in SITES if not (name == "resid_mid" and self.spec.parallel)]
            return [Site(layer, name) for layer in range(self.n_layers) for name in names]
        if isinstance(sites, (str, Site)) or (
            isinstance(sites, tuple) and len(sites) == 2 and isinstance(sites[0], int)
        ):
            sites = [sites]
        return list(dict.fromkeys(parse_site(s, **self._site_rules) for s in cast(Iterable[SiteLike], sites)))

    @property
    def _site_rules(self) -> dict[str, Any]:
        return {"n_layers": self.n_layers, "parallel": self.spec.parallel, "post_norms": self.spec.post_norms}

    # ---- steering

    def steered(self, vectors: Steering, positions: Positions = None) -> Model:
        """A view of this model that adds each vector at its site, on top of what this view adds already.

        positions: None or "all" (prompt and generated), "prompt", "generated", a slice, an integer or integers;
        absolute, negative ones from the prompt's end, an open slice goes on into what is generated (see
        powersteer.positions). Raises InvalidInput for a vector that does not fit; warns with ProvenanceWarning about
        one that was made with another model.
        """
        return replace(self, _steering=self._steering + self._interventions(vectors, positions))

    def _interventions(self, vectors: Steering, positions: Positions = None) -> tuple[Intervention, ...]:
        return make_interventions(vectors, positions, self.spec, self.dtype, self.identity["weights"])

    # ---- generation

    def generate(
        self,
        prompt: Prompts,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: str | int | Iterable[str | int] | None = None,
        stream: bool = False,
        steer: Steering | Sequence[Steering | None] | None = None,
    ) -> Any:
        """Continue a prompt: a Generation; for a list of prompts a list, decoded as one batch.

        temperature 0 is greedy; else tokens are drawn from the `top_k` likeliest (0: all), of these the fewest whose
        probability reaches `top_p`. Row i of a batch draws from the stream `seed + i`, or `seed[i]`, whatever its
        company: alone with that seed it says the same.
        stop: texts and token ids that end a row; None: the model's end tokens; []: none. Only what is listed stops, so
        add `*model.end_tokens` to keep those. The text ends before the stop, the tokens include it.
        stream: an iterator over pieces of text instead, of a list of prompts over (row, piece); its `result` is the
        Generation (see powersteer.generation.Stream).
        steer: vectors at every position, on top of this view's: one or several; for a list of prompts one item a row,
        each a vector, a list of vectors or None, or a single vector for every row.

        Raises InvalidInput if prompt and new tokens do not fit the context, and for arguments out of range.
        """
        _, tokens, is_batch = self._read(prompt)
        sampling = Sampling(temperature, top_k, top_p)
        totals = self._totals(tokens, max_new_tokens)
        seeds = row_seeds(seed, len(tokens))
        by_row = self._row_steering(steer, len(tokens), is_batch)
        lengths = [len(t) for t in tokens]
        core_steer = core_steering(self._steering, lengths, totals)
        for i, extra in enumerate(by_row):
            core_steer += core_steering(extra, lengths, totals, row=i)
        if stream:
            self._need_tokenizer("stream text")
        stops = self._stops(stop)
        rows = [
            Row(t, max_new_tokens, stops, self.tokenizer, int(seeds[i]), self.steering + tuple(map(str, by_row[i])))
            for i, t in enumerate(tokens)
        ]
        decoder = self._loaded.module.Decoder(
            self._loaded.core, tokens, np.array(totals, dtype=np.int32), core_steer,
            float(sampling.temperature), min(sampling.top_k, self.n_vocab), float(sampling.top_p), seeds,
        )  # fmt: skip
        pieces = decode_rows(decoder, rows)
        result: Stream[Any] = Stream(pieces if is_batch else (piece for _, piece in pieces), rows, is_batch)
        if stream:
            return result
        for _ in result:
            pass
        return result.result

    def _totals(self, tokens: list[Ids], max_new_tokens: int) -> list[int]:
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, (int, np.integer)) or max_new_tokens < 1:
            raise InvalidInput(f"max_new_tokens is {shown(max_new_tokens)}; it must be an integer >= 1")
        for t in tokens:
            if len(t) + max_new_tokens > self.n_ctx:
                raise InvalidInput(
                    f"a prompt of {len(t)} tokens and {max_new_tokens} new ones do not fit the context of "
                    f"{self._context}; shorten the prompt or set max_new_tokens to at most {self.n_ctx - len(t)}"
                )
        return [len(t) + int(max_new_tokens) for t in tokens]

    def _row_steering(self, steer: Any, n: int, is_batch: bool) -> list[tuple[Intervention, ...]]:
        if steer is None:
            return [()] * n
        if isinstance(steer, SteeringVector) or not is_batch:
            return [self._interventions(steer)] * n
        if not isinstance(steer, (list, tuple)) or len(steer) != n:
            raise InvalidInput(
                f"steer must have one item for each of the {n} prompts: a vector, a list of vectors or None"
            )
        return [() if item is None else self._interventions(item) for item in steer]

    def _stops(self, stop: str | int | Iterable[str | int] | None) -> Stops:
        if stop is None:
            return Stops(self.end_tokens)
        items = [stop] if isinstance(stop, (str, int, np.integer)) else list(stop) if np.iterable(stop) else None
        if items is None:
            raise InvalidInput(f"stop is {shown(stop)}; it must be a text, a token id, or a list of these")
        strings = [item for item in items if isinstance(item, str)]
        ids = [item for item in items if not isinstance(item, str)]
        if "" in strings:
            raise InvalidInput("a stop string is empty; stop=[] stops at nothing")
        if strings:
            special = self._need_tokenizer("stop at a text").special_tokens
            ids += [special[s] for s in strings if s in special]  # never part of a text, so recognised by id
        return Stops(frozenset(token_ids(ids, self.n_vocab).tolist() if ids else ()), tuple(strings))

    # ---- derivatives

    def jacobian(
        self,
        prompts: Prompts,
        source: int | SiteLike,
        target: int | SiteLike,
        source_site: str | None = None,
        target_site: str | None = None,
        positions: Positions = _LAST_TWO,
        source_positions: Positions = None,
        reduce: str = "stack",
    ) -> Jacobian:
        """The Jacobian of the target site with respect to one vector added to the source site, at this view's steering.

        source, target: layers, with the sites beside them ("mlp_out" if None), or whole sites
        ("blocks.3.hook_resid_post"). target "logits": the logits; "next_token": sqrt(p) (dlogits - p' dlogits), whose
        squared length is twice the KL divergence of the next token (not the published method's target).
        positions: rows of the target in every prompt, by default the last two, for "logits" and "next_token" the last.
        source_positions: where the vector is added; None: everywhere. Both ascending, in the forms of `steered`.
        reduce: "stack" the rows of all positions, or take their "mean" in every prompt. Prompts are stacked.

        Raises InvalidInput if the source does not come before the target in the computation.
        """
        core, linearizations = self._linearise(
            prompts, source, [(target, target_site)], source_site, positions,
            slice(-1, None) if positions is _LAST_TWO else positions, source_positions, reduce,
        )  # fmt: skip
        return Jacobian(core, self.dtype, self.threads, linearizations[0])

    def jacobians(
        self,
        prompts: Prompts,
        source: int | SiteLike,
        targets: Sequence[int | SiteLike],
        source_site: str | None = None,
        target_site: str | None = None,
        positions: Positions = _LAST_TWO,
        source_positions: Positions = None,
        reduce: str = "stack",
    ) -> Jacobians:
        """The Jacobians to several targets, from one forward pass, to be worked on together. Arguments as for
        `jacobian`; target_site and positions are those of the targets that are layers: "logits" and "next_token" are
        taken at the last position."""
        targets = list(targets)
        if not targets:
            raise InvalidInput("jacobians: targets is empty; name at least one layer, 'next_token' or 'logits'")
        places = [(t, None if t in HEADS else target_site) for t in targets]
        core, linearizations = self._linearise(
            prompts, source, places, source_site, positions, slice(-1, None), source_positions, reduce
        )
        return Jacobians(core, self.dtype, linearizations)

    def _linearise(
        self,
        prompts: Prompts,
        source: int | SiteLike,
        targets: Sequence[tuple[int | SiteLike, str | None]],
        source_site: str | None,
        positions: Positions,
        head_positions: Positions,
        source_positions: Positions,
        reduce: str,
    ) -> tuple[Any, list[Linearization]]:
        given, tokens, _ = self._read(prompts)
        start = resolve_site(source, source_site, **self._site_rules)
        if reduce not in ("stack", "mean"):
            raise InvalidInput(f"reduce is {reduce!r}; it must be 'stack' or 'mean'")
        lengths = [len(t) for t in tokens]
        rows_in = tuple(prompt_positions(source_positions, n) for n in lengths)
        texts = tuple(self._text(p, t) for p, t in zip(given, tokens, strict=True))
        linearizations = []
        for target, target_site in targets:
            end = self._target(start, target, target_site)
            if reduce == "mean" and end == "next_token":
                raise InvalidInput(
                    "reduce='mean' does not go with target='next_token': rows of different distributions have no mean"
                )
            at = head_positions if isinstance(end, str) else positions
            rows_out = tuple(prompt_positions(at, n) for n in lengths)
            linearizations.append(
                Linearization(start, end, reduce, texts, tuple(tokens), rows_in, rows_out, self.steering, self.identity)
            )
        ends = [s.target if isinstance(s.target, str) else (s.target.layer, s.target.index) for s in linearizations]
        rows = [list(s.target_positions) for s in linearizations]
        one = len(ends) == 1
        core = self._loaded.module.Jacobian(
            self._loaded.core, tokens, core_steering(self._steering, lengths, lengths), (start.layer, start.index),
            ends[0] if one else ends, list(rows_in), rows[0] if one else rows, reduce == "mean",
        )  # fmt: skip
        return core, linearizations

    def estimate(
        self,
        prompts: Prompts,
        source: int | SiteLike | None = None,
        target: int | SiteLike | None = None,
        source_site: str | None = None,
        target_site: str | None = None,
        positions: Positions = _LAST_TWO,
        k: int = 12,
    ) -> Estimate:
        """Memory and operations of a forward pass, or with source and target of `jacobian(...)` and its `svd(k)`, before
        they are started. `print` it, or read its fields (see powersteer.estimate.Estimate)."""
        _, tokens, _ = self._read(prompts)
        lengths = [len(t) for t in tokens]
        if source is None or target is None:
            return Estimate(self.spec.nbytes, forward_bytes(self, lengths, sum(lengths)), 0, 0, 0, 0.0)
        start = resolve_site(source, source_site, **self._site_rules)
        end = self._target(start, target, target_site)
        if isinstance(end, str) and positions is _LAST_TWO:
            positions = slice(-1, None)
        rows = sum(len(prompt_positions(positions, n)) for n in lengths)
        return estimate(self, lengths, start, end, rows, k)

    def _target(self, source: Site, target: int | SiteLike, name: str | None) -> Site | str:
        if isinstance(target, str) and target in HEADS:
            if name is not None:
                raise InvalidInput(f"target {target!r} has no site, but target_site is {name!r}; leave it out")
            return target
        if isinstance(target, str) and (hint := near_head(target)):
            raise InvalidInput(f"there is no target {target!r}: {hint}A target is a layer, a site, or {' or '.join(HEADS)}")
        end = resolve_site(target, name, **self._site_rules)
        if not precedes(source, end, self.spec.parallel):
            raise InvalidInput(
                f"the source {source} does not come before the target {end} in the model's computation; swap them?"
            )
        return end

    def _text(self, prompt: Prompt, tokens: Ids) -> str:
        if isinstance(prompt, str):
            return prompt
        return "" if self.tokenizer is None else "".join(self.tokenizer.to_str_tokens(tokens))
