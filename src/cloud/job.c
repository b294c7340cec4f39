/* job: see job.h. */
#include "cloud/job.h"

#include <string.h>

#include "base/mem.h"

int job_new(const int32_t *prompt, uint32_t n_prompt, const int32_t *have, uint32_t n_have,
            struct job **ret_job, struct err *e)
{
    struct job *j = mem_calloc(1, sizeof *j);
    if (j) j->tokens = mem_alloc(((size_t)n_prompt + n_have) * sizeof *j->tokens);
    if (!j || !j->tokens) {
        mem_free(j);
        return err_set(e, ERR_NO_MEMORY, "no memory for a request of %u tokens", n_prompt + n_have);
    }
    memcpy(j->tokens, prompt, n_prompt * sizeof *prompt);
    if (n_have) memcpy(j->tokens + n_prompt, have, n_have * sizeof *have);
    j->n_tokens = n_prompt + n_have;
    j->n_have = n_have;
    j->deadline = UINT64_MAX;
    wire_request_init(&j->asked);
    *ret_job = j;
    return 0;
}

int job_new_asked(struct job **ret_job, struct err *e)
{
    struct job *j = mem_calloc(1, sizeof *j);
    if (!j) return err_set(e, ERR_NO_MEMORY, "no memory for a request");
    wire_request_init(&j->asked);
    j->deadline = UINT64_MAX;
    *ret_job = j;
    return 0;
}

void job_take_asked(struct job *j, struct wire_request *q)
{
    wire_request_release(&j->asked);
    j->asked = *q;
    j->n_have = q->n_have;
    wire_request_init(q);
}

void job_free(struct job *j)
{
    if (!j) return;
    wire_request_release(&j->asked);
    mem_free(j->tokens);
    mem_free(j);
}
