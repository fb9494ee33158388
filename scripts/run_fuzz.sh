#!/usr/bin/env bash
# run_fuzz.sh BUILD_DIR SECONDS - each fuzz target for that long on its seeds in fuzz/corpus/<name>.
# Finds grow a corpus in the build folder; a crashing input stays there and the run fails.
set -euo pipefail
build=$1
seconds=$2

shopt -s nullglob
sources=(fuzz/fuzz_*.c)
if [ ${#sources[@]} -eq 0 ]; then
    echo "run_fuzz.sh: no fuzz/fuzz_*.c" >&2
    exit 1
fi
failed=()
for source in "${sources[@]}"; do
    name=$(basename "$source" .c)
    target=$build/fuzz/$name
    seeds=fuzz/corpus/$name
    if [ ! -d "$seeds" ]; then seeds=fuzz/corpus/${name#fuzz_}; fi
    if [ ! -d "$seeds" ]; then
        echo "run_fuzz.sh: no seed corpus fuzz/corpus/$name" >&2
        failed+=("$name")
        continue
    fi
    mkdir -p "$build/corpus/$name" "$build/crashes"
    echo "=== $name, $seconds s, seeds $seeds ($(find "$seeds" -type f | wc -l))"
    "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -verbosity=0 -print_funcs=0 -artifact_prefix="$build/crashes/$name-" "$build/corpus/$name" "$seeds" ||
        failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]} (inputs in $build/crashes)" >&2
    exit 1
fi
echo "${#sources[@]} fuzz targets clean"
