/* cloud_needle: see cloud_needle.h. */
#include "cli/cloud_needle.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "cloud/work/needle.h"
#include "store/store_needle.h"

enum { TEST = 1 /* version: another test, another name in the store */ };

/* NULL: nothing can be kept here, and each start tests again. */
static struct store *open_store(void)
{
    struct store *s;
    char dir[STORE_PATH_MAX];
    struct err ignored;
    if (store_default_dir(dir, sizeof dir, &ignored)) return NULL;
    return store_open(dir, &s, &ignored) ? NULL : s;
}

static void say(uint32_t found, uint64_t us)
{
    char how[32] = "tested before";
    if (us) snprintf(how, sizeof how, "%.1f s", (double)us / 1e6);
    if (found == NEEDLE_QUESTIONS)
        log_line(LOG_INFO, "cloud", "prompts can be refined: the model finds %u needles of %d (%s)",
                 found, NEEDLE_QUESTIONS, how);
    else
        log_line(LOG_WARN, "cloud",
                 "prompts are not refined: the model finds %u needles of %d (%s)", found,
                 NEEDLE_QUESTIONS, how);
}

bool cloud_needle_unfit(struct engine *e)
{
    const struct engine_info *info = engine_info(e);
    char model[2 * ENGINE_HASH_TEXT];
    uint32_t found = 0;
    struct err err = ERR_INIT;
    if (!engine_scores(e)) return false; /* nobody is promised anything */
    snprintf(model, sizeof model, "%s %s %d", info->weights_hash, info->numerics, TEST);
    struct store *s = open_store();
    if (s && store_needle_load(s, model, &found, &err) == 0) {
        say(found, 0);
    } else {
        uint64_t begin = clock_us();
        int code = needle_find(e, &found, &err);
        if (code)
            log_line(LOG_INFO, "cloud", "prompts are not refined: %s", err.text);
        else
            say(found, clock_us() - begin);
        if (s && !code) (void)store_needle_save(s, model, found, &err);
    }
    store_close(s);
    return found < NEEDLE_QUESTIONS;
}
