#!/usr/bin/env bash
# openai_venv.sh DIR - a virtual environment with the openai client alone, for
# tests/serve/test_openai_client.py. Does nothing when it is there already.
#
# Where it cannot be made (no network), the reason is left in DIR.reason, the test skips with it,
# and this succeeds: a machine without a network can still run all other tests. CI sets
# LLMSCHED_REQUIRE_OPENAI=1, and then the test fails instead.
set -euo pipefail
dir=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/../tests/serve/requirements-openai.txt
python=/usr/bin/python3
if [ ! -x "$python" ]; then python=python3; fi

# The stamp is written last: an environment that was cut off half-way is built anew.
stamp=$({ "$python" --version; cat "$requirements" "$here/openai_venv.sh"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
mkdir -p "$(dirname "$dir")"
make_it() {
    rm -rf "$dir"
    "$python" -m venv "$dir" &&
        "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
            --only-binary=:all: --timeout 20 --retries 2 -r "$requirements"
}
echo "openai_venv: making $dir (the openai client from PyPI, 70 MB)"
if make_it >"$dir.log" 2>&1 </dev/null; then
    echo "$stamp" >"$dir/stamp"
    rm -f "$dir.reason" "$dir.log"
else
    rm -rf "$dir"
    reason=$(grep -v '^ *$' "$dir.log" | tail -1 | cut -c1-200)
    echo "the openai client could not be installed: ${reason:-see $dir.log}" | tee "$dir.reason" >&2
fi
