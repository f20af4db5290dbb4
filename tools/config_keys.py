"""Which keys of a config.json transformers reads, from its own source: writes powersteer/loading/keys_read.py.

    python tools/config_keys.py                             # the table of the installed transformers
    python tools/config_keys.py --why llama sliding_window  # where the code of a family reads a key

A key that no code reads cannot change what a model computes. For each family this walks, by `ast`, the functions,
classes and tables of transformers that its configuration and its causal language model reach by name, and collects
what they read of a configuration:

- attributes: config.X, self.config.X, self.X in a configuration class, and the fields that it declares;
- getattr, hasattr and their kin; where the name is a variable, every constant of that function;
- what a configuration class takes from its keyword arguments, and its other names for a key (attribute_map);
- what the function of each rotary kind takes from its dictionary.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "powersteer/loading/keys_read.py"

# Code that no forward pass runs: it saves, downloads, converts, trains, or generates text, whose settings are
# arguments of ours.
ELSEWHERE = (
    "conversion_mapping core_model_loading distributed dynamic_module_utils generation integrations.accelerate "
    "integrations.deepspeed integrations.fsdp integrations.hub_kernels integrations.peft integrations.tensor_parallel loss "
    "modeling_gguf_pytorch_utils monkey_patching processing_utils quantizers safetensors_conversion utils"
).split()
NAMES = {"config", "text_config", "decoder_config", "effective_config", "layer_config", "config_to_return", "cfg"}
ROPE_NAMES = {"rope_parameters", "rope_parameters_dict", "rope_scaling"}
# methods of a configuration that read, write and compare files of it
FILES = ("from_", "save_", "to_", "get_config_dict", "_get_config_dict", "_dict_from", "update", "push_", "register_",
         "_upload", "_encode", "_decode", "dict_", "__repr__", "__eq__")  # fmt: skip
UNKNOWN: Any = ...


class Read(NamedTuple):
    key: str
    default: Any  # what the code takes without the key; UNKNOWN: it fails, or it takes whatever key there is
    place: str
    asked: bool = False  # it asks whether the key is there: null is not the same as none
    declared: bool = False  # a field of the configuration: it is always there


class Definition(NamedTuple):
    module: str
    name: str
    node: ast.AST


# ---- modules ---------------------------------------------------------------------------------------------------------


def package() -> Path:
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise SystemExit("transformers is not installed")
    return Path(spec.origin).parent


@cache
def module(name: str) -> tuple[dict[str, ast.AST], dict[str, tuple[str, str]]] | None:
    """What a module of transformers defines, and where the names it imports from others come from."""
    path = package().joinpath(*name.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    if not file.is_file():
        return None
    parent = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    defined: dict[str, ast.AST] = {}
    imported: dict[str, tuple[str, str]] = {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parent[: len(parent) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                imported[alias.asname or alias.name] = (".".join(base), alias.name)
    for node in _top_level(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    defined[target.id] = node
    return defined, imported


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from _top_level([*node.body, *node.orelse, *getattr(node, "finalbody", [])])
        else:
            yield node


def find(name: str, where: str) -> Definition | None:
    """What a name of a module stands for, through re-exports; None if transformers does not define it."""
    for _ in range(5):
        here = module(where)
        if here is None or any(where == one or where.startswith(one + ".") for one in ELSEWHERE):
            return None
        if name in here[0]:
            return Definition(where, name, here[0][name])
        if name not in here[1]:
            return None
        where, name = here[1][name]
    return None


def reach(first: Iterable[Definition]) -> list[Definition]:
    """These definitions and all that they name, and so on."""
    found: dict[tuple[str, str], Definition] = {}
    waiting = list(first)
    while waiting:
        one = waiting.pop()
        if (one.module, one.name) in found:
            continue
        found[one.module, one.name] = one
        waiting += named(one)
    return list(found.values())


@cache
def named(one: Definition) -> list[Definition]:
    names = {node.id for node in ast.walk(one.node) if isinstance(node, ast.Name)}
    return [definition for name in sorted(names) if (definition := find(name, one.module))]


# ---- what a definition reads -----------------------------------------------------------------------------------------


def _is_configuration(one: Definition) -> bool:
    """Whether it is a class of configurations, in which self and the keyword arguments are the keys."""
    if not isinstance(one.node, ast.ClassDef):
        return False
    return one.name.endswith(("PreTrainedConfig", "ConfigMixin")) or "PreTrainedConfig" in map(ast.unparse, one.node.bases)


def _is_config(node: ast.AST, own: bool, also: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in NAMES or node.id in also or (own and node.id == "self")
    if isinstance(node, ast.Attribute):
        return node.attr in NAMES
    if isinstance(node, ast.Subscript):  # config.per_layer_config[i]
        return isinstance(node.value, ast.Attribute) and node.value.attr == "per_layer_config"
    if isinstance(node, ast.Call):  # config.get_text_config(), super()
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return name == "get_text_config" or (own and name == "super")
    return False


def _constant(node: ast.AST | None) -> Any:
    if isinstance(node, ast.Call):  # interval(min=0)(default=1)
        node = next((one.value for one in node.keywords if one.arg == "default"), None)
    try:
        return UNKNOWN if node is None else ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


@cache
def _functions(one: Definition) -> list[ast.AST]:
    methods = [node for node in ast.walk(one.node) if isinstance(node, ast.FunctionDef)]
    if _is_configuration(one):
        methods = [node for node in methods if not node.name.startswith(FILES)]
    return [*methods] or [one.node]


@cache
def reads(one: Definition) -> list[Read]:
    return list(_reads(one))


def _reads(one: Definition) -> Iterator[Read]:
    own = _is_configuration(one)
    if own:
        yield from _declared(one)
    for function in _functions(one):
        also = {
            argument.arg
            for argument in (function.args.args + function.args.kwonlyargs if isinstance(function, ast.FunctionDef) else [])
            if argument.annotation is not None and "PreTrainedConfig" in ast.unparse(argument.annotation)
        }  # fmt: skip
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_config(node.value, own, also)
            ):
                also.add(node.targets[0].id)
        for node in ast.walk(function):
            where = f"{one.module}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_config(node.value, own, also):
                yield Read(node.attr, UNKNOWN, where)
            elif isinstance(node, ast.Call):
                yield from _called(node, function, own, also, where)
            elif own and isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "kwargs":
                yield Read(_constant(node.slice), UNKNOWN, where)
            elif own and isinstance(node, ast.Compare) and getattr(node.comparators[0], "id", "") == "kwargs":
                yield Read(_constant(node.left), UNKNOWN, where)


def _called(node: ast.Call, function: ast.AST, own: bool, also: set[str], where: str) -> Iterator[Read]:
    """getattr(config, key, default) and its kin, config._getattr…(key, default), kwargs.pop(key, default)."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in ("getattr", "hasattr") and len(node.args) > 1 and _is_config(node.args[0], own, also):
        arguments = node.args[1:]
    elif "getattr_without" in name or "hasattr_without" in name:
        arguments = node.args
    elif own and name in ("pop", "get") and getattr(getattr(node.func, "value", None), "id", "") == "kwargs":
        arguments = node.args if len(node.args) > 1 else [node.args[0], ast.Constant(None)]
    else:
        return
    key = _constant(arguments[0])
    if isinstance(key, str):
        default = _constant(arguments[1]) if len(arguments) > 1 else UNKNOWN
        yield Read(key, default, where, asked="hasattr" in name)
    elif not isinstance(arguments[0], ast.JoinedStr):  # any of the names at hand
        for one in ast.walk(function):
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.isidentifier():
                yield Read(one.value, UNKNOWN, where)


