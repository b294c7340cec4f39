/* wire_stream: the order of the events of one stream; see wire.h. */
#include "proto/wire.h"

void wire_stream_init(struct wire_stream *s, uint32_t n_prompt, uint32_t n_have)
{
    *s = (struct wire_stream){.n_prompt = n_prompt, .first = n_have, .next = n_have};
}

/* The prompt went as ids: a server that took them counts as many. */
static int take_grant(struct wire_stream *s, const struct wire_event *ev, struct err *e)
{
    if (s->granted) return err_set(e, ERR_PROTOCOL, "the stream has a second grant");
    if (s->n_prompt && ev->match != WIRE_TEXT && ev->prompt_tokens != s->n_prompt)
        return err_set(e, ERR_PROTOCOL,
                       "the grant counts %u tokens of the prompt, and %u were sent",
                       ev->prompt_tokens, s->n_prompt);
    s->granted = true;
    return 0;
}

/* Without the prompt's length (it went as messages) the bitmap cannot be held against it. */
static int take_refined(struct wire_stream *s, const struct wire_event *ev, struct err *e)
{
    if (s->refined || ev->version <= s->version)
        return err_set(e, ERR_PROTOCOL, "version %u of the refined prompt came after version %u%s",
                       ev->version, s->version, s->refined ? ", the final one" : "");
    if (!ev->refused[0] && s->n_prompt && ev->kept.len != wire_kept_bytes(s->n_prompt, ev->chunk))
        return err_set(e, ERR_PROTOCOL,
                       "the refined prompt has %zu bytes of bits, and %u tokens take %zu",
                       ev->kept.len, s->n_prompt, wire_kept_bytes(s->n_prompt, ev->chunk));
    s->version = ev->version;
    s->refined = ev->final;
    return 0;
}

static int take_token(struct wire_stream *s, const struct wire_event *ev, struct err *e)
{
    if (ev->index > s->next)
        return err_set(e, ERR_PROTOCOL, "token %u came where %u was due", ev->index, s->next);
    if (ev->index < s->first)
        return err_set(e, ERR_PROTOCOL, "token %u came, and the request has it already", ev->index);
    if (ev->index == s->next) s->next++;
    return 0;
}

/* A server that shuts down, or whose time is up, may end what it never began. */
static bool needs_grant(const struct wire_event *ev)
{
    if (ev->kind != WIRE_DONE) return true;
    return ev->reason == WIRE_BUDGET || ev->reason == WIRE_STOP || ev->reason == WIRE_LENGTH;
}

static int take_done(struct wire_stream *s, const struct wire_event *ev, struct err *e)
{
    uint32_t came = s->next - s->first;
    if (ev->completion_tokens != came)
        return err_set(e, ERR_PROTOCOL, "its end counts %u tokens, and %u came",
                       ev->completion_tokens, came);
    s->over = true;
    return 0;
}

int wire_stream_take(struct wire_stream *s, const struct wire_event *ev, struct err *e)
{
    if (ev->kind == WIRE_UNKNOWN) return 0;
    if (s->over) return err_set(e, ERR_PROTOCOL, "the stream goes on after its end");
    if (ev->kind == WIRE_GRANT) return take_grant(s, ev, e);
    if (ev->kind == WIRE_ERROR) {
        s->over = true;
        return 0;
    }
    if (!s->granted && needs_grant(ev))
        return err_set(e, ERR_PROTOCOL, "the stream does not begin with a grant");
    if (ev->kind == WIRE_TOKEN) return take_token(s, ev, e);
    if (ev->kind == WIRE_REFINED) return take_refined(s, ev, e);
    return ev->kind == WIRE_DONE ? take_done(s, ev, e) : 0;
}
