/* Any bytes as a config.json: a clean error that names the file, or a config within its bounds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config c;
    struct error err = ERROR_INIT;
    enum status s = config_from_json((const char *)data, size, "fuzz", &c, &err);
    if (s != STATUS_OK) {
        if (err.code != s || strncmp(err.message, "fuzz: ", 6) != 0) {
            abort();
        }
        return 0;
    }
    bool good = c.n_layers >= 1 && c.n_layers <= CONFIG_MAX_LAYERS && c.n_kv_heads >= 1 &&
                c.n_heads % c.n_kv_heads == 0 && c.head_size >= 1 && c.n_ffn >= 1 &&
                c.n_vocab >= 1 && c.n_ctx >= 1 && c.norm_eps > 0.0F && c.bos_id >= -1 &&
                c.bos_id < (int64_t)c.n_vocab && c.n_eos <= CONFIG_MAX_EOS;
    for (uint32_t i = 0; good && i < c.n_eos; i++) {
        good = c.eos_ids[i] >= 0 && c.eos_ids[i] < (int64_t)c.n_vocab;
    }
    if (good && c.arch->position == POSITION_ROPE) {
        good = c.head_size % 2 == 0 && isfinite(c.rope_theta) && c.rope_theta > 1.0F &&
               isfinite(c.rope_factor);
    }
    if (!good || config_parameter_count(&c) == 0) {
        abort();
    }
    return 0;
}
