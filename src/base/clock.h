/*
 * clock: the monotonic time, in microseconds. Only engines, loops and programs read it; policy/
 * takes time as an argument. Any thread.
 */
#ifndef PDD_BASE_CLOCK_H
#define PDD_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_us(void); /* monotonic, arbitrary origin */
/* Local time: seconds since 1970 plus the offset of the time zone, for dates that people read. */
int64_t clock_wall_s(void);
int64_t clock_wall_of(int64_t seconds); /* the same of a moment in seconds since 1970 */
void clock_sleep_us(uint64_t us);
void clock_sleep_until_us(uint64_t when); /* a clock_us() value; returns at once if it is past */

#endif
