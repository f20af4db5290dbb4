"""Safetensors whose scales are tensors of their own: the numbers are those of transformers and torch, to the bit."""

from __future__ import annotations

import json

import hf_models
import numpy as np
import pytest
from checkpoints import change_config, change_tensors
from oracles import needs, oracle, safetensors_torch, torch, transformers

import powersteer as ps
from powersteer.errors import BadCheckpoint, UnsupportedModel
from powersteer.loading import load_checkpoint
from powersteer.loading.blocks import BLOCK_TYPES, Blocks
from powersteer.loading.safetensors import open_weights
from powersteer.loading.scaled import Quantization, join_scales

_dequantize_fp8_weight = oracle("transformers.integrations.finegrained_fp8")._dequantize_fp8_weight
convert_moe_packed_tensors = oracle("transformers.integrations.mxfp4").convert_moe_packed_tensors

TOKENS = [5, 1, 44, 17, 9, 58, 3, 3, 20, 31, 2, 60]
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "modules_to_not_convert": ["lm_head"]}


def model_of(arch="qwen3", **changes):
    config_class, arguments = hf_models.BASE[arch]
    config = getattr(transformers, config_class)(**{**arguments, "head_dim": 32, **changes})
    hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    hf_models.fill(hf.requires_grad_(False), 3)
    hf.tie_weights()
    return hf


