#!/usr/bin/env bash
# run.sh [PDD [CASE...]]: the page in Debian's Chromium, driven by playwright-core. Installs the latter into build/page;
# where there is no Chromium or no registry, that is one skipped test.
set -uo pipefail
cd "$(dirname "$0")/../../.."
pdd=$PWD/${1:-build/release/pdd}
shift
skip() {
    echo "[==========] $1"
    echo "[  SKIPPED ] page"
    exit 0
}
chromium=$(command -v chromium || command -v chromium-browser) || skip "there is no chromium"
command -v npm >/dev/null || skip "there is no npm"
mkdir -p build/page
cp tests/e2e/harness.mjs tests/e2e/page/*.mjs tests/e2e/page/package.json tests/e2e/page/package-lock.json tests/e2e/.npmrc build/page/
if ! (cd build/page && npm ci --no-audit --no-fund >npm.log 2>&1); then
    cat build/page/npm.log
    if (cd build/page && npm ping >/dev/null 2>&1); then exit 1; fi
    skip "no npm registry can be reached"
fi
exec timeout 300 node build/page/page.mjs "$pdd" "$chromium" "$@"
