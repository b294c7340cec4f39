/*
 * chat_hello: the first line of a conversation: which model answers here, and whether the cloud
 * does. The cloud is asked once (GET /v1/models), for CHAT_HELLO_US at most. Threads: the caller's.
 */
#ifndef PDD_CLI_CHAT_CHAT_HELLO_H
#define PDD_CLI_CHAT_CHAT_HELLO_H

#include "base/buf.h"
#include "engine/engine.h"

enum { CHAT_HELLO_US = 1000000, CHAT_HELLO_BYTES_MAX = 4096 };

struct chat_hello {
    const struct engine_info *info;                /* of the engine here; NULL: none */
    const char *cloud_url, *key, *ca_file, *model; /* url NULL: no cloud; the others may be NULL */
};

/* Append the line, without its end. */
void chat_hello(const struct chat_hello *h, struct buf *line);

#endif
