/* history: see history.h. */
#include "engine/history.h"

#include "base/check.h"

int history_open(struct engine *e, struct prefix *p, uint32_t scope, struct history *ret_history,
                 struct err *err)
{
    struct history h = {.prefix = p, .scope = scope, .path = PREFIX_NONE};
    int code = engine_session_open(e, &h.session, err);
    if (code == 0) *ret_history = h;
    return code;
}

void history_close(struct history *h, bool keep)
{
    if (!h->session) return;
    uint32_t rest = session_len(h->session) - h->n_path * ENGINE_PAGE;
    if (keep && rest > 0 && rest < ENGINE_PAGE)
        prefix_add_part(h->prefix, h->scope, h->path, h->session, h->n_path, rest);
    engine_session_close(h->session);
    prefix_release(h->prefix, h->path);
    *h = (struct history){.path = PREFIX_NONE};
}

uint32_t history_follow(struct history *h, const int32_t *tokens, uint32_t n)
{
    uint32_t len = session_len(h->session), gained = 0;
    struct err ignored;
    while (len / ENGINE_PAGE == h->n_path && (h->n_path + 1) * ENGINE_PAGE < n) {
        uint32_t begin = h->n_path * ENGINE_PAGE;
        uint32_t at = prefix_find(h->prefix, h->scope, h->path, tokens + begin);
        if (at == PREFIX_NONE) break;
        gained += begin + ENGINE_PAGE - len;
        session_cut(h->session, begin); /* a part that was computed already */
        CHECK(session_page_adopt(h->session, prefix_page(h->prefix, at), tokens + begin,
                                 ENGINE_PAGE, &ignored) == 0);
        h->path = at;
        h->n_path++;
        len = begin + ENGINE_PAGE;
    }
    return gained;
}

uint32_t history_follow_part(struct history *h, const int32_t *tokens, uint32_t n)
{
    uint32_t len = session_len(h->session), left = n > len ? n - 1 - len : 0, same;
    struct err ignored;
    if (len % ENGINE_PAGE || left == 0) return 0;
    if (left >= ENGINE_PAGE) left = ENGINE_PAGE - 1;
    uint32_t at = prefix_find_part(h->prefix, h->scope, h->path, tokens + len, left, &same);
    if (at == PREFIX_NONE) return 0;
    prefix_hold(h->prefix, at);
    if (!prefix_room(h->prefix) ||
        session_page_adopt(h->session, prefix_page(h->prefix, at), tokens + len, same, &ignored))
        same = 0;
    prefix_release(h->prefix, at);
    return same;
}

void history_grow(struct history *h)
{
    uint32_t len = session_len(h->session);
    CHECK(h->n_path * ENGINE_PAGE <= len);
    while ((h->n_path + 1) * ENGINE_PAGE <= len) {
        uint32_t at = prefix_add(h->prefix, h->scope, h->path, h->session, h->n_path);
        if (at == PREFIX_NONE) return;
        h->path = at;
        h->n_path++;
    }
}

void history_cut(struct history *h, uint32_t n)
{
    session_cut(h->session, n);
    while (h->n_path > n / ENGINE_PAGE) {
        h->path = prefix_release_last(h->prefix, h->path);
        h->n_path--;
    }
}
