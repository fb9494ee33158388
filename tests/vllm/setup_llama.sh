#!/usr/bin/env bash
# setup_llama.sh - builds llama-server outside the repository, from the PyPI source package
# llama-cpp-python, which carries llama.cpp. About 1 GB, some ten minutes of compiling.
#
#   LLMSCHED_VLLM_DIR   as in setup.sh; this goes into its subfolder llama
#   JOBS                compile jobs (default: all cores)
#
# Does nothing where it is there already. Prints the program's name last, on stdout.
set -euo pipefail

version=0.3.36
dir=${LLMSCHED_VLLM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/llmsched/vllm}/llama
server=$dir/build/bin/llama-server
source=$dir/llama_cpp_python-$version/vendor/llama.cpp

if [ ! -x "$server" ]; then
    echo "llama setup: building llama-server in $dir" >&2
    mkdir -p "$dir"
    if [ ! -d "$source" ]; then
        python3 -m pip --disable-pip-version-check download --quiet --no-deps \
            --no-binary llama-cpp-python --dest "$dir" "llama-cpp-python==$version" >&2
        tar xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir"
    fi
    cmake -S "$source" -B "$dir/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF >&2
    cmake --build "$dir/build" --target llama-server -j "${JOBS:-$(nproc)}" >&2
fi
"$server" --version >&2
echo "$server"
