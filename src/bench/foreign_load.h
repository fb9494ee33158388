/*
 * foreign_load.h - what others took of the machine while something was measured.
 *
 * From /proc/stat, which counts in ticks of 10 ms: over a tenth of a second the figure is rough,
 * over a second good. Time that a host took from a virtual machine (steal) counts as theirs.
 */
#ifndef LLMSCHED_BENCH_FOREIGN_LOAD_H
#define LLMSCHED_BENCH_FOREIGN_LOAD_H

#include <stdint.h>

struct foreign_load {
    uint64_t begin_ns;
    double busy_s; /* all cores, since the system's start; NaN: not to be read */
    double own_s;  /* CPU time of this process */
};

void foreign_load_begin(struct foreign_load *load);

/* CPU time of others since begin as a share of all cores, 0 to 1; NaN: the system does not tell. */
double foreign_load_end(const struct foreign_load *load);

#endif
