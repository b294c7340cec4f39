/*
 * test_pull_hub: models of several files, and repositories of a hub.
 *
 * Catches: a part that is missing under a name that is there; parts of another order; a choice that
 * a person would not have made; a refusal of the hub that does not say what to do.
 */
#include "hub/pull_site.h"

enum { PARTS = 3 };

/* A model in three files, "m-0000N-of-00003.gguf"; the first has no tensors. */
static void write_part(uint32_t no, struct buf *out)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    static const float data[8] = {1.0f};
    static const uint32_t from[] = {0, 0, 3, 4};
    struct gguf_writer w;
    gguf_writer_init(&w);
    gguf_writer_u32(&w, "split.no", no - 1);
    gguf_writer_u32(&w, "split.count", PARTS);
    gguf_writer_u32(&w, "split.tensors.count", 4);
    if (no == 1) gguf_writer_text(&w, "general.architecture", "llama");
    for (uint32_t i = from[no - 1]; i < from[no] && no > 1; i++)
        gguf_writer_tensor(&w, names[i], GGUF_F32, 8, 0, data, sizeof data);
    buf_init(out, 1 << 16);
    gguf_writer_finish(&w, out);
    gguf_writer_release(&w);
}

/* Any path with a part's number gives that part; s->cut cuts part 2 for s->times times. */
static void respond_parts(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    struct buf part;
    const char *at = strstr(a->path, "-0000");
    uint32_t no = at ? (uint32_t)(at[5] - '0') : 0;
    if (no < 1 || no > PARTS || (s->status && no == 3)) {
        file_server_status(server, 404, "", "");
        return;
    }
    write_part(no == PARTS && s->more[0] ? 2 : no, &part);
    file_server_file(server, a, part.data, part.len, s->etag,
                     no == 2 && s->times-- > 0 ? s->cut : 0, "");
    buf_release(&part);
}

static void expect_parts(const struct pull_site *s, const char *stem)
{
    for (uint32_t no = 1; no <= PARTS; no++) {
        char file[128];
        struct buf part;
        write_part(no, &part);
        snprintf(file, sizeof file, "%s-%05u-of-%05u.gguf", stem, no, PARTS);
        site_expect_file(s, file, &part);
        buf_release(&part);
    }
}

static void test_split(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_parts);
    s.o.retries = 0;
    s.cut = 50;
    s.times = 1;
    /* Any part names the whole; one is cut: none has its name. */
    site_expect(&s, "/x/m-00002-of-00003.gguf?download=true", ERR_NET, "cut");
    assert_false(site_has(&s, "m-00001-of-00003.gguf"));
    assert_true(site_has(&s, "m-00001-of-00003.gguf.part"));
    assert_string_equal(file_server_ask(&s.server, 0).path,
                        "/x/m-00001-of-00003.gguf?download=true");
    site_expect(&s, "/x/m-00001-of-00003.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 1).range, "bytes=50-");
    assert_string_equal(s.result.name, "m");
    assert_int_equal(s.result.parts, PARTS);
    assert_non_null(strstr(s.result.path, "/m-00001-of-00003.gguf"));
    expect_parts(&s, "m");
    site_expect(&s, "/x/m-00003-of-00003.gguf", 0, NULL);
    assert_true(s.result.here);
    s.o.as = "mine";
    site_expect(&s, "/x/m-00003-of-00003.gguf", 0, NULL);
    expect_parts(&s, "mine");
    s.o.sha256 = s.sha256;
    s.o.as = "other";
    site_expect(&s, "/x/m-00003-of-00003.gguf", ERR_UNSUPPORTED, "--sha256 is of one file");
    site_stop(&s);
}

static void test_split_faults(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_parts);
    s.status = 404; /* the last part */
    site_expect(&s, "/m-00001-of-00003.gguf", ERR_NOT_FOUND, "m-00003-of-00003.gguf");
    assert_false(site_has(&s, "m-00001-of-00003.gguf"));
    s.status = 0;
    site_expect(&s, "/m-00001-of-00003.gguf", 0, NULL);
    /* Three files of which each says that it is one of three, but with other numbers. */
    site_expect(&s, "/n-00001-of-00002.gguf", ERR_NOT_FOUND, "n-00001-of-00002.gguf");
    assert_false(site_has(&s, "n-00001-of-00002.gguf"));
    assert_false(site_has(&s, "n-00002-of-00002.gguf"));
    assert_false(site_has(&s, "n.json"));
    site_stop(&s);
}

