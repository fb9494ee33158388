/* network.c - see network.h. */
#include "infer/network.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "infer/rope.h"

/* A thread of the loader: where it reads rows to, and the first fault it met. */
struct reader {
    float *buffer;
    enum status status;
    struct error err;
};

struct loader {
    struct network *net;
    const struct weights *weights;
    struct pool *pool;
    const struct progress *progress;
    struct reader *readers;  /* [n_threads] */
    enum tensor_dtype dtype; /* wanted */
    char *matrix_memory;     /* for the matrices to come */
    uint64_t matrix_bytes;
    uint32_t n_threads;
    size_t buffer_floats; /* of a reader: NETWORK_READ_BYTES, or one row where that is longer */
    uint64_t done_bytes;
    uint64_t total_bytes;
    struct error *err;
};

/* A run of rows of one role inside a packed matrix. */
struct part {
    enum weight_role role;
    uint32_t rows;
};

static float *alloc_floats(uint64_t count)
{
    if (count > SIZE_MAX / sizeof(float)) {
        return NULL;
    }
    return mem_alloc_aligned(64, (size_t)count * sizeof(float));
}

static enum status no_memory(struct error *err, uint64_t floats, const char *what)
{
    return error_set(err, STATUS_NO_MEMORY, -1, "out of memory: %" PRIu64 " bytes for %s",
                     floats * sizeof(float), what);
}

static void report(struct loader *l, uint64_t floats)
{
    l->done_bytes += floats * sizeof(float);
    if (l->done_bytes > l->total_bytes) {
        l->done_bytes = l->total_bytes;
    }
    progress_report(l->progress, "loading weights", l->done_bytes, l->total_bytes);
}

static bool has_bias(const struct loader *l, enum weight_role role, uint32_t layer)
{
    struct weight_info info;
    return weights_find(l->weights, role, layer, true, &info);
}

/* One tensor on its way into a packed matrix (from row `first` on) or a plain table. */
struct row_job {
    struct loader *l;
    const struct part *part;
    uint32_t layer;
    uint32_t columns;
    uint32_t step; /* rows of a piece */
    struct packed_matrix *packed;
    uint32_t first;
    float *plain;
};

/* Pieces [begin, end): each thread reads, de-quantises and packs rows of its own. */
static void read_pieces(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct row_job *job = ctx;
    struct reader *r = &job->l->readers[thread];
    for (uint32_t i = begin; i < end && r->status == STATUS_OK; i++) {
        uint32_t row = i * job->step;
        uint32_t n = job->part->rows - row < job->step ? job->part->rows - row : job->step;
        float *to = job->plain != NULL ? job->plain + (size_t)row * job->columns : r->buffer;
        r->status = weights_read_rows(job->l->weights, job->part->role, job->layer, false, row, n,
                                      to, &r->err);
        if (r->status == STATUS_OK && job->packed != NULL) {
            packed_put_rows(job->packed, job->first + row, n, to);
        }
    }
}

static enum status load_rows(struct loader *l, const struct part *part, uint32_t layer,
                             uint32_t columns, struct packed_matrix *packed, uint32_t first,
                             float *plain)
{
    /* Whole panels, so that two threads seldom meet in a cache line; enough pieces for all. */
    uint32_t panel = l->net->ops->panel;
    uint64_t step = l->buffer_floats / columns;
    uint64_t share = ((uint64_t)part->rows + l->n_threads - 1) / l->n_threads;
    step = step < share ? step : share;
    step = step > panel ? step / panel * panel : step;
    struct row_job job = {.l = l,
                          .part = part,
                          .layer = layer,
                          .columns = columns,
                          .step = (uint32_t)step,
                          .packed = packed,
                          .first = first,
                          .plain = plain};
    uint32_t pieces = (uint32_t)((part->rows + step - 1) / step);
    pool_run(l->pool, pieces, 1, read_pieces, &job);
    for (uint32_t i = 0; i < l->n_threads; i++) {
        if (l->readers[i].status != STATUS_OK) {
            if (l->err != NULL) {
                *l->err = l->readers[i].err;
            }
            return l->readers[i].status;
        }
    }
    report(l, (uint64_t)part->rows * columns);
    return STATUS_OK;
}

