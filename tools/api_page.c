/*
 * api_page: writes docs/API.md from the tables that the program is made of: endpoints
 * (cloud/api/routes.h, device/api/routes.h) and fields of requests (proto/openai_fields.h), and
 * from the list of headers below, which tools/check.sh holds against the sources.
 *
 *     gcc -Isrc tools/api_page.c -o build/api_page && build/api_page > docs/API.md
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cloud/api/routes.h"
#include "device/api/routes.h"
#include "proto/openai_fields.h"

/* ---- endpoints ---- */

struct route {
    const char *method, *path, *gate;
    bool loose;
    const char *text;
};

#define ROUTE(METHOD, PATH, HANDLER, GATE, BODY_MAX, LOOSE, TEXT)                                  \
    {METHOD, PATH, #GATE, LOOSE, TEXT},

static const struct route of_cloud[] = {ROUTES_OF_CLOUD(ROUTE)};
static const struct route of_device[] = {ROUTES_OF_DEVICE(ROUTE)};

static const char *needs(const char *gate)
{
    static const char *const words[][2] = {
        {"request_gate_work", "a key and one of its requests"},
        {"request_gate", "a key"},
        {"guard_api", "the token"},
        {"guard_open", "nothing"},
        {"guard_page", "nothing"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i][0], gate) == 0) return words[i][1];
    return "nothing";
}

static void put_routes(const char *command, const struct route *routes, size_t n)
{
    printf("\n## Endpoints of %s\n\n| | | needs |\n|---|---|---|\n", command);
    for (size_t i = 0; i < n; i++)
        printf("| `%s %s`%s | %s | %s |\n", routes[i].method, routes[i].path,
               routes[i].loose ? " *" : "", routes[i].text, needs(routes[i].gate));
}

/* ---- headers ---- */

static const struct {
    const char *name, *text;
} headers_in[] = {
    {"Authorization, X-Api-Key, Api-Key",
     "`Bearer KEY`, or the key alone: of `pdd cloud` a key, of `pdd device` the token; 400 where "
     "two of them differ"},
    {"X-Request-Id",
     "up to 128 letters, digits and `-_.:/+=@~`; else one is made; it is in the log"},
    {"Content-Type", "any; a charset other than UTF-8 gets 415"},
    {"Content-Encoding", "`identity` only, else 415"},
    {"Content-Length, Transfer-Encoding", "one of them; `chunked` is the only coding"},
    {"Connection", "`close` ends the connection after the response"},
    {"Expect", "`100-continue`: answered once the key is checked; else 417"},
    {"Host", "exactly one; `pdd device` answers to its own names only"},
    {"Origin", "a page's; see `--allow-origin`"},
    {"Access-Control-Request-Headers, Access-Control-Request-Private-Network",
     "of a page's OPTIONS"},
    {"Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest", "`pdd device`: keeps out pages of others"},
    {"Accept", "`pdd device`: `text/event-stream` asks `/v1/answers/{id}` for a stream"},
    {"If-None-Match", "`pdd device`: of the page's files"},
    {"X-Forwarded-For", "`pdd cloud`: of a proxy that `--trusted-proxy` names"},
    {"X-PDD-Answer, X-PDD-Mode, X-PDD-Pace, X-PDD-Refine, X-PDD-Keep, X-PDD-Client",
     "`pdd device`: [DEVICE.md](DEVICE.md)"},
    {"X-PDD-Approval",
     "`pdd device`: the code of its terminal, with a yes to `/v1/answers/{id}/send`"},
};

static const struct {
    const char *name, *text;
} headers_out[] = {
    {"Content-Type", "`application/json`, `text/event-stream` of a stream"},
    {"Content-Length, Transfer-Encoding", "the length, or `chunked` of a stream; neither for "
                                          "HTTP/1.0, where the close ends a stream"},
    {"Connection", "`close` where the connection ends"},
    {"Date", "the time"},
    {"X-Request-Id", "the request's, or a new one; with every response"},
    {"Accept-Encoding", "`identity`, with 415"},
    {"Retry-After", "seconds, with 429 and 503"},
    {"Allow", "with 405 and of OPTIONS"},
    {"WWW-Authenticate", "`Bearer`, with 401"},
    {"Cache-Control", "`no-store` of what is private"},
    {"Access-Control-Allow-Origin, Access-Control-Allow-Methods, Access-Control-Allow-Headers, "
     "Access-Control-Max-Age, Access-Control-Allow-Private-Network, Access-Control-Expose-Headers, "
     "Vary",
     "for pages of `--allow-origin`"},
    {"ETag, Content-Security-Policy, Cross-Origin-Opener-Policy, Cross-Origin-Resource-Policy, "
     "Referrer-Policy, X-Content-Type-Options",
     "`pdd device`: of the page"},
    {"X-PDD-Answer, X-PDD-Report", "`pdd device`: [DEVICE.md](DEVICE.md)"},
};

#define PUT_HEADERS(TITLE, LIST)                                                                   \
    do {                                                                                           \
        printf("\n## Headers of %s\n\n| | |\n|---|---|\n", TITLE);                                 \
        for (size_t i = 0; i < sizeof(LIST) / sizeof *(LIST); i++)                                 \
            printf("| %s | %s |\n", (LIST)[i].name, (LIST)[i].text);                               \
    } while (0)

