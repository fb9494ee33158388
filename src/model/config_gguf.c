/*
 * config_gguf.c - hyper-parameters from GGUF keys. Source: ggml-org/ggml docs/gguf.md, "LLM".
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"

#include "model/config_int.h"
#include "model/gguf.h"

#define MAX_ROPE_PAIRS 512 /* half of the largest head size that config_check lets pass */

struct keys {
    const struct gguf *g;
    const char *arch;
    struct error *err;
};

/* "llama" + "block_count" -> "llama.block_count"; all names here are literals that fit. */
static void full_name(const struct keys *k, const char *name, char out[96])
{
    snprintf(out, 96, "%s.%s", k->arch, name);
}

static enum status read_u32(const struct keys *k, const char *name, bool required, uint32_t *out)
{
    char key[96];
    full_name(k, name, key);
    uint64_t v;
    enum status s = gguf_get_u64(k->g, key, &v, k->err);
    if (s == STATUS_NOT_FOUND) {
        return required ? error_set(k->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is missing",
                                    gguf_path(k->g), key)
                        : STATUS_OK;
    }
    if (s != STATUS_OK) {
        return s;
    }
    if (v > UINT32_MAX) {
        return error_set(k->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is %llu, far too large",
                         gguf_path(k->g), key, (unsigned long long)v);
    }
    *out = (uint32_t)v;
    return STATUS_OK;
}

static enum status read_float(const struct keys *k, const char *name, float *out)
{
    char key[96];
    full_name(k, name, key);
    double v;
    enum status s = gguf_get_f64(k->g, key, &v, k->err);
    if (s == STATUS_NOT_FOUND) {
        return STATUS_OK;
    }
    if (s == STATUS_OK && !isfinite((float)v)) {
        return error_set(k->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is not a finite number",
                         gguf_path(k->g), key);
    }
    if (s == STATUS_OK) {
        *out = (float)v;
    }
    return s;
}

static enum status read_arch(const struct gguf *g, const struct arch **out, struct error *err)
{
    struct gguf_string name;
    enum status s = gguf_get_string(g, "general.architecture", &name, err);
    if (s == STATUS_NOT_FOUND) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: key 'general.architecture' is missing",
                         gguf_path(g));
    }
    if (s != STATUS_OK) {
        return s;
    }
    char text[65];
    snprintf(text, sizeof text, "%.*s", name.len > 64 ? 64 : (int)name.len, name.text);
    s = arch_by_gguf_name(text, out, err);
    if (s != STATUS_OK) {
        error_prefix(err, "%s", gguf_path(g));
    }
    return s;
}

static enum status read_sizes(const struct keys *k, struct model_config *c)
{
    enum status s = read_u32(k, "block_count", true, &c->n_layers);
    s = s == STATUS_OK ? read_u32(k, "context_length", true, &c->n_ctx) : s;
    s = s == STATUS_OK ? read_u32(k, "embedding_length", true, &c->n_channels) : s;
    s = s == STATUS_OK ? read_u32(k, "feed_forward_length", true, &c->n_ffn) : s;
    s = s == STATUS_OK ? read_u32(k, "attention.head_count", true, &c->n_heads) : s;
    c->n_kv_heads = c->n_heads;
    s = s == STATUS_OK ? read_u32(k, "attention.head_count_kv", false, &c->n_kv_heads) : s;
    if (s != STATUS_OK) {
        return s;
    }
    uint32_t value_size = 0;
    s = read_u32(k, "attention.key_length", false, &c->head_size);
    s = s == STATUS_OK ? read_u32(k, "attention.value_length", false, &value_size) : s;
    if (s != STATUS_OK) {
        return s;
    }
    if (c->head_size == 0) {
        if (c->n_heads == 0 || c->n_channels % c->n_heads != 0) {
            return error_set(k->err, STATUS_BAD_MODEL, -1,
                             "%s: %u channels cannot be split over %u attention heads",
                             gguf_path(k->g), c->n_channels, c->n_heads);
        }
        c->head_size = c->n_channels / c->n_heads;
    }
    if (value_size != 0 && value_size != c->head_size) {
        return error_set(k->err, STATUS_UNSUPPORTED, -1,
                         "%s: key and value heads of different sizes (%u, %u) are not supported",
                         gguf_path(k->g), c->head_size, value_size);
    }
    return STATUS_OK;
}

/* The embedding's rows are the vocabulary; the keys must agree with them (PR 14145: a smaller
 * vocabulary let ids index past the table). */
