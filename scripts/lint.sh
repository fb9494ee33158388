#!/usr/bin/env bash
# lint.sh BUILD_DIR JOBS - format, house rules, cppcheck, clang-tidy. Every check runs; any fault
# fails. BUILD_DIR is a configured (not necessarily built) folder with compile_commands.json.
set -euo pipefail
build=$1
jobs=$2
faults=0

fault() {
    echo "lint: $*" >&2
    faults=$((faults + 1))
}

mapfile -t sources < <(git ls-files --cached --others --exclude-standard \
    'src/*.c' 'tests/*.c' 'fuzz/*.c' | while read -r f; do [ -e "$f" ] && echo "$f"; done)
mapfile -t headers < <(git ls-files --cached --others --exclude-standard \
    'src/*.h' 'tests/*.h' 'fuzz/*.h' | while read -r f; do [ -e "$f" ] && echo "$f"; done)
all=("${sources[@]}" "${headers[@]}")

# --- format --------------------------------------------------------------------------------------
clang-format --dry-run -Werror "${all[@]}" || fault "clang-format: run 'make format'"
for f in "${all[@]}"; do
    lines=$(wc -l <"$f")
    if [ "$lines" -gt 900 ]; then fault "$f: $lines lines; a file stays under about 800"; fi
done

# --- house rules ---------------------------------------------------------------------------------
# banned PATTERN WHY FILTER: PATTERN in code (comments and strings cut out) of the files that the
# extended regex FILTER keeps; a line that ends with "lint: allow - reason" is let through.
banned() {
    local hits
    hits=$(printf '%s\n' "${all[@]}" | grep -E "$3" | grep -vE "${4:-^$}" |
        xargs python3 scripts/grep_code.py "$1") || true
    if [ -n "$hits" ]; then
        printf '%s\n' "$hits" >&2
        fault "$2"
    fi
}
banned '\b(strcpy|strcat|strncpy|strncat|sprintf|vsprintf|gets|strtok|alloca|atoi|atol|atof|system|popen|tmpnam|mktemp)\s*\(' \
    "unbounded or unchecked call; use snprintf, strbuf, strtoul with checks, mkstemp" '^(src|fuzz)/'
banned '\b(malloc|calloc|realloc|free|strdup|strndup|aligned_alloc|posix_memalign|asprintf)\s*\(' \
    "allocate through base/mem.h" '^src/' '^src/base/mem\.c$'
banned '\b(exit|_exit|getenv|secure_getenv|printf|puts|putchar)\s*\(' \
    "only src/cli ends the process, reads the environment or writes to stdout" '^src/' '^src/cli/'
banned '\bsetlocale\s*\(' "numbers in files must not depend on the locale" '^src/'
hits=$(grep -nE '#include "(\.\./|/)' "${all[@]}" || true)
if [ -n "$hits" ]; then
    echo "$hits" >&2
    fault "include by module (\"base/mem.h\"), not by relative path"
fi
for f in scripts/*.sh .ci/run $(git ls-files 'tests/*.sh'); do
    bash -n "$f" || fault "$f: bash syntax"
done
for f in $(git ls-files '*.py'); do
    python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$f" ||
        fault "$f: Python syntax"
done

# --- cppcheck ------------------------------------------------------------------------------------
roots=()
for root in "$build"/include-roots/*; do roots+=("-I$root"); done
# missingIncludeSystem: system headers are left out on purpose, cppcheck knows libc by itself.
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
    --error-exitcode=1 --suppress=missingIncludeSystem -D_GNU_SOURCE -j "$jobs" "${roots[@]}" \
    src fuzz || fault "cppcheck"

# --- clang-tidy ----------------------------------------------------------------------------------
# One file a call: version 14 carries va_list state from one file into the next.
log=$build/clang-tidy.log
printf '%s\n' "${sources[@]}" |
    xargs -P "$jobs" -n 1 clang-tidy -p "$build" --quiet >"$log" 2>&1 || {
    grep -vE '^([0-9]+ warnings? generated|Suppressed|Use -header-filter)' "$log" >&2 || true
    fault "clang-tidy"
}

if [ "$faults" -gt 0 ]; then
    echo "lint: $faults faults" >&2
    exit 1
fi
echo "lint: ${#all[@]} files clean"
