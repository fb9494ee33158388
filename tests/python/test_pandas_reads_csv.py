"""What people from the Python suite do with our CSV files, done with pandas on a real bench:
group, average, export to Excel, check a threshold. Arguments: binary, source folder."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

BINARY, SOURCE = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
MODEL = SOURCE / "models" / "SmolLM2-135M-Instruct"
CHECK = SOURCE / "examples" / "check_throughput.py"
SCHEDULERS = ["continuous", "dynamic", "naive"]
SIZES = [3, 5]
RUNS = 2
# What breaks careless CSV: separators, quotes, line ends, formulas, other scripts, "missing" words.
PROMPTS = ['plain', 'a, b; c\td', 'say "hi"', 'two\nlines', 'dos\r\nline', '=1+1', '  spaces  ',
           'Grüße 日本 🙂', 'NA', "'quoted'", '""', 'null']

if not MODEL.is_dir():
    print("skip: no model in models/: run 'make model'")
    sys.exit(77)

import pandas as pd  # noqa: E402


class PandasTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.out = pathlib.Path(cls.folder.name)
        prompts = cls.out / "prompts.json"
        prompts.write_text(json.dumps(PROMPTS), encoding="utf-8")
        subprocess.run(
            [BINARY, "bench", "--model", MODEL, "--prompts", prompts, "--sizes", *map(str, SIZES),
             "--runs", str(RUNS), "--max-new-tokens", "4", "--warmup", "0", "--no-plot", "--output-dir",
             cls.out],
            check=True, stdout=subprocess.DEVNULL, timeout=500)
        cls.summaries = pd.read_csv(cls.out / "benchmark_summaries.csv")
        cls.details = pd.read_csv(cls.out / "benchmark_detailed_metrics.csv")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def check_throughput(self, frame):
        path = self.out / "check.csv"
        frame.to_csv(path, index=False)
        done = subprocess.run([sys.executable, CHECK, path], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_group_and_mean(self):
        means = self.summaries.groupby(["scheduler", "request_size"])["throughput_req_per_sec"].mean()
        self.assertEqual(list(means.index), [(s, n) for s in SCHEDULERS for n in SIZES])
        for (scheduler, size), mean in means.items():
            rows = self.summaries[(self.summaries["scheduler"] == scheduler) &
                                  (self.summaries["request_size"] == size)]
            self.assertEqual(len(rows), RUNS)
            rates = rows["successful_requests"] / rows["wall_time_s"]
            self.assertLess(abs(rates.mean() - mean), 0.01 * mean)

    def test_columns_are_numbers(self):
        for frame in (self.summaries, self.details):
            for column in frame.columns:
                if column.endswith(("_s", "_per_sec", "_tokens", "_blocks", "_size")):
                    self.assertTrue(pd.api.types.is_numeric_dtype(frame[column]), column)
        self.assertFalse(self.summaries["throughput_req_per_sec"].isna().any())
        self.assertTrue((self.summaries["throughput_req_per_sec"] > 0).all())

    def test_details_agree_with_summaries(self):
        key = ["scheduler", "request_size", "run_num"]
        self.assertEqual(len(self.details), len(SCHEDULERS) * sum(SIZES) * RUNS)
        median = self.details.groupby(key)["latency_s"].median()
        stated = self.summaries.set_index(key)["latency_p50_s"]
        self.assertLess((median - stated).abs().max(), 1e-6)

    def test_prompts_survive(self):
        texts = pd.read_csv(self.out / "benchmark_detailed_metrics.csv", keep_default_na=False,
                            dtype={"prompt": str})
        self.assertTrue(set(texts["prompt"]) <= set(PROMPTS), set(texts["prompt"]) - set(PROMPTS))
        self.assertGreaterEqual(len(set(texts["prompt"])), max(SIZES))
        # Every scheduler got the same requests in the same order.
        key = ["request_size", "run_num", "request_id"]
        self.assertTrue((texts.groupby(key)["prompt"].nunique() == 1).all())

    def test_excel(self):
        path = self.out / "benchmark.xlsx"
        with pd.ExcelWriter(path, engine="openpyxl") as writer:
            self.summaries.to_excel(writer, sheet_name="summaries", index=False)
            self.details.to_excel(writer, sheet_name="requests", index=False)
        back = pd.read_excel(path, sheet_name="summaries")
        column = "throughput_req_per_sec"
        self.assertLess((back[column] - self.summaries[column]).abs().max(), 1e-9)
        self.assertEqual(len(pd.read_excel(path, sheet_name="requests")), len(self.details))

    def test_check_throughput(self):
        slowest = self.summaries[self.summaries["scheduler"] == "dynamic"][
            "throughput_req_per_sec"].min()
        code, text = self.check_throughput(self.summaries)
        self.assertEqual(code == 0, slowest > 5, text)
        for rate, passes in ((5.1, True), (5.0, False), (4.9, False)):
            frame = self.summaries.copy()
            frame.loc[frame["scheduler"] == "dynamic", "throughput_req_per_sec"] = rate
            frame.loc[frame["scheduler"] == "naive", "throughput_req_per_sec"] = 1.0
            code, text = self.check_throughput(frame)
            self.assertEqual(code == 0, passes, f"{rate}: {text}")
        code, text = self.check_throughput(self.summaries[self.summaries["scheduler"] != "dynamic"])
        self.assertNotEqual(code, 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
