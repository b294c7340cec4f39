/* kern_select: which level this CPU runs. Built for the baseline CPU. */
#include <string.h>

#include "kern/kern_impl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* clang 14 does not know the word "f16c"; that the system saves the registers is AVX2's to say. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static int has_avxvnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

/* Linux saves the tiles only for a process that asked for them; the answer holds for all its
 * threads, and asking twice does no harm. */
static int has_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 24) != 0 &&
           (d & 1u << 25) != 0 && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static int has_neon(void)
{
    return 1; /* part of the architecture */
}

static int has_neondot(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}
#endif

static int has_scalar(void)
{
    return 1;
}

static const struct {
    const struct kern *kern;
    int (*supported)(void);
} levels[] = {
    {&kern_scalar, has_scalar},
#if defined(__x86_64__)
    {&kern_avx2, has_avx2},     {&kern_avxvnni, has_avxvnni},
    {&kern_avx512, has_avx512}, {&kern_amx, has_amx},
#endif
#if defined(__aarch64__)
    {&kern_neon, has_neon},     {&kern_neondot, has_neondot},
#endif
};
enum { LEVELS = sizeof levels / sizeof *levels };

/* Levels of other architectures are not built here. */
static const char *const elsewhere[] = {
#if !defined(__x86_64__)
    "avx2", "avxvnni", "avx512", "amx",
#endif
#if !defined(__aarch64__)
    "neon", "neondot",
#endif
};

static int is_elsewhere(const char *name)
{
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (strcmp(name, elsewhere[i]) == 0) return 1;
    return 0;
}

static int refuse_level(const char *name, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "this CPU cannot run the kernels of level %s", name);
}

const struct kern *kern_at(uint32_t i)
{
    for (uint32_t l = 0; l < LEVELS; l++)
        if (levels[l].supported() && i-- == 0) return levels[l].kern;
    return NULL;
}

int kern_select(const char *name, const struct kern **ret_kern, struct err *e)
{
    for (uint32_t l = LEVELS; l-- > 0;) {
        if (name && strcmp(name, levels[l].kern->name) != 0) continue;
        if (levels[l].supported()) {
            *ret_kern = levels[l].kern;
            return 0;
        }
        if (name) return refuse_level(name, e);
    }
    if (is_elsewhere(name)) return refuse_level(name, e);
    return err_set(e, ERR_NOT_FOUND,
                   "no kernel level %s: choose scalar, avx2, avxvnni, avx512, amx, neon or neondot",
                   name);
}
