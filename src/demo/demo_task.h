/*
 * demo_task: the task of the demonstration, a JSON file: a document, a question, and the facts of a
 * right answer.
 *
 *   {"document": file, relative to this one,  "question": text,  "facts": [text, ...],
 *    "more": file that stands behind the document where the prompt is to be long; optional}
 *
 * Other members are for tests and readers. No threads.
 */
#ifndef PDD_DEMO_DEMO_TASK_H
#define PDD_DEMO_DEMO_TASK_H

#include <stdint.h>

#include "base/err.h"

enum { DEMO_TASK_PATH_MAX = 4096, DEMO_TASK_BYTES_MAX = 1 << 20 };

struct json_t;

struct demo_task {
    char document[DEMO_TASK_PATH_MAX], more[DEMO_TASK_PATH_MAX]; /* more: "" where there is none */
    const char *question;
    uint32_t n_facts;
    struct json_t *root; /* owns the texts */
};

int demo_task_load(const char *path, struct demo_task *ret_task, struct err *e);
void demo_task_release(struct demo_task *t);
uint32_t demo_task_found(const struct demo_task *t, const char *answer); /* facts in it */

#endif
