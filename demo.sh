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
build/release/pdd demo --out build/demo "$@"
say "the same model in a browser, at http://127.0.0.1:8710"
cat <<END
  build/release/pdd device --local-only                    # on this machine alone; or from a cloud, as above:
  build/release/pdd cloud --profile provider-20ms --model models/pdd-read-q6_k.gguf &
  build/release/pdd device --profile s24-ultra-gpu --cloud http://127.0.0.1:8080
END
