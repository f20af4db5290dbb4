"""The parts of a command: an entry of the table, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import difflib
import json
import warnings
from argparse import ArgumentTypeError, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .._util.atomic import check_writable
from .._util.checks import check_count
from ..errors import InvalidInput, MissingDependency
from ..inputs.sites import HEADS, near_head, parse_site
from ..model import Model, load
from .console import Keys

T = TypeVar("T")


class Argument:
    """Of a command. old: its spelling of earlier releases; group: its arguments exclude each other; options: of argparse."""

    def __init__(self, name: str, *, old: str = "", group: str = "", **options: Any) -> None:
        self.name, self.old, self.group, self.options = name, old, group, options


class Parser(argparse.ArgumentParser):
    """argparse with errors as one InvalidInput, values that may begin with a dash, old spellings of options, and its own
    reading of int, float and lists of them, which are written 0-3,7 or 0.5,1."""

    def __init__(self, arguments: Sequence[Argument] = (), **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        for kind, convert in {int: whole, float: number, list[int]: wholes, list[float]: numbers}.items():
            self.register("type", kind, convert)
        self.renamed = {about.old: about.name for about in arguments if about.old}
        exclusive = defaultdict[str, Any](self.add_mutually_exclusive_group)
        for about in arguments:
            (exclusive[about.group] if about.group else self).add_argument(about.name, **about.options)

    def read(self, words: Sequence[str]) -> Namespace:
        return self.parse_intermixed_args(self._joined(words))

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file)  # argparse's own ignores a full disk

    def _joined(self, words: Sequence[str]) -> list[str]:
        """`--positions -2:` as `--positions=-2:`, because argparse takes -2: for an option. Unknown options are named
        here, before argparse misses another; old spellings become the new ones."""
        known, joined = self._option_string_actions, list[str]()
        rest = iter(words)
        for word in rest:
            name = word.split("=", 1)[0]
            if new := self.renamed.get(name):
                warnings.warn(f"{name} is now called {new}", FutureWarning, stacklevel=2)
                name, word = new, new + word.removeprefix(name)
            if word == "--":
                return [*joined, word, *rest]
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                self.error(f"there is no argument {name}" + (f": did you mean {near[0]}?" if near else ""))
            if word in known and known[word].nargs is None:
                value = next(rest, None)
                if value is None or value.split("=", 1)[0] in known:
                    self.error(f"argument {word}: its value is missing")
                word += ("=" if word.startswith("--") else "") + value
            joined.append(word)
        return joined


@dataclass(frozen=True)
class Command:
    summary: str
    example: str  # what follows `powersteer NAME`; path/to/model stands for a checkpoint
    run: Callable[[Namespace], int]  # returns the exit code
    json: Keys
    arguments: tuple[Argument, ...] = ()  # of its own
    has_model: bool = True  # whether its first argument is a model


def command_parser(name: str, command: Command) -> Parser:
    """The arguments of every command, and those of this one."""
    keys = "\n".join(f"  {key:<25} {about if isinstance(about, str) else about[0]}" for key, about in command.json.items())
    return Parser(
        (*(_MODEL if command.has_model else ()), _AS_JSON, *command.arguments),
        prog=f"powersteer {name}",
        description=command.summary,
        epilog=f"example:\n  powersteer {name} {command.example}\n\n--json prints one object:\n{keys}",
    )


def given(args: Namespace, *names: str) -> dict[str, Any]:
    """Some arguments, to be passed on by keyword; without those that are None, which are not given."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def load_model(args: Namespace) -> Model:
    return load(args.model, dtype=args.dtype, threads=args.threads, check=args.check or None, revision=args.revision)


