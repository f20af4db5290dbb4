"""JSON objects from files that are not trusted: bounded in size, with distinct keys."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import BadCheckpoint, NotFound

__all__ = ["parse_json_object", "read_json"]

_MAX_JSON = 64 << 20  # bytes


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises NotFound, or BadCheckpoint if it is not one object with distinct keys."""
    try:
        size = path.stat().st_size
        if size > _MAX_JSON:
            raise BadCheckpoint(f"{path} has {size} bytes, too many for a JSON file of a checkpoint; download it again")
        text = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no {path.name} in {path.parent}; is this the folder of a checkpoint?") from None
    return parse_json_object(text, str(path))


def parse_json_object(text: bytes, where: str) -> dict[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise BadCheckpoint(f"{where} has the key {twice!r} twice; the file is damaged or hostile")
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=distinct)
    except BadCheckpoint:
        raise
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{where} is not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{where} is not a JSON object; download it again")
    return value
