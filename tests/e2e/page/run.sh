#!/usr/bin/env bash
# run.sh [PDD [CASE...]]: the page in Debian's Chromium, driven by playwright-core. Installs the latter into build/page;
# where there is no Chromium or no registry, that is one skipped test.
set -uo pipefail
cd "$(dirname "$0")/../../.."
. tests/e2e/install.sh
pdd=$PWD/${1:-build/release/pdd}
shift
chromium=$(command -v chromium || command -v chromium-browser) || skip page "there is no chromium"
install_client page build/page tests/e2e/page/*.mjs tests/e2e/page/package.json tests/e2e/page/package-lock.json
exec timeout 300 node build/page/page.mjs "$pdd" "$chromium" "$@"
