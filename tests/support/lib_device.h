/*
 * lib_device: devices of libpdd for tests: with fake engines, which pdd.h cannot open, and
 * questions whose pieces are gathered. Static functions, so that each test links alone.
 */
#ifndef PDD_TESTS_LIB_DEVICE_H
#define PDD_TESTS_LIB_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "engine/fake.h"
#include "lib/lib.h"
#include "pdd.h"

enum { LIB_TEXT_MAX = 1 << 20 };

/* What callbacks were told, and when they are to cancel. */
struct gathered {
    struct buf text, thought;
    uint32_t n_tokens, of[2]; /* by source */
    uint32_t n_progress, n_trouble;
    uint32_t cancel_at; /* tokens; 0: never */
    char trouble[PDD_ERROR_TEXT];
};

static inline int gather_text(void *arg, const char *text, size_t length, const pdd_token *token)
{
    struct gathered *g = arg;
    assert_int_equal(text[length], 0);
    assert_int_equal(buf_append(&g->text, text, length), 0);
    if (token->index == g->n_tokens) {
        g->n_tokens++;
        g->of[token->source]++;
    } else {
        assert_int_equal(token->index + 1, g->n_tokens); /* the rest of a character */
    }
    assert_true(token->shown_ms >= token->arrived_ms);
    return g->cancel_at && g->n_tokens >= g->cancel_at;
}

static inline int gather_progress(void *arg, int source, uint32_t done, uint32_t total)
{
    struct gathered *g = arg;
    assert_true(done <= total && (source == PDD_SOURCE_CLOUD || source == PDD_SOURCE_DEVICE));
    g->n_progress++;
    return 0;
}

static inline int gather_trouble(void *arg, const char *sentence)
{
    struct gathered *g = arg;
    g->n_trouble++;
    snprintf(g->trouble, sizeof g->trouble, "%s", sentence);
    return 0;
}

static inline pdd_question gather(struct gathered *g, const char *text)
{
    *g = (struct gathered){.n_tokens = 0};
    buf_init(&g->text, LIB_TEXT_MAX);
    buf_init(&g->thought, LIB_TEXT_MAX);
    return (pdd_question){.size = sizeof(pdd_question),
                          .text = text,
                          .pace = PDD_PACE_OFF,
                          .on_text = gather_text,
                          .on_progress = gather_progress,
                          .on_trouble = gather_trouble,
                          .arg = g};
}

static inline pdd_model *fake_model(const struct fake_options *o)
{
    struct engine *engine;
    pdd_model *model = NULL;
    assert_int_equal(fake_open(o, &engine, NULL), 0);
    assert_int_equal(lib_model_of(engine, 0, 0, &model, NULL), 0);
    return model;
}

static inline pdd_device *open_device(pdd_model *model, const char *cloud_url)
{
    pdd_device_options o = {.size = sizeof o, .model = model, .cloud_url = cloud_url};
    pdd_error error;
    pdd_device *device = NULL;
    if (pdd_device_open(&o, &device, &error)) fail_msg("%s", error.text);
    return device;
}

static inline pdd_report report_of(pdd_answer *a)
{
    pdd_report r = {.size = sizeof r};
    assert_int_equal(pdd_answer_report(a, &r, NULL), 0);
    return r;
}

#endif