def quantised(weight, block):
    """(float8_e4m3fn, inverse scales) as transformers quantises: the largest number of a block becomes 448."""
    rows, columns = block or weight.shape
    grid = [-(-n // size) for n, size in zip(weight.shape, (rows, columns), strict=True)]
    scales = torch.ones(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            scales[i, j] = weight[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].abs().max() / 448
    spread = scales.repeat_interleave(rows, 0)[: weight.shape[0]].repeat_interleave(columns, 1)[:, : weight.shape[1]]
    return (weight / spread).to(torch.float8_e4m3fn), scales if block else scales.reshape(())


def fp8_folder(folder, hf, block, dtype=torch.float32):
    """A checkpoint as Qwen3-FP8 is one. The model gets the decoded weights."""
    hf.save_pretrained(folder)
    config = {**json.loads((folder / "config.json").read_text()), "quantization_config": {**FP8, "weight_block_size": block}}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = safetensors_torch.load_file(folder / "model.safetensors")
    parameters = dict(hf.named_parameters())
    for name in [name for name in tensors if "_proj.weight" in name]:
        weight, scales = quantised(tensors[name].float(), block)
        scales = scales.to(dtype)
        tensors[name], tensors[name + "_scale_inv"] = weight, scales
        decoded = _dequantize_fp8_weight(weight, scales, block, torch.float32)
        if name in parameters:
            parameters[name].data = decoded
    safetensors_torch.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("block", "width"), [([128, 128], 160), ([64, 32], 96), (None, 160), ([128, 128], 40), ([24, 20], 96)])
def test_the_numbers_are_those_of_transformers(block, width, dtype, tmp_path):
    """In blocks, with one scale for a matrix; and decoded at load where rows or blocks are not whole runs of 32."""
    hf = model_of(hidden_size=width, intermediate_size=288)
    folder = fp8_folder(tmp_path, hf, block, dtype)
    for real in (np.float32, np.float64):
        ours, theirs = ps.load(folder, dtype=real), ps.from_transformers(hf, dtype=real)
        for tokens in (TOKENS, TOKENS[:1]):
            np.testing.assert_array_equal(ours(tokens), theirs(tokens))
    in_place = width % 32 == 0 and (block is None or block[1] % 32 == 0)
    assert isinstance(ours.spec.layers[0].up, Blocks) == in_place
    assert ("F8_E4M3" in ours.spec.stored) == (in_place or block == [128, 128])  # of down: 288 columns
    assert ours.spec.n_params == theirs.spec.n_params


def test_transformers_reads_the_folder_alike(tmp_path, monkeypatch):
    needs("transformers")
    monkeypatch.setattr("transformers.quantizers.quantizer_finegrained_fp8.is_accelerate_available", lambda: True)
    hf = model_of(hidden_size=128, intermediate_size=256, head_dim=64, num_key_value_heads=2)
    folder = fp8_folder(tmp_path, hf, [128, 128])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    np.testing.assert_array_equal(ps.load(folder)(TOKENS), ps.from_transformers(theirs)(TOKENS))


def test_every_byte_of_float8():
    data = np.arange(256, dtype=np.uint8).reshape(1, 256)
    for factor in (1, 0.3, 1e-40, 3e38):
        got = Blocks("F8_E4M3", data, np.full((1, 1), factor, np.float32), 256).decode()
        theirs = torch.from_numpy(data).view(torch.float8_e4m3fn).float() * torch.tensor(factor, dtype=torch.float32)
        np.testing.assert_array_equal(got, theirs.numpy())


def test_experts(tmp_path):
    hf = model_of("qwen3_moe", hidden_size=64, moe_intermediate_size=96)
    folder = fp8_folder(tmp_path, hf, [32, 32])
    model = ps.load(folder, check=True)
    tensors = safetensors_torch.load_file(folder / "model.safetensors")
    layer = next(i for i, one in enumerate(model.spec.layers) if one.experts)
    for name, slot in (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down")):
        path = f"model.layers.{layer}.mlp.experts.3.{name}.weight"
        want = _dequantize_fp8_weight(tensors[path], tensors[path + "_scale_inv"], [32, 32], torch.float32)
        np.testing.assert_array_equal(getattr(model.spec.layers[layer].experts[3], slot).decode(), want.numpy())
    wanted = ps.load(stacked(folder, tensors))(TOKENS)
    np.testing.assert_array_equal(model(TOKENS), wanted)


def stacked(folder, tensors):
    """The same with the experts of each layer in one tensor, as they are in transformers."""
    groups = {}
    for name in [name for name in tensors if ".experts." in name]:
        layer, e, rest = name.replace(".experts.", " ").replace("_proj.", " ").split()[0], *name.split(".experts.")[1].split(".", 1)
        groups.setdefault((layer, rest), []).append((int(e), tensors.pop(name)))
    stack = {key: torch.stack([one.view(torch.uint8) if one.itemsize == 1 else one for _, one in sorted(group, key=lambda p: p[0])])
             for key, group in groups.items()}  # fmt: skip
    for layer in {layer for layer, _ in stack}:
        for kind in ("weight", "weight_scale_inv"):
            parts = [stack[layer, f"{name}_proj.{kind}"] for name in ("gate", "up", "down")]
            pair = torch.cat(parts[:2], 1), parts[2]
            for name, tensor in zip(("gate_up_proj", "down_proj"), pair, strict=True):
                fp8 = tensor.dtype == torch.uint8
                tensors[f"{layer}.experts.{name}{kind.removeprefix('weight')}"] = tensor.view(torch.float8_e4m3fn) if fp8 else tensor
    safetensors_torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


WEIGHT = "model.layers.1.mlp.up_proj.weight"
SCALES = WEIGHT + "_scale_inv"
DAMAGE = {
    "missing": (lambda t: t.pop(SCALES), f"'{WEIGHT}' in .*no tensor '{SCALES}'"),
    "alone": (lambda t: t.pop(WEIGHT), f"no tensor '{WEIGHT}'"),
    "shape": (lambda t: t.update({SCALES: torch.ones(2, 2)}), rf"'{SCALES}' in .*\(2, 2\).*\(3, 2\).*'{WEIGHT}'"),
    "axes": (lambda t: t.update({SCALES: torch.ones(6)}), rf"'{SCALES}' in .*\(6,\)"),
    "type": (lambda t: t.update({SCALES: torch.ones(3, 2, dtype=torch.int32)}), f"'{SCALES}' in .*has I32"),
    "plain": (lambda t: t.update({WEIGHT: torch.ones(288, 160)}), f"'{SCALES}' in .*does not belong"),
    "weight": (lambda t: t.update({WEIGHT: t[WEIGHT][:250].clone()}), r"has F32 of shape \(3, 2\) where.*\(2, 2\)"),
    "nan scale": (lambda t: t[SCALES][2, 1].fill_(float("nan")), f"'{WEIGHT}' in .*holds NaN"),
    "nan weight": (lambda t: t[WEIGHT].view(torch.uint8)[287, 159].fill_(0xFF), f"'{WEIGHT}' in .*holds NaN"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(change, message, tmp_path):
    folder = fp8_folder(tmp_path, model_of(hidden_size=160, intermediate_size=288), [128, 128])
    change_tensors(folder, change)
    with pytest.raises(BadCheckpoint, match=message) as caught:
        load_checkpoint(folder, check=True)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("given", "error", "message"), [
    *(({"quant_method": name, "bits": 4}, UnsupportedModel, f"quant_method = '{name}'.*unquantised.*GGUF.*fp8")
      for name in ("gptq", "awq", "bitsandbytes", "compressed-tensors")),
    ("int4", UnsupportedModel, "quant_method = 'int4'"),
    ({}, UnsupportedModel, "quant_method = None"),
    ({**FP8, "fmt": "e5m2"}, UnsupportedModel, "fmt = 'e5m2'"),
    ({**FP8, "expert_dtype": "fp4"}, UnsupportedModel, "expert_dtype = 'fp4'"),
    ({**FP8, "weight_block_size": [128]}, BadCheckpoint, r"weight_block_size = \[128\]"),
    ({**FP8, "weight_block_size": [128, 0]}, BadCheckpoint, r"weight_block_size = \[128, 0\]"),
    ({**FP8, "weight_block_size": 128}, BadCheckpoint, "weight_block_size = 128"),
])  # fmt: skip
def test_other_ways_are_refused_by_name(given, error, message, tmp_path):
    model_of().save_pretrained(tmp_path)
    change_config(tmp_path, quantization_config=given)
    with pytest.raises(error, match=message):
        load_checkpoint(tmp_path)


def test_a_block_larger_than_the_matrix(tmp_path):
    """Its factors are repeated for the rows there are, not for 2^31 of them."""
    hf = model_of(hidden_size=64, intermediate_size=96)
    folder = fp8_folder(tmp_path, hf, [128, 128])
    change_config(folder, quantization_config={**FP8, "weight_block_size": [2**31 - 1, 2**31 - 1]})
    up = ps.load(folder).spec.layers[0].up
    assert isinstance(up, Blocks) and up.factors.shape == (96, 1)
    np.testing.assert_array_equal(ps.load(folder)(TOKENS), ps.from_transformers(hf)(TOKENS))


@pytest.mark.parametrize("block", [None, [128, 128]])
@pytest.mark.parametrize("shape", [(0, 160), (288, 0)])
def test_a_matrix_without_rows_or_columns(shape, block, tmp_path):
    folder = fp8_folder(tmp_path, model_of(hidden_size=160, intermediate_size=288), block)
    empty = torch.empty(shape).to(torch.float8_e4m3fn)
    grid = [] if block is None else [-(-n // 128) for n in shape]
    change_tensors(folder, lambda t: t.update({WEIGHT: empty, SCALES: torch.ones(grid)}))
    with pytest.raises(BadCheckpoint, match=f"'{WEIGHT}' in .*has shape"):
        load_checkpoint(folder)


def test_scales_of_activations_are_not_used(tmp_path):
    hf = model_of(hidden_size=64, intermediate_size=96)
    folder = fp8_folder(tmp_path, hf, None)
    change_config(folder, quantization_config={**FP8, "activation_scheme": "static"})
    change_tensors(folder, lambda t: t.update({WEIGHT.removesuffix("weight") + "activation_scale": torch.tensor(0.5)}))
    np.testing.assert_array_equal(ps.load(folder)(TOKENS), ps.from_transformers(hf)(TOKENS))


def mxfp4(folder, rng, change=lambda tensors: None):
    tensors = {"a_blocks": torch.from_numpy(rng.integers(0, 256, (3, 8, 2, 16), dtype=np.uint8)),
               "a_scales": torch.from_numpy(rng.integers(100, 140, (3, 8, 2), dtype=np.uint8))}  # fmt: skip
    change(tensors)
    safetensors_torch.save_file(tensors, folder / "model.safetensors")
    return join_scales(open_weights(folder)[0], Quantization("mxfp4")), tensors


def test_stacks_of_mxfp4(tmp_path, rng):
    """As gpt-oss stores its experts."""
    joined, tensors = mxfp4(tmp_path, rng)
    stack = joined["a"].view()
    assert joined.keys() == {"a"} and joined["a"].shape == (3, 8, 64) and stack.kind in BLOCK_TYPES
    assert joined["a"].nbytes == 3 * 8 * 32
    want = convert_moe_packed_tensors(tensors["a_blocks"], tensors["a_scales"], dtype=torch.float32)
    np.testing.assert_array_equal(stack.decode().reshape(3, 8, 64), want.transpose(1, 2).numpy())


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("a_scales"), "'a_blocks' in .*no tensor 'a_scales'"),
    (lambda t: t.update(a_scales=t["a_scales"][:, :, :1].clone()), r"'a_scales' in .*\(3, 8, 1\).*\(3, 8, 2\)"),
    (lambda t: t.update(a_blocks=t["a_blocks"].float()), "'a_blocks' in .*has F32"),
    (lambda t: t.update(a_blocks=t["a_blocks"][..., :8].clone()), r"'a_blocks' in .*\(3, 8, 2, 8\)"),
])  # fmt: skip
def test_damaged_mxfp4_is_named(change, message, tmp_path, rng):
    with pytest.raises(BadCheckpoint, match=message):
        mxfp4(tmp_path, rng, change)
