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
SERVER_CORES = ",".join(str(c) for c in CORES[:-1] or CORES)
CLIENT_CORE = str(CORES[-1])


def environment():
    """vLLM's: nothing is fetched, nothing is reported."""
    env = dict(os.environ)
    env.update(VLLM_CPU_KVCACHE_SPACE="2", VLLM_CPU_OMP_THREADS_BIND=SERVER_CORES,
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


@contextlib.contextmanager
def server(command, port, log_path, cwd=None, env=None, limit_s=300):
    """Runs the command in a process group of its own until /health is 200; ends all of it after."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` is reached
    with open(log_path, "w") as log:
        process = subprocess.Popen([str(c) for c in command], cwd=cwd, env=env, stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        seconds = wait_healthy(process, port, limit_s, log_path)
        name = next(c for c in map(str, command) if "/" in c)
        print(f"{os.path.basename(name)} answers on port {port} after {seconds:.0f} s",
              flush=True)
        yield process
    finally:
        for sig, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break


@contextlib.contextmanager
def vllm(folder, log_path, arguments=()):
    """Yields the port. The working folder is `folder`, so that the server never names this machine's
    paths."""
    port = free_port()
    command = ["taskset", "-c", SERVER_CORES,
               folder / "venv/bin/vllm", "serve", "model", "--dtype", "float32", "--enforce-eager",
               "--host", "127.0.0.1", "--port", port, "--max-model-len", "1024",
               "--served-model-name", MODEL, *arguments]
    with server(command, port, log_path, cwd=folder, env=environment()):
        yield port


def metrics(port):
    """{name: sum over labels, or name{finished_reason}: value} of the server's counters."""
    out = {}
    for line in get(port, "/metrics")[1].decode().splitlines():
        m = re.match(r"([a-z_:]+)(\{[^}]*\})? (\S+)$", line)
        if m and not line.startswith("#"):
            out[m[1]] = out.get(m[1], 0.0) + float(m[3])
    return out


__all__ = ["HERE", "MODEL", "MODEL_FILE", "setup", "free_port", "environment", "get", "server", "vllm",
           "CLIENT_CORE", "metrics", "json", "os", "pathlib", "socket", "subprocess", "sys", "time", "http"]
