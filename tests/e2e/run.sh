#!/usr/bin/env bash
# run.sh [PDD]: OpenAI's npm client, as package-lock.json names it, against the program. Installs the
# client into build/e2e; where no registry can be reached, that is one skipped test.
set -uo pipefail
cd "$(dirname "$0")/../.."
pdd=$PWD/${1:-build/release/pdd}
mkdir -p build/e2e
cp tests/e2e/*.mjs tests/e2e/package.json tests/e2e/package-lock.json tests/e2e/.npmrc build/e2e/
if ! (cd build/e2e && npm ci --no-audit --no-fund >npm.log 2>&1); then
    cat build/e2e/npm.log
    if (cd build/e2e && npm ping >/dev/null 2>&1); then exit 1; fi
    echo "[==========] no npm registry can be reached"
    echo "[  SKIPPED ] openai_client"
    exit 0
fi
status=0
for case in openai device; do
    timeout 300 node build/e2e/$case.mjs "$pdd" "$PWD/models/pdd-read-small-q6_k.gguf" || status=1
done
exit $status
