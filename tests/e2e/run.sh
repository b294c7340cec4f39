#!/usr/bin/env bash
# run.sh [PDD]: OpenAI's npm client, as package-lock.json names it, against the program. Installs the
# client into build/e2e; where no registry can be reached, that is one skipped test.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/e2e/install.sh
pdd=$PWD/${1:-build/release/pdd}
install_client openai_client build/e2e tests/e2e/openai.mjs tests/e2e/device.mjs tests/e2e/package.json tests/e2e/package-lock.json
status=0
for case in openai device; do
    timeout 300 node build/e2e/$case.mjs "$pdd" "$PWD/models/pdd-read-small-q6_k.gguf" || status=1
done
exit $status
