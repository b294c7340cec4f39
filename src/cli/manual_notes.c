/* manual_notes: what pages tell besides options: ENVIRONMENT, FILES, EXAMPLES; see manual.h. */
#include "cli/manual.h"
#include "cli/options.h"

enum {
    MODELS = OPTIONS_BENCH | OPTIONS_CHAT | OPTIONS_CLOUD | OPTIONS_DEMO | OPTIONS_INSPECT |
             OPTIONS_TOKENIZE | OPTIONS_DETOKENIZE | OPTIONS_PERPLEXITY | OPTIONS_REFINE |
             OPTIONS_DEVICE | OPTIONS_PULL | OPTIONS_LIST | OPTIONS_RM,
    STATE = OPTIONS_CHAT | OPTIONS_DEVICE,
    CLIENTS = OPTIONS_CHAT | OPTIONS_CLOUD | OPTIONS_DEVICE | OPTIONS_PULL,
    /* These find a model when none is named. */
    DEFAULT = OPTIONS_BENCH | OPTIONS_CHAT | OPTIONS_CLOUD | OPTIONS_DEMO | OPTIONS_PERPLEXITY |
              OPTIONS_REFINE | OPTIONS_DEVICE,
    PROGRAM = 1 << 30, /* the page of `pdd` itself */
};

struct note {
    uint32_t pages;
    const char *name, *text; /* of an example: what it is for, and its lines */
};

static const struct note variables[] = {
    {PROGRAM | MODELS, "XDG_DATA_HOME",
     "Models are in $XDG_DATA_HOME/pdd/models.\nWithout it: ~/.local/share/pdd/models."},
    {PROGRAM | STATE, "XDG_STATE_HOME",
     "What is kept between runs is in $XDG_STATE_HOME/pdd.\nWithout it: ~/.local/state/pdd."},
    {OPTIONS_CHAT, "NO_COLOR",
     "When it is not empty, \\-\\-color auto shows no colors (https://no\\-color.org)."},
    {OPTIONS_CHAT, "TERM", "The kind of terminal; dumb has no colors and no line editor."},
    {CLIENTS, "http_proxy, https_proxy, all_proxy, no_proxy",
     "Proxies, as curl(1) reads them; never for addresses of this machine."},
    {OPTIONS_PULL, "HF_TOKEN, HF_TOKEN_PATH, HF_HOME",
     "The token of Hugging Face's hub, or where its file is."},
    {OPTIONS_PULL, "HF_ENDPOINT", "The URL of another hub (https://huggingface.co)."},
    {OPTIONS_CLOUD | OPTIONS_DEVICE, "NOTIFY_SOCKET",
     "systemd is told here that the server is ready, and that it stops."},
};

static const struct note files[] = {
    {PROGRAM | DEFAULT, "PREFIX/share/pdd/models/*.gguf",
     "The largest is the model when none is named.\n"
     "The package pdd\\-models has two to try things with."},
    {PROGRAM | MODELS, "~/.local/share/pdd/models", "Models that pdd model pull gives a name."},
    {PROGRAM | STATE, "~/.local/state/pdd",
     "Speeds that were measured, typed lines, and what pdd device keeps of answers."},
    {OPTIONS_CLOUD, "/etc/pdd/keys, /etc/pdd/cert.pem, /etc/pdd/key.pem",
     "Keys of users and certificate of the system's unit, pdd\\-cloud.service."},
    {OPTIONS_CLOUD, "/var/lib/pdd\\-models/model.gguf", "The model of that unit."},
    {OPTIONS_DEVICE, "~/.config/pdd/device.conf",
     "PDD_DEVICE_OPTIONS= and the options of the user's unit, pdd\\-device.service."},
    {OPTIONS_DEMO, "PREFIX/share/pdd/demo", "The document and the question of the demonstration."},
};

