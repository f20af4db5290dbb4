"""The folder of a study: what is computed is there once, written whole, so that a run goes on where another stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import powersteer as ps
from powersteer._util.atomic import write_text

__all__ = ["Results", "metric", "sha256"]


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Results:
    """A folder of results under keys. `settings` are what they depend on: a folder of other settings is refused."""

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = self.once("settings", lambda: settings)
        if self.settings != json.loads(json.dumps(settings)):
            differ = sorted(k for k in {*settings, *self.settings} if settings.get(k) != self.settings.get(k))
            raise SystemExit(f"{self.folder} holds results of other settings ({', '.join(differ)}); give another --out")

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """What is kept under the key, or else what `compute` returns (a JSON value), which is then kept."""
        path = self._path(key, ".json")
        if not path.exists():
            write_text(path, json.dumps(compute(), ensure_ascii=False))
        return json.loads(path.read_text(encoding="utf-8"))

    def vectors(self, key: str, compute: Callable[[], Sequence[ps.SteeringVector]]) -> list[ps.SteeringVector]:
        """The same for vectors; there may be none."""
        path, count = self._path(key, ".safetensors"), self._path(key, ".count.json")
        if not count.exists():
            found = list(compute())
            if found:
                ps.save_vectors(path, found)
            write_text(count, json.dumps(len(found)))
        return ps.load_vectors(path) if json.loads(count.read_text()) else []

    def _path(self, key: str, ending: str) -> Path:
        return self.folder / (re.sub(r"[^A-Za-z0-9_.+-]+", "_", key) + ending)


def metric(values: Sequence[float], unit: str) -> ps.MetricResult:
    """Mean over items with its interval, from the values that were kept."""
    return ps.evaluate.summary(values, unit)
