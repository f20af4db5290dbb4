"""Tiny random transformers models of every family, and the oracles built on them with PyTorch: every site captured and
steered by forward hooks, and the dense Jacobian between two sites by torch.func.

transformers computes parts of a model in float32 whatever the model's dtype (norms, softmax, rotary angles), so
`model.double()` alone is an oracle of six digits. Inside `exact(name)` those casts go to float64 instead, except that
a rotary angle is still rounded to float32: that rounding is part of what a checkpoint means. So it has fourteen."""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.numpy
from hf_configs import BASE, VARIANTS
from oracles import LIVE, torch, transformers
from random_checkpoints import Plain, numbers

if LIVE:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

FLOAT32, COS, SIN, POLAR = torch.float32, torch.Tensor.cos, torch.Tensor.sin, torch.polar

# Through its cache transformers computes these otherwise: it does not limit the step of a token alone, and the keys of a short
# prompt keep the short prompt's angles in a long text
NOT_CACHED = ("granitemoehybrid-dense", "bamba-biases", "nemotron_h-one_group", "minicpm3-longrope")
FAMILIES = [name for name in BASE if hasattr(transformers, BASE[name][0])]  # of the installed transformers
CASES = FAMILIES + [name for name in VARIANTS if name.split("-")[0] in FAMILIES]


def arguments_of(name):
    return BASE[name.split("-")[0]][1] | VARIANTS.get(name, {})


def config_of(name):
    return getattr(transformers, BASE[name.split("-")[0]][0])(**arguments_of(name))


def family_of(hf):
    return hf.config.model_type


def fill(hf, seed):
    """Random numbers for every parameter, by the names and shapes that its file has: those of random_checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        hf.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = {name: array.shape for name, array in safetensors.numpy.load_file(path).items()}
        tensors = {name: numbers(family_of(hf), name, shape, seed) for name, shape in shapes.items()}
        safetensors.numpy.save_file(tensors, path, {"format": "pt"})
        filled = type(hf).from_pretrained(folder, config=copy.deepcopy(hf.config), dtype=torch.float32)
    hf.load_state_dict(filled.state_dict())


def make(name, seed=0, stored="float32"):
    """A transformers model of CASES in eval mode, its parameters of the given dtype. Shared: do not change it."""
    return _make(name, seed, stored) if LIVE or seed or stored != "float32" else Plain(name)


@cache
def _make(name, seed, stored):
    auto = transformers.AutoModelForCausalLM
    config = config_of(name)
    if hasattr(config, "num_experts_per_tok"):
        config._experts_implementation = "eager"
    # Falcon counts its biases twice in the other one
    implementation = "sdpa" if getattr(config, "alibi", False) else "eager"
    hf = auto.from_config(config, attn_implementation=implementation).eval().requires_grad_(False)
    fill(hf, seed)
    hf.tie_weights()
    hf.generation_config.update(do_sample=False, eos_token_id=None, bos_token_id=None, pad_token_id=0, use_cache=True)
    hf(torch.arange(8)[None])  # rotary tables that depend on the length are made at the first call: here, in float32
    for p in hf.parameters():
        p.data = p.data.to(getattr(torch, stored))
    return hf


@cache
def _double(name, seed, stored):
    return double(_make(name, seed, stored))


def double(hf):
    """A copy in float64 of a model that has run, whose rotary tables stay numbers of float32."""
    hf = copy.deepcopy(hf).double()
    for module in hf.modules():
        if hasattr(module, "rope_init_fn"):  # a table that is made at every call stays one of float32
            module.rope_init_fn = partial(lambda made, config: made, module.rope_init_fn(hf.config))
        if hasattr(module, "embed_positions") and hasattr(module, "pos_embd_dim"):  # a table, that is float32 otherwise
            dim = module.pos_embd_dim
            inv_freq = 1.0 / (10000 ** (torch.arange(0, dim, 2, dtype=torch.int64) / dim))
            angle = (torch.arange(module.max_positions).float()[:, None] * inv_freq).double()
            module.embed_positions = torch.cat((angle.sin(), angle.cos()), dim=1)
    return hf


@contextlib.contextmanager
def exact(name, seed=0, stored="float32"):
    """Yields the model of `make` in float64, for `exactly`."""
    hf = _double(name, seed, stored)  # made before the casts change: its rotary frequencies are float32 numbers
    with exactly(hf):
        yield hf


@contextlib.contextmanager
def exactly(hf):
    """Inside, transformers' casts to float32 are casts to float64, but rotary angles are still rounded to float32."""
    def of_angle(f):
        return lambda x: f(x.to(FLOAT32).to(torch.float64))

    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64), \
         mock.patch.multiple(torch.Tensor, float=torch.Tensor.double, cos=of_angle(COS), sin=of_angle(SIN)), \
         of_one_family(sys.modules[type(hf).__module__]):
        yield


