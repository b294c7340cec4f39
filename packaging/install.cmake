# What `cmake --install` puts where; included by CMakeLists.txt. Components: program, models, and debian_* with what
# Debian's policy asks of a package besides (packaging/packages.cmake). cmake/libpdd.cmake has runtime and development.
set(data ${CMAKE_INSTALL_DATADIR})

install(TARGETS pdd RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)

# Man pages and completion by the program itself; a cross build runs it by its emulator.
set(manual ${CMAKE_BINARY_DIR}/manual)
find_program(GZIP gzip)
add_custom_command(OUTPUT ${manual}/pdd.bash
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${manual}
    COMMAND pdd manual ${manual}
    COMMAND ${CMAKE_COMMAND} -D FOLDER=${manual} -D GZIP=${GZIP} -P ${CMAKE_SOURCE_DIR}/packaging/compress.cmake
    DEPENDS pdd packaging/compress.cmake VERBATIM)
add_custom_target(manual ALL DEPENDS ${manual}/pdd.bash)
install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT program FILES_MATCHING PATTERN "*.1*")
install(FILES ${manual}/pdd.bash DESTINATION ${data}/bash-completion/completions RENAME pdd COMPONENT program)
install(FILES ${manual}/pdd.fish DESTINATION ${data}/fish/vendor_completions.d COMPONENT program)
if(EXISTS /etc/debian_version)
    install(FILES ${manual}/_pdd DESTINATION ${data}/zsh/vendor-completions COMPONENT program)
else()
    install(FILES ${manual}/_pdd DESTINATION ${data}/zsh/site-functions COMPONENT program)
endif()

# The units name the program by its place, which is known when it is installed.
install(CODE "
    set(PDD_PROGRAM \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/pdd\")
    set(PDD_MODELS \"\${CMAKE_INSTALL_PREFIX}/${data}/pdd/models\")
    foreach(unit system/pdd-cloud.service user/pdd-device.service)
        get_filename_component(name \${unit} NAME)
        get_filename_component(folder \${unit} DIRECTORY)
        configure_file(\"${CMAKE_SOURCE_DIR}/packaging/\${name}.in\" \"${CMAKE_BINARY_DIR}/units/\${name}\" @ONLY)
        file(INSTALL \"${CMAKE_BINARY_DIR}/units/\${name}\" DESTINATION \"\${CMAKE_INSTALL_PREFIX}/lib/systemd/\${folder}\")
    endforeach()" COMPONENT program)

install(DIRECTORY demo/ DESTINATION ${data}/pdd/demo COMPONENT program FILES_MATCHING PATTERN "*.json" PATTERN "*.txt")
install(FILES README.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs COMPONENT program
    FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN "sim" EXCLUDE)
install(FILES packaging/nginx-pdd.conf packaging/haproxy-pdd.cfg packaging/grafana-dashboard.json
    DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT program)
install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program_licence)

file(GLOB models models/*.gguf)
install(FILES ${models} DESTINATION ${data}/pdd/models COMPONENT models)
install(FILES models/README.md DESTINATION ${data}/doc/pdd-models COMPONENT models)
