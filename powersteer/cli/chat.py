"""`powersteer chat`: a conversation with a steered model, in a terminal or by lines of standard input."""

from __future__ import annotations

import difflib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._util.atomic import write_text
from ..errors import InvalidInput, MissingDependency, PowersteerError
from .arguments import Argument, Command, given, load_model, nonempty, positions
from .console import complain, json_object, print_json
from .conversation import Answer, Conversation

_LEAVE = "Ctrl-C stops an answer; /quit or Ctrl-D ends the conversation"


@dataclass(frozen=True)
class _Order:
    """A line that begins with a slash."""

    arguments: str
    about: str
    run: Callable[[Conversation, str], object]
    names_file: bool = False


def _scale(talk: Conversation, text: str) -> None:
    *which, scale = text.split() or [""]
    if text:
        try:
            at = int(which[0]) if which else None
            value = float(scale)
        except ValueError:
            raise InvalidInput(f"/scale takes a number, or a vector's number and a number, not {text!r}") from None
        if len(which) > 1:
            raise InvalidInput(f"/scale takes one number or two, not {text!r}")
        talk.scale(value, at)
    _list(talk)


def _steer(talk: Conversation, text: str) -> None:
    if text == "none":
        talk.unsteer()
    elif text:
        talk.steer(os.path.expanduser(text))
    _list(talk)


def _list(talk: Conversation) -> None:
    print("\n".join(f"{n}  {line}" for n, line in enumerate(talk.steering(), 1)) or "not steered")


def _compare(talk: Conversation, text: str) -> None:
    if not text and not talk.turns:
        raise InvalidInput("there is no message to compare answers to: give one, as /compare TEXT")
    _answer(talk, text or talk.turns[-1][0], compare=True, again=not text)


def _save(talk: Conversation, text: str) -> None:
    if not text:
        raise InvalidInput("/save takes the name of a file")
    write_text(os.path.expanduser(text), json.dumps(_transcript(talk), ensure_ascii=False) + "\n")
    print(f"{text} is written")


def _help(*_: Any) -> None:
    for name, order in _ORDERS.items():
        print(f"{f'{name} {order.arguments}':<24} {order.about}")
    print(f"//TEXT                   a message that begins with a slash\n{_LEAVE}")


def _quit(*_: Any) -> None:
    raise EOFError


_ORDERS = {
    "/scale": _Order(
        "[NUMBER] SCALE", "strength of all vectors, or of one: a multiple of the site's activation norm", _scale
    ),
    "/steer": _Order(
        "FILE[:SCALE] | none", "add the vectors of a file, or remove all; alone: list them", _steer, names_file=True
    ),
    "/compare": _Order("[MESSAGE]", "answer a message, or the last one again, steered and then unsteered", _compare),
    "/save": _Order("FILE", "write the conversation as JSON, the whole or nothing", _save, names_file=True),
    "/reset": _Order("", "begin anew, steered as now", lambda talk, _: talk.reset()),
    "/help": _Order("", "list these", _help),
    "/quit": _Order("", "end the conversation", _quit),
}


def _chat(args: Namespace) -> int:
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    read = _prompt() if terminal else _line  # refuses before the model is loaded
    options = given(args, "system", "positions", "max_new_tokens", "temperature", "top_k", "top_p", "seed")
    if args.template is not None:
        options["template"] = _template(args.template)
    with redirect_stdout(sys.stderr) if args.json else nullcontext():  # standard output is for the object
        talk = Conversation(load_model(args), **options)
        for file in args.steer:
            talk.steer(file)
        if terminal:
            print(f"{talk.model.name}\n{_LEAVE}; /help lists what else there is")
            _list(talk)
        _converse(talk, read, terminal)
    if args.json:
        print_json(_transcript(talk))
    return 0


def _template(name: str) -> str:
    """The text of a file, or else the name of a template of the model."""
    path = Path(name)
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else name
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the chat template {name}: {error}") from error


def _converse(talk: Conversation, read: Callable[[], str], terminal: bool) -> None:
    """Answer lines until the last. In a terminal an error is shown and the next line read; elsewhere it ends the command."""
    while True:
        try:
            _respond(talk, read().strip())
        except EOFError:
            return
        except KeyboardInterrupt:  # at the prompt; those in an answer are the conversation's
            if not terminal:
                raise
            print(_LEAVE)
        except PowersteerError as error:
            if not terminal:
                raise
            complain(str(error))


