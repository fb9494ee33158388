#!/usr/bin/env python3
"""The text of `llmsched serve` is that of `llmsched generate` for the same prompt and seed, alone and
among 64 others, under every scheduler, on the real model. Standard library only.

    test_serve_text.py BINARY SOURCE
"""

import http.client
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import BINARY, SOURCE, check, finish  # noqa: E402
from server import Server  # noqa: E402

MODEL = os.environ.get("LLMSCHED_TEST_MODEL", os.path.join(SOURCE, "models", "SmolLM2-135M-Instruct"))
OTHERS = 64
SCHEDULERS = [("naive", "naive.batch_size=16", "naive.timeout=0.05"),
              ("dynamic", "dynamic.max_batch_size=24", "dynamic.timeout=0.05"),
              ("continuous",)]
PROBES = [
    {"prompt": "The capital of France is", "seed": 42, "temperature": 0.7, "top_k": 50, "top_p": 0.95},
    {"prompt": "Once upon a time, in a village by the sea,", "seed": 7, "temperature": 1.3, "top_k": 0,
     "top_p": 1.0},
    {"prompt": "def add(a, b):", "seed": 1, "temperature": 0.0, "top_k": 0, "top_p": 1.0},
]
TOKENS = 12


def generated(probe):
    args = [BINARY, "generate", "--model", MODEL, "--max-new-tokens", str(TOKENS), "--kv-blocks", "256"]
    for name in ("prompt", "seed", "temperature", "top_k", "top_p"):
        args += ["--" + name.replace("_", "-"), str(probe[name])]
    text = subprocess.run(args, stdout=subprocess.PIPE, check=True, timeout=120).stdout.decode()
    return text.removesuffix("\n")


def send(server, fields):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=240)
    c.request("POST", "/v1/completions", body=json.dumps(fields),
              headers={"Content-Type": "application/json"})
    return c


def text_of(connection, streams):
    r = connection.getresponse()
    body = r.read().decode()
    check(r.status == 200, f"{r.status} {body[:300]}")
    connection.close()
    if not streams:
        return json.loads(body)["choices"][0]["text"]
    return "".join(json.loads(e[6:])["choices"][0]["text"] for e in body.split("\n\n") if e.startswith("data: {"))


def other(i):
    words = "one two three four five six seven eight nine ten eleven twelve".split()
    return {"prompt": " ".join(words[i % 5:][:1 + i % 7]), "max_tokens": 2 + i % 7, "temperature": 1.0}


def main():
    if not os.path.exists(MODEL):
        print(f"skipped: no {MODEL} (run `make model`, or set LLMSCHED_TEST_MODEL)")
        sys.exit(77)
    wanted = [generated(p) for p in PROBES]
    check(len(set(wanted)) == len(PROBES) and all(wanted), f"{wanted}")
    for name, *settings in SCHEDULERS:
        args = ["--model", MODEL, "--scheduler", name, "--kv-blocks", "1024"]
        for s in settings:
            args += ["--set", s]
        with Server(BINARY, *args) as server:
            for i, probe in enumerate(PROBES):
                asked = dict(probe, max_tokens=TOKENS, stream=i % 2 == 1)
                text = text_of(send(server, asked), asked["stream"])
                check(text == wanted[i], f"{name}, alone: {text!r}, not {wanted[i]!r}")
            before = [send(server, other(i)) for i in range(OTHERS // 2)]
            probes = [send(server, dict(p, max_tokens=TOKENS, stream=i % 2 == 0))
                      for i, p in enumerate(PROBES)]
            after = [send(server, other(i)) for i in range(OTHERS // 2, OTHERS)]
            for i, c in enumerate(probes):
                text = text_of(c, i % 2 == 0)
                check(text == wanted[i], f"{name}, among {OTHERS}: {text!r}, not {wanted[i]!r}")
            for c in before + after:
                text_of(c, False)
            check(server.metric("vllm:request_success_total") == OTHERS + 2 * len(PROBES), "all were served")
    finish()


main()
