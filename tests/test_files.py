"""Atomic writes: the old file or the new one, never a part, and nothing left behind."""

from __future__ import annotations

import os
import stat

import pytest

from powersteer._util.atomic import atomic_writer, write_bytes, write_text
from powersteer.errors import InvalidInput, NotFound


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"one")
    assert path.read_bytes() == b"one"
    write_bytes(str(path), b"")
    assert path.read_bytes() == b""
    write_text(path, "zwei ä\n")
    assert path.read_bytes() == "zwei ä\n".encode()
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(error), atomic_writer(path) as file:
        file.write(b"half of the n")
        assert path.read_bytes() == b"old"  # not before it is complete
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_data_is_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda *args: (done.append("rename"), replace(*args)))
    write_bytes(tmp_path / "a.bin", b"x")
    assert done == ["file", "rename", "folder"]


def test_bad_paths_are_refused(tmp_path):
    with pytest.raises(NotFound, match="no folder .*gone.*create it"):
        write_bytes(tmp_path / "gone" / "a.bin", b"")
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "gone" / "a.bin", b"")
    with pytest.raises(InvalidInput, match="is a folder"):
        write_bytes(tmp_path, b"")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_mode_is_what_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a.bin", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept" and (tmp_path / "link").read_bytes() == b"new"


def test_a_very_long_name_is_no_problem(tmp_path):
    path = tmp_path / ("x" * 250)
    write_bytes(path, b"y")
    assert path.read_bytes() == b"y"
