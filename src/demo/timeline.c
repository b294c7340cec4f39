/* timeline: see timeline.h. */
#include "demo/timeline.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"

enum { STATS_BYTES_MAX = 64 << 20, COLUMNS = 88 };

static double number_of(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : -1.0;
}

static char *text_of(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? mem_strdup(s) : NULL;
}

static int read_tokens(const json_t *list, struct timeline_run *r)
{
    size_t n = json_array_size(list);
    if (n > TIMELINE_TOKENS_MAX) return ERR_LIMIT;
    r->tokens = mem_calloc(n, sizeof *r->tokens);
    if (!r->tokens) return ERR_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const json_t *k = json_array_get(list, i);
        const char *source = json_string_value(json_object_get(k, "source"));
        r->tokens[i].shown_ms = number_of(k, "shown_ms");
        r->tokens[i].cloud = source && strcmp(source, "cloud") == 0;
    }
    r->n = (uint32_t)n;
    return 0;
}

static int read_run(const json_t *root, struct timeline_run *r)
{
    r->ttft_ms = number_of(root, "ttft_ms");
    r->tpot_mean_ms = number_of(root, "tpot_mean_ms");
    r->tpot_max_ms = number_of(root, "tpot_max_ms");
    r->handover_gap_ms = number_of(root, "handover_gap_ms");
    r->cloud_tokens = (uint32_t)fmax(0.0, number_of(root, "cloud_tokens"));
    r->stalls = (uint32_t)fmax(0.0, number_of(root, "stalls"));
    double prompt = number_of(root, "prompt_tokens");
    r->prompt_tokens = (uint32_t)fmax(prompt, number_of(root, "cloud_prompt_tokens"));
    r->slot_ms = fmax(0.0, number_of(root, "cloud_slot_ms"));
    r->prefill_tps = number_of(root, "device_prefill_tps");
    r->text = text_of(root, "text");
    r->commit = text_of(root, "commit");
    r->weights = text_of(root, "weights");
    r->numerics = text_of(root, "numerics");
    r->trouble = text_of(root, "trouble");
    r->plan = text_of(json_object_get(root, "plan"), "why");
    r->read_tokens =
        (uint32_t)json_integer_value(json_object_get(json_object_get(root, "refined"), "read"));
    return read_tokens(json_object_get(root, "tokens"), r);
}

int timeline_load(const char *path, const char *label, struct timeline_run *ret_run, struct err *e)
{
    struct buf text;
    struct timeline_run r = {.label = label};
    json_error_t at;
    buf_init(&text, STATS_BYTES_MAX);
    int code = os_read_file(path, &text, e);
    json_t *root =
        code ? NULL : json_loadb(text.data, strcspn(text.data, "\n"), JSON_REJECT_DUPLICATES, &at);
    if (code == 0 && !root) code = err_set(e, ERR_BAD_INPUT, "%s: %s", path, at.text);
    if (code == 0 && (code = read_run(root, &r)) != 0) err_set(e, code, "%s: too large", path);
    if (code == 0 && !r.text) code = err_set(e, ERR_BAD_INPUT, "%s: no text in it", path);
    json_decref(root);
    buf_release(&text);
    if (code)
        timeline_release(&r);
    else
        *ret_run = r;
    return code;
}

void timeline_release(struct timeline_run *r)
{
    mem_free(r->tokens);
    mem_free(r->text);
    mem_free(r->plan);
    mem_free(r->commit);
    mem_free(r->weights);
    mem_free(r->numerics);
    mem_free(r->trouble);
    r->tokens = NULL;
    r->text = r->plan = r->commit = r->weights = r->numerics = r->trouble = NULL;
}

static void print_ms(FILE *to, double ms)
{
    if (ms < 0.0)
        fprintf(to, " %10s", "-");
    else
        fprintf(to, " %7.0f ms", ms);
}

