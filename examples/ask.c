/* ask: one question, answered by a model on this machine, a cloud, or both; see docs/LIBPDD.md.
 *
 *     ask MODEL.gguf|- URL|- QUESTION
 */
#include <pdd.h>
#include <stdio.h>
#include <string.h>

static int show(void *arg, const char *text, size_t length, const pdd_token *token)
{
    (void)arg, (void)token;
    fwrite(text, 1, length, stdout);
    return fflush(stdout); /* not 0, and the answer is cancelled, when nobody reads it */
}

int main(int argc, char **argv)
{
    pdd_model *model = NULL;
    pdd_device *device = NULL;
    pdd_error error = {0, ""};
    if (argc != 4) return fprintf(stderr, "usage: ask MODEL.gguf|- URL|- QUESTION\n"), 2;
    pdd_model_options model_options = {.size = sizeof model_options, .path = argv[1]};
    pdd_device_options device_options = {.size = sizeof device_options};
    pdd_question question = {.size = sizeof question, .text = argv[3], .on_text = show};
    if (strcmp(argv[2], "-") != 0) device_options.cloud_url = argv[2];
    int code = strcmp(argv[1], "-") == 0 ? 0 : pdd_model_open(&model_options, &model, &error);
    device_options.model = model;
    if (code == 0) code = pdd_device_open(&device_options, &device, &error);
    if (code == 0) code = pdd_ask(device, &question, NULL, &error);
    if (code == 0) putchar('\n');
    if (code) fprintf(stderr, "ask: %s\n", error.text);
    pdd_device_close(device);
    pdd_model_close(model);
    return code != 0;
}
