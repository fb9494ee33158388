#!/usr/bin/env python3
"""run.py: llmsched and a real vLLM on the CPU against each other (`make test-vllm`).

    python3 tests/vllm/run.py build/llmsched [--only PART,...] [--out FOLDER]

  counters   200 requests through the vllm row: none fails, and what the row counted is what vLLM's
             own /metrics counted
  agreement  the vllm row and `vllm bench serve` on one vLLM, in interleaved rounds: mean TTFT and
             TPOT within 5 %, or within the interval of the rounds where that is wider
  serve      `vllm bench serve` as a client of `llmsched serve`: 500 requests at 32 concurrent
  llama      the vllm row on llama-server (setup_llama.sh builds it; not in the default)

vLLM has all cores but one, its clients have that one. setup.sh builds what is missing: 7 GB outside
the repository. Ends with "N passed, N failed".
"""
import argparse
import csv
import math
import tempfile

from real import *

PARTS = ("counters", "agreement", "serve", "llama")
ROUNDS = 5
TOLERANCE = 0.05
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

passed = failed = 0


def check(good, text):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(("ok      " if good else "FAILED  ") + text, flush=True)


def same_length_prompts(path, n):
    """n distinct prompts of as many tokens: digits are tokens of their own in SmolLM2."""
    with open(path, "w") as f:
        for i in range(n):
            text = f"Item {i:04d}: say in one sentence what a request scheduler does and why."
            f.write(json.dumps({"prompt": text}) + "\n")


def row(binary, out, port, arguments):
    """One run of the vllm row; its line of benchmark_summaries.csv."""
    run([binary, "bench", "--schedulers", "vllm", "--endpoint",
         f"http://127.0.0.1:{port}/v1/completions", "--runs", 1, "--no-plot", "--quiet",
         "--output-dir", out, "--model", MODEL_FILE, *arguments], cwd=out)
    with open(out / "benchmark_summaries.csv", newline="") as f:
        return next(csv.DictReader(f))


def counted(port, before, names, want):
    """The counters' growth; waits a moment for the last of them."""
    for _ in range(50):
        now = metrics(port)
        got = [now[n] - before.get(n, 0.0) for n in names]
        if got == want:
            break
        time.sleep(0.1)
    return got


def varied_prompts(path, n):
    """n prompts of 6 to some 60 tokens, with characters of one to four bytes; gives the first."""
    words = "why does a queue grow when requests arrive in bursts — naïve batching, 東京 🌟 and more".split()
    texts = [" ".join((words * 4)[i % 7:i % 7 + 3 + 7 * i % 40]) + f" {i}" for i in range(n)]
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(texts) + "\n")
    return texts[0]


def tokens_of(port, text):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("POST", "/tokenize", json.dumps({"prompt": text}), {"Content-Type": "application/json"})
    count = json.loads(c.getresponse().read())["count"]
    c.close()
    return count


COUNTERS = ("vllm:request_success_total", "vllm:generation_tokens_total", "vllm:prompt_tokens_total")


def check_counters(binary, out, port, label, n, arguments):
    first = varied_prompts(out / "varied.txt", 100)
    # Before the first run the row sends one request of one token, to see which fields are taken.
    probe = [1, 1, tokens_of(port, first)]
    before = metrics(port)
    r = row(binary, out, port, ["--sizes", n, "--warmup", 0, "--prompts", out / "varied.txt",
                                *arguments])
    ours = [int(r[k]) for k in ("successful_requests", "output_tokens", "server_prompt_tokens")]
    theirs = counted(port, before, COUNTERS, [a + b for a, b in zip(ours, probe)])
    theirs = [int(a - b) for a, b in zip(theirs, probe)]
    print(f"{label}: {r['throughput_req_per_sec']} req/s, tokens by {r['token_source']}, "
          f"{r['tokens_per_event']} tokens an event")
    check(r["failed_requests"] == "0" and ours[0] == n,
          f"{label}: {r['successful_requests']} of {n} requests are ok ({r['errors']})")
    check(ours == theirs,
          f"{label}: requests, output and prompt tokens: row {ours}, server {theirs} (less the probe)")
    check(float(r["tokens_per_event"]) == 1, f"{label}: every token was seen")
    with open(out / "benchmark_detailed_metrics.csv", newline="") as f:
        prompt_tokens = sum(int(d["input_tokens"]) for d in csv.DictReader(f))
    check(prompt_tokens == ours[2],
          f"{label}: prompt tokens by our tokenizer {prompt_tokens}, by the server's {ours[2]}")


def part_counters(binary, folder, out, port):
    check_counters(binary, out, port, "200 requests, mixed lengths, ignore-eos", 200,
                   ["--workload", "mixed", "--max-concurrent", 10])
    check_counters(binary, out, port, "50 requests that may end early", 50,
                   ["--ignore-eos", "off", "--max-new-tokens", 48, "--max-concurrent", 10])


def interval(values):
    """Mean and half-width of its 95 % interval (Student's t)."""
    n = len(values)
    mean = sum(values) / n
    s = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T_975[n - 1] * s / math.sqrt(n)


