#!/usr/bin/env bash
# test.sh: installs what is missing, builds, and runs all tests; ends with `N passed, N failed, N skipped`.
#
#   ./test.sh           everything: style, gcc, clang, sanitizers, cross build, fuzzing
#   ./test.sh --quick   style and the tests of the release build
#   ./test.sh --packages  only what is installed and packaged, with the static program and the packages for arm64, which
#                         the others count as skipped: minutes, with downloads
set -uo pipefail
cd "$(dirname "$0")"
. tools/setup.sh

quick=0
packages=0
for argument in "$@"; do
    case $argument in
    --quick) quick=1 ;;
    --packages) packages=1 ;;
    *)
        echo "usage: ./test.sh [--quick | --packages]"
        exit 2
        ;;
    esac
done

passed=0
failed=0
skipped=0
failures=

# Test programs that wait more than they compute: two more of them than cores keep the cores busy. Fuzz targets compute.
cores=$(nproc)
at_once=$((cores + 2))

# The programs that take longest begin first, or the last of them would run alone at the end.
longest='test_processes
test_storm
test_storm_device
test_evaluate
test_refine_tools
test_native_exact
test_native_score
test_kern_weigh
test_cloud_pressure
test_conformance
test_native_memory
test_cloud_answers
test_native_long
test_native_golden
test_native_arch
test_native_open
test_vocab
test_cloud_abuse
test_handover
test_faults
test_kern
test_core_bits'

# Its waits are to be short on a machine that prefills for two ends: it begins when the others are nearly through.
last=test_demo

pass() {
    passed=$((passed + 1))
}

fail() {
    failed=$((failed + 1))
    failures="$failures
  $1"
}

# begin NAME ... finish: a part of the whole, and at its end the seconds that it took.
begin() {
    begun=$SECONDS
    say "$1"
}

finish() {
    echo "  $((SECONDS - begun)) s"
}

# step NAME COMMAND...: one thing that passes or fails.
step() {
    local name=$1
    shift
    begin "$name"
    if "$@"; then pass; else fail "$name"; fi
    finish
}

# What runs under the thread sanitizer: programs whose names hold one of these.
threaded='pool|queue|worker|server|cloud|upstream|device|handover|http|loop|chat|lib$|lib_host'

threaded_targets() {
    find tests -name 'test_*.c' -printf '%f\n' | sed -n "s/^\(test_.*\)\.c\$/\1/p" | grep -E "($threaded)"
    echo pdd libpdd libpdd_static
}

# Builds that are needed later run beside tests, on the CPU time that these leave: many tests wait more than they compute.
# start_builds: one after the other, in this order; the outcome of each to $later/PRESET, what it said to $later/PRESET.log.
start_builds() {
    later=$(mktemp -d)
    (
        chrt --idle --pid 0 $BASHPID 2>/dev/null || renice -n 19 $BASHPID >/dev/null 2>&1
        for preset in asan tsan aarch64 aarch64-clang fuzz clang; do
            begun=$SECONDS
            targets=
            [ $preset = tsan ] && targets=$(threaded_targets)
            # shellcheck disable=SC2086 # the list is meant to be split
            build $preset $targets >"$later/$preset.log" 2>&1
            echo "$? $((SECONDS - begun))" >"$later/$preset.part"
            mv "$later/$preset.part" "$later/$preset"
        done
    ) &
    builder=$!
    trap 'kill $builder 2>/dev/null' EXIT
}

