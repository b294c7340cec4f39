/*
 * kern_mul_neondot: quantised multiplies with the dot product instructions of ARMv8.2, which
 * kern_select.c asks the system about.
 */
#include "kern/kern_neon.h"

#define DOT(sum, w, x, lane) vdotq_laneq_s32(sum, w, x, lane)

#include "kern/kern_mul_neon.h"

void kern_neondot_mul_quant(const struct kern_mat *m, uint32_t strip, uint32_t strips,
                            const struct kern_act *x, uint32_t row, uint32_t rows, float *out,
                            size_t stride)
{
    mul_quant(m, strip, strips, x, row, rows, out, stride);
}