def of_one_family(module):
    """What exact() changes in the code of a family beside casts."""
    if hasattr(module, "Llama4TextAttention"):  # it turns complex numbers
        return mock.patch.object(torch, "polar", lambda size, angle: POLAR(size, angle.to(FLOAT32).to(torch.float64)))
    if hasattr(module, "GeLUFunction"):  # its own derivative has constants of ten digits, and torch.func cannot take it
        return mock.patch.object(module.GeLUFunction, "apply", module.bloom_gelu_forward)
    if hasattr(module, "get_llama_4_attn_scale"):  # the logarithm of integers, which are no float64
        scale = module.get_llama_4_attn_scale
        return mock.patch.object(module, "get_llama_4_attn_scale", lambda positions, *args: scale(positions.double(), *args))
    return contextlib.nullcontext()


# ---- sites ----


@dataclass(frozen=True)
class Parts:
    """Module names within a block. post1, post2: the norms behind attention and MLP; inner: what takes resid_mid; mixers: what
    stands in the place of attention where that is absent; beside: what is added to the output of the MLP, where it exists."""

    attn: str = "self_attn"
    mixers: tuple[str, ...] = ("conv", "linear_attn", "mamba")
    post1: str | None = None
    inner: str = "post_attention_layernorm"
    post2: str | None = None
    down: str = "mlp.down_proj"
    mlp: str = "mlp"
    beside: str | None = None


POST_NORMS = dict(post1="post_attention_layernorm", post2="post_feedforward_layernorm")
PARTS = {
    "gpt2": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_bigcode": Parts(attn="attn", inner="ln_2", down="mlp.c_proj"),
    "gpt_neo": Parts(attn="attn.attention", inner="ln_2", down="mlp.c_proj"),
    "gptj": Parts(attn="attn", down="mlp.fc_out"),
    "codegen": Parts(attn="attn", down="mlp.fc_out"),
    "opt": Parts(inner="final_layer_norm", down="fc2", mlp="fc2"),
    # these modules return the sum with the residual stream
    "bloom": Parts(attn="self_attention.dense", down="mlp.dense_4h_to_h", mlp="mlp.dense_4h_to_h"),
    "mpt": Parts(attn="attn", inner="norm_2", down="ffn.down_proj", mlp="ffn.down_proj"),
    "falcon": Parts(attn="self_attention", down="mlp.dense_4h_to_h"),
    "nanochat": Parts(down="mlp.fc2"),
    "apertus": Parts(inner="feedforward_layernorm"),
    "olmo3": Parts(inner="mlp", **POST_NORMS),
    "exaone4": Parts(inner="mlp", **POST_NORMS),
    "glm4": Parts(post1="post_self_attn_layernorm", post2="post_mlp_layernorm"),
    "gpt_neox": Parts(attn="attention", down="mlp.dense_4h_to_h"),
    "phi": Parts(down="mlp.fc2"),
    "gemma2": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "gemma3_text": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "gemma4_text": Parts(inner="pre_feedforward_layernorm", **POST_NORMS),
    "olmo2": Parts(inner="mlp", **POST_NORMS),
    "starcoder2": Parts(down="mlp.c_proj"),
    "lfm2": Parts(inner="ffn_norm", mlp="feed_forward", down="feed_forward.w2"),
    "granitemoe": Parts(mlp="block_sparse_moe"),
    "llama4_text": Parts(mlp="feed_forward", down="feed_forward.down_proj"),
    "granitemoehybrid": Parts(mlp="shared_mlp", down="shared_mlp.output_linear", beside="block_sparse_moe"),
    "bamba": Parts(inner="pre_ff_layernorm", mlp="feed_forward", down="feed_forward.down_proj"),
    "nemotron_h": Parts(attn="mixer", mlp="mixer", down="mixer.down_proj"),
}


def is_parallel(hf):
    c = hf.config
    parallel = getattr(c, "use_parallel_residual", getattr(c, "parallel_attn", False))
    return family_of(hf) in ("phi", "cohere", "cohere2", "gptj", "codegen") or parallel


