"""Trained models in quantised GGUF files, as people have them, against the gguf library, transformers and llama.cpp."""

import numpy as np
import pytest
from float32_weights import widened
from oracles import torch, transformers
from real_models import ANSWER, CONFIGS, PROMPT, Real
from test_gguf import error

import powersteer as ps
from powersteer.loading.blocks import Blocks
from powersteer.loading.gguf import open_gguf
from powersteer.model.construct import model_from_checkpoint

pytestmark = pytest.mark.long  # its files are downloaded


@pytest.fixture(scope="module", params=CONFIGS)
def real(request):
    return Real(request.param)


def test_every_number_is_what_the_gguf_library_decodes(real):
    tensors = open_gguf(real.path).tensors
    kinds = set()
    for name, wanted in real.decoded.items():
        matrix = tensors[name].view()
        if isinstance(matrix, Blocks):
            kinds.add(matrix.kind)
            assert np.array_equal(matrix.decode().view(np.uint32), wanted.view(np.uint32)), name
    assert kinds == {"smollm2": {"Q4_1", "Q8_0"}, "gemma3": {"Q4_K", "Q5_0", "Q6_K", "Q8_0"}}[real.name]


def test_the_bits_of_float32_weights(real):
    """Of logits, of decoded tokens and of a Jacobian in both directions."""
    wide = widened(real.model)
    assert wide.spec.nbytes > 3 * real.model.spec.nbytes
    ids = np.tile(real.ids, 3)  # rows for whole panels and a rest
    assert np.array_equal(real.model(ids), wide(ids))
    ours, theirs = (m.generate(ids, max_new_tokens=4, stop=[]).tokens for m in (real.model, wide))
    assert list(ours) == list(theirs)
    ours, theirs = (m.jacobian(ids, 2, 6) for m in (real.model, wide))
    V = np.random.default_rng(0).standard_normal((real.model.d_model, 5)).astype(np.float32)
    assert np.array_equal(ours @ V, theirs @ V)
    U = theirs @ V
    assert np.array_equal(ours.T @ U, theirs.T @ U)


def test_logits_of_transformers(real):
    assert error(real.model(real.ids), real.hf_logits) < 1e-5


def test_text_of_transformers(real):
    ours = real.model.generate(PROMPT, max_new_tokens=16, stop=[])
    ids = torch.as_tensor(real.ids)[None].long()
    theirs = real.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    assert list(ours.tokens) == theirs[0, len(real.ids) :].tolist()
    assert ours.text.startswith(ANSWER)


def test_logits_of_llama_cpp(real):
    """Which rounds the activations of every product to blocks of 8 bits: each logit moves by a few percent of the largest
    logit (3.5% and 5.0% were measured), and the likeliest token stays."""
    judge = pytest.importorskip("llama_judge")
    ours, theirs = real.model(real.ids), judge.llama_logits(real.path, real.ids.tolist())
    print(f"{real.name}: relative error {error(ours, theirs):.1e}")
    assert error(ours, theirs) < 0.1
    assert ours[-1].argmax() == theirs[-1].argmax()
    with judge.opened(real.path, vocab_only=True) as vocabulary:
        assert judge.llama_tokens(vocabulary, PROMPT) == real.ids.tolist()


def test_a_jacobian_is_the_slope(real):
    """In float64, against differences of whole forward passes."""
    model = model_from_checkpoint(real.model._loaded.checkpoint, "float64", 2)
    J = model.jacobian(real.ids, (3, "mlp_out"), (9, "resid_post"))
    rng = np.random.default_rng(1)
    v, u = rng.standard_normal(J.shape[1]), rng.standard_normal(J.shape[0])
    h = 1e-5 * J.source_norm / np.linalg.norm(v)
    vector = ps.SteeringVector.from_array(v, 3, "mlp_out")
    up, down = (model.steered(vector * step).jacobian(real.ids, J.source, J.target).base for step in (h, -h))
    slope, jvp = ((up - down) / (2 * h)).ravel(), J @ v
    assert error(jvp, slope) < 5e-6
    assert abs(u @ jvp - (J.T @ u) @ v) < 1e-10 * np.linalg.norm(u) * np.linalg.norm(jvp)


@pytest.mark.slow
def test_logits_of_transformers_own_reading(real):
    """Its reader of GGUF files maps the metadata, too. It needs accelerate."""
    pytest.importorskip("accelerate")
    hf = transformers.AutoModelForCausalLM.from_pretrained(
        real.path.parent, gguf_file=real.path.name, dtype=torch.float32, local_files_only=True
    )
    with torch.no_grad():
        logits = hf(torch.as_tensor(real.ids)[None].long()).logits[0].numpy()
    assert error(real.model(real.ids), logits) < 1e-5
