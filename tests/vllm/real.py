"""A real vLLM on the CPU for the scripts in this folder (built by setup.sh). Standard library only."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "SmolLM2-135M-Instruct"
MODEL_FILE = HERE.parent.parent / "models" / MODEL / f"{MODEL}.Q4_1.gguf"


def setup():
    """The folder with venv/ and model/; builds them where they are missing."""
    out = subprocess.run([HERE / "setup.sh"], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(out.stdout.strip().splitlines()[-1])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# vLLM on all cores but one, what measures it on that one: a client that takes time from its server
# measures the time that it took.
CORES = sorted(os.sched_getaffinity(0))
ALL_CORES = ",".join(map(str, CORES))
SERVER_CORES = ",".join(str(c) for c in CORES[:-1] or CORES)
CLIENT_CORE = str(CORES[-1])


def environment(cores=SERVER_CORES):
    """vLLM's: nothing is fetched, nothing is reported."""
    env = dict(os.environ)
    env.update(VLLM_CPU_KVCACHE_SPACE="2", VLLM_CPU_OMP_THREADS_BIND=cores,
               HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
    return env


def get(port, path, timeout=10):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


def wait_healthy(process, port, limit_s, log_path):
    begin = time.monotonic()
    while time.monotonic() - begin < limit_s:
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}; see {log_path}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(port, "/health", 5)[0] == 200:
                return time.monotonic() - begin
        time.sleep(0.2)
    sys.exit(f"the server did not answer within {limit_s} s; see {log_path}")


ENDING = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def child(command, **more):
    """Runs the command in a session of its own; all of it has ended when the block is left. Signals wait
    while it is started: one in the midst of Popen would leave a process that nobody knows."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    process = None
    try:
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                                   start_new_session=True, preexec_fn=lambda: signal.pthread_sigmask(
                                       signal.SIG_SETMASK, old), **more)
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        yield process
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        for sig, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)) if process else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break


@contextlib.contextmanager
def server(command, port, log_path, cwd=None, env=None, limit_s=300):
    """Runs the command until /health is 200; ends all of it after."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` is reached
    with open(log_path, "w") as log, child(command, cwd=cwd, env=env, stdout=log,
                                           stderr=log) as process:
        seconds = wait_healthy(process, port, limit_s, log_path)
        name = next(c for c in map(str, command) if "/" in c)
        print(f"{os.path.basename(name)} answers on port {port} after {seconds:.0f} s",
              flush=True)
        yield process


def vllm_command(folder, port, cores=SERVER_CORES, arguments=()):
    """To be run in `folder`, so that the server never names this machine's paths."""
    return ["taskset", "-c", cores,
            folder / "venv/bin/vllm", "serve", "model", "--dtype", "float32", "--enforce-eager",
            "--host", "127.0.0.1", "--port", port, "--max-model-len", "1024",
            "--served-model-name", MODEL, *arguments]


@contextlib.contextmanager
def vllm(folder, log_path, arguments=()):
    """Yields the port."""
    port = free_port()
    with server(vllm_command(folder, port, arguments=arguments), port, log_path, cwd=folder,
                env=environment()):
        yield port


def run(command, cores=CLIENT_CORE, stderr=subprocess.STDOUT, timeout=None, **more):
    """The output of a command that must succeed; on the client's core unless `cores` says others."""
    command = ["taskset", "-c", cores, *command]
    with child(command, stdout=subprocess.PIPE, stderr=stderr, text=True, **more) as p:
        out, err = p.communicate(timeout=timeout)
    if p.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {p.returncode}\n{(out + (err or ''))[-3000:]}")
    return out


def vllm_bench(folder, out, port, arguments, cores=CLIENT_CORE):
    """One run of `vllm bench serve`; its result file."""
    run([folder / "venv/bin/vllm", "bench", "serve", "--base-url", f"http://127.0.0.1:{port}",
         "--model", MODEL, "--tokenizer", folder / "model", "--ready-check-timeout-sec", 0,
         "--disable-tqdm", "--temperature", 0, "--save-result", "--result-dir", out,
         "--result-filename", "vllm.json", *arguments], cores, env=environment(), cwd=out)
    with open(out / "vllm.json") as f:
        return json.load(f)


def metrics(port):
    """{name: sum over labels, or name{finished_reason}: value} of the server's counters."""
    out = {}
    for line in get(port, "/metrics")[1].decode().splitlines():
        m = re.match(r"([a-z_:]+)(\{[^}]*\})? (\S+)$", line)
        if m and not line.startswith("#"):
            out[m[1]] = out.get(m[1], 0.0) + float(m[3])
    return out


__all__ = ["HERE", "MODEL", "MODEL_FILE", "setup", "free_port", "environment", "get", "server", "vllm",
           "vllm_command", "ALL_CORES", "CORES", "run", "vllm_bench", "metrics", "contextlib", "json", "os",
           "pathlib", "signal", "socket", "subprocess", "sys", "time", "http"]
