"""What peers.py does with its measurements: readers of the programs' output, medians, ratios, tables.
Starts nothing, reads no clock. Standard library only; tests/vllm/test_peers.py tests it.

A sample is one value of one round: {"part", "round", "program", "dtype", "load", "values": {name:
number}, "foreign_frac", "left_out"}. What is left out counts in no median and no ratio.
"""
import json
import statistics

OURS, LLAMA, VLLM = "llmsched", "llama.cpp", "vLLM"
DTYPES = {OURS: ("f32", "bf16", "int8"), LLAMA: ("F32", "F16", "BF16", "Q8_0"), VLLM: ("f32",)}
SMALL = ("F16", "BF16", "Q8_0")  # llama.cpp's types below 32 bits
STREAMS = (1, 8, 32)
PROMPT, NEW, PREFILL = 16, 20, 512
SERVED_LOAD = "served"
FIGURE = {"engine": "tokens_per_s", "served": "req_per_s"}
PERCENTILES = (50, 95, 99)

# (load, our dtypes, peer, its dtypes): our best of the first over the peer's best of the second.
RATIOS = (
    ("8 streams", DTYPES[OURS], LLAMA, SMALL),
    ("32 streams", ("bf16",), LLAMA, ("F32", "F16", "BF16")),
    ("32 streams", ("int8",), LLAMA, ("Q8_0",)),
    ("prefill 512", ("int8",), LLAMA, ("Q8_0",)),
    (SERVED_LOAD, ("bf16",), LLAMA, SMALL),
    (SERVED_LOAD, ("int8",), LLAMA, SMALL),
    (SERVED_LOAD, ("bf16",), VLLM, ("f32",)),
    (SERVED_LOAD, ("int8",), VLLM, ("f32",)),
)


def decode_load(streams):
    return f"{streams} stream{'s' if streams > 1 else ''}"


def prefill_load(tokens):
    return f"prefill {tokens}"


ENGINE_LOADS = (*map(decode_load, STREAMS), prefill_load(PREFILL))


def read_batched_bench(text, is_prefill):
    """{load: values} from llama-batched-bench --output-format jsonl, log lines in between or not."""
    out = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        r = json.loads(line)
        if is_prefill:
            out[prefill_load(r["pp"])] = {"tokens_per_s": r["speed_pp"]}
        else:
            out[decode_load(r["pl"])] = {"tokens_per_s": r["speed_tg"],
                                         "prefill_tokens_per_s": r["speed_pp"]}
    return out


def read_bench_engine(text):
    """{(dtype, load): values} from llmsched bench-engine --json."""
    out = {}
    for cell in json.loads(text)["cells"]:
        load = decode_load(cell["streams"]) if cell["load"] == "decode" else prefill_load(PREFILL)
        speed = (cell.get("tokens_per_s") or {}).get("median")
        if speed is None:  # void: it measured nothing there
            continue
        values = {"tokens_per_s": speed}
        share = (cell.get("share_of_limit") or {}).get("median")
        if share is not None:
            values["share_of_limit"] = share
        out[cell["dtype"], load] = values
    return out


def read_vllm_bench(result, requests, new_tokens):
    """Values from a result file of vllm bench serve; ValueError where requests failed or are too short.
    Where a server's stream does not say its usage (llama-server's), the client counts the tokens of the
    text, which are a few per cent more or fewer than were made."""
    tokens = result["total_output_tokens"] / (requests * new_tokens)
    if result["completed"] != requests or not abs(tokens - 1) <= 0.05:
        raise ValueError(f"{result['completed']} of {requests} requests completed, "
                         f"{result['total_output_tokens']} of {requests * new_tokens} tokens")
    values = {"req_per_s": result["request_throughput"], "seconds": result["duration"],
              "output_tokens": result["total_output_tokens"]}
    for metric in ("e2el", "ttft", "tpot", "itl"):
        for p in PERCENTILES:
            values[f"{metric}_p{p}_ms"] = result[f"p{p}_{metric}_ms"]
    return values


def by_round(samples, program, dtype, load, figure):
    """{round: value} of what counts."""
    return {s["round"]: s["values"][figure] for s in samples
            if (s["program"], s["dtype"], s["load"]) == (program, dtype, load)
            and figure in s["values"] and not s["left_out"]}


