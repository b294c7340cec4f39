# install.sh: sourced by the run.sh of each client, from the top of the repository.

# skip TEST WHY: one skipped test, and the end.
skip() {
    echo "[==========] $2"
    echo "[  SKIPPED ] $1"
    exit 0
}

# install_client TEST FOLDER FILE...: copy FILEs to FOLDER and install there what package-lock.json names, unless that is there already. Where there is no npm
# or no registry, TEST is skipped.
install_client() {
    local test=$1 folder=$2
    shift 2
    command -v npm >/dev/null || skip "$test" "there is no npm"
    mkdir -p "$folder"
    cp tests/e2e/harness.mjs tests/e2e/.npmrc "$@" "$folder"
    cmp -s "$folder/package-lock.json" "$folder/node_modules/installed.json" && return
    (cd "$folder" && npm ci >npm.log 2>&1 && cp package-lock.json node_modules/installed.json) && return
    cat "$folder/npm.log"
    (cd "$folder" && npm ping >/dev/null 2>&1) && exit 1
    skip "$test" "no npm registry can be reached"
}
