/* download_state: see download_state.h. */
#include "hub/download_state.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/hex.h"
#include "hub/json_file.h"

enum { STATE_BYTES_MAX = 65536, DIGEST_BYTES = 32 };

static void take_text(const json_t *object, const char *key, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text && strlen(text) < size && !strpbrk(text, "\r\n")) snprintf(to, size, "%s", text);
}

void download_state_read(const char *path, struct download_state *ret_state)
{
    json_t *all = json_file_read(path, STATE_BYTES_MAX);
    *ret_state = (struct download_state){.size = FETCH_UNKNOWN};
    take_text(all, "url", ret_state->url, sizeof ret_state->url);
    take_text(all, "etag", ret_state->etag, sizeof ret_state->etag);
    take_text(all, "modified", ret_state->modified, sizeof ret_state->modified);
    take_text(all, "sha256", ret_state->sha256, sizeof ret_state->sha256);
    const json_t *size = json_object_get(all, "size");
    if (json_is_integer(size) && json_integer_value(size) >= 0)
        ret_state->size = (uint64_t)json_integer_value(size);
    json_decref(all);
}

int download_state_write(const char *path, const struct download_state *s, struct err *e)
{
    json_t *all = json_pack("{si ss ss ss ss}", "version", 1, "url", s->url, "etag", s->etag,
                            "modified", s->modified, "sha256", s->sha256);
    if (all && s->size != FETCH_UNKNOWN)
        json_object_set_new(all, "size", json_integer((json_int_t)s->size));
    return json_file_write(path, all, JSON_COMPACT, STATE_BYTES_MAX, e);
}

const char *download_state_validator(const struct download_state *s)
{
    if (s->etag[0] == '"') return s->etag;
    return s->modified[0] ? s->modified : NULL;
}

void download_digest(const char *tag, char ret_sha256[65])
{
    unsigned char digest[DIGEST_BYTES];
    size_t n = strlen(tag);
    ret_sha256[0] = 0;
    if (n == 2 * DIGEST_BYTES + 2 && tag[0] == '"' && tag[n - 1] == '"') {
        tag++;
        n -= 2;
    }
    if (n == 2 * DIGEST_BYTES && hex_decode(tag, digest, sizeof digest))
        hex_encode(digest, sizeof digest, ret_sha256);
}

static bool begins(const char *head, size_t n, const char *with, size_t k)
{
    return n >= k && memcmp(head, with, k) == 0;
}

static bool is_web_page(const char *head, size_t n)
{
    static const char *const tags[] = {"<!doctype html", "<html", "<head", "<body", "<!--"};
    while (n > 0 && *head && strchr(" \t\r\n\xef\xbb\xbf", *head)) {
        head++;
        n--;
    }
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (n >= strlen(tags[i]) && strncasecmp(head, tags[i], strlen(tags[i])) == 0) return true;
    return false;
}

const char *download_kind(const void *bytes, size_t n)
{
    static const struct {
        const char *with;
        size_t k;
        const char *kind;
    } kinds[] = {
        {"\x89PNG", 4, "a picture (PNG)"},
        {"\xff\xd8\xff", 3, "a picture (JPEG)"},
        {"GIF8", 4, "a picture (GIF)"},
        {"RIFF", 4, "a picture or a sound"},
        {"PK\x03\x04", 4, "a zip archive (PyTorch's files are, too)"},
        {"\x1f\x8b", 2, "a gzip archive"},
        {"version https://git-lfs", 23, "a pointer of Git LFS, not the file that it stands for"},
        {"%PDF", 4, "a PDF document"},
        {"<?xml", 5, "an XML document"},
        {"{", 1, "a JSON text"},
        {"ggml", 4, "a file of the format before GGUF"},
        {"ggjt", 4, "a file of the format before GGUF"},
    };
    const char *head = bytes;
    if (begins(head, n, "GGUF", 4)) return NULL;
    if (n == 0) return "empty";
    if (is_web_page(head, n)) return "a web page";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (begins(head, n, kinds[i].with, kinds[i].k)) return kinds[i].kind;
    return "something else";
}
