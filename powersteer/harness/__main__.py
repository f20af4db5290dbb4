"""The command line of lm-evaluation-harness, which knows the model "powersteer" here."""

from __future__ import annotations

import sys

from lm_eval.__main__ import cli_evaluate

from ..cli.console import guarded

__all__ = ["command"]


def command() -> int:
    """Run the command line of lm-eval on sys.argv. Returns the exit code."""
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(command))
