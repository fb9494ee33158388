"""`llmsched serve` as a server in tests: started on a free port, ready, ended in any case."""

import subprocess
import time
import urllib.error
import urllib.request


class Serve:
    def __init__(self, binary, *args):
        self.process = subprocess.Popen([binary, "serve", "--port", "0", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.address = self.process.stdout.readline().decode().strip()
        self.url = self.address + "/v1/completions"

    def wait_ready(self, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            try:
                with urllib.request.urlopen(self.address + "/health", timeout=10) as answer:
                    return answer.status == 200
            except (urllib.error.HTTPError, urllib.error.URLError):
                time.sleep(0.1)  # 503 while the model is loaded
        return False

    def metrics(self):
        """Sums over labels, by name."""
        with urllib.request.urlopen(self.address + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        sums = {}
        for line in lines:
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
