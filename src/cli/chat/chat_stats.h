/*
 * chat_stats: the report of `--stats` and /stats on an answer, in words. That of `--stats-json` is
 * made by lib/json_report.
 */
#ifndef PDD_CLI_CHAT_CHAT_STATS_H
#define PDD_CLI_CHAT_CHAT_STATS_H

#include <stdio.h>

#include "engine/engine.h"
#include "pdd.h"

/* `info`: of the model here; NULL: none. */
void chat_stats_print(const pdd_report *r, const struct engine_info *info, FILE *to);

#endif
