#!/usr/bin/env python3
"""make_model.py FILE.gguf FOLDER: a GGUF of the llama family as a Transformers folder, in f32.

The same weights in both formats, so that vLLM and llmsched run one model. Needs torch, transformers
and gguf (setup.sh installs them).
"""
import os
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def main():
    gguf, target = sys.argv[1:]
    transformers.utils.logging.disable_progress_bar()
    folder, name = os.path.split(os.path.abspath(gguf))
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)

    # save_pretrained refuses a model that was read from a GGUF: its weights go into a fresh one.
    config = read.config
    config.dtype = torch.float32
    del config.quantization_config  # the saved weights are plain
    fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(read.state_dict())
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)

    ids = tokenizer("The capital of France is")["input_ids"]
    if ids != [504, 3575, 282, 4649, 314]:
        sys.exit(f"make_model: the tokenizer gives {ids} for a known prompt")
    with torch.no_grad():
        out = fresh.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)
    text = tokenizer.decode(out[0][len(ids):])
    if text != " Paris.\n\nThe answer is: 2018-01-22 ":
        sys.exit(f"make_model: greedy text of a known prompt is {text!r}")


main()
