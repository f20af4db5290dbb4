"""Mamba-2 and its hybrids: in most layers a state space in the place of attention."""

from __future__ import annotations

import math
from dataclasses import replace

from ..family import Experts, Hyperparameters, Key, Linear, Mixer, NormAt, RopeKeys
from .llama import GRANITE, LLAMA
from .mixtures import GRANITEMOE
from .shared import ATTENTION, ATTENTION_BIAS, MLP, MLP_BIAS, NO_MLP_BIAS, SIZES, kv_heads, without

__all__ = ["FAMILIES"]

_OLD_NAMES = {"mamba": "linear_attention", "attention": "full_attention"}


def _renamed(layer_types: list[str]) -> list[str]:
    return [_OLD_NAMES.get(kind, kind) for kind in layer_types]


def _state_space(path: str) -> Mixer:
    """The module: its projection makes the gate, the channels of the convolution (x, B and C of the paper), and the steps."""
    return Mixer(
        "mamba",
        linears=(
            Linear(f"{path}.in_proj", ("z", "v", "k", "q", "a"), bias=lambda f: f.mamba_bias),
            Linear(f"{path}.out_proj", ("o",), bias=lambda f: f.mamba_bias),
        ),
        norms=(NormAt(f"{path}.norm", "o_norm"),),
        conv=f"{path}.conv1d",
        conv_slots=("v", "k", "q"),
        conv_bias=lambda f: f.conv_bias,
        log_rate=f"{path}.A_log",
        decay_bias=f"{path}.dt_bias",
        skip=f"{path}.D",
    )


def _step_limit(f: Hyperparameters) -> tuple[float, float]:
    low, high = (0.0, math.inf) if f.step_limit is None else f.step_limit
    if not 0 <= low <= high:
        raise ValueError(f"time_step_limit = {[low, high]} is no range of steps; correct it")
    return float(low), float(high)


