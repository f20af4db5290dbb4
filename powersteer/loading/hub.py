"""Where a model is: a folder, or a hub id looked up in the Hugging Face cache and, if it is not there, downloaded.

The network is reached only for a hub id that the cache lacks, through `huggingface_hub` if that is installed, and
never with HF_HUB_OFFLINE set. The cache's layout:

    models--org--name/refs/main                a commit hash
    models--org--name/snapshots/<commit>/...   the files
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InvalidInput, NotFound

__all__ = ["BUILT_IN", "cache_folder", "known_name", "resolve"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
BUILT_IN = {"demo": Path(__file__).parent.parent / "demo_model"}
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def resolve(path_or_id: str | os.PathLike[str], revision: str = "main") -> Path:
    """The folder of a checkpoint. revision: branch, tag or commit of a hub id.

    A checkpoint's folder wins over the built-in model's name, "demo", any path over a hub id. Raises NotFound, saying where it
    looked and how to get the model.
    """
    path = Path(path_or_id).expanduser()
    if path_or_id in BUILT_IN and not (path / "config.json").exists():
        return BUILT_IN[str(path_or_id)]
    if path.is_dir():
        return path
    if path.exists():
        raise InvalidInput(f"{str(path_or_id)!r} is a file; give the folder of the checkpoint, or a .gguf file")
    name = os.fspath(path_or_id)
    if not isinstance(path_or_id, str) or not _ID.fullmatch(name) or ".." in name:
        raise NotFound(f"there is no folder {name!r}; give the folder of a checkpoint or a hub id such as 'org/name'")
    return _cached(name, revision) or _download(name, revision)


def cache_folder() -> Path:
    """The hub cache: $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def known_name(folder: Path) -> str:
    """What a checkpoint's folder is called: a built-in model's name, the id of a snapshot in a hub cache, or its own."""
    folder = folder.resolve()
    for name, place in BUILT_IN.items():
        if folder == place.resolve():
            return name
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def _cached(name: str, revision: str) -> Path | None:
    """The snapshot folder if it holds a config and weights."""
    repository = cache_folder() / ("models--" + name.replace("/", "--"))
    commit = revision
    reference = repository / "refs" / revision
    if ".." not in revision and reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return None
    snapshot = repository / "snapshots" / commit
    complete = (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors*"))
    return snapshot if complete else None


def _download(name: str, revision: str) -> Path:
    where = f"there is no folder {name!r}, and no complete model of that id (revision {revision!r}) in {cache_folder()}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise NotFound(f"{where}; HF_HUB_OFFLINE forbids downloading it, so download it first or unset that")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise NotFound(
            f"{where}; install huggingface_hub to download it (pip install huggingface_hub), "
            "or download it yourself and give the folder"
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, cache_dir=cache_folder()))
    except Exception as error:  # whatever the network, the server or the disk had to say
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NotFound(f"{where}, and downloading it failed: {reason}") from error
