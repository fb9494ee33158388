/*
 * weights_bind.c - from a file's tensors to logical weights: every tensor the architecture needs is
 * there with the shape that the config gives, and no other tensor stands in the file.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/dequant.h"
#include "model/weights_int.h"

#define NAME_BYTES 160 /* the longest template, the longest prefix and a layer number fit */

bool weights_is_per_layer(enum weight_role role)
{
    return role >= ROLE_ATTN_NORM;
}

bool weights_is_vector(enum weight_role role)
{
    return role == ROLE_FINAL_NORM || role == ROLE_ATTN_NORM || role == ROLE_MLP_NORM;
}

void weights_shape(const struct model_config *c, enum weight_role role, uint64_t *rows,
                   uint64_t *columns)
{
    uint64_t channels = c->n_channels;
    uint64_t q = (uint64_t)c->n_heads * c->head_size;
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_size;
    const struct {
        uint64_t rows, columns;
    } shapes[ROLE_COUNT] = {
        [ROLE_EMBED] = {c->n_vocab, channels},
        [ROLE_POSITION] = {c->n_ctx, channels},
        [ROLE_FINAL_NORM] = {1, channels},
        [ROLE_HEAD] = {c->n_vocab, channels},
        [ROLE_ATTN_NORM] = {1, channels},
        [ROLE_Q] = {q, channels},
        [ROLE_K] = {kv, channels},
        [ROLE_V] = {kv, channels},
        [ROLE_QKV] = {q + 2 * kv, channels},
        [ROLE_O] = {channels, q},
        [ROLE_MLP_NORM] = {1, channels},
        [ROLE_GATE] = {c->n_ffn, channels},
        [ROLE_UP] = {c->n_ffn, channels},
        [ROLE_DOWN] = {channels, c->n_ffn},
    };
    *rows = shapes[role].rows;
    *columns = shapes[role].columns;
}

struct slot *weights_slot(const struct weights *w, enum weight_role role, uint32_t layer, bool bias)
{
    assert(role < ROLE_COUNT && layer < w->config.n_layers);
    return &w->slots[((uint64_t)role * w->config.n_layers + layer) * 2 + (bias ? 1 : 0)];
}

/* State of one binding. */
struct binder {
    struct weights *w;
    struct directory *d;
    const char *path;
    bool strip_prefix; /* saved without the head: "wte" for "transformer.wte" */
    struct error *err;
};

/* "transformer.h.%d.ln_1", 3, ".bias" -> "transformer.h.3.ln_1.bias" */
static void make_name(const struct binder *b, const char *template, uint32_t layer,
                      const char *suffix, char out[NAME_BYTES])
{
    const char *dot = strchr(template, '.');
    if (b->strip_prefix && dot != NULL) {
        template = dot + 1;
    }
    const char *mark = strstr(template, "%d");
    int n;
    if (mark == NULL) {
        n = snprintf(out, NAME_BYTES, "%s%s", template, suffix);
    } else {
        n = snprintf(out, NAME_BYTES, "%.*s%u%s%s", (int)(mark - template), template, layer,
                     mark + 2, suffix);
    }
    assert(n > 0 && n < NAME_BYTES);
    (void)n;
}

static struct stored *find(const struct binder *b, const char *name)
{
    const struct name_entry *e = names_find(b->d->names, (size_t)b->d->count, name, strlen(name));
    return e == NULL ? NULL : &b->d->tensors[e->value];
}

