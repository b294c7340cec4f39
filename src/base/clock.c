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

int64_t clock_wall_of(int64_t seconds)
{
    time_t when = (time_t)seconds;
    struct tm local;
    return localtime_r(&when, &local) ? seconds + local.tm_gmtoff : seconds;
}

int64_t clock_wall_s(void)
{
    return clock_wall_of(time(NULL));
}
