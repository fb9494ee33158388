#!/usr/bin/env bash
# setup_llama.sh - builds llama-server, llama-batched-bench and llama-quantize outside the repository,
# from the PyPI source package llama-cpp-python, which carries llama.cpp, and makes GGUF files of the
# model's weights in F32, F16, BF16 and Q8_0. About 2.3 GB, some fifteen minutes of compiling.
#
#   setup_llama.sh [--gpt2]   --gpt2: also GGUF files of GPT-2's 124M shape with random weights
#                             (1.1 GB; made with the gguf package of setup.sh's environment)
#
#   LLMSCHED_VLLM_DIR   as in setup.sh; this goes into its subfolder llama
#   JOBS                compile jobs (default: all cores)
#
# Does nothing where all is there already. Prints llama-server's name last, on stdout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
version=0.3.36
base=${LLMSCHED_VLLM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/llmsched/vllm}
dir=$base/llama
bin=$dir/build/bin
source=$dir/llama_cpp_python-$version/vendor/llama.cpp
programs=(llama-server llama-batched-bench llama-quantize)
types=(F32 F16 BF16 Q8_0)

say() { echo "llama setup: $*" >&2; }
die() { say "$*"; exit 1; }

case ${1:-} in
    "") gpt2= ;;
    --gpt2) gpt2=yes ;;
    *) die "unknown argument $1" ;;
esac

is_built() {
    local p
    for p in "${programs[@]}"; do [ -x "$bin/$p" ] || return 1; done
}

# convert IN.gguf NAME: the weights of IN as $dir/gguf/NAME.TYPE.gguf. A file is complete when it has
# its name; the stamp says what it was made from.
convert() {
    local made_from type out
    made_from=$( (echo "$version" && cat "$1") | sha256sum | cut -d' ' -f1)
    mkdir -p "$dir/gguf"
    for type in "${types[@]}"; do
        out=$dir/gguf/$2.$type.gguf
        [ "$(cat "$out.made-from" 2>/dev/null)" != "$made_from" ] || [ ! -f "$out" ] || continue
        say "making $out"
        "$bin/llama-quantize" --allow-requantize "$1" "$out.part" "$type" >"$dir/quantize.log" 2>&1 ||
            { tail -5 "$dir/quantize.log" >&2; die "llama-quantize failed; see $dir/quantize.log"; }
        mv "$out.part" "$out"
        echo "$made_from" >"$out.made-from"
    done
}

if ! is_built; then
    say "building ${programs[*]} in $dir"
    mkdir -p "$dir"
    if [ ! -d "$source" ]; then
        python3 -m pip --disable-pip-version-check download --quiet --no-deps \
            --no-binary llama-cpp-python --dest "$dir" "llama-cpp-python==$version" >&2
        tar xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir"
    fi
    cmake -S "$source" -B "$dir/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF >&2
    cmake --build "$dir/build" --target "${programs[@]}" -j "${JOBS:-$(nproc)}" >&2
fi

gguf=$root/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$gguf" ] || make --no-print-directory -C "$root" model >&2
convert "$gguf" SmolLM2-135M-Instruct

if [ -n "$gpt2" ]; then
    python=$base/venv/bin/python
    [ -x "$python" ] || die "--gpt2 needs the gguf package; tests/vllm/setup.sh installs it"
    [ -f "$dir/gpt2-random.gguf" ] || {
        "$python" "$here/make_gpt2_gguf.py" "$dir/gpt2-random.gguf.part"
        mv "$dir/gpt2-random.gguf.part" "$dir/gpt2-random.gguf"
    }
    convert "$dir/gpt2-random.gguf" gpt2-random
fi
"$bin/llama-server" --version >&2
echo "$bin/llama-server"
