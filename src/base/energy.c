/* energy: see energy.h. */
#include "base/energy.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

enum { FOLDER_BYTES = ENERGY_ROOT_MAX + 32, NAME_BYTES = 32, LINE_BYTES = 64 };

static bool read_number(const char *folder, const char *name, const char *field,
                        long long *ret_value)
{
    char text[LINE_BYTES], *end;
    if (!os_read_field(folder, name, field, text, sizeof text)) return false;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end) return false;
    *ret_value = v;
    return true;
}

/* ---- RAPL ---- */

static void find_zone(const struct energy *m, uint32_t part, char folder[FOLDER_BYTES],
                      char name[NAME_BYTES])
{
    snprintf(folder, FOLDER_BYTES, "%s/class/powercap", m->root);
    snprintf(name, NAME_BYTES, "intel-rapl:%u", part);
}

static bool read_counter(const struct energy *m, uint32_t part, const char *file,
                         uint64_t *ret_value)
{
    char folder[FOLDER_BYTES], name[NAME_BYTES];
    long long v;
    find_zone(m, part, folder, name);
    if (!read_number(folder, name, file, &v) || v < 0) return false;
    *ret_value = (uint64_t)v;
    return true;
}

/* Only packages: zones below them are part of them, and "psys" has them all again. */
static bool is_package(const struct energy *m, uint32_t part)
{
    char folder[FOLDER_BYTES], name[NAME_BYTES], line[LINE_BYTES];
    find_zone(m, part, folder, name);
    return os_read_field(folder, name, "name", line, sizeof line) &&
           strncmp(line, "package-", 8) == 0;
}

static bool find_rapl(struct energy *m)
{
    m->n_parts = 0;
    for (uint32_t part = 0; part < ENERGY_PARTS_MAX; part++) {
        uint32_t i = m->n_parts;
        if (!is_package(m, part)) continue;
        if (!read_counter(m, part, "energy_uj", &m->counters[i])) return false;
        if (!read_counter(m, part, "max_energy_range_uj", &m->ranges[i])) m->ranges[i] = 0;
        m->parts[i] = part;
        m->n_parts++;
    }
    return m->n_parts > 0;
}

static bool sample_rapl(struct energy *m)
{
    for (uint32_t i = 0; i < m->n_parts; i++) {
        uint64_t now, before = m->counters[i];
        if (!read_counter(m, m->parts[i], "energy_uj", &now)) return false;
        if (now < before && m->ranges[i] < before) return false; /* no wrap explains it */
        m->counters[i] = now;
        m->joules += (double)(now >= before ? now - before : m->ranges[i] - before + now) / 1e6;
    }
    return true;
}

/* ---- batteries ---- */

/* Some drivers count what leaves the battery as negative. */
static bool supply_number(const char *folder, const char *name, const char *file, double *ret_value)
{
    long long v;
    if (!read_number(folder, name, file, &v)) return false;
    *ret_value = v < 0 ? -(double)v : (double)v;
    return true;
}

/* Watts of one that discharges; false: it does not, or does not tell. Files are in micro units. */
static bool supply_watts(const char *folder, const char *name, double *ret_watts)
{
    double power, current, voltage;
    if (!os_field_is(folder, name, "type", "Battery") ||
        os_field_is(folder, name, "scope", "Device") ||
        !os_field_is(folder, name, "status", "Discharging"))
        return false;
    if (supply_number(folder, name, "power_now", &power))
        *ret_watts = power / 1e6;
    else if (supply_number(folder, name, "current_now", &current) &&
             supply_number(folder, name, "voltage_now", &voltage))
        *ret_watts = current * voltage / 1e12;
    else
        return false;
    return true;
}

static bool read_batteries(const struct energy *m, double *ret_watts)
{
    char folder[FOLDER_BYTES];
    double sum = 0.0;
    bool any = false;
    snprintf(folder, sizeof folder, "%s/class/power_supply", m->root);
    DIR *d = opendir(folder);
    if (!d) return false;
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        double watts;
        if (entry->d_name[0] == '.' || !supply_watts(folder, entry->d_name, &watts)) continue;
        sum += watts;
        any = true;
    }
    closedir(d);
    *ret_watts = sum;
    return any;
}

/* The mean of two samples, for the time between them. */
static bool sample_batteries(struct energy *m, uint64_t now)
{
    double watts;
    if (!read_batteries(m, &watts)) return false;
    m->joules += (m->watts + watts) / 2.0 * (double)(now - m->sampled_us) / 1e6;
    m->watts = watts;
    return true;
}

/* ---- the meter ---- */

void energy_init(struct energy *m, const char *root)
{
    *m = (struct energy){.source = ENERGY_NONE};
    snprintf(m->root, sizeof m->root, "%s", root ? root : ENERGY_SYS);
}

static void find(struct energy *m, uint64_t now)
{
    m->sampled_us = now;
    m->epoch++;
    m->joules = 0.0;
    if (find_rapl(m))
        m->source = ENERGY_RAPL;
    else if (read_batteries(m, &m->watts))
        m->source = ENERGY_BATTERY;
}

static void sample(struct energy *m, uint64_t now)
{
    bool good = m->source == ENERGY_RAPL ? sample_rapl(m) : sample_batteries(m, now);
    m->sampled_us = now;
    if (good) return;
    m->source = ENERGY_NONE;
    m->epoch++;
}

void energy_sample(struct energy *m, uint64_t now)
{
    if (m->source == ENERGY_NONE || now < m->sampled_us + ENERGY_STEP_US) return;
    sample(m, now);
}

struct energy_mark energy_mark(struct energy *m, uint64_t now)
{
    if (m->source != ENERGY_NONE && now > m->sampled_us) sample(m, now);
    if (m->source == ENERGY_NONE) find(m, now);
    return (struct energy_mark){m->joules, m->epoch, now};
}

bool energy_since(struct energy *m, const struct energy_mark *mark, uint64_t now,
                  double *ret_joules)
{
    if (m->source != ENERGY_NONE && now > m->sampled_us) sample(m, now);
    if (m->source == ENERGY_NONE || m->epoch != mark->epoch) return false;
    *ret_joules = m->joules - mark->joules;
    return true;
}

const char *energy_source_text(enum energy_source source)
{
    return source == ENERGY_RAPL      ? "RAPL of the processors, whole machine"
           : source == ENERGY_BATTERY ? "battery, whole machine"
                                      : "nothing";
}
