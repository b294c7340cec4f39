/*
 * kern_peak: see kern_peak.h. The loops are assembler, so that no compiler spills or drops them.
 * Twelve independent chains hide the latency of every instruction used here.
 */
#include "kern/kern_peak.h"

#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kern/kern.h"

enum { CHAINS = 12, STEPS = 1 << 14 };

/* One call: STEPS rounds of CHAINS instructions (or groups of them). */
typedef void loop_fn(void);

#if defined(__x86_64__)
#define CLOBBER                                                                                    \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define TWELVE(op)                                                                                 \
    op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")      \
        op("12")
#define VNNI512(n) "vpdpbusd %%zmm0, %%zmm0, %%zmm" n "\n\t"
#define VNNI256(n) "%{vex%} vpdpbusd %%ymm0, %%ymm0, %%ymm" n "\n\t"
#define MADD256(n)                                                                                 \
    "vpmaddubsw %%ymm0, %%ymm0, %%ymm13\n\tvpmaddwd %%ymm13, %%ymm14, %%ymm13\n\t"                 \
    "vpaddd %%ymm13, %%ymm" n ", %%ymm" n "\n\t"

__attribute__((target("avx2"))) static void loop_avx2(void)
{
    for (int i = 0; i < STEPS; i++)
        __asm__ volatile(TWELVE(MADD256) : : : CLOBBER);
}

__attribute__((target("avx2"))) static void loop_avxvnni(void)
{
    for (int i = 0; i < STEPS; i++)
        __asm__ volatile(TWELVE(VNNI256) : : : CLOBBER);
}

__attribute__((target("avx512f"))) static void loop_avx512(void)
{
    for (int i = 0; i < STEPS; i++)
        __asm__ volatile(TWELVE(VNNI512) : : : CLOBBER);
}

/* Four sums of 16 x 16 from two tiles each, as a blocked product would have them. */
static void loop_amx(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0\n\ttilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\t"
                     "tilezero %%tmm3\n\ttilezero %%tmm4\n\ttilezero %%tmm5\n\t"
                     "tilezero %%tmm6\n\ttilezero %%tmm7"
                     :
                     : "m"(config));
    for (int i = 0; i < STEPS / 16; i++)
        __asm__ volatile("tdpbssd %%tmm6, %%tmm4, %%tmm0\n\ttdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
                         "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\ttdpbssd %%tmm7, %%tmm5, %%tmm3"
                         :
                         :);
    __asm__ volatile("tilerelease");
}

/* Operations of one call. */
static const struct peak {
    const char *level;
    loop_fn *loop;
    double operations;
} peaks[] = {
    {"avx2", loop_avx2, 64.0 * CHAINS *STEPS},
    {"avxvnni", loop_avxvnni, 64.0 * CHAINS *STEPS},
    {"avx512", loop_avx512, 128.0 * CHAINS *STEPS},
    {"amx", loop_amx, 2.0 * 16 * 16 * 64 * 4 * (STEPS / 16)},
};
#elif defined(__aarch64__)
#define CLOBBER "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13"
#define TWELVE(op)                                                                                 \
    op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")      \
        op("12")
/* sdot vN.4s, v0.16b, v0.16b: as a number, because this file is for every aarch64 CPU and not all
 * assemblers have a word that allows the instruction alone. */
#define SDOT(n) ".inst 0x4e809400 + " n "\n\t"
#define SMULL(n)                                                                                   \
    "smull v13.8h, v0.8b, v0.8b\n\tsmlal v13.8h, v0.8b, v0.8b\n\tsadalp v" n ".4s, v13.8h\n\t"

static void loop_neon(void)
{
    for (int i = 0; i < STEPS; i++)
        __asm__ volatile(TWELVE(SMULL) : : : CLOBBER);
}

static void loop_neondot(void)
{
    for (int i = 0; i < STEPS; i++)
        __asm__ volatile(TWELVE(SDOT) : : : CLOBBER);
}

/* Operations of one call. */
static const struct peak {
    const char *level;
    loop_fn *loop;
    double operations;
} peaks[] = {
    {"neon", loop_neon, 32.0 * CHAINS *STEPS},
    {"neondot", loop_neondot, 32.0 * CHAINS *STEPS},
};
#else
static const struct peak {
    const char *level;
    loop_fn *loop;
    double operations;
} peaks[] = {{"none", NULL, 0.0}};
#endif

struct race {
    loop_fn *loop;
    uint64_t until_us;
    atomic_ullong calls;
};

static void run_loop(void *arg, uint32_t task, uint32_t worker)
{
    struct race *r = arg;
    unsigned long long calls = 0;
    (void)task;
    (void)worker;
    for (; clock_us() < r->until_us; calls++)
        r->loop();
    atomic_fetch_add(&r->calls, calls);
}

