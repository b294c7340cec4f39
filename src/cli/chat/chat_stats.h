/*
 * chat_stats: the reports of `--stats` and `--stats-json` on an answer.
 *
 * The JSON file has one object a line (lib/json_report.h), one line an answer.
 */
#ifndef PDD_CLI_CHAT_CHAT_STATS_H
#define PDD_CLI_CHAT_CHAT_STATS_H

#include <stdio.h>

#include "engine/engine.h"
#include "pdd.h"

/* `info`: of the model here; NULL: none. */
void chat_stats_print(const pdd_report *r, const struct engine_info *info, FILE *to);

#endif
