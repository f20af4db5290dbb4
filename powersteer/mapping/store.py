"""Storage of an atlas: a folder that is a valid atlas at every moment, or memory.

    atlas.json                           the settings, written before anything is computed
    sketches/<group>-<source>.json       estimated singular values of all targets of a source
    cells/<group>-<source>-<targets>.safetensors
                                         the pairs of a unit of work: records as JSON in the metadata, `V.<target>` (k, d)
    effects/<group>-<source>.json        effects of the vectors of a source, if they were requested (powersteer.Effects)

<group> is the index of a group of prompts. Every file is written completely or not at all, and its content follows from
the settings: a second process working on the same folder writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from .._util.atomic import read_text, write_bytes, write_text
from .._util.json_records import record
from .._version import __version__
from ..errors import InvalidInput, NotFound
from .settings import Settings, Target

__all__ = ["Folder", "Pair", "Sketch", "Store", "WorkUnit", "json_name", "open_folder"]

Array = NDArray[Any]
FORMAT = "powersteer-atlas-1"
_GROUP = "view"  # key of `prompt_group` in files


@dataclass(frozen=True)
class WorkUnit:
    """The targets of one source that are computed together, of one group of prompts."""

    prompt_group: int
    source: int
    targets: tuple[Target, ...]

    @property
    def file(self) -> str:
        ends = "+".join(map(str, self.targets[:1] + self.targets[1:][-1:]))
        return f"cells/{self.prompt_group}-{self.source:03d}-{ends}.safetensors"


@dataclass(frozen=True)
class Pair:
    """The stored result of one layer pair: its leading singular values, with certificates.

    Attributes
    ----------
    prompt_group : int
        Index of the group of prompts, into `Atlas.prompt_groups()`.
    source, target : int or str
        Layers; target "next_token" is the Fisher target.
    method : str
        "krylov" or "dense".
    sigma, residuals : tuple of float
        Singular values, in target units per unit of the vector, descending, and the certificate of each (see `SVDResult`).
    converged : bool
        Whether every residual is at most the tolerance of the atlas.
    clusters, cluster_open, stop, missed_probability
        As in `SVDResult`; missed_probability is None in atlases of earlier versions.
    applications : int
        Products of J or its transpose with one vector; those of a dense Jacobian are shared by the targets of the source.
    site_norm : float
        Mean 2-norm of the source activation.
    base_norm : float or None
        2-norm of the target activation over all of its rows; None in atlases of earlier versions.

    Examples
    --------
    >>> pair = ps.atlas(model, "Task: 3 * 4 =", k=2, sources=[1], targets=[3]).pair(1, 3)
    >>> pair.source, pair.target, pair.converged
    (1, 3, True)
    """

    prompt_group: int
    source: int
    target: Target
    method: str
    sigma: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool
    clusters: tuple[tuple[int, ...], ...]
    cluster_open: bool
    applications: int
    stop: str
    site_norm: float
    base_norm: float | None = None
    missed_probability: float | None = None

    def _fits(self, k: int) -> bool:
        """Whether the fields fit each other and an atlas of k triplets."""
        ranks = {rank for cluster in self.clusters for rank in cluster}
        return 0 < len(self.sigma) == len(self.residuals) <= k and ranks <= set(range(len(self.sigma)))


@dataclass(frozen=True)
class Sketch:
    """Estimated leading singular values of one pair, with their standard errors.

    Attributes
    ----------
    prompt_group, source, target, site_norm, base_norm
        As in `Pair`.
    sigma, error : tuple of float
        Estimates, in target units per unit of the vector, and their standard errors.
    frobenius : float
        Estimated Frobenius norm of the Jacobian.

    Examples
    --------
    >>> atlas = ps.atlas(model, "Task: 3 * 4 =", sources=[1], targets=[3], method="sketch")
    >>> sketch = atlas.sketch(1, 3)
    >>> sketch.source, sketch.target, len(sketch.sigma) == len(sketch.error)
    (1, 3, True)
    """

    prompt_group: int
    source: int
    target: Target
    sigma: tuple[float, ...]
    error: tuple[float, ...]
    frobenius: float
    site_norm: float
    base_norm: float

    def _fits(self, k: int) -> bool:
        """As for a Pair."""
        return 0 < len(self.sigma) == len(self.error) <= k


def json_name(kind: str, group: int, source: int) -> str:
    """Name of the sketches or effects of a source."""
    return f"{kind}/{group}-{source:03d}.json"


class Store:
    """Storage in this process: pairs by unit of work, and texts by name: JSON of sketches and effects (see `json_name`)."""

    path: Path | None = None
    origin: dict[str, Any] = {}

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pairs: dict[tuple[int, int, Target], tuple[Pair, Array]] = {}
        self._texts: dict[str, str] = {}

    def there(self, group: int, source: int) -> set[Target]:
        """The targets of a source whose pairs are stored, of a group of prompts."""
        return {t for g, s, t in self._pairs if (g, s) == (group, source)}

    def put(self, unit: WorkUnit, pairs: Sequence[Pair], vectors: Sequence[Array]) -> None:
        self._pairs |= {(p.prompt_group, p.source, p.target): (p, V) for p, V in zip(pairs, vectors, strict=True)}

    def pairs(self) -> list[Pair]:
        return [pair for pair, _ in self._pairs.values()]

    def vectors(self, pair: Pair) -> Array:
        """(k, d), the right singular vectors."""
        return self._pairs[pair.prompt_group, pair.source, pair.target][1]

    def put_text(self, name: str, text: str) -> None:
        self._texts[name] = text

    def text(self, name: str) -> str | None:
        return self._texts.get(name)

    def put_sketches(self, group: int, source: int, sketches: Sequence[Sketch]) -> None:
        self.put_text(json_name("sketches", group, source), self._to_json("sketches", sketches))

    def sketches(self) -> list[Sketch]:
        names = [json_name("sketches", g, source) for g in range(len(self.settings.groups)) for source in self.settings.sources]
        texts = {(self.path or Path()) / name: text for name in names if (text := self.text(name)) is not None}
        return [s for file, text in texts.items() for s in self._records(file, text, "sketches", Sketch)]

    def _to_json(self, key: str, items: Sequence[Pair | Sketch]) -> str:
        records = [{_GROUP if name == "prompt_group" else name: value for name, value in asdict(r).items()} for r in items]
        return json.dumps({"settings": self.settings.hash, key: records})

    def _records(self, file: Path, text: str, key: str, kind: type[Any]) -> list[Any]:
        try:
            data = json.loads(text)
            if data["settings"] != self.settings.hash:
                raise InvalidInput(f"{str(file)!r} belongs to an atlas of other settings; move it out of the folder")
            records = [record(kind, {"prompt_group" if k == _GROUP else k: v for k, v in item.items()}) for item in data[key]]
        except InvalidInput:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(file, error) from None
        for r in records:
            known = r.prompt_group in range(len(self.settings.groups)) and r.source in self.settings.sources
            if not known or r.target not in self.settings.targets or not r._fits(self.settings.k):
                raise self._damaged(file, f"group {r.prompt_group}, {r.source} -> {r.target} does not agree with the settings")
        return records

    @staticmethod
    def _damaged(file: Path, reason: object) -> InvalidInput:
        return InvalidInput(f"{str(file)!r} is damaged ({reason}); delete it, and resume to compute it again")


class Folder(Store):
    """Storage in a folder, in the files listed at the top of this module. Returned by `open_folder`."""

    path: Path

    def __init__(self, path: Path, settings: Settings, origin: dict[str, Any]) -> None:
        super().__init__(settings)
        self.path, self.origin = path, origin

    def there(self, group: int, source: int) -> set[Target]:
        targets = self.settings.targets_of(source)
        index, found = {str(t): i for i, t in enumerate(targets)}, set[Target]()
        for file in self.path.glob(f"cells/{group}-{source:03d}-*.safetensors"):
            first, *_, last = file.stem.split("-", 2)[2].split("+") * 2  # the names of one target, or of two
            if first in index and last in index:
                found |= {*targets[index[first] : index[last] + 1]}
        return found

    def put(self, unit: WorkUnit, pairs: Sequence[Pair], vectors: Sequence[Array]) -> None:
        tensors = {f"V.{p.target}": np.ascontiguousarray(V) for p, V in zip(pairs, vectors, strict=True)}
        self._write(unit.file, safetensors.numpy.save(tensors, metadata={FORMAT: self._to_json("cells", pairs)}))

    def put_text(self, name: str, text: str) -> None:
        self._write(name, text.encode())

    def text(self, name: str) -> str | None:
        file = self.path / name
        return read_text(file) if file.exists() else None

    def _write(self, name: str, data: bytes) -> None:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        write_bytes(file, data)

    def pairs(self) -> list[Pair]:
        return [pair for file in sorted(self.path.glob("cells/*.safetensors")) for pair in self._read_pairs(file)]

    def _read_pairs(self, file: Path) -> list[Pair]:
        try:
            with safetensors.safe_open(file, framework="numpy") as f:
                text = (f.metadata() or {}).get(FORMAT, "")
        except safetensors.SafetensorError as error:
            raise self._damaged(file, error) from None
        return self._records(file, text, "cells", Pair)

    def vectors(self, pair: Pair) -> Array:
        for file in self.path.glob(f"cells/{pair.prompt_group}-{pair.source:03d}-*.safetensors"):
            try:
                with safetensors.safe_open(file, framework="numpy") as f:
                    V: Array | None = f.get_tensor(f"V.{pair.target}") if f"V.{pair.target}" in f.keys() else None  # noqa: SIM118
            except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
                raise self._damaged(file, error) from None
            if V is not None:
                if V.shape != (len(pair.sigma), self.settings.model["d_model"]) or V.dtype != self.settings.dtype:
                    raise self._damaged(file, f"V.{pair.target} is {V.dtype} of shape {V.shape}")
                return V
        raise NotFound(f"{str(self.path)!r}: the vectors of {pair.source} -> {pair.target} are missing")


def open_folder(
    path: Path, settings: Settings | None = None, origin: dict[str, Any] | None = None, resume: bool = True
) -> Folder:
    """Open the atlas in a folder, or start one there. settings None: those of the folder. Raises InvalidInput where the
    folder holds an atlas of other settings, naming them. origin: where the model came from; no number depends on it."""
    file = path / "atlas.json"
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"{str(path)!r} is a file; an atlas is a folder, so give another name")
    if file.exists():
        try:
            data = json.loads(read_text(file))
            if data["format"] != FORMAT:
                raise InvalidInput(f"its format is {data['format']!r}, and this is powersteer {__version__}")
            there, came_from = Settings.from_json(data["settings"]), data["origin"]
            if not isinstance(came_from, dict) or not isinstance(came_from.get("path"), (str, type(None))):
                raise ValueError(f"origin is {came_from!r:.80}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{str(file)!r} cannot be read as an atlas: {error}") from None
        if settings is None or settings == there:
            if settings is not None and not resume:
                raise InvalidInput(f"{str(path)!r} holds this atlas already; give resume=True or another folder")
            return Folder(path, there, came_from)
        changes = "; ".join(settings.differences(there))
        raise InvalidInput(f"{str(path)!r} holds an atlas of other settings: {changes}. Give another folder")
    if settings is None:
        raise NotFound(f"there is no atlas in {str(path)!r}: it has no atlas.json")
    path.mkdir(parents=True, exist_ok=True)
    origin = {**(origin or {}), "version": __version__}
    write_text(file, json.dumps({"format": FORMAT, "origin": origin, "settings": settings.to_json()}, indent=1))
    return Folder(path, settings, origin)
