/* forward.c - see forward.h. One function per box of its picture, in order. */
#include "infer/forward.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"

/* Activations start on cache lines and leave room for a whole last panel. */
#define ROW_ALIGN_FLOATS 64u

/* Elements a thread should get at least: below this, waking it costs more than it saves. */
#define GRAIN_FLOATS 4096u

/* Rows that attend together. */
struct forward_run {
    uint32_t row;
    uint32_t n;
};

/* What one thread needs to attend. */
struct attend_space {
    float *scratch;
    const void **k_tiles;
    const void **v_tiles;
};

/* The rows that a product reads: in f32, and as an operand where the dtype of its weights wants
 * another form. */
struct inputs {
    float *f32;
    size_t ld;
    char *packed; /* NULL: the f32 rows are the operand */
    size_t packed_stride;
    enum tensor_dtype dtype;
    uint32_t n; /* of a row */
};

struct forward {
    const struct network *net;
    const struct kv *kv;
    struct pool *pool;
    uint32_t max_rows;
    uint32_t n_threads;
    size_t ld_channels;
    size_t ld_qkv;
    size_t ld_vocab;
    float *x;                    /* [rows, C] residual stream */
    struct inputs norm;          /* [rows, C] */
    float *qkv;                  /* [rows, (H+2G)*D] */
    struct inputs attn;          /* [rows, H*D] */
    struct inputs ffn;           /* [rows, F], in rows of gate and up [rows, 2F] */
    float *delta;                /* [rows, C] what is added to x next */
    struct inputs head;          /* [FORWARD_HEAD_ROWS, C] */
    float *logits;               /* [FORWARD_HEAD_ROWS, V] */
    struct attend_space *spaces; /* [n_threads] */
    struct forward_timing timing;
    /* The call under way, for the pool's functions. */
    const struct forward_row *rows;
    uint32_t n_rows;
    uint32_t layer;
    struct forward_run *runs; /* [max_rows], of them n_runs */
    uint32_t n_runs;
    const struct network_norm *next_norm;
    bool add_delta;
};

static size_t padded(uint64_t n)
{
    return (size_t)((n + ROW_ALIGN_FLOATS - 1) / ROW_ALIGN_FLOATS * ROW_ALIGN_FLOATS);
}

static uint64_t qkv_rows(const struct model_config *c)
{
    return ((uint64_t)c->n_heads + 2 * (uint64_t)c->n_kv_heads) * c->head_size;
}

static uint64_t ffn_rows(const struct model_config *c)
{
    return (uint64_t)c->n_ffn * (c->arch->gated_mlp ? 2 : 1);
}

static uint32_t tile_count(uint32_t max_len)
{
    return max_len / TENSOR_KV_TILE + 1;
}

static uint64_t scratch_floats(uint32_t max_len)
{
    return padded(TENSOR_ATTEND_QUERIES * ((uint64_t)max_len + (uint64_t)2 * TENSOR_KV_TILE));
}

/* ---------------------------------------------------------------- creation */

static bool alloc_rows(float **out, uint64_t rows, size_t stride)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(rows * sizeof(float), (uint64_t)stride, &bytes)) {
        return false;
    }
    *out = mem_alloc_aligned(64, (size_t)bytes);
    return *out != NULL;
}

static bool init_inputs(struct forward *f, struct inputs *in, uint32_t rows, uint64_t width,
                        const struct packed_matrix *w)
{
    *in = (struct inputs){.ld = padded(width), .dtype = w->dtype, .n = w->n_in};
    in->packed_stride = tensor_operand_bytes(f->net->ops, w->dtype, w->n_in);
    if (in->packed_stride > 0) {
        in->packed = mem_alloc_aligned(64, rows * in->packed_stride);
        if (in->packed == NULL) {
            return false;
        }
    }
    return alloc_rows(&in->f32, rows, in->ld);
}

static void deinit_inputs(struct inputs *in)
{
    mem_free(in->f32);
    mem_free(in->packed);
}

