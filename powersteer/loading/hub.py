"""The folder of a checkpoint: given as it is, or by a hub id that is in the Hugging Face cache or is downloaded.

`huggingface_hub` knows the layout of its cache and how to download. The network is used only for a hub id that the
cache lacks or has in part, and never with HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) set.
"""

from __future__ import annotations

import os
from pathlib import Path

from .._util.json_files import read_json
from ..errors import BadCheckpoint, InvalidInput, NotFound
from .safetensors import INDEX, SINGLE

__all__ = ["BUILT_IN", "cache_folder", "check_no_revision", "known_name", "resolve"]

BUILT_IN = {"demo": Path(__file__).parent.parent / "demo/demo_model"}
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def resolve(path_or_id: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint. revision: branch, tag or commit of a hub id; None: "main".

    A checkpoint's folder wins over the built-in model's name, "demo", and any path over a hub id. Raises NotFound; the
    message says which places were searched and how to get the model. Raises InvalidInput for a revision of anything else.
    """
    path = Path(path_or_id).expanduser()
    built_in = path_or_id in BUILT_IN and not (path / "config.json").exists()
    if built_in or path.exists():
        check_no_revision(path_or_id, revision)
    if built_in:
        return BUILT_IN[str(path_or_id)]
    if path.is_dir():
        return path
    if path.exists():
        raise InvalidInput(f"{str(path_or_id)!r} is a file; give the folder of the checkpoint, or a .gguf file")
    name = os.fspath(path_or_id)
    nothing = NotFound(f"there is no folder {name!r}; give the folder of a checkpoint or a hub id such as 'org/name'")
    if not isinstance(path_or_id, str):
        raise nothing
    if revision is None:
        revision = "main"
    elif not isinstance(revision, str) or not revision:
        raise InvalidInput(f"revision is {revision!r}; it must be a branch, a tag or a commit")
    try:
        found = _cached(name, revision)
    except ValueError:  # not a valid id for huggingface_hub
        raise nothing from None
    return found or _download(name, revision)


def check_no_revision(path: str | os.PathLike[str], revision: str | None) -> None:
    """Raise InvalidInput for a revision of what is no hub id."""
    if revision is not None:
        raise InvalidInput(f"revision is {revision!r}, and {os.fspath(path)!r} is no hub id; only a hub's models have revisions")


def cache_folder() -> Path:
    """The hub cache: $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.

    Read at every call: `huggingface_hub` reads the variables once, when it is imported.
    """
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(named or os.path.join(home, "hub"))).expanduser()


def known_name(folder: Path) -> str:
    """Name of a checkpoint's folder: of the built-in model, of the hub id if it is a cached snapshot, or its own."""
    folder = folder.resolve()
    for name, built_in in BUILT_IN.items():
        if folder == built_in.resolve():
            return name
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def _cached(name: str, revision: str) -> Path | None:
    """The snapshot folder if it holds a config and all weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", cache_folder(), revision)
    if not isinstance(config, str) or _lacks_weights(Path(config).parent):
        return None
    return Path(config).parent


def _lacks_weights(snapshot: Path) -> bool:
    """Whether a shard is missing: a download was interrupted, or only other files of the model were requested."""
    if (snapshot / SINGLE).is_file() or not (snapshot / INDEX).is_file():
        return not any(path.is_file() for path in snapshot.glob("*.safetensors"))
    try:
        shards = set(read_json(snapshot / INDEX)["weight_map"].values())
    except (BadCheckpoint, KeyError, AttributeError, TypeError):
        return False  # open_weights reports a damaged index
    return not all(isinstance(shard, str) and (snapshot / shard).is_file() for shard in shards)


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    where = f"there is no folder {name!r}, and no complete model of that id (revision {revision!r}) in {cache_folder()}"
    switch = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    if os.environ.get(switch, "").upper() in ("1", "TRUE", "YES", "ON"):
        raise NotFound(f"{where}; {switch} forbids downloading it, so download it first or unset that")
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, cache_dir=cache_folder()))
    except Exception as error:  # of the network, the server or the disk
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NotFound(f"{where}, and downloading it failed: {reason}") from error
    if not (folder / "config.json").is_file() or _lacks_weights(folder):
        raise NotFound(
            f"{name!r} on the hub (revision {revision!r}) lacks config.json or safetensors, which are what is read of a hub id; "
            "of a repository with GGUF files download one, and give its path"
        )
    return folder
