"""What a model is made of and how it reads prompts: everything about a model that computes nothing."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from .._util.html import table
from ..errors import InvalidInput
from ..inputs.positions import Canonical
from ..inputs.prompts import EncodedPrompt, Ids, Prompt, Prompts, encode, is_text, split
from ..loading.spec import Spec
from ..vectors.interventions import Intervention
from ..vectors.steering_vector import SteeringVector

if TYPE_CHECKING:
    from ..inputs.tokenizer import Tokenizer
    from ..loading import Checkpoint

__all__ = ["Loaded", "LoadedModel"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Loaded:
    """The parts that every view of a model shares."""

    module: Any  # _core32 | _core64
    core: Any  # its Model
    real: np.dtype[Any]
    checkpoint: Checkpoint
    resident: int  # the first layers that stay in memory (see residency)

    def computing(self) -> AbstractContextManager[None]:
        """Around every computation with the weights."""
        return self.checkpoint.weights.computing()


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """Weights, sizes, tokenizer and steering of a model or view."""

    _loaded: Loaded
    _steering: tuple[Intervention, ...] = ()

    @property
    def spec(self) -> Spec:
        """Sizes, table of block settings and weights, as the core gets them."""
        return self._loaded.checkpoint.spec

    @property
    def config(self) -> dict[str, Any]:
        """A copy of config.json; of a multimodal model's, the part of its text model."""
        return copy.deepcopy(self._loaded.checkpoint.config)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, built when it is first used; None if the checkpoint has none that can be read: `notes` says why."""
        return self._loaded.checkpoint.tokenizer

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks: which part of a larger model this is; why there is no tokenizer, or why its token ids may differ from the
        model's own."""
        return self._loaded.checkpoint.notes

    @property
    def name(self) -> str:
        """Name of the checkpoint: a folder, a file or a hub id."""
        return cast(str, self._loaded.checkpoint.identity["name"])

    @property
    def path(self) -> str | None:
        """Absolute path from which `load` gives these weights in any process; None if they came from memory."""
        checkpoint = self._loaded.checkpoint
        if checkpoint.path is None:
            return None
        one_file = len(checkpoint.files) == 1 and checkpoint.files[0].suffix.lower() == ".gguf"
        return str((checkpoint.files[0] if one_file else checkpoint.path).absolute())

    @property
    def identity(self) -> dict[str, Any]:
        """Name, model_type and sizes, and under "weights" a fingerprint of the weights."""
        return dict(self._loaded.checkpoint.identity)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.spec.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.spec.d_model

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.spec.n_vocab

    @property
    def n_ctx(self) -> int:
        """Length of the longest sequence, in tokens."""
        return self.spec.n_ctx

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the arithmetic and of every result; weights stay as they are stored."""
        return self._loaded.real

    @property
    def threads(self) -> int:
        """Number of threads in the pool of this model."""
        return cast(int, self._loaded.core.threads)

    @property
    def steering(self) -> tuple[str, ...]:
        """Descriptions of the interventions of this view; empty for the model itself."""
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
        parts = [
            f"{i.site} {i.positions}{'' if i.coefficient is None else f' clamp {i.coefficient!r}'}".encode() + i.array.tobytes()
            for i in self._steering
        ]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    @property
    def end_tokens(self) -> frozenset[int]:
        """Token ids at which generation stops by default."""
        return frozenset(self._loaded.checkpoint.eos_ids)

    def __repr__(self) -> str:
        steered = f", steered by {len(self._steering)}" if self._steering else ""
        checkpoint = self._loaded.checkpoint
        steered += ", no tokenizer (see notes)" if checkpoint.known_notes and not checkpoint.tokenizer else ""
        return (
            f"Model({self.name!r}, {self.n_layers} layers, d_model {self.d_model}, n_vocab {self.n_vocab}, "
            f"{self.dtype}, {self.threads} threads{steered})"
        )

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("family", self.identity["model_type"]), ("layers", self.n_layers), ("d_model", self.d_model),
            ("n_vocab", self.n_vocab), ("context", self._context), ("weights", f"{self.spec.nbytes / 1e6:.3g} MB"),
            ("stored as", self.spec.stored_text),
            ("computes in", self.dtype), ("threads", self.threads),
            *(("steered by", line) for line in self.steering), *(("note", note) for note in self._loaded.checkpoint.known_notes),
        ]  # fmt: skip
        return table(("model", self.name), rows)

    # ---- prompts

    @overload
    def tokens(self, prompt: Prompt, **template: Any) -> Ids: ...
    @overload
    def tokens(self, prompt: Sequence[Prompt], **template: Any) -> list[Ids]: ...
    def tokens(self, prompt: Prompts, **template: Any) -> Ids | list[Ids]:
        """Encode a prompt, with BOS exactly once.

        Parameters
        ----------
        prompt
            A text, a chat (list of messages) or token ids; or a list of prompts.
        **template
            Variables of the chat template, such as `enable_thinking` or `tools`.

        Returns
        -------
        (T,) int32 array, or a list of them. Token ids are returned as they are.

        Raises
        ------
        InvalidInput
            For an empty prompt, an id outside the vocabulary, and a text if there is no tokenizer.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").tokens("Q: 6*8").tolist()
        [1, 5, 4, 13, 17, 15]
        """
        prompts, is_batch = split(prompt)
        tokens = [self._encode(p, **template) for p in prompts]
        return tokens if is_batch else tokens[0]

    @overload
    def to_str_tokens(self, prompt: Prompt) -> list[str]: ...  # type: ignore[overload-overlap]
    @overload
    def to_str_tokens(self, prompt: Sequence[Prompt]) -> list[list[str]]: ...
    def to_str_tokens(self, prompt: Prompts) -> list[str] | list[list[str]]:
        """Text of every token of a prompt.

        Parameters
        ----------
        prompt
            A text, a chat or token ids; or a list of prompts.

        Returns
        -------
        A list of T texts, or a list of such lists.

        Raises
        ------
        InvalidInput
            If the model has no tokenizer, and as `tokens`.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.load("demo").to_str_tokens("Q: 6*8")
        ['<s>', 'Q:', ' ', '6', '*', '8']
        """
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
        tokenizer = self._need_tokenizer("read a prompt of text") if is_text(prompt) else None
        return encode(prompt, tokenizer, self.n_vocab, **template)

    def _read(self, prompt: Prompts) -> tuple[list[EncodedPrompt], list[Ids], bool]:
        """(prompts, their tokens, is_batch), none longer than the context."""
        prompts, is_batch = split(prompt)
        tokens = [self._encode(p) for p in prompts]
        for i, t in enumerate(tokens):
            if len(t) > self.n_ctx:
                which = f"prompt {i}" if is_batch else "the prompt"
                raise InvalidInput(
                    f"{which} has {len(t)} tokens; the context of {self.name!r} has {self._context}; shorten it"
                )
        encoded = [EncodedPrompt(p, t, self) for p, t in zip(prompts, tokens, strict=True)]
        return encoded, tokens, is_batch

    def _text(self, prompt: Prompt, tokens: Ids) -> str:
        return EncodedPrompt(prompt, tokens, self).text

    @property
    def _context(self) -> str:
        return f"{self.n_ctx}" + (f" ({self.spec.n_ctx_why})" if self.spec.n_ctx_why else "")

    @property
    def _site_rules(self) -> dict[str, Any]:
        """Arguments of `parse_site` for this model."""
        spec = self.spec
        return {"n_layers": spec.n_layers, "parallel": spec.parallel, "post_norms": spec.post_norms, "absent": spec.absent}
