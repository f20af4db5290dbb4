"""The models of real_files, and the same weights in transformers."""

import copy
from dataclasses import dataclass
from functools import cached_property

import gguf
import numpy as np
import real_files
from gguf_models import put
from oracles import torch, transformers

import powersteer as ps
from powersteer.loading.blocks import Blocks
from powersteer.loading.gguf import open_gguf

PROMPT, ANSWER = "The capital of France is Paris. The capital of Italy is", " Rome."
CONFIGS = {  # as the models' config.json has them
    "smollm2": transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    ),
    "gemma3": transformers.Gemma3TextConfig(
        vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, query_pre_attn_scalar=256, sliding_window=512, max_position_embeddings=32768,
    ),
}  # fmt: skip


@dataclass
class Real:
    """A file, its model, and what others make of it when a test asks for that."""

    name: str

    def __post_init__(self):
        self.path = getattr(real_files, self.name)()
        self.model = ps.load(self.path, threads=2)
        self.ids = self.model.tokens(PROMPT)

    @cached_property
    def decoded(self):
        """name → float32 array, decoded by the gguf library."""
        found = {}
        for name, tensor in open_gguf(self.path).tensors.items():
            matrix = tensor.view()
            blocks = isinstance(matrix, Blocks)
            found[name] = gguf.dequantize(matrix.data, gguf.GGMLQuantizationType[matrix.kind]) if blocks else matrix
        return found

    @cached_property
    def hf(self):
        """The transformers model with these weights, in float32."""
        from transformers.initialization import no_init_weights

        with no_init_weights():
            hf = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[self.name])).eval()
        for name, array in self.decoded.items():
            gain_less_one = self.name == "gemma3" and array.ndim == 1
            put(hf, name, array - np.float32(1) if gain_less_one else array)
        hf.tie_weights()
        hf.generation_config.update(eos_token_id=None, pad_token_id=0)
        return hf

    @cached_property
    def hf_logits(self):
        with torch.no_grad():
            return self.hf(torch.as_tensor(self.ids)[None].long()).logits[0].numpy()
