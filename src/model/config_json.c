/*
 * config_json.c - hyper-parameters from config.json, as Transformers writes it: up to version 4
 * `rope_theta` + `rope_scaling`, from version 5 `rope_parameters`.
 *
 * Sizes must be given; what Transformers fills in when a key is absent or null (epsilons, theta,
 * activation, inner size) is filled in likewise. A key that would change the arithmetic and that we
 * do not honour is refused by name.
 */
#include <math.h>
#include <string.h>

#include "model/config_int.h"
#include "model/jsontext.h"

#define MAX_DEPTH  32U      /* real files: 4 */
#define MAX_VALUES 1000000U /* a label map of 20,000 classes is 40,000 */

struct source {
    const json_t *root;
    const char *path;
    struct error *err;
};

/* The value of a key; null counts as absent, as in Transformers. */
static const json_t *lookup(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static enum status missing(const struct source *c, const char *key)
{
    return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is missing", c->path, key);
}

static enum status not_a(const struct source *c, const char *key, const char *kind)
{
    return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: key '%s' is not %s", c->path, key, kind);
}

/* Integers arrive as reals (JSON_DECODE_INT_AS_REAL). */
static bool to_integer(const json_t *v, double lo, double hi, double *out)
{
    if (!json_is_real(v)) {
        return false;
    }
    double d = json_real_value(v);
    if (!(d >= lo && d <= hi) || d != floor(d)) {
        return false;
    }
    *out = d;
    return true;
}

static enum status read_u32(const struct source *c, const char *key, bool required, uint32_t *out)
{
    const json_t *v = lookup(c->root, key);
    double d;
    if (v == NULL) {
        return required ? missing(c, key) : STATUS_OK;
    }
    if (!to_integer(v, 0.0, (double)UINT32_MAX, &d)) {
        return not_a(c, key, "an integer from 0 to 2^32 - 1");
    }
    *out = (uint32_t)d;
    return STATUS_OK;
}

/* `object` is the root or a nested map of it. */
static enum status read_float(const struct source *c, const json_t *object, const char *key,
                              bool required, float *out)
{
    const json_t *v = lookup(object, key);
    if (v == NULL) {
        return required ? missing(c, key) : STATUS_OK;
    }
    if (!json_is_real(v) || !isfinite((float)json_real_value(v))) {
        return not_a(c, key, "a number within the range of f32");
    }
    *out = (float)json_real_value(v);
    return STATUS_OK;
}

static enum status read_bool(const struct source *c, const char *key, bool *out)
{
    const json_t *v = lookup(c->root, key);
    if (v == NULL) {
        return STATUS_OK;
    }
    if (!json_is_boolean(v)) {
        return not_a(c, key, "true or false");
    }
    *out = json_is_true(v);
    return STATUS_OK;
}

/* A key whose other setting we do not compute. */
static enum status require_bool(const struct source *c, const char *key, bool wanted)
{
    bool value = wanted;
    enum status s = read_bool(c, key, &value);
    if (s == STATUS_OK && value != wanted) {
        return error_set(c->err, STATUS_UNSUPPORTED, -1, "%s: key '%s': %s is not supported",
                         c->path, key, wanted ? "false" : "true");
    }
    return s;
}

static enum status read_activation(const struct source *c, const char *key, enum activation *out)
{
    static const struct {
        const char *name;
        enum activation value;
    } known[] = {
        {"gelu_new", ACT_GELU_TANH},  {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH}, {"gelu", ACT_GELU_ERF},
        {"relu", ACT_RELU},           {"silu", ACT_SILU},
        {"swish", ACT_SILU},
    };
    const json_t *v = lookup(c->root, key);
    if (v == NULL) {
        return STATUS_OK;
    }
    if (!json_is_string(v)) {
        return not_a(c, key, "a string");
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(json_string_value(v), known[i].name) == 0) {
            *out = known[i].value;
            return STATUS_OK;
        }
    }
    return error_set(c->err, STATUS_UNSUPPORTED, -1,
                     "%s: key '%s': activation '%.40s' is not supported; known: gelu_new, "
                     "gelu_pytorch_tanh, gelu_fast, gelu, relu, silu, swish",
                     c->path, key, json_string_value(v));
}

