#!/usr/bin/env python3
"""check_throughput.py [benchmark_summaries.csv]: fails unless dynamic serves > 5 requests/s."""
import sys

import pandas as pd

summaries = pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else "benchmark_summaries.csv")
dynamic = summaries[summaries["scheduler"] == "dynamic"]["throughput_req_per_sec"]
assert len(dynamic) > 0, "no run of the scheduler 'dynamic'"
assert (dynamic > 5).all(), f"throughput_req_per_sec of dynamic: {dynamic.tolist()}"
print(f"ok: {len(dynamic)} runs of dynamic, slowest {dynamic.min():.2f} requests/s")
