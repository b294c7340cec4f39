#!/usr/bin/env bash
# run.sh [BUILD]: what is installed and packaged, used as its users would. Prints one line a test, as cmocka does.
#
# `cmake --install` into a folder: the program finds its model there, the units are good. The packages: lintian has no
# complaint; a bare Debian 12, made by mmdebstrap and kept in build/package for a week, installs them by apt, runs the program
# with the default model, links a program with libpdd, and is as before when they are purged.
#
# The bare root needs root and, the first time, Debian's mirror; without them its tests are skipped.
#
# Catches: a file that no component installs, a dependency that a package does not name, a file that a purge leaves.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$PWD/${1:-build/release}
. tests/package/lib.sh
version=$(cached "$build" CMAKE_PROJECT_VERSION)

answer() {
    "$1" "${question[@]}"
}

# ---- cmake --install ----

install_tree() {
    cmake --install "$build" --prefix "$scratch/tree" >/dev/null &&
        answer "$build/pdd" >"$scratch/expected" && [ -s "$scratch/expected" ] &&
        [ "$("$scratch/tree/bin/pdd" --version)" = "pdd $version" ] &&
        answer "$scratch/tree/bin/pdd" | diff "$scratch/expected" - &&
        [ -s "$scratch/tree/share/bash-completion/completions/pdd" ] && ls "$scratch"/tree/share/man/man1/pdd-chat.1*
}

# What a distributor looks for in a binary. Of the library too: it runs in programs of others.
hardened() {
    local program=$1 facts
    facts=$(readelf -hWld "$program") && grep -q 'Type: *DYN' <<<"$facts" && grep -q GNU_RELRO <<<"$facts" &&
        grep -q 'Flags:.*NOW' <<<"$facts" && grep -q 'GNU_STACK.* RW ' <<<"$facts" || { echo "$program: $facts"; return 1; }
    facts=$(readelf -W --dyn-syms "$program") && grep -q '__stack_chk_fail' <<<"$facts" && grep -q '__snprintf_chk' <<<"$facts" ||
        { echo "$program: no stack protector, or no fortified calls"; return 1; }
}

check_hardened() {
    hardened "$scratch/tree/bin/pdd" && hardened "$build/libpdd.so.$version"
}

check_units() {
    local units=$scratch/tree/lib/systemd
    systemd-analyze verify --man=no "$units/system/pdd-cloud.service" &&
        XDG_RUNTIME_DIR=$scratch systemd-analyze --user verify --man=no "$units/user/pdd-device.service"
}

# ---- packages ----

make_packages() {
    rm -rf "$build/packages" && (cd "$build" && cpack) && ls "$build"/packages/pdd_*.deb "$build"/packages/pdd-models_*.deb
}

# The same bytes from the same build, and nothing that belongs to whoever built it, or that anybody may write.
check_reproducible() {
    local deb
    (cd "$build/packages" && sha256sum ./*.deb) >"$scratch/sums"
    sleep 1 # the next second: archives keep times
    (cd "$build" && cpack -B "$scratch/again") && (cd "$scratch/again" && sha256sum --quiet -c "$scratch/sums") || return 1
    for deb in "$build"/packages/*.deb; do
        dpkg-deb -c "$deb" | awk '$2 != "root/root" || ($1 !~ /^l/ && $1 !~ /^(drwxr-xr-x|-rw[x-]r-[x-]r-[x-])$/) { print; bad = 1 }
            END { exit bad }' || return 1
    done
}

# A name that is gone, or a new one that the list of packaging/debian lacks.
check_symbols() {
    dpkg-gensymbols -q -c4 -plibpdd0 "-v$version" "-e$build/libpdd.so.$version" "-I$PWD/packaging/debian/libpdd0.symbols" -O/dev/null
}

# ---- a bare Debian 12 ----

# What a package could leave: everything but the package manager's own records.
list_root() {
    (cd "$root" && find . \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
        -o -path ./var/cache -o -path ./var/log -o -path ./etc/ld.so.cache \) -prune -o -print | sort)
}

prepare_root() {
    open_root bookworm && mkdir "$root/packages" && cp "$build"/packages/*.deb "$root/packages/" && list_root >"$scratch/before" &&
        in_root dpkg-query -W -f '${Package}\n' >"$scratch/packages_before"
}

install_program() {
    apt_install $(cd "$root" && printf '/%s ' packages/pdd_*.deb packages/pdd-models_*.deb)
}

run_program() {
    [ "$(in_root pdd --version)" = "pdd $version" ] && in_root pdd "${question[@]}" | diff "$scratch/expected" -
}

# As the header's own example is built by its users.
use_library() {
    apt_install $(cd "$root" && printf '/%s ' packages/libpdd*.deb) gcc libc6-dev pkg-config &&
        cp examples/ask.c "$root/tmp/" &&
        in_root sh -c 'cd /tmp && gcc ask.c -o ask $(pkg-config --cflags --libs pdd)' &&
        in_root /tmp/ask /usr/share/pdd/models/pdd-read-q6_k.gguf - "$prompt" |
        grep -F 4711
}

purge_all() {
    local packages
    packages=$(in_root dpkg-query -W -f '${Package}\n' | grep -vxFf "$scratch/packages_before")
    in_root apt-get purge -y -qq $packages && list_root | diff "$scratch/before" -
}

try install_tree install_tree
if command -v readelf >/dev/null; then try hardened check_hardened; else skip_test hardened "no binutils"; fi
if command -v systemd-analyze >/dev/null; then try units check_units; else skip_test units "no systemd-analyze"; fi
try packages make_packages || exit 1
if command -v dpkg-deb >/dev/null; then try reproducible check_reproducible; else skip_test reproducible "no dpkg"; fi
if command -v dpkg-gensymbols >/dev/null; then try symbols check_symbols; else skip_test symbols "no dpkg-dev"; fi
try_lintian lintian "$build"
if ! can_make_roots; then
    skip_test bare_root "it needs root, namespaces and mmdebstrap"
elif ! make_base bookworm >"$scratch/log" 2>&1; then
    tail -3 "$scratch/log"
    skip_test bare_root "no Debian 12 can be made from $mirror"
else
    prepare_root
    try bare_root_install install_program && try bare_root_run run_program
    try bare_root_library use_library
    try bare_root_purge purge_all
fi
exit $failed