EVERY = ("resid_pre", "attn_out", "resid_mid", "down_proj", "mlp_out", "resid_post")
OF_ONE_BRANCH = {True: ("resid_pre", "attn_out", "resid_post"), False: ("resid_pre", "down_proj", "mlp_out", "resid_post")}


def site_names(hf, layer=None):
    """The sites of a layer; None: those that some layer has."""
    if family_of(hf) == "nemotron_h" and layer is not None:  # whose layers are a mixer, an MLP or a mixture alone
        return OF_ONE_BRANCH[hf.config.layer_types[layer] in ("linear_attention", "full_attention")]
    return tuple(s for s in EVERY if not (s == "resid_mid" and (is_parallel(hf) or family_of(hf) == "nemotron_h")))


def layers_with(hf, site):
    return [layer for layer in range(hf.config.num_hidden_layers) if site in site_names(hf, layer)]


def near(hf, layer, site):
    """The place, or the output of the layer's only branch if the layer lacks the site."""
    if site in site_names(hf, layer):
        return layer, site
    return layer, next(s for s in ("mlp_out", "attn_out", "resid_post") if s in site_names(hf, layer))


def module_at(block, path):
    """The module of a block, None if this block lacks it."""
    return dict(block.named_modules()).get(path)


def blocks(hf):
    base = getattr(hf.base_model, "decoder", getattr(hf.base_model, "model", hf.base_model))
    return next(getattr(base, name) for name in ("h", "blocks", "layers") if hasattr(base, name))


def has_attention(hf, layer):
    block = blocks(hf)[layer]
    attends = getattr(block, "block_type", "full_attention") == "full_attention"
    return attends and module_at(block, PARTS.get(family_of(hf), Parts()).attn) is not None


def is_mixture(hf, layer):
    parts, block = PARTS.get(family_of(hf), Parts()), blocks(hf)[layer]
    return any(hasattr(module_at(block, path), "experts") for path in (parts.mlp, parts.beside) if path)


def locate(hf, layer, site):
    """-> (module, whether the site is its input, factor between the module's value and the site's)"""
    parts, block = PARTS.get(family_of(hf), Parts()), blocks(hf)[layer]
    if (layer, site) == (0, "resid_pre") and hasattr(hf.base_model, "embed_tokens_per_layer"):
        return hf.base_model.embed_tokens, False, 1.0  # of which inputs of layers are made, too
    scale = getattr(block, "residual_scale", getattr(hf.config, "residual_multiplier", 1.0))
    down = parts.mlp if is_mixture(hf, layer) else parts.down  # of a mixture its sum, but for what is beside it
    attn = next((path for path in (parts.attn, *parts.mixers) if module_at(block, path) is not None), parts.attn)
    path, is_input, factor = {
        "resid_pre": ("", True, 1.0),
        "attn_out": (parts.post1 or attn, False, scale),
        "resid_mid": (parts.inner, True, 1.0),
        "down_proj": (down, False, 1.0),
        "mlp_out": (parts.post2 or parts.mlp, False, scale),
        "resid_post": ("", False, 1.0),
    }[site]
    return block.get_submodule(path), is_input, factor


def watch(hf, layer, site, change):
    """`change` maps the activation (1, T, C) at a site to a new one, or to None to leave it. -> the hooks' handles"""
    module, is_input, scale = locate(hf, layer, site)
    path = PARTS.get(family_of(hf), Parts()).beside if site in ("down_proj", "mlp_out") else None
    beside, there = module_at(blocks(hf)[layer], path), {}

    def new(x):
        rows = x.reshape(-1, *x.shape[-2:])  # experts are given (T, C)
        value = (rows + there["x"].reshape(rows.shape) if there else rows) * scale
        y = change(value)
        return x if y is None else (rows + (y - value) / scale).reshape(x.shape)

    def before(_, args, kwargs):
        return (new(args[0]), *args[1:]), kwargs

    def after(_, args, output):
        return (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)

    if is_input:
        return [module.register_forward_pre_hook(before, with_kwargs=True)]
    handles = [module.register_forward_hook(after)]
    if beside is not None:
        handles.append(beside.register_forward_hook(lambda _, __, output: there.update(x=output)))
    return handles


