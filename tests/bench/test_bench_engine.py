"""The engine's speed: shape and arithmetic of the figures. Usage: test_bench_engine.py BINARY SOURCE

Not how large they are: that depends on what else the machine does.
"""

import json
import math
import os
import sys
import time

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import *  # noqa: E402

PARTS = ["matmul", "head", "attention", "norms", "sampling", "scheduler", "rest"]

ERRORS = [
    # arguments, part of the message
    (["--dtypes", "f16"], "\"f16\" is not one of f32, bf16, int8"),
    (["--dtypes", "f32,f32"], "f32 stands twice"),
    (["--kv-dtype", "int8"], "auto|f32|bf16"),
    (["--dtype", "f32"], "did you mean --dtypes"),
    (["--streams", "0"], "not a number from 1 to 1024"),
    (["--streams", "1025"], "not a number from 1 to 1024"),
    (["--streams", "1,x"], "\"x\""),
    (["--streams", "-1"], "not a number from 1 to 1024"),
    (["--streams", "2", "2"], "2 stands twice"),
    (["--streams", ",".join(str(i) for i in range(1, 18))], "more than 16"),
    (["--streams="], "names nothing"),
    (["--rounds", "0"], "out of range"),
    (["--rounds", "101"], "out of range"),
    (["--new-tokens", "1"], "out of range"),
    (["--prompt-tokens", "0"], "out of range"),
    (["--max-load", "101"], "out of range"),
    (["--max-load", "-1"], "out of range"),
    (["--json=yes"], "takes no value"),
    (["extra"], "unexpected argument"),
]


def near(a, b, text):
    check(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9), f"{text}: {a} and {b}")


def check_spread(s, text):
    check(0 < s["min"] <= s["median"] <= s["max"], f"{text}: {s}")


def check_cell(cell, rounds, prefill):
    name = f"{cell['dtype']}, {cell['load']}, {cell['streams']}"
    t, step, limit, share = (cell[k] for k in ("tokens_per_s", "step_ms", "limit", "share_of_limit"))
    check(t["n"] == rounds and t["void"] == 0, f"{name}: rounds {t}")
    check(0 < t["min"] <= t["median"] <= t["best"], f"{name}: speed {t}")
    check(sorted(step) == sorted(PARTS + ["total"]), f"{name}: parts {step}")
    check(all(step[p] >= 0 for p in PARTS), f"{name}: no part is negative: {step}")
    check(all(step[p] > 0 for p in PARTS[:6]), f"{name}: every part takes time: {step}")
    near(sum(step[p] for p in PARTS), step["total"], f"{name}: the parts' sum")
    tokens = prefill if cell["load"] == "prefill" else cell["streams"]
    near(t["median"], 1e3 * tokens / step["total"], f"{name}: tokens/s from the step's time")
    near(limit["step_ms"], max(limit["read_ms"], limit["arithmetic_ms"]), f"{name}: the limit")
    check(limit["bound"] == ("read" if limit["read_ms"] >= limit["arithmetic_ms"] else "arithmetic"),
          f"{name}: the bound: {limit}")
    near(share["median"], limit["step_ms"] / step["total"], f"{name}: the share of the limit")
    check(share["median"] <= share["best"], f"{name}: shares {share}")


def check_json(r, dtypes, streams, rounds, prefill):
    check(r["format"] == "llmsched-bench-engine-1", f"format: {r['format']}")
    check(r["version"] and r["commit"] and r["date"].endswith("Z"), f"provenance: {sorted(r)}")
    check(r["machine"]["threads"] >= 1 and r["machine"]["isa"], f"machine: {r['machine']}")
    check(r["model"]["parameters"] == 2 * (9216 + 64) + 272 * 32 + 32, f"model: {r['model']}")
    check((r["rounds"], r["prefill_tokens"], r["partial"]) == (rounds, prefill, False), "the options")
    check(sorted(r["load_seconds"]) == sorted(dtypes), f"loading: {r['load_seconds']}")
    check([x["dtype"] for x in r["limits"]] == ["f32", "bf16", "int8"], f"limits: {r['limits']}")
    for x in r["limits"]:
        check_spread(x["multiply_adds_per_s"], x["dtype"])
        check_spread(x["read_bytes_per_s"], "read")
    loads = [("decode", n) for n in streams] + ([("prefill", 1)] if prefill else [])
    check([(c["dtype"], c["load"], c["streams"]) for c in r["cells"]] ==
          [(d,) + load for d in dtypes for load in loads], "the cells, in order")
    for cell in r["cells"]:
        check_cell(cell, rounds, prefill)