/* Row t is complete. */
static void pack_inputs(const struct forward *f, const struct inputs *in, size_t t)
{
    if (in->packed != NULL) {
        f->net->ops->product[in->dtype].pack_row(in->packed + t * in->packed_stride,
                                                 in->f32 + t * in->ld, in->n);
    }
}

static struct operand operand_of(const struct inputs *in)
{
    if (in->packed == NULL) {
        return (struct operand){.data = in->f32, .stride = in->ld * sizeof(float)};
    }
    return (struct operand){.data = in->packed, .stride = in->packed_stride};
}

static bool alloc_spaces(struct forward *f)
{
    uint32_t max_len = f->net->max_len;
    f->spaces = mem_alloc(f->n_threads, sizeof *f->spaces);
    for (uint32_t i = 0; f->spaces != NULL && i < f->n_threads; i++) {
        struct attend_space *s = &f->spaces[i];
        s->k_tiles = mem_alloc(tile_count(max_len), sizeof *s->k_tiles);
        s->v_tiles = mem_alloc(tile_count(max_len), sizeof *s->v_tiles);
        if (s->k_tiles == NULL || s->v_tiles == NULL ||
            !alloc_rows(&s->scratch, 1, scratch_floats(max_len))) {
            return false;
        }
    }
    return f->spaces != NULL;
}

enum status forward_create(const struct network *net, const struct kv *kv, struct pool *pool,
                           uint32_t max_rows, struct forward **out, struct error *err)
{
    const struct model_config *c = &net->config;
    assert(max_rows >= 1);
    struct forward *f = mem_alloc(1, sizeof *f);
    if (f == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "out of memory for activations");
    }
    *f = (struct forward){.net = net,
                          .kv = kv,
                          .pool = pool,
                          .max_rows = max_rows,
                          .n_threads = pool_threads(pool),
                          .ld_channels = padded(c->n_channels),
                          .ld_qkv = padded(qkv_rows(c)),
                          .ld_vocab = padded(c->n_vocab)};
    const struct network_layer *layer = &net->layers[0]; /* all have the same shapes */
    bool ok = alloc_rows(&f->x, max_rows, f->ld_channels) &&
              init_inputs(f, &f->norm, max_rows, c->n_channels, &layer->qkv) &&
              alloc_rows(&f->qkv, max_rows, f->ld_qkv) &&
              init_inputs(f, &f->attn, max_rows, (uint64_t)c->n_heads * c->head_size, &layer->o) &&
              init_inputs(f, &f->ffn, max_rows, ffn_rows(c), &layer->down) &&
              alloc_rows(&f->delta, max_rows, f->ld_channels) &&
              init_inputs(f, &f->head, FORWARD_HEAD_ROWS, c->n_channels, &net->head) &&
              alloc_rows(&f->logits, FORWARD_HEAD_ROWS, f->ld_vocab) && alloc_spaces(f);
    f->runs = mem_alloc(max_rows, sizeof *f->runs);
    ok = ok && f->runs != NULL;
    if (!ok) {
        uint64_t bytes = forward_bytes(c, net->ops, net->layers[0].qkv.dtype, net->max_len,
                                       max_rows, f->n_threads);
        forward_destroy(f);
        return error_set(err, STATUS_NO_MEMORY, -1,
                         "out of memory: %" PRIu64 " bytes of activations for %" PRIu32 " rows",
                         bytes, max_rows);
    }
    *out = f;
    return STATUS_OK;
}

void forward_destroy(struct forward *f)
{
    if (f == NULL) {
        return;
    }
    for (uint32_t i = 0; f->spaces != NULL && i < f->n_threads; i++) {
        mem_free(f->spaces[i].scratch);
        mem_free(f->spaces[i].k_tiles);
        mem_free(f->spaces[i].v_tiles);
    }
    mem_free(f->spaces);
    mem_free(f->runs);
    mem_free(f->x);
    mem_free(f->qkv);
    mem_free(f->delta);
    deinit_inputs(&f->norm);
    deinit_inputs(&f->attn);
    deinit_inputs(&f->ffn);
    deinit_inputs(&f->head);
    mem_free(f->logits);
    mem_free(f);
}

