/*
 * template_family: the table of chat template families, and how a Jinja text is recognised.
 *
 * The text is never interpreted. It is copied with its escapes resolved and one kind of quotes, so
 * that the marks of a family need one spelling; what a family leaves open (a default system
 * message, say) is then looked up in it.
 */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/text/template_impl.h"

enum { JINJA_MAX = 1 << 20 };

#define CHATML                                                                                     \
    .frames = {{"<|im_start|>system\n", "<|im_end|>\n", false},                                    \
               {"<|im_start|>user\n", "<|im_end|>\n", false},                                      \
               {"<|im_start|>assistant\n", "<|im_end|>\n", false}},                                \
    .generate = "<|im_start|>assistant\n"

#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3_TURNS(head)                                                                         \
    .frames = {{HEADER("system") head, "<|eot_id|>", true},                                        \
               {HEADER("user"), "<|eot_id|>", true},                                               \
               {HEADER("assistant"), "<|eot_id|>", true}},                                         \
    .generate = HEADER("assistant")

#define GEMMA(head)                                                                                \
    .frames = {{"", head, false},                                                                  \
               {"<start_of_turn>user\n", "<end_of_turn>\n", true},                                 \
               {"<start_of_turn>model\n", "<end_of_turn>\n", true}},                               \
    .generate = "<start_of_turn>model\n", .alternates = true

#define ROLE(name) "<|start_of_role|>" name "<|end_of_role|>"
#define USER_MARK "<\357\275\234User\357\275\234>"
#define ASSISTANT_MARK "<\357\275\234Assistant\357\275\234>"
#define SENTENCE_END "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>"