static const struct note examples[] = {
    {PROGRAM | OPTIONS_CHAT,
     "Talk with a model on this machine alone:", "pdd chat \\-\\-local\\-only"},
    {PROGRAM, "Serve a model, and ask it from another terminal:",
     "pdd cloud \\-\\-model model.gguf \\-\\-listen 127.0.0.1:8080\n"
     "pdd chat \\-\\-cloud http://127.0.0.1:8080 \\-\\-stats"},
    {OPTIONS_CHAT, "Ask about a document, with a report of who gave which tokens:",
     "pdd chat \\-\\-cloud http://127.0.0.1:8080 \\-\\-document book.txt \\e\n"
     "    \\-\\-prompt \"Who is in it?\" \\-\\-stats"},
    {OPTIONS_CLOUD, "Serve the programs of this machine:",
     "pdd cloud \\-\\-model model.gguf \\-\\-listen 127.0.0.1:8080"},
    {OPTIONS_CLOUD, "Serve a network, with keys and a certificate:",
     "pdd cloud key alice >alice.key\n"
     "tail \\-n 1 alice.key >keys\n"
     "pdd cloud \\-\\-model model.gguf \\-\\-listen 0.0.0.0:8443 \\-\\-key\\-file keys \\e\n"
     "    \\-\\-tls\\-cert cert.pem \\-\\-tls\\-key key.pem"},
    {OPTIONS_KEY, "A key for four answers at once; the server gets its last line only:",
     "pdd cloud key alice \\-\\-streams 4 >alice.key\n"
     "tail \\-n 1 alice.key >>keys"},
    {PROGRAM | OPTIONS_DEVICE, "Serve the programs of this machine at http://127.0.0.1:8710/v1:",
     "pdd device \\-\\-cloud http://127.0.0.1:8080"},
    {OPTIONS_DEVICE, "The same without a cloud; the page is at http://127.0.0.1:8710:",
     "pdd device \\-\\-local\\-only"},
    {OPTIONS_DEMO, "Leave reports and picture in a folder:", "pdd demo \\-\\-out report"},
    {OPTIONS_LINK, "A bad mobile link in front of a server, cut after 20 events:",
     "pdd link \\-\\-to 127.0.0.1:8080 \\-\\-rtt 80 \\-\\-cut\\-events 20"},
    {OPTIONS_PULL, "From Hugging Face's hub, under a name of one's own:",
     "pdd model pull hf:OWNER/NAME:Q4_K_M \\-\\-as small\n"
     "pdd chat \\-\\-model small \\-\\-local\\-only"},
    {OPTIONS_INSPECT, "Whether this program runs a file, and the tokens of a text:",
     "pdd model inspect model.gguf\n"
     "pdd model tokenize model.gguf \\-\\-text \"one two\""},
    {OPTIONS_RANDOM, "A file to measure with:",
     "pdd model random \\-\\-shape qwen3\\-0.6b \\-\\-type Q4_K_M \\-o random.gguf"},
    {OPTIONS_LIST, "The names alone:", "pdd model list \\-\\-json | jq \\-r '.[].name'"},
    {OPTIONS_RM, "Remove what was pulled:", "pdd model rm small"},
    {OPTIONS_BENCH, "Tokens a second of the default model:", "pdd bench engine"},
    {OPTIONS_PERPLEXITY,
     "How well the default model predicts a text:", "pdd bench perplexity \\-\\-file text.txt"},
    {OPTIONS_REFINE, "What a shortened prompt costs, on a set of questions:",
     "pdd bench refine \\-\\-set questions.json"},
    {OPTIONS_SIM, "Recorded requests over a recorded link:",
     "pdd sim \\-\\-trace requests.csv \\-\\-link link.csv \\-\\-report report"},
    {OPTIONS_MANUAL,
     "Read the page of pdd chat:", "pdd manual pages && man \\-l pages/pdd\\-chat.1"},
};

static void put_head(struct buf *b, const char *head, bool *begun)
{
    if (!*begun) buf_printf(b, ".SH %s\n", head);
    *begun = true;
}

static void put_list(struct buf *b, const char *head, const char *font, uint32_t page,
                     const struct note *notes, size_t n)
{
    bool begun = false;
    for (size_t i = 0; i < n; i++) {
        if (!(notes[i].pages & page)) continue;
        put_head(b, head, &begun);
        buf_printf(b, ".TP\n.%s \"%s\"\n%s\n", font, notes[i].name, notes[i].text);
    }
}

void manual_put_notes(struct buf *b, const struct command_entry *c)
{
    uint32_t page = c ? c->command->bit : PROGRAM;
    bool begun = false;
    put_list(b, "ENVIRONMENT", "B", page, variables, sizeof variables / sizeof *variables);
    put_list(b, "FILES", "I", page, files, sizeof files / sizeof *files);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        if (!(examples[i].pages & page)) continue;
        if (begun) buf_puts(b, ".PP\n");
        put_head(b, "EXAMPLES", &begun);
        buf_printf(b, "%s\n.PP\n.RS\n.nf\n%s\n.fi\n.RE\n", examples[i].name, examples[i].text);
    }
}
