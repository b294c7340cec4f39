/* chat_options: see chat_options.h. */
#include "cli/chat_options.h"
#include "cli/engine_open.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"

static const char help[] =
    "usage: pdd chat [--cloud URL] [OPTION]...\n"
    "Ask a model. With a cloud the answer begins there and is finished on this device.\n"
    "Without --prompt or --prompt-file it is a conversation; Ctrl-C stops an answer, Ctrl-D (or\n"
    "Ctrl-C twice at the prompt) leaves.\n\n"
    "  --model FILE          the device's GGUF file (the newest in models/ beside the program)\n"
    "  --no-model            no engine on the device: the cloud does everything\n"
    "  --cloud URL           the cloud, as http://127.0.0.1:8080\n"
    "  --key-file FILE       its bearer key, on the first line\n"
    "  --ca-file FILE        certificates to trust, instead of the system's\n"
    "  --cloud-model NAME    the model to ask for (whatever it serves)\n"
    "  --local-only          the device alone; no socket is opened\n"
    "  --cloud-only          the cloud alone\n"
    "  --cloud-tokens N      ask the cloud for exactly N tokens (as planned)\n"
    "  --profile NAME        emulate the speed of a device, said in the report\n"
    "  --prompt TEXT         one question, then leave\n"
    "  --prompt-file FILE    the same from a file; - is standard input\n"
    "  --system TEXT         system message of the conversation\n"
    "  --raw                 the prompt as it is, without chat template\n"
    "  --max-tokens N        length of an answer at most (512)\n"
    "  --temperature T, --top-k N, --top-p P, --min-p P, --repeat-penalty R, --seed N\n"
    "                        sampling (greedy: temperature 0)\n"
    "  --pace MODE           smooth, off or reading (smooth)\n"
    "  --threads N           compute threads (all CPUs)\n"
    "  --context N           positions of a conversation (the model's)\n"
    "  --chat-template NAME  family of the chat template, when the file's is unknown\n"
    "  --isa NAME            scalar, avx2, avxvnni, avx512, amx, neon, neondot (the best here)\n"
    "  --kv-type TYPE        keys and values as i16, f16, or q8_0 (half the memory); exact only\n"
    "                        with the same on both ends (i16; f16 if heads do not suit it)\n"
    "  --no-think            answers begin without a thought, where the template can say so\n"
    "  --stats               a report after each answer, on standard error\n"
    "  --stats-json FILE     the same with every token's times and source, one line an answer\n"
    "  --color MODE          auto, always or never: tokens coloured by source (auto)\n"
    "  --fake N              no model: made-up answers of N tokens, for tests\n";