# await_build NAME PRESET: one of start_builds, counted as a step.
await_build() {
    local status seconds
    begin "$1"
    while [ ! -e "$later/$2" ] && kill -0 $builder 2>/dev/null; do
        sleep 0.5
    done
    read -r status seconds 2>/dev/null <"$later/$2" || status=1
    cat "$later/$2.log"
    if [ "$status" -eq 0 ]; then pass; else fail "$1"; fi
    echo "  $((SECONDS - begun)) s of waiting; it took ${seconds:-?} s beside the tests"
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

# test_programs DIR PATTERN: a build's test programs, the longest first, but `last` after all others.
test_programs() {
    local found name
    found=$(find "$1" -maxdepth 1 -type f -executable -name 'test_*' | grep -E "/test_[^/]*($2)" | sort)
    for name in $longest; do
        grep "/$name\$" <<<"$found"
    done
    grep -vE "/($(tr '\n' '|' <<<"$longest")$last)\$" <<<"$found"
    grep "/$last\$" <<<"$found"
}

# run_tests PRESET LABEL [PATTERN]: every test program of a build, some at a time, each case counted.
run_tests() {
    local preset=$1 label=$2 pattern=${3:-.} dir logs program name status seconds
    dir=build/$preset
    logs=$(mktemp -d)
    begin "$label"
    test_programs "$dir" "$pattern" | xargs -P $at_once -I {} bash -c 'run_program "$@"' - "$dir" "$logs" {}
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
    finish
}

# run_script NAME SCRIPT [ARGUMENT]...: a script that prints a line for each of its tests; each is counted.
run_script() {
    local name=$1 log status
    shift
    log=$(mktemp)
    begin "$name ($1)"
    "$@" >"$log" 2>&1
    status=$?
    count_cases "$log"
    [ $status -eq 0 ] && echo "  ok" || { fail "$name"; tail -60 "$log"; }
    rm -f "$log"
    finish
}

# Clients of npm against the program. Any node will do, not only Debian's.
run_clients() {
    command -v npm >/dev/null || need nodejs npm
    run_script "clients of npm" tests/e2e/run.sh build/release/pdd
}

# The page of `pdd device` in Chromium.
run_page() {
    command -v npm >/dev/null || need nodejs npm
    command -v chromium >/dev/null || need chromium fonts-dejavu-core
    run_script "the page in a browser" tests/e2e/page/run.sh build/release/pdd
}

# What users install, and the packages in a bare Debian 12.
run_packages() {
    run_script "installing and packages" tests/package/run.sh build/release
    if [ $packages -eq 1 ]; then
        run_script "the static program" tests/package/static.sh
        run_script "packages for arm64" tests/package/arm64.sh
    else
        skipped=$((skipped + 2))
        echo "  skipped: the static program, packages for arm64 (./test.sh --packages)"
    fi
}

# Kernels and bits by gcc, bits by gcc on a CPU without dot product, bits by clang.
run_aarch64() {
    xargs -P "$cores" -L 1 qemu-aarch64 -L /usr/aarch64-linux-gnu <<END
build/aarch64/test_kern
build/aarch64/test_core_bits
-cpu cortex-a72 build/aarch64/test_core_bits
build/aarch64-clang/test_core_bits
END
}

# fuzz TARGET LOGS: its corpus and ten seconds of new inputs; its output to LOGS/NAME, which stays when it fails.
fuzz() {
    local name
    name=$(basename "$1")
    mkdir -p "build/fuzz/found/$name"
    timeout 120 "$1" -max_total_time=10 -rss_limit_mb=2048 -timeout=20 -verbosity=0 -print_final_stats=0 \
        -artifact_prefix=build/fuzz/ "build/fuzz/found/$name" "fuzz/corpus/${name#fuzz_}" >"$2/$name" 2>&1 &&
        rm "$2/$name"
}
export -f fuzz

# Every target, as many at once as there are cores; crashes stay in build/fuzz.
run_fuzzers() {
    local logs targets target name
    logs=$(mktemp -d)
    begin "fuzzing, 10 s each"
    targets=$(find build/fuzz -maxdepth 1 -type f -executable -name 'fuzz_*' | sort)
    for target in $targets; do # a target that never runs has failed
        touch "$logs/$(basename "$target")"
    done
    xargs -P "$cores" -I {} bash -c 'fuzz "$@"' - {} "$logs" <<<"$targets"
    for target in $targets; do
        name=$(basename "$target")
        if [ -e "$logs/$name" ]; then
            fail "fuzzing: $name"
            tail -40 "$logs/$name"
        else
            pass
            echo "  ok $name"
        fi
    done
    rm -r "$logs"
    finish
}

summary() {
    echo
    echo "$SECONDS s in all"
    [ -n "$failures" ] && printf '\nfailed:%s\n' "$failures"
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
    exit
}

# shellcheck disable=SC2086 # lists of packages are meant to be split
need $BUILD_PACKAGES $TEST_PACKAGES
if [ $packages -eq 1 ]; then
    step "building with gcc" build release
    run_packages
    summary
fi
step "style, layers, banned calls (tools/check.sh)" tools/check.sh
step "building with gcc" build release
run_tests release "tests, gcc, optimised" # by themselves: they know what is late
[ $quick -eq 1 ] || start_builds
run_clients
run_page
if [ $quick -eq 0 ]; then
    run_packages
    await_build "building with address and undefined-behaviour sanitizers" asan
    run_tests asan "tests under address and undefined-behaviour sanitizers"
    await_build "building with the thread sanitizer" tsan
    run_tests tsan "tests with threads under the thread sanitizer" "$threaded"
    await_build "cross-building the numeric core for aarch64" aarch64
    await_build "the same with clang" aarch64-clang
    step "kernels and the bits of whole models on aarch64 (qemu-user)" run_aarch64
    await_build "building the fuzz targets" fuzz
    run_fuzzers
    await_build "building with clang" clang
    rm -r "$later"
fi
summary
