#!/usr/bin/env bash
# static_curl.sh DIR: a static libcurl in DIR for -DPDD_STATIC=ON, from the source package of Debian 12 with its patches.
# Debian's own libcurl.a needs LDAP, Kerberos, SSH and RTMP, of which it has no static libraries; this one speaks HTTP,
# by OpenSSL, and resolves names by c-ares, as the C library's resolver loads modules of the system that it runs on.
set -euo pipefail
[ $# -eq 1 ] || {
    echo "usage: tools/static_curl.sh DIR"
    exit 2
}
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ -e "$out/lib/libcurl.a" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >sources.list <<END
deb-src http://deb.debian.org/debian bookworm main
deb-src http://deb.debian.org/debian-security bookworm-security main
END
mkdir lists
# Packages of sources alone, in lists of their own: the system's stay as they are.
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User= -o Debug::NoLocking=1)
"${apt[@]}" update
"${apt[@]}" source --download-only curl
dpkg-source --extract --no-check curl_*.dsc curl
cmake -S curl -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$out" -DCMAKE_INSTALL_LIBDIR=lib \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBUILD_SHARED_LIBS=OFF -DBUILD_CURL_EXE=OFF -DBUILD_TESTING=OFF \
    -DENABLE_MANUAL=OFF -DHTTP_ONLY=ON -DENABLE_ARES=ON -DCURL_USE_OPENSSL=ON -DCURL_USE_LIBSSH2=OFF -DUSE_LIBIDN2=OFF \
    -DUSE_NGHTTP2=OFF -DCURL_USE_LIBPSL=OFF -DCURL_ZLIB=OFF -DCURL_BROTLI=OFF -DCURL_ZSTD=OFF
cmake --build build
cmake --install build
