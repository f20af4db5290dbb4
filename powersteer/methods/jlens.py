"""Jacobian lenses: computed, and read from and written to files of anthropics/jacobian-lens.

    J_l = mean over prompts, mean over positions p of sum over positions q of  d h_last[q] / d h_l[p]        (d, d)

h_l: output of block l (resid_post); h_last: output of the last block, before the final norm; p and q: positions of the
prompt without the first `skip_first` and the last. With n such positions in a prompt, this is the mean over q of the
derivative for one vector added at all p: `Model.jacobian` with these source and target positions and reduce="mean".

A file is torch.save of {"J": {l: (d, d) float16}, "n_prompts", "source_layers", "d_model"}. It does not name its model;
the files of powersteer, like those of TransformerLens, also have a dictionary "metadata", which other readers ignore.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._util.atomic import write_bytes
from .._util.deprecated import deprecated_arguments
from ..errors import InvalidInput, NotFound, shown
from ..inputs.prompts import Prompts, split
from ..linalg.operator import LinearMap
from ..linalg.svd import SVDResult, svd
from ..model.jacobian import labelled
from ..model.model import Model
from ..vectors.torch_hooks import import_torch
from .activations import Array

__all__ = ["JLens", "JLensMap"]


class JLensMap(LinearMap):
    """J_l of a lens as a linear operator (d, d) from resid_post of `layer`: `lens[layer]`.

    A `scipy.sparse.linalg.LinearOperator`: `J @ v`, `J.T @ u`, `J.dense()`.

    Attributes
    ----------
    layer : int
        Layer of its inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import powersteer as ps
    >>> J = ps.JLens({0: np.array([[1.0, 2.0], [3.0, 4.0]])}, n_prompts=1)[0]
    >>> (J @ [1.0, 0.0]).tolist(), (J.T @ [1.0, 0.0]).tolist()
    ([1.0, 3.0], [1.0, 2.0])
    """

    def __init__(self, matrix: Array, layer: int, provenance: Mapping[str, Any]) -> None:
        dtype = np.dtype(np.float64 if matrix.dtype.itemsize == 8 else np.float32)
        self._matrix: Array = np.ascontiguousarray(matrix, dtype=dtype)
        if not np.isfinite(self._matrix).all():
            raise InvalidInput(f"the lens holds NaN or infinity at layer {layer}; fit it again")
        super().__init__(matrix.shape, dtype)
        self.layer, self._provenance = layer, provenance

    def apply(self, V: Array) -> Array:
        return np.asarray(V @ self._matrix.T)

    def apply_t(self, U: Array) -> Array:
        return np.asarray(U @ self._matrix)

    apply.__doc__, apply_t.__doc__ = LinearMap.apply.__doc__, LinearMap.apply_t.__doc__

    def dense(self) -> Array:
        """The matrix.

        Returns
        -------
        array (d, d)
            A copy.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> J = ps.JLens({0: np.array([[1.0, 2.0], [3.0, 4.0]])}, n_prompts=1)[0]
        >>> J.dense().tolist()
        [[1.0, 2.0], [3.0, 4.0]]
        """
        return np.array(self._matrix)

    def svd(self, k: int = 12, **options: Any) -> SVDResult:
        """The k leading singular triplets.

        Parameters
        ----------
        k : int
            Number of triplets.
        **options
            Options of `powersteer.svd`.

        Returns
        -------
        SVDResult
            Its `vectors` are steering vectors at resid_post of the layer, with the model that the file names.

        Examples
        --------
        >>> import numpy as np
        >>> import powersteer as ps
        >>> ps.JLens({2: np.diag([3.0, 2.0, 1.0])}, n_prompts=1)[2].svd(2).S.round(6).tolist()
        [3.0, 2.0]
        """
        provenance = {"layer": self.layer, "site": "resid_post", "reduce": "mean", **self._provenance}
        return labelled(svd(self, k, **options), lambda: provenance)

    def __repr__(self) -> str:
        return f"JLensMap(blocks.{self.layer}.hook_resid_post, shape {self.shape}, {self.dtype})"


class JLens(Mapping[int, JLensMap]):
    """A Jacobian lens: a mapping from layers to linear operators. Made by `JLens.load` and `JLens.fit`.

    Parameters
    ----------
    matrices : mapping of int to array (d, d)
        J of each layer.
    n_prompts : int
        Number of prompts they are the mean over.
    metadata : mapping, optional
        Entries of the file that describe its model.

    Attributes
    ----------
    n_prompts, metadata
        As given.
    d_model : int
        d.

    References
    ----------
    github.com/anthropics/jacobian-lens

    Examples
    --------
    >>> import numpy as np
    >>> import powersteer as ps
    >>> lens = ps.JLens({0: np.eye(3), 2: 2 * np.eye(3)}, n_prompts=10)
    >>> lens
    JLens(layers [0, 2], d_model 3, mean of 10 prompts)
    >>> (lens[2] @ [1.0, 2.0, 3.0]).tolist()
    [2.0, 4.0, 6.0]
    """

    def __init__(
        self, matrices: Mapping[int, Array], n_prompts: int, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self._matrices = dict(sorted(matrices.items()))
        self.n_prompts, self.metadata = n_prompts, dict(metadata or {})
        self.d_model = len(next(iter(self._matrices.values())))

    def __getitem__(self, layer: int) -> JLensMap:
        if layer not in self._matrices:
            raise InvalidInput(f"the lens has no layer {layer!r}; it has {list(self._matrices)}")
        return JLensMap(self._matrices[layer], layer, self._provenance())

    def __iter__(self) -> Iterator[int]:
        return iter(self._matrices)

    def __len__(self) -> int:
        return len(self._matrices)

    def __contains__(self, layer: object) -> bool:
        return layer in self._matrices

    def __repr__(self) -> str:
        return f"JLens(layers {list(self)}, d_model {self.d_model}, mean of {self.n_prompts} prompts)"

    def _provenance(self) -> dict[str, Any]:
        keys = {"model": "model_name", "model_type": "model_type", "weights": "weights"}
        known = {field: self.metadata[key] for field, key in keys.items() if isinstance(self.metadata.get(key), str)}
        target = self.metadata.get("target_layer")
        return {**known, "target": (target, "resid_post")} if type(target) is int and target >= 0 else known

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JLens:
        """Read a lens file. Its pickle is parsed, never executed; matrices stay mapped from the file.

        Parameters
        ----------
        path
            Name of the file.

        Returns
        -------
        JLens

        Raises
        ------
        MissingDependency
            Without PyTorch.
        NotFound
            If the file does not exist.
        InvalidInput
            For a file that is damaged or is not a lens.

        Examples
        --------
        >>> ps.JLens.load("lens.pt")  # doctest: +SKIP
        JLens(layers [0, 1, 2, 3], d_model 160, mean of 100 prompts)
        """
        torch = import_torch("reading a J-lens file (a torch.save archive)")
        if not Path(path).is_file():
            raise NotFound(f"there is no file {str(path)!r}")
        try:
            content = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged archives raise whatever their part of the reader raises
            why = str(error).partition("\n")[0][:200]
            raise InvalidInput(f"cannot read {str(path)!r} as a J-lens file: {type(error).__name__}: {why}") from None
        if isinstance(content, dict) and "jacobian_sum" in content:
            raise InvalidInput(f"{str(path)!r} is a checkpoint of an unfinished fit, not a lens; finish it and save()")
        matrices, n_prompts = _check(content, torch, str(path))
        metadata = content.get("metadata")
        return cls(matrices, n_prompts, metadata if isinstance(metadata, dict) else None)

    @classmethod
    @deprecated_arguments(3)
    def fit(
        cls,
        model: Model,
        prompts: Prompts,
        *,
        layers: Sequence[int] | None = None,
        skip_first: int = 16,
        max_tokens: int = 128,
    ) -> JLens:
        """Compute the lens of a model on prompts, by d_model products for every prompt and layer.

        The defaults are those of the original.

        Parameters
        ----------
        model : Model
        prompts : prompt or list of prompts
        layers : sequence of int, optional
            Layers of the lens; None is all but the last.
        skip_first : int
            Number of positions at the start of each prompt that are left out.
        max_tokens : int
            Length at which each prompt is cut.

        Returns
        -------
        JLens

        Raises
        ------
        InvalidInput
            For a prompt of fewer than skip_first + 2 tokens, which leaves no position, and without layers or prompts.

        Examples
        --------
        >>> import powersteer as ps
        >>> ps.JLens.fit(ps.load("demo"), "Task: 3 * 4 =", layers=[3], skip_first=0)
        JLens(layers [3], d_model 160, mean of 1 prompts)
        """
        rows = [model.tokens(p)[:max_tokens] for p in split(prompts)[0]]
        last = model.n_layers - 1
        sources = list(range(last)) if layers is None else sorted(set(layers))
        if not sources or skip_first < 0:
            raise InvalidInput("a lens needs a layer before the last, a prompt, and skip_first >= 0")
        for i, row in enumerate(rows):
            if len(row) < skip_first + 2:
                raise InvalidInput(f"prompt {i} has {len(row)} tokens; with skip_first={skip_first} a lens needs more")
        at = slice(skip_first, -1)
        how: dict[str, Any] = {"target_positions": at, "source_positions": at, "reduce": "mean"}

        def mean(layer: int) -> Array:
            site, target = (layer, "resid_post"), (last, "resid_post")
            parts = (model.jacobian(row, site, target, **how).dense() for row in rows)
            return np.asarray(sum(parts, np.zeros((model.d_model,) * 2)) / len(rows), model.dtype)

        names = {"model_name": model.name, **{key: model.identity[key] for key in ("model_type", "weights")}}
        settings = {"target_layer": last, "skip_first": skip_first, "max_tokens": max_tokens}
        return cls({layer: mean(layer) for layer in sources}, len(rows), {**names, **settings})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that anthropics/jacobian-lens and TransformerLens load, with matrices in float16 like theirs.

        The file is complete or not there at all.

        Parameters
        ----------
        path
            Name of the file; an existing one is replaced.

        Raises
        ------
        MissingDependency
            Without PyTorch.
        InvalidInput
            For numbers beyond float16.

        Examples
        --------
        >>> lens.save("lens.pt")  # doctest: +SKIP
        """
        torch = import_torch("writing a J-lens file (a torch.save archive)")
        J = {}
        for layer, matrix in self._matrices.items():
            if not np.abs(matrix).max() <= np.finfo(np.float16).max:
                raise InvalidInput(f"the lens at layer {layer} has entries beyond float16, the type of its files")
            J[layer] = torch.from_numpy(matrix.astype(np.float16))
        content = {"J": J, "n_prompts": self.n_prompts, "source_layers": list(J), "d_model": self.d_model}
        buffer = io.BytesIO()
        torch.save({**content, **({"metadata": self.metadata} if self.metadata else {})}, buffer)
        write_bytes(path, buffer.getvalue())