static enum status read_vocab(const struct keys *k, struct model_config *c)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "token_embd.weight");
    if (t == NULL) {
        return error_set(k->err, STATUS_BAD_MODEL, -1, "%s: tensor 'token_embd.weight' is missing",
                         gguf_path(k->g));
    }
    uint64_t rows = t->dims[1];
    uint64_t keyed = rows;
    uint32_t vocab_size = 0;
    enum status s = read_u32(k, "vocab_size", false, &vocab_size);
    if (s != STATUS_OK) {
        return s;
    }
    if (vocab_size != 0) {
        keyed = vocab_size;
    }
    const struct gguf_string *tokens;
    uint64_t n_tokens;
    s = gguf_get_strings(k->g, "tokenizer.ggml.tokens", &tokens, &n_tokens, k->err);
    if (s != STATUS_OK && s != STATUS_NOT_FOUND) {
        return s;
    }
    if (s == STATUS_OK && n_tokens != rows) {
        keyed = n_tokens;
    }
    if (keyed != rows || rows > UINT32_MAX) {
        return error_set(k->err, STATUS_BAD_MODEL, -1,
                         "%s: the keys give a vocabulary of %llu, the embedding has %llu rows",
                         gguf_path(k->g), (unsigned long long)keyed, (unsigned long long)rows);
    }
    c->n_vocab = (uint32_t)rows;
    return STATUS_OK;
}

