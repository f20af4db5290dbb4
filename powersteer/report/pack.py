"""Page data as binary blocks: columns of numbers by view, and texts by view and source.

The browser decodes a block of columns as a few typed arrays on one buffer, where a hundred thousand JSON objects would take
seconds; texts are only unpacked when they are shown. A block of columns is

    length of the header, 8 bytes | header, JSON: {name: [type, first byte, number of entries]} | the columns

little-endian, every part at a multiple of 8 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks"]

Block = tuple[str, bytes]
_IDENTITY = ("source", "site", "target", "rank", "sign", "scale", "norm", "prompt", "text", "logit_change", "vector",
             "samples", "sample_scores")  # fmt: skip


def blocks(page: Mapping[str, Any]) -> Iterator[Block]:
    """(name, bytes) of every block of checked page data, in the order of first use."""
    effects = [e for view in page["views"] for name in ("effects", "random") for e in view[name]]
    scales = sorted({float(x) for x in page["scales"]} | {float(e["scale"]) for e in effects})
    ranks = max((len(c["sigma"]) for view in page["views"] for c in view["cells"]), default=1)
    index = {name: page[name] for name in page if name != "views"}
    index |= {"scales": scales, "k": ranks, "pairs": page.get("pairs", _later(page))}
    index["views"] = [{"name": v["name"], "prompts": v["prompts"], "fields": list(_measured(v["effects"]))} for v in page["views"]]
    yield "index", _json(index)
    order = {"source": _indices(page["sources"]), "target": _indices(page["targets"]), "scale": _indices(scales)}
    texts = []
    for number, view in enumerate(page["views"]):
        cells = sorted(view["cells"], key=lambda c: (order["source"][c["source"]], order["target"][c["target"]]))
        place = _indices([(c["source"], c["target"]) for c in cells])

        def key(e: Mapping[str, Any], place: dict[Any, int] = place) -> tuple[Any, ...]:
            return place.get((e["source"], e["target"]), 0), e["rank"], e["prompt"], e["sign"], e["scale"]

        steered = sorted(view["effects"], key=key)
        random = sorted(view["random"], key=lambda e: (order["source"][e["source"]], key(e)))
        columns = {f"cells.{n}": a for n, a in _cell_columns(cells, order, ranks).items()}
        columns |= {f"effects.{n}": a for n, a in _effect_columns(steered, order).items()}
        columns |= {f"random.{n}": a for n, a in _effect_columns(random, order).items()}
        columns["effects.cell"] = np.array([place[e["source"], e["target"]] for e in steered], np.int32)
        yield f"view-{number}", _pack(columns)
        texts.append((number, steered, random))
    for number, steered, random in texts:
        yield from _text_blocks(number, steered, random, order["source"])


def _later(page: Mapping[str, Any]) -> list[Any]:
    """The possible pairs, for data without a list of them: later layers, the next token, and every pair with a cell."""
    later = [(s, t) for s in page["sources"] for t in page["targets"] if isinstance(t, str) or t > s]
    return list(dict.fromkeys(later + [(c["source"], c["target"]) for v in page["views"] for c in v["cells"]]))


def _cell_columns(cells: Sequence[Mapping[str, Any]], order: Mapping[str, dict[Any, int]], k: int) -> dict[str, NDArray[Any]]:
    padded = {name: np.full((len(cells), k), np.nan, np.float32) for name in ("sigma", "gain", "residual", "error")}
    cluster = np.full((len(cells), k), -1, np.int16)  # number of the cluster a rank belongs to
    for i, cell in enumerate(cells):
        for name, field in (("sigma", "sigma"), ("gain", "gain"), ("residual", "residuals"), ("error", "error")):
            values = cell.get(field) or ()
            padded[name][i, : len(values)] = _numbers(values)
        for number, ranks in enumerate(cell["clusters"]):
            cluster[i, list(ranks)] = number
    methods = ("krylov", "dense", "sketch", "power")
    return {
        **padded,
        "cluster": cluster,
        "source": np.array([order["source"][c["source"]] for c in cells], np.int16),
        "target": np.array([order["target"][c["target"]] for c in cells], np.int16),
        "method": np.array([methods.index(c["method"]) if c["method"] in methods else -1 for c in cells], np.int16),
        "converged": np.array([c["converged"] for c in cells], np.int8),
        "cluster_open": np.array([c["cluster_open"] for c in cells], np.int8),
        "applications": np.array([c["applications"] for c in cells], np.int32),
        "site_norm": _numbers([c["site_norm"] for c in cells]),
    }


def _effect_columns(effects: Sequence[Mapping[str, Any]], order: Mapping[str, dict[Any, int]]) -> dict[str, NDArray[Any]]:
    """Columns that identify an effect (source, rank, sign, ...), and a float32 column for every measure and logit."""
    columns: dict[str, NDArray[Any]] = {
        "source": np.array([order["source"][e["source"]] for e in effects], np.int16),
        "scale": np.array([order["scale"][float(e["scale"])] for e in effects], np.int16),
        "rank": np.array([e["rank"] for e in effects], np.int16),
        "sign": np.array([e["sign"] for e in effects], np.int8),
        "prompt": np.array([e["prompt"] for e in effects], np.int32),
        "norm": _numbers([e["norm"] for e in effects]),
    }
    return columns | {f"of.{name}": values for name, values in _measured(effects).items()}


def _measured(effects: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float32]]:
    """The measures that at least one effect has, by name."""
    names = dict.fromkeys(name for e in effects for name in e if name not in _IDENTITY)
    tokens = dict.fromkeys(token for e in effects for token in e.get("logit_change") or ())
    values: dict[str, list[Any]] = {name: [e.get(name) for e in effects] for name in names}
    values["sample_score"] = [fmean(scores) if (scores := e.get("sample_scores")) else None for e in effects]
    values |= {f"logit:{token}": [(e.get("logit_change") or {}).get(token) for e in effects] for token in tokens}
    columns = {name: _numbers(some).astype(np.float32) for name, some in values.items()}
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def _text_blocks(
    view: int, steered: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]], sources: Mapping[Any, int]
) -> Iterator[Block]:
    """The continuations of one source, in the order of the view's columns: [text, [[sample, score], ...]] of each."""
    for source, number in sources.items():
        texts = [[_texts(e) for e in effects if e["source"] == source] for effects in (steered, random)]
        if any(text or samples for of_kind in texts for text, samples in of_kind):
            yield f"text-{view}-{number}", _json(texts)


def _texts(effect: Mapping[str, Any]) -> tuple[str, list[Any]]:
    samples, scores = effect.get("samples") or (), effect.get("sample_scores") or ()
    return effect.get("text") or "", list(zip_longest(samples, scores))


def _pack(columns: Mapping[str, NDArray[Any]]) -> bytes:
    header, body, at = {}, [], 0
    for name, array in columns.items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = [array.dtype.str[1:], at, array.size]
        body.append(data + bytes(-len(data) % 8))
        at += len(body[-1])
    head = _json(header)
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(body)


def _indices(values: Sequence[Any]) -> dict[Any, int]:
    return {value: i for i, value in enumerate(values)}


def _numbers(values: Sequence[Any]) -> NDArray[Any]:
    """float64, NaN for None."""
    return np.array([math.nan if x is None else x for x in values], np.float64)


def _json(value: Any) -> bytes:
    """UTF-8; a lone surrogate becomes its JSON escape, NaN and infinities null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | type(None)) else str(value)
