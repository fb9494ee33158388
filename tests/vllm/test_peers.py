#!/usr/bin/env python3
"""tests/vllm/peers.py without its peers: its readers on recorded output, its arithmetic, and whole runs
with stand-ins that print what was recorded.

    test_peers.py BINARY SOURCE

tests/data/peers: batched_bench_*.jsonl by `llama-batched-bench -m MODEL.Q8_0.gguf -c 2048 -t 2 -kvu
--load-mode none --output-format jsonl` with `-npp 16 -ntg 20 -npl 1,8,32` and `-npp 512 -ntg 1 -npl 1`;
bench_engine.json by `llmsched bench-engine --json --rounds 1 --dtypes f32,bf16,int8 --streams 1,8,32
--prefill 512 --max-load 100`; vllm_bench.json by `vllm bench serve` as peers.py calls it,
with 64 requests, lists of single values cut out. The speeds in them are no measurements: the machine
was busy.
"""
import math
import os
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import SOURCE, check, finish, json, subprocess  # noqa: E402

sys.path.insert(0, os.path.join(SOURCE, "tests", "vllm"))
from peers_figures import *  # noqa: E402

DATA = os.path.join(SOURCE, "tests", "data", "peers")
PEERS = os.path.join(SOURCE, "tests", "vllm", "peers.py")


def data(name):
    with open(os.path.join(DATA, name), encoding="utf-8") as f:
        return f.read()


def check_equal(got, want, what):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def check_near(got, want, what):
    check(got is not None and math.isclose(got, want, rel_tol=1e-9), f"{what}: got {got!r}, want {want!r}")


def sample(number, program, dtype, load, speed, left_out=False, part="engine", **values):
    return {"part": part, "round": number, "program": program, "dtype": dtype, "load": load,
            "values": {FIGURE[part]: speed, **values}, "foreign_frac": 0.2 if left_out else 0.01,
            "left_out": left_out}


def test_readers():
    decode = read_batched_bench("a log line\n" + data("batched_bench_decode.jsonl"), False)
    check_equal(list(decode), ["1 stream", "8 streams", "32 streams"], "loads of batched-bench")
    check_near(decode["8 streams"]["tokens_per_s"], 220.561264, "decode at 8 streams")
    check_near(decode["32 streams"]["prefill_tokens_per_s"], 444.818604, "prefill at 32 streams")
    prefill = read_batched_bench(data("batched_bench_prefill.jsonl"), True)
    check_equal(prefill, {"prefill 512": {"tokens_per_s": 395.097382}}, "prefill of batched-bench")
    check_equal(read_batched_bench("error: unable to load model\n", False), {}, "no figures")

    cells = read_bench_engine(data("bench_engine.json"))
    check_equal(len(cells), 12, "cells of bench-engine")
    check_equal(cells["int8", "8 streams"], {"tokens_per_s": 86.1454415, "share_of_limit": 0.17682392},
                "int8 at 8")
    check_equal(cells["bf16", "prefill 512"]["tokens_per_s"], 234.639514, "bf16, prefill")
    void = {"cells": [{"dtype": "f32", "load": "decode", "streams": 1, "tokens_per_s": {"median": None},
                       "share_of_limit": None}]}
    check_equal(read_bench_engine(json.dumps(void)), {}, "a void cell")


def test_vllm_reader():
    result = json.loads(data("vllm_bench.json"))
    values = read_vllm_bench(result, result["num_prompts"], 20)
    check_near(values["req_per_s"], result["request_throughput"], "req/s")
    check_near(values["e2el_p95_ms"], result["p95_e2el_ms"], "P95 latency")
    check(0 < values["e2el_p50_ms"] <= values["e2el_p95_ms"] <= values["e2el_p99_ms"],
          f"percentiles are in order: {values}")
    retokenized = read_vllm_bench({**result, "total_output_tokens": 1270}, result["num_prompts"], 20)
    check_equal(retokenized["output_tokens"], 1270, "tokens counted from the text")
    for change in ({"completed": result["completed"] - 1}, {"total_output_tokens": 1200}):
        try:
            read_vllm_bench({**result, **change}, result["num_prompts"], 20)
            check(False, f"{change} was taken")
        except ValueError:
            pass


