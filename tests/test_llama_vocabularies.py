"""llama.cpp's own vocabulary files: every line of their inputs must become the tokens that lie beside it.

They are in the source package of llama-cpp-python. POWERSTEER_LLAMA_CPP names a folder of llama.cpp's source; without
it, the source package of the llama-cpp-python that is installed is downloaded once, into pytest's cache.
"""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import gguf_vocabs
import pytest

from powersteer.loading.gguf import open_gguf
from powersteer.loading.gguf_tokenizer import gguf_tokenizer

SEPARATOR = "\n__ggml_vocab_test__\n"
NAMES = ["command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3",
         "qwen2", "qwen35", "refact", "starcoder"]  # fmt: skip
WITHOUT_LINES = ["aquila", "baichuan", "gpt-neox"]
ENCODERS = {"bert-bge", "nomic-bert-moe"}


@pytest.fixture(scope="session")
def folder(request):
    """llama.cpp's models/."""
    if given := os.environ.get("POWERSTEER_LLAMA_CPP"):
        return Path(given) / "models"
    if not hasattr(request.config, "cache"):
        pytest.skip("the vocabularies are kept in pytest's cache, which is switched off")
    cache = request.config.cache.mkdir("llama-cpp-python")
    if not (found := list(cache.glob("*/vendor/llama.cpp/models"))):
        unpack_sources(cache)
        found = list(cache.glob("*/vendor/llama.cpp/models"))
    return found[0]


def unpack_sources(cache):
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("give POWERSTEER_LLAMA_CPP, a folder of llama.cpp's source, or install llama-cpp-python")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", cache]
    done = subprocess.run([*command, f"llama-cpp-python=={version}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot download the sources of llama-cpp-python: {done.stderr.strip().splitlines()[-1]}")
    (archive,) = cache.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        members = [one for one in packed if "/vendor/llama.cpp/models/ggml-vocab-" in one.name and one.isfile()]
        packed.extractall(cache, members, filter="data")
    archive.unlink()


def vocabulary(folder, name):
    path = folder / f"ggml-vocab-{name}.gguf"
    fields = open_gguf(path).fields
    return path, gguf_tokenizer(fields, len(fields["tokenizer.ggml.tokens"]), str(path))


def bare(ours, text):
    """Tokens of a text without what is put around it, as the files have them."""
    return ours.encode_chat([{"content": text}], chat_template="{{ messages[0].content }}").tolist()[ours.bos_id is not None :]


@pytest.mark.parametrize("name", NAMES)
def test_every_line(name, folder):
    path, ours = vocabulary(folder, name)
    texts = Path(f"{path}.inp").read_bytes().decode().removesuffix(SEPARATOR).split(SEPARATOR)
    wanted = [[int(token) for token in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    assert len(texts) == len(wanted) > 40
    for text, tokens in zip(texts, wanted, strict=True):
        assert not tokens if not text else bare(ours, text) == tokens, text


@pytest.mark.parametrize("name", NAMES + WITHOUT_LINES)
def test_random_texts_as_llama_cpp(name, folder, rng):
    """Judged by llama.cpp itself, where it is installed."""
    judge = pytest.importorskip("llama_judge")
    path, ours = vocabulary(folder, name)
    with judge.opened(path, vocab_only=True) as model:
        for _ in range(50):
            text = "".join(rng.choice([*gguf_vocabs.TEXTS, *gguf_vocabs.PIECES], 4))
            if name == "qwen2":  # whose tokenizer composes characters, which llama.cpp leaves out
                text = text.replace("e\u0301", "")
            assert ours.encode(text).tolist() == judge.llama_tokens(model, text), text


def test_no_vocabulary_is_left_out(folder):
    names = {path.stem.removeprefix("ggml-vocab-") for path in folder.glob("ggml-vocab-*.gguf")}
    assert names == {*NAMES, *WITHOUT_LINES} | ENCODERS
    assert {path.name.split(".")[0].removeprefix("ggml-vocab-") for path in folder.glob("*.out")} - ENCODERS == {*NAMES}
