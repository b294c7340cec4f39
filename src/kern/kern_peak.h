/*
 * kern_peak: the roofs of this machine, measured: integer products from registers and bytes read
 * from memory. Reports give speeds as fractions of them; only benchmarks use them. Threads: those
 * of the pool it is given.
 */
#ifndef PDD_KERN_KERN_PEAK_H
#define PDD_KERN_KERN_PEAK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct kern;
struct pool;

/* int8 operations (a multiply and an addition are two), 10^9 a second, of all the pool's threads
 * together, with the instructions of a kernel level (after kern_select, which asks for the tile
 * unit); 0 where there are none. Runs about `ms` milliseconds. */
double kern_peak_gops(const struct kern *level, struct pool *pool, uint32_t ms);

/* A buffer to read; the threads that will read it have touched it. */
struct kern_peak_memory {
    uint8_t *data;
    size_t bytes;
};
int kern_peak_memory_open(struct kern_peak_memory *m, size_t bytes, struct pool *pool,
                          struct err *e);
void kern_peak_memory_close(struct kern_peak_memory *m);
/* GB/s of all threads together, each reading its share from end to end; the best of `repeats`. */
double kern_peak_read_gbs(const struct kern_peak_memory *m, struct pool *pool, uint32_t repeats);

#endif