static enum status load_bias(struct loader *l, const struct part *part, uint32_t layer,
                             struct packed_matrix *packed, uint32_t first)
{
    if (!has_bias(l, part->role, layer)) {
        return STATUS_OK;
    }
    float *row = alloc_floats(part->rows);
    if (row == NULL) {
        return no_memory(l->err, part->rows, "a bias");
    }
    enum status s = weights_read_rows(l->weights, part->role, layer, true, 0, 1, row, l->err);
    if (s == STATUS_OK) {
        packed_put_bias(packed, first, part->rows, row);
    }
    mem_free(row);
    return s;
}

/* Stacks the parts, which share their input, into one packed matrix. */
static enum status load_matrix(struct loader *l, struct packed_matrix *packed,
                               enum tensor_dtype wanted, const struct part *parts, uint32_t n_parts,
                               uint32_t layer, uint32_t columns)
{
    uint64_t rows = 0;
    bool with_bias = false;
    for (uint32_t i = 0; i < n_parts; i++) {
        rows += parts[i].rows;
        with_bias = with_bias || has_bias(l, parts[i].role, layer);
    }
    if (rows > UINT32_MAX - 64) {
        return error_set(l->err, STATUS_UNSUPPORTED, -1,
                         "a matrix of %" PRIu64 " rows is too large", rows);
    }
    enum tensor_dtype dtype = tensor_dtype_for(wanted, columns);
    uint64_t bytes = packed_memory(l->net->ops, dtype, rows, columns);
    assert(bytes <= l->matrix_bytes);
    enum status s = packed_begin(packed, l->net->ops, dtype, (uint32_t)rows, columns, with_bias,
                                 l->matrix_memory, l->err);
    l->matrix_memory += bytes;
    l->matrix_bytes -= bytes;
    uint32_t first = 0;
    for (uint32_t i = 0; s == STATUS_OK && i < n_parts; i++) {
        s = load_rows(l, &parts[i], layer, columns, packed, first, NULL);
        if (s == STATUS_OK) {
            s = load_bias(l, &parts[i], layer, packed, first);
        }
        first += parts[i].rows;
    }
    return s;
}

static enum status load_table(struct loader *l, float **table, enum weight_role role, uint32_t rows,
                              uint32_t columns, const char *what)
{
    uint64_t floats = (uint64_t)rows * columns;
    *table = alloc_floats(floats);
    if (*table == NULL) {
        return no_memory(l->err, floats, what);
    }
    return load_rows(l, &(struct part){role, rows}, 0, columns, NULL, 0, *table);
}

static enum status load_norm(struct loader *l, struct network_norm *norm, enum weight_role role,
                             uint32_t layer)
{
    uint32_t n = l->net->config.n_channels;
    norm->weight = alloc_floats(n);
    if (norm->weight == NULL) {
        return no_memory(l->err, n, "a norm");
    }
    enum status s = weights_read_rows(l->weights, role, layer, false, 0, 1, norm->weight, l->err);
    if (s != STATUS_OK || !has_bias(l, role, layer)) {
        return s;
    }
    norm->bias = alloc_floats(n);
    if (norm->bias == NULL) {
        return no_memory(l->err, n, "a norm");
    }
    return weights_read_rows(l->weights, role, layer, true, 0, 1, norm->bias, l->err);
}

static enum status load_layer(struct loader *l, uint32_t index)
{
    const struct model_config *c = &l->net->config;
    struct network_layer *layer = &l->net->layers[index];
    uint32_t q_rows = c->n_heads * c->head_size;
    uint32_t kv_rows = c->n_kv_heads * c->head_size;
    const struct part qkv[] = {{ROLE_Q, q_rows}, {ROLE_K, kv_rows}, {ROLE_V, kv_rows}};
    const struct part up[] = {{ROLE_GATE, c->n_ffn}, {ROLE_UP, c->n_ffn}};
    const struct part o = {ROLE_O, c->n_channels};
    const struct part down = {ROLE_DOWN, c->n_channels};
    uint32_t skip_gate = c->arch->gated_mlp ? 0 : 1;

