/*
 * check: the programmer's mistakes. CHECK(condition) stays on in release builds and aborts with
 * place and condition. Never for files, network or users: those cause `struct err`. Any
 * thread.
 */
#ifndef PDD_BASE_CHECK_H
#define PDD_BASE_CHECK_H

void check_failed(const char *file, int line, const char *condition)
    __attribute__((noreturn, cold));

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition);                            \
    } while (0)

#endif
