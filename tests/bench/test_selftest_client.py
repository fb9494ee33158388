"""The self-test of the client, small. Usage: test_selftest_client.py BINARY SOURCE

Structure only: how large the errors are depends on what else the machine does.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import *  # noqa: E402

p = run(["selftest", "client", "--streams", "40", "--tokens-per-second", "50", "--seconds", "1",
         "--json"])
check(p.returncode in (0, 6), f"exit code {p.returncode}: {p.stderr}")  # 6: a busy machine
r = json.loads(p.stdout)
check(r["failed_streams"] == 0, f"no stream failed: {p.stderr}")
check(r["events"] == 40 * 50, f"every token was an event: {r['events']}")
check(r["void"] == (p.returncode == 6), "void and the exit code say the same")
for name in ("ttft_error", "itl_error", "write_to_read", "server_late"):
    e = r[name]
    check(0 <= e["p50_s"] <= e["p95_s"] <= e["p99_s"] <= e["max_s"], f"{name}: {e}")
check(r["write_to_read"]["mean_s"] > 0, "nothing is read before it is written")
check(0 < r["cpu_s"] < r["wall_s"] and 1 < r["wall_s"], f"cpu and wall time: {r}")

expect(["selftest"], 2, err=["selftest takes `client`"])
expect(["selftest", "client", "--streams", "10000", "--seconds", "3000"], 2, err=["at most"])
