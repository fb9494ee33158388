/*
 * names.h - a sorted list of names: finds duplicates, then looks names up.
 *
 * Sorted rather than hashed: names come from files, and a sort has no worst case that a hostile
 * file could aim at. O(n log n) once, O(log n) a look-up.
 */
#ifndef LLMSCHED_MODEL_NAMES_H
#define LLMSCHED_MODEL_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct name_entry {
    const char *text; /* borrowed */
    size_t len;
    uint64_t value; /* what the name stands for: an index of the caller's */
};

/* Sorts; true and *duplicate = an entry whose name stands twice, or false when all differ. */
bool names_sort(struct name_entry *entries, size_t n, const struct name_entry **duplicate);

/* The entry of a sorted list, or NULL. */
const struct name_entry *names_find(const struct name_entry *entries, size_t n, const char *text,
                                    size_t len);

#endif