@contextmanager
def worker_pools(n: int) -> Iterator[Callable[[], Executor] | None]:
    """A function that makes executors of n processes, the value of --workers; None for n = 0. Raises InvalidInput for n < 0."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    check_count(n, "--workers", least=0)
    with ExitStack() as pools:

        def make() -> Executor:
            pool = ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))
            pools.callback(pool.shutdown, cancel_futures=True)
            return pool

        yield make if n else None


# ---- prompts


CHAT = Argument("--chat", action="store_true", help="render prompts with the model's chat template")
PROMPTS = (
    Argument("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated"),
    Argument("--prompt-file", action="append", default=[], metavar="FILE", help="a prompt, the whole file"),
    Argument("--prompts", metavar="FILE", help='JSON lines: "text", {"prompt": "text"} or {"messages": [...]}'),
    CHAT,
)


def read_prompts(args: Namespace) -> list[Any]:
    """Texts, with --chat or from {"messages": ...} conversations."""
    if args.prompts is not None:
        if args.prompt or args.prompt_file:
            raise InvalidInput("give prompts by --prompts FILE, or by --prompt and --prompt-file")
        return read_lines(args.prompts, args.chat)
    prompts = [_text(text, "--prompt", args.chat) for text in args.prompt]
    for name in args.prompt_file:
        prompts.append(_text(_read(name, "prompt file"), f"the prompt file {name}", args.chat))
    if not prompts:
        raise InvalidInput("no prompt: give --prompt TEXT, --prompt-file FILE or --prompts FILE")
    return prompts


def read_lines(path: str, chat: bool) -> list[Any]:
    """The prompts of a file of JSON lines."""
    lines = _read(path, "prompts").splitlines()
    prompts = [_line(line, f"{path}, line {n}", chat) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise InvalidInput(f"{path} has no prompts")
    return prompts


def _line(line: str, where: str, chat: bool) -> Any:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where} is not JSON: {error}") from None
    text = data.get("prompt") if isinstance(data, dict) else data
    messages = data.get("messages") if isinstance(data, dict) else None
    if isinstance(text, str) and messages is None:
        return _text(text, where, chat)
    if isinstance(messages, list) and messages and text is None:
        return messages
    raise InvalidInput(f'{where} must be "text", {{"prompt": "text"}} or {{"messages": [...]}}')


def _read(name: str, what: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the {what} {name}: {error}") from error


def _text(text: str, where: str, chat: bool) -> Any:
    if not text.strip():
        raise InvalidInput(f"{where} is empty; a prompt needs a text")
    return [{"role": "user", "content": text}] if chat else text


# ---- sites and positions


def target_positions(default: str) -> Argument:
    return Argument("--target-positions", old="--positions", type=positions, metavar="POSITIONS",
                    help=f"rows of the target: -2: or 3,5 (default: {default})")  # fmt: skip


def _argument(what: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Decorator of a function that reads an argument: its ValueError becomes "'text' <what>"."""

    def decorate(read: Callable[[str], T]) -> Callable[[str], T]:
        def convert(text: str) -> T:
            try:
                return read(text)
            except (ValueError, TypeError):
                raise ArgumentTypeError(f"{text!r} {what}") from None

        return convert

    return decorate


@_argument("is neither a layer (3) nor a site (blocks.3.hook_mlp_out)")
def site(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        parse_site(text)
        return text


def target(text: str) -> Any:
    if hint := near_head(text):
        if text in HEADS:
            return text
        raise ArgumentTypeError(f"{text!r} is not a target: {hint}")
    return site(text)


def layer_target(text: str) -> Any:
    """A target of an atlas: a layer, or next_token."""
    return text if target(text) in HEADS else whole(text)


@_argument("is not a position (-1), a list (3,5) or a range (-2:)")
def positions(text: str) -> Any:
    """ "prompt", "-2:", "1:4", "3,5" -> what the API takes"""
    if text in ("all", "prompt", "generated"):
        return text
    if ":" in text:
        return slice(*(int(part) if part.strip() else None for part in text.split(":")))
    return [int(part) for part in text.split(",")]


# ---- names and numbers


def check_page(path: str | Path) -> None:
    """Raise before the computation what would prevent the page from being written."""
    try:
        import plotly.offline  # noqa: F401
    except ImportError:
        raise MissingDependency("a report needs plotly: pip install 'powersteer[report]'") from None
    check_writable(path)


def nonempty(text: str) -> str:
    """Of a file, a folder or a model."""
    if not text.strip():
        raise ArgumentTypeError("the name is empty")
    return text


whole = _argument("is not a whole number")(int)
number = _argument("is not a number")(float)


def numbers(text: str) -> list[float]:
    return [number(part) for part in text.split(",")]


@_argument("is not a list of whole numbers (0-11 or 0,4,8)")
def wholes(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]"""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return found


# ---- arguments of every command

_AS_JSON = Argument("--json", action="store_true", help="one JSON object on standard output")
_MODEL = (
    Argument("model", type=nonempty, help="checkpoint folder, hub id (cached or downloaded), or .gguf file"),
    Argument("--dtype", choices=("float32", "float64"), default="float32", help="of the arithmetic (default float32)"),
    Argument("--threads", type=int, help="default: the physical cores"),
    Argument("--revision", type=nonempty, metavar="NAME", help="branch, tag or commit of a hub id (default main)"),
    Argument("--check", action="store_true", help="search all weights for NaN, also of more than 2 GiB"),
)
