"""Write a trained run as a Hugging Face folder: config, bfloat16 safetensors, tokenizer and generation settings."""

from __future__ import annotations

import json
from pathlib import Path

import demo_corpus
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from train_demo import load_settings

# A question a turn: what `model.tokens([{"role": "user", "content": "628*8"}])` reads.
CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\nA:"
    "{% else %} {{ m['content'] }}\n{% endif %}{% endfor %}"
)


def tokenizer() -> Tokenizer:
    """Whole words with the space before them, single digits and marks; text decodes to what was encoded."""
    built = Tokenizer(models.WordLevel(demo_corpus.IDS, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Split(Regex(demo_corpus.PIECE), behavior="isolated")
    built.decoder = decoders.Fuse()
    built.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in demo_corpus.SPECIAL])
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", demo_corpus.BOS)]
    )
    return built


def export(run: Path, folder: Path) -> None:
    """run: a folder of train_demo.py; folder: made if absent, files in it are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = torch.load(run / "checkpoint.pt", weights_only=True)["weights"]
    rounded = {name: w.bfloat16().contiguous() for name, w in weights.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    ends = [demo_corpus.EOS, demo_corpus.IDS["\n"]]  # an answer is one line
    texts = {
        "config.json": load_settings(run).shape.config(),
        "generation_config.json": {"bos_token_id": demo_corpus.BOS, "eos_token_id": ends, "do_sample": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False, "model_max_length": load_settings(run).shape.n_ctx, "chat_template": CHAT,
        },
    }  # fmt: skip
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tokenizer().save(str(folder / "tokenizer.json"))
