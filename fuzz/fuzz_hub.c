/*
 * fuzz_hub: what a person, a hub or a server says of a model's files: references, lists of files,
 * names, digests, first bytes. What is accepted is a name that stays in its folder, and means the
 * same when it is read again.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "hub/download_state.h"
#include "hub/listing.h"
#include "hub/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const char *name)
{
    struct reference_part part, again;
    char stem[REFERENCE_NAME_MAX + 1], last[FETCH_URL_MAX];
    CHECK(!strchr(name, '/') && name[0] != '.' && strlen(name) <= REFERENCE_NAME_MAX);
    reference_stem(name, stem);
    CHECK(strlen(stem) < strlen(name));
    if (!reference_part(name, &part)) return;
    CHECK(part.no >= 1 && part.no <= part.count);
    if (reference_of_part(name, &part, part.count, last, sizeof last, NULL)) return;
    CHECK(reference_part(last, &again) && again.no == part.count && again.stem == part.stem);
}

static void check_reference(const char *text)
{
    struct reference r;
    struct err e = ERR_INIT;
    char url[FETCH_URL_MAX], name[REFERENCE_NAME_MAX + 1];
    if (reference_parse(text, REFERENCE_HUB, &r, &e)) {
        CHECK(e.text[0]);
        return;
    }
    if (!r.hub) {
        if (reference_file_name(r.url, name, NULL) == 0) check_name(name);
    } else if (r.file[0] && reference_file_url(&r, REFERENCE_HUB, r.file, url, NULL) == 0) {
        CHECK(!strstr(url, "/../") && !strchr(url, '?') && !strchr(url, '#'));
        CHECK(reference_file_name(url, name, NULL) == 0);
        check_name(name);
    }
}

static void check_listing(const char *text, size_t n)
{
    struct listing l;
    const struct listing_row *row;
    char type[REFERENCE_PART_MAX + 1];
    struct err e = ERR_INIT;
    if (listing_read(text, n, "hf:a/b", &l, &e)) {
        CHECK(e.text[0]);
        return;
    }
    for (uint32_t i = 0; i < l.n; i++) {
        CHECK(reference_is_file_path(l.rows[i].file));
        listing_type(&l.rows[i], type);
    }
    CHECK(listing_choose(&l, "", "hf:a/b", &row, &e) == 0 || e.text[0]);
    listing_choose(&l, "Q4_0", "hf:a/b", &row, &e);
    listing_release(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = mem_alloc(size + 1); /* exactly, so that reading past it is seen */
    char sha256[65], name[REFERENCE_NAME_MAX + 1];
    memcpy(copy, data, size);
    copy[size] = 0;
    check_reference(copy);
    check_listing(copy, size);
    if (reference_file_name(copy, name, NULL) == 0) check_name(name);
    download_digest(copy, sha256);
    CHECK(strlen(sha256) == 0 || strlen(sha256) == 64);
    mem_free(copy);
    uint8_t *head = mem_alloc(size);
    memcpy(head, data, size);
    download_kind(head, size);
    mem_free(head);
    return 0;
}
