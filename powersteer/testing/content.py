"""What an argument of a computation holds, as a hash: the same in every process, and another one after any change of content."""

from __future__ import annotations

import dis
import functools
import hashlib
import re
import types
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import InvalidInput, shown
from ..linalg.result import SVDResult
from ..model.jacobian import Jacobian
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector

__all__ = ["content_hash"]

_PACKAGE = __name__.partition(".")[0]
_GENERATED = frozenset(  # methods that `dataclass` writes: they follow from the fields
    f"__{name}__" for name in "init repr eq lt le gt ge hash replace setattr delattr getstate setstate".split()
)
_OPEN: ContextVar[tuple[types.FunctionType, ...]] = ContextVar("functions whose content is being told", default=())


def content_hash(value: Any) -> str:
    """32 hexadecimal digits. Raises InvalidInput for what cannot be told by its content, such as an open file."""
    return hashlib.sha256(repr(_content(value)).encode("utf-8", "backslashreplace")).hexdigest()[:32]


@functools.singledispatch
def _content(value: Any) -> Any:
    """Tuples, texts and numbers that tell everything a result can depend on."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        written = sorted(vars(kind).items() if not _is_ours(kind) else ())
        own = [f for name, f in written if isinstance(f, types.FunctionType) and name not in _GENERATED]
        return _name(kind), *map(_content, own), *((f.name, _content(getattr(value, f.name))) for f in fields(value))
    raise InvalidInput(
        f"a result is kept by the content of its arguments, and that of {shown(value)} is not known: give texts, numbers, "
        "arrays, models, Jacobians, vectors, functions, dataclasses, and lists or dicts of them"
    )


@_content.register(bytes)
@_content.register(bool)
@_content.register(type(None))
@_content.register(type(...))
def _plain(value: Any) -> Any:
    return value


@_content.register(str)
def _text(value: str) -> Any:
    return str(value)


@_content.register(int)
@_content.register(float)
@_content.register(complex)
def _number(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    return ("float", float(value).hex()) if isinstance(value, float) else complex(value)


@_content.register(np.generic)
def _scalar(value: np.generic) -> Any:
    return _content(value.item())


@_content.register(list)
@_content.register(tuple)
@_content.register(range)
def _sequence(values: Any) -> Any:
    return "sequence", *map(_content, values)


@_content.register(set)
@_content.register(frozenset)
def _set(values: Any) -> Any:
    return "set", *sorted(map(repr, map(_content, values)))


@_content.register(dict)
def _dict(values: dict[Any, Any]) -> Any:
    return "dict", *sorted(((_content(k), _content(v)) for k, v in values.items()), key=repr)


@_content.register(slice)
def _slice(value: slice) -> Any:
    return "slice", *map(_content, (value.start, value.stop, value.step))


@_content.register(re.Pattern)
def _pattern(value: re.Pattern[Any]) -> Any:
    return "pattern", value.pattern, value.flags


@_content.register(np.ndarray)
def _array(value: np.ndarray[Any, Any]) -> Any:
    if value.dtype.hasobject:
        return "array", value.shape, *map(_content, value.ravel().tolist())
    return "array", value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


@_content.register(Model)
def _model(value: Model) -> Any:
    return "model", *sorted(map(repr, value.identity.items())), value.dtype.str, value.steering_hash


@_content.register(Jacobian)
def _jacobian(value: Jacobian) -> Any:
    """F(0) tells which steering it is at, whose description leaves out the numbers."""
    about = value.linearization
    sites = about.source, about.target, about.reduce, about.source_positions, about.target_positions
    return "Jacobian", *map(_content, (dict(about.model), about.prompt_tokens, about.steering, *sites, value.base))


@_content.register(SteeringVector)
def _vector(value: SteeringVector) -> Any:
    """Without the seconds that it took to find."""
    told = (v for k, v in value.provenance.items() if k not in ("cost", "version"))
    return "vector", _content(value.direction), *map(_content, told)


@_content.register(SVDResult)
def _svd(value: SVDResult) -> Any:
    return "SVD", *map(_content, (value.U, value.S, value.Vh))


@_content.register(types.FunctionType)
def _function(value: types.FunctionType) -> Any:
    """Its code and everything that it refers to by a name: values, and functions of the same module in the same way."""
    if _is_ours(value):
        return _name(value), __version__
    if value in (outer := _OPEN.get()):
        return "itself", outer.index(value)
    token = _OPEN.set((*outer, value))
    try:
        names = sorted(_globals_read(value.__code__) & value.__globals__.keys())
        read = [(name, _global(value.__globals__[name], value.__module__)) for name in names]
        closed = [_content(cell.cell_contents) for cell in value.__closure__ or ()]
        return _name(value), _code(value.__code__), read, closed, _content(value.__defaults__), _content(value.__kwdefaults__)
    finally:
        _OPEN.reset(token)


def _globals_read(code: types.CodeType) -> set[str]:
    """Names of module-level things in a function and in the functions inside it."""
    inner = (_globals_read(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}.union(*inner)


def _global(value: Any, module: str) -> Any:
    """A function of another module is its own code alone: what that refers to is the business of its package."""
    if isinstance(value, types.FunctionType) and value.__module__ != module and not _is_ours(value):
        return _name(value), _code(value.__code__)
    return _content(value)


@_content.register(types.BuiltinFunctionType)
@_content.register(np.ufunc)
@_content.register(type)
def _named(value: Any) -> Any:
    return "named", _name(value)


@_content.register(types.ModuleType)
def _module(value: types.ModuleType) -> Any:
    return "module", value.__name__


@_content.register(types.MethodType)
def _method(value: types.MethodType) -> Any:
    return "method", _content(value.__self__), _content(value.__func__)


@_content.register(functools.partial)
def _partial(value: functools.partial[Any]) -> Any:
    return "partial", *map(_content, (value.func, value.args, value.keywords))


def _code(code: types.CodeType) -> Any:
    constants = (_code(c) if isinstance(c, types.CodeType) else _content(c) for c in code.co_consts)
    return code.co_code, code.co_names, *constants


def _is_ours(value: Callable[..., Any]) -> bool:
    return str(value.__module__).partition(".")[0] == _PACKAGE


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', 'numpy')}.{getattr(value, '__qualname__', value.__name__)}"
