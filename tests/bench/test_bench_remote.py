"""The vllm row of the bench from outside. Usage: test_bench_remote.py BINARY SOURCE

Against a scripted server (openai_server.py): what is sent, how failures are told apart, what happens
when nobody answers. A loaded machine may make the client late, which is an exit code of its own (6):
wherever the figures themselves are not the subject, 0 and 6 both pass.
"""

import csv
import socket
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0])
from harness import *  # noqa: E402

SUMMARIES = "benchmark_summaries.csv"
METRICS = "benchmark_detailed_metrics.csv"
RESULTS = "benchmark_results.json"
JOURNAL = "benchmark_journal.jsonl"
REPORT = "benchmark_report.txt"
SCRIPTED = os.path.join(SOURCE, "tests", "bench", "openai_server.py")
NO_VARIABLES = {name: "" for name in ("VLLM_ENDPOINT", "VLLM_HOST", "VLLM_PORT", "OPENAI_API_KEY")}


class Server:
    def __init__(self, port=0, **config):
        env = dict(os.environ, PORT=str(port))
        self.process = subprocess.Popen(["/usr/bin/python3", SCRIPTED, json.dumps(config)], env=env,
                                        stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1/completions"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.kill()


def closed_port():
    """A port on which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rows(folder, name):
    with open(os.path.join(folder, name), newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def results(folder):
    with open(os.path.join(folder, RESULTS), encoding="utf-8") as f:
        return json.load(f)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def bodies(path):
    return [json.loads(line) for line in read(path).splitlines()]


def prompt_file(folder, prompts):
    path = os.path.join(folder, f"prompts-{len(os.listdir(folder))}.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(prompts, f)
    return path


def args_for(out, url, *more, schedulers=("vllm",)):
    end = ["--endpoint", url] if url else []
    return ["bench", "--no-plot", "-o", out, "--max-new-tokens", "5", "--max-concurrent", "4",
            "--warmup", "2", "--schedulers", *schedulers, *end, *more]


def measured(args, **kw):
    """Ran to its end; 6 says that this machine was too busy for the figures to count."""
    p = run(args, env=dict(NO_VARIABLES, **kw.pop("env", {})), **kw)
    stderr = p.stderr.decode("utf-8", "replace")
    late = p.returncode == 6 and "client lag" in stderr and "none succeeded" not in stderr
    check(p.returncode == 0 or late, f"{' '.join(args)}: exit {p.returncode}\n{stderr[-1500:]}")
    return p.stdout.decode("utf-8", "replace"), stderr


def alone(folder):
    """No model here: the server's name, its counts, and empty cells for what it does not show."""
    out = os.path.join(folder, "alone")
    log = os.path.join(folder, "alone.log")
    metrics = '# HELP x\nvllm:cache_config_info{block_size="16",dtype="torch.bfloat16"} 1.0\n'
    with Server(delay=0.02, log=log, metrics=metrics, cached=1, model="org/words") as server:
        stdout, stderr = measured(args_for(out, server.url, "--sizes", "6", "9", "--runs", "2"))
    check("no tokenizer" in stderr and "results in" in stderr, stderr)
    for text in ("VLLM SCHEDULER - Run 2", f"vllm: org/words at {server.url}, version 7.8.9",
                 "counted by usage", "only servers"):
        check(text in stdout, f"stdout lacks {text!r}:\n{stdout}")
    s = rows(out, SUMMARIES)
    check(len(s) == 4, f"4 runs, got {len(s)}")
    for r in s:
        n = int(r["request_size"])
        check(r["total_requests"] == r["successful_requests"] == str(n), f"all ok: {r}")
        check(int(r["output_tokens"]) == 5 * n and r["token_source"] == "usage", f"tokens: {r}")
        check(float(r["wall_time_s"]) > 0.1 and int(r["tpot_samples"]) == n, f"{r}")
        check(float(r["ttft_min_s"]) >= 0.02 and float(r["tpot_min_s"]) >= 0.019, f"{r}")
        for name in ("queue_p50_s", "mean_batch_size", "computed_rows", "padding_tokens", "steps",
                     "kv_peak_blocks", "preemptions", "useful_s", "idle_s", "overhead_s",
                     "plan_mean_us", "peak_rss_bytes", "threads", "kv_blocks"):
            check(r[name] == "", f"{name} is not known, and not {r[name]!r}")
        for name in ("client_lag_p50_s", "client_lag_p99_s", "client_cpu_frac"):
            check(0 <= float(r[name]) < 1, f"{name}: {r[name]}")
        check(float(r["tokens_per_event"]) == 1 and int(r["server_prompt_tokens"]) > n, f"{r}")
        check(float(r["cached_prompt_frac"]) > 0, f"{r}")
        check((r["policy"], r["endpoint"], r["served_model"], r["server_version"], r["model"]) ==
              ("vllm", server.url, "org/words", "7.8.9", "org/words"), f"{r}")
    for r in rows(out, METRICS):
        check((r["status"], r["http_status"], r["error"], r["output_tokens"]) ==
              ("ok", "200", "", "5"), f"{r}")
        check(r["generated_text"] == " w0 w1 w2 w3 w4", r["generated_text"])
        check(r["queue_s"] == r["batch_size"] == r["preemptions"] == r["output_hash"] == "", f"{r}")
        check(float(r["longest_gap_s"]) >= 0.019, f"{r}")
    j = results(out)
    facts = j["servers"][0]
    check((facts["state"], facts["model"], facts["dtype"], facts["max_model_len"]) ==
          ("ok", "org/words", "bf16", 4096), f"{facts}")
    check('block_size="16"' in facts["cache_config"], f"{facts}")
    check(j["runs"][0]["steps"] is None and j["settings"]["ignore_eos"] is True, "JSON")
    sent(bodies(log), out)
    plotted = os.path.join(folder, "alone-plot")
    expect(["plot", "--summaries", os.path.join(out, SUMMARIES), "--metrics",
            os.path.join(out, METRICS), "--output-dir", plotted], 0)
    check(os.path.exists(os.path.join(plotted, "scheduler_comparison_bars.png")), "charts")


def sent(all_bodies, out):
    """The bodies: one probe, and for each of 4 runs a warm-up of 2."""
    check(len(all_bodies) == 1 + 4 * 2 + 2 * (6 + 9), f"{len(all_bodies)} bodies")
    for b in all_bodies:
        check(b["model"] == "org/words" and b["stream"] is True and b["ignore_eos"] is True, f"{b}")
        check((b["temperature"], b["top_p"], b["top_k"]) == (0.7, 0.95, 50), f"sampling: {b}")
        check(b["stream_options"] == {"include_usage": True}, f"{b}")
        check(b["return_token_ids"] is True, f"{b}")
        check(isinstance(b["seed"], int) and 0 <= b["seed"] < 1 << 63, f"seed: {b}")
    seeds = {b["seed"] for b in all_bodies[1:]}
    # Run r of either size has the same seeds; warm-ups have their own.
    check(len(seeds) == 2 * 9 + 2 * 2, f"{len(seeds)} seeds")
    detail = [r for r in rows(out, METRICS) if r["request_size"] == "9" and r["run_num"] == "2"]
    prompts = [r["prompt"] for r in sorted(detail, key=lambda r: int(r["request_id"]))]
    check(sorted(prompts) == sorted(b["prompt"] for b in all_bodies[-9:]), "prompts as text")


def beside(tiny, folder):
    """With rows in process: the same requests; ratios only where the model is the same."""
    out = os.path.join(folder, "beside")
    local = ["--model", tiny, "--random-weights", "--threads", "1", "--kv-blocks", "64", "--sizes",
             "8", "--runs", "2"]
    # A late client has no ratio: a sanitizer's must be within 5 % too.
    with Server(delay=0.02 * SLOWER, model="Org/TINY") as server:
        stdout, _ = measured(args_for(out, server.url, *local, schedulers=("continuous", "vllm")))
    check("  vllm                  req/s " in stdout, f"ratios:\n{stdout}")
    check("a server's, not visible over HTTP" in stdout, stdout)
    by_request = {}
    for r in rows(out, METRICS):
        key = (r["run_num"], r["request_id"])
        by_request.setdefault(key, []).append((r["scheduler"], r["prompt"]))
    check(len(by_request) == 16, f"{len(by_request)} requests")
    for pair in by_request.values():
        check(len(pair) == 2 and pair[0][1] == pair[1][1], f"the same requests: {pair}")
    j = results(out)
    check(j["same_text"]["compared"] == 0, f"a server's text is its own: {j['same_text']}")
    with Server(delay=0.02, model="other") as server:
        stdout, stderr = measured(args_for(out, server.url, *local, "--temperature", "0",
                                           schedulers=("vllm", "continuous")))
    check("no ratio: it serves other, the others run" in stdout, stdout)
    check("no ratios against it" in stderr, stderr)
    check("text of vllm at temperature 0: the first" in stdout, stdout)
    check(all(r["incomparable"] != "" for r in rows(out, SUMMARIES) if r["scheduler"] == "vllm"),
          "marked in the CSV")
    check(0 <= results(out)["servers"][0]["equal_prefix_frac"] <= 1, "share of equal prefixes")


def refusals(folder):
    out = os.path.join(folder, "refusals")
    log = os.path.join(folder, "refusals.log")
    refused = ["stream_options", "top_k", "seed", "ignore_eos", "return_token_ids"]
    names = "top_k, seed, ignore_eos, stream_options, return_token_ids"
    with Server(delay=0.02, log=log, refuse=refused) as server:
        _, stderr = measured(args_for(out, server.url, "--sizes", "4", "--runs", "1"))
        check(f"the server refuses {names}" in stderr, stderr)
    run_bodies = bodies(log)[6:]
    check(len(run_bodies) == 6 and not any(f in b for f in refused for b in run_bodies),
          f"sent without them: {run_bodies[:1]}")
    check(results(out)["servers"][0]["refused_fields"] == names, "in the results")
    s = rows(out, SUMMARIES)[0]
    check(s["token_source"] == "events" and s["output_tokens"] == "20", f"counted by events: {s}")
    check(s["tokens_per_event"] == s["server_prompt_tokens"] == "", f"not known: {s}")
    with Server(refuse=["seed"], bare_400=True) as server:
        expect(args_for(out, server.url, "--sizes", "4"), 2, err=["a first request failed", "HTTP 400"],
               env=NO_VARIABLES)


def closing(folder):
    """A server that closes each connection behind its answer, without having said so."""
    out = os.path.join(folder, "closing")
    with Server(delay=0.02, closes=True) as server:
        _, stderr = measured(args_for(out, server.url, "--sizes", "30", "--runs", "1"))
    check("closes its connection after an answer" in stderr, stderr)
    s = rows(out, SUMMARIES)[0]
    check(s["successful_requests"] == "30" and s["errors"] == "", f"none is lost: {s}")


def special_tokens(folder):
    """A token without text is a delivery all the same: the last one ends the latency."""
    out = os.path.join(folder, "special")
    with Server(delay=0.05, special=True) as server:
        measured(args_for(out, server.url, "--sizes", "4", "--runs", "1", "--max-new-tokens", "6"))
    s = rows(out, SUMMARIES)[0]
    check((s["token_source"], s["output_tokens"], s["tokens_per_event"]) == ("usage", "24", "1"), f"{s}")
    for r in rows(out, METRICS):
        check(float(r["latency_s"]) >= 6 * 0.05 and r["generated_text"] == " w0 w2 w4", f"{r}")


def unreachable(tiny, folder):
    out = os.path.join(folder, "nobody")
    url = f"http://127.0.0.1:{closed_port()}/v1/completions"
    expect(args_for(out, url, "--sizes", "3"), 4, env=NO_VARIABLES,
           err=["unreachable", "scheduler/start_server.sh", "llmsched serve", url.split("/")[2]])
    check(not os.path.exists(out), "nothing is written")
    local = ["--model", tiny, "--random-weights", "--threads", "1", "--kv-blocks", "64", "--sizes",
             "3", "--runs", "2"]
    p = expect(args_for(out, url, *local, schedulers=("vllm", "continuous")), 0, env=NO_VARIABLES,
               err=["vllm is unreachable and not measured now", "scheduler/start_server.sh"])
    stdout = p.stdout.decode()
    check("vllm                  unreachable" in stdout and "PARTIAL" not in stdout, stdout)
    check({r["scheduler"] for r in rows(out, SUMMARIES)} == {"continuous"}, "the others run")
    facts = results(out)["servers"][0]
    check(facts["state"] == "unreachable" and facts["why"] != "", f"{facts}")
    check("unreachable" in read(os.path.join(out, REPORT)), "in the report")
    # Started meanwhile: --resume measures the row that is missing.
    with Server(delay=0.02, port=int(url.split("/")[2].split(":")[1])):
        measured(args_for(out, url, *local, "--resume", schedulers=("vllm", "continuous")))
    check(len(rows(out, SUMMARIES)) == 4, "--resume completes it")
    check(results(out)["servers"][0]["state"] == "ok", "and says so")


def places(folder):
    """Flag, environment, .env, default; two servers in one run; bad addresses."""
    out = os.path.join(folder, "places")
    one = ["--sizes", "2", "--runs", "1"]
    away = f"http://127.0.0.1:{closed_port()}/v1/completions"
    with Server(delay=0.02) as server, Server(delay=0.02) as second:
        measured(args_for(out, None, *one), env={"VLLM_ENDPOINT": server.url})
        measured(args_for(out, server.url, *one), env={"VLLM_ENDPOINT": away})
        measured(args_for(out, None, *one), env={"VLLM_HOST": "0.0.0.0", "VLLM_PORT": str(server.port)})
        check(rows(out, SUMMARIES)[0]["endpoint"] == server.url, "0.0.0.0 is read as 127.0.0.1")
        two = ("a=vllm:endpoint=" + server.url, "b=vllm")
        stdout, _ = measured(args_for(out, second.url, *one, schedulers=two))
        check([r["endpoint"] for r in rows(out, SUMMARIES)] == [server.url, second.url], "two servers")
        check("against a" in stdout or "INVALID" in stdout, f"they are compared:\n{stdout}")
        measured(args_for(out, away, *one, "--set", f"vllm.endpoint={server.url}"))
        p = expect(args_for(out, None, *one, "--dry-run", "--set", "b.endpoint=" + away,
                            schedulers=two), 0, env=NO_VARIABLES)
        text = p.stdout.decode()
        check(f"a: {server.url} answers: words, version 7.8.9" in text, text)
        check(f"b: {away} does not answer" in text and "GFLOP" not in text, text)
    for url, why in (("ftp://x", "http"), ("http://x:99999", "port"), ("http://", "host")):
        expect(args_for(out, url, *one), 2, err=["vllm: endpoint", why], env=NO_VARIABLES)
    expect(args_for(out, None, "--set", "vllm.batch_size=3"), 2, err="it has: endpoint")


def keys(folder):
    out = os.path.join(folder, "keys")
    path = os.path.join(folder, "key")
    one = ["--sizes", "2", "--runs", "1"]
    with open(path, "w") as f:
        f.write("secret-1\n")
    with Server(delay=0.02, key="secret-1", models=["a", "b"]) as server:
        measured(args_for(out, server.url, *one, "--api-key-file", path))
        measured(args_for(out, server.url, *one), env={"OPENAI_API_KEY": "secret-1"})
        expect(args_for(out, server.url, *one), 2, err="--api-key-file", env=NO_VARIABLES)
        named = ["--api-key-file", path, "--served-model"]
        measured(args_for(out, server.url, *one, *named, "b"))
        check(rows(out, SUMMARIES)[0]["served_model"] == "b", "--served-model")
        expect(args_for(out, server.url, *one, *named, "c"), 2, err="served: a, b", env=NO_VARIABLES)
    for name in os.listdir(out):
        check("secret-1" not in read(os.path.join(out, name)), f"{name} holds the key")
    for text in ("", "two words", "bell\a"):
        with open(path, "w") as f:
            f.write(text)
        expect(args_for(out, "http://127.0.0.1:1", *one, "--api-key-file", path), 2,
               err="one line of visible ASCII", env=NO_VARIABLES)


def failures_apart(folder):
    """Each way to fail has its class, and none is in a latency."""
    out = os.path.join(folder, "failures")
    classes = {"status 503": "status", "status 429": "status", "cut": "stream cut",
               "error": "server error", "short": "short output", "garbage": "parse",
               "slow": "timeout"}
    prompts = ["good 1", *classes, "good 2"]
    path = prompt_file(folder, prompts)
    with Server(delay=0.02) as server:
        stdout, _ = measured(args_for(out, server.url, "--sizes", str(len(prompts)), "--runs", "1",
                                      "--warmup", "0", "--prompts", path, "--request-timeout", "1"))
    s = rows(out, SUMMARIES)[0]
    check((s["total_requests"], s["successful_requests"], s["failed_requests"]) == ("9", "2", "7"),
          f"sent = ok + failed: {s}")
    check(s["errors"] == "status 2, stream cut 1, parse 1, timeout 1, server error 1, short output 1",
          s["errors"])
    check(float(s["latency_max_s"]) < 1, f"a failure in a latency: {s}")
    check("7 of 9 failed (status 2, " in stdout, stdout)
    for r in rows(out, METRICS):
        want = classes.get(r["prompt"], "")
        check(r["error"].startswith(want) and (want == "") == (r["error"] == ""),
              f"{r['prompt']}: {r['error']}")
        check(r["status"] == ("failed" if want else "ok"), f"{r}")
        check((r["latency_s"] == "") == (want != ""), f"{r}")
        code = r["prompt"][7:] if r["prompt"].startswith("status") else "200"
        check(r["http_status"] == code, f"{r['prompt']}: HTTP {r['http_status']}")
    path = prompt_file(folder, ["good", "reset"])
    with Server(delay=0.02) as server:
        measured(args_for(out, server.url, "--sizes", "2", "--runs", "1", "--warmup", "0",
                          "--prompts", path))
    reset = next(r for r in rows(out, METRICS) if r["prompt"] == "reset")
    check(reset["error"].startswith(("stream cut", "send")) and reset["http_status"] == "", f"{reset}")
    with Server() as server:
        expect(args_for(out, server.url, "--sizes", "2", "--runs", "1", "--warmup", "0", "--prompts",
                        prompt_file(folder, ["status 500"])), 4, err="a first request failed",
               env=NO_VARIABLES)


def chunked(folder):
    out = os.path.join(folder, "chunked")
    with Server(delay=0.02, tokens_per_event=4) as server:
        stdout, _ = measured(args_for(out, server.url, "--sizes", "3", "--runs", "1",
                                      "--max-new-tokens", "8"))
    check("4.00 per event (chunked)" in stdout and "warning: vllm: chunked: 4.00" in stdout, stdout)
    with Server(delay=0.02, usage=False) as server:
        stdout, _ = measured(args_for(out, server.url, "--sizes", "3", "--runs", "1"))
    check("the server counts no tokens" in stdout, stdout)


def until(condition, seconds=30):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.02)
    check(condition(), "waited in vain")


