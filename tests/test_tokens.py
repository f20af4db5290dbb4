"""Tokenizers and chat templates against transformers, on small tokenizers made here and on a trained one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from powersteer.errors import BadCheckpoint, InvalidInput, NotFound, PowersteerError
from powersteer.inputs.tokenizer import Tokenizer, wrap_tokenizer

transformers.logging.set_verbosity_error()
STORIES = Path(__file__).parents[1].parent / "shared" / "models" / "stories260K"
N_VOCAB = 600
TEXTS = [
    "a",
    "Once upon a time",
    " two  spaces ",
    "line\nbreak\t.",
    "naïve café — 東京 🎉",
    "<s> in text </s>",
    "x</s>y",
    "🙂" * 3,
]

CHAT = """\
{%- if tools %}
    <tools>{{ tools | tojson }}</tools>
{%- endif %}
{% for message in messages %}
    {%- if message.role == 'assistant' %}{% generation %}A: {{ message.content }}{% endgeneration %}
    {%- elif message.role == 'system' and not loop.first %}{{ raise_exception('system must be <b>first</b>') }}
    {%- elif message.content is string %}{{ message.role | upper }}: {{ message.content | trim }}
    {%- else %}{% for part in message.content %}
        {%- if part.type == 'stop' %}{% break %}{% endif %}[{{ part.text }}]
    {%- endfor %}
    {%- endif %}{{ eos_token }}
{% endfor %}
{%- set ns = namespace(last='') %}{% for message in messages %}{% set ns.last = message.role %}{% endfor %}
{%- if add_generation_prompt %}
    {{- '<think>' if enable_thinking is defined and enable_thinking }}A:{{ ns.last }}{{ date or '' }}
{%- endif %}"""
MESSAGES = [
    {"role": "system", "content": ' be <kind> & "brief" '},
    {"role": "user", "content": "Hello <b>you</b>"},
    {"role": "assistant", "content": "Hi", "tool_calls": None},
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "stop"}, {"type": "text", "text": "two"}]},
]


def byte_level(bos=None, eos=None):
    """A byte-level BPE, as GPT-2, Llama 3 and Qwen have."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["Once upon a time there was a little girl. " * 20], trainer)
    return with_ends(backend, bos, eos)


def byte_fallback(bos=None, eos=None):
    """Words with bytes as a last resort, as Llama 2 and Gemma have."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"Onceupatimrsxy.", "é"]
    merges = [("▁", "a"), ("O", "n"), ("c", "e"), ("On", "ce"), ("▁", "Once")]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(words + ["".join(merge) for merge in merges]))}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return with_ends(backend, bos, eos)


def with_ends(backend, bos, eos):
    single = [token for token in (bos, "$A", eos) if token]
    ends = [(token, backend.token_to_id(token)) for token in (bos, eos) if token]
    if ends:
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return backend


KINDS = {"byte_level": byte_level, "byte_fallback": byte_fallback}
ENDS = {"no ends": {}, "bos": {"bos": "<s>"}, "both ends": {"bos": "<s>", "eos": "</s>"}, "eos": {"eos": "</s>"}}


def make(folder, backend, **config):
    """Saves a tokenizer as transformers does. → (ours, transformers')"""
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **config)
    theirs.save_pretrained(folder)
    return Tokenizer.from_folder(folder, N_VOCAB), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def asked(kept, folder, backend, question, **config):
    """(ours, what question(theirs) returns): ours reads the files that transformers saves."""

    def ask():
        _, theirs = make(folder / "theirs", backend, **config)
        return {path.name: path.read_text("utf-8") for path in sorted((folder / "theirs").iterdir())}, question(theirs)

    files, answer = kept(ask)
    (folder / "ours").mkdir()
    for name, text in files.items():
        (folder / "ours" / name).write_text(text, "utf-8")
    return Tokenizer.from_folder(folder / "ours", N_VOCAB), answer


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_texts_are_tokenised_as_by_transformers(tmp_path, kept, kind, ends):
    def question(theirs):
        every = [theirs(text)["input_ids"] for text in TEXTS]
        rows = [[ids, theirs.decode(ids, skip_special_tokens=True), theirs.decode(ids), [theirs.decode([one]) for one in ids]]
                for ids in every]  # fmt: skip
        return {"rows": rows, "bos": theirs.bos_token_id, "eos": theirs.eos_token_id}

    ours, answer = asked(kept, tmp_path, kind(**ends), question)
    for text, (expected, plain, whole, parts) in zip(TEXTS, answer["rows"], strict=True):
        ids = ours.encode(text)
        if "bos" in ends and text.startswith("<s>") and expected[:2] == [ours.bos_id] * 2:
            expected, parts, whole = expected[1:], parts[1:], whole.removeprefix("<s>")  # the one that the text brings is enough
        assert ids.dtype == np.int32 and ids.tolist() == expected
        assert "bos" not in ends or (ids[0] == ours.bos_id and (ids[1:2] != ours.bos_id).all())
        assert ours.decode(ids) == plain
        assert ours.decode(ids, skip_special=False) == whole
        assert ours.to_str_tokens(ids) == parts
    assert (ours.bos_id is not None) == ("bos" in ends)
    assert ours.eos_ids == (answer["eos"],)
    assert ours.special_tokens.items() >= {"<s>": answer["bos"], "</s>": answer["eos"]}.items()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back(kind, text):
    ours = Tokenizer(kind(bos="<s>"), N_VOCAB)
    decoded = ours.decode(ours.encode(text))
    special = any(name in text for name in ("<s>", "</s>", "<unk>"))
    if not special and not (kind is byte_fallback and "▁" in text):
        assert decoded == text