static enum status split_heads(const struct source *c, struct model_config *m)
{
    if (m->n_heads == 0 || m->n_channels % m->n_heads != 0) {
        return error_set(c->err, STATUS_BAD_MODEL, -1,
                         "%s: %u channels cannot be split over %u attention heads", c->path,
                         m->n_channels, m->n_heads);
    }
    m->head_size = m->n_channels / m->n_heads;
    return STATUS_OK;
}

/* GPT-2 and GPT-Neo: null means 4 C. */
static enum status read_inner(const struct source *c, const char *key, struct model_config *m)
{
    if (m->n_channels > UINT32_MAX / 4) {
        return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: %u channels are far too many", c->path,
                         m->n_channels);
    }
    m->n_ffn = 4 * m->n_channels;
    return read_u32(c, key, false, &m->n_ffn);
}

/* ---- families ---- */

static enum status read_gpt2(const struct source *c, struct model_config *m)
{
    enum status s = read_u32(c, "n_embd", true, &m->n_channels);
    s = s == STATUS_OK ? read_u32(c, "n_layer", true, &m->n_layers) : s;
    s = s == STATUS_OK ? read_u32(c, "n_head", true, &m->n_heads) : s;
    s = s == STATUS_OK ? split_heads(c, m) : s;
    s = s == STATUS_OK ? read_inner(c, "n_inner", m) : s;
    /* Files of 2019 have n_ctx only. */
    const char *ctx = lookup(c->root, "n_positions") != NULL ? "n_positions" : "n_ctx";
    s = s == STATUS_OK ? read_u32(c, ctx, true, &m->n_ctx) : s;
    s = s == STATUS_OK ? read_float(c, c->root, "layer_norm_epsilon", false, &m->norm_eps) : s;
    s = s == STATUS_OK ? read_activation(c, "activation_function", &m->activation) : s;
    s = s == STATUS_OK ? require_bool(c, "scale_attn_weights", true) : s;
    s = s == STATUS_OK ? require_bool(c, "scale_attn_by_inverse_layer_idx", false) : s;
    s = s == STATUS_OK ? require_bool(c, "add_cross_attention", false) : s;
    m->n_kv_heads = m->n_heads;
    return s;
}

static enum status add_layer_kind(const struct source *c, const json_t *v, const char *key,
                                  uint32_t *n, struct model_config *m)
{
    const char *kind = json_string_value(v);
    if (kind == NULL || (strcmp(kind, "global") != 0 && strcmp(kind, "local") != 0)) {
        return not_a(c, key, "a list of \"global\" and \"local\"");
    }
    if (*n == m->n_layers) {
        return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: key '%s' lists more than %u layers",
                         c->path, key, m->n_layers);
    }
    m->layer_is_local[(*n)++] = strcmp(kind, "local") == 0;
    return STATUS_OK;
}

/* [[["global", "local"], 12], ...]: each pattern as often as its number says. */
static enum status expand_attention_types(const struct source *c, const json_t *types,
                                          struct model_config *m, uint32_t *n)
{
    static const char key[] = "attention_types";
    size_t index;
    json_t *entry;
    json_array_foreach((json_t *)types, index, entry)
    {
        const json_t *pattern = json_array_get(entry, 0);
        double repeat;
        if (json_array_size(entry) != 2 || json_array_size(pattern) == 0 ||
            !to_integer(json_array_get(entry, 1), 0.0, CONFIG_MAX_LAYERS, &repeat)) {
            return not_a(c, key, "a list of [[kinds], repetitions]");
        }
        for (uint32_t r = 0; r < (uint32_t)repeat; r++) {
            for (size_t i = 0; i < json_array_size(pattern); i++) {
                enum status s = add_layer_kind(c, json_array_get(pattern, i), key, n, m);
                if (s != STATUS_OK) {
                    return s;
                }
            }
        }
    }
    return STATUS_OK;
}

