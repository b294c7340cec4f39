/* clock: see clock.h. */
#include "base/clock.h"

#include <errno.h>
#include <time.h>

uint64_t clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void clock_sleep_until_us(uint64_t when)
{
    struct timespec t = {(time_t)(when / 1000000u), (long)(when % 1000000u) * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

void clock_sleep_us(uint64_t us)
{
    clock_sleep_until_us(clock_us() + us);
}

int64_t clock_wall_s(void)
{
    time_t now = time(NULL);
    struct tm local;
    return localtime_r(&now, &local) ? (int64_t)now + local.tm_gmtoff : (int64_t)now;
}
