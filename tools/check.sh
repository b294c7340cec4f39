#!/usr/bin/env bash
# check.sh: the rules of the code that a machine can check, in seconds.
#
#   format     clang-format agrees with every file
#   layers     a file includes only its own layer, base, and the layers named for it below
#   length     functions of at most 70 lines, files of at most 900
#   calls      no banned call; the heap only through base/mem
#   headers    every header compiles alone
set -u
cd "$(dirname "$0")/.."
bad=0

complain() {
    echo "$1"
    bad=1
}

sources() {
    find src tests fuzz bench -name '*.[ch]' | sort
}

check_format() {
    command -v clang-format >/dev/null || {
        complain "clang-format is missing: apt-get install clang-format"
        return
    }
    sources | xargs clang-format --dry-run --Werror 2>&1 | grep -E 'error:' | head -20 | sed 's/error: //' |
        { ! grep .; } || bad=1
}

# Folders of src/, and what each may include besides itself and base. The rooms of cloud count as layers.
layers() {
    cat <<END
base:
kern:
model: kern
policy:
net:
proto:
engine: model kern
cloud/work: proto engine policy model
cloud/upstream: cloud/work net proto engine policy model
cloud/api: cloud/upstream cloud/work net proto engine policy model
device: net proto engine policy model
lab: net engine model kern
cli: lab cloud/api cloud/upstream cloud/work device net proto engine policy model kern
END
}

check_layers() {
    local layer allowed file line included
    find src -name '*.[ch]' -printf '%h\n' | sort -u | grep -vxFf <(layers | sed 's/:.*//; s/^/src\//') |
        sed 's/$/: no layer of tools\/check.sh/' | { ! grep .; } || bad=1
    layers | while IFS=: read -r layer allowed; do
        allowed=" base $layer $allowed "
        grep -Hno '^#include "[a-z0-9_/]*/' "src/$layer"/*.[ch] | while IFS=: read -r file line included; do
            included=${included#*\"}
            included=${included%/}
            [[ $allowed == *" $included "* ]] || echo "$file:$line: layer $layer may not include $included"
        done
    done | { ! grep .; } || bad=1
}

# A function begins at a line that opens with '{' in the first column and ends at '}' there.
check_length() {
    sources | xargs awk '
        FNR == 1 { start = 0; if (lines > 900) print last ": " lines " lines, 900 allowed" }
        { lines = FNR; last = FILENAME }
        /^{/ { start = FNR }
        /^}/ && start { if (FNR - start - 1 > 70) print FILENAME ":" start ": function of " FNR - start - 1 " lines, 70 allowed"; start = 0 }
        END { if (lines > 900) print last ": " lines " lines, 900 allowed" }' | { ! grep .; } || bad=1
}

check_calls() {
    grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|getenv|alloca|rand|srand)\(' \
        $(find src -name '*.[ch]') | sed 's/$/   <- banned call/' | { ! grep .; } || bad=1
    grep -nE '(^|[^_a-zA-Z>])(malloc|calloc|realloc|free|strdup|strndup|posix_memalign)\(' \
        $(find src -name '*.[ch]' ! -path src/base/mem.c) | sed 's/$/   <- use base\/mem.h/' |
        { ! grep .; } || bad=1
}

check_headers() {
    find src -name '*.h' ! -name '*_256.h' ! -name '*_avx2.h' ! -name '*_avx512.h' ! -name '*_neon.h' \
        ! -name '*_lanes.h' | sort |
        xargs -P "$(nproc)" -I {} sh -c 'gcc -std=c17 -D_GNU_SOURCE -DPDD_VERSION="\"\"" -Isrc -fsyntax-only -x c {} \
            >/dev/null 2>&1 || echo "{}: does not compile alone"' | { ! grep .; } || bad=1
}

check_format
check_layers
check_length
check_calls
check_headers
[ $bad -eq 0 ] && echo "style: all rules kept"
exit $bad
