"""llama.cpp, through the C functions of llama-cpp-python: the logits it computes from a file, with or without a control
vector."""

import contextlib
import ctypes

import gguf
import numpy as np
from oracles import oracle

llama_cpp = oracle("llama_cpp")


@llama_cpp.llama_log_callback
def _ignore(level, text, data):
    return None


llama_cpp.llama_log_set(_ignore, ctypes.c_void_p())


@contextlib.contextmanager
def opened(path, vocab_only=False):
    """A `llama_model *`, or only the vocabulary of one."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = vocab_only
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def llama_logits(path, tokens, control_vector=None, **context):
    """Logits (T, n_vocab) of every position, float32, from the model at `path`.

    control_vector: the path of a GGUF control vector, which is applied as --control-vector does.
    context: further fields of llama_context_params.
    """
    parameters = llama_cpp.llama_context_default_params()
    exact = dict(n_threads=1, n_threads_batch=1, type_k=0, type_v=0,  # keys and values in float32
                 flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)  # fmt: skip
    for name, value in {**exact, **dict.fromkeys(("n_ctx", "n_batch", "n_ubatch"), len(tokens)), **context}.items():
        setattr(parameters, name, value)
    with opened(path) as model:
        handle = llama_cpp.llama_init_from_model(model, parameters)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            if control_vector is not None:
                apply_control_vector(handle, control_vector, model)
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            assert llama_cpp.llama_decode(handle, batch) == 0
            n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
            return np.ctypeslib.as_array(llama_cpp.llama_get_logits(handle), (len(tokens), n_vocab)).copy()
        finally:
            llama_cpp.llama_batch_free(batch)
            llama_cpp.llama_free(handle)


def apply_control_vector(handle, path, model):
    """What llama.cpp's common library does with such a file: direction.N goes into row N - 1, the rest is zero."""
    n_layers, d = llama_cpp.llama_model_n_layer(model), llama_cpp.llama_model_n_embd(model)
    rows = np.zeros((n_layers, d), np.float32)
    for tensor in gguf.GGUFReader(path).tensors:
        kind, _, layer = tensor.name.partition(".")
        assert kind == "direction" and tensor.data.dtype == np.float32
        rows[int(layer) - 1] = tensor.data
    pointer = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert llama_cpp.llama_set_adapter_cvec(handle, pointer, rows.size, d, 1, n_layers) == 0


def llama_tokens(model, text):
    """Tokens of a text, with what the file puts around it, special tokens in the text found."""
    data = text.encode()
    out = (llama_cpp.llama_token * (len(data) + 8))()
    vocab = llama_cpp.llama_model_get_vocab(model)
    n = llama_cpp.llama_tokenize(vocab, data, len(data), out, len(out), True, True)
    assert n >= 0
    return list(out[:n])


def llama_ends(model, n_vocab):
    """The tokens that end a generation."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    return {i for i in range(n_vocab) if llama_cpp.llama_vocab_is_eog(vocab, i)}