def test_padding_and_truncation_in_the_file_are_ignored(tmp_path):
    backend = byte_level()
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    ours, _ = make(tmp_path, backend)
    assert (
        ours.encode("Once upon a time there was").tolist()
        == Tokenizer(byte_level(), N_VOCAB).encode("Once upon a time there was").tolist()
    )


def test_tokens_that_only_the_configs_name_are_added(tmp_path):
    backend = byte_level()
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", extra_special_tokens=["<|x|>"]
    )
    theirs.save_pretrained(tmp_path / "both")
    folder = tmp_path / "split"
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|end|>"}, "pad_token": "<s>"}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "overridden", "bos_token": null}')
    ours = Tokenizer.from_folder(folder, N_VOCAB)
    assert ours.named["eos_token"] == "<|end|>" and ours.named["pad_token"] == "<s>" and "bos_token" not in ours.named
    assert (
        ours.encode("a<|end|>")[-1] == ours.eos_ids[0] == Tokenizer.from_folder(tmp_path / "both", N_VOCAB).eos_ids[0]
    )
    n = byte_level().get_vocab_size()
    added = {str(n): {"content": "<|a|>", "special": True}, str(n + 1): {"content": "<|b|>"}}
    config = {"added_tokens_decoder": added, "eos_token": "<|a|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.from_folder(folder, N_VOCAB)
    assert ours.eos_ids == (n,) and ours.encode("<|b|>").tolist() == [n + 1] and "pad_token" not in ours.named
    assert ours.decode([n, n + 1]) == "<|b|>" and set(ours.special_tokens) == {"<s>", "</s>", "<|a|>"}
    added[str(n + 5)] = {"content": "<|c|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=rf"'<\|c\|>' id {n + 5}, but the tokenizer gives it {n + 2}"):
        Tokenizer.from_folder(folder, N_VOCAB)


def test_gpt2_files(tmp_path):
    backend = byte_level()
    backend.model.save(str(tmp_path))
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path, N_VOCAB, "gpt2")
    for text in [*TEXTS, "a<|endoftext|>b"]:
        assert ours.encode(text).tolist() == theirs(text)["input_ids"]
    assert ours.eos_ids == (theirs.eos_token_id,) and ours.bos_id is None
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, "add_prefix_space": true}'
    )
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path, N_VOCAB)
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs(text)["input_ids"]
    assert ours.bos_id == theirs.bos_token_id
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')  # splits words otherwise
    with pytest.raises(NotFound, match=r"no tokenizer.json.*only vocab.json.*AutoTokenizer"):
        Tokenizer.from_folder(tmp_path, N_VOCAB)


ADDED_TEXTS = [
    "a<|a|>b <|b|> <|pad|>",
    "xOncey Once upon a time",
    "<|im_end|> girl<x> y  <x>girl",
    "</s><|endoftext|>  z",
    "<|A|> ONCE",
]