@contextlib.contextmanager
def hooked(hf, steer=(), capture=()):
    """Adds `steer` = [(layer, site, vector, positions)], positions a slice, a list, or None for every one; with a number behind
    it sets the coefficient along the vector, of length 1, to it. Records `capture` = [(layer, site)] in the dict it yields.
    A row's index is its position: use a cache only with None. A vector at resid_mid changes attn_out, for the residual
    stream has no module of its own there."""
    record, handles, entered = {}, [], {}

    def changer(layer, site, vector, positions, coefficient=None):
        def change(x):
            here = torch.zeros(x.shape[1], 1, dtype=x.dtype)
            here[slice(None) if positions is None else positions] = 1
            if coefficient is None:
                return x + here * vector
            whole = x + entered[layer] if site == "resid_mid" else x
            return x + here * (coefficient - whole @ vector)[..., None] * vector
        return change

    def enter(layer):
        def read(x):
            entered[layer] = x
        return read

    def recorder(place):
        def change(x):
            record[place] = x.clone()  # Falcon adds to it in place
        return change

    changes = []  # in the order in which the hooks of a module run: down_proj and mlp_out can be outputs of the same
    for layer, site, vector, *how in steer:
        vector = torch.as_tensor(vector).to(hf.dtype)
        changes.append((layer, "attn_out" if site == "resid_mid" else site, changer(layer, site, vector, *how)))
    changes += [(layer, "resid_pre", enter(layer)) for layer in {layer for layer, site, *_ in steer if site == "resid_mid"}]
    changes += [(*place, recorder(place)) for place in capture]
    try:
        for change in sorted(changes, key=lambda change: change[1] == "mlp_out"):
            handles += watch(hf, *change)
        yield record
    finally:
        for handle in handles:
            handle.remove()


def run(hf, tokens, steer=(), capture=()):
    """-> logits (T, n_vocab), {(layer, site): (T, C)} as NumPy arrays"""
    with torch.no_grad(), hooked(hf, steer, capture) as record:
        logits = hf(torch.as_tensor(np.asarray(tokens))[None].long(), use_cache=False).logits[0]
    return logits.numpy(), {place: x[0].numpy() for place, x in record.items()}


def jacobian(hf, prompts, source, target, source_positions=None, target_positions=None, mean=False, steer=()):
    """Dense Jacobian by torch.func, as reference.jacobian; target: (layer, site), "logits" or "next_token".

    For next_token the rows are d(2 sqrt(p))/dv: |d 2 sqrt(p)|^2 is the Fisher metric, and D (dlogits - 1 p'dlogits)
    with D = diag sqrt p is the same thing written out."""
    capture = [] if isinstance(target, str) else [target]
    settings = getattr(hf.config, "rope_parameters", None) or {}
    updates_in_place = settings.get("rope_type") == "longrope"  # its tables: torch.func refuses that
    rows = []
    for i, tokens in enumerate(prompts):
        here = None if source_positions is None else source_positions[i]
        if target_positions is not None:
            there = list(target_positions[i])
        else:
            there = [len(tokens) - 1] if isinstance(target, str) else list(range(len(tokens)))
        ids = torch.as_tensor(np.asarray(tokens))[None].long()

        def value(v, here=here, there=there, ids=ids):
            with hooked(hf, [*steer, (*source, v, here)], capture) as record:
                logits = hf(ids, use_cache=False).logits
            x = (logits if isinstance(target, str) else record[target])[0][there]
            if target == "next_token":
                x = 2 * torch.softmax(x, -1).sqrt()
            return x.mean(0) if mean else x.reshape(-1)

        v = torch.zeros(hf.config.hidden_size, dtype=hf.dtype)
        if updates_in_place:
            rows.append(torch.autograd.functional.jacobian(value, v))
        else:
            rows.append(torch.func.jacrev(value)(v))
    return torch.cat(rows).numpy()


# ---- inside attention and MLP ----


def sees_other_keys(block):
    return getattr(getattr(block, "self_attn", None), "is_kv_shared_layer", False)


