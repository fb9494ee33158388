"""The vllm row against `llmsched serve` on the real model. Usage: test_bench_serve.py BINARY SOURCE

Our own server must give the very texts of the rows in process, greedy and sampled: the prompt, the
seed and every sampling field went through HTTP and came out the same.
"""

import csv
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0])
from harness import *  # noqa: E402
from server import Server  # noqa: E402

MODEL = os.path.join(SOURCE, "models", "SmolLM2-135M-Instruct")
N = 6
TOKENS = 6


def rows(folder, name):
    with open(os.path.join(folder, name), newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def compare(folder, server, temperature):
    out = os.path.join(folder, temperature)
    before = server.metrics()
    p = run(["bench", "--model", MODEL, "--schedulers", "continuous", "vllm", "--endpoint",
             server.url + "/v1/completions", "--sizes", str(N), "--runs", "1", "--warmup", "0", "--threads", "1",
             "--kv-blocks", "256", "--max-new-tokens", str(TOKENS), "--max-concurrent", "3",
             "--temperature", temperature, "--no-plot", "-o", out])
    stdout = p.stdout.decode("utf-8", "replace")
    stderr = p.stderr.decode("utf-8", "replace")
    check(p.returncode == 0 or (p.returncode == 6 and "client lag" in stderr),
          f"exit {p.returncode}: {stderr}")
    for r in rows(out, "benchmark_summaries.csv"):
        check(r["successful_requests"] == str(N), f"all ok: {r}")
        check(r["output_tokens"] == str(N * TOKENS), f"tokens (ignore_eos): {r}")
        check(r["incomparable"] == "", f"the same model: {r}")
    by_request = {}
    for r in rows(out, "benchmark_detailed_metrics.csv"):
        by_request.setdefault(r["request_id"], {})[r["scheduler"]] = r
    check(len(by_request) == N, f"{len(by_request)} requests")
    for pair in by_request.values():
        for name in ("prompt", "generated_text", "input_tokens", "output_tokens"):
            check(pair["vllm"][name] == pair["continuous"][name],
                  f"{name}: {pair['vllm'][name]!r}, in process {pair['continuous'][name]!r}")
    check(len({pair["vllm"]["generated_text"] for pair in by_request.values()}) > 1, "texts differ")
    # What the server counted, the probe of one token included.
    after = server.metrics()
    asked = after["vllm:request_success_total"] - before["vllm:request_success_total"]
    made = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
    check(asked == N + 1 and made == N * TOKENS + 1, f"server: {asked} requests, {made} tokens")
    with open(os.path.join(out, "benchmark_results.json"), encoding="utf-8") as f:
        facts = json.load(f)["servers"][0]
    check(facts["refused_fields"] == "" and "block_size" in facts["cache_config"], f"{facts}")
    share = 1 if temperature == "0" else None
    check(facts["equal_prefix_frac"] == share, f"equal prefixes: {facts['equal_prefix_frac']}")
    check((f"{N} of {N} texts are identical" in stdout) == (share == 1), stdout)


if not os.path.exists(MODEL):
    print(f"skipped: no {MODEL} (make model)")
    sys.exit(77)
with tempfile.TemporaryDirectory() as base:
    os.chdir(base)
    with Server(BINARY, "--model", MODEL, "--threads", "1", "--kv-blocks", "256") as serve:
        compare(base, serve, "0")
        compare(base, serve, "0.7")
finish()