enum {
    O_MODEL = 256,
    O_NO_MODEL,
    O_CLOUD,
    O_KEY,
    O_CA,
    O_CLOUD_MODEL,
    O_LOCAL_ONLY,
    O_CLOUD_ONLY,
    O_CLOUD_TOKENS,
    O_PROFILE,
    O_PROMPT,
    O_PROMPT_FILE,
    O_SYSTEM,
    O_RAW,
    O_MAX_TOKENS,
    O_TEMPERATURE,
    O_TOP_K,
    O_TOP_P,
    O_MIN_P,
    O_REPEAT,
    O_SEED,
    O_PACE,
    O_THREADS,
    O_CONTEXT,
    O_TEMPLATE,
    O_NO_THINK,
    O_ISA,
    O_KV_TYPE,
    O_STATS,
    O_STATS_JSON,
    O_COLOR,
    O_FAKE,
    O_HELP
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, O_MODEL},
    {"no-model", no_argument, NULL, O_NO_MODEL},
    {"cloud", required_argument, NULL, O_CLOUD},
    {"key-file", required_argument, NULL, O_KEY},
    {"ca-file", required_argument, NULL, O_CA},
    {"cloud-model", required_argument, NULL, O_CLOUD_MODEL},
    {"local-only", no_argument, NULL, O_LOCAL_ONLY},
    {"cloud-only", no_argument, NULL, O_CLOUD_ONLY},
    {"cloud-tokens", required_argument, NULL, O_CLOUD_TOKENS},
    {"profile", required_argument, NULL, O_PROFILE},
    {"prompt", required_argument, NULL, O_PROMPT},
    {"prompt-file", required_argument, NULL, O_PROMPT_FILE},
    {"system", required_argument, NULL, O_SYSTEM},
    {"raw", no_argument, NULL, O_RAW},
    {"max-tokens", required_argument, NULL, O_MAX_TOKENS},
    {"temperature", required_argument, NULL, O_TEMPERATURE},
    {"top-k", required_argument, NULL, O_TOP_K},
    {"top-p", required_argument, NULL, O_TOP_P},
    {"min-p", required_argument, NULL, O_MIN_P},
    {"repeat-penalty", required_argument, NULL, O_REPEAT},
    {"seed", required_argument, NULL, O_SEED},
    {"pace", required_argument, NULL, O_PACE},
    {"threads", required_argument, NULL, O_THREADS},
    {"context", required_argument, NULL, O_CONTEXT},
    {"chat-template", required_argument, NULL, O_TEMPLATE},
    {"no-think", no_argument, NULL, O_NO_THINK},
    {"isa", required_argument, NULL, O_ISA},
    {"kv-type", required_argument, NULL, O_KV_TYPE},
    {"stats", no_argument, NULL, O_STATS},
    {"stats-json", required_argument, NULL, O_STATS_JSON},
    {"color", required_argument, NULL, O_COLOR},
    {"fake", required_argument, NULL, O_FAKE},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static const char *name_of(int option)
{
    return long_options[option - O_MODEL].name;
}

static int number(int option, uint32_t low, uint32_t high, uint32_t *ret_value)
{
    return option_u32("chat", name_of(option), optarg, low, high, ret_value);
}

static int fraction(int option, float low, float high, float *ret_value)
{
    return option_float("chat", name_of(option), optarg, low, high, ret_value);
}

/* One of three words: its number, or -1 when it is none of them. */
static int word(int option, const char *const words[3], int *ret_index)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(optarg, words[i]) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    fprintf(stderr, "pdd chat: --%s is \"%s\": %s, %s or %s is needed\n", name_of(option), optarg,
            words[0], words[1], words[2]);
    return -1;
}

static int set_sampling(struct chat_options *o, int option)
{
    uint32_t n = 0;
    int bad;
    switch (option) {
    case O_TEMPERATURE:
        return fraction(option, 0.0f, 100.0f, &o->sampling.temperature);
    case O_TOP_K:
        return number(option, 0, 1 << 24, &o->sampling.top_k);
    case O_TOP_P:
        return fraction(option, 1e-6f, 1.0f, &o->sampling.top_p);
    case O_MIN_P:
        return fraction(option, 0.0f, 0.999999f, &o->sampling.min_p);
    case O_REPEAT:
        return fraction(option, 0.01f, 100.0f, &o->sampling.repeat_penalty);
    default:
        bad = number(option, 0, UINT32_MAX, &n);
        o->sampling.seed = n;
        return bad;
    }
}

static int set_mode(struct chat_options *o, enum device_mode mode)
{
    if (o->mode != DEVICE_AUTO && o->mode != mode) {
        fprintf(stderr, "pdd chat: --local-only and --cloud-only exclude each other\n");
        return -1;
    }
    o->mode = mode;
    return 0;
}

