#!/usr/bin/env bash
# test.sh: installs what is missing, builds, and runs all tests; ends with `N passed, N failed, N skipped`.
#
#   ./test.sh           everything: style, gcc, clang, sanitizers, cross build, fuzzing
#   ./test.sh --quick   style and the tests of the release build
set -uo pipefail
cd "$(dirname "$0")"
. tools/setup.sh

quick=0
for argument in "$@"; do
    case $argument in
    --quick) quick=1 ;;
    *)
        echo "usage: ./test.sh [--quick]"
        exit 2
        ;;
    esac
done

passed=0
failed=0
skipped=0
failures=

pass() {
    passed=$((passed + 1))
}

fail() {
    failed=$((failed + 1))
    failures="$failures
  $1"
}

# step NAME COMMAND...: one thing that passes or fails.
step() {
    local name=$1
    shift
    say "$name"
    if "$@"; then pass; else fail "$name"; fi
}

# Count cmocka's own cases where a program has them, else the program as one test. cmocka names a skipped case twice.
count_cases() {
    local file=$1 ok skip
    ok=$(grep -c '^\[       OK \]' "$file")
    skip=$(grep '^\[  SKIPPED \] [^0-9]' "$file" | sort -u | wc -l)
    passed=$((passed + ok))
    skipped=$((skipped + skip))
}

# run_program DIR LOGS PROGRAM: its output to LOGS/NAME, its exit code to LOGS/NAME.code.
run_program() {
    local begin=$SECONDS name
    name=$(basename "$3")
    PDD_BIN=$PWD/$1/pdd timeout 600 "$3" >"$2/$name" 2>&1
    echo "$? $((SECONDS - begin))" >"$2/$name.code"
}
export -f run_program

# run_tests PRESET LABEL [PATTERN]: every test program of a build, two at a time, each case counted.
run_tests() {
    local preset=$1 label=$2 pattern=${3:-.} dir logs program name status seconds
    dir=build/$preset
    logs=$(mktemp -d)
    say "$label"
    find "$dir" -maxdepth 1 -type f -executable -name 'test_*' | grep -E "/test_[^/]*($pattern)" | sort |
        xargs -P 2 -I {} bash -c 'run_program "$@"' - "$dir" "$logs" {}
    for program in "$logs"/*.code; do
        [ -f "$program" ] || continue
        read -r status seconds <"$program"
        program=${program%.code}
        name=$(basename "$program")
        count_cases "$program"
        grep -q '^\[==========\]' "$program" || { [ "$status" -eq 0 ] && pass; }
        if [ "$status" -ne 0 ]; then
            fail "$label: $name"
            tail -40 "$program"
        else
            echo "  ok $name, $seconds s"
        fi
    done
    rm -r "$logs"
}

# OpenAI's npm client against the program, each case counted. Any node will do, not only Debian's.
run_openai_client() {
    local log status
    log=$(mktemp)
    say "OpenAI's npm client (tests/e2e)"
    command -v npm >/dev/null || need nodejs npm
    tests/e2e/run.sh build/release/pdd >"$log" 2>&1
    status=$?
    count_cases "$log"
    [ $status -eq 0 ] && echo "  ok openai.mjs" || { fail "OpenAI's npm client"; tail -40 "$log"; }
    rm -f "$log"
}

# quiet COMMAND...: its output only when it fails.
quiet() {
    local log status
    log=$(mktemp)
    "$@" >"$log" 2>&1
    status=$?
    [ $status -eq 0 ] || tail -40 "$log"
    rm -f "$log"
    return $status
}

run_aarch64() {
    qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/test_kern &&
        qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/test_core_bits &&
        qemu-aarch64 -cpu cortex-a72 -L /usr/aarch64-linux-gnu build/aarch64/test_core_bits && # no dot product
        qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64-clang/test_core_bits
}

# Each target over its corpus and ten seconds of new inputs; crashes stay in build/fuzz.
run_fuzzers() {
    local target name
    for target in build/fuzz/fuzz_*; do
        [ -x "$target" ] && [ -f "$target" ] || continue
        name=$(basename "$target")
        mkdir -p "build/fuzz/found/$name"
        step "fuzzing: $name, 10 s" quiet timeout 120 "$target" -max_total_time=10 -rss_limit_mb=2048 -timeout=20 \
            -verbosity=0 -print_final_stats=0 -artifact_prefix=build/fuzz/ \
            "build/fuzz/found/$name" "fuzz/corpus/${name#fuzz_}"
    done
}

# shellcheck disable=SC2086 # lists of packages are meant to be split
need $BUILD_PACKAGES $TEST_PACKAGES
step "style, layers, banned calls (tools/check.sh)" tools/check.sh
step "building with gcc" build release
run_tests release "tests, gcc, optimised"
run_openai_client
if [ $quick -eq 0 ]; then
    step "building with clang" build clang
    step "building with address and undefined-behaviour sanitizers" build asan
    run_tests asan "tests under address and undefined-behaviour sanitizers"
    step "building with the thread sanitizer" build tsan
    run_tests tsan "tests with threads under the thread sanitizer" 'pool|queue|worker|server|cloud|upstream|device|handover|http|loop|chat'
    step "cross-building the numeric core for aarch64" build aarch64
    step "the same with clang" build aarch64-clang
    step "kernels and the bits of whole models on aarch64 (qemu-user)" run_aarch64
    step "building the fuzz targets" build fuzz
    run_fuzzers
fi
[ -n "$failures" ] && printf '\nfailed:%s\n' "$failures"
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
