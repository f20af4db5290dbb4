"""Where an atlas keeps what is computed: a folder that is a valid atlas at every moment, or memory.

    atlas.json                          the settings, written before anything is computed
    sketches/<view>-<source>.json       singular values of all targets of a source, estimated
    cells/<view>-<source>-<targets>.safetensors
                                        cells of a unit of work: records as JSON in the metadata, `V.<target>` (k, d)
    effects/<view>-<source>.json        what the vectors of a source do, if it was asked for (powersteer.Effects)

Every file is written whole or not at all, and its content follows from the settings: a second process working on the
same folder writes the same bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
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

__all__ = ["Cell", "Folder", "Memory", "Sketch", "Store", "WorkUnit", "open_folder"]

Array = NDArray[Any]
FORMAT = "powersteer-atlas-1"


@dataclass(frozen=True)
class WorkUnit:
    """What is computed at a time: targets of one source, in one view."""

    view: int
    source: int
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        return f"{self.view}-{self.source:03d}-" + "+".join(map(str, self.targets[:1] + self.targets[1:][-1:]))


@dataclass(frozen=True)
class Cell:
    """One pair: its singular values and what they are worth. Fields as in SVDResult."""

    view: int
    source: int
    target: Target
    method: str  # "krylov" | "dense"
    sigma: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: bool
    clusters: tuple[tuple[int, ...], ...]
    cluster_open: bool
    applications: int  # of J or its transpose to one vector; dense ones are shared by the targets of the source
    stop: str
    site_norm: float  # mean 2-norm of the source activation
    base_norm: float | None = None  # of the target activation, 2-norm over all rows; None in files of earlier versions
    missed_probability: float | None = None  # None: computed by a version that did not bound it

    def whole(self, k: int) -> bool:
        """Whether its parts fit each other and an atlas of k triplets."""
        ranks = {rank for cluster in self.clusters for rank in cluster}
        return 0 < len(self.sigma) == len(self.residuals) <= k and ranks <= set(range(len(self.sigma)))


@dataclass(frozen=True)
class Sketch:
    """Estimated leading singular values of one pair, with their standard errors."""

    view: int
    source: int
    target: Target
    sigma: tuple[float, ...]
    error: tuple[float, ...]
    frobenius: float  # estimate of the norm of the whole Jacobian
    site_norm: float
    base_norm: float  # of the target activation that the Jacobian moves, 2-norm over its rows

    def whole(self, k: int) -> bool:
        """As of a Cell."""
        return 0 < len(self.sigma) == len(self.error) <= k


class Store(ABC):
    """Cells and sketches, by unit and by (view, source)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def has(self, unit: WorkUnit) -> bool: ...
    @abstractmethod
    def put(self, unit: WorkUnit, cells: Sequence[Cell], vectors: Sequence[Array]) -> None: ...
    @abstractmethod
    def sketched(self, view: int, source: int) -> bool: ...
    @abstractmethod
    def put_sketches(self, view: int, source: int, sketches: Sequence[Sketch]) -> None: ...
    @abstractmethod
    def cells(self) -> list[Cell]: ...
    @abstractmethod
    def sketches(self) -> list[Sketch]: ...
    @abstractmethod
    def vectors(self, cell: Cell) -> Array:
        """(k, d), the right singular vectors."""

    @abstractmethod
    def put_effects(self, view: int, source: int, text: str) -> None: ...
    @abstractmethod
    def effects(self, view: int, source: int) -> str | None: ...


class Memory(Store):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._units: set[WorkUnit] = set()
        self._cells: dict[tuple[int, int, Target], tuple[Cell, Array]] = {}
        self._sketches: dict[tuple[int, int], Sequence[Sketch]] = {}
        self._effects: dict[tuple[int, int], str] = {}

    def has(self, unit: WorkUnit) -> bool:
        return unit in self._units

    def put(self, unit: WorkUnit, cells: Sequence[Cell], vectors: Sequence[Array]) -> None:
        self._units.add(unit)
        self._cells |= {(c.view, c.source, c.target): (c, V) for c, V in zip(cells, vectors, strict=True)}

    def sketched(self, view: int, source: int) -> bool:
        return (view, source) in self._sketches

    def put_sketches(self, view: int, source: int, sketches: Sequence[Sketch]) -> None:
        self._sketches[view, source] = sketches

    def cells(self) -> list[Cell]:
        return [cell for cell, _ in self._cells.values()]

    def sketches(self) -> list[Sketch]:
        return [sketch for some in self._sketches.values() for sketch in some]

    def vectors(self, cell: Cell) -> Array:
        return self._cells[cell.view, cell.source, cell.target][1]

    def put_effects(self, view: int, source: int, text: str) -> None:
        self._effects[view, source] = text

    def effects(self, view: int, source: int) -> str | None:
        return self._effects.get((view, source))


