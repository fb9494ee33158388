#!/usr/bin/env python3
"""peers.py: llmsched beside llama.cpp and vLLM, interleaved in one run (`make bench-peers`).

    python3 tests/vllm/peers.py [--llmsched build/llmsched] [--only engine|served] [--rounds 3]
                                [--shape smollm2|gpt2] [--requests 200] [--max-load 8]
                                [--output bench-peers.json]

  engine  llmsched bench-engine and llama-batched-bench in every dtype: 16 prompt + 20 new tokens at 1, 8
          and 32 streams, and a prompt of 512
  served  llmsched serve, llama-server and vLLM for the CPU, one after another, under vllm bench serve:
          random prompts of 10 tokens + 20 new ones, 32 at a time, as fast as they are answered

Builds and downloads nothing: what is missing is named with the command that sets it up, and the rest runs.
The order rotates from round to round. Every program has all cores; a served one shares them with the
client. A value measured while others took more than --max-load percent of the machine is left out of
the medians, and counted. Ctrl-C ends what runs, prints and writes what is there.

  LLMSCHED_VLLM_DIR     the folder of setup.sh and setup_llama.sh (venv/, model/, llama/)
  LLMSCHED_LLAMA_BIN    folder of llama-batched-bench and llama-server (default: llama/build/bin there)
  LLMSCHED_LLAMA_GGUF   folder of the GGUF files by dtype (default: llama/gguf there)

Exit codes: 0, 1 something failed or nothing was measured, 2 usage, 130 and 143 interrupted.
"""
import argparse
import datetime
import platform
import resource
import tempfile

from peers_figures import *
from real import *

CLIENT = {"prompt": 10, "new": 20, "concurrency": 32, "warmups": 32}
SERVED_TEXT = (f"vllm bench serve, {CLIENT['prompt']} + {CLIENT['new']} random tokens, "
               f"{CLIENT['concurrency']} at a time")
