/*
 * log: one line an event on standard error, `time level component message`. The only global mutable
 * state of the project. Never logs prompt or answer text. Libraries below cloud/ and device/ do not
 * log.
 */
#ifndef PDD_BASE_LOG_H
#define PDD_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);                             /* default LOG_INFO */
int log_level_from_name(const char *name, enum log_level *ret_level); /* 0, or ERR_BAD_INPUT */
void log_line(enum log_level level, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