static int set_way(struct chat_options *o, int option)
{
    static const char *const paces[3] = {"smooth", "off", "reading"};
    static const char *const colors[3] = {"auto", "always", "never"};
    int choice = 0, bad;
    uint32_t n = 0;
    switch (option) {
    case O_LOCAL_ONLY:
        return set_mode(o, DEVICE_LOCAL_ONLY);
    case O_CLOUD_ONLY:
        return set_mode(o, DEVICE_CLOUD_ONLY);
    case O_CLOUD_TOKENS:
        bad = number(option, 0, TURN_ANSWER_MAX, &n);
        o->cloud_tokens = n;
        return bad;
    case O_PACE:
        bad = word(option, paces, &choice);
        o->pace = (enum pace_mode)choice;
        return bad;
    case O_COLOR:
        bad = word(option, colors, &choice);
        o->color = (enum chat_color)choice;
        return bad;
    case O_FAKE:
        o->fake = true;
        return number(option, 0, 1 << 20, &o->fake_tokens);
    case O_MAX_TOKENS:
        return number(option, 1, TURN_ANSWER_MAX, &o->tokens_max);
    case O_THREADS:
        return number(option, 1, 256, &o->native.threads);
    case O_KV_TYPE:
        return option_kv_type("chat", optarg, &o->native.kv_type);
    case O_ISA:
        return option_isa("chat", optarg, &o->native.isa);
    case O_CONTEXT:
        return number(option, 2, 1 << 24, &o->native.context_max);
    default:
        return set_sampling(o, option);
    }
}

static int set_option(struct chat_options *o, int option)
{
    const char **text = option == O_MODEL         ? &o->native.model_path
                        : option == O_CLOUD       ? &o->cloud_url
                        : option == O_KEY         ? &o->key_file
                        : option == O_CA          ? &o->ca_file
                        : option == O_CLOUD_MODEL ? &o->cloud_model
                        : option == O_PROFILE     ? &o->profile
                        : option == O_PROMPT      ? &o->prompt
                        : option == O_PROMPT_FILE ? &o->prompt_file
                        : option == O_SYSTEM      ? &o->system
                        : option == O_TEMPLATE    ? &o->native.chat_template
                        : option == O_STATS_JSON  ? &o->stats_json
                                                  : NULL;
    bool *flag = option == O_NO_MODEL   ? &o->no_model
                 : option == O_RAW      ? &o->raw
                 : option == O_NO_THINK ? &o->native.no_think
                 : option == O_STATS    ? &o->stats
                                        : NULL;
    if (text)
        *text = optarg;
    else if (flag)
        *flag = true;
    else
        return set_way(o, option);
    return 0;
}

static int check(const struct chat_options *o)
{
    const char *wrong = NULL;
    if (o->prompt && o->prompt_file)
        wrong = "--prompt and --prompt-file exclude each other";
    else if (o->no_model && (o->native.model_path || o->fake))
        wrong = "--no-model and --model exclude each other";
    else if (o->mode == DEVICE_CLOUD_ONLY && !o->cloud_url)
        wrong = "--cloud-only needs --cloud URL";
    else if (o->mode == DEVICE_LOCAL_ONLY && o->no_model)
        wrong = "--local-only needs a model on the device";
    else if (o->no_model && !o->cloud_url)
        wrong = "--no-model needs --cloud URL";
    else if (o->raw && o->system)
        wrong = "--system is of no use with --raw: there is no chat template";
    if (wrong) fprintf(stderr, "pdd chat: %s; see pdd chat --help\n", wrong);
    return wrong ? -1 : 0;
}

int chat_options_parse(int argc, char **argv, struct chat_options *o, int *ret_status)
{
    int option;
    *o = (struct chat_options){.cloud_tokens = -1, .sampling = SAMPLING_GREEDY};
    *ret_status = EXIT_USAGE;
    while ((option = option_next(argc, argv, "", long_options)) != -1) {
        if (option == O_HELP) {
            fputs(help, stdout);
            *ret_status = EXIT_DONE;
            return -1;
        }
        if (option == '?' || set_option(o, option)) return -1; /* what is wrong has been said */
    }
    if (optind < argc) {
        fprintf(stderr, "pdd chat: \"%s\" is no option; see pdd chat --help\n", argv[optind]);
        return -1;
    }
    return check(o);
}
