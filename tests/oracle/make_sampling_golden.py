#!/usr/bin/env python3
"""Golden file for the sampler: what the Transformers library makes of logits under each rule.

    python3 tests/oracle/make_sampling_golden.py --out tests/data/sampling_golden.json

Needs torch and transformers from PyPI; the test reads the file and needs no Python. The processors
are those that generate() itself builds from a GenerationConfig, in its order. Frequency and presence
penalties are not Transformers' and are left out. Logits are multiples of 1/64, so that their text is
exact; a case is drawn again while a cut (top-p, min-p) falls within rounding of a token.
"""
import argparse
import json
import random

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCAB = 32
EOS_IDS = [2, 31]
MARGIN = 1e-4


def tiny_model():
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=8, intermediate_size=8,
                                        num_hidden_layers=1, num_attention_heads=1,
                                        num_key_value_heads=1))


def draw_case(rng, on, ties):
    steps = range(-320, 321)
    logits = [x / 64 for x in (rng.choices(steps[::16], k=VOCAB) if ties
                               else rng.sample(steps, VOCAB))]
    tokens = [rng.randrange(VOCAB) for _ in range(rng.randint(2, 24))]
    prompt_tokens = rng.randint(1, len(tokens))
    case = {"logits": logits, "tokens": tokens, "prompt_tokens": prompt_tokens,
            "temperature": rng.choice([0.5, 0.75, 1.0, 1.5, 3.0])}
    if on & 1:
        case["bias"] = [[i, rng.choice([-100, -8, -1.5, 0.25, 2.5, 5])]
                        for i in sorted(rng.sample(range(VOCAB), 3))]
    if on & 2:
        case["repetition_penalty"] = rng.choice([0.5, 0.875, 1.125, 1.5, 4.0])
    if on & 4:
        case["min_new_tokens"] = rng.randint(1, 24)
    if on & 8:
        case["top_k"] = rng.randint(1, VOCAB)
    if on & 16 and not ties:  # the library's choice among equals at the edge is not defined
        case["top_p"] = rng.choice([0.25, 0.5, 0.75, 0.9375])
    if on & 32:
        case["min_p"] = rng.choice([0.0625, 0.125, 0.25, 0.5, 1.0])
    return case


def processors(model, case):
    config = GenerationConfig(do_sample=True, num_beams=1, eos_token_id=EOS_IDS, pad_token_id=0,
                              max_length=100, temperature=case["temperature"],
                              top_k=case.get("top_k", 0), top_p=case.get("top_p", 1.0),
                              min_p=case.get("min_p"),
                              repetition_penalty=case.get("repetition_penalty", 1.0),
                              min_new_tokens=case.get("min_new_tokens"),
                              sequence_bias=[[[i], float(b)] for i, b in case["bias"]]
                              if "bias" in case else None)
    model._prepare_special_tokens(config, True, device="cpu")
    return model._get_logits_processor(config, input_ids_seq_length=case["prompt_tokens"],
                                       device="cpu")


def run(model, case):
    """The logits after the rules, and the probabilities that are drawn from."""
    ids = torch.tensor([case["tokens"]])
    scores = torch.tensor([case["logits"]], dtype=torch.float32)
    adjusted = None
    names = []
    for p in processors(model, case):
        name = type(p).__name__
        if name.endswith("Warper") and adjusted is None:
            adjusted = scores.clone()
        scores = p(ids, scores)
        names.append(name)
    adjusted = scores if adjusted is None else adjusted
    case["processors"] = names
    case["adjusted"] = [None if x == float("-inf") else x for x in adjusted[0].tolist()]
    case["probabilities"] = [round(p, 10) for p in torch.softmax(scores[0].double(), -1).tolist()]


def is_on_edge(case):
    """True where a cut lies so close to a token that rounding decides."""
    x = torch.tensor([float("-inf") if v is None else v for v in case["adjusted"]]).double()
    p = torch.softmax(x / case["temperature"], -1)
    if "top_k" in case:
        least = p.sort(descending=True).values[case["top_k"] - 1]
        p = torch.where(p < least, torch.zeros_like(p), p)
        p = p / p.sum()
    best = p.sort(descending=True).values
    edge = False
    if "top_p" in case:
        edge = bool(((best.cumsum(0) - case["top_p"]).abs() < MARGIN).any())
    if "min_p" in case and case["min_p"] < 1:
        edge = edge or bool(((best / best[0] - case["min_p"]).abs() < MARGIN).any())
    return edge


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rng = random.Random(4)
    model = tiny_model()
    cases = []
    for on in range(64):
        for ties in (False, True):
            while True:
                case = draw_case(rng, on, ties)
                run(model, case)
                if not is_on_edge(case):
                    break
            cases.append(case)
    made_by = {"command": "make_sampling_golden.py --out tests/data/sampling_golden.json",
               "torch": torch.__version__, "transformers": transformers.__version__}
    with open(args.out, "w") as f:
        f.write('{"made_by": %s, "eos_ids": %s, "cases": [\n' % (json.dumps(made_by), EOS_IDS))
        f.write(",\n".join(json.dumps(c) for c in cases))
        f.write("\n]}\n")
    print("%d cases" % len(cases))


if __name__ == "__main__":
    main()
