#!/usr/bin/python3
"""check_bench_outputs.py BENCH_DIR PLOT_DIR --sizes N... --runs N [--schedulers NAME...]

Fails unless bench left whole, consistent CSV and JSON files that pandas reads, and unless both
folders hold the charts and the report.
"""
import argparse
import json
import pathlib
import struct
import sys

import pandas as pd

SUMMARY_COLUMNS = """scheduler request_size run_num total_requests successful_requests
failed_requests wall_time_s throughput_req_per_sec throughput_tokens_per_sec latency_p50_s
latency_p95_s latency_p99_s latency_avg_s latency_min_s latency_max_s mean_batch_size
batch_efficiency padding_tokens kv_peak_blocks preemptions peak_rss_bytes
invalid endpoint token_source client_lag_p99_s""".split()
DETAIL_COLUMNS = """scheduler request_size run_num request_id status arrival_s queue_s ttft_s
latency_s input_tokens output_tokens tokens_per_sec batch_size preemptions prompt generated_text
error http_status longest_gap_s""".split()
CHARTS = """throughput_comparison latency_comparison latency_distribution
scheduler_comparison_bars""".split()
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

faults = []


def check(ok, message):
    if not ok:
        faults.append(message)


def read_csv(path, columns):
    if not path.is_file():
        faults.append(f"{path}: missing")
        return None
    frame = pd.read_csv(path)
    for column in columns:
        check(column in frame.columns, f"{path.name}: no column {column}")
    return frame if not set(columns) - set(frame.columns) else None


def check_summaries(frame, args):
    expected = len(args.schedulers) * len(args.sizes) * args.runs
    check(len(frame) == expected, f"summaries: {len(frame)} rows, expected {expected}")
    check(sorted(set(frame["scheduler"])) == sorted(args.schedulers),
          f"summaries: schedulers are {sorted(set(frame['scheduler']))}")
    check(not frame.duplicated(["scheduler", "request_size", "run_num"]).any(),
          "summaries: a run appears twice")
    throughput = frame["throughput_req_per_sec"]
    check(pd.api.types.is_numeric_dtype(throughput) and (throughput > 0).all(),
          "summaries: throughput_req_per_sec is not a positive number everywhere")
    check((frame["total_requests"] == frame["request_size"]).all(),
          "summaries: total_requests differs from request_size")
    check((frame["successful_requests"] + frame["failed_requests"] <= frame["total_requests"]).all()
          and (frame["successful_requests"] == frame["total_requests"]).all(),
          "summaries: not every request succeeded")
    order = ["latency_min_s", "latency_p50_s", "latency_p95_s", "latency_p99_s", "latency_max_s"]
    for low, high in zip(order, order[1:]):
        check((frame[low] <= frame[high] + 1e-9).all(), f"summaries: {low} above {high}")
    # Rates must follow from their parts (printed digits bound the error).
    rate = frame["successful_requests"] / frame["wall_time_s"]
    check(((rate - throughput).abs() <= 0.01 * throughput).all(),
          "summaries: throughput is not successful requests over wall time")


def check_details(details, summaries, args):
    expected = sum(args.sizes) * len(args.schedulers) * args.runs
    check(len(details) == expected, f"details: {len(details)} rows, expected {expected}")
    key = ["scheduler", "request_size", "run_num"]
    check(not details.duplicated(key + ["request_id"]).any(), "details: a request appears twice")
    check((details["status"] == "ok").all(), "details: a request is not ok")
    check((details["ttft_s"] <= details["latency_s"] + 1e-9).all(), "details: TTFT above latency")
    local = details[details["queue_s"].notna()]  # a server does not show its queue
    check((local["queue_s"] <= local["ttft_s"] + 1e-9).all(), "details: queue above TTFT")
    tokens = details.groupby(key)["output_tokens"].sum()
    for row in summaries.itertuples():
        total = tokens.get((row.scheduler, row.request_size, row.run_num), 0)
        rate = total / row.wall_time_s
        check(abs(rate - row.throughput_tokens_per_sec) <= 0.01 * rate,
              f"{row.scheduler}: tokens/s is not output tokens over wall time")


def check_json(path):
    if not path.is_file():
        faults.append(f"{path}: missing")
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    check("schema_version" in document, f"{path.name}: no schema_version")


def check_drawings(folder):
    for chart in CHARTS:
        path = folder / f"{chart}.png"
        if not path.is_file():
            faults.append(f"{path}: missing")
            continue
        data = path.read_bytes()
        check(data[:8] == PNG_SIGNATURE, f"{path}: not a PNG")
        check(data[-8:-4] == b"IEND", f"{path}: cut short")
        width, height = struct.unpack(">II", data[16:24])
        check(width >= 800 and height >= 400, f"{path}: only {width} x {height}")
        check(len(data) > 4000, f"{path}: {len(data)} bytes look like an empty drawing")
    report = folder / "benchmark_report.txt"
    check(report.is_file() and report.stat().st_size > 200, f"{report}: missing or empty")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench_dir", type=pathlib.Path)
    parser.add_argument("plot_dir", type=pathlib.Path)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--schedulers", nargs="+", default=["naive", "dynamic", "continuous"])
    args = parser.parse_args()

    summaries = read_csv(args.bench_dir / "benchmark_summaries.csv", SUMMARY_COLUMNS)
    details = read_csv(args.bench_dir / "benchmark_detailed_metrics.csv", DETAIL_COLUMNS)
    if summaries is not None:
        check_summaries(summaries, args)
    if summaries is not None and details is not None:
        check_details(details, summaries, args)
    check_json(args.bench_dir / "benchmark_results.json")
    check_drawings(args.bench_dir)
    check_drawings(args.plot_dir)
    for fault in faults:
        print(f"check_bench_outputs: {fault}", file=sys.stderr)
    if not faults:
        print("check_bench_outputs: CSV, JSON, charts and report are whole and consistent")
    sys.exit(1 if faults else 0)


main()
