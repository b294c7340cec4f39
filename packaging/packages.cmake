# The packages that `cpack` makes of the components of packaging/install.cmake, one for each group: `.deb` where
# Debian's tools are, else (and of a static build) an archive. The folder of a build is CPACK_PACKAGE_DIRECTORY (build/PRESET/packages).
set(PDD_MAINTAINER "The P/D-Device authors <maintainers@pdd-device.invalid>" CACHE STRING "maintainer in packages: Name <address>")
set(PDD_DEBIAN_RELEASE 1 CACHE STRING "number of the package of one version")

set(CPACK_PACKAGE_NAME pdd)
set(CPACK_PACKAGE_VENDOR "P/D-Device")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "${PDD_MAINTAINER}")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
execute_process(COMMAND date -u -d "${PDD_RELEASE_DATE} 12:00" +%s OUTPUT_VARIABLE release_seconds
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
configure_file(packaging/pack.cmake.in pack.cmake @ONLY)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_BINARY_DIR}/pack.cmake)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

# One archive, to be unpacked anywhere: the program finds its models and documents by its own place.
find_program(DPKG dpkg)
if(PDD_STATIC OR NOT DPKG OR NOT GZIP)
    string(TOLOWER "pdd-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}" CPACK_PACKAGE_FILE_NAME)
    set(CPACK_GENERATOR TGZ)
    set(CPACK_PACKAGING_INSTALL_PREFIX "")
    include(CPack)
    return()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE ${PDD_DEBIAN_RELEASE})
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "${PDD_MAINTAINER}")
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE gzip) # of models xz takes 20 s and saves nothing
if(CMAKE_CROSSCOMPILING AND CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
    set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
endif()
set(CPACK_COMPONENTS_ALL "")

add_custom_target(debian) # all that packages have besides what is installed

# Of each package: Debian's changelog and copyright. debian_package(NAME COPYRIGHT COMPONENT...): the group NAME.
function(debian_package name copyright)
    string(REPLACE "-" "_" group ${name})
    string(TOUPPER ${group} upper)
    set(changelog ${CMAKE_BINARY_DIR}/debian/${name}/changelog.Debian)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/debian/${name})
    add_custom_command(OUTPUT ${changelog}.gz
        COMMAND ${CMAKE_COMMAND} -D PACKAGE=${name} -D CHANGELOG=${CMAKE_SOURCE_DIR}/CHANGELOG.md -D OUT=${changelog}
                -D RELEASE=${PDD_DEBIAN_RELEASE} -D "MAINTAINER=${PDD_MAINTAINER}" -D GZIP=${GZIP}
                -P ${CMAKE_SOURCE_DIR}/packaging/debian/changelog.cmake
        DEPENDS CHANGELOG.md packaging/debian/changelog.cmake VERBATIM)
    add_custom_target(debian_${group} ALL DEPENDS ${changelog}.gz)
    add_dependencies(debian debian_${group})
    install(FILES ${changelog}.gz DESTINATION share/doc/${name} COMPONENT debian_${group} EXCLUDE_FROM_ALL)
    install(FILES ${copyright} DESTINATION share/doc/${name} RENAME copyright COMPONENT debian_${group} EXCLUDE_FROM_ALL)
    foreach(component ${ARGN} debian_${group})
        string(TOUPPER ${component} upper_component)
        set(CPACK_COMPONENT_${upper_component}_GROUP ${group} PARENT_SCOPE)
    endforeach()
    set(CPACK_COMPONENTS_ALL ${CPACK_COMPONENTS_ALL} ${ARGN} debian_${group} PARENT_SCOPE)
    set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name} PARENT_SCOPE)
endfunction()

debian_package(pdd ${CMAKE_SOURCE_DIR}/packaging/debian/copyright program)
set(CPACK_DEBIAN_PDD_DESCRIPTION "language model answers split between cloud and device\n\
One LLM answer, started in the cloud and finished on the device: the cloud\n\
prefills a long prompt and sends the first token at once, then a bounded\n\
number of further ones; the device shows them at an even pace, catches up\n\
and decodes on. With the same model on both ends the answer is bit for bit\n\
that of a single machine.\n\
.\n\
The program is the device (a chat in the terminal, a server for OpenAI\n\
clients, a page in the browser), the cloud, and tools to measure both.")
set(CPACK_DEBIAN_PDD_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_PDD_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PDD_PACKAGE_RECOMMENDS "ca-certificates, pdd-models")

debian_package(pdd-models ${CMAKE_SOURCE_DIR}/packaging/debian/copyright.models models)
set(CPACK_DEBIAN_PDD_MODELS_DESCRIPTION "small default models for pdd\n\
Two language models of 31 and 8 million parameters that answer questions\n\
about a text of up to 8192 tokens, to try pdd without a download.")
set(CPACK_DEBIAN_PDD_MODELS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PDD_MODELS_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PDD_MODELS_PACKAGE_ENHANCES pdd)

if(TARGET libpdd)
    debian_package(libpdd0 ${CMAKE_SOURCE_DIR}/packaging/debian/copyright runtime)
    set(CPACK_DEBIAN_LIBPDD0_DESCRIPTION "answers of a language model from device and cloud - library\n\
A program gives a question and gets the answer as it is made: it starts in the\n\
cloud and is finished on the device, or comes from one of them alone. Blocking\n\
calls with callbacks, or a file descriptor for an event loop.")
    set(CPACK_DEBIAN_LIBPDD0_PACKAGE_SECTION libs)
    set(CPACK_DEBIAN_LIBPDD0_PACKAGE_SHLIBDEPS ON)
    # CPack writes scripts that call ldconfig, unless files of their names are given; a trigger does that today. There
    # are no such files, which it warns of, so the package has no scripts.
    set(CPACK_DEBIAN_LIBPDD0_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/packaging/debian/triggers
        ${CMAKE_BINARY_DIR}/debian/symbols ${CMAKE_BINARY_DIR}/debian/shlibs
        ${CMAKE_BINARY_DIR}/debian/none/postinst ${CMAKE_BINARY_DIR}/debian/none/postrm)
    configure_file(packaging/debian/libpdd0.symbols debian/symbols COPYONLY)
    file(WRITE ${CMAKE_BINARY_DIR}/debian/shlibs "libpdd ${PROJECT_VERSION_MAJOR} libpdd0 (>= ${PROJECT_VERSION})\n")

    debian_package(libpdd-dev ${CMAKE_SOURCE_DIR}/packaging/debian/copyright development)
    set(CPACK_DEBIAN_LIBPDD_DEV_DESCRIPTION "answers of a language model from device and cloud - development\n\
The header, which is the manual, the static library, and what pkg-config and\n\
CMake find both libraries by. To link the static one, the development files of\n\
the suggested packages are needed.")
    set(CPACK_DEBIAN_LIBPDD_DEV_PACKAGE_SECTION libdevel)
    set(CPACK_DEBIAN_LIBPDD_DEV_PACKAGE_DEPENDS "libpdd0 (= ${PROJECT_VERSION}-${PDD_DEBIAN_RELEASE})")
    set(CPACK_DEBIAN_LIBPDD_DEV_PACKAGE_SUGGESTS
        "libcurl4-openssl-dev, libevent-dev, libjansson-dev, libpcre2-dev, libsqlite3-dev, libssl-dev, pkgconf | pkg-config")
endif()

include(CPack)
