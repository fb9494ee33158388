/* Any bytes as a safetensors file: a clean error, or tensors that lie within the file, each byte in
 * at most one of them. */
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *st = NULL;
    struct error err = ERROR_INIT;
    enum status s = safetensors_parse(data, size, size, "fuzz", &st, &err);
    if (s != STATUS_OK) {
        if (st != NULL || err.code != s || strncmp(err.message, "fuzz: ", 6) != 0) {
            abort();
        }
        return 0;
    }
    uint64_t end = 0;
    for (uint64_t i = 0; i < safetensors_count(st); i++) {
        const struct safetensors_tensor *t = safetensors_at(st, i);
        if (t->offset < 8 || t->offset < end || t->bytes > size - t->offset ||
            t->rank > SAFETENSORS_MAX_RANK || strlen(t->name) > size) {
            abort();
        }
        end = t->offset + t->bytes;
    }
    if (safetensors_count(st) > 0 && end != size) {
        abort();
    }
    safetensors_close(st);
    return 0;
}
