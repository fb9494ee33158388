"""Servers that stall or die, as the vllm row sees them. Usage: test_bench_stall.py BINARY SOURCE

Against `llmsched serve --executor synthetic`: tokens on a timetable, no computing, so that what is
late is late because of what this test does.
"""

import csv
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0])
from harness import *  # noqa: E402
from server import Server  # noqa: E402

STALL_S = 1.0
SYNTHETIC = ("--executor", "synthetic", "--ttft", "50ms", "--tpot", "10ms")


def rows(folder, name):
    with open(os.path.join(folder, name), newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def bench(out, server, size, tokens, *more):
    return ["bench", "--schedulers", "vllm", "--endpoint", server.url + "/v1/completions", "--sizes", str(size),
            "--runs", "1", "--warmup", "0", "--max-new-tokens", str(tokens), "--max-concurrent", "4",
            "--no-plot", "-o", out, *more]


def stall(folder):
    """One second without the server in a run of ten shows in the tail, and not in the median."""
    out = os.path.join(folder, "stall")
    with Server(BINARY, *SYNTHETIC) as server:

        def stop_and_go():
            time.sleep(4)
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(STALL_S)
            server.process.send_signal(signal.SIGCONT)

        hand = threading.Thread(target=stop_and_go)
        hand.start()
        # 40 rounds of 0.24 s: one that is caught at its very start still takes a second.
        p = run(bench(out, server, 160, 20))
        hand.join()
    stderr = p.stderr.decode("utf-8", "replace")
    check(p.returncode in (0, 6), f"exit {p.returncode}: {stderr}")
    s = rows(out, "benchmark_summaries.csv")[0]
    check(s["successful_requests"] == "160" and s["output_tokens"] == "3200", f"{s}")
    p50, p99, most = (float(s[f"latency_{q}_s"]) for q in ("p50", "p99", "max"))
    check(p50 >= 0.235, f"a request takes 0.24 s: P50 {p50}")
    check(most >= 0.95 * STALL_S and p99 >= 0.95 * STALL_S and p50 < 0.7 * STALL_S,
          f"the stall is in the tail: P50 {p50}, P99 {p99}, max {most}")
    requests = rows(out, "benchmark_detailed_metrics.csv")
    hit = [r for r in requests  # before its first token, or between two
           if max(float(r["longest_gap_s"]), float(r["ttft_s"])) >= 0.8 * STALL_S]
    check(1 <= len(hit) <= 8, f"those in flight then: {len(hit)} of {len(requests)} had a gap")


def death(folder):
    """SIGKILL in mid-run: the bench ends, and every request has an end and a class."""
    out = os.path.join(folder, "death")
    with Server(BINARY, *SYNTHETIC) as server:
        hand = threading.Timer(1.5, server.process.kill)
        hand.start()
        p = run(bench(out, server, 24, 50), timeout=60)  # 6 rounds of 0.54 s
        hand.join()
    check(p.returncode in (0, 6), f"exit {p.returncode}: {p.stderr.decode()}")
    s = rows(out, "benchmark_summaries.csv")[0]
    ok, failed = int(s["successful_requests"]), int(s["failed_requests"])
    check(ok > 0 and failed > 0 and ok + failed == 24, f"sent = ok + failed: {ok} + {failed}")
    detail = rows(out, "benchmark_detailed_metrics.csv")
    classes = [r["error"].split(":")[0] for r in detail if r["status"] != "ok"]
    check(len(classes) == failed and set(classes) <= {"connect", "send", "stream cut"}, f"{classes}")
    check(sum(int(c.rsplit(" ", 1)[1]) for c in s["errors"].split(", ")) == failed, s["errors"])


def pool_sleeps(folder):
    """While a server is measured, the threads of our own model take no CPU time."""
    tiny = tiny_model(folder)
    out = os.path.join(folder, "pool")
    journal = os.path.join(out, "benchmark_journal.jsonl")
    with Server(BINARY, *SYNTHETIC) as server:
        args = bench(out, server, 4, 200, "--model", tiny, "--random-weights", "--threads", "2")
        args[2] = "continuous"
        args.insert(3, "vllm")
        p = subprocess.Popen([BINARY] + args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def local_is_done():
            if not os.path.exists(journal):
                return False
            with open(journal, encoding="utf-8") as f:
                return '"kind":"run"}' in f.read()

        end = time.time() + 30
        while not local_is_done() and time.time() < end:
            time.sleep(0.02)
        time.sleep(0.2)
        before = thread_times(p.pid)
        time.sleep(1.0)
        after = thread_times(p.pid)
        own = 3 if os.environ.get("LLMSCHED_SANITIZE") == "thread" else 2  # it has one of its own
        check(len(after) == own, f"threads in the HTTP row: {after}")
        used = [after[t] - before[t] for t in after if t != str(p.pid)]
        check(used and max(used) < 20e6, f"ns of CPU in 1 s: {used}")
        p.wait(timeout=60)


def thread_times(pid):
    """ns on a CPU, by thread."""
    times = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as f:
            times[thread] = int(f.read().split()[0])
    return times


with tempfile.TemporaryDirectory() as base:
    os.chdir(base)
    stall(base)
    death(base)
    pool_sleeps(base)
finish()
