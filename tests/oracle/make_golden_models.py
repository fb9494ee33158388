#!/usr/bin/env python3
"""Golden files for the forward pass, made by the Transformers library in f32 on the CPU.

    python3 tests/oracle/make_golden_models.py tiny  --out tests/data/tiny
    python3 tests/oracle/make_golden_models.py smol  --gguf PATH/SmolLM2-135M-Instruct.Q4_1.gguf \
                                                     --out tests/data/smollm2_golden.json

Needs torch, transformers, safetensors and gguf from PyPI; the tests read the files this leaves
behind and need no Python.

tiny: one folder per random checkpoint (config.json + model.safetensors) with golden.json (prompts)
and golden.f32 (little-endian f32 logits [position][V] of every prompt, one after the other).
smol: 20 prompts with 64 greedy tokens each, chosen so that the two best logits never come closer
than 5e-3, and logits at some positions.
"""
import argparse
import hashlib
import json
import os
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoConfig, LlamaConfig

VOCAB = 131
MIN_GAP = 5e-3
NEW_TOKENS = 64
WANT_PROMPTS = 20


def llama(**over):
    base = dict(vocab_size=VOCAB, hidden_size=36, intermediate_size=52, num_hidden_layers=3,
                num_attention_heads=6, num_key_value_heads=2, head_dim=10,
                max_position_embeddings=96, rms_norm_eps=1e-5, tie_word_embeddings=False,
                bos_token_id=1, eos_token_id=2)
    base.update(over)
    return LlamaConfig(**base)


def gpt2(**over):
    base = dict(vocab_size=VOCAB, n_embd=20, n_layer=3, n_head=2, n_positions=80, n_inner=52,
                bos_token_id=0, eos_token_id=0)
    base.update(over)
    return GPT2Config(**base)


def gpt_neo(**over):
    base = dict(vocab_size=VOCAB, hidden_size=18, num_layers=4, num_heads=3, intermediate_size=41,
                attention_types=[[["global", "local"], 2]], window_size=5,
                max_position_embeddings=80, bos_token_id=0, eos_token_id=0)
    base.update(over)
    return GPTNeoConfig(**base)


# name -> config, and whether config.json is rewritten to the keys of Transformers 4.
TINY = {
    "gpt2": (gpt2(), False),
    "gpt2-untied": (gpt2(n_embd=24, n_head=4, n_inner=None, tie_word_embeddings=False,
                         activation_function="relu"), False),
    "gpt-neo": (gpt_neo(), False),
    "gpt-neo-window17": (gpt_neo(window_size=17, hidden_size=20, num_heads=2,
                                 attention_types=[[["local", "global"], 1], [["local"], 2]]), False),
    "llama-gqa": (llama(), False),
    "llama-v4": (llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0}), True),
    "llama-mha-tied": (llama(num_key_value_heads=6, tie_word_embeddings=True), False),
    "llama-linear": (llama(hidden_size=18, num_attention_heads=3, num_key_value_heads=1, head_dim=6,
                           tie_word_embeddings=True,
                           rope_parameters={"rope_type": "linear", "rope_theta": 1000.0,
                                            "factor": 2.5}), False),
    "llama-linear-v4": (llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0,
                                               "factor": 4.0}), True),
    "llama-llama3": (llama(hidden_size=48, num_attention_heads=4, num_key_value_heads=2,
                           head_dim=16, attention_bias=True, mlp_bias=True,
                           rope_parameters={"rope_type": "llama3", "rope_theta": 500.0,
                                            "factor": 8.0, "low_freq_factor": 1.0,
                                            "high_freq_factor": 4.0,
                                            "original_max_position_embeddings": 40}), False),
    "llama-llama3-v4": (llama(attention_bias=True, hidden_act="gelu",
                              rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0,
                                               "factor": 4.0, "low_freq_factor": 1.0,
                                               "high_freq_factor": 4.0,
                                               "original_max_position_embeddings": 64}), True),
}
PROMPT_LENGTHS = [1, 2, 15, 16, 17, 33, 64]


