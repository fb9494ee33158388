/* Any bytes as a chunked body, whole and in steps: the same bytes, or the same refusal. And any
 * bytes written as chunks are read back. */
#include "net_steps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void there_and_back(const uint8_t *data, size_t size)
{
    static const struct http_head head = {.framing = HTTP_CHUNKED};
    size_t piece = 1 + data[0];
    size_t cap = size + (size / piece + 1) * HTTP_CHUNK_OVERHEAD + sizeof HTTP_LAST_CHUNK;
    char *wire = malloc(cap);
    MUST(wire != NULL);
    size_t len = 0;
    uint64_t hash = 0;
    for (size_t at = 0; at < size;) {
        size_t n = size - at < piece ? size - at : piece;
        size_t wrote = http_chunk_write(wire + len, cap - len, data + at, n);
        MUST(wrote > n);
        len += wrote;
        at += n;
    }
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ data[i]) * 0x100000001b3ULL;
    }
    memcpy(wire + len, HTTP_LAST_CHUNK, 5);
    struct steps_body back = steps_body(&head, (const uint8_t *)wire, len + 5, 7, size);
    MUST(back.outcome == HTTP_BODY_DONE && back.used == len + 5);
    MUST(back.len == size && back.hash == hash);
    free(wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_head head = {.framing = HTTP_CHUNKED};
    steps_compare_body(&head, data, size, 1000);
    steps_compare_body(&head, data, size, UINT64_MAX);
    if (size > 0) {
        there_and_back(data, size);
    }
    return 0;
}