def finished_runs(out):
    path = os.path.join(out, JOURNAL)
    return read(path).count('"kind":"run"}') if os.path.exists(path) else 0


def killed(folder):
    """The server goes away in mid-run: all requests are accounted for, what is finished is kept."""
    out = os.path.join(folder, "killed")
    args = args_for(out, None, "--sizes", "40", "--runs", "3", "--warmup", "0")
    with Server(delay=0.02) as server:
        full = [BINARY] + args + ["--endpoint", server.url]
        p = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: finished_runs(out) == 1)
        time.sleep(0.3)
        server.kill()
        _, stderr = p.communicate(timeout=30)
        check(p.returncode == 4 and b"was lost" in stderr, f"exit {p.returncode}: {stderr.decode()}")
        s = rows(out, SUMMARIES)
        check(len(s) == 2, f"the first run and the one that was cut: {len(s)}")
        check(s[0]["failed_requests"] == "0" and int(s[1]["failed_requests"]) > 0, f"{s[1]}")
        for r in s:
            check(int(r["successful_requests"]) + int(r["failed_requests"]) == 40, f"{r}")
        classes = {r["error"].split(":")[0] for r in rows(out, METRICS) if r["run_num"] == "2"}
        check(classes <= {"", "connect", "send", "stream cut"} and len(classes) > 1, f"{classes}")
        j = results(out)
        check(j["partial"] is True and j["servers"][0]["state"] == "lost", f"{j['servers']}")
        expect(args + ["--endpoint", server.url, "--resume"], 4, env=NO_VARIABLES)
        check(finished_runs(out) == 2, "the journal is untouched")
    with Server(delay=0.02, port=server.port, model="another"):
        expect(args + ["--endpoint", server.url, "--resume"], 2, err="serves another now",
               env=NO_VARIABLES)
    with Server(delay=0.02, port=server.port):
        measured(args + ["--endpoint", server.url, "--resume"])
    check(len(rows(out, SUMMARIES)) == 3 and results(out)["partial"] is False, "--resume completes it")
    measured(args + ["--endpoint", server.url, "--resume"])  # nothing left to ask the server for
    check(results(out)["servers"][0]["state"] == "ok", "as it was found last")


def interrupted(folder):
    out = os.path.join(folder, "interrupted")
    args = args_for(out, None, "--sizes", "30", "--runs", "3", "--warmup", "0")
    with Server(delay=0.02) as server:
        p = subprocess.Popen([BINARY] + args + ["--endpoint", server.url], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        until(lambda: finished_runs(out) >= 1)
        time.sleep(0.1)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=30)
        check(p.returncode == 130, f"Ctrl-C: exit {p.returncode}")
        n = len(rows(out, SUMMARIES))
        check(1 <= n < 3 and n == finished_runs(out), f"finished runs are kept: {n}")
        check(all(r["status"] == "ok" for r in rows(out, METRICS)), "and only those")
        measured(args + ["--endpoint", server.url, "--resume"])
        check(len(rows(out, SUMMARIES)) == 3, "--resume completes it")


with tempfile.TemporaryDirectory() as base:
    os.chdir(base)  # away from models/ and .env
    tiny_folder = tiny_model(base)
    alone(base)
    beside(tiny_folder, base)
    refusals(base)
    closing(base)
    special_tokens(base)
    unreachable(tiny_folder, base)
    places(base)
    keys(base)
    failures_apart(base)
    chunked(base)
    killed(base)
    interrupted(base)
finish()
