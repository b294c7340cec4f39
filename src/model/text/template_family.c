/*
 * template_family: chat templates of our own, by the names of families. They write what the
 * family's published templates write for texts, without tools; where a published one names today's
 * date, Llama 3.1's own fallback date stands.
 */
#include <string.h>

#include "model/text/template_impl.h"

#define EACH "{% for m in messages %}"
#define END "{% endfor %}"
#define OPEN(text) "{% if add_generation_prompt %}{{ '" text "' }}{% endif %}"
#define RAISE(text) "{{ raise_exception('messages[' ~ loop.index0 ~ ']: " text "') }}"

#define SYSTEM_FIRST                                                                               \
    EACH "{% if m.role == 'system' and loop.index0 > 0 %}" RAISE(                                  \
        "a system message can only come first") "{% endif %}" END

/* User and assistant by turns, perhaps after a system message. */
#define ALTERNATES(name)                                                                           \
    SYSTEM_FIRST                                                                                   \
    "{% set first = 1 if messages[0].role == 'system' else 0 %}" EACH                              \
    "{% if m.role != 'system' and (m.role == 'user') != ((loop.index0 - first) % 2 == 0) "         \
    "%}" RAISE("chat template " name                                                               \
               " wants user and assistant in turns, the user first") "{% endif %}" END

#define NO_SYSTEM(name)                                                                            \
    EACH "{% if m.role == 'system' %}" RAISE(                                                      \
        "chat template " name " has no place for a system message") "{% endif %}" END

/* `head` is what stands in front of the first question. */
#define SYSTEM_IN_QUESTION(name)                                                                   \
    ALTERNATES(name)                                                                               \
    "{% if messages[0].role == 'system' and messages|length == 1 %}{{ raise_exception("            \
    "'messages[1]: template " name                                                                 \
    " needs a user message after the system message') }}{% endif %}"                               \
    "{% set system = messages[0].content if messages[0].role == 'system' else none %}"             \
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"

#define CHATML                                                                                     \
    EACH "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}" END OPEN(           \
        "<|im_start|>assistant\\n")
#define DEFAULT_SYSTEM(text)                                                                       \
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" text                          \
    "<|im_end|>\\n' }}{% endif %}"

/* The last question that is no result of a tool; thoughts are written again in answers after it. */
#define QWEN3                                                                                      \
    "{% set ns = namespace(last=messages|length - 1, found=false) %}"                              \
    "{% for m in messages[::-1] %}"                                                                \
    "{% if not ns.found and m.role == 'user' and not (m.content.startswith('<tool_response>') "    \
    "and m.content.endswith('</tool_response>')) %}{% set ns.found = true %}"                      \
    "{% set ns.last = messages|length - 1 - loop.index0 %}{% endif %}" END EACH                    \
    "{{ '<|im_start|>' + m.role + '\\n' }}{% set text = m.content %}{% if m.role == 'assistant' "  \
    "%}"                                                                                           \
    "{% set thought = '' %}{% if '</think>' in text %}"                                            \
    "{% set thought = text.split('</think>')[0].rstrip('\\n').split('<think>')[-1]"                \
    ".lstrip('\\n') %}{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}"        \
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"                                    \
    "{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}"                              \
    "{% set text = text.lstrip('\\n') %}{% endif %}{% endif %}{{ text + '<|im_end|>\\n' }}" END    \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"                               \
    "{% if enable_thinking is defined and enable_thinking is false %}"                             \
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"

#define QWQ                                                                                        \
    EACH "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and not loop.last %}"   \
         "{{ m.content.split('</think>')[-1].lstrip('\\n') }}"                                     \
         "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}" END OPEN(                     \
             "<|im_start|>assistant\\n<think>\\n")

#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\\n\\n"
#define LLAMA3_TURN                                                                                \
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + "            \
    "'<|eot_id|>' }}"
#define LLAMA31                                                                                    \
    SYSTEM_FIRST                                                                                   \
    "{{ bos_token + '" HEADER(                                                                     \
        "system") "Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' }}"      \
                  "{% if messages[0].role == 'system' %}{{ messages[0].content|trim }}{% endif %}" \
                  "{{ '<|eot_id|>' }}" EACH "{% if m.role != 'system' %}" LLAMA3_TURN              \
                  "{% endif %}" END                                                                \
                  OPEN(HEADER("assistant"))

#define TAGS(text) EACH text END
#define LINE_TAGS(end) EACH "{{ '<|' + m.role + '|>\\n' + m.content + " end " + '\\n' }}" END

#define GEMMA_TURN(text)                                                                           \
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' }}" text        \
    "{{ m.content|trim + '<end_of_turn>\\n' }}"
#define GEMMA(text) text END OPEN("<start_of_turn>model\\n")

#define USER_MARK "<\357\275\234User\357\275\234>"
#define ASSISTANT_MARK "<\357\275\234Assistant\357\275\234>"
#define SENTENCE_END "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>"
#define DEEPSEEK                                                                                   \
    SYSTEM_FIRST "{{ bos_token }}" EACH "{% if m.role == 'system' %}{{ m.content }}"               \
                 "{% elif m.role == 'user' %}{{ '" USER_MARK "' + m.content }}"                    \
                 "{% else %}{{ '" ASSISTANT_MARK                                                   \
                 "' + m.content.split('</think>')[-1] + '" SENTENCE_END "' }}{% endif %}" END      \
                 OPEN(ASSISTANT_MARK)