SHAPES = {  # model's name, what llmsched is told, the GGUF files' name
    "smollm2": (MODEL, ["--model", MODEL_FILE], MODEL),
    "gpt2": ("GPT-2 124M shape, random weights", ["--model", "gpt2", "--random-weights"], "gpt2-random"),
}
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
LIMIT_S = 900  # on one command: a hung one must not hold the run for ever
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A program that was started did not do its work; the others go on."""


# The machine

def cpu_info():
    first, cores = {}, set()
    with open("/proc/cpuinfo") as f:
        for block in f.read().split("\n\n"):
            fields = {k.strip(): v.strip() for k, _, v in (l.partition(":") for l in block.splitlines())}
            first = first or fields
            if fields:
                cores.add((fields.get("physical id"), fields.get("core id", fields.get("processor"))))
    flags = first.get("flags", "").split()
    return {"cpu": first.get("model name", platform.machine()), "family": first.get("cpu family"),
            "model": first.get("model"), "physical_cores": len(cores), "logical_cores": os.cpu_count(),
            "flags": {f: f in flags for f in CPU_FLAGS}, "kernel": platform.release()}


def busy_seconds():
    """CPU time of all cores that was not idle, stolen time included."""
    with open("/proc/stat") as f:
        t = [int(v) for v in f.readline().split()[1:9]]
    return (sum(t) - t[3] - t[4]) / TICKS


def session_seconds(sid):
    """CPU time of a running server and of all that it started."""
    ticks = 0
    for entry in os.listdir("/proc") if sid else ():
        with contextlib.suppress(OSError):
            if entry.isdigit():
                with open(f"/proc/{entry}/stat") as f:
                    fields = f.read().rpartition(")")[2].split()
                if int(fields[3]) == sid:
                    ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


class ForeignLoad:
    """with ForeignLoad(server's pid) as load: ...; then load.frac, the share of the machine that others
    took meanwhile: all CPU time less that of this process, its finished children and the server."""

    def __init__(self, server_pid=None):
        self.server_pid = server_pid

    def now(self):
        usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(u.ru_utime + u.ru_stime for u in usage) + session_seconds(self.server_pid)
        return time.monotonic(), busy_seconds(), own

    def __enter__(self):
        self.begin = self.now()
        return self

    def __exit__(self, *_):
        seconds, busy, own = (b - a for a, b in zip(self.begin, self.now()))
        frac = (busy - own) / (seconds * os.cpu_count())
        self.frac = min(1.0, max(0.0, frac))  # the system counts in ticks of 10 ms


def call(function, *args, **more):
    """function(...), whose failures come as Failure. real.py's end the program with a text; SIGTERM's
    code is a number."""
    try:
        return function(*args, **more)
    except SystemExit as e:
        if not isinstance(e.code, str):
            raise
        raise Failure(e.code) from None
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as e:
        raise Failure(f"{type(e).__name__}: {e}") from None


# What there is

class Peers:
    """Where the programs are, and what is missing, each said once."""

    def __init__(self, args):
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.folder = pathlib.Path(os.environ.get("LLMSCHED_VLLM_DIR") or f"{cache}/llmsched/vllm")
        llama = self.folder / "llama"
        self.llama_bin = pathlib.Path(os.environ.get("LLMSCHED_LLAMA_BIN") or llama / "build/bin")
        self.llama_gguf = pathlib.Path(os.environ.get("LLMSCHED_LLAMA_GGUF") or llama / "gguf")
        self.llmsched = args.llmsched
        self.name, self.ours_model, self.gguf_name = SHAPES[args.shape]
        self.setup_llama = "tests/vllm/setup_llama.sh" + (" --gpt2" if args.shape == "gpt2" else "")
        self.threads = min(cpu_info()["physical_cores"], len(CORES))
        self.missing = []
        self.versions = {}
        self.load_mode = []

    def lacks(self, what, command):
        if {"what": what, "command": command} not in self.missing:
            self.missing.append({"what": what, "command": command})
            print(f"missing: {what}; set up by: {command}", flush=True)

    def has_ours(self, command):
        """Whether the build has the command; its version is noted."""
        try:
            version = subprocess.run([self.llmsched, "--version"], stdout=subprocess.PIPE, text=True)
            self.versions[OURS] = version.stdout.strip()
            p = subprocess.run([self.llmsched, command, "--help"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        except OSError:
            self.lacks("llmsched", "make build")
            return False
        if p.returncode != 0:
            self.lacks(f"llmsched {command} (this build does not know it)", "make build, of a newer version")
        return p.returncode == 0

    def llama(self, program):
        """The program's path, or None; its version and its way to read a model without mmap are noted."""
        path = self.llama_bin / program
        if not os.access(path, os.X_OK):
            self.lacks(program, self.setup_llama)
            return None
        text = subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True).stdout
        self.load_mode = ["--load-mode", "none"] if "--load-mode" in text else ["--no-mmap"]
        version = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True).stdout
        self.versions[LLAMA] = next((l for l in version.splitlines() if l.startswith("version")), "unknown")
        return path

    def gguf(self, dtype):
        path = self.llama_gguf / f"{self.gguf_name}.{dtype}.gguf"
        if not path.is_file():
            self.lacks(f"the weights as GGUF in {dtype}", self.setup_llama)
            return None
        return path

    def has_vllm(self):
        if not (self.folder / "venv/stamp").is_file() or not (self.folder / "model/made-from").is_file():
            return False
        found = list(self.folder.glob("venv/lib/python3*/site-packages/vllm-*.dist-info"))
        self.versions[VLLM] = found[0].name.split("-")[1].removesuffix(".dist") if found else "unknown"
        return True


# Part engine: a unit is one program in one dtype; it yields (load, values, foreign_frac).

def ours_engine(peers, dtype):
    with ForeignLoad() as load:
        text = call(run, [peers.llmsched, "bench-engine", *peers.ours_model, "--json", "--rounds", 1,
                          "--dtypes", dtype, "--streams", ",".join(map(str, STREAMS)),
                          "--prompt-tokens", PROMPT, "--new-tokens", NEW, "--prefill", PREFILL,
                          "--threads", peers.threads, "--max-load", 100],
                    ALL_CORES, subprocess.PIPE, timeout=LIMIT_S)
    for (cell_dtype, name), values in call(read_bench_engine, text).items():
        if cell_dtype == dtype:
            yield name, values, load.frac


