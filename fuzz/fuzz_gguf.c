/* Any bytes as a GGUF file: a clean error, or keys and tensors that can all be read, and a config
 * that is refused or within its bounds. */
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte that a getter hands out, so that the sanitizer sees a false length. */
static void touch(const void *data, uint64_t n)
{
    static volatile uint8_t sink;
    const uint8_t *p = data;
    for (uint64_t i = 0; i < n; i++) {
        sink = (uint8_t)(sink ^ p[i]);
    }
}

static void read_key(const struct gguf *g, const char *key)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t u;
    double d;
    bool b;
    struct gguf_string text;
    (void)!gguf_get_u64(g, key, &u, NULL);
    (void)!gguf_get_f64(g, key, &d, NULL);
    (void)!gguf_get_bool(g, key, &b, NULL);
    if (gguf_get_string(g, key, &text, NULL) == STATUS_OK) {
        touch(text.text, text.len);
    }
    const struct gguf_string *strings;
    uint64_t count;
    if (gguf_get_strings(g, key, &strings, &count, NULL) == STATUS_OK) {
        for (uint64_t i = 0; i < count; i++) {
            touch(strings[i].text, strings[i].len);
        }
    }
    for (int type = 0; type <= GGUF_F64; type++) {
        const void *bytes;
        if (sizes[type] != 0 &&
            gguf_get_array(g, key, (enum gguf_type)type, &bytes, &count, NULL) == STATUS_OK) {
            touch(bytes, count * sizes[type]);
        }
    }
}

static void check_tensors(const struct gguf *g, size_t size)
{
    for (uint64_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->offset > size || t->bytes > size - t->offset || t->rank > 4 ||
            strlen(t->name) >= 64 || gguf_find_tensor(g, t->name) != t) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct error err = ERROR_INIT;
    enum status s = gguf_parse(data, size, size, "fuzz", &g, &err);
    if (s != STATUS_OK) {
        if (g != NULL || err.code != s || strncmp(err.message, "fuzz: ", 6) != 0) {
            abort();
        }
        return 0;
    }
    for (uint64_t i = 0; i < gguf_key_count(g); i++) {
        read_key(g, gguf_key_at(g, i));
    }
    check_tensors(g, size);
    static struct model_config c;
    if (config_from_gguf(g, &c, &err) == STATUS_OK &&
        (c.n_layers == 0 || c.n_layers > CONFIG_MAX_LAYERS || c.n_heads % c.n_kv_heads != 0 ||
         c.head_size == 0 || c.n_vocab == 0 || config_parameter_count(&c) == 0)) {
        abort();
    }
    gguf_close(g);
    return 0;
}
