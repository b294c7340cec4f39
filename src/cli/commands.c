/* commands: the table of all commands; see commands.h. */
#include "cli/commands.h"

const struct command_entry command_entries[] = {
    {"bench", "measure engines on this machine", cmd_bench, &command_bench},
    {"bench engine", NULL, NULL, &command_bench},
    {"bench perplexity", "measure how well a model predicts texts", NULL,
     &command_bench_perplexity},
    {"bench refine", "measure what a refined prompt costs in quality", NULL, &command_bench_refine},
    {"chat", "ask a model; the answer starts in the cloud and is finished here", cmd_chat,
     &command_chat},
    {"cloud", "serve a model to devices", cmd_cloud, &command_cloud},
    {"cloud key", "make a bearer key for pdd cloud", NULL, &command_cloud_key},
    {"demo", "one answer three ways, with a table and a picture", cmd_demo, &command_demo},
    {"device", "serve this device's own programs, by OpenAI's API", cmd_device, &command_device},
    {"link", "forward TCP connections as a mobile link would", cmd_link, &command_link},
    {"manual", "write man pages and shell completion", cmd_manual, &command_manual},
    {"model", "pull, list and inspect models, run their tokenizers, make random ones", cmd_model,
     &command_model_inspect},
    {"model inspect", NULL, NULL, &command_model_inspect},
    {"model tokenize", NULL, NULL, &command_model_tokenize},
    {"model detokenize", NULL, NULL, &command_model_detokenize},
    {"model pull", "download a model, and give it a name", NULL, &command_model_pull},
    {"model list", "show the models that have a name", NULL, &command_model_list},
    {"model rm", "remove models that have a name", NULL, &command_model_rm},
    {"model random", "write random weights in the shape of a real model", NULL,
     &command_model_random},
    {"sim", "replay recorded requests in virtual time, with other methods beside ours", cmd_sim,
     &command_sim},
};
const size_t command_entries_n = sizeof command_entries / sizeof *command_entries;
