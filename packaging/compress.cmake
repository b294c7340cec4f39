# compress.cmake: every man page of FOLDER by GZIP, the same bytes each time; nothing where there is no gzip.
if(GZIP)
    file(GLOB pages ${FOLDER}/*.1)
    execute_process(COMMAND ${GZIP} -9nf ${pages} COMMAND_ERROR_IS_FATAL ANY)
endif()
