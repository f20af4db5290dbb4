"""Standard output and error: every failure is one line for the user and an exit code for a script."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ..errors import PowersteerError

__all__ = ["Keys", "complain", "guarded", "json_object", "print_json", "print_result"]

# Of --json: key -> its meaning and how it is read from what the command found; a meaning alone: from the attribute of that
# name of the last thing found. "a.b" is key b of the objects in the list a, whose items are tuples of things found.
Keys = Mapping[str, str | tuple[str, Callable[..., Any]]]


def guarded(work: Callable[[], int]) -> int:
    """Run a command and flush its output; returns an exit code of those that powersteer.cli lists."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any text, whatever the terminal's encoding
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _finished(work)
        except KeyboardInterrupt:
            complain("interrupted")
            return 130
        except BrokenPipeError:
            return 141
        except PowersteerError as error:
            complain(str(error))
        except OSError as error:
            where = error.filename or "standard output"
            complain(f"cannot read or write {where}: {error.strerror or error}; make room for it or choose another place")
        except MemoryError:
            complain("out of memory; take shorter prompts, a smaller k, or a smaller model")
        finally:
            _settle()
    return 2


def _finished(work: Callable[[], int]) -> int:
    try:
        code = work()
    except SystemExit as stop:  # of argparse, after --help and --version
        code = stop.code if isinstance(stop.code, int) else 0
    if sys.stdout is not None:
        sys.stdout.flush()  # here, where its errors are handled
    return code


def _settle() -> None:
    """Drop what cannot be written: Python would report it again at its exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def complain(message: str) -> None:
    print(f"powersteer: {' '.join(message.split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")


def json_object(keys: Keys, *found: Any) -> dict[str, Any]:
    """The object that --json prints."""
    top: dict[str, Any] = {}
    for key, about in keys.items():
        if "." not in key:
            top[key] = getattr(found[-1], key) if isinstance(about, str) else about[1](*found)
            inner = {k.removeprefix(f"{key}."): v for k, v in keys.items() if k.startswith(f"{key}.")}
            if inner:
                top[key] = [json_object(inner, *item) for item in top[key]]
    return top


def print_json(value: Any) -> None:
    """One line, in ASCII: the same for every terminal."""
    print(json.dumps(value, default=asdict))


def print_result(as_json: bool, value: Any, text: object) -> int:
    """Print the value as JSON, or else the text. Returns exit code 0."""
    print(json.dumps(value, default=asdict) if as_json else text)
    return 0
