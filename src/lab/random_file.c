/*
 * random_file: see random_file.h. The head is made in memory; the tensors are filled and written
 * in pieces by all threads, each piece a function of seed, tensor and place, so that the file does
 * not depend on the number of threads.
 */
#include "lab/random_file.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/output.h"
#include "base/pool.h"
#include "lab/random_blocks.h"
#include "lab/random_vocab.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

enum { PIECE_BYTES = 1 << 20, PIECES_AT_ONCE = 64, SCALE_BYTES_MAX = 256 * 4 };

/* A piece of a tensor's bytes, filled and written as one task. */
struct piece {
    uint32_t tensor;
    size_t bytes;
    uint64_t in_tensor, in_file, number; /* number: within the tensor */
};

struct writing {
    const struct random_file *file;
    struct random_tensor *tensors;
    uint64_t *starts; /* [n] of each tensor in the file */
    uint32_t n;
    struct piece pieces[PIECES_AT_ONCE];
    uint8_t *memory; /* [threads][PIECE_BYTES] */
    struct output output;
    atomic_int code;
    struct err err; /* of the first thread that set code */
};

static void fill_piece(const struct writing *j, const struct piece *p, uint8_t *out)
{
    const struct random_tensor *t = &j->tensors[p->tensor];
    float factors[SCALE_BYTES_MAX / 4];
    switch (t->fill) {
    case FILL_WEIGHTS:
    case FILL_NORM:
        random_blocks_fill(t->type, t->deviation, t->fill == FILL_NORM ? 1.0f : 0.0f, j->file->seed,
                           p->tensor, p->number << 32, out, p->bytes);
        return;
    case FILL_ROPE:
        random_shape_rope_factors(j->file->shape, factors);
        break;
    case FILL_ONES:
        for (size_t i = 0; i < p->bytes / 4; i++)
            factors[i] = 1.0f;
    }
    memcpy(out, factors, p->bytes);
}

static void do_piece(void *arg, uint32_t task, uint32_t worker)
{
    struct writing *j = arg;
    const struct piece *p = &j->pieces[task];
    uint8_t *out = j->memory + (size_t)worker * PIECE_BYTES;
    struct err e = ERR_INIT;
    int none = 0;
    if (atomic_load(&j->code)) return;
    fill_piece(j, p, out);
    int code = output_write(&j->output, p->in_file, out, p->bytes, &e);
    if (code && atomic_compare_exchange_strong(&j->code, &none, code)) j->err = e;
}

/* The piece after `at`, which moves on; false at the end of all tensors. */
static bool next_piece(const struct writing *j, struct piece *at, struct piece *ret_piece)
{
    if (at->tensor == j->n) return false;
    const struct random_tensor *t = &j->tensors[at->tensor];
    uint32_t block = gguf_type_info(t->type)->block_bytes;
    uint64_t left = t->bytes - at->in_tensor, most = PIECE_BYTES / block * block;
    at->bytes = (size_t)(left < most ? left : most);
    at->in_file = j->starts[at->tensor] + at->in_tensor;
    *ret_piece = *at;
    at->in_tensor += at->bytes;
    at->number++;
    if (at->in_tensor == t->bytes) *at = (struct piece){.tensor = at->tensor + 1};
    return true;
}

static void show_progress(uint64_t done, uint64_t total)
{
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r%3u %%%s", (unsigned)(done * 100 / total), done == total ? "\r     \r" : "");
}

static int write_tensors(struct writing *j, uint64_t total, struct pool *pool, struct err *e)
{
    struct piece at = {0};
    uint64_t done = 0;
    for (;;) {
        uint32_t n = 0;
        while (n < PIECES_AT_ONCE && next_piece(j, &at, &j->pieces[n]))
            done += j->pieces[n++].bytes;
        if (n == 0) return 0;
        pool_run(pool, n, do_piece, j);
        int code = atomic_load(&j->code);
        if (code) return err_set(e, code, "%s", j->err.text);
        show_progress(done, total);
    }
}

static int make_head(struct writing *j, struct buf *head, uint64_t *ret_total, struct err *e)
{
    const struct random_shape *s = j->file->shape;
    struct gguf_write w;
    gguf_write_init(&w);
    gguf_write_text(&w, "general.architecture", s->arch);
    gguf_write_text(&w, "general.name", s->name);
    gguf_write_text(&w, "general.description", "random weights: a shape to measure, not a model");
    gguf_write_u32(&w, "general.file_type", random_type_file(j->file->type));
    gguf_write_u32(&w, "general.quantization_version", 2);
    random_shape_keys(s, &w);
    int code = random_vocab_keys(s->vocab_kind, s->vocab, &w, e);
    for (uint32_t i = 0; i < j->n && code == 0; i++) {
        const struct random_tensor *t = &j->tensors[i];
        j->starts[i] = gguf_write_tensor(&w, t->name, t->type, t->dims, t->shape, t->bytes);
    }
    if (code == 0) code = gguf_write_finish(&w, head, e);
    for (uint32_t i = 0; i < j->n; i++)
        j->starts[i] += head->len;
    *ret_total = head->len + w.data_bytes;
    gguf_write_release(&w);
    return code;
}

static int write_all(struct writing *j, struct pool *pool, uint64_t *ret_total, struct err *e)
{
    static const char zeros[GGUF_WRITE_ALIGN];
    struct buf head;
    buf_init(&head, GGUF_WRITE_HEAD_MAX);
    int code = make_head(j, &head, ret_total, e);
    if (code == 0) code = output_begin(&j->output, j->file->path, e);
    if (code == 0) {
        const struct random_tensor *last = &j->tensors[j->n - 1];
        uint64_t end = j->starts[j->n - 1] + last->bytes;
        code = output_write(&j->output, 0, head.data, head.len, e);
        if (code == 0) code = write_tensors(j, *ret_total, pool, e);
        if (code == 0) code = output_write(&j->output, end, zeros, *ret_total - end, e);
        if (code == 0)
            code = output_commit(&j->output, e);
        else
            output_abandon(&j->output);
    }
    buf_release(&head);
    return code;
}

int random_file_write(const struct random_file *file, struct random_written *ret_written,
                      struct err *e)
{
    struct writing j = {.file = file};
    struct pool *pool;
    int code = pool_new(file->threads, &pool, e);
    if (code) return code;
    code = random_tensors_list(file->shape, file->type, &j.tensors, &j.n, e);
    if (code == 0) {
        j.starts = mem_calloc(j.n, sizeof *j.starts);
        j.memory = mem_alloc((size_t)pool_threads(pool) * PIECE_BYTES);
        code = j.starts && j.memory
                   ? write_all(&j, pool, &ret_written->bytes, e)
                   : err_set(e, ERR_NO_MEMORY, "no memory to write %s", file->path);
    }
    ret_written->tensors = j.n;
    mem_free(j.memory);
    mem_free(j.starts);
    mem_free(j.tensors);
    pool_free(pool);
    return code;
}
