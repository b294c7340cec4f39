/*
 * pretok: the pre-tokenisers of byte-level BPE vocabularies, as regular expressions run by PCRE2.
 *
 * A pre-tokeniser is a list of patterns. The first cuts the text into matches and the gaps between
 * them; each next one cuts every piece so far again, knowing nothing of its surroundings. Patterns
 * are those that the models were trained with (`tokenizer.ggml.pre` names them).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "model/text/vocab_impl.h"

/* What the models' patterns are made of: runs of letters, contractions, numbers, the rest. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define OTHER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTION "|" WORD "\\p{N}{1,3}" OTHER SPACES
#define QWEN2 CONTRACTION "|" WORD "\\p{N}" OTHER SPACES
/* Words that change from capitals to small letters once: "HelloWorld" is two. */
#define CAPITAL "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(end)                                                                                 \
    "[^\\r\\n\\p{L}\\p{N}]?" CAPITAL "*" SMALL "+" end "|[^\\r\\n\\p{L}\\p{N}]?" CAPITAL "+" SMALL \
    "*" end "|"
#define GPT4O CASED(CONTRACTION "?") "\\p{N}{1,3}" OTHER_PATHS SPACES
#define OTHER_PATHS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define DEEPSEEK3                                                                                  \
    "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",                 \
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"       \
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES

enum {
    PATTERNS_MAX = 5,
    MATCH_LIMIT = 1 << 30,
    COMPILE_NO_MEMORY = 121 /* PCRE2 has no name for it */
};

static const struct row {
    const char *name;
    const char *patterns[PATTERNS_MAX];
    bool whole_words, adds_bos;
} table[] = {
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false},
    {"gpt-2", {GPT2}, false, false},
    {"phi-2", {GPT2}, false, false},
    {"olmo", {GPT2}, false, false},
    {"jais", {GPT2}, false, false},
    {"jina-es", {GPT2}, false, false},
    {"jina-de", {GPT2}, false, false},
    {"jina-v2-es", {GPT2}, false, false},
    {"jina-v2-de", {GPT2}, false, false},
    {"a.x-4.0", {GPT2}, false, false},
    {"mellum", {GPT2}, false, false},
    {"modern-bert", {GPT2}, false, false},
    {"mpt", {GPT2}, false, false},
    {"gigachat", {GPT2}, false, false},
    {"exaone4", {GPT2}, false, false},
    {"trillion", {GPT2}, false, false},
    {"granite-docling", {GPT2}, false, false},
    {"smollm", {"\\p{N}", GPT2}, false, false},
    {"starcoder", {"\\p{N}", GPT2}, false, false},
    {"refact", {"\\p{N}", GPT2}, false, false},
    {"command-r", {"\\p{N}", GPT2}, false, false},
    {"codeshell", {"\\p{N}", GPT2}, false, false},
    {"exaone", {"\\p{N}", GPT2}, false, false},
    {"minerva-7b", {"\\p{N}", GPT2}, false, false},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}, false, false},
    {"llama-bpe", {LLAMA3}, true, true},
    {"llama3", {LLAMA3}, true, true},
    {"llama-v3", {LLAMA3}, true, true},
    {"falcon3", {LLAMA3}, true, true},
    {"falcon-h1", {LLAMA3}, true, true},
    {"pixtral", {LLAMA3}, true, true},
    {"lfm2", {LLAMA3}, true, true},
    {"jina-v5-nano", {LLAMA3}, true, true},
    {"midm-2.0", {LLAMA3}, true, true},
    {"dbrx", {LLAMA3}, false, false},
    {"smaug-bpe", {LLAMA3}, false, false},
    {"glm4", {LLAMA3}, false, false},
    {"chatglm-bpe", {LLAMA3}, false, false},
    {"qwen2", {QWEN2}, false, false},
    {"kormo", {QWEN2}, false, false},
    {"f2llmv2", {QWEN2}, false, false},
    {"grok-2", {QWEN2}, false, false},
    {"deepseek-r1-qwen", {QWEN2}, false, false},
    {"megrez", {QWEN2}, false, false},
    {"stablelm2", {QWEN2}, false, false},
    {"hunyuan", {QWEN2}, false, false},
    {"solar-open", {QWEN2}, false, false},
    {"tekken", {CASED("") "\\p{N}" OTHER_PATHS SPACES}, true, true},
    {"gpt-4o", {GPT4O}, false, false},
    {"llama4", {GPT4O}, false, false},
    {"kanana2", {GPT4O}, false, false},
    {"talkie", {GPT4O}, false, false},
    {"minimax-m2", {GPT4O}, false, false},
    {"seed-coder",
     {CONTRACTION "|" WORD "\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SPACES},
     false,
     false},
    {"deepseek-v3", {DEEPSEEK3}, false, false},
    {"hunyuan-dense", {DEEPSEEK3}, false, false},
    {"joyai-llm", {DEEPSEEK3}, false, false},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
      "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", "\\p{N}"},
     false,
     false},
};