static enum status read_attention_kinds(const struct source *c, struct model_config *m)
{
    if (m->n_layers > CONFIG_MAX_LAYERS) {
        return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: %u layers; the limit is %d", c->path,
                         m->n_layers, CONFIG_MAX_LAYERS);
    }
    /* Transformers derives attention_layers from attention_types, so these decide. */
    const json_t *types = lookup(c->root, "attention_types");
    const json_t *layers = lookup(c->root, "attention_layers");
    const char *key = types != NULL ? "attention_types" : "attention_layers";
    const json_t *list = types != NULL ? types : layers;
    uint32_t n = 0;
    enum status s = STATUS_OK;
    if (list == NULL) {
        return missing(c, "attention_types");
    }
    if (!json_is_array(list)) {
        return not_a(c, key, "a list");
    }
    if (types != NULL) {
        s = expand_attention_types(c, types, m, &n);
    }
    for (size_t i = 0; types == NULL && s == STATUS_OK && i < json_array_size(list); i++) {
        s = add_layer_kind(c, json_array_get(list, i), key, &n, m);
    }
    if (s == STATUS_OK && n != m->n_layers) {
        return error_set(c->err, STATUS_BAD_MODEL, -1, "%s: key '%s' lists %u of %u layers",
                         c->path, key, n, m->n_layers);
    }
    return s;
}

static enum status read_gpt_neo(const struct source *c, struct model_config *m)
{
    enum status s = read_u32(c, "hidden_size", true, &m->n_channels);
    s = s == STATUS_OK ? read_u32(c, "num_layers", true, &m->n_layers) : s;
    s = s == STATUS_OK ? read_u32(c, "num_heads", true, &m->n_heads) : s;
    s = s == STATUS_OK ? split_heads(c, m) : s;
    s = s == STATUS_OK ? read_inner(c, "intermediate_size", m) : s;
    s = s == STATUS_OK ? read_u32(c, "max_position_embeddings", true, &m->n_ctx) : s;
    m->window = 256;
    s = s == STATUS_OK ? read_u32(c, "window_size", false, &m->window) : s;
    s = s == STATUS_OK ? read_attention_kinds(c, m) : s;
    s = s == STATUS_OK ? read_float(c, c->root, "layer_norm_epsilon", false, &m->norm_eps) : s;
    s = s == STATUS_OK ? read_activation(c, "activation_function", &m->activation) : s;
    m->n_kv_heads = m->n_heads;
    return s;
}

static enum status read_llama3_scaling(const struct source *c, const json_t *rope,
                                       struct model_config *m)
{
    enum status s = read_float(c, rope, "low_freq_factor", true, &m->rope_low_freq_factor);
    s = s == STATUS_OK ? read_float(c, rope, "high_freq_factor", true, &m->rope_high_freq_factor)
                       : s;
    struct source nested = {.root = rope, .path = c->path, .err = c->err};
    return s == STATUS_OK
               ? read_u32(&nested, "original_max_position_embeddings", true, &m->rope_original_ctx)
               : s;
}

