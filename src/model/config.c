/*
 * config.c - see config.h: bounds, built-in shapes, counting. Reading: config_json.c,
 * config_gguf.c.
 */
#include "model/config.h"

#include <math.h>
#include <string.h>

#include "model/config_int.h"

/* Bounds far above any published model of these families; with them every product of two sizes
 * fits in 64 bits and every size in 32. */
#define MAX_CHANNELS        (1U << 17)
#define MAX_HEADS           4096U
#define MAX_HEAD_SIZE       1024U
#define MAX_FFN             (1U << 20)
#define MAX_VOCAB           (1U << 22)
#define MAX_CTX             (1U << 24)
#define MAX_ATTENTION_WIDTH (1U << 18) /* H * D */

void config_defaults(const struct arch *arch, struct model_config *c)
{
    memset(c, 0, sizeof *c);
    c->arch = arch;
    c->activation = arch->activation;
    c->norm_eps = arch->norm == NORM_RMS ? 1e-6F : 1e-5F;
    c->rope_theta = 10000.0F;
    c->rope_factor = 1.0F;
    c->rope_low_freq_factor = 1.0F;
    c->rope_high_freq_factor = 4.0F;
    c->tied = arch->tied_default;
    c->bos_id = -1;
}

enum status config_add_eos(struct model_config *c, int32_t id, const char *path, struct error *err)
{
    for (uint32_t i = 0; i < c->n_eos; i++) {
        if (c->eos_ids[i] == id) {
            return STATUS_OK;
        }
    }
    if (c->n_eos == CONFIG_MAX_EOS) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: more than %d end-of-sequence ids", path,
                         CONFIG_MAX_EOS);
    }
    c->eos_ids[c->n_eos++] = id;
    return STATUS_OK;
}

static enum status check_sizes(const struct model_config *c, const char *path, struct error *err)
{
    const struct {
        const char *what;
        uint32_t value;
        uint32_t max;
    } sizes[] = {
        {"layers", c->n_layers, CONFIG_MAX_LAYERS},
        {"channels", c->n_channels, MAX_CHANNELS},
        {"attention heads", c->n_heads, MAX_HEADS},
        {"key/value heads", c->n_kv_heads, MAX_HEADS},
        {"head size", c->head_size, MAX_HEAD_SIZE},
        {"feed-forward size", c->n_ffn, MAX_FFN},
        {"vocabulary", c->n_vocab, MAX_VOCAB},
        {"context length", c->n_ctx, MAX_CTX},
        {"attention width (heads x head size)", c->n_heads * c->head_size, MAX_ATTENTION_WIDTH},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value == 0 || sizes[i].value > sizes[i].max) {
            return error_set(err, STATUS_BAD_MODEL, -1, "%s: %s is %u; it must be 1 to %u", path,
                             sizes[i].what, sizes[i].value, sizes[i].max);
        }
    }
    if (c->n_heads % c->n_kv_heads != 0) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "%s: %u attention heads are not a multiple of %u key/value heads", path,
                         c->n_heads, c->n_kv_heads);
    }
    return STATUS_OK;
}

static enum status check_rope(const struct model_config *c, const char *path, struct error *err)
{
    if (c->arch->position != POSITION_ROPE) {
        return STATUS_OK;
    }
    if (c->head_size % 2 != 0) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "%s: head size %u is odd; rotary positions need an even one", path,
                         c->head_size);
    }
    if (!isfinite(c->rope_theta) || c->rope_theta <= 1.0F) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: rope theta %g must be above 1", path,
                         (double)c->rope_theta);
    }
    if (c->rope_scaling != ROPE_PLAIN && (!isfinite(c->rope_factor) || c->rope_factor < 1.0F)) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: rope factor %g must be at least 1", path,
                         (double)c->rope_factor);
    }
    if (c->rope_scaling == ROPE_LLAMA3 &&
        (!(c->rope_low_freq_factor > 0.0F) || !isfinite(c->rope_high_freq_factor) ||
         c->rope_high_freq_factor <= c->rope_low_freq_factor || c->rope_original_ctx == 0 ||
         c->rope_original_ctx > MAX_CTX)) {
        return error_set(err, STATUS_BAD_MODEL, -1,
                         "%s: rope scaling llama3 needs 0 < low_freq_factor (%g) < "
                         "high_freq_factor (%g) and an original context of 1 to %u (%u)",
                         path, (double)c->rope_low_freq_factor, (double)c->rope_high_freq_factor,
                         MAX_CTX, c->rope_original_ctx);
    }
    return STATUS_OK;
}