def _check(content: Any, torch: Any, path: str) -> tuple[dict[int, Array], int]:
    """(J by layer, n_prompts) from the content of a lens file."""

    def refuse(what: str) -> InvalidInput:
        return InvalidInput(f"{path!r} is not a J-lens file: {what}")

    if not isinstance(content, dict) or not isinstance(content.get("J"), dict) or not content["J"]:
        raise refuse("it has no dictionary 'J' of matrices by layer")
    d, n_prompts = content.get("d_model"), content.get("n_prompts")
    if type(d) is not int or type(n_prompts) is not int or n_prompts < 1:
        raise refuse(f"d_model is {d!r} and n_prompts {n_prompts!r}; both must be positive integers")
    as_list = content.get("source_layers", list(content["J"]))
    if not isinstance(as_list, list) or sorted(map(str, as_list)) != sorted(map(str, content["J"])):
        raise refuse(f"its source_layers {shown(as_list)} differ from those of its matrices")
    matrices = {}
    for layer, J in content["J"].items():
        if type(layer) is not int or layer < 0:
            raise refuse(f"it has the layer {shown(layer)}")
        if not isinstance(J, torch.Tensor) or tuple(J.shape) != (d, d) or not J.is_floating_point():
            found = f"{tuple(J.shape)} of {J.dtype}" if isinstance(J, torch.Tensor) else type(J).__name__
            raise refuse(f"J of layer {layer} is {found}; it must be ({d}, {d}) of floating point")
        matrices[layer] = (J.float() if J.dtype == torch.bfloat16 else J).numpy()
    return matrices, n_prompts
