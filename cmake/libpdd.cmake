# libpdd: the shared library, the static one, and what other builds find them by. The layers that it is made of are
# compiled once, for it and for the program.
include(CMakePackageConfigHelpers)

set(libpdd_layers pdd_device pdd_refine pdd_store pdd_engine pdd_model_text pdd_model_jinja pdd_model pdd_kern
    pdd_policy pdd_proto pdd_net pdd_base)
set(libpdd_packages "libevent libcurl jansson libpcre2-8 openssl sqlite3")

# What its own objects need of the layers is linked, and no more: no server, for one.
add_library(libpdd SHARED $<TARGET_OBJECTS:pdd_lib>)
set_target_properties(libpdd PROPERTIES OUTPUT_NAME pdd LINKER_LANGUAGE C
                      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
                      LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/libpdd.map)
target_include_directories(libpdd INTERFACE include)
target_link_libraries(libpdd PRIVATE ${libpdd_layers})
target_link_options(libpdd PRIVATE -Wl,--as-needed -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/libpdd.map)
if(NOT PDD_SANITIZE) # the sanitizers' own functions are found when a program is linked
    target_link_options(libpdd PRIVATE -Wl,--no-undefined)
endif()

# One object, in which all that pdd.h does not declare is local: names of ours cannot clash with a program's.
set(libpdd_archives "")
foreach(layer ${libpdd_layers})
    list(APPEND libpdd_archives $<TARGET_FILE:${layer}>)
endforeach()
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/libpdd.a
    COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o libpdd.o $<TARGET_OBJECTS:pdd_lib>
            -Wl,--start-group ${libpdd_archives} -Wl,--end-group
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden libpdd.o
    COMMAND ${CMAKE_COMMAND} -E rm -f libpdd.a
    COMMAND ${CMAKE_AR} rcs libpdd.a libpdd.o
    COMMAND ${CMAKE_COMMAND} -E rm libpdd.o
    DEPENDS pdd_lib $<TARGET_OBJECTS:pdd_lib> ${libpdd_layers} WORKING_DIRECTORY ${CMAKE_BINARY_DIR}
    COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(libpdd_static ALL DEPENDS ${CMAKE_BINARY_DIR}/libpdd.a)

# A tree that is moved keeps its pkg-config files true where the folders are the usual ones.
foreach(dir LIBDIR INCLUDEDIR)
    string(TOLOWER ${dir} name)
    if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
        set(pc_${name} "${CMAKE_INSTALL_${dir}}")
    else()
        set(pc_${name} "\${prefix}/${CMAKE_INSTALL_${dir}}")
    endif()
endforeach()
file(RELATIVE_PATH pc_up "/x/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/x")
configure_file(cmake/pdd.pc.in pdd.pc @ONLY)
configure_file(cmake/pdd-static.pc.in pdd-static.pc @ONLY)
set(libpdd_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pdd)
configure_package_config_file(cmake/pdd-config.cmake.in ${CMAKE_BINARY_DIR}/pdd-config.cmake
    INSTALL_DESTINATION ${libpdd_cmake_dir} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/pdd-config-version.cmake COMPATIBILITY SameMajorVersion)

# Components: `runtime` is what programs need to run, `development` what builds of programs need.
install(TARGETS libpdd
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/libpdd.a DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(FILES include/pdd.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/pdd.pc ${CMAKE_BINARY_DIR}/pdd-static.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/pdd-config.cmake ${CMAKE_BINARY_DIR}/pdd-config-version.cmake
    DESTINATION ${libpdd_cmake_dir} COMPONENT development)