/* `rope` is rope_scaling or rope_parameters; which is its name for messages. */
static enum status read_rope_map(const struct source *c, const json_t *rope, const char *which,
                                 struct model_config *m)
{
    if (!json_is_object(rope)) {
        return not_a(c, which, "an object");
    }
    enum status s = read_float(c, rope, "rope_theta", false, &m->rope_theta);
    float partial = 1.0F;
    s = s == STATUS_OK ? read_float(c, rope, "partial_rotary_factor", false, &partial) : s;
    if (s != STATUS_OK) {
        return s;
    }
    if (partial != 1.0F) {
        return error_set(c->err, STATUS_UNSUPPORTED, -1,
                         "%s: key '%s': partial_rotary_factor %g is not supported", c->path, which,
                         (double)partial);
    }
    const json_t *type = lookup(rope, "rope_type");
    type = type != NULL ? type : lookup(rope, "type");
    if (type != NULL && !json_is_string(type)) {
        return not_a(c, "rope_type", "a string");
    }
    /* Without a type, a map of theta alone is the plain kind; anything else is a scaling that we
     * do not know (or, per layer type, nested maps). */
    const char *name = type != NULL ? json_string_value(type)
                       : json_object_size(rope) == (lookup(rope, "rope_theta") != NULL ? 1U : 0U)
                           ? "default"
                           : "(none given)";
    if (strcmp(name, "default") == 0) {
        return STATUS_OK;
    }
    bool linear = strcmp(name, "linear") == 0;
    if (!linear && strcmp(name, "llama3") != 0) {
        return error_set(
            c->err, STATUS_UNSUPPORTED, -1,
            "%s: key '%s': rope type '%.40s' is not supported; known: default, linear, "
            "llama3",
            c->path, which, name);
    }
    m->rope_scaling = linear ? ROPE_LINEAR : ROPE_LLAMA3;
    s = read_float(c, rope, "factor", true, &m->rope_factor);
    return s == STATUS_OK && !linear ? read_llama3_scaling(c, rope, m) : s;
}

static enum status read_rope(const struct source *c, struct model_config *m)
{
    enum status s = read_float(c, c->root, "rope_theta", false, &m->rope_theta);
    float partial = 1.0F;
    s = s == STATUS_OK ? read_float(c, c->root, "partial_rotary_factor", false, &partial) : s;
    if (s == STATUS_OK && partial != 1.0F) {
        return error_set(c->err, STATUS_UNSUPPORTED, -1,
                         "%s: key 'partial_rotary_factor': %g is not supported", c->path,
                         (double)partial);
    }
    /* Transformers 5 takes the older key when a file has both. */
    const json_t *scaling = lookup(c->root, "rope_scaling");
    const json_t *parameters = lookup(c->root, "rope_parameters");
    if (s == STATUS_OK && scaling != NULL) {
        return read_rope_map(c, scaling, "rope_scaling", m);
    }
    if (s == STATUS_OK && parameters != NULL) {
        return read_rope_map(c, parameters, "rope_parameters", m);
    }
    return s;
}

static enum status read_llama(const struct source *c, struct model_config *m)
{
    enum status s = read_u32(c, "hidden_size", true, &m->n_channels);
    s = s == STATUS_OK ? read_u32(c, "num_hidden_layers", true, &m->n_layers) : s;
    s = s == STATUS_OK ? read_u32(c, "num_attention_heads", true, &m->n_heads) : s;
    m->n_kv_heads = m->n_heads;
    s = s == STATUS_OK ? read_u32(c, "num_key_value_heads", false, &m->n_kv_heads) : s;
    s = s == STATUS_OK ? read_u32(c, "intermediate_size", true, &m->n_ffn) : s;
    s = s == STATUS_OK ? read_u32(c, "max_position_embeddings", true, &m->n_ctx) : s;
    if (s == STATUS_OK && lookup(c->root, "head_dim") != NULL) {
        s = read_u32(c, "head_dim", true, &m->head_size);
    } else if (s == STATUS_OK) {
        s = split_heads(c, m);
    }
    s = s == STATUS_OK ? read_float(c, c->root, "rms_norm_eps", false, &m->norm_eps) : s;
    s = s == STATUS_OK ? read_activation(c, "hidden_act", &m->activation) : s;
    s = s == STATUS_OK ? read_bool(c, "attention_bias", &m->attention_bias) : s;
    s = s == STATUS_OK ? read_bool(c, "mlp_bias", &m->mlp_bias) : s;
    return s == STATUS_OK ? read_rope(c, m) : s;
}

/* ---- common keys ---- */

