"""The bench from outside: files, definitions, interruption, resume. Usage: test_bench.py BINARY SOURCE

A tiny random model: what is under test is the bench, not the arithmetic.
"""

import csv
import os
import sys
import time

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import *  # noqa: E402

FULL = os.environ.get("LLMSCHED_TEST_FULL") == "1"
SUMMARIES = "benchmark_summaries.csv"
METRICS = "benchmark_detailed_metrics.csv"
RESULTS = "benchmark_results.json"
JOURNAL = "benchmark_journal.jsonl"


def rows(folder, name):
    with open(os.path.join(folder, name), newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def args_for(tiny, out, *more):
    return ["bench", "--model", tiny, "--random-weights", "--no-plot", "--kv-blocks", "256",
            "--threads", "1", "-o", out] + list(more)


def small(tiny, out, *more):
    return args_for(tiny, out, "--sizes", "5", "9", "--runs", "2", "--max-new-tokens", "6",
                    "--max-concurrent", "4", "--set", "naive.timeout=0.05", "--set",
                    "dynamic.timeout=0.05", *more)


def matrix(tiny, folder):
    out = os.path.join(folder, "deep", "out")
    p = expect(small(tiny, out), 0,
               out=["256 blocks of 16 tokens", "seed 42", "TESTING WITH 5 REQUESTS (random weights)", "TESTING WITH 9 REQUESTS", "--- Run 1/2 ---",
                    "--- Run 2/2 ---", "NAIVE SCHEDULER - Run 1", "CONTINUOUS SCHEDULER - Run 2",
                    "SCHEDULER COMPARISON SUMMARY", "random weights"])
    s = rows(out, SUMMARIES)
    check(len(s) == 12, f"12 runs, got {len(s)}")
    order = [r["scheduler"] for r in s if r["request_size"] == "5"]
    check(order == ["naive", "dynamic", "continuous", "dynamic", "continuous", "naive"],
          f"the order rotates: {order}")
    for r in s:
        n = int(r["request_size"])
        check(int(r["total_requests"]) == n and int(r["successful_requests"]) == n, f"all ok: {r}")
        wall = float(r["wall_time_s"])
        check(abs(float(r["throughput_req_per_sec"]) - n / wall) < 1e-3 * n / wall, "req/s = n / wall")
        check(abs(float(r["throughput_tokens_per_sec"]) - 6 * n / wall) < 1e-3 * 6 * n / wall, "tok/s")
        parts = sum(float(r[k]) for k in r if k in ("useful_s", "padding_s", "recompute_s",
                                                     "fill_wait_s", "idle_s", "overhead_s"))
        check(abs(parts - wall) < 0.01 * wall + 1e-3, f"the parts sum to the wall time: {parts} {wall}")
        check((r["tpot_p50_s"] == "") == (r["scheduler"] != "continuous"),
              f"TPOT is empty where a batch comes at once: {r['scheduler']} {r['tpot_p50_s']!r}")
        check(0 < float(r["batch_efficiency"]) <= 1, "efficiency")
        check(int(r["peak_rss_bytes"]) > 1 << 20, "peak memory")
    d = rows(out, METRICS)
    check(len(d) == 3 * 2 * (5 + 9), f"a row per request, got {len(d)}")
    by_request = {}
    for r in d:
        check(r["status"] == "ok" and int(r["output_tokens"]) == 6, f"{r}")
        check(float(r["ttft_s"]) <= float(r["latency_s"]) + 1e-9, "TTFT <= latency")
        key = (r["request_size"], r["run_num"], r["request_id"])
        by_request.setdefault(key, set()).add((r["prompt"], r["generated_text"]))
    check(all(len(v) == 1 for v in by_request.values()), "every scheduler gives the same text")
    with open(os.path.join(out, RESULTS), encoding="utf-8") as f:
        j = json.load(f)
    text = json.dumps(j)
    for part in ["schema_version", "command_line", "commit", "compiler", "random weights", "seed"]:
        check(part in text, f"{RESULTS} lacks {part}")
    check("same text" in p.stdout.decode().lower() or "same output" in p.stdout.decode().lower(),
          "the verdict on texts")
    return out


def thresholds(tiny, folder):
    out = os.path.join(folder, "gate")
    base = args_for(tiny, out, "--sizes", "3", "--runs", "1", "--max-new-tokens", "3",
                    "--schedulers", "continuous", "--quiet")
    expect(base + ["--fail-if", "continuous.throughput_req_per_sec<0.001"], 0)
    expect(base + ["--fail-if", "continuous.throughput_req_per_sec<1e9"], 5,
           err="continuous.throughput_req_per_sec")
    expect(base + ["--fail-if", "continuous.latency_p95_s>=0"], 5, err="latency_p95_s")


def variants(tiny, folder):
    out = os.path.join(folder, "variants")
    p = expect(args_for(tiny, out, "--sizes", "6", "--runs", "1", "--max-new-tokens", "4",
                        "--max-concurrent", "3", "--schedulers", "naive,wide=naive:batch_size=3:pad=false",
                        "continuous", "--set", "naive.timeout=0.02", "--json"), 0)
    j = json.loads(p.stdout)
    check("wide" in json.dumps(j), "the label is in the JSON")
    s = rows(out, SUMMARIES)
    check([r["scheduler"] for r in s] == ["naive", "wide", "continuous"], "labels")
    check([r["policy"] for r in s] == ["naive", "naive", "continuous"], "policies")
    check("batch_size=3" in s[1]["params"] and "pad=false" in s[1]["params"], s[1]["params"])
    check("timeout=0.02" in s[0]["params"] and "timeout=0.5" in s[1]["params"],
          "--set by label comes before --set by policy")
    check(int(s[1]["padding_tokens"]) == 0 and int(s[0]["padding_tokens"]) > 0, "ragged has no padding")


def prompts(tiny, folder):
    out = os.path.join(folder, "prompts")
    hostile = ["=cmd|' /C calc'!A0", "a,b\"c\"\nd\r\ne", "\u2028\u00e9\U0001F600", "+1", "@x", "-1", "\t"]
    path = os.path.join(folder, "prompts.json")
    with open(path, "w") as f:
        json.dump(hostile, f)
    base = args_for(tiny, out, "--sizes", "9", "--runs", "1", "--max-new-tokens", "2",
                    "--schedulers", "continuous", "--prompts", path, "--quiet")
    expect(base, 0)
    got = [r["prompt"] for r in rows(out, METRICS)]
    check(got[:7] == hostile, f"prompts survive: {got[:7]!r}")
    check(len(got) == 9 and set(got[7:]) <= set(hostile), "a size beyond the set is filled")
    expect(base + ["--csv-safe"], 0)
    safe = [r["prompt"] for r in rows(out, METRICS)]
    check(all(not t.startswith(("=", "+", "-", "@", "\t")) for t in safe), f"guarded: {safe!r}")


def dry(tiny, folder):
    out = os.path.join(folder, "dry")
    expect(small(tiny, out, "--dry-run"), 0, out=["cells", "memory", "time"])
    check(not os.path.exists(out), "a dry run writes nothing")


def journal_keys(out):
    keys = []
    path = os.path.join(out, JOURNAL)
    if not os.path.exists(path):
        return keys
    with open(path, "rb") as f:
        for line in f.read().split(b"\n")[1:]:
            try:
                j = json.loads(line)
            except ValueError:
                continue  # torn: the process was killed while it wrote
            keys.append((j["scheduler"], j["request_size"], j["run_num"]))
    return keys


def complete(tiny, out, more, expected):
    """Resumes and checks that the matrix is whole: nothing lost, nothing doubled."""
    before = journal_keys(out)
    expect(small(tiny, out, "--resume", "--quiet", *more), 0)
    s = rows(out, SUMMARIES)
    keys = [(r["scheduler"], int(r["request_size"]), int(r["run_num"])) for r in s]
    check(len(keys) == expected and len(set(keys)) == expected, f"{len(keys)} of {expected} cells: {keys}")
    check(set(before) <= set(keys), "every finished run is present")
    with open(os.path.join(out, RESULTS), encoding="utf-8") as f:
        json.load(f)


def interrupt(tiny, folder):
    out = os.path.join(folder, "interrupt")
    slow = ["--set", "naive.timeout=0.3", "--set", "dynamic.timeout=0.3"]
    for sig, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        p = subprocess.Popen([BINARY] + small(tiny, out, *slow), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        end = time.time() + 30
        while not journal_keys(out) and time.time() < end:
            time.sleep(0.02)
        p.send_signal(sig)
        p.communicate(timeout=30)
        check(p.returncode == code, f"signal {sig}: exit {p.returncode}, expected {code}")
        partial = rows(out, SUMMARIES)
        check(0 < len(partial) < 12, f"partial results: {len(partial)} of 12")
        with open(os.path.join(out, RESULTS), encoding="utf-8") as f:
            check(json.load(f)["partial"] is True, "marked as partial")
        if sig == signal.SIGINT:
            complete(tiny, out, slow, 12)
            os.remove(os.path.join(out, JOURNAL))
    complete(tiny, out, slow, 12)
    expect(small(tiny, out, "--resume", "--seed", "7", *slow), 2, err="another matrix")
    p = expect(small(tiny, out, "--resume", "--quiet", *slow), 0)  # complete: nothing to run
    check(len(rows(out, SUMMARIES)) == 12, "resuming a whole matrix changes nothing")
    with open(os.path.join(out, JOURNAL), "ab") as f:
        f.write(b'{"scheduler": "naive", "requ')
    expect(small(tiny, out, "--resume", "--quiet", *slow), 0, err="incomplete")
    check(len(rows(out, SUMMARIES)) == 12, "a torn line is cut off")


def kills(tiny, folder):
    """kill -9 at any moment: whole files only, every finished run present, --resume completes."""
    out = os.path.join(folder, "kills")
    tries = 50
    more = ["--set", "naive.timeout=0.04", "--set", "dynamic.timeout=0.04"]
    seen = 0
    keys = []
    for i in range(tries):
        resume = ["--resume"] if 0 < len(keys) < 12 else []
        p = subprocess.Popen([BINARY] + small(tiny, out, "--quiet", *resume, *more),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.01 + 0.006 * (i * 37 % 50))
        killed = p.poll() is None
        p.kill()
        p.wait()
        seen += killed
        for name in (SUMMARIES, METRICS):
            if os.path.exists(os.path.join(out, name)):
                whole = rows(out, name)
                check(all(None not in r.values() for r in whole), f"{name} is torn")
        if os.path.exists(os.path.join(out, RESULTS)):
            with open(os.path.join(out, RESULTS), encoding="utf-8") as f:
                json.load(f)
        known = {SUMMARIES, METRICS, RESULTS, JOURNAL, "benchmark_report.txt",
                 "benchmark_journal.previous.jsonl"}
        extra = [n for n in os.listdir(out) if n not in known and ".tmp." not in n
                 and n != ".llmsched-probe"] if os.path.exists(out) else []
        check(not extra, f"unknown files: {extra}")
        keys = journal_keys(out)
        check(len(keys) == len(set(keys)), f"a run stands twice: {keys}")
    print(f"{seen} of {tries} processes were killed while they ran", flush=True)
    check(seen >= tries // 2, f"only {seen} kills hit a running bench")
    complete(tiny, out, more, 12)
    left = [n for n in os.listdir(out) if ".tmp" in n or n == ".llmsched-probe"]
    check(not left, f"temporary files of killed runs are removed: {left}")


def disk(tiny, folder):
    out = os.path.join(folder, "disk")
    os.makedirs(out)
    # A limit on file size stands in for a full disk: the journal's third run no longer fits.
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 12; exec "$0" "$@"', BINARY]
    p = subprocess.run(limited + small(tiny, out, "--quiet"), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60)
    check(p.returncode == 1, f"a write that fails: exit {p.returncode}: {p.stderr.decode()[-500:]}")
    check(JOURNAL in p.stderr.decode(), "the message names the file")
    n = len(journal_keys(out))
    check(n >= 1, "finished runs are in the journal")
    complete(tiny, out, [], 12)
    if os.geteuid() != 0:
        os.chmod(out, 0o555)
        expect(small(tiny, out), 1, err="--output-dir")
        os.chmod(out, 0o755)
    p = subprocess.Popen([BINARY] + small(tiny, out, "--set", "naive.timeout=0.5"),
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.4)
    expect(small(tiny, out), 2, err="another bench")
    p.kill()
    p.wait()


def refused(tiny, folder):
    """What can be known before minutes are spent is said then, and nothing is written."""
    out = os.path.join(folder, "refused")
    base = args_for(tiny, out, "--sizes", "2", "--runs", "1", "--schedulers", "continuous")
    expect(base + ["--max-new-tokens", "2000"], 2, err=["prompt 1", "context", "--max-new-tokens"])
    expect(base + ["--max-new-tokens", "900", "--kv-blocks", "8"], 2, err=["KV cache", "--kv-blocks"])
    fifo = os.path.join(folder, "fifo")
    os.mkfifo(fifo)
    expect(base + ["--prompts", fifo], 3, err="not a regular file", timeout=20)
    expect(["plot", "--summaries", fifo], 3, err="not a regular file", timeout=20)
    check(not os.path.exists(out), "a refused bench leaves no folder")
    os.makedirs(os.path.join(out, METRICS))
    expect(base, 1, err=[METRICS, "is a folder"])
    os.rmdir(os.path.join(out, METRICS))


def journals(tiny, folder):
    """Finished runs survive closed streams, restarts that die early, and resuming something else."""
    out = os.path.join(folder, "journals")
    base = args_for(tiny, out, "--sizes", "3", "--runs", "1", "--max-new-tokens", "3",
                    "--schedulers", "continuous")
    for closed in (">&-", "2>&-", "<&-"):
        p = subprocess.run(["bash", "-c", f'"$0" "$@" {closed}', BINARY] + base, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        check((p.returncode != 0) == (closed == ">&-"), f"{closed}: exit {p.returncode}")
        with open(os.path.join(out, JOURNAL), encoding="utf-8") as f:
            lines = f.read().splitlines()
        check(len(lines) == 2 and all(json.loads(line) for line in lines), f"{closed}: {lines}")
    expect(base + ["--resume"], 0)
    # Two starts that end before their first run: the finished runs are still there.
    previous = os.path.join(out, "benchmark_journal.previous.jsonl")
    for _ in range(2):
        p = subprocess.Popen([BINARY] + base + ["--warmup", "90000"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        p.stdout.readline()  # the journal has begun
        p.kill()
        p.communicate()
    with open(previous, encoding="utf-8") as f:
        check(len(f.read().splitlines()) == 2, "a journal without runs must not push out one with")
    # The same ids in other pieces, another limit of a prompt, another file behind the name.
    path = os.path.join(folder, "p.jsonl")

    def resume(lines, code, **kw):
        with open(path, "w") as f:
            f.write("\n".join(lines))
        expect(base + ["--prompts", path] + (["--resume"] if code is not None else []), code or 0, **kw)

    resume(['{"prompt": "ab"}', '{"prompt": "c", "max_new_tokens": 2}'], None)
    resume(['{"prompt": "ab"}', '{"prompt": "c", "max_new_tokens": 2}'], 0)
    resume(['{"prompt": "a"}', '{"prompt": "bc", "max_new_tokens": 2}'], 2, err="another matrix")
    resume(['{"prompt": "ab"}', '{"prompt": "c", "max_new_tokens": 3}'], 2, err="another matrix")
    os.utime(os.path.join(tiny, "config.json"), (1, 1))
    resume(['{"prompt": "ab"}', '{"prompt": "c", "max_new_tokens": 2}'], 2, err="another matrix")


with tempfile.TemporaryDirectory() as folder:
    tiny = tiny_model(folder)
    refused(tiny, folder)
    journals(tiny, folder)
    matrix(tiny, folder)
    thresholds(tiny, folder)
    variants(tiny, folder)
    prompts(tiny, folder)
    dry(tiny, folder)
    interrupt(tiny, folder)
    kills(tiny, folder)
    disk(tiny, folder)
finish()
