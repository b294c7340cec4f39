#!/usr/bin/env bash
# run.sh [PDD]: clients of npm, as package-lock.json names them, against the program. Installs them into build/e2e; where no
# registry can be reached, that is one skipped test. PDD_LLAMA_SERVER=FILE: a llama-server to run some of them over, too.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/e2e/install.sh
pdd=$PWD/${1:-build/release/pdd}
install_client npm_clients build/e2e tests/e2e/{openai,device,clients,upstream}.mjs tests/e2e/tools.jinja tests/e2e/package{,-lock}.json
status=0
for case in openai device clients; do
    timeout 300 node build/e2e/$case.mjs "$pdd" "$PWD/models/pdd-read-small-q6_k.gguf" || status=1
done
exit $status