def test_old_gpt2_files_with_added_tokens(tmp_path):
    """As they lay on the hub before tokenizer.json."""
    backend = byte_level()
    backend.model.save(str(tmp_path))
    n = backend.get_vocab_size()  # of tokens and merges; <s> and </s> are not special in these files
    write(tmp_path, "added_tokens.json", {"<|b|>": n + 1, "<|a|>": n, "<|pad|>": n + 2})
    write(tmp_path, "special_tokens_map.json", {
        "bos_token": "<|endoftext|>", "pad_token": {"content": "<|pad|>", "lstrip": False, "normalized": True},
        "additional_special_tokens": ["<|im_end|>", "<|a|>"],
    })  # fmt: skip
    theirs = auto_tokenizer(tmp_path)
    ours = Tokenizer.from_folder(tmp_path, N_VOCAB, "gpt2")
    assert same_tokens(ours, theirs)
    assert ours.encode("<|a|><|b|><|pad|>").tolist() == [n, n + 1, n + 2]
    assert ours.special_tokens["<|pad|>"] == theirs.pad_token_id == n + 2 != theirs.eos_token_id


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def auto_tokenizer(folder):
    write(folder, "config.json", {"model_type": "gpt2"})
    return transformers.AutoTokenizer.from_pretrained(folder)


def same_tokens(ours, theirs):
    for text in [*TEXTS, *ADDED_TEXTS]:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text).tolist() == ids, text
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids)
    assert ours._backend.get_added_tokens_decoder().keys() == theirs.added_tokens_decoder.keys()
    assert ours._backend.get_vocab() == theirs.get_vocab()
    assert ours.named == {name: str(token) for name, token in theirs.special_tokens_map.items() if isinstance(token, str)}
    return True


@pytest.mark.parametrize("beside", ["vocab.json", "tokenizer.json"])
def test_tokens_wherever_the_files_name_them(beside, rng, tmp_path):
    """Random folders, each with tokens named here and there, with options, with a name or without, known or new."""
    tokens = ["<|a|>", "<|b|>", "<|pad|>", "<|im_end|>", "<x>", "Once", "<|endoftext|>", "girl", "</s>"]
    names = "bos_token eos_token unk_token pad_token sep_token cls_token mask_token image_token".split()

    def some(n):
        return [str(token) for token in rng.choice(tokens, n, replace=False)]

    def options(token):
        return {"content": token, **{key: bool(rng.random() < 0.5) for key in ("lstrip", "rstrip", "single_word", "normalized")}}

    def naming(**mark):
        """mark: what tokenizer_config.json calls an object."""
        found = {name: some(1)[0] for name in names if rng.random() < 0.3}
        found.update({name: mark | options(token) for name, token in found.items() if rng.random() < 0.5 and name != "image_token"})
        if rng.random() < 0.5:
            found[str(rng.choice(["additional_special_tokens", "extra_special_tokens"]))] = some(2)
        return found

    for i in range(25):
        folder = tmp_path / str(i)
        folder.mkdir()
        backend = byte_level()
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if beside == "vocab.json":
            backend.model.save(str(folder))
            config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": bool(rng.random() < 0.3)}
        else:
            backend.add_tokens([tokenizers.AddedToken("<|b|>", lstrip=True)] if rng.random() < 0.3 else [])
            backend.save(str(folder / "tokenizer.json"))
        n, new = backend.get_vocab_size(), [token for token in some(4) if backend.token_to_id(token) is None]
        write(folder, "tokenizer_config.json", config | naming(__type="AddedToken"))
        if rng.random() < 0.6:
            write(folder, "special_tokens_map.json", naming())
        if rng.random() < 0.3:
            as_list = {str(n + j): options(token) | {"special": bool(rng.random() < 0.5)} for j, token in enumerate(new)}
            write(folder, "tokenizer_config.json", config | naming(__type="AddedToken") | {"added_tokens_decoder": as_list})
        elif rng.random() < 0.6:
            there = {token: backend.token_to_id(token) for token in ("<|b|>", "<s>") if backend.token_to_id(token) is not None}
            write(folder, "added_tokens.json", there | {token: n + j for j, token in reversed(list(enumerate(new)))})
        assert same_tokens(Tokenizer.from_folder(folder, N_VOCAB, "gpt2"), auto_tokenizer(folder))


def test_a_null_takes_a_default_token_away(tmp_path):
    byte_level().model.save(str(tmp_path))
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "bos_token": None})
    ours, theirs = Tokenizer.from_folder(tmp_path, N_VOCAB, "gpt2"), auto_tokenizer(tmp_path)
    assert "bos_token" not in ours.named and theirs.bos_token is None
    assert ours.eos_ids == (theirs.eos_token_id,)


