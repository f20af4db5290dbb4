"""Names of the previous release: they keep working until the next one, with a DeprecationWarning."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

__all__ = ["MOVED", "deprecated_arguments", "moved_module", "register_moved_modules", "warn_deprecated"]

P = ParamSpec("P")
R = TypeVar("R")

# old module -> new module, both below `powersteer`
MOVED = {
    "atlas": "mapping",
    "atlas.effects": "mapping.effects_cache",
    "atlas.plan": "mapping.plan",
    "atlas.run": "mapping.run",
    "atlas.settings": "mapping.settings",
    "atlas.store": "mapping.store",
    "atlas.table": "mapping.atlas",
    "atlas.work": "mapping.compute",
    "baselines": "methods",
    "chat": "inputs.chat_template",
    "controlvector": "vectors.control_vector",
    "dct": "methods.dct",
    "displacement": "methods.displacement",
    "effects": "evaluate.effects",
    "estimate": "model.cost",
    "evaluation": "evaluate",
    "files": "_util.atomic",
    "forks": "demo.forks",
    "generation": "model.generation",
    "hooks": "vectors.torch_hooks",
    "jacobian": "model.jacobian",
    "jlens": "methods.jlens",
    "lockstep": "linalg.lockstep",
    "melbo": "methods.melbo",
    "positions": "inputs.positions",
    "prompts": "inputs.prompts",
    "response": "evaluate.target_response",
    "rows": "evaluate.batched",
    "selection": "evaluate.search",
    "sites": "inputs.sites",
    "spec": "loading.spec",
    "steering": "vectors.interventions",
    "svd": "linalg.svd",
    "tokens": "inputs.tokenizer",
}


def warn_deprecated(message: str, stacklevel: int = 3) -> None:
    """Warn the caller of the caller."""
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def deprecated_arguments(positional: int, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept arguments as the previous release did.

    Parameters
    ----------
    positional
        Number of arguments that may be given by position; more of them are passed on by keyword, with a warning.
    **renamed
        old_name="new_name" of keyword arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            if len(args) > positional and len(args) <= len(names):
                extra = dict(zip(names[positional:], args[positional:], strict=False))
                _refuse_both(function, extra, kwargs)
                warn_deprecated(f"{function.__qualname__}: pass {', '.join(extra)} by keyword")
                args, kwargs = args[:positional], extra | kwargs
            for old in renamed.keys() & kwargs.keys():
                new = renamed[old]
                if new in kwargs or new in names[: len(args)]:
                    raise TypeError(f"{function.__qualname__}() got both {new!r} and its old name {old!r}")
                warn_deprecated(f"{function.__qualname__}: {old!r} is now called {new!r}")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def _refuse_both(function: Callable[..., Any], extra: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
    if both := extra.keys() & kwargs.keys():
        raise TypeError(f"{function.__qualname__}() got multiple values for argument {min(both)!r}")


class _MovedModule(types.ModuleType):
    """Stands in sys.modules under an old name and forwards to the new module."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to {new}.")
        self.__dict__["_new"] = new
        self.__path__: list[str] = []  # looks like a package, so that its own old submodules are found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect and pickle look at every module
            raise AttributeError(name)
        warn_deprecated(f"{self.__name__} has moved to {self._new}")
        return getattr(importlib.import_module(self._new), name)


def register_moved_modules(package: str) -> None:
    """Make `import package.old` and `from package.old import name` work for every entry of MOVED."""
    for old, new in MOVED.items():
        sys.modules.setdefault(f"{package}.{old}", _MovedModule(f"{package}.{old}", f"{package}.{new}"))


def moved_module(package: str, name: str) -> types.ModuleType | None:
    """The stand-in of an old module, None if there was none of that name."""
    return sys.modules.get(f"{package}.{name}") if name in MOVED else None
