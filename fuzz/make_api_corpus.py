#!/usr/bin/env python3
"""Writes the seeds of fuzz_api_request to fuzz/corpus/fuzz_api_request/: one byte that chooses the
endpoint, then a body.

    python3 fuzz/make_api_corpus.py
"""
import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "corpus" / "fuzz_api_request"
COMPLETION, CHAT, TOKENIZE, DETOKENIZE = "@", "A", "B", "C"  # modulo 4: 0, 1, 2, 3

SHARED = {
    "model": "m", "n": 2, "min_tokens": 1, "priority": -1, "seed": 7, "temperature": 0.5,
    "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "frequency_penalty": 0.5,
    "presence_penalty": -0.5, "ignore_eos": True, "stream": True, "stop": ["\n", "é"],
    "stop_token_ids": [1, 2], "logit_bias": {"5": -100, "6": 1.5},
    "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "odd": [{"a": None}],
}
USER = {"role": "user", "content": "Hi"}
SEEDS = {
    "completion": (COMPLETION, {**SHARED, "prompt": "x", "max_tokens": 5, "logprobs": 3,
                                "echo": True, "best_of": 2}),
    "texts": (COMPLETION, {"prompt": ["a", "b"], "max_tokens": None}),
    "ids": (COMPLETION, {"prompt": [1, 2, 999], "max_tokens": 0, "echo": True}),
    "id_lists": (COMPLETION, {"prompt": [[1], [2, 3]]}),
    "refused": (COMPLETION, {"prompt": "x", "suffix": "y", "guided_json": {}, "bad_words": ["a"]}),
    "wrong_types": (COMPLETION, {k: "7" for k in SHARED}),
    "chat": (CHAT, {**SHARED, "messages": [
        {"role": "system", "content": "Be brief."}, USER,
        {"role": "assistant", "content": [{"type": "text", "text": "a"},
                                          {"type": "text", "text": "b"}]}],
        "max_completion_tokens": 9, "logprobs": True, "top_logprobs": 5}),
    "tools": (CHAT, {"messages": [{**USER, "tool_calls": [{}]}], "tools": [{}],
                     "tool_choice": "auto", "response_format": {"type": "text"}}),
    "tokenize": (TOKENIZE, {"prompt": "x", "return_token_strs": True}),
    "tokenize_chat": (TOKENIZE, {"messages": [USER], "add_generation_prompt": False}),
    "detokenize": (DETOKENIZE, {"tokens": [1, 2, 3]}),
}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (endpoint, body) in SEEDS.items():
        (FOLDER / name).write_text(endpoint + json.dumps(body))


main()
