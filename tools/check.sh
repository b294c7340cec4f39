#!/usr/bin/env bash
# check.sh: the rules of the code that a machine can check, in seconds.
#
#   format     clang-format agrees with every file
#   layers     a file includes only its own layer, base, and those of its row in the table of docs/ARCHITECTURE.md
#   map        docs/ARCHITECTURE.md has every file of src/ in its folder's list, and no other
#   files      a cited source file exists, and has the function that is cited with it
#   names      a name in a comment (two words or more, with _) exists in the code
#   prefixes   a function that a public header declares begins as the file does, or as a type does
#   pages      a cited page (*.md) exists; README.md and docs/demo.svg name no class of numerics and no model that is gone
#   api        docs/API.md is what tools/api_page.c writes, and has every header that the servers read or write
#   version    CMakeLists.txt and the top of CHANGELOG.md have the same version and day, and nothing else spells it
#   subjects   subjects of commits have at most 60 characters
#   length     functions of at most 70 lines, files of at most 900
#   calls      no banned call; the heap only through base/mem
#   headers    every header compiles alone
set -u
cd "$(dirname "$0")/.."
bad=0
found=$(mktemp)
trap 'rm -f "$found"' EXIT

complain() {
    echo "$1"
    bad=1
}

sources() {
    find src include tests fuzz bench tools examples -name '*.[ch]' | sort
}

check_format() {
    command -v clang-format >/dev/null || {
        complain "clang-format is missing: apt-get install clang-format"
        return
    }
    sources | xargs clang-format --dry-run --Werror 2>&1 | grep -E 'error:' | head -20 | sed 's/error: //' |
        { ! grep .; } || bad=1
}

# "LAYER:LAYERS" for each folder in the table of docs/ARCHITECTURE.md: what it may include besides itself and base.
layers() {
    awk -F ' *[|] *' '
        /^[|] layer / { table = 1 }
        table && !/^[|]/ { exit }
        table && $2 ~ /^`/ {
            n = split($2, names, /[`, ]+/)
            for (i = 2; i < n; i++) { layer[++layers] = names[i]; allowed[layers] = $3; all = all " " names[i] }
        }
        END { for (i = 1; i <= layers; i++) print layer[i] ":" (allowed[i] == "all" ? all : allowed[i]) }' docs/ARCHITECTURE.md
}

check_layers() {
    local layer allowed file line included
    find src -name '*.[ch]' -printf '%h\n' | sort -u | grep -vxFf <(layers | sed 's/:.*//; s/^/src\//') |
        sed 's/$/: no layer of docs\/ARCHITECTURE.md/' | { ! grep .; } || bad=1
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
        xargs -P "$(nproc)" -I {} sh -c 'gcc -std=c17 -D_GNU_SOURCE -DPDD_VERSION="\"\"" -Isrc -Iinclude -fsyntax-only -x c {} \
            >/dev/null 2>&1 || echo "{}: does not compile alone"' | { ! grep .; } || bad=1
}

