# embed.cmake: writes the files of a folder as C, for a program that needs no folder to run:
#   cmake -D FOLDER=src/web -D OUT=web_files.c -P tools/embed.cmake
# Each file becomes its name, bytes and the beginning of its SHA-256, for ETags (device/api/page.h).
file(GLOB files "${FOLDER}/*.html" "${FOLDER}/*.css" "${FOLDER}/*.js" "${FOLDER}/*.svg")
list(SORT files)
set(arrays "")
set(rows "")
set(n 0)
foreach(file ${files})
    get_filename_component(name "${file}" NAME)
    file(READ "${file}" hex HEX)
    file(SHA256 "${file}" sha)
    string(SUBSTRING "${sha}" 0 16 tag)
    string(LENGTH "${hex}" digits)
    math(EXPR size "${digits} / 2")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(APPEND arrays "static const unsigned char file_${n}[] = {${bytes}};\n")
    string(APPEND rows "    {\"${name}\", \"${tag}\", file_${n}, ${size}},\n")
    math(EXPR n "${n} + 1")
endforeach()
file(WRITE "${OUT}.new" "/* written by tools/embed.cmake */\n#include \"device/api/page.h\"\n\n${arrays}
const struct page_file page_files[] = {\n${rows}};\nconst size_t page_file_count = ${n};\n")
file(RENAME "${OUT}.new" "${OUT}")