class Folder(Store):
    """See the head of this module. Made by `open_folder`."""

    def __init__(self, path: Path, settings: Settings, origin: dict[str, Any]) -> None:
        super().__init__(settings)
        self.path, self.origin = path, origin

    def _cell_file(self, unit: WorkUnit) -> Path:
        return self.path / "cells" / f"{unit.name}.safetensors"

    def _sketch_file(self, view: int, source: int) -> Path:
        return self.path / "sketches" / f"{view}-{source:03d}.json"

    def has(self, unit: WorkUnit) -> bool:
        return self._cell_file(unit).exists()

    def put(self, unit: WorkUnit, cells: Sequence[Cell], vectors: Sequence[Array]) -> None:
        data = {"settings": self.settings.hash, "cells": [asdict(c) for c in cells]}
        tensors = {f"V.{c.target}": np.ascontiguousarray(V) for c, V in zip(cells, vectors, strict=True)}
        file = self._cell_file(unit)
        file.parent.mkdir(exist_ok=True)
        write_bytes(file, safetensors.numpy.save(tensors, metadata={FORMAT: json.dumps(data)}))

    def sketched(self, view: int, source: int) -> bool:
        return self._sketch_file(view, source).exists()

    def put_sketches(self, view: int, source: int, sketches: Sequence[Sketch]) -> None:
        file = self._sketch_file(view, source)
        file.parent.mkdir(exist_ok=True)
        data = {"settings": self.settings.hash, "sketches": [asdict(s) for s in sketches]}
        write_text(file, json.dumps(data))

    def cells(self) -> list[Cell]:
        return [cell for file in sorted(self.path.glob("cells/*.safetensors")) for cell in self._read_cells(file)]

    def sketches(self) -> list[Sketch]:
        files = sorted(self.path.glob("sketches/*.json"))
        return [s for f in files for s in self._records(f, read_text(f), "sketches", Sketch)]

    def _read_cells(self, file: Path) -> list[Cell]:
        try:
            with safetensors.safe_open(file, framework="numpy") as f:
                text = (f.metadata() or {}).get(FORMAT, "")
        except safetensors.SafetensorError as error:
            raise self._damaged(file, error) from None
        return self._records(file, text, "cells", Cell)

    def _records(self, file: Path, text: str, key: str, kind: type[Any]) -> list[Any]:
        try:
            data = json.loads(text)
            if data["settings"] != self.settings.hash:
                raise InvalidInput(f"{str(file)!r} belongs to an atlas of other settings; move it out of the folder")
            records = [record(kind, item) for item in data[key]]
        except InvalidInput:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(file, error) from None
        for r in records:
            known = r.view in range(len(self.settings.groups)) and r.source in self.settings.sources
            if not known or r.target not in self.settings.targets or not r.whole(self.settings.k):
                raise self._damaged(file, f"its {r.view}, {r.source} -> {r.target} is not what the settings say")
        return records

    def vectors(self, cell: Cell) -> Array:
        for file in self.path.glob(f"cells/{cell.view}-{cell.source:03d}-*.safetensors"):
            try:
                with safetensors.safe_open(file, framework="numpy") as f:
                    if f"V.{cell.target}" in f.keys():  # noqa: SIM118  # not a dict
                        V: Array = f.get_tensor(f"V.{cell.target}")
                        if V.shape != (len(cell.sigma), self.settings.model["d_model"]) or V.dtype != self.settings.dtype:
                            raise self._damaged(file, f"V.{cell.target} is {V.dtype} of shape {V.shape}")
                        return V
            except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
                raise self._damaged(file, error) from None
        raise NotFound(f"{str(self.path)!r}: the vectors of {cell.source} -> {cell.target} are gone")

    def _effects_file(self, view: int, source: int) -> Path:
        return self.path / "effects" / f"{view}-{source:03d}.json"

    def put_effects(self, view: int, source: int, text: str) -> None:
        file = self._effects_file(view, source)
        file.parent.mkdir(exist_ok=True)
        write_text(file, text)

    def effects(self, view: int, source: int) -> str | None:
        file = self._effects_file(view, source)
        return read_text(file) if file.exists() else None

    @staticmethod
    def _damaged(file: Path, reason: object) -> InvalidInput:
        return InvalidInput(f"{str(file)!r} is damaged ({reason}); delete it, and resume to compute it again")


def open_folder(
    path: Path, settings: Settings | None = None, origin: dict[str, Any] | None = None, resume: bool = True
) -> Folder:
    """The atlas in a folder. settings None: as it is there. Else it is made if there is none, and refused if it is of
    other settings, naming them. origin: where the model came from, of no influence on numbers."""
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
                raise ValueError("its origin is no path")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{str(file)!r} cannot be read as an atlas: {error}") from None
        if settings is None or settings == there:
            if settings is not None and not resume:
                raise InvalidInput(f"{str(path)!r} holds this atlas already; resume=True, or another folder")
            return Folder(path, there, came_from)
        changes = "; ".join(settings.differences(there))
        raise InvalidInput(f"{str(path)!r} holds an atlas of other settings: {changes}. Give another folder")
    if settings is None:
        raise NotFound(f"there is no atlas in {str(path)!r}: it has no atlas.json")
    path.mkdir(parents=True, exist_ok=True)
    origin = {**(origin or {}), "version": __version__}
    write_text(file, json.dumps({"format": FORMAT, "origin": origin, "settings": settings.to_json()}, indent=1))
    return Folder(path, settings, origin)
