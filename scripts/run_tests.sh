#!/usr/bin/env bash
# run_tests.sh BUILD_DIR JOBS [LEFT_OUT] - CTest without the tests that match the expression LEFT_OUT,
# then every skipped test with its reason and those left out, so that none is skipped silently.
set -euo pipefail
build=$1
jobs=$2
left_out=${3:-^$}

# Not detect_stack_use_after_return: gcc 12 then misaligns 64-byte vectors on the stack (gcc bug
# 110027), and every AVX-512 kernel crashes.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
# The first race ends the program, so that a script that drives it sees that too.
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

show=--output-on-failure
if [ -n "${LLMSCHED_TEST_FULL:-}" ]; then
    show=--verbose # the heavy cases say what they ran
fi
status=0
ctest --test-dir "$build" --no-tests=error -j "$jobs" -E "$left_out" $show | tee "$build/ctest.out" || status=$?

# Whole programs end with 77, which only ctest's own lines show; single cmocka cases print a
# [ SKIPPED ] line. The reason is the line before it.
echo
awk '
    function skipped(what) {
        printf "  skipped: %s%s\n", what, last == "" ? "" : " (" last ")"
        n++
    }
    FNR == NR { if (/\*\*\*Skipped/) { sub(/.*Test +#[0-9]+: /, ""); whole[$1] = 1 } next }
    /^[0-9]+\/[0-9]+ Testing: / { name = $3; last = "" }
    /^\[ +RUN +\]/ { last = "" }
    /^\[ +SKIPPED +\]/ && NF == 4 && !seen[name, $NF]++ { skipped(name " " $NF) }
    /^\[ +SKIPPED +\]/ && NF > 4 && !/test\(s\)/ { sub(/^[^]]*\] /, ""); last = $0 }
    /^<end of output>/ { if (name in whole) skipped(name); last = "" }
    /^(-+$|\[| *$)/ { next }
    { last = $0 }
    END { if (n) printf "%d skipped\n", n; else print "no test was skipped" }
' "$build/ctest.out" "$build/Testing/Temporary/LastTest.log"
if [ "$left_out" != '^$' ]; then
    echo "left out on purpose: $left_out (the Makefile says why)"
fi
exit $status
