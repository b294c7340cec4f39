#!/usr/bin/env bash
# libpdd_abi.sh BUILD_FOLDER: keep what libpdd.so of a build offers as tests/lib/libpdd.abi and exports.txt, after a
# change that old programs do not notice (CONTRIBUTING.md).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
library=$(realpath "${1:-$root/build/release}/libpdd.so")
command -v abidw >/dev/null || { echo "abidw is missing: apt-get install abigail-tools"; exit 1; }
abidw --exported-interfaces-only --header-file "$root/include/pdd.h" --drop-private-types --no-corpus-path \
    --no-comp-dir-path --no-show-locs --no-elf-needed "$library" >"$root/tests/lib/libpdd.abi"
nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$root/tests/lib/exports.txt"
