"""The .env: what llmsched makes of it, and that scheduler/env_file.sh makes the same of it."""

import random
import re
import sys

sys.path.insert(0, sys.argv[2] + "/tests")
from harness import *

NAMES = ("LLM_MODEL", "VLLM_ENDPOINT", "VLLM_HOST", "VLLM_PORT", "GPU_MEMORY_UTIL")
FIRST = "LLM_MODEL"


def clean_environment(**more):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("LLM_", "LLMSCHED_", "VLLM_", "GPU_", "OPENAI_", "HF_"))}
    env.update(more)
    return env


def ours(folder, env):
    """(exit code, {name: value} of the variables that are set, stderr)."""
    p = subprocess.run([BINARY, "info", "env"], cwd=folder, env=env, timeout=60,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out = p.stdout.decode("utf-8", "surrogateescape")
    found = {}
    for name, after in zip(NAMES, NAMES[1:] + ("OPENAI_API_KEY",)):
        m = re.search(rf"(?ms)^{name} +(\S+) +(.*?)\n{after} ", out)
        if p.returncode == 0 and m and m[1] != "-":
            found[name] = m[2]
    return p.returncode, found, p.stderr.decode("utf-8", "replace")


def bash(folder, env):
    script = (f"source '{SOURCE}/scheduler/env_file.sh'; env_file_apply .env || exit 3; "
              f"for n in {' '.join(NAMES)}; do "
              "if [ -n \"${!n+x}\" ]; then printf '%s=%s\\0' \"$n\" \"${!n}\"; fi; done")
    p = subprocess.run(["bash", "-euc", script], cwd=folder, env=env, timeout=60,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pairs = p.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return p.returncode, dict(pair.split("=", 1) for pair in pairs), p.stderr.decode()


def write(folder, data):
    with open(os.path.join(folder, ".env"), "wb") as f:
        f.write(data)


def test_agreement(folder):
    """Hand-written rows and random ones from the characters that matter."""
    rows = [b"", b"# c\n\n", b"%s=1", b"%s = a b # c\n", b"%s=#c", b"%s= #c", b"%s=a#b", b"%s=a\t#b",
            b"export %s=1", b"export\t%s=1\r\n", b"exp %s=1", b"%s='a # \"b\\n' # c", b"%s='a'b",
            b'%s="a\\"b\\\\c\\n\\t\\x$d`id`$(id)"#c', b'%s="a', b"%s='a", b'%s="a\\', b"%s=it's",
            b"\xef\xbb\xbf%s=1", b"%s=1\n\xef\xbb\xbf%s=1", b"%s=\x01", b"%s=a\0b", b"%s=a\rb",
            b"%s=\xc3\xa4\xff", b"%s=1\n%s=2", b"A.B=1", b"9=1", b"=1", b"%s", b"x\n%s=1",
            b"%s=" + b"y" * 65000, b"%s=" + b"y" * 65536,
            b"\n".join(b"A%d=1" % i for i in range(256)),
            b"\n".join(b"A%d=1" % i for i in range(257)),
            b"*=1", b"%s=*", b"%s=a\\", b"%s=a\\nb", b"%s=\"\\\"", b"%s=\"\\\\\"", b"%s=[a-z] {b,c} ~"]
    rng = random.Random(4)
    alphabet = [b"a", b"=", b" ", b"\t", b"#", b"'", b'"', b"\\", b"n", b"$", b"\n", b"\r\n", b"%s",
                b"%s=", b"export ", b"\xc3\xa9", b"`", b"\r"]
    for _ in range(120):
        rows.append(b"%s=" + b"".join(rng.choice(alphabet) for _ in range(rng.randint(1, 14))))
    env = clean_environment()
    accepted = 0
    for row in rows:
        write(folder, row.replace(b"%s", FIRST.encode()))
        code, found, message = ours(folder, env)
        check(code in (0, 3), f"{row!r}: exit {code}: {message}")
        accepted += code == 0
        theirs = bash(folder, env)
        check((code, found) == theirs[:2], f"{row[:200]!r}: llmsched {code} {found} {message!r}, "
                                           f"env_file.sh {theirs}")
        if code == 3:
            check(re.search(r"\.env( line \d+)?: ", message), f"{row[:200]!r}: {message!r}")
    check(20 < accepted < len(rows) - 20, f"{accepted} of {len(rows)} rows are accepted")


def test_precedence(folder):
    write(folder, b"LLM_MODEL=from-file\nVLLM_PORT=1\nVLLM_HOST=h\nPATH=/nowhere\nLD_PRELOAD=x.so\n"
                  b"OPENAI_API_KEY=hidden-key\n")
    env = clean_environment(VLLM_PORT="2", VLLM_HOST="")
    for read in (ours, bash):
        code, found, message = read(folder, env)
        check((code, found) == (0, {"LLM_MODEL": "from-file", "VLLM_PORT": "2", "VLLM_HOST": ""}),
              f"precedence: {code} {found} {message}")
    p = subprocess.run([BINARY, "info", "env"], cwd=folder, env=env, stdout=subprocess.PIPE)
    text = p.stdout.decode()
    check("hidden-key" not in text and "(not shown)" in text, f"a secret is shown:\n{text}")
    check(re.search(r"(?m)^VLLM_PORT +environment +2$", text), f"origin of a variable:\n{text}")
    check(re.search(r"(?m)^LLM_MODEL +\.env +from-file$", text), f"origin of a variable:\n{text}")
    # The model is really taken from it, and a flag comes first.
    p = subprocess.run([BINARY, "info", "model"], cwd=folder, env=env, stderr=subprocess.PIPE)
    check(p.returncode == 3 and b"from-file" in p.stderr, f"LLM_MODEL of .env: {p.stderr}")
    p = subprocess.run([BINARY, "info", "model", "--random-weights", "gpt2"], cwd=folder, env=env,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(p.returncode == 0, f"a model on the command line: {p.stderr}")


def test_faults(folder):
    write(folder, b"# one\nVLLM_PORT='8000\n")
    expect(["info", "schedulers"], 3, err=".env line 2: no closing quote", cwd=folder)
    expect(["--version"], 0, cwd=folder)
    os.unlink(os.path.join(folder, ".env"))
    os.mkdir(os.path.join(folder, ".env"))  # some people keep a virtual environment there
    expect(["info", "schedulers"], 0, cwd=folder)
    os.rmdir(os.path.join(folder, ".env"))


def test_example(folder):
    with open(os.path.join(SOURCE, ".env.example"), "rb") as f:
        text = f.read()
    for name in NAMES:
        check(name.encode() + b"=" in text, f".env.example lacks {name}")
    write(folder, text)
    for read in (ours, bash):
        code, found, message = read(folder, clean_environment())
        check(code == 0 and set(found) == {"VLLM_HOST", "VLLM_PORT", "GPU_MEMORY_UTIL"} and
              found["VLLM_HOST"] == "127.0.0.1" and found["VLLM_PORT"] == "8000",
              f"a copy of .env.example: {code} {found} {message}")


with tempfile.TemporaryDirectory() as scratch:
    test_agreement(scratch)
    test_precedence(scratch)
    test_faults(scratch)
    test_example(scratch)
finish()
