"""scheduler/start_server.sh: settings, the command it starts, waiting, and its end.

The real server behind it is llmsched serve; the command line for vLLM is checked with a small
program named vllm that notes its arguments and answers /health.
"""

import http.client
import re
import socket
import sys
import time

sys.path.insert(0, sys.argv[2] + "/tests")
from harness import *

SCRIPT = os.path.join(SOURCE, "scheduler", "start_server.sh")

# Notes what it was started with; answers /health after a moment, as a model takes time to load. Has
# a child of its own that ignores TERM, as an engine's process may.
FAKE_VLLM = r'''#!/usr/bin/python3
import http.server, json, os, subprocess, sys, threading, time
open(os.environ["NOTE"], "w").write(json.dumps({
    "argv": sys.argv[1:], "pid": os.getpid(), "ports": [v for v in os.environ if v == "VLLM_PORT"]}))
if "--die" in sys.argv:
    sys.exit(7)
child = subprocess.Popen(["/usr/bin/python3", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"])
open(os.environ["NOTE"] + ".child", "w").write(str(child.pid))
ready = time.monotonic() + 1.0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() > ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Started:
    """The script in a session of its own; its stderr goes to a file that can be read meanwhile."""
    def __init__(self, folder, arguments, **variables):
        self.log = os.path.join(folder, "log")
        env = {k: v for k, v in os.environ.items()
               if not k.startswith(("LLM_", "LLMSCHED_", "VLLM_", "GPU_"))}
        env.update(variables)
        with open(os.path.join(folder, ".env"), "a"):
            pass  # or the repository's would be read
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([SCRIPT] + arguments, cwd=folder, env=env, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True)

    def text(self):
        with open(self.log) as f:
            return f.read()

    def wait_for(self, part, seconds=60):
        good = within(seconds, lambda: part in self.text() or self.process.poll() is not None)
        check(good and part in self.text(), f"no {part!r} in:\n{self.text()}")

    def end(self, sig, code, seconds=60):
        self.process.send_signal(sig)
        self.wait(code, seconds)

    def wait(self, code, seconds=60):
        try:
            got = self.process.wait(seconds)
            check(got == code, f"exit {got}, expected {code}:\n{self.text()}")
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            check(False, f"it did not end:\n{self.text()}")


def fake_path(folder):
    path = os.path.join(folder, "bin")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "vllm"), "w") as f:
        f.write(FAKE_VLLM)
    os.chmod(os.path.join(path, "vllm"), 0o755)
    return f"{path}:/usr/bin:/bin"


def noted(note):
    within(30, lambda: os.path.exists(note) and os.path.getsize(note) > 0)
    with open(note) as f:
        return json.loads(f.read())


def test_vllm(folder):
    note = os.path.join(folder, "note")
    variables = {"PATH": fake_path(folder), "NOTE": note}
    port = free_port()
    with open(os.path.join(folder, ".env"), "w") as f:
        f.write(f"LLM_MODEL='some/model'  # comment\nVLLM_HOST=0.0.0.0\nVLLM_PORT={port}\n"
                "GPU_MEMORY_UTIL=0.5\n")
    for sig, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        s = Started(folder, ["--max-model-len", "1024", "--x=a b"], **variables)
        s.wait_for("ready after")
        got = noted(note)
        check(got["argv"] == ["serve", "some/model", "--host", "0.0.0.0", "--port", str(port),
                              "--gpu-memory-utilization", "0.5", "--max-model-len", "1024",
                              "--x=a b"], f"vllm's arguments: {got['argv']}")
        check(got["ports"] == [], "vLLM would take VLLM_PORT for its internal ports")
        text = s.text()
        for part in (r"LLM_MODEL +some/model", r"VLLM_HOST +0\.0\.0\.0", rf"VLLM_PORT +{port}",
                     r"GPU_MEMORY_UTIL +0\.5", r"CUDA +\S", r"settings from +/.*/\.env",
                     rf"http://127\.0\.0\.1:{port}/v1/completions"):
            check(re.search(part, text), f"settings lack {part}:\n{text}")
        second = Started(folder, [], **variables)
        second.wait(1)
        check("answers at" in second.text(), f"a port in use:\n{second.text()}")
        with open(note + ".child") as f:
            pids = [got["pid"], int(f.read())]
        check(all(map(is_running, pids)), "the server runs until it is ended")
        s.end(sig, code)
        check(within(5, lambda: not any(map(is_running, pids))),
              f"left behind after {sig}: {[p for p in pids if is_running(p)]}")
        os.unlink(note)


def test_flags_and_variables(folder):
    """A flag comes before the environment, which comes before .env."""
    note = os.path.join(folder, "note")
    port = free_port()
    s = Started(folder, [f"--port={port}", "--die"], PATH=fake_path(folder), NOTE=note,
                VLLM_HOST="localhost", LLM_MODEL="other", GPU_MEMORY_UTIL="")
    s.wait(7)
    argv = noted(note)["argv"]
    check(argv == ["serve", "other", "--host", "localhost", "--port", str(port), "--die"],
          f"vllm's arguments: {argv}")
    check("exit code 7" in s.text(), f"a server that ends by itself:\n{s.text()}")
    os.unlink(note)
    s = Started(folder, ["--model", "third", "--die"], PATH=fake_path(folder), NOTE=note)
    s.wait(7)
    check(noted(note)["argv"][1] == "third", "--model")


def test_faults(folder):
    path = fake_path(folder)
    for variables, arguments, code, part in (
            ({"VLLM_PORT": "80000"}, [], 2, "from 1 to 65535"),
            ({"VLLM_PORT": "08"}, [], 2, "from 1 to 65535"),
            ({"VLLM_PORT": "x"}, [], 2, "from 1 to 65535"),
            ({"GPU_MEMORY_UTIL": "90"}, [], 2, "such as 0.9"),
            ({}, ["--port"], 2, "needs a value"),
            ({}, ["--help"], 0, "Usage: scheduler/start_server.sh")):
        s = Started(folder, arguments, PATH=path, NOTE=os.devnull, **variables)
        s.wait(code)
        check(part in s.text(), f"{variables} {arguments}: {s.text()}")
    with open(os.path.join(folder, ".env"), "w") as f:
        f.write("VLLM_PORT='8")
    s = Started(folder, [], PATH=path, NOTE=os.devnull)
    s.wait(3)
    check(".env line 1: no closing quote" in s.text(), s.text())


def test_llmsched(folder):
    """Without vllm on the PATH it is llmsched serve, from any folder."""
    port = free_port()
    s = Started(folder, ["--random-weights", "--max-queue", "7"], PATH="/usr/bin:/bin",
                LLMSCHED_BIN=BINARY, LLM_MODEL=tiny_model(folder), VLLM_PORT=str(port))
    s.wait_for("ready after", 120)
    check("vllm is not on the PATH" in s.text(), f"it says which server:\n{s.text()}")
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("GET", "/v1/models")
    r = c.getresponse()
    models = json.loads(r.read())
    check(r.status == 200 and len(models["data"]) == 1, f"/v1/models: {models}")
    c.close()
    s.end(signal.SIGTERM, 143)
    with socket.socket() as probe:
        check(probe.connect_ex(("127.0.0.1", port)) != 0, "the server is left behind")


for test in (test_vllm, test_flags_and_variables, test_faults, test_llmsched):
    with tempfile.TemporaryDirectory() as scratch:
        test(scratch)
finish()
