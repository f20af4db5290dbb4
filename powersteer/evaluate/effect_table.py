"""Records of effects: filters, tables, JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._util.atomic import read_text, write_text
from .._util.html import table
from .._util.json_records import record
from ..errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    import pandas

__all__ = ["Effect", "Effects", "counted", "push", "strength"]

_PUSH = ("prompt", "source", "site", "sign")  # fields that an effect shares with those of random vectors, with its strength
FORMAT = "powersteer-effects-1"
_PARTS = ("effects", "random", "base")
_SHOWN = 40  # records in a notebook


@dataclass(frozen=True)
class Effect:
    """Effect of one vector with one sign and scale on one prompt. NaN where there is nothing to measure.

    Attributes
    ----------
    source, site
        Layer and site at which the vector is added.
    target
        Layer, "next_token" or "logits"; the method of a vector without a target; "random" or "base".
    rank
        Singular rank, 0 if the vector has none; of random vectors the draw.
    sign, scale, norm, budget
        +1 or -1; fraction of the site's mean activation norm; length that is added; the KL that the scale was found for, in
        nats, None for a given scale.
    prompt, vector
        Indices into the prompts and the vectors; -1 for random vectors and the base.
    kl_end, kl_continuation
        KL(base || steered) in nats: of the next token at the prompt's end; mean per token along the base continuation.
    linearity
        |dF - J delta| / |dF| at the vector's own target, as `powersteer.evaluate.linearity`.
    logit_change
        By token: the difference of its logit at the prompt's end, minus the mean difference over the vocabulary.
    text, score
        The steered continuation, and its score.
    repetition, compression
        Share of 4-grams of its tokens that occurred before, and zlib's ratio, as `powersteer.evaluate.repetition`.
    perplexity
        Of the continuation under the base model.
    samples, sample_scores
        Steered continuations drawn at a temperature, and their scores.

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> effect = next(iter(ps.effects(model, prompt, vec, scales=0.5, max_new_tokens=0, n_random=0)))
    >>> effect.source, effect.target, effect.sign, effect.scale
    (1, 3, 1, 0.5)
    """

    source: int
    site: str
    target: int | str
    rank: int
    sign: int
    scale: float
    norm: float
    prompt: int
    kl_end: float
    kl_continuation: float
    linearity: float
    logit_change: dict[str, float]
    text: str
    repetition: float
    compression: float
    perplexity: float
    score: float | None
    vector: int
    samples: tuple[str, ...] = ()
    sample_scores: tuple[float, ...] = ()
    budget: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """A table of effects, made by `powersteer.effects`. Iterating and indexing give the records of the vectors.

    Attributes
    ----------
    effects, random, base
        Records of the vectors; of random vectors at the same sites and norms; one record without steering per prompt.
    prompts
        Texts of the prompts.
    settings
        Arguments of the call and the model: "model", "weights", "scales", "signs", "max_new_tokens", "tokens", "random"
        (n_random), "seed", "titles", "temperature", "samples", "kl" (the budgets, or None), "positions", "unreached"
        (number of vectors, signs and budgets that are left out, because no scale reaches the budget).

    Examples
    --------
    >>> import powersteer as ps
    >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
    >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
    >>> ps.effects(model, prompt, vec, max_new_tokens=0, n_random=2)
    Effects(4 of 1 vector on 1 prompt, 8 of random vectors; scales [0.35, 1.0], signs [1, -1])
    """

    effects: tuple[Effect, ...]
    random: tuple[Effect, ...]
    base: tuple[Effect, ...]
    prompts: tuple[str, ...]
    settings: dict[str, Any]

    def __iter__(self) -> Iterator[Effect]:
        return iter(self.effects)

    def __len__(self) -> int:
        return len(self.effects)

    def __getitem__(self, index: int) -> Effect:
        return self.effects[index]

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in Effect.__dataclass_fields__:
                raise AttributeError(
                    f"Effects is a table of {len(self.effects)} records, and each of them has its own {name}: write "
                    f"effects[0].{name}, or ps.evaluate.summary([e.{name} for e in effects.where(sign=1)], unit) for a mean"
                )
            raise AttributeError(f"Effects has no attribute {name!r}")

    def where(self, **conditions: Any) -> Effects:
        """The records that fulfil all conditions.

        Parameters
        ----------
        **conditions
            Field of `Effect`=value, =[values], or =function of the value that returns a bool.

        Returns
        -------
        Effects
            Of the random vectors, the records that agree in prompt, source, site, sign, scale and norm, or of budgets in
            prompt, source, site, sign and budget; of the base, those of the prompt.

        Raises
        ------
        InvalidInput
            For a name that is not a field.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompts = ps.load("demo"), ["Task: 3 * 4 =", "Task: 7 * 8 ="]
        >>> vec = model.jacobian(prompts, 1, 3).svd(k=1).vectors[0]
        >>> effects = ps.effects(model, prompts, vec, max_new_tokens=0, n_random=2)
        >>> len(effects), len(effects.where(prompt=0, scale=[0.35])), len(effects.where(kl_end=lambda nats: nats < 0))
        (8, 2, 0)
        """
        names = [f.name for f in fields(Effect)]
        if unknown := conditions.keys() - set(names):
            raise InvalidInput(f"where: an effect has no {min(unknown)!r}; it has {names}")

        def matching(records: Sequence[Effect], names: Sequence[str]) -> tuple[Effect, ...]:
            known = [(name, wanted) for name, wanted in conditions.items() if name in names]
            return tuple(e for e in records if all(_agrees(getattr(e, name), wanted) for name, wanted in known))

        shared = (*_PUSH, "budget") if self.settings.get("kl") else (*_PUSH, "scale", "norm")
        effects, random, base = matching(self.effects, names), matching(self.random, shared), matching(self.base, ["prompt"])
        return replace(self, effects=effects, random=random, base=base)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The records of the vectors as dicts, one for each.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
        >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
        >>> rows = ps.effects(model, prompt, vec, scales=0.5, signs=-1, max_new_tokens=0, n_random=0).to_dicts()
        >>> [row["sign"] for row in rows]
        [-1]
        """
        return [asdict(e) for e in self.effects]

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for every record.

        Returns
        -------
        pandas.DataFrame
            With the records of random vectors and of the base, whose `target` is "random" and "base"; a column
            "logit_change[token]" for every followed token.

        Raises
        ------
        MissingDependency
            Without pandas.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
        >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
        >>> frame = ps.effects(model, prompt, vec, max_new_tokens=0, tokens="7", n_random=2).to_pandas()
        >>> len(frame), "logit_change[7]" in frame
        (13, True)
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependency("to_pandas needs pandas: pip install 'powersteer[tables]'") from None
        rows = [asdict(effect) for effect in self.base + self.effects + self.random]
        for row in rows:
            row.update({f"logit_change[{t}]": x for t, x in row.pop("logit_change").items()})
        return pandas.DataFrame(rows)

    def to_json(self) -> str:
        """The effects as JSON, NaN as null. Equal effects give equal texts.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
        >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
        >>> ps.effects(model, prompt, vec, max_new_tokens=0, n_random=0).to_json()[:33]
        '{"format": "powersteer-effects-1"'
        """
        parts = {name: [_plain(asdict(e)) for e in getattr(self, name)] for name in _PARTS}
        whole = {"format": FORMAT, "settings": self.settings, "prompts": list(self.prompts), **parts}
        return json.dumps(whole, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Effects:
        """Read the text that `to_json` returns. Raises InvalidInput for any other text.

        Examples
        --------
        >>> import powersteer as ps
        >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
        >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
        >>> effects = ps.effects(model, prompt, vec, max_new_tokens=0, n_random=0)
        >>> ps.Effects.from_json(effects.to_json()).to_dicts()[0]["norm"] == effects.effects[0].norm
        True
        """
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise ValueError(f"its format is {whole['format']!r}")
            parts = {name: tuple(_effect(e) for e in whole[name]) for name in _PARTS}
            prompts, settings = tuple(whole["prompts"]), dict(whole["settings"])
            known = all(isinstance(p, str) for p in prompts) and {"scales", "signs"} <= set(settings)
            if not known or not all(0 <= e.prompt < len(prompts) for part in parts.values() for e in part):
                raise ValueError("prompts, scales or signs are missing")
            return cls(prompts=prompts, settings=settings, **parts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"cannot read effects of this version of powersteer: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the effects as JSON. The file is complete or, after an error, unchanged.

        Examples
        --------
        >>> import powersteer as ps, pathlib, tempfile
        >>> model, prompt = ps.load("demo"), "Task: 3 * 4 ="
        >>> vec = model.jacobian(prompt, 1, 3).svd(k=1).vectors[0]
        >>> effects = ps.effects(model, prompt, vec, max_new_tokens=0, n_random=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     effects.save(pathlib.Path(folder, "effects.json"))
        ...     len(ps.Effects.load(pathlib.Path(folder, "effects.json")))
        4
        """
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Effects:
        """Read a file of `save`.

        Raises
        ------
        NotFound
            Without the file.
        InvalidInput
            For a file of other content.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.Effects.load("missing.json")
        Traceback (most recent call last):
        powersteer.errors.NotFound: there is no file 'missing.json'
        """
        if not Path(path).is_file():
            raise NotFound(f"there is no file {str(path)!r}")
        return cls.from_json(read_text(path))

    def __repr__(self) -> str:
        vectors = counted(len({e.vector for e in self.effects}), "vector")
        budgets = self.settings.get("kl")
        strengths = f"KL {budgets} nats" if budgets else f"scales {self.settings['scales']}"
        left = f" ({n} left out that do not reach it)" if (n := self.settings.get("unreached")) else ""
        return (
            f"Effects({len(self.effects)} of {vectors} on {counted(len(self.base), 'prompt')}, {len(self.random)} of random "
            f"vectors{left}; {strengths}, signs {self.settings['signs']})"
        )

    def _repr_html_(self) -> str:
        header = ("source", "target", "rank", "scale", "prompt", "KL", "linearity", "repetition", "perplexity", "score", "text")
        rows = [
            (f"{e.source} {e.site}", e.target, e.rank, f"{e.sign * e.scale:+.4g}", e.prompt, f"{e.kl_end:.3g}",
             *("" if x is None or math.isnan(x) else f"{x:.3g}" for x in (e.linearity, e.repetition, e.perplexity, e.score)),
             e.text)
            for e in self.effects[:_SHOWN]
        ]  # fmt: skip
        more = len(self.effects) - len(rows)
        return table(header, rows, f"{self!r}{f'; {more} more not shown' if more else ''}")


def strength(effect: Effect) -> float:
    """What the scale was asked for: the budget, or the scale itself."""
    return effect.scale if effect.budget is None else effect.budget


def push(effect: Effect) -> tuple[Any, ...]:
    """What an effect shares with those of the random vectors it is compared with."""
    shared = (effect.scale, effect.norm) if effect.budget is None else (effect.budget,)
    return (*(getattr(effect, name) for name in _PUSH), *shared)


def counted(n: int, noun: str) -> str:
    """"1 prompt", "2 prompts"."""
    return f"{n} {noun}{'s' * (n != 1)}"


def _agrees(value: Any, wanted: Any) -> bool:
    if callable(wanted):
        return bool(wanted(value))
    return value in wanted if isinstance(wanted, (list, tuple, set, frozenset, range)) else bool(value == wanted)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}


def _effect(data: Any) -> Effect:
    floats = {f.name for f in fields(Effect) if f.type == "float"}
    filled = {k: math.nan if v is None and k in floats else v for k, v in data.items()} if isinstance(data, dict) else data
    return record(Effect, filled)