def test_ratios():
    samples = []
    for number, factor in ((1, 1.0), (2, 0.5), (3, 1.0)):  # the machine is half as fast in round 2
        samples += [sample(number, OURS, d, "8 streams", v * factor)
                    for d, v in (("f32", 100), ("bf16", 300), ("int8", 400 + 40 * number))]
        samples += [sample(number, LLAMA, d, "8 streams", v * factor)
                    for d, v in (("F32", 900), ("F16", 200), ("BF16", 150))]
    samples.append(sample(4, OURS, "int8", "8 streams", 4000, left_out=True))
    samples.append(sample(4, LLAMA, "F16", "8 streams", 200))
    r = ratios(samples, ["engine"])
    check_equal(len(r), 4, "ratios of part engine")
    check_equal((r[0]["ours"], r[0]["peer_dtype"]), ("int8", "F16"), "the best ones; F32 is not among them")
    check_equal(r[0]["ratio"], {"median": 2.4, "lowest": 2.2, "highest": 2.6, "n": 3}, "the ratio by rounds")
    check_equal([x["ratio"] for x in r[1:]], [None] * 3, "ratios without measurements")
    m = next(m for m in medians(samples) if (m["program"], m["dtype"]) == (OURS, "int8"))
    check_equal((m["rounds"], m["left_out"], m["figures"]["tokens_per_s"]["n"]), (4, 1, 3), "left out")
    check_equal(m["figures"]["tokens_per_s"]["median"], 440.0, "the median without it")
    text = report(samples, "a model", "", 8)
    for want in ("440 +-", "2.40 [2.20, 2.60]", "not measured", "1 of 20 values", "round 4, llmsched int8: 8"):
        check(want in text, f"{want!r} is not in\n{text}")
    check_equal(report([], "a model", "", 8), "nothing was measured", "a report of nothing")


def served(number, program, dtype, speed, p95):
    return sample(number, program, dtype, SERVED_LOAD, speed, part="served", e2el_p95_ms=p95,
                  e2el_p50_ms=p95 / 2)


def test_served():
    samples = [served(1, OURS, "bf16", 30, 1000), served(1, OURS, "int8", 40, 1300),
               served(1, LLAMA, "F16", 16, 1200), served(1, LLAMA, "Q8_0", 20, 1250)]
    verdicts = p95_verdicts(samples)
    check_equal([v["below_both"] for v in verdicts], [None, None], "P95 without vLLM")
    samples.append(served(1, VLLM, "f32", 10, 3000))
    verdicts = p95_verdicts(samples)
    check_equal([v["below_both"] for v in verdicts], [True, False], "P95 below both")
    check_equal(verdicts[0]["peers"][LLAMA], {"dtype": "F16", "p95_ms": 1200}, "the peer's lowest P95")
    check_equal([r["ratio"]["median"] for r in ratios(samples, ["served"])], [1.5, 2.0, 3.0, 4.0], "req/s")
    text = report(samples, "a model", "32 at a time", 8)
    for want in ("30.0 +-0%", "0.60 +-0%", "1.50 [1.50, 1.50]", "0 of 5 values"):
        check(want in text, f"{want!r} is not in\n{text}")


STAND_IN = """#!/bin/sh
case "$*" in
    *--version*) echo "version: 1 (a stand-in)" ;;
    *--help*) echo "--load-mode MODE" ;;
    *{slow}*) echo $$ >"{folder}/pid"; exec sleep 60 ;;
    *"-npp 512"*) cat "{data}/batched_bench_prefill.jsonl" ;;
    *-npp*) cat "{data}/batched_bench_decode.jsonl" ;;
    *bench-engine*) cat "{data}/bench_engine.json" ;;
    *) exit 9 ;;
esac
"""


