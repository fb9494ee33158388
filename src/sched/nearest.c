/* nearest.c - see nearest_int.h. */
#include "sched/nearest_int.h"

#include <string.h>

#define NAME_LIMIT 32

uint32_t nearest_distance(const char *a, const char *b)
{
    uint32_t row[NAME_LIMIT + 1];
    size_t n_a = strnlen(a, NAME_LIMIT);
    size_t n_b = strnlen(b, NAME_LIMIT);
    for (uint32_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (uint32_t i = 1; i <= n_a; i++) {
        uint32_t diagonal = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= n_b; j++) {
            uint32_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            uint32_t least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            row[j] = change < least + 1 ? change : least + 1;
        }
    }
    return row[n_b];
}

int nearest_is_close(const char *name, uint32_t distance)
{
    size_t allowed = strlen(name) / 3;
    return distance <= (allowed < 1 ? 1 : allowed);
}
