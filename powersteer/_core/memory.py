"""Memory that this process may use: what the machine has left, or its control group allows."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes"]

_MEMINFO, _CGROUPS, _OWN = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (folder of the controller, file of the limit, key of the memory in memory.stat that cannot be taken back) of versions 1 and 2
_LIMITS = (("memory", "memory.limit_in_bytes", "total_rss"), ("", "memory.max", "anon"))


def available_bytes() -> int | None:
    """Bytes of memory that are free or hold cached files; None where the system does not tell."""
    known = [_numbers(_MEMINFO).get("MemAvailable:")]
    known[0] = None if known[0] is None else known[0] * 1024
    for controller, limit_file, key in _LIMITS:
        for folder in _groups(controller):
            limit = _number(folder / limit_file)
            if limit is not None:
                known.append(max(0, limit - _numbers(folder / "memory.stat").get(key, 0)))
    return min((n for n in known if n is not None), default=None)


def _groups(controller: str) -> list[Path]:
    """This process's control group and those that contain it, which limit it as well."""
    base, folders = _CGROUPS / controller, []
    for line in _text(_OWN).splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            own = Path(path.lstrip("/"))
            folders += [base / own, *(base / parent for parent in own.parents)]
    return folders


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None  # absent in this version, or "max"


def _numbers(file: Path) -> dict[str, int]:
    """The lines `key number ...` of a file."""
    rows = (line.split() for line in _text(file).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(file: Path) -> str:
    """The text of a file, empty where there is none or it may not be read."""
    try:
        return file.read_text()
    except OSError:
        return ""
