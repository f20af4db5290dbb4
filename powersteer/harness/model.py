"""The model "powersteer" of lm-evaluation-harness: requests in the harness's terms, computed by powersteer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from .._util.checks import check_count
from .._util.progress import progress_bar
from ..errors import InvalidInput, shown
from ..inputs.prompts import Prompt
from ..model import Model, load
from ..model.cost import generation_costs, spans
from ..vectors.arithmetic import check_adds
from ..vectors.saved import load_vectors
from ..vectors.steered_file import load_steered
from ..vectors.steering_vector import SteeringVector

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

__all__ = ["HarnessModel"]

_MAX_GEN_TOKS = 256  # of a task that does not say, as for the harness's transformers model
_SAMPLING = ("temperature", "top_k", "top_p", "seed")  # options of Model.generate that a task may set


@register_model("powersteer")
class HarnessModel(TemplateLM):  # type: ignore[misc]
    """The model "powersteer" of lm-evaluation-harness; its results are those of the model "hf" on the same checkpoint.

    Parameters
    ----------
    pretrained : str or Model
        What `ps.load` takes; or a model or steered view itself, in Python.
    steer : str, optional
        File of vectors, .safetensors, .gguf, or .pt of the harness's model "steered"; several are joined by "+".
    scale, relative : float, optional
        Strength of every vector, absolute, or as a multiple of its site's activation norm; by default as saved.
    positions : str, optional
        Where the vectors act: "all" (default), "prompt" or "generated", the text that is scored being the latter.
    dtype, threads, revision : str, int and str, optional
        As for `ps.load`.
    max_length : int, optional
        Longest sequence in tokens; by default the model's context.
    batch_size, max_batch_size, device
        Not used: the harness passes them to every model. Batches are as large as a memory budget allows, and the device is
        the CPU.

    Raises
    ------
    InvalidInput, NotFound
        For an argument that cannot be used; and in a task for options of generation that powersteer does not have.

    Examples
    --------
    >>> import lm_eval, powersteer.harness  # doctest: +SKIP
    >>> lm_eval.simple_evaluate(  # doctest: +SKIP
    ...     model="powersteer", model_args={"pretrained": "path/to/model", "steer": "v.safetensors", "scale": 4}, tasks=["arc_easy"])
    """

    def __init__(
        self,
        pretrained: str | Model,
        steer: str | None = None,
        scale: float | None = None,
        relative: float | None = None,
        positions: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        revision: str | None = None,
        max_length: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(pretrained, Model):
            pretrained = load(pretrained, dtype=dtype, threads=threads, revision=revision)
        elif (dtype, threads, revision) != (None, None, None):
            raise InvalidInput("dtype, threads and revision belong to a path; this model has been loaded already")
        for name, value in (("scale", scale), ("relative", relative), ("positions", positions)):
            if steer is None and value is not None:
                raise InvalidInput(f"{name} needs a vector: steer=FILE")
        self.model = pretrained if steer is None else pretrained.steered(
            _strong(_vectors(steer, pretrained), scale, relative), positions=positions
        )  # fmt: skip
        self._tokenizer = pretrained._need_tokenizer("evaluate tasks of texts")
        self.max_length = pretrained.n_ctx if max_length is None else check_count(max_length, "max_length", pretrained.n_ctx)

    # ---- texts

    @property
    def eot_token_id(self) -> int:
        """Id of the token that ends a text."""
        if (token := self._tokenizer.named_id("eos_token")) is not None:
            return token
        if self.model.end_tokens:
            return min(self.model.end_tokens)
        raise InvalidInput(f"the tokenizer of {self.model.name!r} has no end token, which stands before a text without context")

    @property
    def prefix_token_id(self) -> int:
        """Id of the token before a text without context: the one that begins a text, else the one that ends it."""
        token = self._tokenizer.named_id("bos_token")
        return self.eot_token_id if token is None else token

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text, with the token that begins it unless add_special_tokens is False."""
        return list(map(int, self._tokenizer.encode(string, add_special=add_special_tokens is not False)))

    @property
    def tokenizer_name(self) -> str:
        """Path of the model, by which the harness keeps requests."""
        return (self.model.path or self.model.name).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Source of the chat template that is used: the default one, or one by name."""
        if not chat_template:
            return None
        return self._tokenizer._template(None if chat_template is True else chat_template, None)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Text of a conversation; without the prompt for an answer it ends with the last message, which goes on."""
        text = self._tokenizer.render(chat_history, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        if last not in text:
            raise InvalidInput(f"the chat template of {self.model.name!r} does not show the last message as it is; it cannot go on")
        return text[: text.rindex(last) + len(last)]

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside the results: the model's identity and its steering."""
        return {"model_dtype": str(self.model.dtype), **self.model.identity, "steering": list(self.model.steering)}

    # ---- requests

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        prompts, continuations = [], []
        for text, context, continuation in requests:
            if not 0 < len(continuation) <= self.max_length:
                raise InvalidInput(
                    f"a continuation has {len(continuation)} tokens; at least 1 and at most {self.max_length}, the longest "
                    f"sequence, can be scored: {shown(text)}"
                )
            room = self.max_length + 1 - len(continuation)  # the last token is predicted and not read
            prompts.append(np.array(context[-room:], np.int32))
            continuations.append(np.array(continuation, np.int32))
        answers = []
        with progress_bar(not disable_tqdm, len(requests), "log-likelihoods", " texts") as report:
            scored = self.model._token_logprobs(prompts, continuations)
            for (text, *_, tokens), (logprobs, likeliest) in zip(requests, scored, strict=True):
                answers.append((float(logprobs.sum()), bool((likeliest == tokens).all())))
                if text is not None:
                    self.cache_hook.add_partial("loglikelihood", text, answers[-1])
                report(1)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in nats, each token with as much context as fits."""
        windows, ends = [], []
        for (text,) in (request.args for request in requests):
            rolling = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1)
            windows += [(None, *make_disjoint_window(window)) for window in rolling]
            ends.append(len(windows))
        scored = [answer for answer, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        totals = [sum(scored[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations of texts, each up to the first of its stop texts."""
        texts = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(i)
        with progress_bar(not disable_tqdm, len(requests), "generation", " texts") as report:
            for group in groups.values():
                until, new, options = self._options(requests[group[0]].args[1])
                stop: list[str | int] = [*filter(None, until), *self.model.end_tokens, self.eot_token_id]
                prompts: list[Prompt] = [self.model.tokens(requests[i].args[0])[-(self.max_length - new) :] for i in group]
                for part in spans(generation_costs(self.model, list(map(len, prompts)), new)):
                    made = self.model.generate(prompts[part], max_new_tokens=new, stop=stop, **options)
                    for i, one in zip(group[part], made, strict=True):
                        texts[i] = postprocess_generated_text(self._tokenizer.decode(one.tokens), until, None)
                        self.cache_hook.add_partial("generate_until", requests[i].args, texts[i])
                    report(len(made))
        return texts

    def _options(self, given: dict[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
        """(stop texts, most new tokens, options of Model.generate) of a task's generation_kwargs."""
        kwargs = dict(normalize_gen_kwargs(given, _MAX_GEN_TOKS))
        until = handle_stop_sequences(kwargs.pop("until"), eos=self._tokenizer.decode([self.eot_token_id], skip_special=False))
        new, sampled = kwargs.pop("max_gen_toks"), kwargs.pop("do_sample")
        if unknown := sorted(kwargs.keys() - _SAMPLING):
            raise InvalidInput(f"the task sets {unknown[0]}={shown(kwargs[unknown[0]])} for generation; known are {', '.join(_SAMPLING)}")
        if not 0 < new < self.max_length:
            raise InvalidInput(f"the task generates {new} tokens; with a prompt, at most {self.max_length - 1} fit the longest sequence")
        return until, new, kwargs if sampled else {}


def _vectors(files: str, model: Model) -> list[SteeringVector]:
    """The vectors of files joined by "+"."""
    found: list[SteeringVector] = []
    for file in files.split("+"):
        found += load_steered(file, model) if Path(file).suffix in (".pt", ".pth", ".csv") else load_vectors(file)
    return found


def _strong(vectors: list[SteeringVector], scale: float | None, relative: float | None) -> list[SteeringVector]:
    """The vectors at a strength."""
    if scale is not None and relative is not None:
        raise InvalidInput("scale and relative are both a strength; give one of them")
    if scale is not None:
        for vector in vectors:
            check_adds(vector, "given a scale")
        return [replace(v, scale=scale, calibration=None) for v in vectors]
    return vectors if relative is None else [v.relative(relative) for v in vectors]