static uint64_t operand_bytes(const struct tensor_ops *ops, enum tensor_dtype wanted, uint32_t n)
{
    return tensor_operand_bytes(ops, tensor_dtype_for(wanted, n), n);
}

uint64_t forward_bytes(const struct model_config *c, const struct tensor_ops *ops,
                       enum tensor_dtype dtype, uint32_t max_len, uint32_t max_rows,
                       uint32_t n_threads)
{
    uint64_t channels = padded(c->n_channels);
    uint32_t q_rows = c->n_heads * c->head_size;
    uint64_t row_floats = 3 * channels + padded(qkv_rows(c)) + padded(q_rows) + padded(ffn_rows(c));
    uint64_t row = sizeof(struct forward_run) + row_floats * sizeof(float) +
                   operand_bytes(ops, dtype, c->n_channels) + operand_bytes(ops, dtype, q_rows) +
                   operand_bytes(ops, dtype, c->n_ffn);
    uint64_t head =
        (channels + padded(c->n_vocab)) * sizeof(float) + operand_bytes(ops, dtype, c->n_channels);
    uint64_t thread = scratch_floats(max_len) * sizeof(float) +
                      (uint64_t)2 * tile_count(max_len) * sizeof(void *);
    return row * max_rows + head * FORWARD_HEAD_ROWS + thread * n_threads;
}

/* ---------------------------------------------------------------- row-wise work */

static uint32_t grain_for(size_t row_floats)
{
    uint32_t rows = (uint32_t)(GRAIN_FLOATS / row_floats);
    return rows > 1 ? rows : 1;
}

static void apply_norm(const struct network *net, const struct network_norm *n, float *y,
                       const float *x)
{
    const struct model_config *c = &net->config;
    if (c->arch->norm == NORM_RMS) {
        net->ops->rms_norm(y, x, n->weight, c->n_channels, c->norm_eps);
    } else {
        net->ops->layer_norm(y, x, n->weight, n->bias, c->n_channels, c->norm_eps);
    }
}

/* x += what the last block computed (nothing before the first); norm = next block's norm of x. */
static void add_norm_rows(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct forward *f = ctx;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        float *x = f->x + t * f->ld_channels;
        if (f->add_delta) {
            f->net->ops->add(x, f->delta + t * f->ld_channels, f->net->config.n_channels);
        }
        if (f->next_norm != NULL) {
            apply_norm(f->net, f->next_norm, f->norm.f32 + t * f->norm.ld, x);
            pack_inputs(f, &f->norm, t);
        }
    }
}

static void embed_rows(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct forward *f = ctx;
    const struct network *net = f->net;
    uint32_t channels = net->config.n_channels;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        float *x = f->x + t * f->ld_channels;
        network_embed(net, f->rows[t].token, x);
        if (net->positions != NULL) {
            net->ops->add(x, net->positions + (size_t)f->rows[t].position * channels, channels);
        }
    }
}

/* Rotates Q and K in place where the family does, and stores K and V. */
static void store_rows(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct forward *f = ctx;
    const struct network *net = f->net;
    const struct model_config *c = &net->config;
    size_t half = c->head_size / 2;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        const struct forward_row *row = &f->rows[t];
        if (row->blocks == NULL) {
            continue;
        }
        float *q = f->qkv + t * f->ld_qkv;
        float *k = q + (size_t)c->n_heads * c->head_size;
        float *v = k + (size_t)c->n_kv_heads * c->head_size;
        if (net->rope_cos != NULL) {
            const float *cos_row = net->rope_cos + row->position * half;
            const float *sin_row = net->rope_sin + row->position * half;
            /* K follows Q: one run of H + G heads. */
            net->ops->rope(q, c->n_heads + c->n_kv_heads, c->head_size, cos_row, sin_row);
        }
        kv_store(f->kv, row->blocks[row->position / KV_BLOCK_TOKENS], f->layer, row->position, k,
                 v);
    }
}

/* Rows from t on that may attend together: of consecutive positions of one sequence, all of them
 * from its first position on. */