def _declared(one: Definition) -> Iterator[Read]:
    assert isinstance(one.node, ast.ClassDef)
    for node in one.node.body:
        where = f"{one.module}:{node.lineno}"
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            yield Read(node.target.id, _constant(node.value), where, declared=True)  # type: ignore[union-attr]
        elif isinstance(node, ast.Assign):
            name = node.targets[0].id  # type: ignore[attr-defined]
            value = _constant(node.value)
            if name == "attribute_map":
                for key in value:
                    yield Read(key, UNKNOWN, where, asked=True)
            elif not name.endswith(("_plan", "_defaults", "_class")) and name != "model_type":
                yield Read(name, value, where, asked=True)


def _methods(found: Iterable[Definition]) -> set[str]:
    """Methods of configurations: a config.json with such a key breaks transformers."""
    classes = [one.node for one in found if _is_configuration(one) and isinstance(one.node, ast.ClassDef)]
    methods = [node for one in classes for node in one.body if isinstance(node, ast.FunctionDef)]
    return {one.name for one in methods if not one.decorator_list} | {*dir(object), "__dict__"}


def rope_keys(found: Iterable[Definition]) -> dict[str, set[str]]:
    """Kind of rotary settings → keys that its function takes from their dictionary; "": those that others take."""
    kinds: dict[str, list[str]] = {}
    table = find("ROPE_INIT_FUNCTIONS", "modeling_rope_utils")
    assert table is not None
    for node in ast.walk(table.node):
        if isinstance(node, ast.Dict):
            for key, function in zip(node.keys, node.values, strict=True):
                kinds.setdefault(function.id, []).append(key.value)  # type: ignore
    taken: dict[str, set[str]] = {}
    for one in found:
        for function in _functions(one):
            name = getattr(function, "name", "")
            if "validate_" not in name:  # these only warn
                update = [kind for all_ in kinds.values() for kind in all_ if name.startswith(kind + "_")]
                for kind in kinds.get(name, update or [""]):
                    taken.setdefault(kind, set()).update(_taken(function))
    return taken