def test_names_of_their_own_for_extra_tokens(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {"video_token": "<x>"}, "image_token": "<|a|>"
    })  # fmt: skip
    ours, theirs = Tokenizer.from_folder(tmp_path, N_VOCAB), auto_tokenizer(tmp_path)
    text = "a<x><|a|>"
    assert ours.encode(text).tolist() == theirs(text)["input_ids"] and ours.decode(ours.encode(text)) == "a"
    assert ours.named["video_token"] == theirs.video_token == "<x>"


@pytest.mark.skipif(not STORIES.is_dir(), reason="the trained model is not beside the repository")
def test_a_trained_tokenizer():
    ours, theirs = Tokenizer.from_folder(STORIES, 512), transformers.AutoTokenizer.from_pretrained(STORIES)
    for text in ["Once upon a time", 'Lily said: "Hi!"', "naïve café 東京 🎉", "a\n\nb", "x  y"]:
        assert ours.encode(text).tolist() == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
    assert ours.bos_id == 1 and ours.eos_ids == (2,)


# ---- chats -----------------------------------------------------------------------------------------------------------

VARIABLES = [
    {}, {"add_generation_prompt": False}, {"enable_thinking": True}, {"date": "today", "enable_thinking": False},
    {"tools": [{"type": "function", "function": {"name": "f<1>", "parameters": {"é": [1, 2.5, None, True]}}}]},
]  # fmt: skip


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_chats_are_rendered_as_by_transformers(tmp_path, kept, variables):
    def question(theirs):
        text = theirs.apply_chat_template(MESSAGES, tokenize=False, **{"add_generation_prompt": True, **variables})
        return text, theirs(text, add_special_tokens=False)["input_ids"]

    ours, (text, tokens) = asked(kept, tmp_path, byte_level(), question, chat_template=CHAT)
    assert ours.render(MESSAGES, **variables) == text
    assert ours.encode_chat(MESSAGES, **variables).tolist() == tokens
    assert "&amp;" not in text and "two" not in text


def test_reasoning_goes_by_all_its_names(tmp_path):
    template = "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}|{{ m.reasoning }};{% endfor %}"
    ours, theirs = make(tmp_path, byte_level(), chat_template=template)
    messages = [
        {"role": "assistant", "content": "x", key: "why"} for key in ("thinking", "reasoning_content", "reasoning")
    ]
    assert ours.render(messages) == theirs.apply_chat_template(messages, tokenize=False)