static uint32_t run_length(const struct forward *f, uint32_t t, uint32_t window)
{
    const struct forward_row *row = &f->rows[t];
    uint32_t n = 1;
    while (n < TENSOR_ATTEND_ROWS && t + n < f->n_rows && row->blocks != NULL &&
           row[n].blocks == row->blocks && row[n].position == row->position + n &&
           row[n].position < window) {
        n++;
    }
    return n;
}

static void attend_run(const struct forward *f, const struct forward_run *run, uint32_t head,
                       uint32_t window, const struct attend_space *space)
{
    const struct model_config *c = &f->net->config;
    const struct forward_row *row = &f->rows[run->row];
    uint32_t group = c->n_heads / c->n_kv_heads;
    size_t at = (size_t)head * group * c->head_size;
    float *out = f->attn.f32 + run->row * f->attn.ld + at;
    if (row->blocks == NULL) {
        memset(out, 0, (size_t)group * c->head_size * sizeof(float));
        return;
    }
    uint32_t last = row->position;
    uint32_t first = last >= window ? last - window + 1 : 0;
    for (uint32_t b = first / KV_BLOCK_TOKENS; b <= (last + run->n - 1) / KV_BLOCK_TOKENS; b++) {
        space->k_tiles[b] = kv_key_tile(f->kv, row->blocks[b], f->layer, head);
        space->v_tiles[b] = kv_value_tile(f->kv, row->blocks[b], f->layer, head);
    }
    const struct tensor_attention a = {
        .out = out,
        .q = f->qkv + run->row * f->ld_qkv + at,
        .ld_out = f->attn.ld,
        .ld_q = f->ld_qkv,
        .n_rows = run->n,
        .group = group,
        .head_size = c->head_size,
        .scale = c->arch->scale_attention ? 1.0f / sqrtf((float)c->head_size) : 1.0f,
        .kv = f->kv->dtype,
        .k_tiles = space->k_tiles,
        .v_tiles = space->v_tiles,
        .first = first,
        .last = last,
        .scratch = space->scratch,
    };
    f->net->ops->attend(&a);
}

static uint32_t window_of(const struct forward *f)
{
    const struct model_config *c = &f->net->config;
    return c->layer_is_local[f->layer] != 0 && c->window > 0 ? c->window : UINT32_MAX;
}

/* Index i = KV head of a run. */
static void attend_runs(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct forward *f = ctx;
    uint32_t heads = f->net->config.n_kv_heads;
    for (uint32_t i = begin; i < end; i++) {
        attend_run(f, &f->runs[i / heads], i % heads, window_of(f), &f->spaces[thread]);
    }
}

static void attend(struct forward *f)
{
    uint32_t window = window_of(f);
    f->n_runs = 0;
    for (uint32_t t = 0; t < f->n_rows;) {
        struct forward_run run = {.row = t, .n = run_length(f, t, window)};
        f->runs[f->n_runs++] = run;
        t += run.n;
    }
    pool_run(f->pool, f->n_runs * f->net->config.n_kv_heads, 1, attend_runs, f);
}

static void activate(const struct tensor_ops *ops, enum activation a, float *x, uint32_t n)
{
    switch (a) {
    case ACT_GELU_TANH:
        ops->gelu_tanh(x, n);
        break;
    case ACT_GELU_ERF:
        ops->gelu_erf(x, n);
        break;
    case ACT_RELU:
        ops->relu(x, n);
        break;
    case ACT_SILU:
        ops->silu(x, n);
        break;
    }
}

static void activate_rows(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct forward *f = ctx;
    const struct model_config *c = &f->net->config;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        float *gate = f->ffn.f32 + t * f->ffn.ld;
        const float *up = gate + c->n_ffn;
        if (c->arch->gated_mlp && c->activation == ACT_SILU) {
            f->net->ops->silu_mul(gate, up, c->n_ffn);
        } else {
            activate(f->net->ops, c->activation, gate, c->n_ffn);
            for (uint32_t i = 0; c->arch->gated_mlp && i < c->n_ffn; i++) {
                gate[i] *= up[i];
            }
        }
        pack_inputs(f, &f->ffn, t);
    }
}

