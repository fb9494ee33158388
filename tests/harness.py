"""What the tests share that drive the program from outside. Standard library only."""

import json
import os
import signal
import subprocess
import sys
import tempfile

BINARY = os.path.abspath(sys.argv[1])
SOURCE = os.path.abspath(sys.argv[2])

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 272,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

failures = []
checks = 0


def check(condition, text):
    """Records a failed expectation and goes on, so that one run shows them all."""
    global checks
    checks += 1
    if not condition:
        failures.append(text)
        print("FAILED:", text, flush=True)


# How many times longer a sanitizer makes things take: bounds on time are multiplied by it.
SLOWER = {"address": 6, "thread": 10}.get(os.environ.get("LLMSCHED_SANITIZE"), 1)


def tiny_model(folder, **other):
    """A folder with the config of a model so small that a bench takes a moment; `other` fields of
    the config differ."""
    path = os.path.join(folder, "tiny")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(dict(TINY, **other), f)
    return path


def run(args, env=None, cwd=None, timeout=120 * SLOWER, stdin=None):
    full = dict(os.environ)
    for name in ("LLM_MODEL", "HF_HOME", "HF_HUB_CACHE"):
        full.pop(name, None)
    full["HF_HOME"] = "/nonexistent"
    full.update(env or {})
    return subprocess.run([BINARY] + args, env=full, cwd=cwd, timeout=timeout, input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def expect(args, code, out=None, err=None, **kw):
    p = run(args, **kw)
    stdout = p.stdout.decode("utf-8", "replace")
    stderr = p.stderr.decode("utf-8", "replace")
    name = " ".join(args)
    check(p.returncode == code, f"{name}: exit {p.returncode}, expected {code}\n{stderr[-1500:]}")
    for part in [out] if isinstance(out, str) else out or []:
        check(part in stdout, f"{name}: stdout lacks {part!r}:\n{stdout[-1500:]}")
    for part in [err] if isinstance(err, str) else err or []:
        check(part in stderr, f"{name}: stderr lacks {part!r}:\n{stderr[-1500:]}")
    return p


def finish():
    print(f"{checks - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


__all__ = ["SLOWER", "BINARY", "SOURCE", "TINY", "check", "tiny_model", "run", "expect", "finish", "signal",
           "tempfile", "subprocess", "os", "json", "sys"]
