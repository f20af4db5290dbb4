"""A model: weights that are never changed, and views of them with interventions attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput
from ..inputs.positions import Positions
from ..inputs.prompts import Ids, Prompt, Prompts
from ..inputs.sites import HEADS, SiteLike, resolve_site
from ..notebook.play import Play
from ..notebook.session import Session
from ..vectors.interventions import Intervention, Steering
from ..vectors.steering_vector import SteeringVector
from .cost import Estimate, estimate, forward_bytes
from .forward import ForwardModel
from .generation import (
    Generation,
    Row,
    Stops,
    Stream,
    check_sampling,
    decode_rows,
    follow_along,
    row_seeds,
    total_lengths,
)
from .jacobian import Jacobian, Jacobians
from .linearise import LAST_TWO, linearise, rows_of, target_of
from .residency import streamed_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._core._core32 import Decoder

__all__ = ["Model"]

Array = NDArray[Any]


class _GenerateOptions(TypedDict, total=False):
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int | Sequence[int]
    stop: str | int | Iterable[str | int] | None
    steer: Steering | Sequence[Steering | None] | None
    steer_positions: Positions


@dataclass(frozen=True, eq=False, repr=False)
class Model(ForwardModel):
    """A language model, or a steered view of one, made by `load` or `from_transformers`.

    Immutable, and safe to use from several threads at once. `steered(vectors)` is another view of the same weights.

    A prompt is a text, a chat (list of messages) or token ids. A method that takes a prompt also takes a list of
    prompts, computes them as one batch without padding, and returns a list.

    On one machine a prompt's logits, activations and decoded tokens have the same bits alone and in any list, with any
    number of threads, and so has each column of `J @ V` and `J.T @ U`. The logits of a generated token and those of the
    whole text at once agree to rounding.

    Examples
    --------
    >>> import powersteer as ps
    >>> model = ps.load("demo")
    >>> model("Q: 6*8").shape
    (6, 255)
    >>> [logits.shape for logits in model(["Q: 6*8", "Q:"])]
    [(6, 255), (2, 255)]
    """

    # ---- forward

    def steered(self, vectors: Steering, positions: Positions = None) -> Model:
        """A view of this model that adds each vector at its site, or clamps by it, on top of what this view does.

        At one site the interventions of this view come first, then the vectors in the order of the list. Adding before
        and after `ablate` or `clamp` are different.

        Parameters
        ----------
        vectors
            A SteeringVector or a list of them, at their own scale; also `vec.ablate()` and `vec.clamp(2.5)`.
        positions
            Where they act: None or "all" (prompt and generated tokens), "prompt", "generated", a slice, an integer
            or integers. Positions are absolute; negative ones count from the end of the prompt; a slice without an end
            includes generated tokens.

        Raises
        ------
        InvalidInput
            For a vector that does not fit the model.

        Warns
        -----
        ProvenanceWarning
            For a vector that was made with another model.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> vec = model.jacobian("Q: 6*8", source=1, target=3).svd(k=1).vectors[0]
        >>> view = model.steered(vec.relative(0.5), positions="prompt")
        >>> len(view.steering), len(model.steering)
        (1, 0)
        """
        return replace(self, _steering=self._steering + self._interventions(vectors, positions))

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[_GenerateOptions]
    ) -> Generation: ...
    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, stream: Literal[False] = False, **options: Unpack[_GenerateOptions]
    ) -> list[Generation]: ...
    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[_GenerateOptions]
    ) -> Stream[str, Generation]: ...
    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, stream: Literal[True], **options: Unpack[_GenerateOptions]
    ) -> Stream[tuple[int, str], list[Generation]]: ...
    @deprecated_arguments(2)
    def generate(
        self,
        prompt: Prompts,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: str | int | Iterable[str | int] | None = None,
        stream: bool = False,
        steer: Steering | Sequence[Steering | None] | None = None,
        steer_positions: Positions = None,
    ) -> Any:
        """Continue a prompt.

        Parameters
        ----------
        prompt
            A prompt, or a list of prompts, which are decoded as one batch.
        max_new_tokens
            Most tokens to generate for each prompt.
        temperature
            0: greedy; else logits are divided by it before sampling.
        top_k
            Sample among so many of the likeliest tokens; 0: all.
        top_p
            Of these, sample among the fewest whose probability reaches top_p.
        seed
            Row i uses seed + i (or seed[i]); its samples are the same alone and, but for ties of rounding, in any batch.
        stop
            Texts and token ids that end a row; None: the model's end tokens; []: none. A list replaces the end tokens:
            add `*model.end_tokens` to keep them. The text ends before the stop; the tokens include it.
        stream
            Return a Stream, an iterator over pieces of text, instead.
        steer
            Vectors that act on top of this view's: a vector or a list of vectors; for a list of prompts a list with one item
            for each (a vector, a list of vectors or None), or one vector for all.
        steer_positions
            Where these act, in the forms of `steered`; None: everywhere.

        Returns
        -------
        Generation, or a list of them; with stream=True a Stream of texts, for a list of prompts of (row, text).

        Raises
        ------
        InvalidInput
            If prompt and new tokens do not fit the context, and for an argument outside its domain.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> model.generate("Q: 3*4\\nA:").text
        ' It is 132.'
        >>> for piece in model.generate("Q: 3*4\\nA:", max_new_tokens=2, stream=True):
        ...     print(repr(piece))
        ' It'
        ' is'
        """
        _, tokens, is_batch = self._read(prompt)
        temperature, top_k, top_p = check_sampling(temperature, top_k, top_p)
        by_row = self._row_steering(steer, steer_positions, len(tokens), is_batch)
        seeds = row_seeds(seed, len(tokens))
        if stream:
            self._need_tokenizer("stream text")
        decoder, rows = self._decoder(tokens, by_row, max_new_tokens, stop, (temperature, top_k, top_p), seeds)
        pieces = self._loaded.checkpoint.weights.iterating(decode_rows(decoder, rows))
        result: Stream[Any, Any] = Stream(pieces if is_batch else (piece for _, piece in pieces), rows, is_batch)
        if stream:
            return result
        for _ in result:
            pass
        return result.result

    def _decoder(
        self,
        tokens: list[Ids],
        steer: Sequence[tuple[Intervention, ...]],
        max_new_tokens: int,
        stop: Any,
        sampling: tuple[float, int, float],
        seeds: NDArray[np.uint64],
    ) -> tuple[Decoder, list[Row]]:
        """The core's decoder of prompts, and their continuations. sampling: temperature, top_k and top_p."""
        totals = total_lengths(self, tokens, max_new_tokens)
        core_steer = self._core_steering(steer, [len(t) for t in tokens], totals)
        stops = Stops.read(stop, self)
        rows = [
            Row(t, max_new_tokens, stops, self.tokenizer, int(seeds[i]), self.steering + tuple(map(str, steer[i])))
            for i, t in enumerate(tokens)
        ]
        temperature, top_k, top_p = sampling
        decoder = self._loaded.module.Decoder(
            self._loaded.core, tokens, np.array(totals, dtype=np.int32), core_steer,
            temperature, min(top_k, self.n_vocab), top_p, seeds,
        )  # fmt: skip
        return decoder, rows

    def _follow(
        self, prompt: Ids, draft: Ids, interventions: tuple[Intervention, ...], max_new_tokens: int
    ) -> tuple[Array, Row, Iterator[str]]:
        """Continue a prompt greedily, as `follow_along`, with interventions on top of this view's."""
        decoder, rows = self._decoder(
            [prompt], [interventions], max_new_tokens, None, (0.0, 0, 1.0), np.zeros(1, np.uint64)
        )
        return follow_along(self, decoder, rows[0], draft)

    def play(self, prompt: Prompt, vectors: Steering, *, positions: Positions = None, max_new_tokens: int = 64) -> Play:
        """A slider for each vector, in a notebook, and the steered continuation beside the plain one as they move.

        The text streams; the place where the two part is marked, and KL divergences and the likeliest next tokens stand
        below. A slider that moves on stops the answer to where it was. Decoding is greedy, and at strength 0 adds nothing.

        Parameters
        ----------
        prompt
            A text, a chat or token ids; one, not a list.
        vectors
            A SteeringVector or a list of them; also `vec.clamp()`. The sliders start at their scales.
        positions
            Where they act, in the forms of `steered`.
        max_new_tokens
            Most tokens of each continuation.

        Returns
        -------
        Play, which a notebook shows. Its `vectors` are those at the sliders' present strengths.

        Raises
        ------
        MissingDependency
            Without anywidget: pip install 'powersteer[notebook]'.
        InvalidInput
            As `steered` and `generate`, and for a list of prompts.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> vec = model.jacobian("Q: 3*4\\nA:", source=1, target=3).svd(k=1).vectors[0]
        >>> play = model.play("Q: 3*4\\nA:", vec.relative(0.5))
        >>> play.wait().plain
        ' It is 132.'
        """
        return Play(Session(self, prompt, vectors, positions, max_new_tokens))

    def _row_steering(self, steer: Any, positions: Positions, n: int, is_batch: bool) -> list[tuple[Intervention, ...]]:
        if steer is None:
            return [()] * n
        if isinstance(steer, SteeringVector) or not is_batch:
            return [self._interventions(steer, positions)] * n
        if not isinstance(steer, (list, tuple)) or len(steer) != n:
            raise InvalidInput(
                f"steer must have one item for each of the {n} prompts: a vector, a list of vectors or None"
            )
        return [() if item is None else self._interventions(item, positions) for item in steer]

    # ---- derivatives

    @deprecated_arguments(4, positions="target_positions")
    def jacobian(
        self,
        prompts: Prompts,
        source: int | SiteLike,
        target: int | SiteLike,
        *,
        source_site: str | None = None,
        target_site: str | None = None,
        target_positions: Positions = LAST_TWO,
        source_positions: Positions = None,
        reduce: str = "stack",
    ) -> Jacobian:
        """Jacobian of the target site with respect to one vector added to the source site, at this view's steering.

        Parameters
        ----------
        prompts
            A prompt or a list of prompts, whose Jacobians are stacked.
        source, target
            Layers, or whole sites ("blocks.3.hook_resid_post"). Also for target: "logits", the logits; "next_token",
            sqrt(p) (dlogits - p' dlogits), whose squared length is twice the KL divergence of the next token (not the
            published method's target).
        source_site, target_site
            Site names beside layers; None: "mlp_out".
        target_positions
            Rows of the target in every prompt, in the forms of `steered`; by default the last two, and for "logits" and
            "next_token" the last.
        source_positions
            Where the vector is added, in the forms of `steered`; None: everywhere. At its site it comes after this view's
            interventions.
        reduce
            "stack": a row block for each target position; "mean": their mean in every prompt.

        Returns
        -------
        Jacobian, of shape (m, d_model): m = target positions of all prompts (with "mean": prompts) × width of the target.

        Raises
        ------
        InvalidInput
            If the source does not come before the target in the computation, and for an argument outside its domain.

        Examples
        --------
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobian("Q: 3*4\\nA:", source=1, target=3)
        >>> J
        Jacobian(blocks.1.hook_mlp_out -> blocks.3.hook_mlp_out, shape (320, 160), 1 prompt, float32)
        >>> J.svd(k=3).S.shape
        (3,)
        """
        core, made, _ = linearise(
            self, prompts, [(source, [(target, target_site)])], source_site=source_site, target_positions=target_positions,
            source_positions=source_positions, reduce=reduce,
        )  # fmt: skip
        return Jacobian(core, self.dtype, self.threads, made[0])

    @deprecated_arguments(4, positions="target_positions")
    def jacobians(
        self,
        prompts: Prompts,
        source: int | SiteLike | list[int | SiteLike],
        targets: Sequence[int | SiteLike],
        *,
        source_site: str | None = None,
        target_site: str | None = None,
        target_positions: Positions = LAST_TWO,
        source_positions: Positions = None,
        reduce: str = "stack",
    ) -> Jacobians:
        """Jacobians from one source, or each of a list of sources, to several targets, from one forward pass.

        Parameters
        ----------
        prompts, source_site, source_positions, reduce
            As for `jacobian`.
        source
            As for `jacobian`, or a list of sources, each of which must come before all targets.
        targets
            As `target` of `jacobian`, at least one.
        target_site, target_positions
            Of the targets that are layers. "logits" and "next_token" are taken at the last position.

        Raises
        ------
        InvalidInput
            As `jacobian`, and if there are no sources or targets.

        Examples
        --------
        >>> import powersteer as ps
        >>> J = ps.load("demo").jacobians("Q: 3*4\\nA:", source=1, targets=[2, 3, "next_token"])
        >>> J.shapes
        ((320, 160), (320, 160), (255, 160))
        >>> ps.load("demo").jacobians("Q: 3*4\\nA:", source=[0, 1, 2], targets=["logits"])
        Jacobians(blocks.0.hook_mlp_out, blocks.1.hook_mlp_out, blocks.2.hook_mlp_out -> logits, 1 prompts, float32)
        """
        sources, targets = source if isinstance(source, list) else [source], list(targets)
        if not targets:
            raise InvalidInput("jacobians: targets is empty; name at least one layer, 'next_token' or 'logits'")
        if not sources:
            raise InvalidInput("jacobians: source is an empty list; name at least one source")
        ends = [(t, None if t in HEADS else target_site) for t in targets]
        core, made, pairs = linearise(
            self, prompts, [(one, ends) for one in sources], source_site=source_site, target_positions=target_positions,
            source_positions=source_positions, reduce=reduce, heads_at_last=True,
        )  # fmt: skip
        return Jacobians(core, self.dtype, self.threads, made, pairs)

    @deprecated_arguments(4, positions="target_positions")
    def estimate(
        self,
        prompts: Prompts,
        source: int | SiteLike | None = None,
        target: int | SiteLike | None = None,
        *,
        source_site: str | None = None,
        target_site: str | None = None,
        target_positions: Positions = LAST_TWO,
        k: int = 12,
    ) -> Estimate:
        """Memory and operations of a forward pass, or of a Jacobian and its SVD, before they are started.

        Parameters
        ----------
        prompts
            A prompt or a list of prompts.
        source, target
            As for `jacobian`; without them the estimate is for a forward pass.
        source_site, target_site, target_positions
            As for `jacobian`.
        k
            Number of singular triplets.

        Raises
        ------
        InvalidInput
            As `jacobian`.

        Examples
        --------
        >>> import powersteer as ps
        >>> cost = ps.load("demo").estimate("Q: 3*4\\nA:", source=1, target=3)
        >>> cost.peak < 10e6, cost.flops < 10e6
        (True, True)
        """
        _, tokens, _ = self._read(prompts)
        lengths = [len(t) for t in tokens]
        if source is None or target is None:
            streamed = streamed_bytes(self.spec, self._loaded.resident, 0, self.n_layers)
            return Estimate(self.spec.nbytes, forward_bytes(self, lengths, sum(lengths)), 0, 0, 0, 0.0, streamed)
        start = resolve_site(source, source_site, **self._site_rules)
        end = target_of(self, start, target, target_site)
        return estimate(self, lengths, start, end, sum(len(rows_of(end, target_positions, n)) for n in lengths), k)