/* Recognised in this order: the special before the general. */
static const struct family families[] = {
    {.name = "qwen3",
     .marks = {"<|im_start|>", "last_query_index", "</think>"},
     .unless = {"<function=", "vision_start", "bos_token"},
     CHATML,
     .thoughts = THOUGHTS_QWEN3},
    {.name = "qwq",
     .marks = {"<|im_start|>", "content.split('</think>')[-1].lstrip('\n')", "not loop.last"},
     .unless = {"last_query_index", "strftime_now"},
     CHATML,
     .thoughts = THOUGHTS_QWQ},
    {.name = "qwen2.5", /* by name; files are recognised as ChatML with a default */
     .by_name = true,
     CHATML,
     .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {.name = "smollm2",
     .by_name = true,
     CHATML,
     .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {.name = "chatml",
     .marks = {"<|im_start|>"},
     .unless = {"<|im_sep|>", "strftime_now", "think", "vision_start", "function calling AI"},
     CHATML},
    {.name = "chatml", /* with a way to close a thought before it begins */
     .marks = {"<|im_start|>", "enable_thinking", "<think>\n\n</think>\n\n"},
     .unless = {"<|im_sep|>", "strftime_now", "split", "reasoning", "[INST]"},
     CHATML},
    {.name = "phi4",
     .marks = {"<|im_start|>", "<|im_sep|>"},
     .unless = {"<think>", "im_system"},
     .frames = {{"<|im_start|>system<|im_sep|>", "<|im_end|>", false},
                {"<|im_start|>user<|im_sep|>", "<|im_end|>", false},
                {"<|im_start|>assistant<|im_sep|>", "<|im_end|>", false}},
     .generate = "<|im_start|>assistant<|im_sep|>"},
    {.name = "phi4-mini",
     .marks = {"<|assistant|>", "'|>' + message['content'] + '<|end|>'"},
     .frames = {{"<|system|>", "<|end|>", false},
                {"<|user|>", "<|end|>", false},
                {"<|assistant|>", "<|end|>", false}},
     .generate = "<|assistant|>",
     .finish = EOS},
    {.name = "llama3.1",
     .marks = {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date"},
     .unless = {"<function=", "functionary"},
     LLAMA3_TURNS("Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"),
     .default_system = "",
     .system = SYSTEM_FIRST,
     .begins_bos = true},
    {.name = "llama3",
     .marks = {"<|start_header_id|>", "<|eot_id|>"},
     .unless = {"tools", "functions", "strftime_now"},
     LLAMA3_TURNS("")},
    {.name = "phi3",
     .marks = {"<|assistant|>", "<|end|>"},
     .unless = {"[BEGIN FINAL RESPONSE]", "strftime_now"},
     .frames = {{"<|system|>\n", "<|end|>\n", false},
                {"<|user|>\n", "<|end|>\n", false},
                {"<|assistant|>\n", "<|end|>\n", false}},
     .generate = "<|assistant|>\n",
     .finish = EOS},
    {.name = "olmo2",
     .marks = {"'<|user|>\n' + message['content'] + '\n'", "<|assistant|>", "eos_token"},
     .frames = {{"<|system|>\n", "\n", false},
                {"<|user|>\n", "\n", false},
                {"<|assistant|>\n", EOS "\n", false}},
     .generate = "<|assistant|>\n",
     .last_after = EOS},
    {.name = "zephyr",
     .marks = {"<|user|>", "<|assistant|>", "eos_token"},
     .unless = {"[gMASK]", "<|end|>", "strftime_now"},
     .frames = {{"<|system|>\n", EOS "\n", false},
                {"<|user|>\n", EOS "\n", false},
                {"<|assistant|>\n", EOS "\n", false}},
     .generate = "<|assistant|>\n"},
    {.name = "gemma3",
     .marks = {"<start_of_turn>", "first_user_prefix"},
     GEMMA("\n\n"),
     .system = SYSTEM_FIRST_USER},
    {.name = "gemma", .marks = {"<start_of_turn>"}, GEMMA(""), .system = SYSTEM_NEVER},
    {.name = "granite",
     .marks = {"<|start_of_role|>", "<|end_of_role|>"},
     .frames = {{ROLE("system"), "<|end_of_text|>\n", false},
                {ROLE("user"), "<|end_of_text|>\n", false},
                {ROLE("assistant"), "<|end_of_text|>\n", false}},
     .generate = ROLE("assistant")},
    {.name = "deepseek",
     .marks = {USER_MARK "' + message['content']}}", "ns.system_prompt", "split('</think>')[-1]"},
     .unless = {"thinking is defined", "is_first_sp"},
     .frames = {{"", "", false}, {USER_MARK, "", false}, {ASSISTANT_MARK, SENTENCE_END, false}},
     .generate = ASSISTANT_MARK,
     .system = SYSTEM_FIRST,
     .thoughts = THOUGHTS_DEEPSEEK,
     .begins_bos = true},
    {.name = "mistral-v7-tekken",
     .marks = {"[INST]", "'[SYSTEM_PROMPT]'"},
     .unless = {"[THINK]"},
     .frames = {{"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", false},
                {"[INST]", "[/INST]", false},
                {"", EOS, false}},
     .generate = "",
     .system = SYSTEM_FIRST,
     .alternates = true,
     .begins_bos = true},
    {.name = "mistral-v7",
     .marks = {"[INST]", "[SYSTEM_PROMPT] "},
     .unless = {"[THINK]"},
     .frames = {{"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]", false},
                {"[INST] ", "[/INST]", false},
                {" ", EOS, false}},
     .generate = "",
     .system = SYSTEM_FIRST,
     .alternates = true,
     .begins_bos = true},
    {.name = "llama2",
     .marks = {"[INST]", "<<SYS>>"},
     .unless = {"elif true == true", "range("},
     .frames = {{"<<SYS>>\n", "\n<</SYS>>\n\n", false},
                {BOS "[INST] ", " [/INST]", true},
                {" ", " " EOS, true}},
     .generate = "",
     .system = SYSTEM_FIRST_USER,
     .alternates = true,
     .message_bos = true,
     .trims_whole = true},
    {.name = "mistral-v1",
     .marks = {"' [INST] ' + system_message"},
     .frames = {{"", "\n\n", false}, {" [INST] ", " [/INST]", false}, {" ", EOS, false}},
     .generate = "",
     .system = SYSTEM_FIRST_USER,
     .alternates = true,
     .begins_bos = true},
    {.name = "mistral-v3-tekken",
     .marks = {"'[INST]' + system_message", "[AVAILABLE_TOOLS]"},
     .frames = {{"", "\n\n", false}, {"[INST]", "[/INST]", false}, {"", EOS, false}},
     .generate = "",
     .system = SYSTEM_LAST_USER,
     .alternates = true,
     .begins_bos = true},
    {.name = "mistral-v3",
     .marks = {"[INST] ", "+ '[/INST]'"},
     .unless = {" [/INST]"},
     .frames = {{"", "\n\n", false}, {"[INST] ", "[/INST]", false}, {" ", EOS, true}},
     .generate = "",
     .system = SYSTEM_LAST_USER,
     .alternates = true,
     .begins_bos = true},
    {.name = "mistral-v0.1",
     .marks = {"'[INST] ' + message['content'] + ' [/INST]'", "eos_token + ' '"},
     .frames = {{"", "", false}, {"[INST] ", " [/INST]", false}, {"", EOS " ", false}},
     .generate = "",
     .system = SYSTEM_NEVER,
     .alternates = true,
     .begins_bos = true},
    {.name = "mistral",
     .marks = {"'[INST] ' + message['content'] + ' [/INST]'"},
     .frames = {{"", "", false}, {"[INST] ", " [/INST]", false}, {"", EOS, false}},
     .generate = "",
     .system = SYSTEM_NEVER,
     .alternates = true,
     .begins_bos = true},
};
enum { FAMILIES = sizeof families / sizeof *families };

const struct family *family_find(const char *name)
{
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    return NULL;
}

void family_list(char out[FAMILIES_TEXT_MAX])
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < FAMILIES; i++) {
        size_t n = strlen(families[i].name);
        if (at + n + 3 >= FAMILIES_TEXT_MAX) return;
        if (family_find(families[i].name) != &families[i]) continue; /* a name's second row */
        if (i > 0) {
            memcpy(out + at, ", ", 2);
            at += 2;
        }
        memcpy(out + at, families[i].name, n + 1);
        at += n;
    }
}

/* Backslash and n become a newline, double quotes single ones. */
static int normalise(struct gguf_str jinja, struct buf *out)
{
    int code = 0;
    for (size_t i = 0; i < jinja.len && code == 0; i++) {
        char c = jinja.data[i];
        if (c == '\\' && i + 1 < jinja.len && jinja.data[i + 1] == 'n') {
            c = '\n';
            i++;
        }
        code = buf_putc(out, c == '"' ? '\'' : c);
    }
    return code;
}

static const char *find(const struct buf *text, const char *mark)
{
    return text->len ? memmem(text->data, text->len, mark, strlen(mark)) : NULL;
}

static bool matches(const struct family *f, const struct buf *text)
{
    for (int i = 0; i < MARKS_MAX && f->marks[i]; i++)
        if (!find(text, f->marks[i])) return false;
    for (int i = 0; i < UNLESS_MAX && f->unless[i]; i++)
        if (find(text, f->unless[i])) return false;
    return true;
}

/* The text between `before` and `after`, when it is one plain string of the template. */
static void take_default(struct chat_template *t, const struct buf *text, const char *before,
                         const char *after)
{
    const char *at = text->data, *end = text->data + text->len;
    size_t n = strlen(before);
    while ((at = memmem(at, (size_t)(end - at), before, n)) != NULL) {
        at += n;
        const char *stop = memmem(at, (size_t)(end - at), after, strlen(after));
        if (!stop) return;
        size_t len = (size_t)(stop - at);
        if (len >= DEFAULT_SYSTEM_MAX || memchr(at, '\'', len) || memchr(at, '\\', len)) continue;
        memcpy(t->default_system, at, len);
        t->default_system[len] = 0;
        t->has_default = true;
        return;
    }
}

static void look_up_details(struct chat_template *t, const struct buf *text)
{
    const struct family *f = t->family;
    t->begins_bos = !f->message_bos && (f->begins_bos || find(text, "bos_token"));
    t->skips_empty_system = find(text, "'system' and message['content']") != NULL;
    t->opens_thought =
        find(text, "<|im_start|>assistant\n<think>\n'") || find(text, ASSISTANT_MARK "<think>\n'");
    t->can_close_thought = !t->opens_thought && find(text, "'<think>\n\n</think>\n\n'");
    t->skips_empty_first = find(text, "if ns.system_message %}") ||
                           find(text, "if system_prompt %}") ||
                           find(text, "if ns.system_prompt -%}");
    if (strncmp(f->frames[SYSTEM].before, "<|im_start|>system\n", 19) == 0)
        take_default(t, text, "<|im_start|>system\n", "<|im_end|>\n'");
    if (find(text, "g4_default_system_message")) {
        take_default(t, text, "default_system_message = '", "'");
        t->fills_empty_system = t->has_default;
        t->skips_empty_first = t->has_default;
    }
}

int family_recognise(struct gguf_str jinja, struct chat_template *t, bool *ret_known)
{
    struct buf text;
    buf_init(&text, JINJA_MAX);
    int code = normalise(jinja, &text);
    *ret_known = false;
    for (int i = 0; i < FAMILIES && code == 0 && !*ret_known; i++) {
        if (families[i].by_name || !matches(&families[i], &text)) continue;
        t->family = &families[i];
        look_up_details(t, &text);
        *ret_known = true;
    }
    buf_release(&text);
    return code == ERR_LIMIT ? 0 : code;
}
