#!/usr/bin/env bash
# The example of docs/ADDING_A_SCHEDULER.md, taken from the page: builds against base and core only,
# and keeps the invariants of the property tests. Args: the program (unused), the source folder.
set -euo pipefail
source_dir=$2
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
page=$source_dir/docs/ADDING_A_SCHEDULER.md

mkdir -p "$work/tests" "$work/roots"
cp -r "$source_dir/src" "$work/src"
cp -r "$source_dir/tests/engine" "$source_dir/tests/sanitized.h" "$work/tests/"

# The code block after the marker <!-- kind: ... -->.
block() {
    awk -v marker="<!-- $1: $2 -->" '
        $0 == marker { armed = 1; next }
        armed && /^```c$/ { inside = 1; next }
        inside && /^```$/ { exit }
        inside { print }' "$page"
}

block file src/sched/sjf.c > "$work/src/sched/sjf.c"
block macro src/sched/registry.c > "$work/macro"
block row tests/engine/harness.h > "$work/row"
for part in src/sched/sjf.c macro row; do
    [ -s "$work/$part" ] || { echo "the page has no block for $part"; exit 1; }
done

# The macro replaces the old one, which ends at the first line without a backslash.
awk -v macro="$work/macro" '
    /^#define POLICIES\(X\)/ { while ((getline line < macro) > 0) print line; skipping = 1 }
    skipping { if ($0 !~ /\\$/) skipping = 0; next }
    { print }' "$source_dir/src/sched/registry.c" > "$work/src/sched/registry.c"
awk -v row="$work/row" '
    { print }
    /claims_table\[\] = \{$/ { while ((getline line < row) > 0) print line }' \
    "$source_dir/tests/engine/harness.h" > "$work/tests/engine/harness.h"
[ "$(diff "$source_dir/src/sched/registry.c" "$work/src/sched/registry.c" | grep -c '^>')" -le 2 ] ||
    { echo "the page's registry differs by more than the new line: bring it up to date"; exit 1; }
cmp -s "$source_dir/tests/engine/harness.h" "$work/tests/engine/harness.h" &&
    { echo "no claims_table found in harness.h"; exit 1; }

flags=(-std=c17 -O1 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
    -Wno-sign-conversion -Wmissing-prototypes -Werror)
ln -s "$work/src/base" "$work/src/core" "$work/roots/"
"$cc" "${flags[@]}" -I"$work/roots" -c "$work/src/sched/sjf.c" -o "$work/sjf.o"
rm "$work/src/sched/sjf.c"
"$cc" "${flags[@]}" -I"$work/src" -I"$work/tests" "$work"/src/{base,sched,engine,sim}/*.c \
    "$work/tests/engine/test_properties.c" "$work/sjf.o" -lcmocka -lm -lpthread -o "$work/test"
LLMSCHED_POLICY=sjf "$work/test" | tee "$work/out"
grep -q '^sjf: [1-9][0-9]* workloads' "$work/out"