def stand_ins(folder, slow="nothing-is-slow"):
    """llmsched and llama-batched-bench that print what was recorded; one of `slow` in its arguments
    never ends."""
    for name in ("llmsched", "llama-batched-bench"):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(STAND_IN.format(slow=slow, folder=folder, data=DATA))
        os.chmod(path, 0o755)
    for dtype in ("F32", "F16", "Q8_0"):
        with open(os.path.join(folder, f"SmolLM2-135M-Instruct.{dtype}.gguf"), "w", encoding="utf-8"):
            pass
    return dict(os.environ, LLMSCHED_LLAMA_BIN=folder, LLMSCHED_LLAMA_GGUF=folder,
                LLMSCHED_VLLM_DIR=os.path.join(folder, "none"))


def start(folder, env, *more):
    return subprocess.Popen([sys.executable, PEERS, "--llmsched", os.path.join(folder, "llmsched"),
                             "--output", os.path.join(folder, "out.json"), "--max-load", "100", *more],
                            env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def result_of(folder):
    with open(os.path.join(folder, "out.json"), encoding="utf-8") as f:
        return json.load(f)


def test_whole_run():
    with tempfile.TemporaryDirectory() as folder:
        p = start(folder, stand_ins(folder), "--rounds", "2")
        text = p.communicate(timeout=60)[0]
        check_equal(p.returncode, 0, f"exit code of\n{text}")
        r = result_of(folder)
        check_equal(len(r["samples"]), 2 * (12 + 3 * 4), "samples of two rounds")
        firsts = [next((s["program"], s["dtype"]) for s in r["samples"] if s["round"] == n) for n in (1, 2)]
        check(firsts[0] != firsts[1], f"the order rotates: {firsts}")
        check_equal([m["command"] for m in r["missing"]],
                    ["tests/vllm/setup_llama.sh", "tests/vllm/setup.sh"], "what is missing: BF16, vLLM")
        check_near(r["ratios"][2]["ratio"]["median"], 101.109294 / 236.270828, "int8 / Q8_0 at 32 streams")
        check(r["machine"]["physical_cores"] >= 1, f"machine: {r['machine']}")
        check_equal((r["errors"], r["interrupted"]), ([], False), "errors, interrupted")


def test_nothing_there():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(stand_ins(folder), LLMSCHED_LLAMA_BIN=os.path.join(folder, "none"))
        os.remove(os.path.join(folder, "llmsched"))
        p = start(folder, env)
        text = p.communicate(timeout=60)[0]
        check_equal(p.returncode, 1, f"exit code of\n{text}")
        for want in ("make build", "tests/vllm/setup_llama.sh", "tests/vllm/setup.sh", "nothing was measured"):
            check(want in text, f"{want!r} is not in\n{text}")


def test_interrupt():
    for sig, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with tempfile.TemporaryDirectory() as folder:
            p = start(folder, stand_ins(folder, slow="Q8_0.gguf"))
            pid_file = os.path.join(folder, "pid")
            limit = time.monotonic() + 60
            while not (os.path.exists(pid_file) and os.path.getsize(pid_file)) and time.monotonic() < limit:
                time.sleep(0.05)
            os.kill(p.pid, sig)
            text = p.communicate(timeout=60)[0]
            check_equal(p.returncode, code, f"exit code of\n{text}")
            r = result_of(folder)
            check(r["interrupted"] and r["samples"], "partial results are kept, and said to be that")
            with open(pid_file, encoding="utf-8") as f:
                child = int(f.read())
            try:
                os.kill(child, 0)
                check(False, "the child still runs")
            except ProcessLookupError:
                pass


for test in (test_readers, test_vllm_reader, test_ratios, test_served, test_whole_run, test_nothing_there,
             test_interrupt):
    test()
finish()
