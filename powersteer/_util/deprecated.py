"""Names of the previous release: they keep working until the next one, with a DeprecationWarning."""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .warn import warn_user

__all__ = [
    "FOLDERS", "MOVED", "RENAMED", "deprecated_arguments", "deprecated_attribute", "moved_module", "register_moved_modules",
    "warn_deprecated",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")

# old module -> new module, both below `powersteer`; "" is powersteer itself
MOVED = {
    "atlas": "mapping",
    "atlas.effects": "mapping.effects_cache",
    "atlas.plan": "mapping.plan",
    "atlas.run": "mapping.run",
    "atlas.settings": "mapping.settings",
    "atlas.store": "mapping.store",
    "atlas.table": "mapping.atlas",
    "atlas.work": "mapping.compute",
    "baselines": "",
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
    "loading.gguf_file": "loading.gguf",
    "loading.gguf_tokens": "loading.gguf_tokenizer",
    "lockstep": "linalg.lockstep",
    "melbo": "methods.melbo",
    "positions": "inputs.positions",
    "prompts": "inputs.prompts",
    "records": "_util.json_records",
    "response": "evaluate.target_response",
    "rows": "evaluate.batched",
    "selection": "evaluate.search",
    "sites": "inputs.sites",
    "spec": "loading.spec",
    "steering": "vectors.interventions",
    "svd": "linalg.svd",
    "tokens": "inputs.tokenizer",
}

# Modules that have become folders: folder -> module in which its names are now
FOLDERS = {"demo": "demo.story", "evaluate": "evaluate", "model": "model.model", "vectors": "vectors.steering_vector"}

# old name -> new name, of public names
RENAMED = {"Cell": "Pair", "Found": "Selection", "Measured": "MetricResult"}


def warn_deprecated(message: str) -> None:
    warn_user(message, DeprecationWarning)


def deprecated_attribute(owner: str, old: str, new: str) -> property:
    """A property with the value of `new`, under its old name."""

    def get(self: Any) -> Any:
        warn_deprecated(f"{owner}.{old} is now called {new}")
        return getattr(self, new)

    return property(get, doc=f"Deprecated name of `{new}`.")


def deprecated_arguments(positional: int, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: accept arguments as the previous release did, with a warning: more of them by position than `positional`,
    which are passed on by keyword, and keyword arguments by their old names. renamed: old_name="new_name"."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            if len(args) > positional and len(args) <= len(names):
                extra = dict(zip(names[positional:], args[positional:], strict=False))
                if both := extra.keys() & kwargs.keys():
                    raise TypeError(f"{function.__qualname__}() got multiple values for argument {min(both)!r}")
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


class _MovedModule(types.ModuleType):
    """A module under its old name: forwards every name to where it is now."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Moved.")
        self.__path__: list[str] = []  # looks like a package, so that its own old submodules are found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of the import system, inspect and pickle
            raise AttributeError(name)
        package, _, old = self.__name__.partition(".")
        value = _moved_name(package, MOVED[old], name)
        warn_deprecated(_is_now(package, old))
        return value


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes `import package.old` work for every entry of MOVED. Nothing is in sys.modules before it is imported."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, old = fullname.partition(".")
        known = package == self.package and old in MOVED
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        warn_deprecated(_is_now(self.package, module.__name__.partition(".")[2]))


class _Package(types.ModuleType):
    """A package whose functions are not hidden by importing an old module of the same name (`import powersteer.svd`)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, _MovedModule) and name in self.__dict__):
            super().__setattr__(name, value)


def register_moved_modules(package: str) -> None:
    """Make `import package.old` and `from package.old import name` work for every entry of MOVED, and
    `from package.folder import name` for every entry of FOLDERS."""
    sys.modules[package].__class__ = _Package
    sys.meta_path.append(_MovedModules(package))
    for folder, module in FOLDERS.items():
        names = vars(importlib.import_module(f"{package}.{folder}"))
        names.setdefault("__getattr__", functools.partial(_name_of_folder, package, folder, module))


def moved_module(package: str, name: str) -> types.ModuleType:
    """For a package's __getattr__: the module with that old name. Raises AttributeError if there was none."""
    if name not in MOVED:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    warn_deprecated(_is_now(package, name))
    return sys.modules.setdefault(f"{package}.{name}", _MovedModule(f"{package}.{name}"))


def _name_of_folder(package: str, folder: str, module: str, name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module '{package}.{folder}' has no attribute {name!r}")
    value = _moved_name(package, module, name)
    warn_deprecated(f"{package}.{folder}.{name} is now {_full(package, module)}.{RENAMED.get(name, name)}")
    return value


def _moved_name(package: str, module: str, name: str) -> Any:
    """A name of a module, or else of the package: some names have gone to files of their own."""
    name = RENAMED.get(name, name)
    for place in (importlib.import_module(_full(package, module)), sys.modules[package]):
        if name in vars(place):
            return vars(place)[name]
    raise AttributeError(f"module {_full(package, module)!r} has no attribute {name!r}")


def _is_now(package: str, old: str) -> str:
    return f"{package}.{old} is now {_full(package, MOVED[old])}"


def _full(package: str, module: str) -> str:
    return f"{package}.{module}" if module else package
