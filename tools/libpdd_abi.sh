#!/usr/bin/env bash
# libpdd_abi.sh BUILD_FOLDER: keep what libpdd.so of a build offers as tests/lib/libpdd.abi and exports.txt, after a
# change that old programs do not notice (CONTRIBUTING.md). libpdd_abi.sh --check BUILD_FOLDER: compare with it.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
check=false
if [[ ${1:-} == --check ]]; then check=true; shift; fi
library=$(realpath "${1:-$root/build/release}/libpdd.so")
command -v abidw >/dev/null || { echo "abidw is missing: apt-get install abigail-tools"; exit 1; }
offered=$(mktemp)
trap 'rm -f "$offered"' EXIT
abidw --exported-interfaces-only --suppressions "$root/tests/lib/handles.abignore" --no-corpus-path \
    --no-comp-dir-path --no-show-locs --no-elf-needed "$library" | sed "s| path='[^']*/src/| path='src/|" >"$offered"
grep -q "class-decl name='pdd_question' size-in-bits" "$offered" || { echo "$library has no debug symbols"; exit 1; }
if $check; then
    abidiff "$root/tests/lib/libpdd.abi" "$offered" || { echo "if old programs go on working: tools/libpdd_abi.sh"; exit 1; }
    exit 0
fi
cat "$offered" >"$root/tests/lib/libpdd.abi"
nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$root/tests/lib/exports.txt"
