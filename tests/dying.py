"""A worker that dies, importable by a new process in no time."""

import os
import signal


def once(flag):
    """Ends this process, the first time that it is called with this name of a file."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