static enum status read_id(const struct keys *k, const char *key, int32_t *out)
{
    uint64_t v;
    enum status s = gguf_get_u64(k->g, key, &v, k->err);
    *out = -1;
    if (s == STATUS_OK && v > INT32_MAX) {
        return error_set(k->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is %llu, no token id",
                         gguf_path(k->g), key, (unsigned long long)v);
    }
    if (s == STATUS_OK) {
        *out = (int32_t)v;
    }
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

static enum status read_special_ids(const struct keys *k, struct model_config *c)
{
    enum status s = read_id(k, "tokenizer.ggml.bos_token_id", &c->bos_id);
    /* eot ends a turn in chat models whose eos ends a document. */
    static const char *const eos_keys[] = {"tokenizer.ggml.eos_token_id",
                                           "tokenizer.ggml.eot_token_id"};
    for (size_t i = 0; s == STATUS_OK && i < sizeof eos_keys / sizeof eos_keys[0]; i++) {
        int32_t id;
        s = read_id(k, eos_keys[i], &id);
        if (s == STATUS_OK && id >= 0) {
            s = config_add_eos(c, id, gguf_path(k->g), k->err);
        }
    }
    return s;
}

static enum status read_rope(const struct keys *k, struct model_config *c)
{
    enum status s = read_float(k, "rope.freq_base", &c->rope_theta);
    uint32_t rotated = c->head_size;
    s = s == STATUS_OK ? read_u32(k, "rope.dimension_count", false, &rotated) : s;
    if (s != STATUS_OK) {
        return s;
    }
    if (rotated != c->head_size) {
        return error_set(k->err, STATUS_UNSUPPORTED, -1,
                         "%s: rotary positions on %u of %u dimensions are not supported",
                         gguf_path(k->g), rotated, c->head_size);
    }
    char key[96];
    full_name(k, "rope.scaling.type", key);
    struct gguf_string type = {.text = "none", .len = 4};
    s = gguf_get_string(k->g, key, &type, k->err);
    if (s != STATUS_OK && s != STATUS_NOT_FOUND) {
        return s;
    }
    if (type.len == 6 && memcmp(type.text, "linear", 6) == 0) {
        c->rope_scaling = ROPE_LINEAR;
        return read_float(k, "rope.scaling.factor", &c->rope_factor);
    }
    if (type.len != 4 || memcmp(type.text, "none", 4) != 0) {
        return error_set(k->err, STATUS_UNSUPPORTED, -1,
                         "%s: %s '%.*s' is not supported; known: none, linear", gguf_path(k->g),
                         key, type.len > 40 ? 40 : (int)type.len, type.text);
    }
    /* Files of 2023 wrote the linear factor under another name. */
    float factor = 1.0F;
    s = read_float(k, "rope.scale_linear", &factor);
    if (s == STATUS_OK && factor != 1.0F) {
        c->rope_scaling = ROPE_LINEAR;
        c->rope_factor = factor;
    }
    return s;
}

/* What the converter of llama.cpp writes for rope type llama3 with these parameters: the number
 * each rotary frequency is divided by. */
static double llama3_divisor(const struct model_config *c, uint32_t i)
{
    double frequency = pow((double)c->rope_theta, -2.0 * i / c->head_size);
    double turns = c->rope_original_ctx * frequency / (2.0 * 3.14159265358979323846);
    double low = (double)c->rope_low_freq_factor;
    double high = (double)c->rope_high_freq_factor;
    if (turns > high) {
        return 1.0;
    }
    if (turns < low) {
        return (double)c->rope_factor;
    }
    double smooth = (turns - low) / (high - low);
    return 1.0 / ((1.0 - smooth) / (double)c->rope_factor + smooth);
}

static enum status read_divisors(const struct keys *k, const struct gguf_tensor *t, uint32_t n,
                                 float *out)
{
    const char *path = gguf_path(k->g);
    if (t->ggml_type != 0 || t->rank != 1 || t->dims[0] != n) {
        return error_set(k->err, STATUS_BAD_MODEL, (int64_t)t->offset,
                         "%s: tensor '%s' is not %u numbers of type F32", path, t->name, n);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(k->err, STATUS_IO, -1, "%s: cannot be opened again", path);
    }
    enum status s = fs_pread_exact(fd, path, out, n * sizeof *out, t->offset, k->err);
    close(fd);
    return s;
}

/* GGUF keeps llama3 scaling as a tensor of divisors and drops its parameters. All published models
 * use low 1, high 4, original context 8192 and differ in the factor, which is the last divisor; a
 * tensor that those do not reproduce is refused rather than approximated. */
static enum status read_rope_tensor(const struct keys *k, struct model_config *c)
{
    const struct gguf_tensor *t = gguf_find_tensor(k->g, "rope_freqs.weight");
    if (t == NULL) {
        return STATUS_OK;
    }
    float divisors[MAX_ROPE_PAIRS];
    uint32_t n = c->head_size / 2;
    if (n == 0 || n > MAX_ROPE_PAIRS) {
        return STATUS_OK; /* config_check refuses the head size */
    }
    enum status s = read_divisors(k, t, n, divisors);
    if (s != STATUS_OK) {
        return s;
    }
    struct model_config guess = *c;
    guess.rope_factor = divisors[n - 1];
    guess.rope_original_ctx = 8192;
    bool plain = true;
    bool llama3 = isfinite(guess.rope_factor) && guess.rope_factor >= 1.0F;
    for (uint32_t i = 0; i < n; i++) {
        double wanted = llama3_divisor(&guess, i);
        plain = plain && divisors[i] == 1.0F;
        /* The converter computes in f32: angles of some 10^4 steps of 2^-24. */
        llama3 = llama3 && fabs((double)divisors[i] - wanted) <= 1e-3 * wanted;
    }
    if (plain) {
        return STATUS_OK;
    }
    if (!llama3 || c->rope_scaling != ROPE_PLAIN) {
        return error_set(k->err, STATUS_UNSUPPORTED, (int64_t)t->offset,
                         "%s: tensor '%s' holds rotary factors other than llama3's (low 1, high 4, "
                         "original context 8192); use the model's safetensors",
                         gguf_path(k->g), t->name);
    }
    guess.rope_scaling = ROPE_LLAMA3;
    *c = guess;
    return STATUS_OK;
}

static enum status read_norm(const struct keys *k, struct model_config *c)
{
    return read_float(k,
                      c->arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                : "attention.layer_norm_epsilon",
                      &c->norm_eps);
}

/* Keys by which llama.cpp computes something that we do not. */
static enum status refuse_variants(const struct keys *k)
{
    static const char *const names[] = {
        "attention.sliding_window", "attention.scale",         "attention.temperature_scale",
        "attn_logit_softcapping",   "final_logit_softcapping", "logit_scale",
        "embedding_scale",          "residual_scale",
    };
    uint32_t experts = 0;
    enum status s = read_u32(k, "expert_count", false, &experts);
    if (s == STATUS_OK && experts > 0) {
        return error_set(k->err, STATUS_UNSUPPORTED, -1,
                         "%s: a mixture of %u experts is not supported", gguf_path(k->g), experts);
    }
    for (size_t i = 0; s == STATUS_OK && i < sizeof names / sizeof names[0]; i++) {
        char key[96];
        double value;
        full_name(k, names[i], key);
        if (gguf_get_f64(k->g, key, &value, NULL) != STATUS_NOT_FOUND) {
            return error_set(k->err, STATUS_UNSUPPORTED, -1, "%s: key '%s' is not supported",
                             gguf_path(k->g), key);
        }
    }
    return s;
}

enum status config_from_gguf(const struct gguf *g, struct model_config *out, struct error *err)
{
    const struct arch *arch;
    enum status s = read_arch(g, &arch, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct keys k = {.g = g, .arch = arch->gguf_name, .err = err};
    struct model_config c;
    config_defaults(arch, &c);
    s = refuse_variants(&k);
    s = s == STATUS_OK ? read_sizes(&k, &c) : s;
    s = s == STATUS_OK ? read_vocab(&k, &c) : s;
    s = s == STATUS_OK ? read_special_ids(&k, &c) : s;
    s = s == STATUS_OK ? read_norm(&k, &c) : s;
    if (s == STATUS_OK && arch->position == POSITION_ROPE) {
        s = read_rope(&k, &c);
        s = s == STATUS_OK ? read_rope_tensor(&k, &c) : s;
    }
    if (s != STATUS_OK) {
        return s;
    }
    c.tied = gguf_find_tensor(g, "output.weight") == NULL;
    c.attention_bias = gguf_find_tensor(g, "blk.0.attn_q.bias") != NULL;
    c.mlp_bias = gguf_find_tensor(g, "blk.0.ffn_up.bias") != NULL;
    s = config_check(&c, gguf_path(g), err);
    if (s == STATUS_OK) {
        *out = c;
    }
    return s;
}
