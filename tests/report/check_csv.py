"""check_csv.py SUMMARIES METRICS JOURNAL - the CSVs as Python's csv and pandas read them hold what the
journal holds. Run by test_csv. Exit: 0 equal, 1 not, 77 no pandas."""
import csv
import json
import sys

try:
    import pandas
except ImportError:
    print("python3-pandas is not installed")
    sys.exit(77)

summaries, metrics, journal = sys.argv[1:4]
with open(journal, encoding="utf-8") as f:
    runs = [json.loads(line) for line in f.read().split("\n")[1:-1]]
flat = [dict(r, scheduler=run["scheduler"]) for run in runs for r in run["requests"]]


def same(cell, value):
    if value is None:
        return cell == ""
    if isinstance(value, bool):
        return cell == str(value).lower()
    if isinstance(value, (int, float)):
        return float(cell) == value
    return cell == value


def compare(reader, rows, expected):
    assert len(rows) == len(expected), (reader, len(rows), len(expected))
    cells = 0
    for row, want in zip(rows, expected):
        for key, value in want.items():
            if key in ("requests", "kind"):
                continue
            assert key in row, (reader, "no column", key)
            assert same(row[key], value), (reader, key, row[key], value)
            cells += 1
    return cells


cells = 0
for path, expected in ((summaries, runs), (metrics, flat)):
    with open(path, encoding="utf-8", newline="") as f:
        cells += compare("csv", list(csv.DictReader(f, strict=True)), expected)
    for engine in ("c", "python"):
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False, engine=engine)
        cells += compare("pandas " + engine, frame.to_dict("records"), expected)

# As people read it: numbers are numbers, undefined is NaN.
frame = pandas.read_csv(summaries)
mean = frame.groupby(["scheduler", "request_size"])["throughput_req_per_sec"].mean()
assert mean.notna().all() and mean.dtype == float, mean
assert frame["tpot_p50_s"].isna().any()
print(f"{cells} cells equal in csv and pandas {pandas.__version__}")
