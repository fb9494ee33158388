"""A running `llmsched serve` for the tests that drive it from outside. Standard library only."""

import http.client
import os
import re
import signal
import subprocess
import tempfile
import time

REAL_MODEL = os.path.join("models", "SmolLM2-135M-Instruct")


class Server:
    """Started on a free port of the loopback; ended at the end of the `with` block.

    What it writes goes to a file, so that no pipe can fill; it stands in the message when the
    server does not come up or does not end well."""

    def __init__(self, binary, *args, env=None, ready=True, timeout=60):
        self.log = tempfile.TemporaryFile()
        full = dict(os.environ)
        for name in ("LLM_MODEL", "LLMSCHED_API_KEY"):
            full.pop(name, None)
        full.update(env or {})
        self.process = subprocess.Popen([binary, "serve", "--port", "0", *args], env=full,
                                        stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)
        try:
            self.port = self._find_port(timeout)
            self.url = f"http://127.0.0.1:{self.port}"
            if ready:
                self.wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()

    def output(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def _fail(self, what):
        raise RuntimeError(f"llmsched serve {what}; it wrote:\n{self.output()[-3000:]}")

    def _find_port(self, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.output())
            if found:
                return int(found.group(1))
            if self.process.poll() is not None:
                self._fail(f"ended with {self.process.returncode}")
            time.sleep(0.01)
        self._fail("named no address")

    def get(self, path, timeout=20):
        """(status, body) of a GET on a connection of its own."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def wait_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status, _ = self.get("/health")
            if status == 200:
                return
            if status != 503 or self.process.poll() is not None:
                self._fail(f"answers /health with {status}")
            time.sleep(0.02)
        self._fail("does not become ready")

    def metrics(self):
        """Every metric's sum over its labels, by name."""
        status, text = self.get("/metrics")
        assert status == 200, text
        sums = {}
        for name, value in re.findall(r"^([a-zA-Z0-9_:]+)(?:\{[^}]*\})? ([-+0-9.eE]+)$", text, re.M):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def metric(self, name):
        """One of them; None when it is not there."""
        return self.metrics().get(name)

    def idle(self):
        """None, or what keeps the engine from being idle."""
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                     "vllm:kv_cache_usage_perc"):
            value = self.metric(name)
            if value != 0:
                return f"{name} is {value}"
        return None

    def wait_idle(self, timeout=10):
        """None once running, waiting and KV usage are 0; else what is not."""
        deadline = time.monotonic() + timeout
        while (why := self.idle()) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        return why

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1))

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=30):
        """The exit status."""
        return self.process.wait(timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
