/* merge_heap: see merge_heap.h. */
#include "model/text/merge_heap.h"

static bool earlier(const struct candidate *a, const struct candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

void merge_heap_push(struct merge_heap *h, struct candidate c)
{
    uint32_t at = h->n++;
    while (at > 0 && earlier(&c, &h->items[(at - 1) / 2])) {
        h->items[at] = h->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->items[at] = c;
}

bool merge_heap_pop(struct merge_heap *h, struct candidate *ret_candidate)
{
    if (h->n == 0) return false;
    *ret_candidate = h->items[0];
    struct candidate last = h->items[--h->n];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && earlier(&h->items[child + 1], &h->items[child])) child++;
        if (!earlier(&h->items[child], &last)) break;
        h->items[at] = h->items[child];
        at = child;
    }
    h->items[at] = last;
    return true;
}

void symbol_join(struct symbol *symbols, uint32_t left, int32_t token)
{
    uint32_t right = symbols[left].after;
    symbols[left].len += symbols[right].len;
    symbols[left].token = token;
    symbols[left].after = symbols[right].after;
    symbols[right].len = 0;
    if (symbols[left].after != UINT32_MAX) symbols[symbols[left].after].before = left;
}