# Folder and stem of each file that the map of ARCHITECTURE.md lists: "- `a`, `b`: what they are" below "### src/FOLDER".
mapped() {
    awk '
        /^### / { folder = $2 ~ /^src\// ? $2 : "" }
        folder && /^- `/ {
            list = substr($0, 3, index($0, "`: ") - 3)
            gsub(/[`,]/, "", list)
            n = split(list, stems, " ")
            for (i = 1; i <= n; i++) print folder "/" stems[i]
        }' docs/ARCHITECTURE.md | sort
}

check_map() {
    local files
    files=$(find src -name '*.[ch]' | sed 's/\.[ch]$//' | sort -u)
    comm -13 <(mapped) <(echo "$files") | sed 's/$/: a line in the map of docs\/ARCHITECTURE.md is missing/' |
        { ! grep .; } || bad=1
    comm -23 <(mapped) <(echo "$files") | sed 's/$/: in the map of docs\/ARCHITECTURE.md, but there is no such file/' |
        { ! grep .; } || bad=1
    mapped | uniq -d | sed 's/$/: twice in the map of docs\/ARCHITECTURE.md/' | { ! grep .; } || bad=1
}

# A page is cited by its path from the root, from the citing file, or by a URL, which is not followed.
check_pages() {
    local file page
    find . \( -name build -o -name node_modules -o -name .git \) -prune -o ! -path ./tools/check.sh ! -path ./tools/api_page.c \
        \( -name '*.md' -o -name '*.[chS]' -o -name '*.py' -o -name '*.sh' -o -name '*.txt' \) -print0 |
        xargs -0 awk '{
            gsub(/\[[^]]*\]\(/, "(") # the text of a link; its target stays
            while (match($0, /[^][ ()"`<>,;*]*[A-Za-z0-9_]\.md/)) {
                word = substr($0, RSTART, RLENGTH)
                $0 = substr($0, RSTART + RLENGTH)
                if ($0 !~ /^[A-Za-z0-9]/ && word !~ /:\/\/|[{}$]|DATE-CPU|NNNN-NAME/) print FILENAME ":" word
            }
        }' | sort -u | while IFS=: read -r file page; do
        [ -e "$page" ] || [ -e "${file%/*}/$page" ] || echo "$file: cites $page, which does not exist"
    done | { ! grep .; } || bad=1
    grep -oHE 'exact-[0-9][a-z0-9-]*' README.md docs/demo.svg | sort -u | while IFS=: read -r file page; do
        grep -q "\"$page\"" src/engine/native.c || echo "$file: no engine has numerics $page"
    done | { ! grep .; } || bad=1
    # A hash is the beginning of the SHA-256 of a file in models/.
    grep -oE '\b[0-9a-f]{12,64}\b' README.md | grep '[0-9]' | sort -u | while read -r page; do
        sha256sum models/*.gguf | grep -q "^$page" || echo "README.md: no file of models/ has SHA-256 $page: run ./demo.sh, then tools/readme_demo.py"
    done | { ! grep .; } || bad=1
    grep -oHE 'models/[A-Za-z0-9._-]*[.]gguf' README.md docs/demo.svg | sort -u | while IFS=: read -r file page; do
        [ -e "$page" ] || echo "$file: there is no $page"
    done | { ! grep .; } || bad=1
}

check_api() {
    local page
    page=$(mktemp)
    if gcc -std=c17 -Isrc tools/api_page.c -o "$page" && "$page" >"$found"; then
        cmp -s "$found" docs/API.md || complain "docs/API.md is not what tools/api_page.c writes: make it again"
        grep -rhoE '(_header|take_number)\([a-z>-]+, *"[A-Z][A-Za-z-]+"|"[A-Z][A-Za-z-]+: ' src/net/http_[cprs]*.c src/cloud/api src/device/api |
            sed 's/.*"\([A-Za-z-]*\).*/\1/' | sort -u | while read -r name; do
            grep -qw -- "$name" docs/API.md || echo "tools/api_page.c: header $name is missing"
        done | { ! grep .; } || bad=1
    else
        complain "tools/api_page.c cannot be compiled"
    fi
    rm -f "$page"
}

# Paths as "net/loop.h" in comments and pages, below src/, tests/ or the root; and in pages `name` (`path`).
check_files() {
    local file path name
    find src tests fuzz bench \( -name '*.[ch]' -o -name '*.py' \) -print0 | xargs -0 awk '
        /^#include/ { next }
        { while (match($0, /[a-z0-9_]+(\/[a-z0-9_]+)+\.[ch]/)) {
              before = substr($0, RSTART - 1, 1)
              if (before !~ /[\/.<*]/) print FILENAME ":" substr($0, RSTART, RLENGTH)
              $0 = substr($0, RSTART + RLENGTH) } }' | sort -u >"$found"
    grep -ohE '`[a-z0-9_]+(/[a-z0-9_]+)+\.[ch]`' --with-filename ./*.md docs/*.md docs/*/*.md | tr -d '`' | sort -u >>"$found"
    while IFS=: read -r file path; do
        [ -e "src/$path" ] || [ -e "tests/$path" ] || [ -e "$path" ] || echo "$file: cites $path, which does not exist"
    done <"$found" | { ! grep .; } || bad=1
    grep -oE '`[a-z0-9_]+` \(`[a-z0-9_/]+\.[ch]`' docs/*.md | tr -d '`(' | while IFS=' :' read -r file name path; do
        grep -qw "$name" "src/$path" || echo "$file: $path has no $name"
    done | { ! grep .; } || bad=1
}

# Names that comments take from others: Jinja, TLS, ggml, llama.cpp, systemd, Random123.
FOREIGN_NAMES='lstrip_blocks trim_blocks close_notify ggml_type llama_ftype sd_notify kat_vectors'

# Each name is printed as "c NAME" where it stands in code, as "FILE NAME" where it stands in a comment. One-letter
# parts are formulas, and a name beside . / * - { is part of a path, a pattern or a placeholder.
check_names() {
    {
        echo "$FOREIGN_NAMES" | tr ' ' '\n' | sed 's/^/c /'
        sources | sed 's/.*\/\(.*\)[.][ch]$/c \1/'
        sources | xargs awk '
            function names(text, whose) {
                while (match(text, /[A-Za-z0-9_]+/)) {
                    word = substr(text, RSTART, RLENGTH)
                    before = substr(text, RSTART - 1, 1)
                    text = substr(text, RSTART + RLENGTH)
                    if (whose == "c") print "c " word
                    else if (before !~ /[.\/*{-]/ && text !~ /^([\/*{-]|[.][a-z])/ && word ~ /^[a-z][a-z0-9]+(_[a-z0-9]+)+$/ && word !~ /_[a-z0-9](_|$)/) print whose " " word
                }
            }
            {
                rest = $0
                while (rest != "")
                    if (inside) {
                        end = index(rest, "*/")
                        names(end ? substr(rest, 1, end - 1) : rest, FILENAME)
                        inside = !end
                        rest = end ? substr(rest, end + 2) : ""
                    } else {
                        start = index(rest, "/*")
                        names(start ? substr(rest, 1, start - 1) : rest, "c")
                        inside = start > 0
                        rest = start ? substr(rest, start + 2) : ""
                    }
            }'
    } | sort -u | awk '
        $1 == "c" { code[$2] = 1 }
        $1 != "c" { file[++n] = $1; name[n] = $2 }
        END { for (i = 1; i <= n; i++) if (!(name[i] in code)) print file[i] ": names " name[i] ", which does not exist" }' |
        { ! grep .; } || bad=1
}