static enum status check_shape(const struct binder *b, const struct stored *t, uint32_t rank,
                               uint64_t rows, uint64_t columns)
{
    bool same = t->rank == rank && t->dims[0] == rows && (rank == 1 || t->dims[1] == columns);
    if (!same) {
        char want[64];
        char got[64];
        if (rank == 1) {
            snprintf(want, sizeof want, "[%llu]", (unsigned long long)rows);
        } else {
            snprintf(want, sizeof want, "[%llu, %llu]", (unsigned long long)rows,
                     (unsigned long long)columns);
        }
        if (t->rank == 2) {
            snprintf(got, sizeof got, "[%llu, %llu]", (unsigned long long)t->dims[0],
                     (unsigned long long)t->dims[1]);
        } else {
            snprintf(got, sizeof got, t->rank == 1 ? "[%llu]" : "first dimension %llu",
                     (unsigned long long)t->dims[0]);
        }
        return error_set(b->err, STATUS_BAD_MODEL, (int64_t)t->offset,
                         "%s: tensor '%s' has shape %s (rank %u); the config asks for %s", b->path,
                         t->name, got, t->rank, want);
    }
    if (!t->readable) {
        return error_set(b->err, STATUS_UNSUPPORTED, (int64_t)t->offset,
                         "%s: tensor '%s' has type %s; readable: F32, F16, BF16%s", b->path,
                         t->name, t->type_name, b->d->gguf ? ", Q8_0, Q4_0, Q4_1, Q6_K" : "");
    }
    if (rank == 1 && dequant_layout(t->dtype)->block != 1) {
        return error_set(b->err, STATUS_UNSUPPORTED, (int64_t)t->offset,
                         "%s: vector '%s' is quantised (%s); readable: F32, F16, BF16", b->path,
                         t->name, t->type_name);
    }
    return STATUS_OK;
}

/* One file tensor as one slot; a fused QKV becomes three. */
static void place(struct weights *w, const struct stored *t, enum weight_role role, uint32_t layer,
                  bool bias, const struct slot *base)
{
    static const enum weight_role parts[] = {ROLE_Q, ROLE_K, ROLE_V};
    bool fused = role == ROLE_QKV;
    uint64_t first = 0;
    for (int i = 0; i < (fused ? 3 : 1); i++) {
        enum weight_role r = fused ? parts[i] : role;
        uint64_t rows;
        uint64_t columns;
        weights_shape(&w->config, r, &rows, &columns);
        struct slot *s = weights_slot(w, r, layer, bias);
        *s = *base;
        s->present = true;
        s->dtype = t->dtype;
        s->file = t->file;
        s->offset = t->offset;
        s->first = first;
        if (bias) {
            s->rows = 1;
            s->columns = weights_is_vector(r) ? columns : rows;
            first += s->columns;
        } else {
            s->rows = rows;
            s->columns = columns;
            first += rows;
        }
    }
}

static enum status bind_one(struct binder *b, enum weight_role role, uint32_t layer, bool bias,
                            bool required)
{
    struct weights *w = b->w;
    const struct arch *a = w->config.arch;
    const char *template = b->d->gguf ? a->names.gguf[role] : a->names.safetensors[role];
    char name[NAME_BYTES];
    make_name(b, template, layer, bias ? ".bias" : ".weight", name);
    struct stored *t = find(b, name);
    if (t == NULL) {
        return required ? error_set(b->err, STATUS_BAD_MODEL, -1, "%s: tensor '%s' is missing",
                                    b->path, name)
                        : STATUS_OK;
    }
    uint64_t rows;
    uint64_t columns;
    weights_shape(&w->config, role, &rows, &columns);
    bool vector = weights_is_vector(role);
    bool matrix = !vector && !bias;
    /* Embeddings are tables, not linear layers: never transposed. */
    bool linear = weights_is_per_layer(role) && !vector;
    struct slot base = {
        .transposed = matrix && linear && a->transposed && !b->d->gguf,
        .outputs = vector ? columns : rows,
    };
    if (b->d->gguf && a->gguf_permuted_qk && (role == ROLE_Q || role == ROLE_K)) {
        base.head_size = w->config.head_size;
    }
    enum status s;
    if (!matrix) {
        s = check_shape(b, t, 1, base.outputs, 0);
    } else if (base.transposed) {
        s = check_shape(b, t, 2, columns, rows);
    } else {
        s = check_shape(b, t, 2, rows, columns);
    }
    if (s != STATUS_OK) {
        return s;
    }
    t->used = true;
    place(w, t, role, layer, bias, &base);
    return STATUS_OK;
}