    enum status s = load_norm(l, &layer->attn_norm, ROLE_ATTN_NORM, index);
    if (s == STATUS_OK) {
        s = load_norm(l, &layer->mlp_norm, ROLE_MLP_NORM, index);
    }
    if (s == STATUS_OK) {
        s = load_matrix(l, &layer->qkv, l->dtype, qkv, 3, index, c->n_channels);
    }
    if (s == STATUS_OK) {
        s = load_matrix(l, &layer->o, l->dtype, &o, 1, index, q_rows);
    }
    if (s == STATUS_OK) {
        s = load_matrix(l, &layer->up, l->dtype, up + skip_gate, 2 - skip_gate, index,
                        c->n_channels);
    }
    if (s == STATUS_OK) {
        s = load_matrix(l, &layer->down, l->dtype, &down, 1, index, c->n_ffn);
    }
    return s;
}

static enum status load_rope(struct loader *l)
{
    struct network *net = l->net;
    uint64_t floats = (uint64_t)net->max_len * (net->config.head_size / 2);
    net->rope_cos = alloc_floats(floats);
    net->rope_sin = alloc_floats(floats);
    if (net->rope_cos == NULL || net->rope_sin == NULL) {
        return no_memory(l->err, 2 * floats, "rotary position tables");
    }
    rope_fill(&net->config, net->max_len, net->rope_cos, net->rope_sin);
    return STATUS_OK;
}

static enum status load_ends(struct loader *l)
{
    struct network *net = l->net;
    const struct model_config *c = &net->config;
    const struct part head = {c->tied ? ROLE_EMBED : ROLE_HEAD, c->n_vocab};
    enum status s = load_matrix(l, &net->head, l->dtype, &head, 1, 0, c->n_channels);
    if (s == STATUS_OK && !c->tied) {
        s = load_table(l, &net->embed, ROLE_EMBED, c->n_vocab, c->n_channels, "the embedding");
    }
    if (s == STATUS_OK) {
        s = load_norm(l, &net->final_norm, ROLE_FINAL_NORM, 0);
    }
    if (s != STATUS_OK) {
        return s;
    }
    if (c->arch->position == POSITION_LEARNED) {
        return load_table(l, &net->positions, ROLE_POSITION, net->max_len, c->n_channels,
                          "learned positions");
    }
    return load_rope(l);
}

static enum status make_readers(struct loader *l)
{
    const struct model_config *c = &l->net->config;
    size_t longest = (size_t)c->n_heads * c->head_size;
    longest = longest > c->n_ffn ? longest : c->n_ffn;
    longest = longest > c->n_channels ? longest : c->n_channels;
    l->buffer_floats = NETWORK_READ_BYTES / sizeof(float);
    l->buffer_floats = l->buffer_floats > longest ? l->buffer_floats : longest;
    l->readers = mem_alloc(l->n_threads, sizeof *l->readers);
    if (l->readers == NULL) {
        return no_memory(l->err, l->buffer_floats, "a read buffer");
    }
    for (uint32_t i = 0; i < l->n_threads; i++) {
        l->readers[i] =
            (struct reader){.buffer = alloc_floats(l->buffer_floats), .err = ERROR_INIT};
        if (l->readers[i].buffer == NULL) {
            return no_memory(l->err, l->buffer_floats, "a read buffer");
        }
    }
    return STATUS_OK;
}

static uint64_t matrix_bytes(const struct tensor_ops *ops, enum tensor_dtype wanted, uint64_t rows,
                             uint32_t columns)
{
    return packed_memory(ops, tensor_dtype_for(wanted, columns), rows, columns);
}

static uint64_t matrices_bytes(const struct model_config *c, const struct tensor_ops *ops,
                               enum tensor_dtype dtype)
{
    uint64_t q_rows = (uint64_t)c->n_heads * c->head_size;
    uint64_t kv_rows = (uint64_t)c->n_kv_heads * c->head_size;
    uint64_t up_rows = (uint64_t)c->n_ffn * (c->arch->gated_mlp ? 2 : 1);
    uint64_t layer = matrix_bytes(ops, dtype, q_rows + 2 * kv_rows, c->n_channels) +
                     matrix_bytes(ops, dtype, c->n_channels, (uint32_t)q_rows) +
                     matrix_bytes(ops, dtype, up_rows, c->n_channels) +
                     matrix_bytes(ops, dtype, c->n_channels, c->n_ffn);
    return layer * c->n_layers + matrix_bytes(ops, dtype, c->n_vocab, c->n_channels);
}