# family -> paths of what makes q, k and v, the gate (or what stands in its place), what multiplies it, and what takes the product
SPLIT_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PLAIN = (SPLIT_QKV, "mlp.up_proj", None)
INNER = {
    **dict.fromkeys(("arcee", "nemotron", "jais2", "apertus"), PLAIN),
    "nanochat": (SPLIT_QKV, "mlp.fc1", None),
    "glm": (SPLIT_QKV, "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "glm4": (SPLIT_QKV, "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "gpt_bigcode": (("attn.c_attn",), "mlp.c_fc", None),
    "gpt_neo": (("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"), "mlp.c_fc", None),
    "gptj": (("attn.q_proj", "attn.k_proj", "attn.v_proj"), "mlp.fc_in", None),
    "codegen": (("attn.qkv_proj",), "mlp.fc_in", None),
    "opt": (SPLIT_QKV, "fc1", None),
    "bloom": (("self_attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "falcon": (("self_attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "mpt": (("attn.Wqkv",), "ffn.up_proj", None),
    "gpt2": (("attn.c_attn",), "mlp.c_fc", None),
    "gpt_neox": (("attention.query_key_value",), "mlp.dense_h_to_4h", None),
    "phi": (SPLIT_QKV, "mlp.fc1", None),
    "phi3": (("self_attn.qkv_proj",), "mlp.gate_up_proj", "mlp.gate_up_proj"),
    "starcoder2": (SPLIT_QKV, "mlp.c_fc", None),
    "lfm2": (SPLIT_QKV, "feed_forward.w1", "feed_forward.w3"),
    "llama4_text": (SPLIT_QKV, "feed_forward.gate_proj", "feed_forward.up_proj"),
    "bamba": (SPLIT_QKV, "feed_forward.gate_proj", "feed_forward.up_proj"),
    "granitemoehybrid": (SPLIT_QKV, "shared_mlp.input_linear", "shared_mlp.input_linear"),
    "nemotron_h": (("mixer.q_proj", "mixer.k_proj", "mixer.v_proj"), "mixer.up_proj", None),
}


# family with attention of its own -> (path of attention, of what takes the heads' outputs)
OWN_ATTENTION = {
    "gpt_neo": ("attn.attention", "attn.attention.out_proj"),
    "bloom": ("self_attention", "self_attention.dense"),
    "falcon": ("self_attention", "self_attention.dense"),
    "mpt": ("attn", "attn.out_proj"),
}


def split_qkv(hf, made, heads, kv, width):
    """q, k and v of all heads, (T, heads, width) each, from the outputs of the projections."""
    family, groups = family_of(hf), 1
    if len(made) == 1:
        if family in ("gpt_neox", "bloom", "falcon", "gpt_bigcode"):
            groups = kv  # the heads of each group of keys, its key and its value beside each other
        if family == "codegen":
            groups = 4
        sizes = [n * width // groups for n in (heads, kv, kv)]
        made = made[0].reshape(len(made[0]), groups, -1).split(sizes, -1)
    if family == "codegen":
        made = (made[0], made[2], made[1])
    clip = getattr(getattr(hf.config, "attn_config", None), "clip_qkv", None)  # OLMo clips in place
    if clip:
        made = [x.clamp(-clip, clip) for x in made]
    return [x.reshape(len(x), -1, width) for x in made]


# families of latent attention; without q_lora_rank they have q_proj
LATENT_QKV = ("self_attn.q_b_proj", "self_attn.kv_b_proj", "self_attn.kv_a_proj_with_mqa")
LATENT = ("deepseek_v3", "glm4_moe_lite", "minicpm3")


def latent_qk(hf, made, heads, width):
    """q and k of all heads, (T, heads, width) each, before they are rotated: all heads have the same last part of k."""
    of_heads, shared = (made[i].reshape(len(made[i]), n, -1) for i, n in ((1, heads), (2, 1)))
    plain, turned = hf.config.qk_nope_head_dim, hf.config.qk_rope_head_dim
    k = torch.cat([of_heads[..., :plain], shared[..., -turned:].expand(-1, heads, -1)], -1)
    return made[0].reshape(-1, heads, width), k


def in_pairs(hf, x):
    """A head's rotated dimensions in the order in which they are stored: transformers leaves the first of all pairs before the
    second."""
    turned = hf.config.qk_rope_head_dim
    halves = x[..., -turned:].reshape(*x.shape[:-1], 2, -1)
    return torch.cat([x[..., :-turned], halves.transpose(-1, -2).flatten(-2)], -1)


def inside(hf, tokens, steer=()):
    """What is computed inside attention and MLP, {(layer, name): array}, by powersteer's short names: the outputs of the
    projections, the arguments and results of the attention function, the input of the down-projection."""
    family, found, handles = family_of(hf), {}, []
    qkv, pre, linear = INNER.get(family, (SPLIT_QKV, "mlp.gate_proj", "mlp.up_proj"))
    if family in LATENT:
        qkv = LATENT_QKV if hf.config.q_lora_rank else ("self_attn.q_proj", *LATENT_QKV[1:])
    module = sys.modules[type(hf).__module__]
    attention = getattr(module, "eager_attention_forward", None)
    turn = getattr(module, "apply_rotary_pos_emb", None)
    shape = {}  # (query heads, key heads, width) of each layer

    def attend(block, query, key, value, *args, **kwargs):
        z, pattern = attention(block, query, key, value, *args, **kwargs)
        layer = block.layer_idx
        shape[layer] = query.shape[1], key.shape[1], query.shape[-1]
        if family == "opt":
            query = query / block.scaling
        rows = {"rot_q": query, "rot_k": key, "v": value}
        found.update({(layer, name): x[0].transpose(0, 1) for name, x in rows.items()})
        found[layer, "pattern"], found[layer, "z"] = pattern[0], z[0]
        return z, pattern

    def output(place):
        return lambda _, __, x: found.__setitem__(place, x.reshape(-1, x.shape[-1]))

    def argument(place):
        return lambda _, args: found.__setitem__(place, args[0].reshape(-1, args[0].shape[-1]))

    def turned(q, k, *args):
        q, k = turn(q, k, *args)
        found.setdefault("turned", []).append((q[0].transpose(0, 1), k[0].transpose(0, 1)))
        return q, k

    def weights(layer):
        return lambda _, __, x: found.__setitem__((layer, "pattern"), x[1][0])

    for layer, block in enumerate(blocks(hf)):
        for i, path in enumerate(qkv if has_attention(hf, layer) else ()):
            if "." in path and getattr(block.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], None) is None:
                continue  # the layer sees other keys, or its values are its keys
            handles.append(block.get_submodule(path).register_forward_hook(output((layer, i))))
        if family in OWN_ATTENTION:
            attn, out = map(block.get_submodule, OWN_ATTENTION[family])
            handles.append(attn.register_forward_hook(weights(layer)))
            handles.append(out.register_forward_pre_hook(argument((layer, "z"))))
            heads = hf.config.num_attention_heads
            shape[layer] = heads, getattr(attn, "num_kv_heads", heads), attn.head_dim
        if not is_mixture(hf, layer) and module_at(block, pre) is not None:
            handles.append(block.get_submodule(pre).register_forward_hook(output((layer, "pre"))))
            if linear not in (None, pre):
                handles.append(block.get_submodule(linear).register_forward_hook(output((layer, "pre_linear"))))
            down = PARTS.get(family, Parts()).down
            handles.append(block.get_submodule(down).register_forward_pre_hook(argument((layer, "post"))))
    try:
        name, ours = ("apply_rotary_pos_emb", turned) if family in OWN_ATTENTION else ("eager_attention_forward", attend)
        with mock.patch.object(module, name, ours) if hasattr(module, name) else contextlib.nullcontext():
            run(hf, tokens, steer)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (heads, kv, width) in shape.items():
        made = [found.pop((layer, i)) for i in range(len(qkv)) if (layer, i) in found]
        if sees_other_keys(blocks(hf)[layer]):
            found[layer, "q"] = made[0].reshape(len(made[0]), heads, width)
            del found[layer, "rot_k"], found[layer, "v"]
            continue
        if len(made) < len(qkv):
            made.append(made[1])
        if len(made) == 3 and made[0].shape[-1] == 2 * heads * width:  # each head's q beside its gate
            made[0], gates = made[0].reshape(-1, heads, 2 * width).split(width, -1)
            found[layer, "z"] = found[layer, "z"] * torch.sigmoid(gates)  # what the output projection takes
        if family in LATENT:
            q, k = latent_qk(hf, made, heads, width)
            if getattr(hf.config, "rope_interleave", False):
                found.update({(layer, name): in_pairs(hf, found[layer, name]) for name in ("rot_q", "rot_k")})
        else:
            q, k, v = split_qkv(hf, made, heads, kv, width)
        found[layer, "q"], found[layer, "k"] = q, k
        if family in OWN_ATTENTION:
            rotated, keys = found["turned"][layer] if "turned" in found else (q, k)
            found[layer, "rot_q"], found[layer, "rot_k"], found[layer, "v"] = rotated, keys[:, :: keys.shape[1] // kv], v
            found[layer, "z"] = found[layer, "z"].reshape(-1, heads, width)
    for layer in range(hf.config.num_hidden_layers):
        if pre == linear and (layer, "pre") in found:
            found[layer, "pre"], found[layer, "pre_linear"] = found[layer, "pre"].chunk(2, -1)
    found.pop("turned", None)
    return {place: x.numpy() for place, x in found.items()}