@cache
def _taken(function: ast.AST) -> set[str]:
    return set(_subscripts(function))


def _subscripts(function: ast.AST) -> Iterator[str]:
    inner = {part for one in ast.walk(function) if isinstance(one, ast.FunctionDef) and one is not function for part in ast.walk(one)}
    for node in ast.walk(function):
        if node in inner:  # a function of its own
            continue
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            owner, key = node.value, _constant(node.slice)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("get", "pop") and node.args:
            owner, key = node.func.value, _constant(node.args[0])  # type: ignore[attr-defined]
        else:
            continue
        owner = owner.value if isinstance(owner, ast.Subscript) else owner  # of one layer type
        if isinstance(key, str) and getattr(owner, "attr", getattr(owner, "id", "")) in ROPE_NAMES:
            yield key


# ---- the table -------------------------------------------------------------------------------------------------------


def found_in(model_type: str) -> tuple[list[Definition], str, dict[str, str]]:
    """What a family's code reaches, its causal language model, and its configuration's other names for keys."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    folder, model = model_type_to_module_name(model_type), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    config = find(CONFIG_MAPPING_NAMES[model_type], f"models.{folder}.configuration_{folder}")
    language_model = find(model, f"models.{folder}.modeling_{folder}")
    assert config is not None and language_model is not None
    names: dict[str, str] = {}
    for node in ast.walk(config.node):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "attribute_map":
            names = _constant(node.value)
    return reach([config, language_model]), model, names


def keys_of(found: Iterable[Definition]) -> dict[str, list[Read]]:
    found = list(found)
    methods = _methods(found)
    keys: dict[str, list[Read]] = {}
    for one in found:
        for read in reads(one):
            if isinstance(read.key, str) and read.key not in methods:
                keys.setdefault(read.key, []).append(read)
    return keys


def default_of(found: Iterable[Read]) -> Any:
    """What the code takes without a key, UNKNOWN if that is not one constant."""
    found = list(found)
    counting = [one for one in found if one.declared] or [one for one in found if one.asked or one.default is not UNKNOWN]
    defaults = [UNKNOWN if one.asked else one.default for one in counting]
    return defaults[-1] if defaults and all(one == defaults[0] for one in defaults) else UNKNOWN


def table(model_types: Iterable[str]) -> dict[str, Any]:
    """The names in powersteer/loading/keys_read.py → their values."""
    import transformers

    read: dict[str, dict[str, Any]] = {}
    models: dict[str, str] = {}
    other_names: dict[str, dict[str, str]] = {}
    rope: dict[str, set[str]] = {}
    for model_type in model_types:
        found, models[model_type], names = found_in(model_type)
        if names:
            other_names[model_type] = names
        read[model_type] = {key: default_of(all_) for key, all_ in keys_of(found).items()}
        for kind, keys in rope_keys(found).items():
            rope.setdefault(kind, set()).update(keys)
    frozen = {model_type: _frozen(keys) for model_type, keys in read.items()}
    shared = set.intersection(*(set(keys.items()) for keys in frozen.values()))
    return {
        "TRANSFORMERS": transformers.__version__,
        "EVERY": dict(sorted(shared)),
        "FAMILY": {
            model_type: {key: value for key, value in sorted(keys.items()) if (key, value) not in shared}
            for model_type, keys in frozen.items()
        },
        "OTHER_NAMES": other_names,
        "MODELS": models,
        "ROPE": {kind: sorted(keys) for kind, keys in sorted(rope.items())},
    }


def _frozen(keys: dict[str, Any]) -> dict[str, Any]:
    """Defaults that are lists and the like are of no use to compare with."""
    return {key: UNKNOWN if isinstance(value, (list, dict, set, tuple)) else value for key, value in keys.items()}


COLUMNS = {
    "TRANSFORMERS": ("str", "the version that was read"),
    "EVERY": ("Mapping[str, Any]", "key that the code of every family reads → what it takes without it; ...: no one constant"),
    "FAMILY": ("Mapping[str, Mapping[str, Any]]", "the same of single families"),
    "OTHER_NAMES": ("Mapping[str, Mapping[str, str]]", "model_type → name that its configuration has for a key → that key"),
    "MODELS": ("Mapping[str, str]", "model_type → its causal language model"),
    "ROPE": ("Mapping[str, list[str]]", 'kind of rotary settings → keys of its dictionary that are read; "": whatever the kind'),
}  # fmt: skip


def written(values: dict[str, Any]) -> str:
    """The text of powersteer/loading/keys_read.py."""
    lines = ['"""What transformers reads of a config.json. Written by tools/config_keys.py: do not edit."""', "",
             "from __future__ import annotations", "", "from collections.abc import Mapping", "from typing import Any", "",
             "# fmt: off"]  # fmt: skip
    for name, (kind, comment) in COLUMNS.items():
        lines += [f"# {comment}", f"{name}: {kind} = {_text(values[name])}"]
    return "\n".join(lines) + "\n"


def _text(value: Any, indent: str = "") -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if not isinstance(value, (dict, list)):
        return "..." if value is UNKNOWN else repr(value)
    deeper = indent + "    "
    if isinstance(value, list) or not any(isinstance(one, (dict, list)) for one in value.values()):
        items = map(_text, value) if isinstance(value, list) else (f"{_text(k)}: {_text(v)}" for k, v in value.items())
        # a line may break between items, not inside one
        text = ", ".join(item.replace(" ", "\0") for item in items)
        text = textwrap.fill(text, 138, initial_indent=deeper, subsequent_indent=deeper, break_long_words=False)
        text = text.replace("\0", " ")
    else:
        text = ",\n".join(f"{deeper}{_text(k)}: {_text(v, deeper)}" for k, v in value.items()) + ","
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{text}\n{indent}{closing}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--why", nargs=2, metavar=("FAMILY", "KEY"), help="print where the code of a family reads a key")
    arguments = parser.parse_args()
    if arguments.why:
        family, key = arguments.why
        for read in keys_of(found_in(family)[0]).get(key, []):
            print(read.place, "" if read.default is UNKNOWN else f"default {read.default!r}")
        return
    sys.path.insert(0, str(ROOT))
    from powersteer.loading.families import FAMILIES

    TABLE.write_text(written(table(FAMILIES)), encoding="utf-8")


if __name__ == "__main__":
    main()
