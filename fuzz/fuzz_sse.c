/* Any bytes as a stream of events, whole and in steps: the same events, and the same refusal. The
 * first byte chooses the step, the second the buffer. */
#include <stdlib.h>
#include <string.h>

#include "net/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct stream_result {
    uint64_t hash;
    uint64_t events;
    bool bad;
};

static uint64_t mix(uint64_t hash, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3ULL;
    }
    return (hash ^ n) * 0x100000001b3ULL;
}

static struct stream_result run(const uint8_t *data, size_t size, size_t step, size_t cap)
{
    struct stream_result r = {0};
    struct sse s;
    char *room = malloc(cap + 1);
    if (room == NULL) {
        abort();
    }
    sse_init(&s, room, cap);
    for (size_t at = 0; at < size && !r.bad;) {
        size_t n = size - at < step ? size - at : step;
        char *copy = malloc(n);
        if (copy == NULL) {
            abort();
        }
        memcpy(copy, data + at, n);
        size_t done = 0;
        enum sse_outcome got;
        do {
            struct sse_event ev;
            size_t used;
            got = sse_next(&s, copy + done, n - done, &used, &ev);
            if (used > n - done) {
                abort();
            }
            done += used;
            if (got == SSE_EVENT) {
                if (ev.data_len > cap || ev.type_len > SSE_MAX_TYPE_BYTES) {
                    abort();
                }
                r.hash = mix(mix(r.hash, ev.type, ev.type_len), ev.data, ev.data_len);
                r.events++;
            }
        } while (got == SSE_EVENT);
        if (got == SSE_MORE && done != n) {
            abort();
        }
        r.bad = got == SSE_BAD;
        free(copy);
        at += n;
    }
    free(room);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    size_t steps[2] = {1, (size_t)1 + data[0]};
    size_t cap = data[1];
    struct stream_result whole = run(data + 2, size - 2, size, cap);
    for (int i = 0; i < 2; i++) {
        struct stream_result cut = run(data + 2, size - 2, steps[i], cap);
        if (cut.bad != whole.bad || cut.events != whole.events || cut.hash != whole.hash) {
            abort();
        }
    }
    return 0;
}
