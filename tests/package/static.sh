#!/usr/bin/env bash
# static.sh: the static-pie program (preset static) where there is nothing but it: an empty root, and another
# distribution's. Prints one line a test, as cmocka does. Needs root; network the first time.
#
# Catches: a library, a module of the C library's resolver or a file of Debian's that it needs after all; certificates
# that it looks for in Debian's place alone.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/package/lib.sh
. tools/setup.sh
build=$PWD/build/static
model=models/pdd-read-small-q6_k.gguf
other=bullseye # an older C library than the one it is linked with

build_static() {
    tools/static_curl.sh "$build/curl" && build static pdd manual && ! readelf -d "$build/pdd" | grep NEEDED
}

# The program in the empty root, which has neither /proc nor /etc.
alone() {
    chroot "$scratch/empty" /pdd "$@"
}

make_empty() {
    mkdir -p "$scratch/empty/tmp" && strip -o "$scratch/empty/pdd" "$build/pdd" && cp "$model" "$scratch/empty/model.gguf"
}

ask_alone() {
    "$build/pdd" "${question[@]}" --model "$model" >"$scratch/expected" && [ -s "$scratch/expected" ] &&
        [ "$(alone --version)" = "pdd $(cached "$build" CMAKE_PROJECT_VERSION)" ] &&
        alone "${question[@]}" --model /model.gguf | diff "$scratch/expected" -
}

# start_cloud ARGS...: `port` is that of a cloud in the empty root, which `kill $cloud` ends.
start_cloud() {
    alone cloud --model /model.gguf --listen 127.0.0.1:0 "$@" >"$scratch/cloud" 2>&1 &
    cloud=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/.*listening on http.*:\([0-9]*\).*/\1/p' "$scratch/cloud")
        [ -n "$port" ] && return 0
        sleep 0.1
    done
    cat "$scratch/cloud"
    return 1
}

ask_cloud() {
    alone chat --cloud "$1" --cloud-only --no-model --no-state --color never --max-tokens 8 --prompt "$prompt" | diff "$scratch/expected" -
}

# Without /etc `localhost` is known; then a name of /etc/hosts, and one of a name server.
ask_by_name() {
    local status
    start_cloud || return 1
    ask_cloud "http://localhost:$port" && mkdir -p "$scratch/empty/etc" && echo "127.0.0.1 pdd-hosts.test" >"$scratch/empty/etc/hosts" &&
        ask_cloud "http://pdd-hosts.test:$port" && echo "nameserver 127.0.0.1" >"$scratch/empty/etc/resolv.conf" &&
        ask_cloud "http://pdd-server.test:$port"
    status=$?
    kill $cloud
    return $status
}

# ask_by_name with a name server of its own, in a network of its own, where port 53 is free.
ask_in_namespace() {
    ip link set lo up
    python3 tests/package/name_server.py pdd-server.test 127.0.0.1 &
    local server=$! status
    ask_by_name
    status=$?
    kill $server
    return $status
}

# Certificates where Fedora and Alpine have them; without any the server is refused.
ask_by_tls() {
    local place status=0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout "$scratch/empty/key.pem" \
        -out "$scratch/empty/cert.pem" -subj /CN=localhost -addext subjectAltName=DNS:localhost || return 1
    start_cloud --tls-cert /cert.pem --tls-key /key.pem || return 1
    ask_cloud "https://localhost:$port" && status=1
    for place in etc/pki/tls/certs/ca-bundle.crt etc/ssl/cert.pem; do
        mkdir -p "$scratch/empty/${place%/*}" && cp "$scratch/empty/cert.pem" "$scratch/empty/$place" &&
            ask_cloud "https://localhost:$port" && rm "$scratch/empty/$place" || status=1
    done
    kill $cloud
    return $status
}

ask_other() {
    open_root $other && cp "$scratch/empty/pdd" "$scratch/empty/model.gguf" "$root/tmp/" &&
        in_root ldd --version | head -1 && in_root /tmp/pdd "${question[@]}" --model /tmp/model.gguf | diff "$scratch/expected" -
}

export -f alone start_cloud ask_cloud ask_by_name ask_in_namespace
export scratch prompt
need libc-ares-dev dpkg-dev file openssl iproute2 python3
try static_build build_static || exit 1
if [ "$(id -u)" -ne 0 ]; then
    skip_test static_empty_root "it needs root"
    exit $failed
fi
make_empty
try static_empty_root ask_alone || exit 1
try static_names unshare --net --mount --pid --fork bash -c ask_in_namespace
try static_certificates ask_by_tls
if ! can_make_roots; then
    skip_test static_other_root "it needs namespaces and mmdebstrap"
elif ! make_base $other >"$scratch/log" 2>&1; then
    tail -3 "$scratch/log"
    skip_test static_other_root "no $other can be made from $mirror"
else
    try static_other_root ask_other
fi
exit $failed