def limits_by_hand(r, kv_bytes=4):
    """The model's matrices, counted here: two layers of Q, K, V, O, gate, up and down, and a head."""
    c = TINY
    layer = c["hidden_size"] * (2 * 32 + 2 * 16) + 3 * c["hidden_size"] * c["intermediate_size"]
    head = c["vocab_size"] * c["hidden_size"]
    top = r["limits"][0]
    for cell in r["cells"]:
        prefill = cell["load"] == "prefill"
        rows = 32 if prefill else cell["streams"]
        attended = 32 * 33 / 2 if prefill else cell["streams"] * (16 + 4 / 2)
        multiply_adds = 2 * layer * rows + head * cell["streams"] + attended * 2 * 2 * 32
        near(cell["limit"]["arithmetic_ms"],
             1e3 * multiply_adds / top["multiply_adds_per_s"]["median"], "arithmetic by hand")
        positions = rows if prefill else attended
        weights = 4 * (2 * layer + head)
        kv = positions * kv_bytes * 2 * 2 * 16
        low = 1e3 * (weights + kv) / top["read_bytes_per_s"]["median"]
        # Panels are padded to at most 64 outputs.
        check(low <= cell["limit"]["read_ms"] * (1 + 1e-6) and cell["limit"]["read_ms"] < 1.3 * low,
              f"read by hand: {cell['limit']}, {low}")


with tempfile.TemporaryDirectory() as folder:
    tiny = tiny_model(folder)
    base = ["bench-engine", "--model", tiny, "--random-weights"]
    for args, part in ERRORS:
        expect(["bench-engine"] + args, 2, err=part)
    expect(base + ["--prefill", "1024"], 2, err=["--prefill", "context of 1024"])
    expect(base + ["--prompt-tokens", "1020"], 2, err=["--new-tokens", "context of 1024"])
    expect(["bench-engine", "--model", tiny], 3, err="safetensors")
    expect(["bench-engine", "--model", "no/such"], 3, err="no/such")
    small = ["--new-tokens", "4", "--prefill", "32", "--rounds", "1"]

    out = os.path.join(folder, "speed.json")
    p = expect(base + small + ["--streams", "2", "--max-load", "100", "--output", out], 0,
               out=["ENGINE SPEED", "dtype", "of limit", "prefill 32", "2 streams", "GB/s"])
    check(p.stdout.decode().count("\nint8 ") == 2, "two loads in int8")
    check_json(json.load(open(out)), ["f32", "bf16", "int8"], [2], 1, 32)

    p = expect(base + small + ["--streams", "1,2", "--max-load", "100", "--dtypes", "f32", "--json"], 0)
    r = json.loads(p.stdout)
    check_json(r, ["f32"], [1, 2], 1, 32)
    check(r["kv_dtype"] == "bf16", f"{r['kv_dtype']}")
    limits_by_hand(r, kv_bytes=2)
    p = expect(base + small + ["--streams", "1", "--max-load", "100", "--dtypes", "f32", "--json",
                               "--kv-dtype", "f32"], 0)
    r = json.loads(p.stdout)
    check(r["kv_dtype"] == "f32", f"{r['kv_dtype']}")
    limits_by_hand(r)

    # Whatever others use, it is not less than nothing: all is void, and tried three times.
    p = expect(base + ["--new-tokens", "4", "--prefill", "0", "--rounds", "1", "--streams", "1",
                       "--dtypes", "f32", "--max-load", "0", "--json", "-o", out], 6, err="--max-load")
    r = json.loads(p.stdout)
    check(r == json.load(open(out)), "both places say the same")
    (cell,) = r["cells"]
    check(cell["tokens_per_s"] == {"median": None, "best": None, "min": None, "n": 0, "void": 3},
          f"void: {cell}")
    check(all(cell[k] is None for k in ("step_ms", "limit", "share_of_limit")), f"void: {cell}")

    # Ctrl-C in the second round or later: the finished ones are shown.
    child = subprocess.Popen([BINARY] + base + ["--new-tokens", "4", "--prefill", "0", "--rounds",
                                                "100", "--streams", "1", "--dtypes", "f32",
                                                "--max-load", "100", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(2 * SLOWER)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    check(child.returncode == 130, f"interrupted: exit {child.returncode}: {stderr}")
    if stdout:
        r = json.loads(stdout)
        n = r["cells"][0]["tokens_per_s"]["n"]
        check(r["partial"] and 0 < n < 100, f"interrupted: {n} rounds")
    else:
        check(b"nothing is finished" in stderr, f"interrupted: {stderr}")
finish()