def summary(values):
    """Median, lowest, highest, n of a list; None of an empty one."""
    if not values:
        return None
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values),
            "n": len(values)}


def best(samples, program, dtypes, load, figure, want=max):
    """The dtype with the best median, or None where none was measured."""
    medians = {d: statistics.median(v.values()) for d in dtypes
               if (v := by_round(samples, program, d, load, figure))}
    return want(medians, key=medians.get) if medians else None


def quotient(samples, load, figure, ours, peer, peer_dtype):
    """Summary of ours / peer over the rounds that count for both, or None."""
    a = by_round(samples, OURS, ours, load, figure)
    b = by_round(samples, peer, peer_dtype, load, figure)
    return summary([a[r] / b[r] for r in sorted(a.keys() & b.keys()) if b[r] > 0])


def ratios(samples, parts):
    """One entry for each of RATIOS that belongs to the parts; "ratio" is None where a side is missing."""
    out = []
    for load, our_dtypes, peer, peer_dtypes in RATIOS:
        part = "served" if load == SERVED_LOAD else "engine"
        if part not in parts:
            continue
        ours = best(samples, OURS, our_dtypes, load, FIGURE[part])
        theirs = best(samples, peer, peer_dtypes, load, FIGURE[part])
        ratio = quotient(samples, load, FIGURE[part], ours, peer, theirs) if ours and theirs else None
        out.append({"load": load, "figure": FIGURE[part], "ours": ours, "ours_of": list(our_dtypes),
                    "peer": peer, "peer_dtype": theirs, "peer_of": list(peer_dtypes), "ratio": ratio})
    return out


def p95_verdicts(samples):
    """For each of our served dtypes: the medians of P95 latency, and whether ours is below every peer's.
    A peer's is the lowest over its dtypes. "below_both" is None unless both were measured."""
    out = []
    for dtype in DTYPES[OURS]:
        mine = by_round(samples, OURS, dtype, SERVED_LOAD, "e2el_p95_ms")
        if not mine:
            continue
        entry = {"ours": dtype, "p95_ms": statistics.median(mine.values()), "peers": {},
                 "below_both": None}
        for peer in (LLAMA, VLLM):
            theirs = best(samples, peer, DTYPES[peer], SERVED_LOAD, "e2el_p95_ms", want=min)
            if theirs:
                values = by_round(samples, peer, theirs, SERVED_LOAD, "e2el_p95_ms")
                entry["peers"][peer] = {"dtype": theirs, "p95_ms": statistics.median(values.values())}
        if len(entry["peers"]) == 2:
            entry["below_both"] = all(entry["p95_ms"] < p["p95_ms"] for p in entry["peers"].values())
        out.append(entry)
    return out


def medians(samples):
    """[{part, program, dtype, load, rounds, left_out, figures: {name: summary}}] in order of appearance."""
    groups = {}
    for s in samples:
        groups.setdefault((s["part"], s["program"], s["dtype"], s["load"]), []).append(s)
    out = []
    for (part, program, dtype, load), group in groups.items():
        counted = [s for s in group if not s["left_out"]]
        names = dict.fromkeys(name for s in counted for name in s["values"])
        out.append({"part": part, "program": program, "dtype": dtype, "load": load,
                    "rounds": len(group), "left_out": len(group) - len(counted),
                    "figures": {name: summary([s["values"][name] for s in counted if name in s["values"]])
                                for name in names}})
    return out


def with_spread(s, scale=1.0, digits=0):
    """"653 +-2%": the median and half of highest - lowest, in percent of the median."""
    if not s:
        return "-"
    half = 50 * (s["highest"] - s["lowest"]) / s["median"] if s["median"] else 0
    return f"{s['median'] * scale:.{digits}f} +-{half:.0f}%"