/* ---- fields ---- */

enum fate { SERVED, PASSED, REFUSED, IGNORED };

struct field {
    const char *name;
    enum openai_where where;
    enum fate fate;
    enum openai_neutral neutral;
    const char *note;
};

#define PLAIN(NAME, WHERE, TYPE, MAX, LOW, HIGH, MEMBER, NOTE)                                     \
    {NAME, OPENAI_IN_##WHERE, SERVED, OPENAI_NEUTRAL_NOTHING, NOTE},
#define TAKE(NAME, WHERE, FUNCTION, NOTE)                                                          \
    {NAME, OPENAI_IN_##WHERE, SERVED, OPENAI_NEUTRAL_NOTHING, NOTE},
#define SEE(NAME, WHERE, NOTE) {NAME, OPENAI_IN_##WHERE, SERVED, OPENAI_NEUTRAL_NOTHING, NOTE},
#define PASS(NAME, WHERE, NEUTRAL, NOTE)                                                           \
    {NAME, OPENAI_IN_##WHERE, PASSED, OPENAI_NEUTRAL_##NEUTRAL, NOTE},
#define REFUSE(NAME, WHERE, NEUTRAL, NOTE)                                                         \
    {NAME, OPENAI_IN_##WHERE, REFUSED, OPENAI_NEUTRAL_##NEUTRAL, NOTE},
#define IGNORE(NAME, WHERE, NOTE) {NAME, OPENAI_IN_##WHERE, IGNORED, OPENAI_NEUTRAL_NOTHING, NOTE},

static const struct field fields[] = {OPENAI_FIELDS(PLAIN, TAKE, SEE, PASS, REFUSE, IGNORE)};

static const char *neutral_text(enum openai_neutral neutral)
{
    static const char *const texts[] = {
        [OPENAI_NEUTRAL_NOTHING] = "-",
        [OPENAI_NEUTRAL_ZERO] = "0",
        [OPENAI_NEUTRAL_OFF] = "0 and less",
        [OPENAI_NEUTRAL_ONE] = "1",
        [OPENAI_NEUTRAL_FALSE] = "false",
        [OPENAI_NEUTRAL_TRUE] = "true",
        [OPENAI_NEUTRAL_EMPTY] = "empty",
        [OPENAI_NEUTRAL_TEXT_TYPE] = "`{\"type\": \"text\"}`",
        [OPENAI_NEUTRAL_NO_CALL] = "`\"none\"`, `\"auto\"`",
        [OPENAI_NEUTRAL_TEXT_ALONE] = "`[\"text\"]`",
    };
    return texts[neutral];
}

static const char *where_text(enum openai_where where)
{
    return where == OPENAI_IN_BOTH ? "" : where == OPENAI_IN_CHAT ? "chat" : "completion";
}

static int count(enum fate fate)
{
    int n = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        n += fields[i].fate == fate;
    return n;
}

static void put_fields(enum fate fate, const char *title, const char *columns)
{
    if (count(fate) == 0) return;
    bool kept_out = fate == PASSED || fate == REFUSED;
    printf("\n### %s\n\n%s", title, columns);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct field *f = &fields[i];
        if (f->fate != fate) continue;
        printf("| `%s` | %s |", f->name, where_text(f->where));
        if (kept_out) printf(" %s |", neutral_text(f->neutral));
        printf(" %s |\n", f->note);
    }
}

int main(void)
{
    printf(
        "# The HTTP API\n\n"
        "Made from the tables of the program by tools/api_page.c; `tools/check.sh` compares. What "
        "the endpoints of\n`pdd device` mean is in [DEVICE.md](DEVICE.md), the device's own "
        "protocol in src/proto/wire.h.\n");
    put_routes("pdd cloud", of_cloud, sizeof of_cloud / sizeof *of_cloud);
    put_routes("pdd device", of_device, sizeof of_device / sizeof *of_device);
    printf("\nHEAD goes wherever GET does; OPTIONS says what a path takes. A key is needed with "
           "`--key-file`, the token with `--token-file`.\n`pdd device` refuses names and pages of "
           "others everywhere (SECURITY.md).\n\n"
           "`*`: also without `/v1`, with it twice, and with more slashes in front, between and at "
           "the end, as clients make of a base URL.\n");
    PUT_HEADERS("requests", headers_in);
    PUT_HEADERS("responses", headers_out);
    printf("\n## Fields of /v1/chat/completions and /v1/completions\n\n"
           "null is the same as absent. A number without a fraction is an integer. A field that is "
           "not here is ignored, as are those of the\nother endpoint. Errors have status 400 and "
           "name the field in `param`.\n");
    put_fields(SERVED, "Served", "| | only in a | |\n|---|---|---|\n");
    put_fields(PASSED, "Passed on to an upstream server that has it, refused by the engine here",
               "| | only in a | taken | |\n|---|---|---|---|\n");
    put_fields(REFUSED, "Refused, but for a value that changes nothing",
               "| | only in a | taken | instead |\n|---|---|---|---|\n");
    put_fields(IGNORED, "Ignored: cannot change the answer", "| | only in a | |\n|---|---|---|\n");
    return 0;
}
