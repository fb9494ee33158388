#!/usr/bin/env python3
"""The whole comparison with the `tokenizers` library; see tests/oracle/tokenizer_oracle.py.

Runs when LLMSCHED_TEST_FULL=1 and an interpreter has the library: this one, or the one named by
LLMSCHED_ORACLE_PYTHON. Vocabularies in GGUF files are taken along where they are at hand (and the
package `gguf` is).
"""
import glob
import os
import subprocess
import sys

SKIP = 77


def main():
    binary, source = sys.argv[1:3]
    if os.environ.get("LLMSCHED_TEST_FULL") != "1":
        print("skipped: set LLMSCHED_TEST_FULL=1 to compare with the tokenizers library (minutes)")
        return SKIP
    python = os.environ.get("LLMSCHED_ORACLE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import tokenizers"], capture_output=True).returncode != 0:
        print("skipped: %s lacks the package tokenizers (LLMSCHED_ORACLE_PYTHON names another)" %
              python)
        return SKIP
    driver = os.path.join(os.path.dirname(binary), "tests", "bench_tokenize")
    command = [python, os.path.join(source, "tests", "oracle", "tokenizer_oracle.py"), "compare",
               "--classes", "--driver", driver]
    folder = os.environ.get("LLMSCHED_TEST_TOKENIZERS",
                            os.path.join(source, "../shared/tokenizers"))
    files = glob.glob(os.path.join(folder, "*.gguf"))
    files += glob.glob(os.path.join(source, "models", "SmolLM2-135M-Instruct", "*.gguf"))
    if subprocess.run([python, "-c", "import gguf"], capture_output=True).returncode != 0:
        print("GGUF vocabularies are left out: %s lacks the package gguf" % python)
        files = []
    if files:
        command += ["--gguf"] + files
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