/* Catches: a model that worked, lost to a newer one whose parts do not fit each other. */
static void test_split_update(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_parts);
    site_expect(&s, "/m-00001-of-00003.gguf", 0, NULL);
    s.etag = "\"v2\"";
    s.more = "x"; /* part 2 comes as part 3, too */
    int code = site_pull(&s, "/m-00001-of-00003.gguf");
    assert_int_not_equal(code, 0);
    if (!strstr(s.e.text, "/models/m-00003-of-00003.gguf")) fail_msg("%s", s.e.text);
    expect_parts(&s, "m");
    assert_false(site_has(&s, "m-00001-of-00003.gguf.part"));
    assert_false(site_has(&s, "m-00003-of-00003.gguf.part"));
    assert_false(site_has(&s, ".m.parts"));
    s.more = "";
    site_expect(&s, "/m-00001-of-00003.gguf", 0, NULL);
    assert_false(s.result.here);
    assert_false(site_has(&s, ".m.parts"));
    expect_parts(&s, "m");
    site_stop(&s);
}

/* ---- the hub ---- */

#define SIBLING(name, size) "{\"rfilename\": \"" name "\", \"size\": " size "}"

static const char several[] =
    "{\"sha\": \"1\", \"siblings\": [" SIBLING("README.md", "10") "," SIBLING("mmproj-m-F16.gguf", "5") "," SIBLING(
        "m-Q8_0.gguf",
        "300") "," SIBLING("m-Q4_K_M.gguf",
                           "100") "," SIBLING("m-Q4_K_S.gguf",
                                              "90") "," SIBLING("BF16/m-BF16-00002-of-00003.gguf",
                                                                "20") "," SIBLING("BF16/"
                                                                                  "m-BF16-00001-of-"
                                                                                  "00003.gguf",
                                                                                  "10") "," SIBLING("BF16/m-BF16-00003-of-00003.gguf",
                                                                                                    "30") "]}";

static void respond_hub(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    if (strncmp(a->path, "/api/", 5) == 0 && s->status)
        file_server_status(server, s->status, s->more, "");
    else if (strncmp(a->path, "/api/", 5) == 0)
        file_server_status(server, 200, "Content-Type: application/json\r\n", s->body);
    else if (strstr(a->path, "-0000"))
        respond_parts(server, a);
    else
        site_respond(server, a);
}

static void test_hub(void **state)
{
    struct pull_site s;
    char path[256], json[512];
    (void)state;
    site_start(&s, respond_hub);
    s.body = several;
    site_expect(&s, "hf:Some.Body/m-GGUF", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).path,
                        "/api/models/Some.Body/m-GGUF?blobs=true");
    assert_string_equal(file_server_ask(&s.server, 1).path,
                        "/Some.Body/m-GGUF/resolve/main/m-Q4_K_M.gguf");
    assert_string_equal(s.result.name, "m-Q4_K_M");
    site_expect_note(&s, "m-Q4_K_M.gguf, of 4 GGUF files");
    site_expect(&s, "hf:Some.Body/m-GGUF:q8_0", 0, NULL);
    assert_string_equal(s.result.name, "m-Q8_0");
    site_expect(&s, "hf:Some.Body/m-GGUF:bf16", 0, NULL);
    assert_int_equal(s.result.parts, PARTS);
    assert_string_equal(file_server_ask(&s.server, 2).path,
                        "/Some.Body/m-GGUF/resolve/main/BF16/m-BF16-00002-of-00003.gguf");
    site_expect(&s, "hf:Some.Body/m-GGUF/m-Q4_K_S.gguf", 0, NULL);
    assert_int_equal(file_server_count(&s.server), 1); /* no list is needed */
    /* What was pulled is found by what was typed, too. */
    assert_int_equal(library_find(s.dir, "hf:Some.Body/m-GGUF:q8_0", path, sizeof path, &s.e), 0);
    assert_non_null(strstr(path, "/m-Q8_0.gguf"));
    /* The digest of the list counts. */
    snprintf(json, sizeof json,
             "{\"siblings\": [{\"rfilename\": \"one.gguf\", \"size\": 5, \"lfs\": {\"sha256\": "
             "\"%s\"}}]}",
             s.other_sha256);
    s.body = json;
    site_expect(&s, "hf:a/b", ERR_BAD_INPUT, "is not kept");
    s.o.sha256 = s.sha256;
    site_expect(&s, "hf:a/b", ERR_BAD_INPUT, "the hub's one.gguf has SHA-256");
    s.o.sha256 = NULL;
    snprintf(json, sizeof json,
             "{\"siblings\": [{\"rfilename\": \"one.gguf\", \"size\": 4611686018427387904}]}");
    site_expect(&s, "hf:a/b", ERR_LIMIT, "needs");
    site_stop(&s);
}