def _respond(talk: Conversation, line: str) -> None:
    if not line:
        return
    if not line.startswith("/") or line.startswith("//"):
        _answer(talk, line.removeprefix("/"))
        return
    name, _, text = line.partition(" ")
    if name not in _ORDERS:
        near = difflib.get_close_matches(name, _ORDERS, n=1)
        raise InvalidInput(
            f"there is no {name}: " + (f"did you mean {near[0]}?" if near else "/help lists what there is")
        )
    try:
        _ORDERS[name].run(talk, text.strip())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InvalidInput(f"{name} cannot use {error.filename or text}: {error.strerror or error}") from error


def _answer(talk: Conversation, text: str, **how: bool) -> None:
    """Print the pieces of an answer as they come, each variant under its name if there are two."""
    shown = [""]

    def emit(variant: str, piece: str) -> None:
        if how.get("compare") and variant != shown[0]:
            print("\n" * bool(shown[0]) + f"--- {variant}")
            shown[0] = variant
        print(piece, end="", flush=True)

    answer = talk.ask(text, emit, **how)
    print()
    if answer.finish_reason == "length":
        complain(f"the answer was cut at --max-new-tokens or the end of the context of {talk.model.n_ctx}")


# ---- where lines come from


def _line() -> str:
    """The next line of standard input. Raises EOFError after the last."""
    try:
        line = sys.stdin.readline() if sys.stdin is not None else ""
        line.encode("utf-8")
    except UnicodeError as error:
        raise InvalidInput(f"standard input is not UTF-8 text: {error}") from None
    if not line:
        raise EOFError
    return line


def _prompt() -> Callable[[], str]:
    """A prompt with editing, history and completion. Raises MissingDependency without prompt_toolkit."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion, PathCompleter
        from prompt_toolkit.document import Document
    except ImportError:
        raise MissingDependency("a chat in a terminal needs prompt_toolkit: pip install 'powersteer[chat]'") from None

    class Orders(Completer):
        """Names of orders with what they do, and the files that some of them name."""

        files = PathCompleter(expanduser=True)

        def get_completions(self, document: Any, complete_event: Any) -> Any:
            name, space, rest = document.text_before_cursor.partition(" ")
            if space and name in _ORDERS and _ORDERS[name].names_file:
                yield from self.files.get_completions(Document(rest), complete_event)
            elif name.startswith("/") and not space:
                for known, order in _ORDERS.items():
                    if known.startswith(name):
                        yield Completion(known, -len(name), display_meta=order.about)

    session: Any = PromptSession("> ", completer=Orders())
    return lambda: str(session.prompt())


def _transcript(talk: Conversation) -> dict[str, Any]:
    return json_object(COMMAND.json, talk)


def _of_answers(talk: Conversation) -> list[tuple[Answer]]:
    return [(answer,) for _, answer in talk.turns]


COMMAND = Command(
    summary="A conversation with a model, steered or not; /help in it lists what else it can do.",
    example="path/to/model --steer run/0.safetensors:0.35",
    arguments=(
        Argument("--steer", action="append", default=[], type=nonempty, metavar="FILE[:SCALE]",
                 help="saved vectors, at a multiple of their site's activation norm (default: as saved); may be repeated"),
        Argument("--positions", type=positions, help="where to steer: prompt, generated, 1: or 3,5 (default all)"),
        Argument("--system", metavar="TEXT", help="the system message"),
        Argument("--template", type=nonempty, metavar="FILE",
                 help="chat template in place of the model's: a Jinja file, or the name of one of several"),
        Argument("--max-new-tokens", type=int, default=256, help="of an answer (default 256)"),
        Argument("--temperature", type=float, default=0.0, help="0 (default): greedy"),
        Argument("--top-k", type=int, default=0, help="draw among so many tokens (default 0: all)"),
        Argument("--top-p", type=float, default=1.0, help="draw within this probability (default 1)"),
        Argument("--seed", type=int, default=0, help="of the first answer's draws; the next answer has seed + 1 (default 0)"),
    ),
    run=_chat,
    json={
        "model": ("name, model_type, n_layers, d_model, n_vocab, and weights: their fingerprint", lambda talk: talk.model.identity),
        "messages": ("a list of roles and contents", lambda talk: talk.messages),
        "answers": ("a list, one for each message of the assistant, of objects:", _of_answers),
        "answers.text": "as in its message",
        "answers.unsteered": "the plain model's, after /compare, or null",
        "answers.finish_reason": "stop, length, or interrupted by Ctrl-C",
        "answers.steering": "interventions under which it was generated, described",
    },
)  # fmt: skip
