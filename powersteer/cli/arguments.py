"""The parts of a command: an entry of the table, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import difflib
import json
import warnings
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .._util.atomic import check_writable
from ..errors import InvalidInput, MissingDependency
from ..inputs.sites import HEADS, SITES, near_head, parse_site
from ..model import Model, load

__all__ = [
    "Command",
    "Parser",
    "add_positions",
    "add_prompts",
    "add_sites",
    "add_target_positions",
    "check_page",
    "command_parser",
    "layer_target",
    "load_model",
    "nonempty",
    "number",
    "numbers",
    "read_lines",
    "read_prompts",
    "whole",
    "wholes",
]


class Parser(argparse.ArgumentParser):
    """argparse with errors as one InvalidInput, values that may begin with a dash, and old spellings of options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.renamed = dict[str, str]()  # old spelling -> option

    def add_option(self, name: str, *old: str, **options: Any) -> None:
        """An option, and its spellings of earlier releases, which are read with a warning."""
        self.add_argument(name, **options)
        self.renamed |= dict.fromkeys(old, name)

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
    arguments: Callable[[Parser], None]  # adds those of its own
    run: Callable[[Namespace], int]  # returns the exit code
    json: Mapping[str, str]  # key: meaning, of what --json prints; "a.b": key b of the objects in the list a
    subject: str = "model"  # positional argument: "model", "folder" (of an atlas), or "" for none


def command_parser(name: str, command: Command) -> Parser:
    """The arguments of every command, and those of this one."""
    keys = "\n".join(f"  {key:<25} {meaning}" for key, meaning in command.json.items())
    parser = Parser(
        prog=f"powersteer {name}",
        description=command.summary,
        epilog=f"example:\n  powersteer {name} {command.example}\n\n--json prints one object:\n{keys}",
    )
    if command.subject == "model":
        _add_model(parser)
    elif command.subject:
        parser.add_argument(command.subject, type=nonempty, help="of an atlas, with its atlas.json")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.arguments(parser)
    return parser


def _add_model(parser: Parser) -> None:
    parser.add_argument("model", type=nonempty, help="checkpoint folder, hub id in the Hugging Face cache, or .gguf file")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of the arithmetic (default float32)"
    )
    parser.add_argument("--threads", type=whole, help="default: the physical cores")
    parser.add_argument("--check", action="store_true", help="search all weights for NaN, also of more than 2 GiB")


def load_model(args: Namespace) -> Model:
    return load(args.model, dtype=args.dtype, threads=args.threads, check=args.check or None)


# ---- prompts


def add_prompts(parser: Parser) -> None:
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    parser.add_argument("--prompt-file", action="append", default=[], metavar="FILE", help="a prompt, the whole file")
    parser.add_argument("--prompts", metavar="FILE", help='JSON lines: "text", {"prompt": "text"} or {"messages": [...]}')
    parser.add_argument("--chat", action="store_true", help="render prompts with the model's chat template")


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


def add_sites(parser: Parser) -> None:
    parser.add_argument("--source", type=_site, required=True, help="layer, or a site such as blocks.1.hook_mlp_out")
    parser.add_argument("--target", type=_target, required=True, help="layer, site, next_token or logits")
    parser.add_argument("--source-site", help=f"with a layer: {', '.join(SITES)} (default mlp_out)")
    parser.add_argument("--target-site", help="likewise")


def add_positions(parser: Parser, what: str) -> None:
    parser.add_argument("--positions", type=_positions, help=what)


def add_target_positions(parser: Parser, default: str) -> None:
    parser.add_option("--target-positions", "--positions", dest="positions", type=_positions,
                      help=f"rows of the target: -2: or 3,5 (default: {default})")  # fmt: skip


def _site(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            parse_site(text)
            return text
        except InvalidInput:
            raise ArgumentTypeError(f"{text!r} is neither a layer (3) nor a site (blocks.3.hook_mlp_out)") from None


def _target(text: str) -> Any:
    if hint := near_head(text):
        if text in HEADS:
            return text
        raise ArgumentTypeError(f"{text!r} is not a target: {hint}")
    return _site(text)


def layer_target(text: str) -> Any:
    """A target of an atlas: a layer, or next_token."""
    target = _target(text)
    return target if target in HEADS else whole(text)


def _positions(text: str) -> Any:
    """ "prompt", "-2:", "1:4", "3,5" -> what the API takes"""
    if text in ("all", "prompt", "generated"):
        return text
    try:
        if ":" in text:
            return slice(*(int(part) if part.strip() else None for part in text.split(":")))
        return [int(part) for part in text.split(",")]
    except (ValueError, TypeError):
        raise ArgumentTypeError(f"{text!r} is not a position (-1), a list (3,5) or a range (-2:)") from None


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


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def numbers(text: str) -> list[float]:
    return [number(part) for part in text.split(",")]


def wholes(text: str) -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]"""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a list of whole numbers (0-11 or 0,4,8)") from None
    return found