void timeline_print_table(const struct timeline_run *runs, uint32_t n, FILE *to)
{
    fprintf(to, "%-13s %10s %10s %10s %10s %8s %14s %12s\n", "", "TTFT", "TPOT mean", "TPOT max",
            "handover", "tokens", "of the cloud", "cloud's slot");
    for (uint32_t i = 0; i < n; i++) {
        const struct timeline_run *r = &runs[i];
        fprintf(to, "%-13s", r->label);
        print_ms(to, r->ttft_ms);
        print_ms(to, r->tpot_mean_ms);
        print_ms(to, r->tpot_max_ms);
        print_ms(to, r->handover_gap_ms);
        fprintf(to, " %8u %6u (%3.0f %%) %10.2f s\n", r->n, r->cloud_tokens,
                r->n ? 100.0 * r->cloud_tokens / r->n : 0.0, r->slot_ms / 1e3);
    }
}

static double last_shown(const struct timeline_run *runs, uint32_t n)
{
    double end = 1.0;
    for (uint32_t i = 0; i < n; i++)
        if (runs[i].n > 0) end = fmax(end, runs[i].tokens[runs[i].n - 1].shown_ms);
    return end;
}

/* What a column of the terminal stands for: tokens of either end that were shown in its time. */
static void print_row(const struct timeline_run *r, double end, bool colour, FILE *to)
{
    uint32_t cloud[COLUMNS] = {0}, device[COLUMNS] = {0};
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t at = (uint32_t)(r->tokens[i].shown_ms / end * (COLUMNS - 1));
        at = at < COLUMNS ? at : COLUMNS - 1;
        (r->tokens[i].cloud ? cloud : device)[at]++;
    }
    fprintf(to, "%-13s ", r->label);
    double last = r->n ? r->tokens[r->n - 1].shown_ms : 0.0;
    for (uint32_t c = 0; c < COLUMNS; c++) {
        bool started = r->n && c >= (uint32_t)(r->ttft_ms / end * (COLUMNS - 1));
        bool over = c > (uint32_t)(last / end * (COLUMNS - 1));
        if (cloud[c] >= device[c] && cloud[c] > 0)
            fputs(colour ? "\033[34m\xE2\x96\x88\033[0m" : "c", to);
        else if (device[c] > 0)
            fputs(colour ? "\033[32m\xE2\x96\x88\033[0m" : "d", to);
        else
            fputs(over ? " " : started ? "_" : ".", to);
    }
    fputc('\n', to);
}

void timeline_print(const struct timeline_run *runs, uint32_t n, bool colour, FILE *to)
{
    double end = last_shown(runs, n);
    for (uint32_t i = 0; i < n; i++)
        print_row(&runs[i], end, colour, to);
    fprintf(to, "%-13s 0 s%*s%.1f s\n", "", COLUMNS - 8, "", end / 1e3);
    if (colour)
        fprintf(to,
                "%-13s . waiting   \033[34m\xE2\x96\x88\033[0m from the cloud   "
                "\033[32m\xE2\x96\x88\033[0m from the device\n",
                "");
    else
        fprintf(to, "%-13s . waiting   c from the cloud   d from the device\n", "");
}

/* Geometry of the picture, in SVG units. */
enum { WIDTH = 1000, LEFT = 130, RIGHT = 30, TOP = 90, ROW = 80, BAR = 30, SLOT = 5 };
enum { GAIN_AT = 46, LEGEND_AT = 62, NOTES_AT = 44, NOTE = 17 };

static double x_of(double ms, double end)
{
    return LEFT + ms / end * (WIDTH - LEFT - RIGHT);
}

static void svg_text(struct buf *out, double x, double y, const char *style, const char *text)
{
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, style);
    for (const char *c = text; *c; c++)
        (void)(*c == '<'   ? buf_puts(out, "&lt;")
               : *c == '&' ? buf_puts(out, "&amp;")
                           : buf_putc(out, *c));
    buf_puts(out, "</text>\n");
}

static void svg_axis(struct buf *out, double end, double bottom)
{
    double step = end > 30000 ? 5000 : end > 12000 ? 2000 : 1000;
    for (double ms = 0; ms <= end; ms += step) {
        char label[32];
        snprintf(label, sizeof label, "%.0f s", ms / 1e3);
        double x = x_of(ms, end);
        buf_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>\n", x,
                   TOP - 10, x, bottom);
        svg_text(out, x, bottom + 18, "axis", label);
    }
}

