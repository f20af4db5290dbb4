"""Rules by which llama.cpp's byte-pair tokenizers split a text before they merge: one row for each value of
tokenizer.ggml.pre.

Where llama.cpp rewrote a pattern for its own regular expressions and quotes the model's pattern, the row has the
model's: cased words of gpt-4o, tekken, tiny_aya, kimi-k2 and youtu, full-width spaces of deepseek-llm and -coder.
Two names are missing: afmoe, whose digits llama.cpp splits in code, and whitespace, of encoders.
"""

from __future__ import annotations

from typing import NamedTuple

import tokenizers
from tokenizers import pre_tokenizers

__all__ = ["PRE", "Pre", "pre_tokenizer"]


class Pre(NamedTuple):
    cuts: tuple[str, ...]  # each splits the pieces of the one before it; the text between two matches is a piece too
    whole: bool = False  # a piece that is a token is not split further
    begins: bool = False  # a text begins with bos_token unless the file has add_bos_token = false
    nfc: bool = False  # characters are composed first
    spaces: bool = False  # tokens are texts with "▁" for a space, not bytes as GPT-2 spells them
    always: bool = False  # a text begins with bos_token in any case


def pre_tokenizer(pre: Pre) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in pre.cuts]
    bytes_ = [] if pre.spaces else [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return pre_tokenizers.Sequence([*parts, *bytes_])


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GAPS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_GAPS}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_SYMBOLS}|{_GAPS}"
_HALVINGS = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _cased(contraction: str, number: str, within: str = "", symbols: str = "/") -> str:
    """Words are cut where an upper-case letter follows a lower-case one. within: a further class of the letters."""
    upper, lower, before = f"[{_UPPER}{within}]", f"[{_LOWER}{within}]", r"[^\r\n\p{L}\p{N}]?"
    words = rf"{before}{upper}*{lower}+{contraction}|{before}{upper}+{lower}*{contraction}"
    return rf"{words}|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n{symbols}]*|{_GAPS}"


_GPT4O = _cased(_CONTRACTION + "?", r"\p{N}{1,3}")
_KIMI = _cased(_CONTRACTION + "?", r"\p{N}{1,3}", r"&&[^\p{Han}]", "")
_QWEN35 = _QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
_LING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_SEED = rf"{_CONTRACTION}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_GAPS}"
_JAIS2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|\s*[\r\n]+|{_HALVINGS}|\s{{1,2}}(?!\S)|\s"
_PHRASE = r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
_EXAONE_MOE = rf"{_CONTRACTION}|{_PHRASE}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
_THREES_FROM_THE_RIGHT = r"\d{1,3}(?=(?:\d{3})*\b)"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_CHINESE = "[一-龥ࠀ-一가-\ud7ff]+"
_PUNCTUATED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, rf"{_PUNCTUATED}[\r\n]*|{_GAPS}")
# letters with a case, of an older Unicode
_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ"
    "Ⴀ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄ"
    "ῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲ"
    "ⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_LLM = (
    r"[\r\n]", rf"\s?[{_LETTERS}]+", "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+$", _CHINESE, r"\p{N}+"
)  # fmt: skip
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK
_CHAMELEON = (
    "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"[\t\n]|    |  ", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", _GPT2
)  # fmt: skip
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LINES = r"[^\n]+|\n+"
_ROWS: tuple[tuple[str, Pre], ...] = (
    (
        "gpt-2 mpt olmo phi-2 jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert roberta-bpe "
        "jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code",
        Pre((_GPT2,)),
    ),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", Pre((r"\p{N}", _GPT2))),
    ("default", Pre((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    ("falcon", Pre((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        Pre((_LLAMA3,), whole=True, begins=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", Pre((_LLAMA3,))),
    ("glm4 glm5", Pre((_LLAMA3,), whole=True)),
    ("jais-2", Pre((_JAIS2,))),
    ("minicpm5", Pre((r"\p{N}{1,3}", _LLAMA3.replace("{1,3}", "+")), whole=True)),
    ("qwen2", Pre((_QWEN2,), nfc=True)),
    ("deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", Pre((_QWEN2,))),
    ("ufakzeka", Pre((_QWEN2.removeprefix(_CONTRACTION + "|"),))),
    ("laguna", Pre((_LINES, _QWEN2))),
    ("qwen35", Pre((_QWEN35,))),
    ("bailingmoe bailingmoe2 llada-moe", Pre((_LING,))),
    ("seed-coder", Pre((_SEED,))),
    ("exaone-moe", Pre((_EXAONE_MOE,))),
    ("tekken", Pre((_cased("", r"\p{N}"),), whole=True, begins=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", Pre((_GPT4O,))),
    ("granite-embed-multi-97m", Pre((_GPT4O,), whole=True)),
    ("tiny_aya cohere2moe", Pre((_THREES_FROM_THE_RIGHT, _GPT4O))),
    ("kimi-k2", Pre((rf"\p{{Han}}+|{_KIMI}",))),
    ("youtu", Pre((_YOUTU, _cased(_CONTRACTION + "?", r"\p{N}")), whole=True)),
    ("deepseek-llm", Pre(_DEEPSEEK_LLM)),
    ("deepseek-coder", Pre((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Pre(_DEEPSEEK3)),
    ("spark2_5", Pre((*_DEEPSEEK3[:2], rf"{_PUNCTUATED}|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"))),
    ("superbpe", Pre((r"\p{N}+", r"(?=(\d{3})+(?!\d))"))),
    ("poro-chat bloom gpt3-finnish", Pre((_BLOOM,))),
    ("viking", Pre((_BLOOM, r"\p{N}"))),
    ("chameleon", Pre(_CHAMELEON, begins=True)),
    ("gemma4 granite-embed-multi-311m", Pre((_LINES,), spaces=True, begins=True, always=True)),
    ("sarvam-moe", Pre((_LINES,), spaces=True)),
)
PRE = {name: pre for names, pre in _ROWS for name in names.split()}
