"""What is read off forward passes: logits, activations and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .._util.checks import as_list
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompt, Prompts, split
from ..inputs.sites import Site, SiteLike, parse_site
from ..vectors.interventions import Intervention, Steering, core_steering, make_interventions
from .activations import ActivationCache, as_read
from .loaded import LoadedModel
from .logprobs import Continuation, continuation_ids, token_logprobs

__all__ = ["ForwardModel", "Rows"]

Array = NDArray[Any]
Sites = SiteLike | Iterable[SiteLike] | None
Rows = str | Sequence[int]


@dataclass(frozen=True, eq=False, repr=False)
class ForwardModel(LoadedModel):
    """The forward passes of a model or view."""

    @overload
    def __call__(self, prompt: Prompt) -> Array: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, prompt: Sequence[Prompt]) -> list[Array]: ...
    def __call__(self, prompt: Prompts) -> Array | list[Array]:
        """Logits (T, n_vocab) of a prompt; a list of them for a list of prompts."""
        _, tokens, is_batch = self._read(prompt)
        logits, _ = self._forward(tokens, [])
        return logits if is_batch else logits[0]

    @overload
    def run_with_cache(self, prompt: Prompt, sites: Sites = None) -> tuple[Array, ActivationCache]: ...  # type: ignore[overload-overlap]
    @overload
    def run_with_cache(self, prompt: Sequence[Prompt], sites: Sites = None) -> tuple[list[Array], list[ActivationCache]]: ...
    def run_with_cache(self, prompt: Prompts, sites: Sites = None) -> Any:
        """Logits and activations of a prompt. Activations include the steering.

        Parameters
        ----------
        prompt
            A prompt or a list of prompts.
        sites
            Sites such as "blocks.3.hook_mlp_out" or (5, "resid_post"), one or several; None: every site. Also activations
            that can only be read: `blocks.3.attn.hook_q`, `hook_k`, `hook_v`, `hook_rot_q`, `hook_rot_k`, `hook_pattern` and
            `hook_z`, and `blocks.3.mlp.hook_pre`, `hook_pre_linear` and `hook_post`.

        Returns
        -------
        logits
            (T, n_vocab) array, or a list of them.
        activations
            ActivationCache, a mapping from a site to an array, or a list of them. Shapes: (T, d_model) at a site; (T, heads,
            d_head) of queries, keys, values and z, where keys and values may have fewer heads; (n_heads, T, T) of a pattern;
            (T, d_mlp) in the MLP.

        Raises
        ------
        InvalidInput
            For a site that the model does not have, `hook_pre`, `hook_pre_linear` and `hook_post` of a mixture of experts,
            and a prompt longer than the context.

        Examples
        --------
        >>> import powersteer as ps
        >>> sites = ["blocks.1.hook_mlp_out", "blocks.1.attn.hook_pattern"]
        >>> logits, acts = ps.load("demo").run_with_cache("Q: 6*8", sites=sites)
        >>> acts["blocks.1.hook_mlp_out"].shape, acts[1, "pattern"].shape
        ((6, 160), (4, 6, 6))
        """
        _, tokens, is_batch = self._read(prompt)
        wanted = self._sites(sites, readable=True)
        logits, acts = self._forward(tokens, wanted)
        caches = [ActivationCache(wanted, one, self._site_rules) for one in acts]
        return (logits, caches) if is_batch else (logits[0], caches[0])

    @overload
    def activations(self, prompt: Prompt, site: SiteLike) -> Array: ...  # type: ignore[overload-overlap]
    @overload
    def activations(self, prompt: Sequence[Prompt], site: SiteLike) -> list[Array]: ...
    def activations(self, prompt: Prompts, site: SiteLike) -> Array | list[Array]:
        """Activation at one site, without the cost of logits.

        Parameters
        ----------
        prompt
            A prompt or a list of prompts.
        site
            Such as "blocks.3.hook_mlp_out" or (5, "resid_post"), or one that `run_with_cache` can read.

        Returns
        -------
        (T, d_model) array, or a list of them; in attention and MLP of the shapes of `run_with_cache`.

        Raises
        ------
        InvalidInput
            As `run_with_cache`.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").activations("Q: 6*8", (1, "mlp_out")).shape
        (6, 160)
        """
        _, tokens, is_batch = self._read(prompt)
        _, acts = self._forward(tokens, [parse_site(site, readable=True, **self._site_rules)], "none")
        return [one for (one,) in acts] if is_batch else acts[0][0]

    def _forward(
        self,
        tokens: list[Ids],
        sites: Sequence[Site],
        rows: Rows = "all",
        steer: Sequence[tuple[Intervention, ...]] = (),
        prompt_lengths: Sequence[int] | None = None,
    ) -> tuple[list[Array], list[list[Array]]]:
        """rows: the positions that get logits: "all", the "last", "none", or the last rows[i] of sequence i. steer:
        interventions of each sequence, on top of this view's. prompt_lengths: length of the prompt in each sequence; None:
        all of it."""
        totals = [len(t) for t in tokens]
        core_steer = self._core_steering(steer, totals if prompt_lengths is None else prompt_lengths, totals)
        with self._loaded.computing():
            wanted = rows if isinstance(rows, str) else np.asarray(rows, np.int32)
            logits, acts = self._loaded.core.forward(tokens, core_steer, [(s.layer, s.index) for s in sites], wanted)
        return logits, [[as_read(*pair) for pair in zip(sites, one, strict=True)] for one in acts]

    @overload
    def logprobs(self, prompt: Prompt, continuations: Continuation) -> Array: ...  # type: ignore[overload-overlap]
    @overload
    def logprobs(self, prompt: Prompt, continuations: Sequence[Continuation]) -> list[Array]: ...  # type: ignore[overload-overlap]
    @overload
    def logprobs(self, prompt: Sequence[Prompt], continuations: Sequence[Continuation]) -> list[Array]: ...  # type: ignore[overload-overlap]
    @overload
    def logprobs(self, prompt: Sequence[Prompt], continuations: Sequence[Sequence[Continuation]]) -> list[list[Array]]: ...
    def logprobs(self, prompt: Prompts, continuations: Any) -> Any:
        """Log-probability of each token of given continuations; the sum is that of the continuation.

        Parameters
        ----------
        prompt
            A prompt or a list of prompts.
        continuations
            A continuation or a list of them: texts, which continue a prompt of text, or token ids. For a list of prompts
            a list with one item for each: a continuation or a list of them. What sequences begin with in common is
            computed once.

        Returns
        -------
        (n,) float64 array in nats, n the tokens of the continuation; a list of them for a list of continuations; for a
        list of prompts a list with one item for each.

        Raises
        ------
        InvalidInput
            For an empty continuation, one that does not fit the context, and a text whose beginning the tokenizer joins
            with the prompt's end.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> right, wrong = model.logprobs("Q: 3*4\\nA:", [" It is 132.", " It is 7."])
        >>> bool(right.sum() > wrong.sum())
        True
        """
        encoded, tokens, is_batch = self._read(prompt)
        if is_batch and (not isinstance(continuations, (list, tuple)) or len(continuations) != len(tokens)):
            raise InvalidInput(f"logprobs: continuations must be a list with one item for each of the {len(tokens)} prompts")
        several = [split(item) for item in (continuations if is_batch else [continuations])]
        ids = [[continuation_ids(self, p, c) for c in some] for p, (some, _) in zip(encoded, several, strict=True)]
        pairs = [(t, c) for t, some in zip(tokens, ids, strict=True) for c in some]
        every = self._token_logprobs([t for t, _ in pairs], [c for _, c in pairs])
        found = [[next(every)[0] for _ in some] for some in ids]
        shaped = [some if is_list else some[0] for some, (_, is_list) in zip(found, several, strict=True)]
        return shaped if is_batch else shaped[0]

    def _token_logprobs(self, prompts: Sequence[Ids], continuations: Sequence[Ids]) -> Iterator[tuple[Array, Array]]:
        """`token_logprobs` of this view."""
        return token_logprobs(
            self, lambda tokens, rows, lengths: self._forward(tokens, [], rows, prompt_lengths=lengths)[0], prompts, continuations
        )

    def _sites(self, sites: Sites, readable: bool = False) -> list[Site]:
        if sites is None:
            return [Site(layer, name) for layer in range(self.n_layers) for name in self.spec.sites(layer)]
        is_pair = isinstance(sites, (tuple, list)) and len(sites) == 2 and not isinstance(sites[0], (str, tuple, list))
        wanted: list[Any] = [sites] if is_pair else as_list(sites)
        return list(dict.fromkeys(parse_site(site, readable=readable, **self._site_rules) for site in wanted))

    # ---- steering

    def _interventions(self, vectors: Steering, positions: Positions = None) -> tuple[Intervention, ...]:
        return make_interventions(vectors, positions, self.spec, self.dtype, self.identity["weights"])

    def _core_steering(
        self, steer: Sequence[tuple[Intervention, ...]], lengths: Sequence[int], totals: Sequence[int]
    ) -> list[Any]:
        """This view's interventions and those of each sequence, as the core takes them."""
        rows = [core_steering(extra, lengths, totals, row=i) for i, extra in enumerate(steer)]
        return sum(rows, core_steering(self._steering, lengths, totals))

    # ---- generation
