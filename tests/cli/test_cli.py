"""Options, messages and exit codes, from outside. Usage: test_cli.py BINARY SOURCE_DIR"""

import os
import sys

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import *  # noqa: E402

BENCH_ERRORS = [
    # arguments, part of the message
    (["--sizes"], "needs a value"),
    (["--seed", "-x"], "--seed=VALUE"),
    (["--dry-run", "--json"], "leave --json out"),
    (["--sizes", ","], "names nothing"),
    (["--schedulers="], "names nothing"),
    (["--sizes", "0"], "not a number from 1"),
    (["--sizes", "5,x"], "\"x\""),
    (["--sizes", "5", "5"], "stands twice"),
    (["--sizes", "1000001"], "from 1 to 1000000"),
    (["--runs", "0"], "out of range"),
    (["--runs", "1.5"], "whole number"),
    (["--runs", "0x10"], "whole number"),
    (["--runs", "nan"], "whole number"),
    (["--runs=1e99"], "out of range"),
    (["--quick=yes"], "takes no value"),
    (["--temprature", "0"], "did you mean --temperature"),
    (["--zzzzzzzzz"], "--help"),
    (["--workload", "long"], "short|mixed"),
    (["--top-p", "0"], "out of range"),
    (["--ignore-eos", "maybe"], "auto|on|off"),
    (["--dtype", "f16"], "auto|f32|bf16|int8"),
    (["--kv-dtype", "int8"], "auto|f32|bf16"),
    (["--kv-dtype", ""], "auto|f32|bf16"),
    (["extra"], "unexpected argument"),
    (["--schedulers", "vllm:batch_size=3"], "it has: endpoint"),
    (["--schedulers", "vllm", "--endpoint", "localhost:8000"], "http://"),
    (["--request-timeout", "0"], "out of range"),
    (["--schedulers", "naiv"], "naive"),
    (["--schedulers", "naive", "naive"], "stands twice"),
    (["--schedulers", "=naive"], "label"),
    (["--schedulers", "x" * 64], "label"),
    (["--schedulers", "a\x1bb=naive"], "control"),
    (["--schedulers", "big=naive:batch=3"], "batch_size"),
    (["--schedulers", "big=naive:batch_size=0"], "batch_size"),
    (["--set", "dynamic"], "SCHEDULER.PARAMETER=VALUE"),
    (["--set", "other.batch_size=3"], "no scheduler of this run"),
    (["--set", "dynamic.max_batch_size=0"], "max_batch_size"),
    (["--set", "naive.batch_size=many"], "batch_size"),
    (["--fail-if", "dynamic.throughput"], "SCHEDULER.COLUMN<VALUE"),
    (["--fail-if", "dynamic.thruput<5"], "no numeric column"),
    (["--fail-if", "dynamic.throughput_req_per_sec<five"], "not a number"),
    (["--fail-if", "other.throughput_req_per_sec<5"], "no scheduler of this run"),
]


def usage():
    expect([], 2, err="Usage")
    expect(["--help"], 0, out=["Usage", "bench", "Exit codes"])
    expect(["--version"], 0, out="llmsched 0")
    expect(["bnch"], 2, err="did you mean bench")
    for command in ["bench", "bench-engine", "plot", "pull", "info", "tokenize", "generate"]:
        expect([command, "--help"], 0, out=["Usage: llmsched " + command, "Examples:"])
    for args, part in BENCH_ERRORS:
        expect(["bench"] + args, 2, err=part)
    expect(["bench", "--device", "cuda"], 3, err="no usable GPU")
    expect(["pull"], 2, err="one model id")
    expect(["pull", "--revison", "x"], 2, err="did you mean --revision")
    expect(["info"], 2, err="schedulers")
    expect(["generate"], 2, err="--prompt")
    expect(["generate", "--prompt", "a", "--prompt-ids", "1"], 2, err="either")


def models(folder):
    tiny = tiny_model(folder)
    expect(["info", "schedulers"], 0, out=["naive", "dynamic", "continuous", "batch_size",
                                           "max_time_wait", "memory_threshold"])
    expect(["info", "machine"], 0, out=["f32", "bf16", "int8", "GFLOP/s", "GOP/s", "GB/s"])
    expect(["info", "machine"], 3, err=["no-such-isa", "reference"], env={"LLMSCHED_ISA": "no-such-isa"})
    expect(["info", "model", tiny], 3, err="safetensors")
    expect(["info", "model", tiny, "--random-weights"], 0, out=["llama", "2 layers", "random weights"])
    for asked, kv in (([], "8 MiB as bf16"), (["--dtype", "int8"], "8 MiB as bf16"), (["--dtype", "f32"], "16 MiB as f32"),
                      (["--kv-dtype", "f32"], "16 MiB as f32"), (["--dtype", "f32", "--kv-dtype", "bf16"], "8 MiB as bf16")):
        expect(["info", "model", tiny, "--random-weights", "--kv-blocks", "4096", *asked], 0, out=f"KV cache up to {kv}")
    expect(["info", "model", "gpt2", "--random-weights"], 0, out=["gpt2", "12 layers", "124439808"])
    expect(["info", "model", "no/such"], 3, err=["llmsched pull", "make model"], cwd=folder)
    expect(["bench"], 3, err=["llmsched pull", "make model"], cwd=folder)
    expect(["bench", "--model", tiny], 3, err="tokenizer")
    expect(["bench"], 3, err="other/place", cwd=folder, env={"LLM_MODEL": "other/place"})
    expect(["info", "model", "gpt5", "--random-weights"], 3, err="gpt2-large", cwd=folder)
    bad = os.path.join(folder, "bad")
    os.makedirs(bad)
    with open(os.path.join(bad, "config.json"), "w") as f:
        json.dump(dict(TINY, model_type="bert"), f)
    expect(["info", "model", bad, "--random-weights"], 3, err=["bert", "gpt2", "gpt_neo", "llama"])
    expect(["bench", "--model", tiny, "--random-weights"], 3, err="avx2", env={"LLMSCHED_ISA": "mmx"})
    expect(["bench", "--model", tiny, "--random-weights", "--kv-blocks", "16000000"], 1,
           err=["--kv-blocks", "bytes"])
    expect(["bench", "--model", tiny, "--random-weights", "--prompts", "/nonexistent"], 3,
           err="/nonexistent")
    expect(["bench", "--model", tiny, "--random-weights", "--output-dir", "/proc/x"], 1,
           err="--output-dir")


