/* names.c - see names.h. */
#include "model/names.h"

#include <stdlib.h>
#include <string.h>

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int c = n == 0 ? 0 : memcmp(a, b, n);
    return c != 0 ? c : (a_len > b_len) - (a_len < b_len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct name_entry *x = a;
    const struct name_entry *y = b;
    return compare(x->text, x->len, y->text, y->len);
}

bool names_sort(struct name_entry *entries, size_t n, const struct name_entry **duplicate)
{
    if (n < 2) {
        return false;
    }
    qsort(entries, n, sizeof *entries, compare_entries);
    for (size_t i = 1; i < n; i++) {
        if (compare_entries(&entries[i - 1], &entries[i]) == 0) {
            *duplicate = &entries[i];
            return true;
        }
    }
    return false;
}

const struct name_entry *names_find(const struct name_entry *entries, size_t n, const char *text,
                                    size_t len)
{
    size_t lo = 0;
    size_t hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare(entries[mid].text, entries[mid].len, text, len);
        if (c == 0) {
            return &entries[mid];
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}