def llama_engine(peers, dtype, program, gguf):
    common = [program, "-m", gguf, "-c", 2048, "-t", peers.threads, "-kvu", *peers.load_mode,
              "--output-format", "jsonl"]
    for is_prefill, lengths in ((False, ["-npp", PROMPT, "-ntg", NEW, "-npl", ",".join(map(str, STREAMS))]),
                                (True, ["-npp", PREFILL, "-ntg", 1, "-npl", 1])):
        with ForeignLoad() as load:
            text = call(run, [*common, *lengths], ALL_CORES, timeout=LIMIT_S)
        cells = call(read_batched_bench, text, is_prefill)
        if not cells:
            raise Failure(f"no figures in its output: {text[-500:]!r}")
        for name, values in cells.items():
            yield name, values, load.frac


def engine_units(peers):
    units = []
    if peers.has_ours("bench-engine"):
        units += [(OURS, d, lambda d=d: ours_engine(peers, d)) for d in DTYPES[OURS]]
    program = peers.llama("llama-batched-bench")
    for dtype in DTYPES[LLAMA] if program else ():
        if gguf := peers.gguf(dtype):
            units.append((LLAMA, dtype, lambda d=dtype, g=gguf: llama_engine(peers, d, program, g)))
    return units


# Part served

def served_unit(peers, scratch, requests, command, port, **more):
    """Starts the server, measures it, ends it. One connection per request, for all: llama-server closes
    each behind its answer, unannounced, and a client that uses it again loses the request."""
    log = scratch / "server.log"

    def measure():
        with server(command, port, log, **more) as process, ForeignLoad(process.pid) as load:
            result = vllm_bench(peers.folder, scratch, port, [
                "--backend", "openai", "--dataset-name", "random", "--random-input-len", CLIENT["prompt"],
                "--random-output-len", CLIENT["new"], "--num-prompts", requests, "--request-rate", "inf",
                "--max-concurrency", CLIENT["concurrency"], "--num-warmups", CLIENT["warmups"],
                "--ignore-eos", "--header", "Connection=close", "--percentile-metrics", "ttft,tpot,itl,e2el",
                "--metric-percentiles", ",".join(map(str, PERCENTILES))], ALL_CORES)
        return read_vllm_bench(result, requests, CLIENT["new"]), load.frac

    try:
        values, frac = call(measure)
    except Failure as e:
        with contextlib.suppress(OSError):
            e.args = (f"{e}\nthe server's last lines:\n" + log.read_text(errors="replace")[-1500:],)
        raise
    yield SERVED_LOAD, values, frac


def served_units(peers, scratch, requests):
    if not peers.has_vllm():
        peers.lacks("vLLM for the CPU, which is also the client of part served", "tests/vllm/setup.sh")
        return []
    units = []

    def add(program, dtype, command, **more):
        def start():
            port = free_port()
            return served_unit(peers, scratch, requests, command(port), port, **more)
        units.append((program, dtype, start))

    for dtype in ("bf16", "int8") if peers.has_ours("serve") else ():
        add(OURS, dtype, lambda port, d=dtype: [
            peers.llmsched, "serve", "--port", port, *peers.ours_model, "--served-model-name", MODEL,
            "--dtype", d, "--threads", peers.threads], cwd=scratch)
    program = peers.llama("llama-server")
    for dtype in SMALL if program else ():
        if gguf := peers.gguf(dtype):
            add(LLAMA, dtype, lambda port, g=gguf: [
                program, "--model", g, "--alias", MODEL, "--host", "127.0.0.1", "--port", port,
                "--threads", peers.threads, "--parallel", CLIENT["concurrency"], "--ctx-size", 8192,
                "-kvu", *peers.load_mode], cwd=scratch)
    add(VLLM, "f32", lambda port: vllm_command(peers.folder, port, ALL_CORES), cwd=peers.folder,
        env=environment(ALL_CORES))
    return units


