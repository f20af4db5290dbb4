"""Rotary tables against the functions of transformers."""

from __future__ import annotations

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, copy, saved
from oracles import oracle, torch, transformers

from powersteer.errors import BadCheckpoint, InvalidInput
from powersteer.loading import load_checkpoint
from powersteer.loading.rope import rope_table

ROPE_INIT_FUNCTIONS = oracle("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
LlamaRotaryEmbedding = oracle("transformers.models.llama.modeling_llama").LlamaRotaryEmbedding

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
ROPES = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.7},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 256},
    {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 256},
    YARN,
    {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0},
    {**YARN, "attention_factor": 1.5},
    {"rope_type": "longrope", "short_factor": [1 + 0.03 * i for i in range(16)], "long_factor": [2.0] * 16,
     "original_max_position_embeddings": 1024},
    {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "factor": 8.0,
     "original_max_position_embeddings": 1024},
]  # fmt: skip


def their_table(values):
    config = transformers.LlamaConfig(
        hidden_size=128, num_attention_heads=4, head_dim=32, max_position_embeddings=2048, rope_parameters=dict(values)
    )
    compute = ROPE_INIT_FUNCTIONS.get(values["rope_type"], LlamaRotaryEmbedding.compute_default_rope_parameters)
    table, scale = compute(config)
    assert table.dtype == torch.float32
    return table.numpy(), scale


@pytest.mark.parametrize("values", ROPES, ids=lambda values: values["rope_type"])
def test_rotary_tables_are_those_of_transformers(values, kept):
    """In every bit, but for PyTorch's float32 power: its vectorised kernels round about one number in a hundred the
    wrong way, not the same ones on all CPUs; its plain kernel rounds as we do (ATEN_CPU_CAPABILITY=default)."""
    same = []
    for theta in (1e3, 10_000, 500_000.0, 999999.4420358813, 5e6):
        one = {**values, "rope_theta": theta}
        ours, (table, scale) = rope_table(one, "config", 32, 2048), kept(lambda one=one: their_table(one))
        assert ours.scale == scale
        np.testing.assert_allclose(ours.inv_freq, table, rtol=6e-7)
        same.append(ours.inv_freq == table)
    assert np.mean(same) > 0.9


def test_longrope_has_another_table_for_long_sequences(kept):
    values = {**ROPES[-2], "rope_theta": 1e4, "long_factor": [2 + 0.1 * i for i in range(16)]}
    ours = rope_table(values, "config", 32, 2048)

    def ask():
        config = transformers.LlamaConfig(
            hidden_size=128, num_attention_heads=4, max_position_embeddings=2048, rope_parameters=dict(values)
        )
        return [ROPE_INIT_FUNCTIONS["longrope"](config, seq_len=length)[0].numpy() for length in (1024, 1025)]

    for table, want in zip((ours.inv_freq, ours.long[0]), kept(ask), strict=True):
        np.testing.assert_allclose(table, want, rtol=6e-7)
    assert ours.long[1] == 1024
    assert rope_table(values, "config", 32, 1024).long is None  # never that long


def test_the_top_level_original_length_wins_as_in_transformers():
    rope = load_checkpoint(saved("phi3-longrope_long")).spec.rope[0]
    assert rope[3] == 4 and len(load_checkpoint(saved("phi3-longrope_short")).spec.rope[0]) == 2


def test_a_null_truncate_is_false_as_in_transformers(tmp_path):
    folder = copy("llama-yarn", tmp_path)
    settings = hf_models.VARIANTS["llama-yarn"]["rope_parameters"]
    tables = []
    for value in (None, False, True):
        change_config(folder, rope_parameters={**settings, "truncate": value})
        theirs = ROPE_INIT_FUNCTIONS["yarn"](transformers.AutoConfig.from_pretrained(folder))[0]
        tables.append(load_checkpoint(folder).spec.rope[0][0])
        np.testing.assert_allclose(tables[-1], theirs, rtol=6e-7)
    assert np.array_equal(tables[0], tables[1]) and not np.array_equal(tables[0], tables[2])


def test_dynamic_scaling_changes_nothing_within_the_context():
    checkpoint = load_checkpoint(saved("llama-dynamic"))
    assert checkpoint.spec.n_ctx == 64 and len(checkpoint.spec.rope[0]) == 2


def test_longrope_across_the_original_length(loaded, kept, rng):
    """Forward passes on both sides of it, and generation from one to the other: there every key turns anew."""
    name, original, new = "phi3-longrope_long", 4, 12
    model = loaded(name)
    for n in (1, original, original + 1, 40):
        prompt = rng.integers(0, model.n_vocab, n)

        def logits(prompt=prompt):
            with hf_models.exact(name) as double:
                return hf_models.run(double, prompt)[0]

        want = kept(logits)
        assert np.abs(model(prompt.tolist()) - want).max() < 1e-12 * np.abs(want).max()
    prompts = [rng.integers(0, model.n_vocab, n).tolist() for n in (1, 3, original, original + 1, 9) for _ in range(3)]
    said = [out.tokens.tolist() for out in model.generate(prompts, max_new_tokens=new, stop=[])]

    def generated(prompt, cache):
        with hf_models.exact(name) as double, torch.no_grad():
            ids = torch.tensor([prompt])
            mask = torch.ones_like(ids)
            return double.generate(ids, attention_mask=mask, max_new_tokens=new, use_cache=cache)[0, len(prompt) :].tolist()

    for prompt, tokens in zip(prompts, said, strict=True):
        for cache in (False, True):
            assert tokens == kept(lambda prompt=prompt, cache=cache: generated(prompt, cache)), (prompt, cache)


def test_dynamic_scaling_beyond_the_context_is_refused(loaded):
    model = loaded("llama-dynamic")
    prompt = list(range(1, 61)) + [1, 2, 3, 4]
    with hf_models.exact("llama-dynamic") as double:
        want = hf_models.run(double, prompt)[0]
    assert np.abs(model(prompt) - want).max() < 1e-12 * np.abs(want).max()
    with pytest.raises(InvalidInput, match=r"65 tokens; the context of .* has 64 \(its rotary scaling 'dynamic'.*shorten"):
        model([*prompt, 5])
    with pytest.raises(InvalidInput, match="context of 64 .*'dynamic'"):
        model.generate(prompt, max_new_tokens=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rope_type": "longrope", "short_factor": [1.0] * 15}, "short_factor list of 16"),
        (
            {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [0.0] * 16},
            "long_factor.*not all positive",
        ),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}, "below low_freq"),
        ({"rope_type": "linear", "factor": True}, "factor = True"),
        ({"rope_type": "linear", "factor": 1e-45}, "no finite rotary table"),
        ({"rope_type": "yarn", "factor": float("inf")}, "factor = inf"),
        ({"rope_type": "yarn", "beta_fast": "32"}, "beta_fast = '32'"),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(values, words):
    with pytest.raises(BadCheckpoint, match=words):
        rope_table({"rope_theta": 1e4, **values}, "config", 32, 2048)