static enum status bind_role(struct binder *b, enum weight_role role)
{
    const struct model_config *c = &b->w->config;
    const struct arch *a = c->arch;
    const char *template = b->d->gguf ? a->names.gguf[role] : a->names.safetensors[role];
    if (template == NULL || (role == ROLE_HEAD && c->tied)) {
        return STATUS_OK;
    }
    bool bias_required = (a->bias_roles >> role & 1) != 0;
    /* Tables, and RMS norms, never have a bias; a tensor of such a name is refused as unknown. */
    bool bias_possible = bias_required || (weights_is_per_layer(role) && !weights_is_vector(role));
    uint32_t layers = weights_is_per_layer(role) ? c->n_layers : 1;
    for (uint32_t l = 0; l < layers; l++) {
        enum status s = bind_one(b, role, l, false, true);
        if (s == STATUS_OK && bias_possible) {
            s = bind_one(b, role, l, true, bias_required);
        }
        if (s != STATUS_OK) {
            return s;
        }
    }
    return STATUS_OK;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

static bool is_ignored(const struct binder *b, const struct stored *t)
{
    const struct arch *a = b->w->config.arch;
    if (b->d->gguf) {
        /* Rotary factors: config_from_gguf has read them, or refused the file. */
        return a->position == POSITION_ROPE && strcmp(t->name, "rope_freqs.weight") == 0;
    }
    for (int i = 0; i < ARCH_MAX_IGNORED && a->ignored[i] != NULL; i++) {
        if (ends_with(t->name, a->ignored[i])) {
            return true;
        }
    }
    /* A tied head is often saved a second time. */
    return b->w->config.tied && strcmp(t->name, "lm_head.weight") == 0;
}

/* A tensor that nobody reads would mean that the model computes something else than we do. */
static enum status refuse_unknown(const struct binder *b)
{
    for (uint64_t i = 0; i < b->d->count; i++) {
        const struct stored *t = &b->d->tensors[i];
        if (!t->used && !is_ignored(b, t)) {
            return error_set(b->err, STATUS_BAD_MODEL, (int64_t)t->offset,
                             "%s: tensor '%.100s' is unknown to architecture %s (config: %u "
                             "layers, %s head)",
                             b->path, t->name, b->w->config.arch->name, b->w->config.n_layers,
                             b->w->config.tied ? "tied" : "own");
        }
    }
    return STATUS_OK;
}

static void summarise(struct weights *w, const struct directory *d)
{
    uint64_t counts[DTYPE_Q6_K + 1] = {0};
    struct weights_summary *s = &w->summary;
    for (uint64_t i = 0; i < d->count; i++) {
        if (d->tensors[i].used) {
            counts[d->tensors[i].dtype]++;
            s->n_tensors++;
            s->bytes += d->tensors[i].bytes;
        }
    }
    size_t used = 0;
    for (uint32_t t = 0; t <= DTYPE_Q6_K; t++) {
        if (counts[t] == 0) {
            continue;
        }
        int n =
            snprintf(s->dtypes + used, sizeof s->dtypes - used, "%s%s x %llu", used > 0 ? ", " : "",
                     dequant_layout((enum weight_dtype)t)->name, (unsigned long long)counts[t]);
        used += n > 0 ? (size_t)n : 0;
        if (used >= sizeof s->dtypes) {
            break;
        }
    }
}

enum status weights_bind(struct weights *w, struct directory *d, const char *path,
                         struct error *err)
{
    struct binder b = {.w = w, .d = d, .path = path, .err = err};
    for (uint64_t i = 0; i < d->count; i++) {
        const char *name = d->tensors[i].name;
        d->names[i] = (struct name_entry){.text = name, .len = strlen(name), .value = i};
    }
    const struct name_entry *twice;
    if (names_sort(d->names, (size_t)d->count, &twice)) {
        return error_set(err, STATUS_BAD_MODEL, -1, "%s: tensor '%s' stands twice", path,
                         twice->text);
    }
    const struct arch *a = w->config.arch;
    if (d->gguf && a->gguf_name == NULL) {
        return error_set(err, STATUS_UNSUPPORTED, -1, "%s: no GGUF layout is known for %s", path,
                         a->name);
    }
    if (!d->gguf) {
        char name[NAME_BYTES];
        b.strip_prefix = true;
        make_name(&b, a->names.safetensors[ROLE_EMBED], 0, ".weight", name);
        b.strip_prefix = find(&b, name) != NULL;
    }
    for (uint32_t r = 0; r < ROLE_COUNT; r++) {
        enum status s = bind_role(&b, (enum weight_role)r);
        if (s != STATUS_OK) {
            return s;
        }
    }
    enum status s = refuse_unknown(&b);
    if (s == STATUS_OK) {
        summarise(w, d);
    }
    return s;
}
