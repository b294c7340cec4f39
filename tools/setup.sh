# setup.sh: sourced by demo.sh and test.sh. Installs what a bare Debian 12 lacks, once.
#
#   need PACKAGE...   returns when all are installed; otherwise installs them with apt as root or by
#                     sudo, or prints the one line to run and leaves.

say() {
    printf '\n== %s\n' "$*"
}

missing_packages() {
    for package in "$@"; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s ' "$package"
    done
}

need() {
    local missing root=
    missing=$(missing_packages "$@")
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "Neither root nor sudo without a password. Please run this line as root, then try again:"
            echo "  apt-get update && apt-get install -y --no-install-recommends $missing"
            exit 1
        fi
        root="sudo -n"
    fi
    say "installing: $missing"
    $root apt-get update -qq || { echo "apt-get update failed"; exit 1; }
    # shellcheck disable=SC2086 # the list is meant to be split
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null || { echo "apt-get install $missing failed"; exit 1; }
}

# cmocka is asked for by CMakeLists.txt, tests or not.
BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config libevent-dev libcurl4-openssl-dev libjansson-dev
                libpcre2-dev libssl-dev libsqlite3-dev libedit-dev libcmocka-dev ca-certificates"
TEST_PACKAGES="g++ valgrind clang libclang-rt-14-dev clang-format xz-utils curl python3-jinja2 mandoc fish zsh
               lintian mmdebstrap systemd dpkg-dev file abigail-tools
               gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

# build PRESET [TARGET]...: configure when needed, then build; quiet unless it fails.
build() {
    local preset=$1 log
    shift
    log=$(mktemp)
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" ${1:+--target "$@"}; } >"$log" 2>&1; then
        tail -60 "$log"
        rm -f "$log"
        echo "building with preset $preset failed"
        return 1
    fi
    rm -f "$log"
}