# Headers that the files of one part share (*_impl.h) may use shorter prefixes; commands of pdd are cmd_NAME.
check_prefixes() {
    find src -name '*.h' | sort | xargs awk '
        /^(struct|enum) [a-z0-9_]+/ { type[$2] = 1 }
        FILENAME !~ /_impl[.]h$/ && /^[a-z][a-z0-9_ *]*[ *][a-z0-9_]+[(]/ && !/^(static|typedef|return|else)/ {
            name = substr($0, 1, index($0, "(") - 1)
            sub(/.*[ *]/, "", name)
            file[++n] = FILENAME
            declared[n] = name
        }
        END {
            for (i = 1; i <= n; i++) {
                family = file[i]
                sub(/.*\//, "", family)
                sub(/[_.].*/, "", family)
                good = index(declared[i], family "_") == 1 || declared[i] ~ /^cmd_/
                for (t in type) good = good || index(declared[i], t "_") == 1
                if (!good) print file[i] ": " declared[i] " has the prefix of neither the file nor a type"
            }
        }' | { ! grep .; } || bad=1
}

# The version stands in project() of CMakeLists.txt; the symbols of Debian's package each have the version they came with.
check_version() {
    local version day major
    version=$(sed -n 's/^project(pdd VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
    day=$(sed -n 's/^set(PDD_RELEASE_DATE \([0-9-]*\))/\1/p' CMakeLists.txt)
    [ "$(grep -m1 '^## ' CHANGELOG.md)" = "## $version ($day)" ] ||
        complain "CHANGELOG.md: its first version is not \"## $version ($day)\", as CMakeLists.txt has it"
    major=${version%%.*}
    head -1 packaging/debian/libpdd0.symbols | grep -q "^libpdd.so.$major libpdd$major " ||
        complain "packaging/: the library's packages are not of soname $major, as version $version has it"
    grep -rnF "$version" src include tools CMakePresets.json --include='*.[ch]' --include='*.sh' --include='*.json' |
        grep -vE "[0-9]${version//./[.]}|${version//./[.]}[0-9]" | sed 's/$/   <- spells the version; PDD_VERSION has it/' |
        { ! grep .; } || bad=1
}

# Since the commit from which on the rule holds; in a clone without it, since origin/main; else the last commit alone.
RULE_SINCE=b27c595
check_subjects() {
    local since
    git rev-parse -q --verify HEAD >/dev/null 2>&1 || return 0 # no repository: an archive of the sources
    since=$(git rev-parse -q --verify "$RULE_SINCE^{commit}" 2>/dev/null)
    [ -n "$since" ] && git merge-base --is-ancestor "$since" HEAD || since=$(git merge-base HEAD origin/main 2>/dev/null)
    git log --format='%h %s' ${since:+"$since.."}HEAD $([ -n "$since" ] || echo -1) |
        awk '{ n = length($0) - length($1) - 1; if (n > 60) print "commit " $1 ": subject of " n " characters, 60 allowed" }' |
        { ! grep .; } || bad=1
}

check_format
check_layers
check_map
check_files
check_names
check_prefixes
check_pages
check_api
check_version
check_subjects
check_length
check_calls
check_headers
[ $bad -eq 0 ] && echo "style: all rules kept"
exit $bad