/* An ETag of 64 digits is the digest, at the hub only. */
static void test_hub_digest(void **state)
{
    struct pull_site s;
    char tag[80];
    (void)state;
    site_start(&s, respond_hub);
    snprintf(tag, sizeof tag, "\"%s\"", s.other_sha256);
    s.etag = tag;
    site_expect(&s, "hf:a/b/one.gguf", ERR_BAD_INPUT, "is not kept");
    s.o.endpoint = "https://hub.example";
    site_expect(&s, "/one.gguf", 0, NULL);
    site_stop(&s);
}

static void test_hub_refuses(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_hub);
    s.status = 401;
    s.more = "X-Error-Message: Access to this model is restricted.\r\n";
    site_expect(&s, "hf:meta/llama", ERR_DENIED, "Access to this model is restricted");
    assert_non_null(strstr(s.e.text, "accept its terms"));
    assert_non_null(strstr(s.e.text, "HF_TOKEN"));
    s.o.hub_token = "hf_old";
    site_expect(&s, "hf:meta/llama", ERR_DENIED, "the token that was sent may be wrong");
    s.o.hub_token = NULL;
    s.more = "";
    s.status = 429; /* tried again */
    site_expect(&s, "hf:meta/llama", ERR_BUSY, "429");
    assert_int_equal(file_server_count(&s.server), 1 + s.o.retries);
    s.times = -1;
    s.status = 403;
    site_expect(&s, "hf:meta/llama/m.gguf", ERR_DENIED, "--token-file");
    s.status = 0;
    s.body = "{\"siblings\": [" SIBLING("README.md", "1") "]}";
    site_expect(&s, "hf:a/b", ERR_NOT_FOUND, "no GGUF file");
    s.body = "{\"siblings\": [" SIBLING("a.gguf", "1") "," SIBLING("b.gguf", "1") "]}";
    site_expect(&s, "hf:a/b", ERR_BAD_INPUT, "--files lists them");
    site_expect(&s, "hf:a/b:Q4_K_M", ERR_NOT_FOUND, "no GGUF file of type Q4_K_M");
    s.body = "<html>";
    site_expect(&s, "hf:a/b", ERR_PROTOCOL, "no list of files");
    s.body = "{\"siblings\": [" SIBLING("a.gguf", "1") "], \"siblings\": []}";
    site_expect(&s, "hf:a/b", ERR_PROTOCOL, "no list of files");
    site_stop(&s);
}

static void test_list(void **state)
{
    struct pull_site s;
    struct listing l;
    char type[REFERENCE_PART_MAX + 1];
    (void)state;
    site_start(&s, respond_hub);
    s.body = several;
    s.o.what = "hf:a/b";
    assert_int_equal(pull_list(&s.o, &l, &s.e), 0);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.rows[0].file, "BF16/m-BF16-00001-of-00003.gguf");
    assert_int_equal(l.rows[0].parts, PARTS);
    assert_int_equal(l.rows[0].size, 60);
    listing_type(&l.rows[0], type);
    assert_string_equal(type, "BF16");
    listing_type(&l.rows[1], type);
    assert_string_equal(type, "Q4_K_M");
    listing_release(&l);
    s.body = "{\"siblings\": [" SIBLING("a\\u001b[31m.gguf", "1") "," SIBLING(
        "../../b.gguf", "1") "," SIBLING("c/./d.gguf", "1") "," SIBLING("ok.gguf", "1") "]}";
    s.o.what = "hf:a/b";
    assert_int_equal(pull_list(&s.o, &l, &s.e), 0);
    assert_int_equal(l.n, 1); /* what could steer a terminal, or leave the repository */
    assert_string_equal(l.rows[0].file, "ok.gguf");
    listing_release(&l);
    s.o.what = "https://hub.example/m.gguf";
    assert_int_equal(pull_list(&s.o, &l, &s.e), ERR_BAD_INPUT);
    site_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),        cmocka_unit_test(test_split_faults),
        cmocka_unit_test(test_hub),          cmocka_unit_test(test_hub_digest),
        cmocka_unit_test(test_split_update), cmocka_unit_test(test_hub_refuses),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
