#!/usr/bin/env python3
"""make_gpt2_gguf.py FILE.gguf: GPT-2's 124M shape with random weights (seeded) in f32, without a
vocabulary, for llama-batched-bench. Needs numpy and gguf (setup.sh installs them).
"""
import sys

import gguf
import numpy as np

LAYERS, CHANNELS, HEADS, CONTEXT, VOCABULARY = 12, 768, 12, 1024, 50257
INNER = 4 * CHANNELS


def main():
    rng = np.random.default_rng(124)
    out = gguf.GGUFWriter(sys.argv[1], "gpt2")
    out.add_name("GPT-2 124M shape, random weights")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(CHANNELS)
    out.add_feed_forward_length(INNER)
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)
    out.add_layer_norm_eps(1e-5)
    out.add_vocab_size(VOCABULARY)
    out.add_tokenizer_model("no_vocab")
    out.add_file_type(gguf.LlamaFileType.ALL_F32)

    def add(name, *shape):  # gguf stores the shape reversed: rows are output channels here
        out.add_tensor(name, 0.02 * rng.standard_normal(shape, dtype=np.float32))

    def add_norm(name):
        out.add_tensor(f"{name}.weight", np.ones(CHANNELS, dtype=np.float32))
        out.add_tensor(f"{name}.bias", np.zeros(CHANNELS, dtype=np.float32))

    def add_linear(name, outputs, inputs):
        add(f"{name}.weight", outputs, inputs)
        out.add_tensor(f"{name}.bias", np.zeros(outputs, dtype=np.float32))

    add("token_embd.weight", VOCABULARY, CHANNELS)  # the output's weights too
    add("position_embd.weight", CONTEXT, CHANNELS)
    for i in range(LAYERS):
        add_norm(f"blk.{i}.attn_norm")
        add_linear(f"blk.{i}.attn_qkv", 3 * CHANNELS, CHANNELS)
        add_linear(f"blk.{i}.attn_output", CHANNELS, CHANNELS)
        add_norm(f"blk.{i}.ffn_norm")
        add_linear(f"blk.{i}.ffn_up", INNER, CHANNELS)
        add_linear(f"blk.{i}.ffn_down", CHANNELS, INNER)
    add_norm("output_norm")
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


main()