def engine_table(samples, model):
    rounds = max(s["round"] for s in samples)
    out = [f"ENGINE, {model}, {PROMPT} prompt + {NEW} new tokens, or a prompt of {PREFILL}; tokens/s, "
           f"median of {rounds} round{'s' if rounds > 1 else ''}; * best of the program"]
    columns = [(p, d) for p in (OURS, LLAMA) for d in DTYPES[p]
               if any((s["program"], s["dtype"]) == (p, d) for s in samples)]
    out.append(f"  {'':<12}" + "".join(f"{p:>13}" for p, _ in columns))
    out.append(f"  {'load':<12}" + "".join(f"{d:>13}" for _, d in columns))
    for load in ENGINE_LOADS:
        line = f"  {load:<12}"
        for program, dtype in columns:
            values = by_round(samples, program, dtype, load, FIGURE["engine"])
            is_best = best(samples, program, DTYPES[program], load, FIGURE["engine"]) == dtype
            line += f"{with_spread(summary(list(values.values()))) + ('*' if is_best else ' '):>13}"
        out.append(line)
    return out


def served_table(samples, model, load_text):
    rounds = max(s["round"] for s in samples)
    out = [f"SERVED, {model}, {load_text}; median of {rounds} round{'s' if rounds > 1 else ''}"]
    out.append(f"  {'server':<20}{'req/s':>14}" + "".join(
        f"{f'P{p} latency, s':>18}" for p in PERCENTILES) + f"{'P95 TTFT, s':>16}")
    for m in medians(samples):
        f = m["figures"].get
        out.append(f"  {m['program'] + ' ' + m['dtype']:<20}{with_spread(f('req_per_s'), 1, 1):>14}"
                   + "".join(f"{with_spread(f(f'e2el_p{p}_ms'), 1e-3, 2):>18}" for p in PERCENTILES)
                   + f"{with_spread(f('ttft_p95_ms'), 1e-3, 2):>16}")
    return out


def side(program, dtype, of):
    """"llama.cpp F16 (best of F16, BF16)"."""
    if len(of) == 1:
        return f"{program} {of[0]}"
    return f"{program} {dtype or '-'} (best of {', '.join(of)})"


def ratio_lines(samples, parts):
    out = ["RATIOS, llmsched / peer in the same round: median [lowest, highest] of the rounds that count"]
    for r in ratios(samples, parts):
        figure = "req/s" if r["load"] == SERVED_LOAD else "tokens/s"
        text = (f"{r['load']}, {figure}: {side(OURS, r['ours'], r['ours_of'])} / "
                f"{side(r['peer'], r['peer_dtype'], r['peer_of'])}")
        s = r["ratio"]
        figures = f"{s['median']:.2f} [{s['lowest']:.2f}, {s['highest']:.2f}]" if s else "not measured"
        out.append(f"  {figures:<20} {text}")
    for v in p95_verdicts(samples) if "served" in parts else ():
        against = ", ".join(f"{peer} {p['dtype']} {p['p95_ms'] / 1e3:.2f} s" for peer, p in v["peers"].items())
        verdict = {True: "yes", False: "no", None: "a peer is missing"}[v["below_both"]]
        out.append(f"  {verdict:<20} P95 latency of {OURS} {v['ours']} below both peers': "
                   f"{v['p95_ms'] / 1e3:.2f} s; {against or 'no peer'}")
    return out


def left_out_lines(samples, max_load):
    groups = {}
    for s in samples:
        if s["left_out"]:
            groups.setdefault((s["round"], s["program"], s["dtype"]), []).append(
                f"{s['load']} ({100 * s['foreign_frac']:.0f} %)")
    out = [f"{sum(map(len, groups.values()))} of {len(samples)} values were measured with more than "
           f"{max_load:g} % of the machine taken by others and left out"]
    return out + [f"  round {number}, {program} {dtype}: {', '.join(loads)}"
                  for (number, program, dtype), loads in groups.items()]


def report(samples, model, served_text, max_load):
    """The whole text."""
    if not samples:
        return "nothing was measured"
    blocks = []
    parts = [p for p in FIGURE if any(s["part"] == p for s in samples)]
    for part in parts:
        mine = [s for s in samples if s["part"] == part]
        blocks.append(engine_table(mine, model) if part == "engine"
                      else served_table(mine, model, served_text))
    blocks.append(ratio_lines(samples, parts))
    blocks.append(left_out_lines(samples, max_load))
    return "\n\n".join("\n".join(b) for b in blocks)
