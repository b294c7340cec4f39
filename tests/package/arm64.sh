#!/usr/bin/env bash
# arm64.sh: the packages for arm64, by the cross build (preset arm64) in a Debian 12 of its own that has Debian's
# libraries for arm64 beside those for this machine, so that the machine's own package manager stays as it is. Prints one
# line a test, as cmocka does. Needs root, and the release build; network the first time.
#
# Catches: code that asks for this machine's architecture; an answer that differs there; a package that cannot be made.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/package/lib.sh
model=models/pdd-read-small-q6_k.gguf
tale=(chat --local-only --no-state --color never --max-tokens 24 --temperature 1 --seed 7 --prompt "Tell me of a mill.")
tools="gcc-aarch64-linux-gnu libc6-dev-arm64-cross cmake ninja-build pkg-config dpkg-dev file qemu-user git"
libraries="libevent-dev libcurl4-openssl-dev libjansson-dev libpcre2-dev libssl-dev libsqlite3-dev libedit-dev libcmocka-dev"

# $cache/cross.tar: Debian 12 with what the cross build needs.
make_cross() {
    make_base bookworm || return 1
    find "$cache/cross.tar" -mtime +7 -delete 2>/dev/null
    [ -s "$cache/cross.tar" ] && return 0
    open_root bookworm && in_root dpkg --add-architecture arm64 && in_root apt-get update -qq &&
        apt_install $tools $(printf '%s:arm64 ' $libraries) && rm -f "$root"/var/cache/apt/archives/*.deb &&
        tar -C "$root" -cf "$cache/cross.tar.part" . && mv "$cache/cross.tar.part" "$cache/cross.tar" && rm -rf "$root"
}

# A command in the cross root, with the sources at /src.
in_cross() {
    unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && mount --bind "$PWD" "$1/src" && exec chroot "$@"' - "$root" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh -c "cd /src && $1"
}

build_packages() {
    open_root cross && mkdir -p "$root/src" && in_cross "git config --global --add safe.directory /src; cmake --preset arm64 &&
        cmake --build --preset arm64 --target pdd manual libpdd libpdd_static debian && rm -rf build/arm64/packages && cd build/arm64 && cpack" &&
        [ "$(dpkg-deb --field build/arm64/packages/pdd_*.deb Architecture)" = arm64 ]
}

# Words drawn by chance differ as soon as a bit of a logit does.
same_answers() {
    in_cross "for p in build/arm64/packages/*.deb; do dpkg-deb -x \$p /unpacked; done"
    build/release/pdd "${question[@]}" --model $model >"$scratch/expected" && build/release/pdd "${tale[@]}" --model $model >>"$scratch/expected" &&
        [ -s "$scratch/expected" ] &&
        for words in "${question[*]@Q}" "${tale[*]@Q}"; do
            in_cross "qemu-aarch64 /unpacked/usr/bin/pdd $words --model $model" || return 1
        done | diff "$scratch/expected" -
}

if ! can_make_roots; then
    skip_test arm64_packages "it needs root, namespaces and mmdebstrap"
    exit 0
elif ! make_cross >"$scratch/log" 2>&1; then
    tail -3 "$scratch/log"
    skip_test arm64_packages "no Debian 12 can be made from $mirror"
    exit 0
fi
try arm64_packages build_packages || exit 1
try arm64_answers same_answers
try_lintian arm64_lintian build/arm64
exit $failed
