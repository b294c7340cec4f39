#!/usr/bin/env bash
# demo.sh: installs what is missing, builds, and runs the demonstration. Options go to `pdd demo`.
set -euo pipefail
cd "$(dirname "$0")"
. tools/setup.sh
# shellcheck disable=SC2086 # lists of packages are meant to be split
need $BUILD_PACKAGES
say "building (build/release)"
build release pdd
say "one answer, begun in the cloud and finished on the device"
exec build/release/pdd demo --out build/demo "$@"
