#!/usr/bin/env python3
"""http_tax.py: what HTTP costs. `llmsched serve --scheduler continuous` through the vllm row against
continuous in process: one bench run, the same requests, the same engine behind both.

    python3 tests/vllm/http_tax.py build/llmsched [--out FOLDER] [ARGUMENTS OF BENCH]

Both sides' thread pools sleep while the other one is measured. Needs no vLLM.
"""
import argparse
import csv
import tempfile

from real import *

FIGURES = (("throughput_req_per_sec", 1, "requests/s"), ("ttft_avg_s", 1e3, "mean TTFT (ms)"),
           ("tpot_avg_s", 1e3, "mean TPOT (ms)"), ("latency_p50_s", 1e3, "median latency (ms)"),
           ("latency_p95_s", 1e3, "P95 latency (ms)"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--out")
    args, more = parser.parse_known_args()
    binary = pathlib.Path(args.binary).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(args.out or scratch).resolve()
        out.mkdir(parents=True, exist_ok=True)
        port = free_port()
        with server([binary, "serve", "--port", port, "--scheduler", "continuous", "--model",
                     MODEL_FILE], port, out / "serve.log", cwd=out):
            subprocess.run([str(a) for a in (
                binary, "bench", "--schedulers", "continuous", "vllm", "--endpoint",
                f"http://127.0.0.1:{port}/v1/completions", "--model", MODEL_FILE, "--sizes", 100,
                "--runs", 5, "--output-dir", out, "--no-plot", *more)], check=True, cwd=out,
                stdin=subprocess.DEVNULL)
        with open(out / "benchmark_summaries.csv", newline="") as f:
            rows = list(csv.DictReader(f))
    print("\nHTTP TAX: vllm (HTTP) / continuous (in process), means over runs")
    for column, scale, name in FIGURES:
        mean = {s: sum(float(r[column]) for r in rows if r["scheduler"] == s) /
                sum(r["scheduler"] == s for r in rows) for s in ("continuous", "vllm")}
        print(f"  {name:<22} {mean['continuous'] * scale:10.3f} in process {mean['vllm'] * scale:10.3f}"
              f" over HTTP {(mean['vllm'] - mean['continuous']) * scale:+10.3f}"
              f" ({100 * (mean['vllm'] / mean['continuous'] - 1):+.2f} %)")


main()
