# lib.sh: sourced by the scripts of this folder. They run in the root of the sources; `scratch` is theirs alone, `cache`
# is kept from run to run.
cache=$PWD/build/package
mirror=${PDD_DEBIAN_MIRROR:-http://deb.debian.org/debian}
scratch=$(mktemp -d /tmp/pdd-package-XXXXXX)
trap 'rm -rf --one-file-system "$scratch"' EXIT
failed=0
prompt="The safe has the code 4711. What is the code of the safe?"
question=(chat --local-only --no-state --max-tokens 8 --color never --prompt "$prompt")

# try NAME COMMAND...: one test; its output is shown when it fails.
try() {
    local name=$1
    shift
    if "$@" >"$scratch/log" 2>&1; then
        echo "[       OK ] $name"
    else
        echo "[  FAILED  ] $name"
        tail -30 "$scratch/log"
        failed=1
        return 1
    fi
}

skip_test() {
    echo "[  SKIPPED ] $1"
    echo "  $2"
}

# try_lintian NAME BUILD: its packages. A first upload to Debian closes a bug; these are not for its archive.
try_lintian() {
    if command -v lintian >/dev/null; then
        try "$1" lintian --fail-on warning --suppress-tags initial-upload-closes-no-bugs "$2"/packages/*.deb
    else
        skip_test "$1" "no lintian"
    fi
}

# What the build in $1 has in its cache as $2.
cached() {
    sed -n "s/^$2:[A-Z]*=//p" "$1/CMakeCache.txt"
}

can_make_roots() {
    [ "$(id -u)" -eq 0 ] && unshare --mount --pid --fork true && command -v mmdebstrap >/dev/null
}

# make_base SUITE: $cache/SUITE.tar, the smallest Debian of that name with apt's lists; a week old at most.
make_base() {
    local tar=$cache/$1.tar
    mkdir -p "$cache/archives"
    find "$tar" -mtime +7 -delete 2>/dev/null
    [ -s "$tar" ] ||
        { mmdebstrap --quiet --format=tar --variant=minbase --skip=cleanup/apt "$1" "$tar.part" "$mirror" && mv "$tar.part" "$tar"; }
}

# open_root SUITE: unpacked in $root.
open_root() {
    root=$scratch/$1
    mkdir "$root" && tar -C "$root" -xf "$cache/$1.tar" && cp /etc/resolv.conf "$root/etc/resolv.conf"
}

# A command in $root, in namespaces of its own, whose mounts and processes end with it.
in_root() {
    unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' - "$root" env -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# Downloaded packages are kept: the next run needs no network.
apt_install() {
    local status
    cp -n "$cache"/archives/*.deb "$root/var/cache/apt/archives/" 2>/dev/null
    in_root apt-get install -y -qq --no-install-recommends -o APT::Keep-Downloaded-Packages=true "$@" </dev/null
    status=$?
    cp -n "$root"/var/cache/apt/archives/*.deb "$cache/archives/" 2>/dev/null
    return $status
}