double kern_peak_gops(const struct kern *level, struct pool *pool, uint32_t ms)
{
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++) {
        if (strcmp(peaks[i].level, level->name) != 0) continue;
        struct race r = {.loop = peaks[i].loop};
        uint64_t start = clock_us();
        r.until_us = start + (uint64_t)ms * 1000;
        pool_run(pool, pool_threads(pool), run_loop, &r);
        double us = (double)(clock_us() - start);
        return (double)atomic_load(&r.calls) * peaks[i].operations / us * 1e-3;
    }
    return 0.0;
}

/* ---- memory ---- */

struct share {
    uint8_t *data;
    size_t bytes; /* of one thread; a multiple of 4096 */
    size_t ahead; /* of the reading */
    atomic_ullong sum;
};

static void touch(void *arg, uint32_t task, uint32_t worker)
{
    struct share *s = arg;
    (void)worker;
    memset(s->data + task * s->bytes, 1, s->bytes);
}

/* Prefetch distances of a stream in bytes: an Intel Xeon was fastest with 1 KiB, by 15 to 30 %, Zen
 * 5 with 8 KiB, Zen 4 without. The best counts. */
static const size_t read_ahead[] = {0, 1024, 8192};

#if defined(__x86_64__)
/* Two streams at once: the fastest of those tried. n: of 256. */
__attribute__((target("avx2"))) static uint64_t read_stream(const uint8_t *p, size_t n,
                                                            size_t ahead)
{
    uint64_t lanes[4];
    const uint8_t *q = p + n / 2;
    size_t left = n / 2;
    __asm__ volatile("vpxor %%ymm0, %%ymm0, %%ymm0\n\tvpxor %%ymm1, %%ymm1, %%ymm1\n"
                     "1:\n\t"
                     "prefetcht0 (%0,%4)\n\tprefetcht0 64(%0,%4)\n\t"
                     "prefetcht0 (%1,%4)\n\tprefetcht0 64(%1,%4)\n\t"
                     "vpaddq (%0), %%ymm0, %%ymm0\n\tvpaddq 32(%0), %%ymm1, %%ymm1\n\t"
                     "vpaddq 64(%0), %%ymm0, %%ymm0\n\tvpaddq 96(%0), %%ymm1, %%ymm1\n\t"
                     "vpaddq (%1), %%ymm0, %%ymm0\n\tvpaddq 32(%1), %%ymm1, %%ymm1\n\t"
                     "vpaddq 64(%1), %%ymm0, %%ymm0\n\tvpaddq 96(%1), %%ymm1, %%ymm1\n\t"
                     "add $128, %0\n\tadd $128, %1\n\tsub $128, %2\n\tjnz 1b\n\t"
                     "vpaddq %%ymm1, %%ymm0, %%ymm0\n\tvmovdqu %%ymm0, (%3)\n\tvzeroupper"
                     : "+r"(p), "+r"(q), "+r"(left)
                     : "r"(lanes), "r"(ahead)
                     : "memory", "cc", "xmm0", "xmm1");
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
#else
static uint64_t read_stream(const uint8_t *p, size_t n, size_t ahead)
{
    uint64_t s[8] = {0};
    for (size_t i = 0; i < n; i += 64) {
        uint64_t x[8];
        __builtin_prefetch(p + i + ahead);
        memcpy(x, p + i, sizeof x);
        for (int k = 0; k < 8; k++)
            s[k] += x[k];
    }
    return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}
#endif

static void read_share(void *arg, uint32_t task, uint32_t worker)
{
    struct share *s = arg;
    (void)worker;
    atomic_fetch_add(&s->sum, read_stream(s->data + task * s->bytes, s->bytes, s->ahead));
}

static struct share share_of(const struct kern_peak_memory *m, const struct pool *pool)
{
    return (struct share){.data = m->data, .bytes = m->bytes / pool_threads(pool) / 4096 * 4096};
}

int kern_peak_memory_open(struct kern_peak_memory *m, size_t bytes, struct pool *pool,
                          struct err *e)
{
    size_t least = (size_t)pool_threads(pool) * 4096;
    m->bytes = bytes > least ? bytes : least;
    m->data = mem_alloc_huge(m->bytes);
    if (!m->data) return err_set(e, ERR_NO_MEMORY, "no memory for %zu bytes to read", m->bytes);
    struct share s = share_of(m, pool);
    pool_run(pool, pool_threads(pool), touch, &s);
    return 0;
}

void kern_peak_memory_close(struct kern_peak_memory *m)
{
    mem_free(m->data);
    *m = (struct kern_peak_memory){0};
}

double kern_peak_read_gbs(const struct kern_peak_memory *m, struct pool *pool, uint32_t repeats)
{
    struct share s = share_of(m, pool);
    double best = 0.0;
    const uint32_t ways = sizeof read_ahead / sizeof *read_ahead;
    for (uint32_t i = 0; i < repeats * ways; i++) {
        s.ahead = read_ahead[i % ways];
        uint64_t start = clock_us();
        pool_run(pool, pool_threads(pool), read_share, &s);
        double us = (double)(clock_us() - start) + 1e-3;
        double gbs = (double)s.bytes * pool_threads(pool) / us * 1e-3;
        best = gbs > best ? gbs : best;
    }
    return best;
}
