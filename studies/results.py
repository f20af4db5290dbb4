"""The folder of a study: what is computed is there once, written whole, so that a run goes on where another stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import powersteer as ps
from powersteer._util.atomic import atomic_writer, write_text

__all__ = ["Missing", "Results", "fingerprint", "metric", "settings_of", "sha256"]


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def fingerprint(path: str | Path, model: ps.Model) -> str:
    """SHA-256 of a model's file; of a folder's or of the built-in model its own fingerprint of the weights."""
    return sha256(path) if Path(path).is_file() else model.identity["weights"]


def settings_of(path: str | Path, model: ps.Model, sizes: Any) -> dict[str, Any]:
    """What the results of a study with these sizes depend on."""
    return {"model": Path(path).name, "SHA-256": fingerprint(path, model), "powersteer": ps.__version__, "sizes": asdict(sizes)}


class Missing(LookupError):
    """A result that is not in the folder, of a study that only reads."""


class Results:
    """A folder of results under keys. `settings` are what they depend on: a folder of other settings is refused. With
    `reads_only`, nothing is computed: a folder without results is refused, and `Missing` is raised for what is not there."""

    def __init__(self, folder: str | Path, settings: dict[str, Any], reads_only: bool = False) -> None:
        self.folder, self.reads_only = Path(folder), reads_only
        if reads_only and not self._path("settings", ".json").exists():
            raise SystemExit(f"{folder} holds no results of a study")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._read: dict[str, list[ps.SteeringVector]] = {}
        self.settings = self.once("settings", lambda: settings)
        if self.settings != json.loads(json.dumps(settings)):
            differ = sorted(k for k in {*settings, *self.settings} if settings.get(k) != self.settings.get(k))
            raise SystemExit(f"{self.folder} holds results of other settings ({', '.join(differ)}); give another --out")

    @classmethod
    def of(cls, folder: str | Path) -> Results:
        """The results that a study has kept in a folder, to be read only."""
        path = Path(folder) / "settings.json"
        return cls(folder, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, reads_only=True)

    def has(self, key: str) -> bool:
        """Whether a value is kept under the key."""
        return self._path(key, ".json").exists()

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """What is kept under the key, or else what `compute` returns (a JSON value), which is then kept."""
        path = self._path(key, ".json")
        if not path.exists():
            self._may_compute(key)
            write_text(path, json.dumps(compute(), ensure_ascii=False))
        return json.loads(path.read_text(encoding="utf-8"))

    def vectors(self, key: str, compute: Callable[[], Sequence[ps.SteeringVector]]) -> list[ps.SteeringVector]:
        """The same for vectors; there may be none."""
        path, count = self._path(key, ".safetensors"), self._path(key, ".count.json")
        if not count.exists():
            self._may_compute(key)
            found = list(compute())
            if found:
                ps.save_vectors(path, found)
            write_text(count, json.dumps(len(found)))
        if key not in self._read:
            self._read[key] = ps.load_vectors(path) if json.loads(count.read_text()) else []
        return list(self._read[key])

    def _may_compute(self, key: str) -> None:
        if self.reads_only:
            raise Missing(key)

    def array(self, key: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The same for an array of numbers."""
        path = self._path(key, ".npy")
        if not path.exists():
            self._may_compute(key)
            array = compute()  # before the file: another process may read it
            with atomic_writer(path) as file:
                np.save(file, array)
        return np.load(path)

    def _path(self, key: str, ending: str) -> Path:
        return self.folder / (re.sub(r"[^A-Za-z0-9_.+-]+", "_", key) + ending)


def metric(values: Sequence[float], unit: str) -> ps.MetricResult:
    """Mean over items with its interval, from the values that were kept."""
    return ps.evaluate.summary(values, unit)
