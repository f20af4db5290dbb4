"""The command line: `powersteer COMMAND ...`, also as `python -m powersteer`.

Results go to standard output, progress and warnings to standard error. Exit codes:

    0    done
    1    the result misses the requested tolerance; it is printed nevertheless
    2    bad input, or a file that cannot be read or written: one line names it and what to do
    130  after Ctrl-C
    141  the reader of the output has closed it, as for any program that SIGPIPE ends
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from .._version import __version__
from ..errors import InvalidInput
from . import atlas, chat, demo, export, generate, info, report, search, svd
from .arguments import Command, Parser, command_parser
from .console import guarded

__all__ = ["COMMANDS", "main"]

_MODULES = (demo, info, svd, atlas, report, generate, chat, search, export)
COMMANDS: dict[str, Command] = {module.__name__.rpartition(".")[2]: module.COMMAND for module in _MODULES}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the shell.

    Parameters
    ----------
    argv
        Words after `powersteer`; None for those of this process.

    Returns
    -------
    int
        The exit code.

    Examples
    --------
    >>> from powersteer.cli import main
    >>> main(["--version"])
    powersteer ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(words))


def _run(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        command = COMMANDS[words[0]]
        return command.run(command_parser(words[0], command).read(words[1:]))
    if words and not words[0].startswith("-"):
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands are {', '.join(COMMANDS)}"
        raise InvalidInput(f"there is no command {words[0]!r}: {hint}")
    listing = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    top = Parser(
        prog="powersteer",
        usage="powersteer COMMAND ...",
        description="Directions that a language model's later layers are sensitive to.",
        epilog=f"commands:\n{listing}\n\n`powersteer COMMAND --help` has an example of each.",
    )
    top.add_argument("--version", action="version", version=f"powersteer {__version__}")
    top.read(words)
    raise InvalidInput(f"no command: the first word must be one of {', '.join(COMMANDS)}")
