/* job: see job.h. */
#include "cloud/work/job.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/sampler.h"

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

int job_new_choice(const struct job *first, struct job **ret_job, struct err *e)
{
    int code = job_new_asked(ret_job, e);
    if (code) return code;
    CHECK(first->n_have == 0);
    (*ret_job)->tokens = first->tokens;
    (*ret_job)->n_tokens = first->n_tokens;
    (*ret_job)->borrows = true;
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
    refine_free(j->refine);
    mem_free(j->usage);
    mem_free(j->logprobs);
    if (!j->borrows) mem_free(j->tokens);
    mem_free(j);
}

void job_want_logprobs(struct job *j, uint32_t top)
{
    CHECK(top <= JOB_LOGPROBS_TOP_MAX);
    j->wants_logprobs = true;
    j->logprobs_top = top;
}

int job_make_logprobs(struct job *j, uint32_t n, struct err *e)
{
    if (!j->wants_logprobs) return 0;
    CHECK(!j->logprobs);
    j->logprobs = mem_calloc((size_t)n * (1 + j->logprobs_top), sizeof *j->logprobs);
    if (!j->logprobs)
        return err_set(e, ERR_NO_MEMORY, "no memory for the log-probabilities of %u tokens", n);
    j->n_logprobs = n;
    return 0;
}

void job_note_logprobs(struct job *j, uint32_t i, struct job_logprob token, const float *logits,
                       uint32_t vocab_size)
{
    if (i >= j->n_logprobs) return;
    struct job_logprob *row = j->logprobs + (size_t)i * (1 + j->logprobs_top);
    int32_t best[JOB_LOGPROBS_TOP_MAX];
    uint32_t n = logits ? sampler_best(logits, vocab_size, j->logprobs_top, best) : 0;
    row[0] = token;
    for (uint32_t k = 0; k < j->logprobs_top; k++)
        row[1 + k] = k < n ? (struct job_logprob){best[k], token.logprob +
                                                               (logits[best[k]] - logits[token.id])}
                           : (struct job_logprob){-1, 0.0f};
}

const struct job_logprob *job_logprobs_of(const struct job *j, uint32_t i)
{
    return i < j->n_logprobs ? j->logprobs + (size_t)i * (1 + j->logprobs_top) : NULL;
}
