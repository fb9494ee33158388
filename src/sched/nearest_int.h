/* nearest_int.h - "did you mean": shared inside sched. */
#ifndef LLMSCHED_SCHED_NEAREST_INT_H
#define LLMSCHED_SCHED_NEAREST_INT_H

#include <stdint.h>

/* Edit distance of two names, where only the first 32 bytes of each count. */
uint32_t nearest_distance(const char *a, const char *b);

/* Whether a name at this distance is worth suggesting: at most a third of its letters differ, and
 * always one slip. */
int nearest_is_close(const char *name, uint32_t distance);

#endif
