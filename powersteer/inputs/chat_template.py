"""Chat templates, rendered as transformers renders them: Jinja in a sandbox, over plain data only.

A template comes with a checkpoint, so it is an untrusted program. It gets strings, numbers, lists and dicts, and never
a Python object with other methods.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InvalidInput

__all__ = ["render_chat"]

_REASONING = ("reasoning_content", "thinking", "reasoning")


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """Text of a conversation by a Jinja source, with JSON schemas of `tools`, and `documents` with title and text. Raises
    InvalidInput if a message is not a dict, if there is none, and if the template is broken or refuses the conversation.

    Examples
    --------
    >>> from powersteer.inputs.chat_template import render_chat
    >>> render_chat("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", [{"role": "user", "content": "Hi"}])
    'user: Hi'
    """
    import jinja2

    tools, documents = (None if given is None else list(given) for given in (tools, documents))
    if not all(isinstance(tool, Mapping) for tool in tools or ()):
        raise InvalidInput("tools must be JSON schemas (dicts), such as transformers.utils.get_json_schema makes")
    for document in documents or ():
        if not isinstance(document, Mapping):
            raise InvalidInput(f"documents must be dicts with title and text, not {type(document).__name__}")
    values = {"messages": _messages(messages), "tools": tools, "documents": documents, **variables}
    if "continue_final_message" in variables:
        raise InvalidInput("continue_final_message is not supported; pass the text to continue as a string prompt")
    try:
        return str(_compile(template).render(add_generation_prompt=add_generation_prompt, **_plain(values)))
    except jinja2.TemplateSyntaxError as error:
        raise InvalidInput(f"the model's chat template is broken at line {error.lineno}: {error.message}") from error
    except jinja2.TemplateError as error:
        raise InvalidInput(f"the model's chat template refuses this conversation: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"the model's chat template cannot render this conversation: {type(error).__name__}: {error}"
        ) from error


def _messages(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidInput(f"a conversation is a list of messages, not {type(messages).__name__}")
    plain = []
    for at, given in enumerate(messages):
        if not isinstance(message := _plain(given), dict):
            raise InvalidInput(f"message {at} is of type {type(given).__name__}; a message is a dict of role and content")
        plain.append(_message(message))
    if not plain:
        raise InvalidInput("the conversation is empty; give at least one message")
    return plain


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without null values, and with its reasoning under each name that templates read."""
    plain = {key: value for key, value in message.items() if value is not None}
    for key in _REASONING:
        if key in plain:
            return {"thinking": plain[key], **plain, "reasoning_content": plain[key]}
    return plain


def _plain(value: Any) -> Any:
    """The same data in the types of JSON; a value of any other type becomes the name of its type."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind, convert in _BASES:
        if isinstance(value, kind):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):  # of pydantic
        return _plain(dump())
    return f"<{type(value).__name__}>"


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Mapping, lambda value: {_plain(key): _plain(item) for key, item in value.items()}),
    (list, lambda value: [_plain(item) for item in value]),
    (tuple, lambda value: tuple(_plain(item) for item in value)),
    (np.generic, lambda value: _plain(value.item())),
)


@lru_cache(maxsize=16)
def _compile(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Jinja as transformers sets it up for chat templates."""
    import jinja2
    from jinja2 import ext, nodes, sandbox

    class Generation(ext.Extension):
        """{% generation %} marks the assistant's text for training; it renders as its content."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            lineno = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(lineno)

        def _content(self, caller: Callable[[], str]) -> str:
            return caller()

    class Namespace(jinja2.utils.Namespace):
        """namespace(...) without names that begin with an underscore, which would lead out of the sandbox."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            jinja2.utils.Namespace.__init__(args[0])
            for name, value in dict(*args[1:], **kwargs).items():
                args[0][name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a template may not set {name!r} on a namespace")
            super().__setitem__(name, value)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON without the HTML escapes of Jinja's filter, which would change the text."""
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(
        raise_exception=raise_exception,
        strftime_now=lambda form: datetime.now().strftime(form),
        dict=lambda *args, **kwargs: dict(*args, **kwargs),
        namespace=Namespace,
    )
    return environment