static void svg_run(struct buf *out, const struct timeline_run *r, double end, double y)
{
    char line[240], slot[80] = "";
    svg_text(out, 16, y + BAR * 0.66, "label", r->label);
    if (r->ttft_ms > 0.0)
        buf_printf(out, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=\"wait\"/>\n",
                   LEFT, y + 9, x_of(r->ttft_ms, end) - LEFT, BAR - 18);
    for (uint32_t i = 0; i < r->n; i++)
        buf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"1.7\" height=\"%d\" class=\"%s\"/>\n",
                   x_of(r->tokens[i].shown_ms, end), y, BAR,
                   r->tokens[i].cloud ? "cloud" : "device");
    if (r->slot_ms > 0.0) {
        buf_printf(out, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=\"slot\"/>\n",
                   LEFT, y + BAR + 3, x_of(r->slot_ms, end) - LEFT, SLOT);
        snprintf(slot, sizeof slot, ", which gave it a slot for %.1f s", r->slot_ms / 1e3);
    }
    snprintf(line, sizeof line,
             "first token after %.2f s, then %.0f ms a token (at most %.0f); %u of %u from "
             "the cloud%s",
             r->ttft_ms / 1e3, fmax(0.0, r->tpot_mean_ms), fmax(0.0, r->tpot_max_ms),
             r->cloud_tokens, r->n, slot);
    svg_text(out, LEFT, y + BAR + SLOT + 18, "note", line);
}

/* A sign of the legend and what it means; *x moves on past it. */
static void svg_sign(struct buf *out, double *x, const char *style, int width, int height,
                     const char *meaning)
{
    buf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" class=\"%s\"/>\n", *x,
               LEGEND_AT + (12 - height) / 2.0, width, height, style);
    svg_text(out, *x + width + 6, LEGEND_AT + 10, "note", meaning);
    *x += width + 30 + 6.0 * (double)strlen(meaning);
}

static void svg_legend(struct buf *out)
{
    double x = LEFT;
    svg_sign(out, &x, "wait", 24, 6, "waiting for the first token");
    svg_sign(out, &x, "cloud", 12, 12, "token from the cloud");
    svg_sign(out, &x, "device", 12, 12, "token from the device");
    svg_sign(out, &x, "slot", 24, SLOT, "the cloud's slot is taken");
}

static void svg_head(struct buf *out, double height)
{
    buf_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
        "height=\"%.0f\">\n"
        "<style>text{font-family:system-ui,sans-serif;fill:#24292f}.title{font-size:17px;font-"
        "weight:600}"
        ".label{font-size:14px;font-weight:600}.note{font-size:12px;fill:#57606a}"
        ".axis{font-size:11px;fill:#57606a;text-anchor:middle}.grid{stroke:#d8dee4;stroke-width:1}"
        ".cloud{fill:#2f6fdb}.device{fill:#2da05a}.wait{fill:#e3b341;opacity:.75}"
        ".slot{fill:#b42f6d}</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        WIDTH, height, WIDTH, height);
}

int timeline_svg(const struct timeline_run *runs, uint32_t n, const char *gain,
                 const char *const notes[], struct buf *out)
{
    double end = last_shown(runs, n) * 1.01, bottom = TOP + ROW * (double)n;
    int n_notes = 0;
    while (notes[n_notes])
        n_notes++;
    svg_head(out, bottom + NOTES_AT + NOTE * n_notes);
    svg_text(out, 16, 26, "title", "One answer, every token by the time it was shown");
    svg_text(out, 16, GAIN_AT, "label", gain);
    svg_legend(out);
    svg_axis(out, end, bottom);
    for (uint32_t i = 0; i < n; i++)
        svg_run(out, &runs[i], end, TOP + ROW * (double)i);
    for (int i = 0; i < n_notes; i++)
        svg_text(out, 16, bottom + NOTES_AT + NOTE * i, "note", notes[i]);
    return buf_puts(out, "</svg>\n");
}
