/*
 * log: one line for each event on standard error: `time level component message key=value ...`, or
 * a JSON object for machines. The only global mutable state of the project. Never logs prompt or
 * answer text. Libraries below cloud/ and device/ do not log. Any thread.
 *
 * A log that is not read must not stop the program: a line that standard error does not take at
 * once (a full pipe or disk) is dropped and counted, and the next line that it takes is preceded by
 * one that says how many are missing.
 */
#ifndef PDD_BASE_LOG_H
#define PDD_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); /* default LOG_INFO */
void log_set_json(bool json);             /* default: text */
void log_line(enum log_level level, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A named value; `text` NULL: the number. Blanks and quotes in a text are escaped. */
struct log_field {
    const char *key, *text;
    double number;
};
void log_fields(enum log_level level, const char *component, const char *message,
                const struct log_field *fields, size_t n);
uint64_t log_dropped(void); /* lines, since the start */

#endif
