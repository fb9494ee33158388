#!/usr/bin/env python3
"""Writes the seeds of fuzz_safetensors, fuzz_gguf and fuzz_config to fuzz/corpus/<name>/.

    python3 fuzz/make_corpus.py

The files are committed, so this runs only when a format's seeds change. They carry no file ending:
.gitignore keeps real models out by theirs.
"""
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# --- safetensors ---------------------------------------------------------------------------------


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def make_safetensors():
    t = "fuzz_safetensors"
    two = {"a": tensor("F32", [2], 0, 8), "b": tensor("BF16", [2, 3], 8, 20)}
    write(t, "empty", safetensors({}))
    write(t, "two", safetensors(two, bytes(20)))
    write(t, "metadata", safetensors({"__metadata__": {"format": "pt"}, **two}, bytes(20)))
    write(t, "scalar", safetensors({"s": tensor("I64", [], 0, 8)}, bytes(8)))
    write(t, "zero", safetensors({"z": tensor("F16", [3, 0], 0, 0)}))
    write(t, "sub_byte", safetensors({"q": tensor("F4", [2], 0, 1)}, b"\0"))
    write(t, "padded", safetensors(b"  " + json.dumps(two).encode() + b"    ", bytes(20)))
    write(t, "escape", safetensors(b'{"\\u00e9\\n":' + json.dumps(two["a"]).encode() + b"}", bytes(8)))
    write(t, "overlap", safetensors({k: tensor("U8", [4], 0, 4) for k in "abc"}, bytes(4)))
    write(t, "huge_shape", safetensors({"h": tensor("F64", [2**40, 2**40], 0, 8)}, bytes(8)))
    write(t, "tail", safetensors(two, bytes(21)))
    write(t, "length", struct.pack("<Q", 2**64 - 1) + b"{}")


# --- GGUF ----------------------------------------------------------------------------------------


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def key(name, kind, value):
    return string(name) + struct.pack("<I", kind) + value


def u32(name, value):
    return key(name, 4, struct.pack("<I", value))


def f32(name, value):
    return key(name, 6, struct.pack("<f", value))


def text(name, value):
    return key(name, 8, string(value))


def array(name, element, count, data):
    return key(name, 9, struct.pack("<IQ", element, count) + data)


def gguf(keys=(), tensors=(), version=3, alignment=32):
    """tensors: (name, dims fastest first, type id, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    data = b""
    for name, dims, kind, size in tensors:
        out += string(name) + struct.pack("<I", len(dims))
        out += struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
        padded = -(-size // alignment) * alignment
        data += bytes(padded)
        offset += padded
    return out + bytes(-len(out) % alignment) + data


LLAMA_KEYS = [
    text("general.architecture", "llama"),
    u32("llama.block_count", 1),
    u32("llama.context_length", 64),
    u32("llama.embedding_length", 32),
    u32("llama.feed_forward_length", 64),
    u32("llama.attention.head_count", 4),
    u32("llama.attention.head_count_kv", 2),
    f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
    f32("llama.rope.freq_base", 1e5),
    text("tokenizer.ggml.model", "gpt2"),
    array("tokenizer.ggml.tokens", 8, 3, string("a") + string("b") + string("")),
    array("tokenizer.ggml.token_type", 5, 3, struct.pack("<3i", 1, 1, 3)),
    array("tokenizer.ggml.scores", 6, 3, struct.pack("<3f", 0, -1, -2)),
    u32("tokenizer.ggml.eos_token_id", 2),
]


def make_gguf():
    t = "fuzz_gguf"
    embedding = ("token_embd.weight", (32, 3), 0, 384)
    scalars = [
        key(f"k{kind}", kind, bytes(size))
        for kind, size in enumerate((1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8))
    ]
    kinds = [(0, 1, 4), (1, 1, 2), (2, 32, 18), (3, 32, 20), (8, 32, 34), (14, 256, 210), (30, 1, 2)]
    write(t, "empty", gguf())
    write(t, "version_2", gguf(version=2))
    write(t, "scalars", gguf(scalars))
    write(t, "llama", gguf(LLAMA_KEYS, [embedding]))
    write(t, "linear", gguf(LLAMA_KEYS + [text("llama.rope.scaling.type", "linear"),
                                          f32("llama.rope.scaling.factor", 2.0)], [embedding]))
    write(t, "types", gguf([], [(f"t{k}", (block, 2), k, 2 * size) for k, block, size in kinds]))
    write(t, "alignment", gguf([u32("general.alignment", 64)], [embedding, ("x", (8,), 0, 32)],
                               alignment=64))
    write(t, "rank_4", gguf([], [("r", (2, 3, 2, 1), 24, 12), ("s", (), 28, 8)]))
    write(t, "strings", gguf([array("s", 8, 4, b"".join(string("x" * n) for n in range(4))),
                              array("b", 7, 3, b"\0\1\1"), array("e", 12, 0, b"")]))
    write(t, "count", b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63))
    write(t, "array_count", gguf([array("a", 8, 2**61 + 1, b"")]))
    write(t, "gpt2", gguf([text("general.architecture", "gpt2"), u32("gpt2.block_count", 1),
                           u32("gpt2.context_length", 8), u32("gpt2.embedding_length", 32),
                           u32("gpt2.feed_forward_length", 64), u32("gpt2.attention.head_count", 4),
                           f32("gpt2.attention.layer_norm_epsilon", 1e-5)], [embedding]))


# --- config.json ---------------------------------------------------------------------------------

GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "n_positions": 64, "n_inner": None, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05, "bos_token_id": 1, "eos_token_id": 2,
        "scale_attn_weights": True, "tie_word_embeddings": True}
NEO = {"model_type": "gpt_neo", "vocab_size": 97, "hidden_size": 32, "num_layers": 4,
       "num_heads": 4, "max_position_embeddings": 64, "window_size": 8,
       "attention_types": [[["global", "local"], 2]], "intermediate_size": 50}
LLAMA = {"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
         "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
         "head_dim": 8, "attention_bias": False, "mlp_bias": False}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}


def make_config():
    t = "fuzz_config"
    cases = {
        "gpt2": GPT2,
        "gpt_neo": NEO,
        "gpt_neo_layers": {**{k: v for k, v in NEO.items() if k != "attention_types"},
                           "attention_layers": ["global", "local", "global", "local"]},
        "llama": LLAMA,
        "llama_linear": {**LLAMA, "rope_theta": 10000.0,
                         "rope_scaling": {"type": "linear", "factor": 2.0}},
        "llama_llama3": {**LLAMA, "rope_theta": 500000.0, "rope_scaling": LLAMA3},
        "llama_parameters": {**LLAMA, "rope_parameters": {**LLAMA3, "rope_theta": 500000.0}},
        "llama_eos": {**LLAMA, "eos_token_id": [2, 3, 5], "tie_word_embeddings": True},
        "mamba": {"model_type": "mamba", "vocab_size": 5},
    }
    for name, config in cases.items():
        write(t, name, json.dumps(config).encode())
    write(t, "nan", b'{"model_type":"gpt2","layer_norm_epsilon":NaN}')
    write(t, "big", b'{"model_type":"gpt2","model_max_length":1000000000000000019884624838656}')


make_safetensors()
make_gguf()
make_config()
