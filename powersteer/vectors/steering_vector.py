"""Steering vectors: a unit direction at a site of a layer, its scale, what it does there, and its provenance."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._util.deprecated import deprecated_arguments, deprecated_attribute
from .._util.html import table
from .._util.warn import warn_user
from .._version import __version__
from ..errors import InvalidInput, shown
from ..inputs.positions import Positions
from ..inputs.sites import Site, parse_site
from .arithmetic import Arithmetic, check_adds
from .codec import Calibration, Cost, ProvenanceWarning, check_fields, finite_factor, normalised
from .torch_hooks import Hook, attach, import_torch
from .vector_files import gguf_record, read_gguf, read_safetensors, write_gguf, write_safetensors
from .with_model import WithModel

__all__ = ["Calibration", "Cost", "ProvenanceWarning", "SteeringVector", "action", "rounding"]

_ROUNDING = 64  # float32 against float64 is off by 4 to 12 eps after six layers, and it grows slowly


def rounding(norm: float, dtype: DTypeLike) -> float:
    """Bound of the rounding error of an activation of this 2-norm: a difference no longer than that is noise."""
    return _ROUNDING * float(np.finfo(np.dtype(dtype)).eps) * norm


def action(vector: SteeringVector, digits: int = 4) -> str:
    """What a vector does, and where: "2 × blocks.3.hook_mlp_out", "clamp blocks.3.hook_mlp_out to 2", "ablate ..."."""
    value = f"{vector.scale:.{digits}g}"
    if vector.operation == "add":
        return f"{value} × {vector.location}"
    return f"clamp {vector.location} to {value}" if vector.scale else f"ablate {vector.location}"


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector(Arithmetic, WithModel):
    """A vector that changes the activation at one site, with its provenance. It is added: `scale * direction`.

    Immutable. `4 * v`, `v / 2` and `-v` change the scale, `v.relative(0.35)` and `v.calibrated(model, prompts)` set it;
    `v + w` and `v - w` are one vector if both are at the same site, `v @ w` is the dot product of what they add. `v.ablate()`
    projects the direction out instead of adding, `v.clamp(2.5)` sets the coefficient along it. `np.asarray(v)` is `v.vector`.
    Two vectors are equal if all their fields are, `cost` included; equal vectors have equal hashes.
    `dataclasses.replace(v, seed=None)` changes a field.

    Parameters
    ----------
    direction : array (d,)
        Unit vector, float32 or float64; kept as a read-only copy.
    layer : int
        Layer at whose site the vector acts, from 0.
    site : str
        Name of the site, in any spelling; kept as its short name.
    scale : float
        2-norm of what is added, with a sign; of a vector that clamps, the coefficient along `direction`.
    operation : "add" or "clamp"
        With x the activation, u the direction: x + scale u, or x + (scale - u.x) u.
    site_norm : float, optional
        Mean 2-norm of the site's activation over the source positions of the prompts; one token may have nearly all of it.
    method : str
        The method that found the vector: "krylov", "power", "dense", "caa", "melbo", "random", "sum", ...
    parents : tuple of str
        Of a result of arithmetic or `pull_back`, the vectors it was made from: scale, method and rank of each.
    calibration : Calibration, optional
        The divergence at this scale, of a vector whose scale was found by it.
    model, model_type, weights : str, optional
        Name of the model, model_type of its config.json, fingerprint of its weights.
    target : Site, "logits" or "next_token", optional
        Where the method measured the effect of the vector.
    prompts : tuple of str
        Text of each prompt, "" where it is unknown.
    prompt_tokens : tuple of tuples of int
        Token ids of each prompt.
    source_positions, target_positions : tuple of tuples of int
        By prompt: where the vector was added, and where its effect was measured.
    reduce : "stack" or "mean", optional
        How the target positions were reduced.
    steering : tuple of str
        Interventions that the model had already, described.
    rank : int, optional
        Index of the singular value, 0 for the largest; of the feature of a sparse autoencoder.
    sigma : float, optional
        The singular value.
    residual : float, optional
        The larger of ‖Jv - σu‖ and ‖J'u - σv‖, over σ1.
    objective : float, optional
        Value at this vector of the function that the method maximises.
    seed : int, optional
        Seed of the random numbers.
    cost : Cost, optional
        Work of the call that made the vector.
    version : str
        Version of powersteer that made it.

    Raises
    ------
    InvalidInput
        For a field of the wrong kind, a direction that is not a finite unit vector, a scale of NaN.

    Examples
    --------
    >>> import powersteer as ps
    >>> v = ps.SteeringVector([0.6, 0.8], layer=3, site="mlp_out")
    >>> v
    SteeringVector(1 × blocks.3.hook_mlp_out, d=2, given)
    >>> (-2 * v).vector.round(6).tolist()
    [-1.2, -1.6]
    >>> 2 * v == v + v
    False
    >>> 2 * v == v / 0.5
    True
    """

    direction: NDArray[Any]
    layer: int
    site: str
    scale: float = 1.0
    operation: str = "add"
    site_norm: float | None = None
    method: str = "given"
    model: str | None = None
    model_type: str | None = None
    weights: str | None = None
    target: Site | tuple[int, str] | str | None = None
    prompts: tuple[str, ...] = ()
    prompt_tokens: tuple[tuple[int, ...], ...] = ()
    source_positions: tuple[tuple[int, ...], ...] = ()
    target_positions: tuple[tuple[int, ...], ...] = ()
    reduce: str | None = None
    steering: tuple[str, ...] = ()
    rank: int | None = None
    sigma: float | None = None
    residual: float | None = None
    objective: float | None = None
    seed: int | None = None
    cost: Cost | None = None
    parents: tuple[str, ...] = ()
    calibration: Calibration | None = None
    version: str = __version__

    # NumPy leaves `array * v` to this class, which refuses it, instead of building an array of objects
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        vars(self).update(check_fields(vars(self)))

    @classmethod
    def from_array(cls, vector: Any, layer: int | str, site: str | None = None, **provenance: Any) -> SteeringVector:
        """The vector that adds exactly `vector` at a site; its scale is the array's 2-norm.

        Parameters
        ----------
        vector : array or torch tensor (d,)
            Real, finite, not zero. float16 and bfloat16 become float32, integers float64.
        layer, site : int and str
            Layer and site, or the site in one name: `from_array(v, "blocks.3.hook_mlp_out")`.
        **provenance
            Other fields.

        Raises
        ------
        InvalidInput
            For an array that cannot be a vector and a site that does not exist.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.SteeringVector.from_array([3, 4], "blocks.3.hook_mlp_out")
        SteeringVector(5 × blocks.3.hook_mlp_out, d=2, given)
        """
        location = parse_site(layer) if isinstance(layer, str) and site is None else parse_site((layer, site))  # type: ignore[arg-type]
        direction, norm = normalised(vector)
        return cls(direction, location.layer, location.name, scale=norm, **provenance)

    @property
    def vector(self) -> NDArray[Any]:
        """scale * direction (d,): what is added, or what a vector that clamps sets the activation's part along it to."""
        return np.asarray(self.direction * self.direction.dtype.type(self.scale))

    @property
    def location(self) -> Site:
        """Layer and site as one value, which every argument that takes a site accepts."""
        return Site(self.layer, self.site)

    place = deprecated_attribute("SteeringVector", "place", "location")

    @property
    def target_layer(self) -> int | str | None:
        """Layer of the target, "logits" or "next_token"; None for a vector without a target."""
        return self.target[0] if isinstance(self.target, tuple) else self.target

    @property
    def provenance(self) -> dict[str, Any]:
        """Every field except the direction, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "direction"}

    def clamp(self, value: float | None = None) -> SteeringVector:
        """This direction as one along which the coefficient of the activation is set: x + (value - u.x) u.

        u is the unit vector along this vector: `direction` with the sign of the scale. The part of the activation at right
        angles to it stays. Everything that takes a vector to steer with takes the result. Several vectors at one site act
        in the order they are given: adding before and after clamping are different.

        Parameters
        ----------
        value : float, optional
            The coefficient, in units of the activation; None: the size of this vector's scale, so that
            `v.relative(0.35).clamp()` sets it to 0.35 of the site's activation norm.

        Raises
        ------
        InvalidInput
            For a value that is not finite, and for a vector that clamps already.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> v = ps.random_vectors(model, 2)[0]
        >>> x = model.steered(v.clamp(2.5)).activations("Q: 6*8", v.location)
        >>> (x @ v.direction).round(4).tolist()
        [2.5, 2.5, 2.5, 2.5, 2.5, 2.5]
        """
        check_adds(self, "clamped")
        size = abs(self.scale) if value is None else finite_factor(value)
        scale = math.copysign(1.0, self.scale) * size + 0.0  # no negative zero
        return replace(self, operation="clamp", scale=scale, calibration=None)

    def ablate(self) -> SteeringVector:
        """This direction as one that is projected out of the activation: x - (u.x) u; the same as `clamp(0)`.

        Raises
        ------
        InvalidInput
            For a vector that clamps already.

        Examples
        --------
        >>> import powersteer as ps
        >>> model = ps.load("demo")
        >>> v = ps.random_vectors(model, 2)[0]
        >>> x = model.steered(v.ablate()).activations("Q: 6*8", v.location)
        >>> bool(abs(x @ v.direction).max() < 1e-5)
        True
        """
        return self.clamp(0.0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return np.array_equal(self.direction, other.direction) and self.provenance == other.provenance

    def __hash__(self) -> int:  # without the direction, whose zeros have two bit patterns
        return hash(tuple(self.provenance.values()))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self.vector if dtype is None else self.vector.astype(dtype)

    def to_torch(self, device: Any = None, dtype: Any = None) -> Any:
        """scale * direction as a new torch tensor (d,).

        Parameters
        ----------
        device, dtype
            As for `torch.Tensor.to`; by default the CPU and the direction's dtype.

        Raises
        ------
        MissingDependency
            Without PyTorch.

        Examples
        --------
        >>> vec.to_torch(device="cuda", dtype=torch.bfloat16).shape  # doctest: +SKIP
        torch.Size([160])
        """
        return import_torch("to_torch").from_numpy(self.vector).to(device=device, dtype=dtype)

    def hook(self, hf_model: Any, positions: Positions = None) -> Hook:
        """Add this vector in every forward pass of a loaded transformers model, or clamp by it, on any device and in its dtype.

        It acts until `remove()` of the result or the end of a `with` block. `model.steered(vec, positions)` does the
        same in powersteer.

        Parameters
        ----------
        hf_model : transformers.PreTrainedModel
            The model itself, not a module that wraps it.
        positions
            Positions to steer, as for `Model.steered`. They are found with or without a key-value cache, and with
            padding if the model is given the attention mask.

        Raises
        ------
        UnsupportedModel
            For a family or a module structure that is not known.
        InvalidInput
            For a vector that does not fit; in the forward pass, where the positions of its tokens cannot be determined.
        MissingDependency
            Without PyTorch.

        Warns
        -----
        ProvenanceWarning
            If the vector was made with a model of another model_type.

        Examples
        --------
        >>> with vec.hook(hf_model, positions="generated"):  # doctest: +SKIP
        ...     hf_model.generate(**tokenizer("Once upon a time", return_tensors="pt"))
        """
        model_type = getattr(getattr(hf_model, "config", None), "model_type", None)
        if self.model_type not in (None, model_type):
            warn_user(f"{self!r} was made with a {self.model_type} model and is hooked to a {model_type}", ProvenanceWarning)
        direction = self.direction.astype(np.float64)
        if self.operation == "clamp":
            return attach(hf_model, direction / np.linalg.norm(direction), self.location, positions, self.scale)
        return attach(hf_model, direction * self.scale, self.location, positions)

    def __len__(self) -> int:
        return len(self.direction)

    def __repr__(self) -> str:
        sigma = None if self.sigma is None else f"{self.sigma:.4g}"
        known = {"rank": self.rank, "sigma": sigma, "target": self.target}
        parts = "".join(f", {name} {value}" for name, value in known.items() if value is not None)
        return f"SteeringVector({action(self)}, d={len(self)}{parts}, {self.method})"

    def _repr_html_(self) -> str:
        known = {name: value for name, value in self.provenance.items() if value not in (None, "", ())}
        rows = [(name, f"{v:.6g}" if isinstance(v, float) else shown(v)) for name, v in known.items()]
        return table(("field", "value"), rows, caption=repr(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: the direction, and every other field as JSON in its metadata.

        The file is complete or not there at all.

        Parameters
        ----------
        path
            Name of the file; an existing one is replaced.

        Raises
        ------
        NotFound
            If the folder does not exist.

        Examples
        --------
        >>> import os, tempfile
        >>> import powersteer as ps
        >>> v = ps.SteeringVector.from_array([3.0, 4.0], 3, "mlp_out")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "v.safetensors")
        ...     v.save(path)
        ...     ps.SteeringVector.load(path) == v
        True
        """
        write_safetensors(path, [(self.direction, self.provenance)])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SteeringVector:
        """Read the file of one vector that `save` wrote; it comes back bit by bit.

        Parameters
        ----------
        path
            Name of the file.

        Raises
        ------
        NotFound
            If the file does not exist.
        InvalidInput
            For a file that is damaged, of another kind, of several vectors, or contradicts itself.

        Examples
        --------
        >>> import os, tempfile
        >>> import powersteer as ps
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "v.safetensors")
        ...     ps.SteeringVector.from_array([3.0, 4.0], 3, "mlp_out", seed=7).save(path)
        ...     ps.SteeringVector.load(path).seed
        7
        """
        records = read_safetensors(path)
        if len(records) > 1:
            raise InvalidInput(f"{str(path)!r} holds {len(records)} vectors; powersteer.load_vectors reads them all")
        return cls(records[0][0], **records[0][1])

    @deprecated_arguments(2)
    def to_gguf(self, path: str | os.PathLike[str], *, model_hint: str | None = None) -> None:
        """Write a GGUF control vector, which llama.cpp adds to a block's output at every position.

        Parameters
        ----------
        path
            Name of the file; an existing one is replaced.
        model_hint : str, optional
            The name that other tools check; by default the architecture that llama.cpp has for the vector's model_type, or that.

        Raises
        ------
        InvalidInput
            Unless adding the vector equals adding it to the output of a block N >= 1: this is so at resid_post and
            mlp_out of layer N, and at resid_pre of layer N + 1. In Gemma 4 it is not so at mlp_out.

        Examples
        --------
        >>> import os, tempfile
        >>> import powersteer as ps
        >>> v = ps.SteeringVector.from_array([3.0, 4.0], 3, "mlp_out", model_type="llama")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "v.gguf")
        ...     v.to_gguf(path)
        ...     ps.SteeringVector.from_gguf(path)
        SteeringVector(5 × blocks.3.hook_mlp_out, d=2, given)
        """
        write_gguf(path, [(self.direction, self.provenance)], model_hint)

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str], layer: int | None = None) -> SteeringVector:
        """Read one vector of a GGUF control vector, written by powersteer or by another tool.

        direction.N becomes a vector at resid_post of layer N, where llama.cpp adds it; a file of `to_gguf` gives back its
        own site and provenance. Directions that are all zero are left out.

        Parameters
        ----------
        path
            Name of the file.
        layer : int, optional
            N, which may be left out if the file has one vector.

        Raises
        ------
        NotFound
            If the file does not exist.
        InvalidInput
            For a damaged file, a layer that it does not have, and several vectors without a choice.

        Warns
        -----
        ProvenanceWarning
            Names the directions that are all zero.

        Examples
        --------
        >>> import os, tempfile
        >>> import powersteer as ps
        >>> vectors = [ps.SteeringVector.from_array([3.0, 4.0], n, "mlp_out", model_type="llama") for n in (1, 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "v.gguf")
        ...     ps.save_vectors(path, vectors)
        ...     ps.SteeringVector.from_gguf(path, layer=2)
        SteeringVector(5 × blocks.2.hook_mlp_out, d=2, given)
        """
        file = read_gguf(path)
        if layer is None and len(file.directions) > 1:
            raise InvalidInput(
                f"{str(path)!r} has vectors for the layers {sorted(file.directions)}; choose one: layer=..., or read "
                "all of them: powersteer.load_vectors"
            )
        block = next(iter(file.directions)) if layer is None else layer
        if block not in file.directions:
            raise InvalidInput(f"{str(path)!r} has no vector for layer {layer!r}, only for {sorted(file.directions)}")
        direction, provenance = gguf_record(file, block, str(path))
        return cls(direction, **provenance)