def text(folder):
    tiny = tiny_model(folder)
    base = ["generate", "--model", tiny, "--random-weights", "-n", "6"]
    a = expect(base + ["--prompt-ids", "72,105", "--ids"], 0, err="random weights").stdout
    check(len(a.split()) == 6, f"six ids: {a!r}")
    check(a == run(base + ["--prompt-ids", "72, 105", "--ids"]).stdout, "the same seed, the same ids")
    check(a == run(base + ["--prompt", "Hi", "--ids"]).stdout, "bytes are ids without a tokenizer")
    check(a != run(base + ["--prompt", "Hi", "--ids", "--seed", "7"]).stdout, "another seed")
    greedy = run(base + ["--prompt", "Hi", "--ids", "--temperature", "0"]).stdout
    check(greedy == run(base + ["--prompt", "Hi", "--ids", "--temperature", "0", "--seed", "9"]).stdout,
          "greedy needs no seed")
    narrow = expect(base + ["--prompt", "Hi", "--ids", "--temperature", "0", "--kv-dtype", "bf16"], 0).stdout
    check(narrow == greedy, "the KV cache is bf16 unless asked")
    expect(base + ["--prompt", "Hi", "--ids", "--kv-dtype", "f32"], 0)
    expect(base + ["--prompt-ids", "1,x"], 2, err="not a token id")
    expect(base + ["--prompt-ids", "99999"], 2, err="vocabulary")
    expect(base + ["--prompt-ids", "-1"], 2)
    expect(base + ["--prompt", ""], 2, err="no tokens")
    expect(["generate", "--model", tiny, "--random-weights", "-n", "2000", "--prompt", "x"], 3,
           err="context")
    p = run(["tokenize", "--model", tiny, "Hi"])
    check(p.returncode == 3, "tokenize without a tokenizer")


def plots(folder):
    """From CSV files alone: columns in any order, strange names, a missing column named."""
    out = os.path.join(folder, "charts", "deep")
    expect(["plot"], 3, err="benchmark_summaries.csv", cwd=folder)
    head = ["latency_p50_s", "latency_p95_s", "latency_p99_s", "latency_avg_s", "scheduler",
            "throughput_tokens_per_sec", "throughput_req_per_sec", "request_size", "run_num",
            "total_requests", "successful_requests", "failed_requests", "wall_time_s",
            "latency_min_s", "latency_max_s"]
    table = os.path.join(folder, "s.csv")

    def write(columns):
        with open(table, "w", newline="") as f:
            f.write(",".join(columns + ["my own"]) + "\r\n")
            for name in ("a", "\"`touch owned`'; system('touch owned')\""):
                for run_num in ("1", "2"):
                    cells = {"scheduler": name, "request_size": "5", "run_num": run_num,
                             "total_requests": "5", "successful_requests": "5", "failed_requests": "0"}
                    f.write(",".join(cells.get(c, "1.5") for c in columns + ["my own"]) + "\r\n")

    write(head)
    p = run(["plot", "--summaries", table, "--output-dir", out], cwd=folder)
    if p.returncode == 3 and b"gnuplot-nox" in p.stderr:
        print("skipped: plot needs gnuplot")
        return
    missing = p.stderr.decode()
    check(p.returncode == 0, f"plot from a table: exit {p.returncode}: {missing}")
    check(os.path.exists(os.path.join(out, "throughput_comparison.png")), "the chart is drawn")
    check(os.path.exists(os.path.join(out, "benchmark_report.txt")), "the report is written")
    check("latency_distribution.png is not drawn" in missing, missing)
    check(not os.path.exists(os.path.join(folder, "owned")), "a name ran as a command")
    check(not os.path.exists(os.path.join(out, "plot-data", "owned")), "a name ran as a command")
    for column in head:
        write([c for c in head if c != column])
        expect(["plot", "--summaries", table, "--output-dir", out], 3, err=column, cwd=folder)


with tempfile.TemporaryDirectory() as folder:
    usage()
    plots(folder)
    models(folder)
    text(folder)
finish()