static enum status load_all(struct loader *l)
{
    struct network *net = l->net;
    enum status s = make_readers(l);
    if (s != STATUS_OK) {
        return s;
    }
    l->matrix_bytes = matrices_bytes(&net->config, net->ops, l->dtype);
    net->matrices = l->matrix_bytes <= SIZE_MAX ? mem_alloc_table((size_t)l->matrix_bytes) : NULL;
    if (net->matrices == NULL) {
        return error_set(l->err, STATUS_NO_MEMORY, -1, "no memory for %" PRIu64 " bytes of weights",
                         l->matrix_bytes);
    }
    l->matrix_memory = net->matrices;
    net->layers = mem_alloc(net->config.n_layers, sizeof *net->layers);
    if (net->layers == NULL) {
        return error_set(l->err, STATUS_NO_MEMORY, -1, "out of memory for %" PRIu32 " layers",
                         net->config.n_layers);
    }
    s = load_ends(l);
    for (uint32_t i = 0; s == STATUS_OK && i < net->config.n_layers; i++) {
        s = load_layer(l, i);
    }
    return s;
}

enum status network_load(struct network *out, const struct model_config *config,
                         const struct weights *weights, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, struct pool *pool, uint32_t max_len,
                         const struct progress *progress, struct error *err)
{
    if (config->arch->position == POSITION_ROPE && config->head_size % 2 != 0) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "head size %" PRIu32 " is odd: rotary positions need an even one",
                         config->head_size);
    }
    assert(max_len >= 1 && max_len <= config->n_ctx);
    struct network net = {.config = *config, .ops = ops, .max_len = max_len};
    struct loader l = {.net = &net,
                       .weights = weights,
                       .pool = pool,
                       .dtype = dtype,
                       .n_threads = pool_threads(pool),
                       .progress = progress,
                       .total_bytes = config_parameter_count(config) * sizeof(float),
                       .err = err};
    enum status s = load_all(&l);
    for (uint32_t i = 0; l.readers != NULL && i < l.n_threads; i++) {
        mem_free(l.readers[i].buffer);
    }
    mem_free(l.readers);
    if (s != STATUS_OK) {
        network_deinit(&net);
        return s;
    }
    progress_report(progress, "loading weights", l.total_bytes, l.total_bytes);
    *out = net;
    return STATUS_OK;
}

static void norm_deinit(struct network_norm *norm)
{
    mem_free(norm->weight);
    mem_free(norm->bias);
}

void network_deinit(struct network *net)
{
    for (uint32_t i = 0; net->layers != NULL && i < net->config.n_layers; i++) {
        struct network_layer *layer = &net->layers[i];
        norm_deinit(&layer->attn_norm);
        norm_deinit(&layer->mlp_norm);
        packed_deinit(&layer->qkv);
        packed_deinit(&layer->o);
        packed_deinit(&layer->up);
        packed_deinit(&layer->down);
    }
    mem_free(net->layers);
    norm_deinit(&net->final_norm);
    packed_deinit(&net->head);
    mem_free(net->matrices);
    mem_free(net->embed);
    mem_free(net->positions);
    mem_free(net->rope_cos);
    mem_free(net->rope_sin);
    *net = (struct network){0};
}

uint64_t network_bytes(const struct model_config *c, const struct tensor_ops *ops,
                       enum tensor_dtype dtype, uint32_t max_len)
{
    uint64_t floats = (uint64_t)4 * c->n_channels * c->n_layers + (uint64_t)2 * c->n_channels;
    if (!c->tied) {
        floats += (uint64_t)c->n_vocab * c->n_channels;
    }
    floats += c->arch->position == POSITION_LEARNED ? (uint64_t)max_len * c->n_channels
                                                    : (uint64_t)max_len * c->head_size;
    return matrices_bytes(c, ops, dtype) + floats * sizeof(float);
}

void network_embed(const struct network *net, int32_t token, float *out)
{
    uint32_t channels = net->config.n_channels;
    assert(token >= 0 && (uint32_t)token < net->config.n_vocab);
    if (net->embed == NULL) {
        packed_get_row(&net->head, (uint32_t)token, out);
    } else {
        memcpy(out, net->embed + (size_t)token * channels, channels * sizeof(float));
    }
}