static enum status read_special_id(const struct source *c, const json_t *v, const char *key,
                                   int32_t *out)
{
    double d;
    /* -1 is how some files of 2023 say none. */
    if (!to_integer(v, -1.0, (double)INT32_MAX, &d)) {
        return not_a(c, key, "a token id");
    }
    *out = (int32_t)d;
    return STATUS_OK;
}

/* An id or a list of ids is added to the eos list. */
static enum status read_eos(const struct source *c, struct model_config *m)
{
    static const char key[] = "eos_token_id";
    const json_t *v = lookup(c->root, key);
    size_t n = v == NULL ? 0 : json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < n; i++) {
        int32_t id = -1;
        enum status s = read_special_id(c, json_is_array(v) ? json_array_get(v, i) : v, key, &id);
        if (s == STATUS_OK && id >= 0) {
            s = config_add_eos(m, id, c->path, c->err);
        }
        if (s != STATUS_OK) {
            return s;
        }
    }
    return STATUS_OK;
}

static enum status read_common(const struct source *c, struct model_config *m)
{
    enum status s = read_u32(c, "vocab_size", true, &m->n_vocab);
    s = s == STATUS_OK ? read_bool(c, "tie_word_embeddings", &m->tied) : s;
    s = s == STATUS_OK ? read_eos(c, m) : s;
    const json_t *bos = lookup(c->root, "bos_token_id");
    if (s == STATUS_OK && bos != NULL) {
        s = read_special_id(c, bos, "bos_token_id", &m->bos_id);
    }
    if (s == STATUS_OK && lookup(c->root, "quantization_config") != NULL) {
        return error_set(c->err, STATUS_UNSUPPORTED, -1,
                         "%s: key 'quantization_config': quantised safetensors are not supported; "
                         "use a GGUF file",
                         c->path);
    }
    return s;
}

static enum status read_root(const struct source *c, struct model_config *m)
{
    static const struct {
        const char *arch;
        enum status (*read)(const struct source *c, struct model_config *m);
    } families[] = {{"gpt2", read_gpt2}, {"gpt_neo", read_gpt_neo}, {"llama", read_llama}};
    const json_t *type = lookup(c->root, "model_type");
    if (!json_is_string(type)) {
        return type == NULL ? missing(c, "model_type") : not_a(c, "model_type", "a string");
    }
    const struct arch *arch = NULL;
    enum status s = arch_by_model_type(json_string_value(type), &arch, c->err);
    if (s != STATUS_OK) {
        error_prefix(c->err, "%s: key 'model_type'", c->path);
        return s;
    }
    config_defaults(arch, m);
    s = STATUS_INTERNAL;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i].arch, arch->name) == 0) {
            s = families[i].read(c, m);
        }
    }
    s = s == STATUS_OK ? read_common(c, m) : s;
    return s == STATUS_OK ? config_check(m, c->path, c->err) : s;
}

static enum status parse(const char *text, size_t len, const char *path, json_t **root,
                         struct error *err)
{
    static const struct json_limits limits = {
        .max_depth = MAX_DEPTH, .max_values = MAX_VALUES, .integers_as_real = true};
    return json_text_parse(text, len, &limits, path, 0, root, err);
}

enum status config_from_json(const char *text, size_t len, const char *path,
                             struct model_config *out, struct error *err)
{
    json_t *root = NULL;
    enum status s = parse(text, len, path, &root, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct source c = {.root = root, .path = path, .err = err};
    struct model_config m;
    s = read_root(&c, &m);
    if (s == STATUS_OK) {
        *out = m;
    }
    json_decref(root);
    return s;
}

enum status config_extend_eos(const char *text, size_t len, const char *path,
                              struct model_config *m, struct error *err)
{
    json_t *root = NULL;
    enum status s = parse(text, len, path, &root, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct source c = {.root = root, .path = path, .err = err};
    struct model_config extended = *m;
    s = read_eos(&c, &extended);
    s = s == STATUS_OK ? config_check(&extended, path, err) : s;
    if (s == STATUS_OK) {
        *m = extended;
    }
    json_decref(root);
    return s;
}
