/*
 * process: children of the demonstration: start one, read the address it prints, wait, stop.
 */
#ifndef PDD_DEMO_PROCESS_H
#define PDD_DEMO_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct process {
    pid_t pid; /* 0: none */
    int out;   /* its standard output; -1: inherited */
};

/* argv[0] is a name for errors; the program is this one. Standard error goes to `log_path`. With
 * `own_output` its standard output is this process's; else read it from `out`. */
int process_start(const char *const argv[], const char *log_path, bool own_output,
                  struct process *ret_process, struct err *e);
/* Read the first line and return the URL in it; an error has the end of the log. */
int process_url(struct process *p, const char *log_path, char *url, size_t size, struct err *e);
/* Wait for it; *ret_status is its exit status, or 128 + signal. */
int process_wait(struct process *p, int *ret_status, struct err *e);
/* The error `what`, with the end of the child's log. */
int process_blame(const char *log_path, const char *what, struct err *e);
void process_stop(struct process *p); /* SIGTERM and wait; does nothing if it has ended */

#endif