/* ---------------------------------------------------------------- the pass */

/* Adds the time since *since to *total, and moves *since. */
static void lap(uint64_t *since, uint64_t *total)
{
    uint64_t now = monotime_now_ns();
    *total += now - *since;
    *since = now;
}

static void add_norm(struct forward *f, bool add_delta, const struct network_norm *next)
{
    f->add_delta = add_delta;
    f->next_norm = next;
    pool_run(f->pool, f->n_rows, grain_for(f->ld_channels), add_norm_rows, f);
}

static void matmul(struct forward *f, float *y, size_t ldy, const struct inputs *in,
                   uint32_t n_rows, const struct packed_matrix *w)
{
    struct operand x = operand_of(in);
    tensor_matmul(f->net->ops, f->pool, y, ldy, &x, n_rows, w);
}

static void pack_attn_rows(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct forward *f = ctx;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        pack_inputs(f, &f->attn, t);
    }
}

static void run_layer(struct forward *f, uint32_t index, uint64_t *since)
{
    const struct network *net = f->net;
    const struct network_layer *layer = &net->layers[index];
    struct forward_timing *time = &f->timing;
    f->layer = index;

    add_norm(f, index > 0, &layer->attn_norm);
    lap(since, &time->norm_ns);
    matmul(f, f->qkv, f->ld_qkv, &f->norm, f->n_rows, &layer->qkv);
    lap(since, &time->matmul_ns);
    pool_run(f->pool, f->n_rows, grain_for(f->ld_qkv), store_rows, f);
    attend(f);
    if (f->attn.packed != NULL) { /* heads of one row may lie with several threads */
        pool_run(f->pool, f->n_rows, grain_for(f->attn.ld), pack_attn_rows, f);
    }
    lap(since, &time->attention_ns);
    matmul(f, f->delta, f->ld_channels, &f->attn, f->n_rows, &layer->o);
    lap(since, &time->matmul_ns);

    add_norm(f, true, &layer->mlp_norm);
    lap(since, &time->norm_ns);
    matmul(f, f->ffn.f32, f->ffn.ld, &f->norm, f->n_rows, &layer->up);
    lap(since, &time->matmul_ns);
    pool_run(f->pool, f->n_rows, grain_for(f->ffn.ld), activate_rows, f);
    lap(since, &time->norm_ns);
    matmul(f, f->delta, f->ld_channels, &f->ffn, f->n_rows, &layer->down);
    lap(since, &time->matmul_ns);
}

void forward_layers(struct forward *f, const struct forward_row *rows, uint32_t n)
{
    assert(n >= 1 && n <= f->max_rows);
    uint64_t since = monotime_now_ns();
    f->rows = rows;
    f->n_rows = n;
    f->timing.rows += n;
    pool_run(f->pool, n, grain_for(f->ld_channels), embed_rows, f);
    for (uint32_t i = 0; i < f->net->config.n_layers; i++) {
        run_layer(f, i, &since);
    }
    add_norm(f, true, NULL); /* the final norm is taken of selected rows only */
    lap(&since, &f->timing.norm_ns);
}

void forward_select(struct forward *f, uint32_t row, uint32_t slot)
{
    assert(row < f->n_rows && slot < FORWARD_HEAD_ROWS);
    apply_norm(f->net, &f->net->final_norm, f->head.f32 + slot * f->head.ld,
               f->x + row * f->ld_channels);
    pack_inputs(f, &f->head, slot);
}

const float *forward_head(struct forward *f, uint32_t n, size_t *stride)
{
    assert(n >= 1 && n <= FORWARD_HEAD_ROWS);
    uint64_t since = monotime_now_ns();
    matmul(f, f->logits, f->ld_vocab, &f->head, n, &f->net->head);
    lap(&since, &f->timing.head_ns);
    *stride = f->ld_vocab;
    return f->logits;
}

void forward_timing_get(const struct forward *f, struct forward_timing *out)
{
    *out = f->timing;
}

void forward_timing_reset(struct forward *f)
{
    f->timing = (struct forward_timing){0};
}