def _head_size(f: Hyperparameters) -> int:
    width = f.mamba_expand * f.d_model
    if width % f.state_v_heads or (f.state_v_dim not in ("auto", width // f.state_v_heads)):
        raise ValueError(
            f"{f.state_v_heads} heads of mamba_d_head = {f.state_v_dim!r} are not mamba_expand * hidden_size = {width}; correct it"
        )
    return int(width // f.state_v_heads)


_MAMBA_KEYS = {
    "mamba_n_heads": Key("state_v_heads", "size", 128),
    "mamba_n_groups": Key("state_k_heads", "size", 1),
    "mamba_d_state": Key("state_k_dim", "size", 256),
    "mamba_d_head": Key("state_v_dim", "size or auto", "auto"),
    "mamba_d_conv": Key("conv_taps", "size", 4),
    "mamba_expand": Key("mamba_expand", "size", 2),
    "mamba_conv_bias": Key("conv_bias", "flag", True),
    "mamba_proj_bias": Key("mamba_bias", "flag", False),
    "time_step_limit": Key("step_limit", "limits", (0.0, math.inf), null=None),
}
_STATE = {"step_limit": _step_limit, "state_v_dim": _head_size}
_ORDER_OF_SUMS = {"the order of sums, the same in exact arithmetic": "mamba_chunk_size"}

BAMBA = replace(
    LLAMA,
    model_type="bamba",
    keys={
        **without(LLAMA.keys, "head_dim"),
        **kv_heads(8),
        **_MAMBA_KEYS,
        **ATTENTION_BIAS,
        **MLP_BIAS,
        "max_position_embeddings": Key("n_ctx", "size", 262144),
        "rms_norm_eps": Key("norm_eps", "number", 1e-5),
        "head_dim": Key("head_dim", "size", lambda f: f.d_model // f.n_heads),
        "attn_layer_indices": Key("attention_layers", "layers", None, null=None),
    },
    linears=(*ATTENTION, *(replace(linear, path=linear.path.replace("mlp.", "feed_forward.")) for linear in MLP)),
    mixers={"linear_attention": _state_space("mamba")},
    norms=(NormAt("input_layernorm", "norm1"), NormAt("pre_ff_layernorm", "norm2")),
    final_norm="final_layernorm",
    derived={
        **_STATE,
        "layer_types": lambda f: [
            "full_attention" if i in (f.attention_layers or ()) else "linear_attention" for i in range(f.n_layers)
        ],
    },
    only={"hidden_act": ("silu",)},  # also the activation behind the convolution
    ignored={**_ORDER_OF_SUMS, "of training and of what a call returns": "z_loss_coefficient num_logits_to_keep"},
    rope=RopeKeys(partial=0.5),
)


def _granite_layers(f: Hyperparameters) -> list[str]:
    return ["linear_attention"] * f.n_layers if f.layer_types is None else _renamed(f.layer_types)


def _granite_choices(f: Hyperparameters) -> int:
    if f.n_experts and not f.top_k:
        raise ValueError(f"num_experts_per_tok = 0 of {f.n_experts} experts; correct it")
    return int(f.top_k)


# Where a layer has a mixture, the MLP that the others have is its shared expert
GRANITEMOEHYBRID = replace(
    GRANITE,
    model_type="granitemoehybrid",
    keys={
        **GRANITEMOE.keys,
        "num_local_experts": Key("n_experts", "count", 8),
        "num_experts_per_tok": Key("top_k", "count", 2),
        **_MAMBA_KEYS,
        "shared_intermediate_size": Key("d_shared", "size", 1024),
        "position_embedding_type": Key("positions", "word", None, null=None),
        "layer_types": Key("layer_types", "words", None, null=None),
    },
    linears=(
        *ATTENTION,
        Linear("shared_mlp.input_linear", ("gate", "up")),
        Linear("shared_mlp.output_linear", ("down",)),
    ),
    mixers={"linear_attention": _state_space("mamba")},
    experts=replace(
        GRANITEMOE.experts or Experts("", ""),
        when=lambda f, i: f.n_experts > 0,
        shared="shared_mlp",
        shared_gate_up="input_linear",
        shared_down="output_linear",
        beside="block_sparse_moe",
    ),
    derived={
        **_STATE,
        "layer_types": _granite_layers,
        "norm_topk": lambda f: True,
        "top_k": _granite_choices,
        "d_expert": lambda f: f.d_ff,
        "d_ff": lambda f: f.d_shared,
    },
    only={**NO_MLP_BIAS, "hidden_act": ("silu",)},
    ignored={**GRANITEMOE.ignored, **_ORDER_OF_SUMS},
    rope_index=lambda f, i, layer_type: 0 if f.positions == "rope" else -1,
)

_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def _nemotron_layers(f: Hyperparameters) -> list[str]:
    if f.layer_types is not None:
        return _renamed(f.layer_types)
    if f.pattern is None:
        return ["linear_attention", "moe", "full_attention", "mlp"]
    if unknown := set(f.pattern) - set(_LETTERS):
        raise ValueError(f"hybrid_override_pattern has the letter {min(unknown)!r}; correct it")
    return [_LETTERS[letter] for letter in f.pattern]


_ALONE = Mixer("none")
# Every layer is one of four alone: a state space, attention, an MLP or a mixture
NEMOTRON_H = replace(
    LLAMA,
    model_type="nemotron_h",
    keys={
        **without(SIZES, "num_hidden_layers"),
        **kv_heads(8),
        "intermediate_size": Key("d_ff", "size", 21504),
        "head_dim": Key("head_dim", "size", 128),
        "mlp_hidden_act": Key("act", "word", "relu2"),
        "max_position_embeddings": Key("n_ctx", "size", 4096),
        "layer_norm_epsilon": Key("norm_eps", "number", 1e-5),
        "layers_block_type": Key("layer_types", "words", None, null=None),
        "hybrid_override_pattern": Key("pattern", "word", None, null=None),
        "mamba_num_heads": Key("state_v_heads", "size", 128),
        "mamba_head_dim": Key("state_v_dim", "size", 64),
        "ssm_state_size": Key("state_k_dim", "size", 128),
        "n_groups": Key("state_k_heads", "size", 8),
        "mamba_n_groups": Key("state_k_heads", "size", lambda f: f.state_k_heads),
        "conv_kernel": Key("conv_taps", "size", 4),
        "mamba_d_conv": Key("conv_taps", "size", lambda f: f.conv_taps),
        "use_conv_bias": Key("conv_bias", "flag", True),
        "mamba_conv_bias": Key("conv_bias", "flag", lambda f: f.conv_bias),
        "use_bias": Key("mamba_bias", "flag", False),
        "time_step_min": Key("step_min", "number", 0.001),
        "mamba_dt_min": Key("step_min", "number", lambda f: f.step_min),
        "n_routed_experts": Key("n_experts", "size", 8),
        "num_experts_per_tok": Key("top_k", "size", 2),
        "moe_intermediate_size": Key("d_expert", "size", 7688),
        "moe_shared_expert_intermediate_size": Key("d_shared", "size", 7688),
        "routed_scaling_factor": Key("route_scale", "number", 1.0),
        "n_group": Key("n_groups", "size", 1),
        "topk_group": Key("top_groups", "size", 1),
        "norm_topk_prob": Key("norm_topk", "flag", True),
    },
    linears=(
        *(replace(linear, path=linear.path.replace("self_attn.", "mixer."), bias=False) for linear in ATTENTION),
        Linear("mixer.up_proj", ("up",)),
        Linear("mixer.down_proj", ("down",)),
    ),
    mixers={"linear_attention": _state_space("mixer"), "mlp": _ALONE, "moe": _ALONE},
    has_mlp=lambda f, i: f.layer_types[i] in ("mlp", "moe"),
    norms=(NormAt("norm", "norm1"), NormAt("norm", "norm2")),
    embed="embeddings",
    final_norm="norm_f",
    prefixes=("backbone.", "model.", ""),
    experts=Experts(
        "mixer.gate",
        "mixer.experts.{e}",
        gate=None,
        when=lambda f, i: f.layer_types[i] == "moe",
        correction="mixer.gate.e_score_correction_bias",
        shared="mixer.shared_experts",
        other_routers=(),
        gate_up_stacks=(), up_stacks=("mixer.experts.up_proj",),
        down_stacks=("mixer.experts.down_proj",),
    ),
    derived={
        "layer_types": _nemotron_layers,
        "n_layers": lambda f: len(f.layer_types),
        "n_experts": lambda f: f.n_experts if "moe" in f.layer_types else 0,
        "step_limit": lambda f: (f.step_min, math.inf),
        "route": lambda f: "sigmoid",
        "tied": lambda f: False,
    },
    only={
        "mlp_bias": (False,),
        "mamba_hidden_act": ("silu",),
        "sliding_window": (None,),
        "moe_latent_size": (None,),
    },
    ignored={
        "the order of sums, the same in exact arithmetic": "chunk_size mamba_chunk_size",
        "its code never ties them": "tie_word_embeddings",
        "attention without positions": "rope_theta rope_scaling partial_rotary_factor",
        "made of the list of layers": "num_hidden_layers",
        "the code has other settings in their place": (
            "expand mamba_expand time_step_limit mamba_dt_limit n_shared_experts attention_bias mamba_proj_bias"
        ),
        "of training": (
            "time_step_max time_step_floor mamba_dt_max mamba_dt_init_floor rescale_prenorm_residual output_router_logits "
            "moe_shared_expert_overlap"
        ),
        "of kernels and of what a call returns": "use_mamba_kernels mamba_ssm_cache_dtype residual_in_fp32 num_logits_to_keep",
        "of layers that predict further tokens": "num_nextn_predict_layers mtp_layers_block_type mtp_hybrid_override_pattern",
    },
    not_weights=r"mtp\..*",
    gated=False,
    rope=None,
    rope_index=lambda f, i, layer_type: -1,
)

FAMILIES = (GRANITEMOEHYBRID, NEMOTRON_H, BAMBA)