def randomise(model, seed):
    """Weights, biases and norms far from their initial values: a dropped or swapped tensor shows."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            is_norm = p.dim() == 1 and name.endswith("weight")
            p.copy_(1.0 + 0.3 * noise if is_norm else 0.25 * noise)


def to_generation_4(path):
    with open(path) as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "default":
        config["rope_scaling"] = None
    else:
        if rope["rope_type"] == "linear":
            rope["type"] = rope.pop("rope_type")  # the older spelling
        config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.46.0"
    with open(path, "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def logits_of(model, ids):
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return out.to(torch.float32)


def make_tiny(out_dir):
    for index, (name, (config, generation_4)) in enumerate(TINY.items()):
        folder = os.path.join(out_dir, name)
        os.makedirs(folder, exist_ok=True)
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        model = model.to(torch.float32).eval()
        randomise(model, 1000 + index)
        model.tie_weights()
        model.save_pretrained(folder, safe_serialization=True)
        extra = os.path.join(folder, "generation_config.json")
        if os.path.exists(extra):
            os.remove(extra)
        if generation_4:
            to_generation_4(os.path.join(folder, "config.json"))
        gen = torch.Generator().manual_seed(77 + index)
        prompts = [torch.randint(0, VOCAB, (n,), generator=gen).tolist() for n in PROMPT_LENGTHS]
        with open(os.path.join(folder, "golden.f32"), "wb") as f:
            for ids in prompts:
                f.write(logits_of(model, ids).contiguous().numpy().astype("<f4").tobytes())
        with open(os.path.join(folder, "golden.json"), "w") as f:
            json.dump({"made_by": made_by(), "prompts": prompts}, f)
            f.write("\n")
        print(name, sum(p.numel() for p in model.parameters()), "weights")


def made_by():
    args = [a if not os.path.isabs(a) else os.path.basename(a) for a in sys.argv[1:]]
    return {"command": "make_golden_models.py " + " ".join(args), "torch": torch.__version__,
            "transformers": transformers.__version__}


PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "The three primary colors are",
    "def fibonacci(n):\n",
    "Water boils at",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the largest planet in our solar system?\nA:",
    "In 1969, humans first",
    "The recipe needs two eggs, a cup of flour and",
    "My favourite season is autumn because",
    "#include <stdio.h>\n\nint main(void)\n{\n",
    "Photosynthesis is the process by which",
    "To be, or not to be,",
    "The quick brown fox",
    "A list of fruits:\n1. Apple\n2. Banana\n3.",
    "If x + 3 = 10, then x =",
    "The Great Wall of China was built",
    "SELECT name, age FROM users WHERE",
    "Le chat est assis sur",
    "She opened the old wooden door and saw",
    "Gravity is a force that",
    "The stock market fell sharply today after",
    "How do I make a cup of tea? First,",
    "Monday, Tuesday, Wednesday,",
    "The mitochondria is the",
    "Albert Einstein was born in",
    "Roses are red, violets are blue,",
    "Breaking news: scientists have discovered",
    "An algorithm is",
    "The ocean covers about",
    "import numpy as np\n\nx = np.",
    "Hello",
    "In conclusion, the results show that",
    "The cat sat on the mat. The dog sat on the",
    "World War II ended in",
    "A good night's sleep is important because",
    "The train to Berlin leaves at",
    "Translate to Spanish: Good morning! ->",
    "<html>\n<head>\n<title>",
    "It was a dark and stormy night;",
    "The speed of light is approximately",
    "Question: Why is the sky blue?\nAnswer:",
    "Chapter 1\n\n",
    "The most important rule of cooking is",
    "Bees are essential to the environment because",
    "Once the rain had stopped, the children",
    "The human heart has",
    "Python is a programming language that",
    "Jazz music began in",
    "The moon orbits the Earth every",
]


def greedy(model, ids):
    """64 greedy tokens with the library's cache, and the smallest gap of the two best logits."""
    out, cache, feed, gap = [], None, ids, float("inf")
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            r = model(input_ids=torch.tensor([feed]), past_key_values=cache, use_cache=True)
        cache = r.past_key_values
        best = torch.topk(r.logits[0, -1], 2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        if gap < MIN_GAP:
            return None, gap
        out.append(int(best.indices[0]))
        feed = [out[-1]]
    return out, gap


def make_smol(gguf, out_path):
    folder, name = os.path.split(os.path.abspath(gguf))
    with open(gguf, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    gen = torch.Generator().manual_seed(5)
    subset = sorted(torch.randperm(model.config.vocab_size, generator=gen)[:256].tolist())
    chosen = []
    for text in PROMPTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens, gap = greedy(model, ids)
        if tokens is None:
            print("skipped, gap %.2e: %r" % (gap, text))
            continue
        whole = logits_of(model, ids + tokens[:-1])  # at once: must agree with the cached run
        assert whole[len(ids) - 1:].argmax(-1).tolist() == tokens
        best = torch.topk(whole[len(ids) - 1:], 2).values
        gap = min(gap, float((best[:, 0] - best[:, 1]).min()))
        if gap < MIN_GAP:
            continue
        entry = {"text": text, "ids": ids, "greedy": tokens, "min_gap": round(gap, 5)}
        if len(chosen) < 4:
            entry["logits"] = [logits_at(whole, p, subset)
                               for p in (0, len(ids) - 1, len(ids) + NEW_TOKENS - 2)]
        chosen.append(entry)
        print("%2d gap %.4f %r -> %r" % (len(chosen), gap, text, tokenizer.decode(tokens)))
        if len(chosen) == WANT_PROMPTS:
            break
    assert len(chosen) == WANT_PROMPTS, "only %d prompts with a wide gap" % len(chosen)
    with open(out_path, "w") as f:
        json.dump({"made_by": made_by(), "gguf_sha256": digest, "subset": subset,
                   "prompts": chosen}, f, ensure_ascii=True)
        f.write("\n")


def logits_at(whole, position, subset):
    row = whole[position]
    top = torch.topk(row, 50)
    return {"position": position, "max_abs": float(row.abs().max()),
            "top_ids": top.indices.tolist(), "top": [float(v) for v in top.values],
            "subset": [float(v) for v in row[subset]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tiny", "smol"])
    parser.add_argument("--out", required=True)
    parser.add_argument("--gguf")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "tiny":
        make_tiny(args.out)
    else:
        make_smol(args.gguf, args.out)


if __name__ == "__main__":
    main()