/* Spaces around the texts differ from version to version. */
#define MISTRAL_V7(name, space)                                                                    \
    ALTERNATES(name)                                                                               \
    "{{ bos_token }}" EACH "{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT]" space                  \
    "' + m.content + '[/SYSTEM_PROMPT]' }}"                                                        \
    "{% elif m.role == 'user' %}{{ '[INST]" space "' + m.content + '[/INST]' }}"                   \
    "{% else %}{{ '" space "' + m.content + eos_token }}{% endif %}" END

/* The system message goes into the last message, if that is a question. */
#define MISTRAL_V3(name, space, answer)                                                            \
    ALTERNATES(name)                                                                               \
    "{{ bos_token }}" EACH "{% if m.role == 'user' %}{{ '[INST]" space "' }}"                      \
    "{% if loop.last and messages[0].role == 'system' %}"                                          \
    "{{ messages[0].content + '\\n\\n' }}{% endif %}{{ m.content + '[/INST]' }}"                   \
    "{% elif m.role == 'assistant' %}{{ '" space "' + " answer " + eos_token }}{% endif %}" END

#define MISTRAL(name, after)                                                                       \
    NO_SYSTEM(name)                                                                                \
    ALTERNATES(name)                                                                               \
    "{{ bos_token }}" EACH "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"     \
    "{% else %}{{ m.content + eos_token" after " }}{% endif %}" END

static const struct {
    const char *name, *text;
} families[] = {
    {"qwen3", QWEN3},
    {"qwq", QWQ},
    {"qwen2.5",
     DEFAULT_SYSTEM("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.") CHATML},
    {"smollm2",
     DEFAULT_SYSTEM("You are a helpful AI assistant named SmolLM, trained by Hugging Face") CHATML},
    {"chatml", CHATML},
    {"phi4", TAGS("{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}")
                 OPEN("<|im_start|>assistant<|im_sep|>")},
    {"phi4-mini", TAGS("{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}")
                      OPEN("<|assistant|>") "{% if not add_generation_prompt %}{{ eos_token }}"
                                            "{% endif %}"},
    {"llama3.1", LLAMA31},
    {"llama3", EACH LLAMA3_TURN END OPEN(HEADER("assistant"))},
    {"phi3", LINE_TAGS("'<|end|>'") OPEN("<|assistant|>\\n") "{% if not add_generation_prompt %}"
                                                             "{{ eos_token }}{% endif %}"},
    {"olmo2", EACH "{{ '<|' + m.role + '|>\\n' + m.content }}{% if m.role == 'assistant' %}"
                   "{{ eos_token }}{% endif %}{% if m.role != 'assistant' or not loop.last %}"
                   "{{ '\\n' }}{% endif %}" END OPEN("<|assistant|>\\n")},
    {"zephyr", LINE_TAGS("eos_token") OPEN("<|assistant|>\\n")},
    {"gemma3", SYSTEM_IN_QUESTION("gemma3") GEMMA(
                   "{% for m in rest %}" GEMMA_TURN("{% if loop.first and system is not none %}"
                                                    "{{ system + '\\n\\n' }}{% endif %}"))},
    {"gemma", NO_SYSTEM("gemma") ALTERNATES("gemma") GEMMA(EACH GEMMA_TURN(""))},
    {"granite", TAGS("{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + "
                     "'<|end_of_text|>\\n' }}") OPEN("<|start_of_role|>assistant<|end_of_role|>")},
    {"deepseek", DEEPSEEK},
    {"mistral-v7-tekken", MISTRAL_V7("mistral-v7-tekken", "")},
    {"mistral-v7", MISTRAL_V7("mistral-v7", " ")},
    {"llama2",
     SYSTEM_IN_QUESTION("llama2") "{% for m in rest %}{% if m.role == 'user' %}"
                                  "{% set text = m.content %}"
                                  "{% if loop.first and system is not none %}"
                                  "{% set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + "
                                  "m.content %}{% endif %}"
                                  "{{ bos_token + '[INST] ' + text|trim + ' [/INST]' }}{% else %}"
                                  "{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}" END},
    {"mistral-v1",
     SYSTEM_IN_QUESTION("mistral-v1") "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}"
                                      "{{ ' [INST] ' }}{% if loop.first and system is not none %}"
                                      "{{ system + '\\n\\n' }}{% endif %}"
                                      "{{ m.content + ' [/INST]' }}{% else %}"
                                      "{{ ' ' + m.content + eos_token }}{% endif %}" END},
    {"mistral-v3-tekken", MISTRAL_V3("mistral-v3-tekken", "", "m.content")},
    {"mistral-v3", MISTRAL_V3("mistral-v3", " ", "m.content|trim")},
    {"mistral-v0.1", MISTRAL("mistral-v0.1", " + ' '")},
    {"mistral", MISTRAL("mistral", "")},
};
enum { FAMILIES = sizeof families / sizeof *families };

const char *family_text(const char *name)
{
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0) return families[i].text;
    return NULL;
}

void family_list(char out[FAMILIES_TEXT_MAX])
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < FAMILIES; i++) {
        size_t n = strlen(families[i].name);
        if (at + n + 3 >= FAMILIES_TEXT_MAX) return;
        if (i > 0) {
            memcpy(out + at, ", ", 2);
            at += 2;
        }
        memcpy(out + at, families[i].name, n + 1);
        at += n;
    }
}