# The run

def run_round(part, units, number, max_load, result):
    """Every unit once, beginning with another one each round."""
    first = (number - 1) % len(units)
    for program, dtype, start in units[first:] + units[:first]:
        try:
            for load, values, frac in start():
                sample = {"part": part, "round": number, "program": program, "dtype": dtype, "load": load,
                          "values": values, "foreign_frac": round(frac, 4),
                          "left_out": 100 * frac > max_load}
                result["samples"].append(sample)
                print(f"round {number}: {program} {dtype}, {load}: {values[FIGURE[part]]:.1f} "
                      f"{FIGURE[part]}, {100 * frac:.0f} % of the machine taken by others"
                      + (", left out" if sample["left_out"] else ""), flush=True)
        except Failure as e:
            result["errors"].append({"part": part, "round": number, "program": program, "dtype": dtype,
                                     "error": str(e)})
            print(f"FAILED  round {number}: {program} {dtype}: {e}", flush=True)


def run_all(args, peers, result):
    with tempfile.TemporaryDirectory() as scratch:
        for part in args.parts:
            units = (engine_units(peers) if part == "engine"
                     else served_units(peers, pathlib.Path(scratch), args.requests))
            for number in range(1, args.rounds + 1) if units else ():
                run_round(part, units, number, args.max_load, result)


def finish(args, peers, result):
    samples = result["samples"]
    result["finished"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    result["medians"] = medians(samples)
    result["ratios"] = ratios(samples, args.parts)
    result["p95"] = p95_verdicts(samples)
    part = f"{args.output}.part"
    with open(part, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    os.replace(part, args.output)
    print("\n" + report(samples, peers.name, SERVED_TEXT, args.max_load) + "\n")
    for m in peers.missing:
        print(f"missing: {m['what']}; set up by: {m['command']}")
    if result["errors"]:
        print(f"{len(result['errors'])} failures, in full in {args.output}")
    m = result["machine"]
    flags = [f for f, there in m["flags"].items() if there]
    print(f"{m['cpu']}, family {m['family']} model {m['model']}, {m['physical_cores']} cores "
          f"({' '.join(flags)})")
    print("; ".join(f"{k}: {v}" for k, v in result["versions"].items()) + f"; wrote {args.output}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llmsched", default="build/llmsched")
    parser.add_argument("--only", choices=("engine", "served"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--max-load", type=float, default=8.0, metavar="PERCENT")
    parser.add_argument("--output", default="bench-peers.json")
    args = parser.parse_args()
    if args.rounds < 1 or args.requests < 1:
        parser.error("--rounds and --requests are at least 1")
    if args.shape == "gpt2" and args.only == "served":
        parser.error("part served has the real model only")
    args.llmsched = pathlib.Path(args.llmsched).resolve()
    args.output = pathlib.Path(args.output).resolve()
    if not args.output.parent.is_dir():
        parser.error(f"{args.output.parent} is no folder")
    args.parts = [args.only] if args.only else ["engine"] if args.shape == "gpt2" else ["engine", "served"]
    return args


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = Peers(args)
    result = {"what": "llmsched beside its peers, one run, interleaved", "model": peers.name,
              "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "machine": cpu_info(), "versions": peers.versions,
              "settings": {"parts": args.parts, "rounds": args.rounds, "threads": peers.threads,
                           "max_load_percent": args.max_load, "streams": STREAMS, "prompt": PROMPT,
                           "new": NEW, "prefill": PREFILL, "client": CLIENT, "requests": args.requests},
              "missing": peers.missing, "errors": [], "interrupted": False, "samples": []}
    code = 0
    try:
        run_all(args, peers, result)
    except (KeyboardInterrupt, SystemExit) as e:
        code = e.code if isinstance(e, SystemExit) else 130
        result["interrupted"] = True
        print("\ninterrupted", flush=True)
    finish(args, peers, result)
    sys.exit(code or (1 if result["errors"] or not result["samples"] else 0))


if __name__ == "__main__":
    main()