@pytest.mark.parametrize("written", ["{{ bos_token }}", ""], ids=["in the template", "not in the template"])
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_a_chat_begins_with_bos_exactly_once(tmp_path, ends, written):
    ours, _ = make(
        tmp_path, byte_level(**ends), chat_template=written + "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    ids = ours.encode_chat([{"role": "user", "content": "Once"}]).tolist()
    bos = ours.special_tokens["<s>"]
    assert ids.count(bos) == (1 if written or "bos" in ends else 0)
    assert bos not in ids[1:] and ours.special_tokens["</s>"] not in ids  # no end is added to a chat


def test_where_templates_are_kept(tmp_path):
    ours, _ = make(tmp_path, byte_level())
    message = [{"role": "user", "content": "x"}]
    with pytest.raises(InvalidInput, match="no chat template"):
        ours.render(message)
    assert ours.render(message, chat_template="given {{ messages[0].content }}") == "given x"

    def with_config(template):
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
        return Tokenizer.from_folder(tmp_path, N_VOCAB)

    assert with_config("one").render(message) == "one"
    named = with_config(
        [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r"}]
    )
    assert named.render(message) == "d" and named.render(message, tools=[{}]) == "t"
    assert named.render(message, chat_template="rag") == "r"
    with pytest.raises(InvalidInput, match="there is no chat template 'typo.jinja': it is neither a file"):
        named.render(message, chat_template="typo.jinja")
    with pytest.raises(InvalidInput, match=r"several chat templates.*\['a', 'b'\]"):
        with_config([{"name": "a", "template": ""}, {"name": "b", "template": ""}]).render(message)
    with pytest.raises(BadCheckpoint, match="malformed chat_template"):
        with_config([{"name": "a"}])
    with_config("one")
    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag file")
    ours = Tokenizer.from_folder(tmp_path, N_VOCAB)
    assert ours.render(message) == "file" and ours.render(message, chat_template="rag") == "rag file"


@pytest.mark.parametrize(("template", "words"), [
    ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
    ("{% if %}", "broken at line 1"), ("{{ messages[7].content.x.y }}", "refuses"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"), ("{{ messages[0].content + 1 }}", "TypeError"),
    ("{{ messages.append(1) }}", "refuses"), ("{{ ''.__class__.__mro__ }}", "refuses"),
    ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError"), ("{% set n = namespace(_x=1) %}", "refuses"),
    ("{% include '/etc/passwd' %}", "cannot render|refuses"), ("{{ cycler.__init__.__globals__ }}", "refuses"),
])  # fmt: skip
def test_templates_that_fail_or_misbehave(template, words):
    ours = Tokenizer(byte_level(), N_VOCAB, {}, {"default": template})
    with pytest.raises(InvalidInput, match=words):
        ours.encode_chat([{"role": "user", "content": "x"}])


class Dumped:
    def __init__(self, **fields):
        self.fields = fields

    def model_dump(self):
        return self.fields


ODD_MESSAGES = {
    "none": [],
    "no message at all": (),
    "text": "hello",
    "texts": ["hello"],
    "numbers": [1, 2],
    "null": [None],
    "one is null": [{"role": "user", "content": "x"}, None],
    "no role": [{"content": "x"}],
    "no content": [{"role": "user"}],
    "null content": [{"role": "user", "content": None}],
    "null role": [{"role": None, "content": "x"}],
    "an empty message": [{}],
    "an unknown role": [{"role": "wizard", "content": "x"}],
    "system only": [{"role": "system", "content": "x"}],
    "assistant only": [{"role": "assistant", "content": "x"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]}],
    "no parts": [{"role": "user", "content": []}],
    "parts of text": [{"role": "user", "content": ["x"]}],
    "a number": [{"role": "user", "content": 3}],
    "an object": [Dumped(role="user", content="x", name=None)],
    "an array within": [{"role": "user", "content": np.arange(3)}],
}
ODD_TEMPLATES = {
    "attributes": CHAT,
    "added": "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</s>' }}{% endfor %}{{ 'A:' if add_generation_prompt }}",
    "checked": "{% for m in messages %}{% if m.role not in ['user', 'system'] %}{{ raise_exception('role') }}{% endif %}"
    "{{ m.content }}{% endfor %}A:",
    "first": "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
    "{{ messages | length }}{{ messages[0].content | trim }}A:",
}


@pytest.mark.parametrize("template", ODD_TEMPLATES.values(), ids=ODD_TEMPLATES)
@pytest.mark.parametrize("messages", ODD_MESSAGES.values(), ids=ODD_MESSAGES)
def test_odd_conversations_are_refused_where_transformers_refuses_them(tmp_path, messages, template):
    ours, theirs = make(tmp_path, byte_level(), chat_template=template)
    try:
        wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:
        with pytest.raises(InvalidInput):
            ours.render(messages)
    else:
        assert ours.render(messages) == wanted


def test_what_is_no_conversation():
    ours = Tokenizer(byte_level(), N_VOCAB, {}, {"default": "A:"})
    for messages, words in (
        ([], "the conversation is empty"),
        ("hi", "a list of messages, not str"),
        ({"role": "user", "content": "x"}, "a list of messages, not dict"),
        (None, "a list of messages, not NoneType"),
        ([{}, "hi"], "message 1 is of type str"),
    ):
        for read in (ours.render, ours.encode_chat):
            with pytest.raises(InvalidInput, match=words):
                read(messages)
    with pytest.raises(InvalidInput, match="documents must be dicts"):
        ours.render([{}], documents=["text"])


def test_a_template_sees_plain_data_only():
    class Loud(str):
        def shout(self):
            return "called"

    ours = Tokenizer(
        byte_level(),
        N_VOCAB,
        {},
        {"default": "{{ messages[0].content }}{{ x }}{{ messages[0].content.shout }}{{ n + 1 }}"},
    )
    assert ours.render([{"role": "user", "content": Loud("hi")}], x=object(), n=np.int64(2)) == "hi<object>3"
    with pytest.raises(InvalidInput, match="tools must be JSON schemas"):
        ours.render([{"role": "user", "content": ""}], tools=[print])
    with pytest.raises(InvalidInput, match="continue_final_message is not supported"):
        ours.render([{"role": "user", "content": ""}], continue_final_message=True)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_prompts_that_cannot_be_tokenised():
    ours = Tokenizer(byte_level(), 280)
    with pytest.raises(InvalidInput, match="the prompt is empty"):
        ours.encode("")
    with pytest.raises(InvalidInput, match="cannot read the prompt"):
        ours.encode("half \ud800 a pair")
    with pytest.raises(InvalidInput, match="cannot read the prompt"):
        ours.encode(b"bytes")
    assert Tokenizer(byte_level(bos="<s>"), N_VOCAB).encode("").tolist() == [0]  # an unconditional beginning
    with pytest.raises(
        InvalidInput, match=r"the tokenizer makes '.+' id 28\d \(at position 1\), outside the model's vocabulary of 280"
    ):
        ours.encode("aOnce upon a time there was a little girl")
    for wrong in ([-1], [280], [0, 10**12]):
        with pytest.raises(InvalidInput, match=f"no token id {wrong[-1]}: the vocabulary has 0 to 279"):
            ours.decode(wrong)
    assert ours.decode([]) == ""


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"model": {"type": "BPE"}}', b"[" * 10_000])
def test_damaged_tokenizer_files(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.from_folder(tmp_path, N_VOCAB)


@pytest.mark.parametrize(("file", "content"), [
    ("tokenizer_config.json", "{"), ("tokenizer_config.json", "[]"), ("special_tokens_map.json", "3"),
    ("tokenizer_config.json", '{"added_tokens_decoder": []}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "y"}}}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {}}}'),
    ("added_tokens.json", '{"x": "1"}'), ("added_tokens.json", '{"": 1}'), ("added_tokens.json", '{"x": 1, "y": -1}'),
    ("added_tokens.json", '{"never seen": 7}'), ("tokenizer_config.json", '{"extra_special_tokens": "<x>"}'),
    ("special_tokens_map.json", '{"additional_special_tokens": [1]}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"1": "text"}}'), ("tokenizer_config.json", '{"chat_template": 3}'),
])  # fmt: skip
def test_damaged_configs(tmp_path, file, content):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(content)
    with pytest.raises(BadCheckpoint, match=file.replace(".", r"\.")):
        Tokenizer.from_folder(tmp_path, N_VOCAB)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_tokenizer_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    content = bytearray(byte_fallback(bos="<s>").to_str().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (folder / "tokenizer.json").write_bytes(content)
    try:
        Tokenizer.from_folder(folder, N_VOCAB).encode("Once a")
    except PowersteerError as error:
        assert str(error)


def test_only_other_formats(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(NotFound, match=r"no tokenizer.json.*only tokenizer.model.*AutoTokenizer"):
        Tokenizer.from_folder(tmp_path, N_VOCAB)


# ---- tokenizers of loaded models -------------------------------------------------------------------------------------


def test_the_old_spelling_of_decode():
    ours = wrap_tokenizer(byte_level("<s>", "</s>"), N_VOCAB)
    end = ours.special_tokens["</s>"]
    with pytest.warns(DeprecationWarning, match="skip_special by keyword"):
        assert ours.decode([end], False) == ours.decode([end], skip_special=False) == "</s>"


def test_a_key_twice_in_a_config(tmp_path):
    byte_level("<s>", "</s>").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "bos_token": "</s>"}')
    with pytest.raises(BadCheckpoint, match="'bos_token' twice"):
        Tokenizer.from_folder(tmp_path, N_VOCAB)


def test_wrapping(tmp_path):
    ours, theirs = make(tmp_path, byte_level(bos="<s>"), chat_template=CHAT)
    theirs.backend_tokenizer.enable_padding(length=30)
    for other in (theirs, theirs.backend_tokenizer, ours):
        wrapped = wrap_tokenizer(other, N_VOCAB)
        assert wrapped.encode("Once upon").tolist() == ours.encode("Once upon").tolist()
        assert wrapped.bos_id == ours.bos_id
    assert wrap_tokenizer(theirs, N_VOCAB).render(MESSAGES) == ours.render(MESSAGES)
    assert theirs.backend_tokenizer.padding is not None  # theirs is as it was
    with pytest.raises(InvalidInput, match="str is not a fast tokenizer"):
        wrap_tokenizer("gpt2", N_VOCAB)
