"""Vector files of the `steered` model of lm-evaluation-harness: PyTorch files of one direction for each hooked module.

An entry acts on the output of a module of a transformers model, named below its base model ("layers.3.mlp"), at every
position: "add" adds steering_coefficient times the vector, "clamp" sets the coefficient along it, measured from a bias. The
module's output is a site, or the site divided by the residual multiplier of the family. PyTorch reads and writes the files,
and no code in them is run.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .._util.atomic import write_bytes
from ..errors import InvalidInput, NotFound, shown
from ..inputs.sites import ABSENT, Site
from ..loading.config import family_of, read_hyperparameters
from ..loading.family import absent_parts, value_of
from .steering_vector import SteeringVector
from .torch_hooks import import_torch, site_modules

__all__ = ["load_steered", "save_steered"]

_SITES = ("mlp_out", "attn_out", "down_proj", "resid_mid")  # of several that are one module, the first is read
_KNOWN = {"steering_vector", "steering_coefficient", "action", "bias", "head_index"}


class _HasConfig(Protocol):
    @property
    def config(self) -> dict[str, Any]: ...


class _Place(NamedTuple):
    hookpoint: str  # of the module
    site: Site
    factor: float  # ratio of the site's value to the module's output


def _places(model: _HasConfig) -> Iterator[_Place]:
    """The modules of a model whose output is a site."""
    where = "the model's config"
    family = family_of(model.config, where)
    hyper = read_hyperparameters(model.config, family, where)
    absent = absent_parts(family, hyper)
    # where no module has the sum of the experts and the shared one
    summed = family.experts is not None and family.experts.beside is not None and hyper.n_experts > 0
    blocks = [family.layer.format(i=layer).rstrip(".") for layer in range(hyper.n_layers)]
    for layer, block in enumerate(blocks):
        yield _Place(block, Site(layer, "resid_post"), 1.0)
        if layer:
            yield _Place(blocks[layer - 1], Site(layer, "resid_pre"), 1.0)
        for name in _SITES[: 3 if value_of(family.parallel, hyper) else 4]:
            if name in ABSENT.get(absent.get(layer, ""), ()) or (summed and name in ABSENT["mlp"][1:]):
                continue
            paths, factor = site_modules(name, family, hyper)
            yield from (_Place(f"{block}.{path}", Site(layer, name), factor) for path in paths)


def load_steered(path: str | os.PathLike[str], model: _HasConfig) -> list[SteeringVector]:
    """Read a vector file of lm-evaluation-harness's `steered` model.

    Parameters
    ----------
    path
        A .pt or .pth file: {module: {"steering_vector", "steering_coefficient", "action", "bias"}}.
    model : Model
        The model that it steers, whose config says which module is which site.

    Returns
    -------
    list of SteeringVector
        One for each module, in the order of the file. A vector that clamps includes its bias. All of them act at every
        position, as they do there: `model.steered(load_steered(path, model))`.

    Raises
    ------
    NotFound
        If there is no such file.
    InvalidInput
        For a module whose output is no site of the model, a vector of one attention head (head_index), and a file that
        cannot be read: a .csv file names sparse autoencoders instead of vectors.
    MissingDependency
        Without PyTorch.

    Examples
    --------
    >>> for vec in ps.load_steered("steer.pt", model):  # doctest: +SKIP
    ...     print(vec)
    SteeringVector(4 × blocks.2.hook_resid_post, d=160, lm_eval)
    """
    entries, where = _read(path), repr(str(path))
    known: dict[str, _Place] = {}
    for place in _places(model):
        known.setdefault(place.hookpoint, place)
    vectors = []
    for hookpoint, entry in entries.items():
        if hookpoint not in known:
            raise InvalidInput(
                f"{where}: the output of module {shown(hookpoint)} is no site of this model; those that are: "
                f"{', '.join(name for name, place in known.items() if place.site.layer == 0)}, and of the other layers"
            )
        vectors.append(_vector(known[hookpoint], entry, f"{where}, module {hookpoint!r}"))
    return vectors


def _read(path: str | os.PathLike[str]) -> dict[Any, Any]:
    where = repr(str(path))
    if not Path(path).is_file():
        raise NotFound(f"there is no file {where}")
    if Path(path).suffix == ".csv":
        raise InvalidInput(
            f"{where} names features of sparse autoencoders, not vectors; write them to a .pt file: "
            "torch.save(lm_eval.models.hf_steered.SteeredModel.derive_steer_config(path), 'steer.pt')"
        )
    torch = import_torch("reading a vector file of lm-evaluation-harness")
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)  # no code of the file runs
    except Exception as error:  # of any type, as the file is damaged
        raise InvalidInput(f"cannot read {where} as a PyTorch file of tensors and numbers: {shown(str(error))}") from None
    if not isinstance(entries, dict) or not entries:
        raise InvalidInput(f"{where} is not a vector file of lm-evaluation-harness: it holds a {type(entries).__name__}")
    return entries


def _vector(place: _Place, entry: Any, where: str) -> SteeringVector:
    if not isinstance(entry, Mapping) or not {"steering_vector", "action"} <= entry.keys() <= _KNOWN:
        keys = sorted(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise InvalidInput(f"{where}: an entry needs steering_vector and action, and knows {sorted(_KNOWN)}; it has {shown(keys)}")
    action, bias, head = entry["action"], entry.get("bias"), entry.get("head_index")
    if action not in ("add", "clamp"):
        raise InvalidInput(f"{where}: action is {shown(action)}; it must be 'add' or 'clamp'")
    if head is not None:
        raise InvalidInput(f"{where}: head_index is {shown(head)}; a vector of one attention head is not supported")
    if bias is not None and action == "add":
        raise InvalidInput(f"{where}: a bias belongs to 'clamp', not to 'add'")
    try:
        coefficient, given = float(entry.get("steering_coefficient", 1.0)), entry["steering_vector"].detach()
        offset = None if bias is None else bias.detach().double().numpy()
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: steering_vector and bias must be tensors, steering_coefficient a number: {error}") from None
    vector = SteeringVector.from_array(given, *place.site, method="lm_eval")
    if action == "add":
        return place.factor * coefficient * vector
    if offset is not None and offset.shape != given.shape:
        raise InvalidInput(f"{where}: the bias has shape {offset.shape}, the vector {tuple(given.shape)}")
    u = vector.direction.astype(np.float64)
    return vector.clamp(place.factor * (coefficient + (0.0 if offset is None else float(u @ offset))))


def save_steered(path: str | os.PathLike[str], vectors: Iterable[SteeringVector], model: _HasConfig) -> None:
    """Write vectors for lm-evaluation-harness's `steered` model. The file is complete or not there at all.

    Parameters
    ----------
    path
        Name of the file, .pt or .pth; an existing one is replaced.
    vectors : iterable of SteeringVector
        At least one. At one module there are only vectors that are added, which become their sum, or one that clamps.
        resid_pre becomes the output of the block before.
    model : Model
        The model that they steer. Provenance is not kept.

    Raises
    ------
    InvalidInput
        For what such a file cannot say: another site, and two vectors at one module of which one clamps.
    MissingDependency
        Without PyTorch.

    Examples
    --------
    >>> ps.save_steered("steer.pt", [vec.relative(0.5)], model)  # doctest: +SKIP
    """
    torch, vectors, where = import_torch("writing a vector file of lm-evaluation-harness"), list(vectors), repr(str(path))
    if Path(path).suffix not in (".pt", ".pth"):
        raise InvalidInput(f"{where}: the name of a vector file of lm-evaluation-harness ends in .pt or .pth")
    if not vectors or not all(isinstance(v, SteeringVector) for v in vectors):
        raise InvalidInput("save_steered needs one SteeringVector or more; SteeringVector.from_array makes them")
    places: dict[Site, _Place] = {}
    for place in _places(model):
        places.setdefault(place.site, place)
    at: dict[str, list[tuple[SteeringVector, float]]] = {}
    for vector in vectors:
        if vector.location not in places or (vector.operation == "clamp" and vector.site == "resid_mid"):
            raise InvalidInput(f"{vector!r} is not at the output of a module of this model, which lm-evaluation-harness could hook")
        place = places[vector.location]
        at.setdefault(place.hookpoint, []).append((vector, place.factor))
    entries = {}
    for hookpoint, here in at.items():
        if len(here) > 1 and any(v.operation == "clamp" for v, _ in here):
            raise InvalidInput(f"several vectors act on one module, {hookpoint!r}, and {here[0][0]!r} or another clamps: add one only")
        entries[hookpoint] = _entry(here, torch)
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    write_bytes(path, buffer.getvalue())


def _entry(vectors: list[tuple[SteeringVector, float]], torch: Any) -> dict[str, Any]:
    """One entry of a file. vectors: with the ratio of the site's value to the module's output."""
    first, factor = vectors[0]
    scale, direction = first.scale / factor, np.array(first.direction)
    if len(vectors) > 1:
        total = np.sum([v.scale / f * v.direction.astype(np.float64) for v, f in vectors], axis=0)
        scale, direction = 1.0, total.astype(np.result_type(*(v.direction for v, _ in vectors)))
    return {"steering_vector": torch.from_numpy(direction), "steering_coefficient": scale, "action": first.operation}
