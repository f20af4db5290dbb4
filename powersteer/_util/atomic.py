"""Atomic writes: to a temporary file in the same folder, flushed to the disk, then renamed. After a crash the old file or the
new one is there, never a part."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidInput, NotFound

__all__ = ["atomic_writer", "check_writable", "read_text", "write_bytes", "write_text"]


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and is deleted if the block raises.

    Raises NotFound if the folder is missing, InvalidInput if `path` is a folder, OSError as the system reports it
    (full disk, no permission). An existing file is replaced; a symbolic link is replaced, not followed.
    """
    path = _target(path)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    # os.open, not tempfile: its files have mode 0600, other new files the mode of the umask
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # errors of a write have no name
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _target(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"cannot write {str(path)!r}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise NotFound(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; create it first")
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the errors of `atomic_writer` before there is anything to write."""
    with tempfile.TemporaryFile(dir=_target(path).parent):
        return


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, all or nothing. Raises as `atomic_writer`."""
    with atomic_writer(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, all or nothing. Raises as `atomic_writer`."""
    write_bytes(path, text.encode("utf-8"))


def read_text(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a file. Raises InvalidInput for other bytes, OSError as the system reports it."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{os.fspath(path)!r} is not text: byte {error.start} is not UTF-8") from None


def _sync_folder(folder: Path) -> None:
    """Make the rename durable. Windows cannot flush a folder."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
