/* route: see route.h. */
#include "policy/route.h"

enum { REST_MAX_S = 30 };

/* The finaliser of MurmurHash3: every bit of the sum counts in every bit of the score. */
static uint64_t score(uint64_t server, uint64_t prompt)
{
    uint64_t x = server ^ (prompt * 0x9e3779b97f4a7c15ull);
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

/* The best of those that may be asked: by affinity, and the least busy one. */
static void find_best(const struct route_server *s, uint32_t n, uint64_t prompt, uint64_t skip,
                      uint64_t rested, int *ret_near, int *ret_least)
{
    uint64_t best = 0;
    *ret_near = *ret_least = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (!s[i].up || (skip >> i & 1) || s[i].outstanding >= s[i].outstanding_max) continue;
        if (s[i].rest_until > rested) continue;
        uint64_t mine = score(s[i].name, prompt);
        if (*ret_near < 0 || mine > best) {
            best = mine;
            *ret_near = (int)i;
        }
        if (*ret_least < 0 || s[i].outstanding < s[*ret_least].outstanding) *ret_least = (int)i;
    }
}

int route_choose(const struct route_server *servers, uint32_t n, uint64_t prompt, uint64_t skip,
                 uint64_t now)
{
    int near, least;
    find_best(servers, n, prompt, skip, now, &near, &least);
    if (near < 0) find_best(servers, n, prompt, skip, UINT64_MAX, &near, &least);
    if (near < 0) return -1;
    uint64_t lowest = servers[least].outstanding;
    uint64_t slack = lowest * ROUTE_SLACK_PERCENT / 100;
    if (slack < ROUTE_SLACK) slack = ROUTE_SLACK;
    return servers[near].outstanding <= lowest + slack ? near : least;
}

void route_busy(struct route_server *s, uint64_t now, uint32_t retry_after_s)
{
    uint32_t rest = retry_after_s == 0           ? 1
                    : retry_after_s < REST_MAX_S ? retry_after_s
                                                 : REST_MAX_S;
    s->rest_until = now + rest * 1000000ull;
}

uint64_t route_failed(struct route_server *s, uint64_t now)
{
    uint64_t wait = ROUTE_RETRY_US;
    for (uint32_t i = 0; i < s->failures && wait < ROUTE_RETRY_MAX_US; i++)
        wait *= 2;
    if (s->failures < UINT32_MAX) s->failures++;
    s->up = false;
    return now + (wait < ROUTE_RETRY_MAX_US ? wait : ROUTE_RETRY_MAX_US);
}

uint64_t route_answered(struct route_server *s, uint64_t now)
{
    s->up = true;
    s->failures = 0;
    return now + ROUTE_PROBE_US;
}
