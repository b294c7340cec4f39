#!/usr/bin/env bash
# bundle.sh FOLDER: build/release/pdd with its shared libraries and loader, for a machine that lacks them.
#
# It runs there as: FOLDER/ld.so --library-path FOLDER/lib FOLDER/pdd ..., also as run.py's --pdd.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 2; }
pdd=$(dirname "$0")/../../build/release/pdd
mkdir -p "$1/lib"
cp "$pdd" "$1/pdd"
ldd "$pdd" | awk '$2 == "=>" { print $3 }' | xargs cp -L -t "$1/lib"
cp -L "$(ldd "$pdd" | awk '/ld-linux/ { print $1 }')" "$1/ld.so"