enum status config_check(const struct model_config *c, const char *path, struct error *err)
{
    enum status s = check_sizes(c, path, err);
    if (s == STATUS_OK) {
        s = check_rope(c, path, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    if (!(c->norm_eps > 0.0F) || c->norm_eps > 1.0F) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: norm epsilon %g must be in (0, 1]", path,
                         (double)c->norm_eps);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (c->layer_is_local[i] && c->window == 0) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "%s: layer %u attends locally, but the window is 0", path, i);
        }
    }
    if (c->bos_id < -1 || c->bos_id >= (int64_t)c->n_vocab) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: bos id %d is not below the vocabulary %u",
                         path, c->bos_id, c->n_vocab);
    }
    for (uint32_t i = 0; i < c->n_eos; i++) {
        if (c->eos_ids[i] < 0 || c->eos_ids[i] >= (int64_t)c->n_vocab) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "%s: eos id %d is not below the vocabulary %u", path, c->eos_ids[i],
                             c->n_vocab);
        }
    }
    return STATUS_OK;
}

/* ---- built-in shapes: the published configurations ---- */

struct shape {
    const char *id;
    const char *arch;
    uint32_t layers, channels, heads, kv_heads, ffn, vocab, ctx;
    float eps;
    int32_t bos, eos;
};

static const struct shape shapes[] = {
    {"gpt2", "gpt2", 12, 768, 12, 12, 3072, 50257, 1024, 1e-5F, 50256, 50256},
    {"gpt2-medium", "gpt2", 24, 1024, 16, 16, 4096, 50257, 1024, 1e-5F, 50256, 50256},
    {"gpt2-large", "gpt2", 36, 1280, 20, 20, 5120, 50257, 1024, 1e-5F, 50256, 50256},
    {"TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama", 22, 2048, 32, 4, 5632, 32000, 2048, 1e-5F, 1,
     2},
};

enum status config_builtin(const char *id, struct model_config *out, struct error *err)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct shape *s = &shapes[i];
        if (strcmp(s->id, id) != 0) {
            continue;
        }
        const struct arch *arch;
        enum status status = arch_by_model_type(s->arch, &arch, err);
        if (status != STATUS_OK) {
            return status;
        }
        struct model_config c;
        config_defaults(arch, &c);
        c.n_layers = s->layers;
        c.n_channels = s->channels;
        c.n_heads = s->heads;
        c.n_kv_heads = s->kv_heads;
        c.head_size = s->channels / s->heads;
        c.n_ffn = s->ffn;
        c.n_vocab = s->vocab;
        c.n_ctx = s->ctx;
        c.norm_eps = s->eps;
        c.bos_id = s->bos;
        c.eos_ids[0] = s->eos;
        c.n_eos = 1;
        status = config_check(&c, id, err);
        if (status == STATUS_OK) {
            *out = c;
        }
        return status;
    }
    return error_set(err, STATUS_NOT_FOUND, -1,
                     "no built-in shape '%.100s'; built in: %s, %s, %s, %s", id, shapes[0].id,
                     shapes[1].id, shapes[2].id, shapes[3].id);
}

uint64_t config_parameter_count(const struct model_config *c)
{
    const struct arch *a = c->arch;
    uint64_t channels = c->n_channels;
    uint64_t q = (uint64_t)c->n_heads * c->head_size;
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_size;
    bool norm_bias = (a->bias_roles >> ROLE_ATTN_NORM & 1) != 0;
    uint64_t norm = norm_bias ? 2 * channels : channels;
    uint64_t layer = 2 * norm + channels * (q + 2 * kv) + q * channels;
    layer += (a->gated_mlp ? 3 : 2) * channels * c->n_ffn;
    if ((a->bias_roles >> ROLE_QKV & 1) != 0 || c->attention_bias) {
        layer += q + 2 * kv;
    }
    if ((a->bias_roles >> ROLE_O & 1) != 0 || c->attention_bias) {
        layer += channels;
    }
    if ((a->bias_roles >> ROLE_UP & 1) != 0 || c->mlp_bias) {
        layer += (a->gated_mlp ? 2ULL : 1ULL) * c->n_ffn + channels;
    }
    uint64_t total = c->n_layers * layer + norm + c->n_vocab * channels;
    if (a->position == POSITION_LEARNED) {
        total += c->n_ctx * channels;
    }
    return total + (c->tied ? 0 : c->n_vocab * channels);
}
