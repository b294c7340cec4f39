/* hardware: see hardware.h. */
#include "sim/hardware.h"

#include <stdlib.h>
#include <string.h>

#define LITERT "LiteRT-LM's table, Gemma-4-E2B in 4 bits"
#define LITERT_E4B "LiteRT-LM's table, Gemma-4-E4B in 4 bits"

static const struct hardware_engine engines[] = {
    {"h100",
     "H100 class, 8B in fp8, estimate: 33,000 tok/s of prefill; 15,000 tok/s of decode at batch "
     "128 "
     "and depth 1,024; attention by operations and KV bytes; 64 KiB of KV a token",
     300.0, 0.0, 30.3, 0.001, 3000.0, 20.0, 0.024, 65536.0, 983040, 8192, 256},
    {"cpu",
     "two vCPUs of a Zen 4, Qwen2.5-0.5B Q4_K_M, fitted to bench/results/2026-11-28-zen4-versus.md "
     "(prompts of 512 to 8,192, batches of 1 to 32, depths to 8,192)",
     500.0, 0.0, 1290.0, 0.26, 8700.0, 1850.0, 0.8, 12288.0, 131072, 512, 64},
    {"m3-max", "emulated by `pdd cloud --profile m3-max` (engine/emulated.h), for bench/truth.py",
     0.0, 1e6 / 60.0, 1e6 / 1500.0, 0.0, 0.0, 1e6 / 1500.0, 0.0, 256.0, 65536, 512, 64},
};

const struct hardware_engine *hardware_engine_at(uint32_t i)
{
    return i < sizeof engines / sizeof *engines ? &engines[i] : NULL;
}

const struct hardware_engine *hardware_engine_find(const char *name)
{
    for (uint32_t i = 0; hardware_engine_at(i); i++)
        if (strcmp(engines[i].name, name) == 0) return &engines[i];
    return NULL;
}

/* Heat: "an iPhone 16 Pro loses half within two runs" of sustained load; laptops and the Pi with a
 * fan keep their speed. */
static const struct hardware_device devices[] = {
    {"s26-gpu", "Galaxy S26 Ultra, GPU: " LITERT, 3808, 52, 5.0, 0.7, 60},
    {"s26-cpu", "Galaxy S26 Ultra, CPU: " LITERT, 557, 47, 6.0, 0.7, 60},
    {"iphone17-gpu", "iPhone 17 Pro, GPU: " LITERT, 2878, 56, 5.0, 0.5, 60},
    {"iphone17-cpu", "iPhone 17 Pro, CPU: " LITERT, 532, 25, 6.0, 0.5, 60},
    {"m4-gpu", "MacBook M4, GPU: " LITERT, 7835, 160, 20.0, 1.0, 60},
    {"m4-cpu", "MacBook M4, CPU: " LITERT, 901, 42, 20.0, 1.0, 60},
    {"lunar-gpu", "Lunar Lake laptop, GPU: " LITERT, 3751, 48, 17.0, 1.0, 60},
    {"lunar-cpu", "Lunar Lake laptop, CPU: " LITERT, 435, 30, 17.0, 1.0, 60},
    {"pi5", "Raspberry Pi 5, CPU: " LITERT, 133, 8, 7.0, 1.0, 60},
    {"iphone17-e4b-gpu", "iPhone 17 Pro, GPU: " LITERT_E4B, 1189, 25, 5.0, 0.5, 60},
    {"iphone17-e4b-cpu", "iPhone 17 Pro, CPU: " LITERT_E4B, 159, 10, 6.0, 0.5, 60},
    {"s24-gpu", "Galaxy S24 Ultra, GPU: LiteRT-LM's README, Gemma3n-E2B", 816.0, 15.6, 5.0, 0.7,
     60},
    {"s24-cpu", "Galaxy S24 Ultra, CPU: LiteRT-LM's README, Gemma3n-E2B", 110.5, 16.1, 6.0, 0.7,
     60},
};

/* Named shares. No census of phones that run models is public: the shares are declared. */
static const struct {
    const char *name, *shares;
} mixes[] = {
    {"all", "s26-gpu=1,s26-cpu=2,iphone17-gpu=1,iphone17-cpu=2,m4-gpu=1,m4-cpu=1,lunar-gpu=1,"
            "lunar-cpu=1,pi5=1,iphone17-e4b-gpu=1,iphone17-e4b-cpu=1,s24-gpu=2,s24-cpu=2"},
    {"phone-cpu", "s26-cpu=1,iphone17-cpu=1,s24-cpu=1"},
    {"phone-gpu", "s26-gpu=1,iphone17-gpu=1,s24-gpu=1"},
};

const struct hardware_device *hardware_device_at(uint32_t i)
{
    return i < sizeof devices / sizeof *devices ? &devices[i] : NULL;
}

static const struct hardware_device *find(const char *name, size_t n)
{
    for (uint32_t i = 0; hardware_device_at(i); i++)
        if (strlen(devices[i].name) == n && memcmp(devices[i].name, name, n) == 0)
            return &devices[i];
    return NULL;
}

static int add_share(struct hardware_mix *m, const char *part, size_t n, struct err *e)
{
    const char *equals = memchr(part, '=', n);
    size_t name = equals ? (size_t)(equals - part) : n;
    const struct hardware_device *d = find(part, name);
    char *end = NULL;
    double share = equals ? strtod(equals + 1, &end) : 1.0;
    if (!d)
        return err_set(e, ERR_NOT_FOUND, "no device \"%.*s\"; see pdd sim --list",
                       (int)(name < 60 ? name : 60), part);
    if ((equals && end != part + n) || !(share > 0.0 && share <= 1e6))
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.*s\": a share above 0 is expected after =", (int)(n < 60 ? n : 60),
                       part);
    if (m->n == HARDWARE_MIX_MAX)
        return err_set(e, ERR_LIMIT, "a mix has at most %d devices", HARDWARE_MIX_MAX);
    m->devices[m->n] = d;
    m->upto[m->n] = share + (m->n > 0 ? m->upto[m->n - 1] : 0.0);
    m->n++;
    return 0;
}

int hardware_mix_of(const char *text, struct hardware_mix *ret_mix, struct err *e)
{
    struct hardware_mix m = {.n = 0};
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++)
        if (strcmp(text, mixes[i].name) == 0) text = mixes[i].shares;
    for (const char *at = text; at;) {
        const char *comma = strchr(at, ',');
        int code = add_share(&m, at, comma ? (size_t)(comma - at) : strlen(at), e);
        if (code) return code;
        at = comma ? comma + 1 : NULL;
    }
    for (uint32_t i = 0; i < m.n; i++)
        m.upto[i] /= m.upto[m.n - 1];
    m.upto[m.n - 1] = 1.0;
    *ret_mix = m;
    return 0;
}

uint32_t hardware_mix_at(const struct hardware_mix *m, double share)
{
    uint32_t i = 0;
    while (i + 1 < m->n && share >= m->upto[i])
        i++;
    return i;
}