def part_agreement(binary, folder, out, port):
    prompts = out / "prompts.jsonl"
    same_length_prompts(prompts, 60)
    ours_arguments = ["--sizes", 60, "--prompts", prompts, "--max-concurrent", 4, "--warmup", 4,
                      "--temperature", 0, "--max-new-tokens", 20, "--ignore-eos", "on"]
    their_arguments = ["--backend", "openai", "--dataset-name", "custom", "--dataset-path", prompts,
                       "--skip-chat-template", "--custom-output-len", 20, "--num-prompts", 60,
                       "--max-concurrency", 4, "--num-warmups", 4, "--ignore-eos"]
    ratios = {"TTFT": [], "TPOT": []}
    row(binary, out, port, ours_arguments)  # vLLM's first run is slower than all later ones
    for i in range(ROUNDS):
        results = {}
        for who in ("row", "vllm") if i % 2 == 0 else ("vllm", "row"):
            if who == "row":
                r = row(binary, out, port, ours_arguments)
                results[who] = (float(r["ttft_avg_s"]) * 1e3, float(r["tpot_avg_s"]) * 1e3,
                                int(r["successful_requests"]), int(r["output_tokens"]))
            else:
                r = vllm_bench(folder, out, port, their_arguments)
                results[who] = (r["mean_ttft_ms"], r["mean_tpot_ms"], r["completed"],
                                r["total_output_tokens"])
        ours, theirs = results["row"], results["vllm"]
        print(f"round {i + 1}: TTFT {ours[0]:.2f} ms, vllm bench {theirs[0]:.2f} ms; "
              f"TPOT {ours[1]:.3f} ms, vllm bench {theirs[1]:.3f} ms", flush=True)
        check(ours[2:] == theirs[2:] == (60, 1200),
              f"round {i + 1}: requests and tokens: row {ours[2:]}, vllm bench {theirs[2:]}")
        for k, name in enumerate(ratios):
            ratios[name].append(ours[k] / theirs[k])
    for name, values in ratios.items():
        mean, half = interval(values)
        check(abs(mean - 1) <= max(TOLERANCE, half),
              f"mean {name}: row / vllm bench serve = {mean:.4f} ± {half:.4f} ({ROUNDS} rounds)")


def part_serve(binary, folder, out):
    port = free_port()
    command = [binary, "serve", "--port", port, "--scheduler", "continuous", "--model", MODEL_FILE,
               "--served-model-name", MODEL]
    with server(command, port, out / "serve.log", cwd=out):
        for backend, endpoint, n in (("openai", "/v1/completions", 500),
                                     ("openai-chat", "/v1/chat/completions", 100)):
            before = metrics(port)
            r = vllm_bench(folder, out, port, [
                "--backend", backend, "--endpoint", endpoint, "--dataset-name", "random",
                "--random-input-len", 16, "--random-output-len", 20, "--num-prompts", n,
                "--max-concurrency", 32, "--ignore-eos"])
            print(f"{backend}: {r['request_throughput']:.2f} req/s, mean TTFT "
                  f"{r['mean_ttft_ms']:.1f} ms, mean TPOT {r['mean_tpot_ms']:.2f} ms")
            check(r["completed"] == n and r["failed"] == 0,
                  f"vllm bench serve ({backend}): {r['completed']} completed, {r['failed']} failed")
            want = [float(n), float(r["total_output_tokens"]), float(r["total_input_tokens"])]
            got = counted(port, before, COUNTERS, want)
            check(got[:2] == want[:2] == [n, 20.0 * n],
                  f"{backend}: requests and output tokens: vllm bench {want[:2]}, server {got[:2]}")


def part_llama(binary, out):
    program = subprocess.run([HERE / "setup_llama.sh"], check=True, stdout=subprocess.PIPE,
                             text=True).stdout.strip().splitlines()[-1]
    port = free_port()
    command = [program, "--model", MODEL_FILE, "--alias", MODEL, "--host", "127.0.0.1", "--port",
               port, "--threads", len(os.sched_getaffinity(0)), "--parallel", 32, "--ctx-size", 32768,
               "-kvu", "--load-mode", "none"]
    with server(command, port, out / "llama.log", cwd=out):
        r = row(binary, out, port, ["--sizes", 100, "--max-concurrent", 10])
        print(f"llama-server: {r['throughput_req_per_sec']} req/s, tokens by {r['token_source']}, "
              f"TTFT {r['ttft_avg_s']} s, TPOT {r['tpot_avg_s']} s, version {r['server_version']!r}")
        check(r["successful_requests"] == "100" and r["output_tokens"] == "2000",
              f"llama-server: {r['successful_requests']} of 100 requests, {r['output_tokens']} tokens "
              f"({r['errors']})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", default="counters,agreement,serve")
    parser.add_argument("--out")
    args = parser.parse_args()
    parts = args.only.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    binary = pathlib.Path(args.binary).resolve()
    folder = setup()
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(args.out or scratch).resolve()
        out.mkdir(parents=True, exist_ok=True)
        if {"counters", "agreement"} & set(parts):
            with vllm(folder, out / "vllm.log") as port:
                if "counters" in parts:
                    part_counters(binary, folder, out, port)
                if "agreement" in parts:
                    part_agreement(binary, folder, out, port)
        if "serve" in parts:
            part_serve(binary, folder, out)
        if "llama" in parts:
            part_llama(binary, out)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
