"""Standard output and error: every failure is one line for the user and an exit code for a script."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import PowersteerError

__all__ = ["guarded", "print_json"]


def guarded(work: Callable[[], int]) -> int:
    """Run a command and flush its output; returns an exit code of those that powersteer.cli lists."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any text, whatever the terminal's encoding
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _finished(work)
        except PowersteerError as error:
            return _refused(str(error))
        except KeyboardInterrupt:
            _complain("interrupted")
            return 130
        except BrokenPipeError:
            return 141
        except OSError as error:
            where = error.filename or "standard output"
            return _refused(f"cannot read or write {where}: {error.strerror or error}; make room for it or choose another place")
        except MemoryError:
            return _refused("out of memory; take shorter prompts, a smaller k, or a smaller model")
        finally:
            _settle()


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


def _refused(message: str) -> int:
    _complain(message)
    return 2


def _complain(message: str) -> None:
    print(f"powersteer: {' '.join(message.split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _complain(f"warning: {message}")


def print_json(value: Any) -> None:
    """One line, in ASCII: the same for every terminal."""
    print(json.dumps(value))
