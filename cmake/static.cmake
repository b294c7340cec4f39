# -DPDD_STATIC=ON: a static-pie `pdd`, which needs no library of the system that it runs on. Included before the
# libraries are looked for, so that archives are found; static_needs() adds what archives need besides, which
# pkg-config's targets do not say. docs/decisions/0012-static.md says why libcurl is one of our own making.
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(PDD_CURL_DIR ${CMAKE_BINARY_DIR}/curl CACHE PATH "what tools/static_curl.sh made")
if(NOT EXISTS ${PDD_CURL_DIR}/lib/libcurl.a)
    message(FATAL_ERROR "there is no static libcurl in ${PDD_CURL_DIR}: run tools/static_curl.sh ${PDD_CURL_DIR}")
endif()
set(ENV{PKG_CONFIG_PATH} ${PDD_CURL_DIR}/lib/pkgconfig)

function(static_needs target)
    if(TARGET ${target})
        target_link_libraries(${target} INTERFACE ${ARGN})
    endif()
endfunction()

macro(static_libraries)
    find_library(CARES cares REQUIRED)
    # libcurl.pc names shared libraries by their paths.
    set_target_properties(PkgConfig::CURL PROPERTIES INTERFACE_LINK_LIBRARIES
        "${PDD_CURL_DIR}/lib/libcurl.a;${CARES};PkgConfig::OPENSSL")
    set_target_properties(PkgConfig::CURL PROPERTIES INTERFACE_LINK_OPTIONS "")
    static_needs(PkgConfig::EVENT PkgConfig::OPENSSL)
    static_needs(PkgConfig::SQLITE m)
    static_needs(PkgConfig::EDIT tinfo bsd md)
endmacro()