struct pretok {
    const struct row *row;
    pcre2_general_context *memory;
    pcre2_compile_context *compiling;
    pcre2_code *codes[PATTERNS_MAX];
    pcre2_match_context *limits;
    uint32_t n;
};

/* PCRE2 allocates by base/mem, so that its failures are tested too. */
static void *take(size_t size, void *unused)
{
    (void)unused;
    return mem_alloc(size);
}

static void give(void *memory, void *unused)
{
    (void)unused;
    mem_free(memory);
}

void pretok_close(struct pretok *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_match_context_free(p->limits);
    pcre2_compile_context_free(p->compiling);
    pcre2_general_context_free(p->memory);
    mem_free(p);
}

bool pretok_whole_words(const struct pretok *p)
{
    return p->row->whole_words;
}

bool pretok_adds_bos(const struct pretok *p)
{
    return p->row->adds_bos;
}

static int compile(struct pretok *p, const char *pattern, struct err *e)
{
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &number, &offset, p->compiling);
    if (!code && number == COMPILE_NO_MEMORY)
        return err_set(e, ERR_NO_MEMORY, "no memory for a pre-tokeniser");
    if (!code)
        return err_set(e, ERR_INTERNAL, "PCRE2 refuses a pre-tokeniser (error %d at %zu)", number,
                       offset);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without JIT it is slower, not wrong */
    p->codes[p->n++] = code;
    return 0;
}

static int find_row(struct gguf_str name, const char *file, size_t *ret_row, struct err *e)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strlen(table[i].name) == name.len && memcmp(table[i].name, name.data, name.len) == 0) {
            *ret_row = i;
            return 0;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tokenizer.ggml.pre \"%s\" is not a pre-tokeniser we know", file,
                   gguf_show(name).text);
}

int pretok_open(struct gguf_str name, const char *file, struct pretok **ret_pretok, struct err *e)
{
    size_t row = 0;
    int code = find_row(name, file, &row, e);
    if (code) return code;
    struct pretok *p = mem_calloc(1, sizeof *p);
    if (!p || !(p->memory = pcre2_general_context_create(take, give, NULL)) ||
        !(p->compiling = pcre2_compile_context_create(p->memory)) ||
        !(p->limits = pcre2_match_context_create(p->memory))) {
        pretok_close(p);
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for a pre-tokeniser", file);
    }
    p->row = &table[row];
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    for (int i = 0; i < PATTERNS_MAX && table[row].patterns[i] && code == 0; i++)
        code = compile(p, table[row].patterns[i], e);
    if (code)
        pretok_close(p);
    else
        *ret_pretok = p;
    return code;
}

struct split {
    const struct pretok *p;
    pcre2_match_data *found[PATTERNS_MAX];
    pretok_fn *fn;
    void *arg;
    struct err *e;
};

static int match_at(const struct split *s, uint32_t level, const char *text, size_t n, size_t at)
{
    int r = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK,
                        s->found[level], s->p->limits);
    if (r == PCRE2_ERROR_JIT_STACKLIMIT)
        r = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text, n, at,
                        PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->found[level], s->p->limits);
    return r;
}

static int split_level(struct split *s, uint32_t level, const char *text, size_t n);

static int pass_on(struct split *s, uint32_t level, const char *text, size_t n)
{
    if (n == 0) return 0;
    return level + 1 < s->p->n ? split_level(s, level + 1, text, n) : s->fn(s->arg, text, n);
}

/* Recursion over the list of patterns: at most PATTERNS_MAX deep. */
static int split_level(struct split *s, uint32_t level, const char *text, size_t n)
{
    size_t at = 0, done = 0;
    while (at < n) {
        int r = match_at(s, level, text, n, at);
        if (r == PCRE2_ERROR_NOMATCH) break;
        if (r == PCRE2_ERROR_NOMEMORY)
            return err_set(s->e, ERR_NO_MEMORY, "no memory for a pre-tokeniser");
        if (r < 0) return err_set(s->e, ERR_LIMIT, "PCRE2 gives up on the text (error %d)", r);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->found[level]);
        size_t from = span[0], to = span[1];
        if (to <= from) break;
        int code = pass_on(s, level, text + done, from - done);
        if (code == 0) code = pass_on(s, level, text + from, to - from);
        if (code) return code;
        at = done = to;
    }
    return pass_on(s, level, text + done, n - done);
}

int pretok_split(const struct pretok *p, const char *text, size_t n, pretok_fn *fn, void *arg,
                 struct err *e)
{
    struct split s = {.p = p, .fn = fn, .arg = arg, .e = e};
    int code = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        s.found[i] = pcre2_match_data_create(1, p->memory);
        if (!s.found[i]) code = err_set(e, ERR_NO_MEMORY, "no memory for a pre-tokeniser");
    }
    if (code == 0) code = split_level(&s, 0, text, n);
    for (uint32_t i = 0; i < p->n; i++)
        pcre2_match_data_free(s.found[i]);
    return code;
}
