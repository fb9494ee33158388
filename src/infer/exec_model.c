/*
 * exec_model.c - see exec_model.h.
 *
 * A step is a list of rows, items in order; it is cut into pieces of max_rows. The row of an item's
 * last known position goes to a head slot, and so do prompt rows whose log-probabilities are asked
 * for; when the slots are full or the step ends, the LM head runs over them and their tokens are
 * drawn, one row per thread.
 */
#include "infer/exec_model.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "infer/forward.h"
#include "infer/kv.h"
#include "infer/network.h"
#include "infer/sampler.h"
#include "tensor/pool.h"

#define NO_ITEM UINT32_MAX

struct exec_model {
    struct executor iface;
    struct network net;
    struct kv kv;
    struct pool *pool;
    struct forward *forward;
    struct exec_model_tap tap;
    struct forward_row *rows;        /* [max_rows] */
    struct sampler_scratch *scratch; /* [n_threads] */
    uint32_t max_rows;
    bool in_flight;
    struct exec_step step; /* the one in flight */
    char last_error[160];

    /* Inside a step. */
    uint32_t n_rows;    /* filled of rows */
    uint32_t *row_item; /* [max_rows] the item that wants that row's logits, or NO_ITEM */
    uint32_t n_slots;   /* filled head slots */
    uint32_t slot_item[FORWARD_HEAD_ROWS];
    uint32_t slot_position[FORWARD_HEAD_ROWS];
    int32_t slot_token[FORWARD_HEAD_ROWS]; /* drawn, where the slot is sampled */
    const float *logits;
    size_t logits_stride;

    uint64_t steps;
    uint64_t total_ns;
    uint64_t sample_ns;
};

/* ---------------------------------------------------------------- one step */

static bool is_among(int32_t token, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* Finish reason of an item that gained `token`. */
static enum finish_reason finish_of(const struct exec_model *m, const struct exec_item *item,
                                    int32_t token)
{
    const struct request *r = item->seq.request;
    const struct model_config *c = &m->net.config;
    if ((!r->ignore_eos && is_among(token, c->eos_ids, c->n_eos)) ||
        is_among(token, r->stop_ids, r->n_stop_ids)) {
        return FINISH_STOP;
    }
    uint64_t known = (uint64_t)item->seq.known_tokens + 1;
    bool full = known >= (uint64_t)r->prompt_tokens + r->max_new_tokens ||
                known >= m->iface.info.max_model_len;
    return full ? FINISH_LENGTH : FINISH_NONE;
}

/* The logits of the last known position give a new token; others only log-probabilities. */
static bool is_sampled(const struct exec_seq *seq, uint32_t position)
{
    return position + 1 == seq->known_tokens;
}

/* True when the rows of the prompt that are not sampled give log-probabilities of the tokens behind
 * them. Once there is output, the whole prompt was computed: this is a recomputation, all its rows
 * are written, and somebody may be reading them. */
static bool wants_prompt_rows(const struct exec_seq *seq)
{
    const struct request *r = seq->request;
    return r->logprobs != NULL && r->logprobs->prompt && seq->known_tokens == r->prompt_tokens;
}

/* The log-probabilities of token `id`, which follows the logits' position. */
static void store_logprobs(struct exec_model *m, const float *logits, const struct exec_seq *seq,
                           uint32_t position, int32_t id, struct sampler_scratch *scratch)
{
    const struct logprob_store *out = seq->request->logprobs;
    uint32_t skipped = out->prompt ? 0 : seq->request->prompt_tokens;
    size_t row = (size_t)position + 1 - skipped;
    sampler_logprobs(logits, m->net.config.n_vocab, id, &out->chosen[row],
                     out->n_top == 0 ? NULL : out->top + row * out->n_top, out->n_top, scratch);
}

/* The first token of a prompt has nothing before it. */
static void store_first_row(const struct logprob_store *out, int32_t id)
{
    out->chosen[0] = (struct token_prob){.id = id, .logprob = NAN};
    for (uint32_t i = 0; i < out->n_top; i++) {
        out->top[i] = (struct token_prob){.id = -1, .logprob = NAN};
    }
}

static void use_slots(void *ctx, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct exec_model *m = ctx;
    const struct model_config *c = &m->net.config;
    struct sampler_scratch *scratch = &m->scratch[thread];
    for (uint32_t s = begin; s < end; s++) {
        const struct exec_seq *seq = &m->step.items[m->slot_item[s]].seq;
        const float *logits = m->logits + s * m->logits_stride;
        uint32_t position = m->slot_position[s];
        if (!is_sampled(seq, position)) {
            store_logprobs(m, logits, seq, position, seq->tokens[position + 1], scratch);
            continue;
        }
        const struct sampler_seq sampled = {.request = seq->request,
                                            .tokens = seq->tokens,
                                            .n_tokens = seq->known_tokens,
                                            .eos_ids = c->eos_ids,
                                            .n_eos = c->n_eos};
        m->slot_token[s] = sampler_next(logits, c->n_vocab, &sampled, scratch);
        if (m->slot_token[s] >= 0 && seq->request->logprobs != NULL) {
            store_logprobs(m, logits, seq, position, m->slot_token[s], scratch);
        }
    }
}

static void store_token(struct exec_model *m, uint32_t slot, struct exec_result *result)
{
    const struct exec_item *item = &m->step.items[m->slot_item[slot]];
    struct exec_item_result *out = &result->items[m->slot_item[slot]];
    int32_t token = m->slot_token[slot];
    if (token < 0) {
        snprintf(m->last_error, sizeof m->last_error,
                 "request %" PRIu64 ": logits at position %" PRIu32
                 " are not finite; the model's weights overflow f32",
                 item->seq.request->id, item->seq.known_tokens - 1);
        out->finish = FINISH_ERROR;
        return;
    }
    out->out[0] = token;
    out->n_out = 1;
    out->finish = finish_of(m, item, token);
}

/* LM head and sampling for the filled slots. */
static void flush_slots(struct exec_model *m, struct exec_result *result)
{
    if (m->n_slots == 0) {
        return;
    }
    m->logits = forward_head(m->forward, m->n_slots, &m->logits_stride);
    uint64_t begin = monotime_now_ns();
    for (uint32_t s = 0; m->tap.fn != NULL && s < m->n_slots; s++) {
        const struct exec_item *item = &m->step.items[m->slot_item[s]];
        if (is_sampled(&item->seq, m->slot_position[s])) {
            m->tap.fn(m->tap.self, item, m->logits + s * m->logits_stride);
        }
    }
    pool_run(m->pool, m->n_slots, 1, use_slots, m);
    for (uint32_t s = 0; s < m->n_slots; s++) {
        if (is_sampled(&m->step.items[m->slot_item[s]].seq, m->slot_position[s])) {
            store_token(m, s, result);
        }
    }
    m->n_slots = 0;
    m->sample_ns += monotime_now_ns() - begin;
}

/* Runs the rows gathered so far through the layers; those whose logits are wanted go on to head
 * slots. */
static void flush_rows(struct exec_model *m, struct exec_result *result)
{
    if (m->n_rows == 0) {
        return;
    }
    forward_layers(m->forward, m->rows, m->n_rows);
    for (uint32_t row = 0; row < m->n_rows; row++) {
        if (m->row_item[row] == NO_ITEM) {
            continue;
        }
        if (m->n_slots == FORWARD_HEAD_ROWS) {
            flush_slots(m, result);
        }
        forward_select(m->forward, row, m->n_slots);
        m->slot_position[m->n_slots] = m->rows[row].position;
        m->slot_item[m->n_slots++] = m->row_item[row];
    }
    m->n_rows = 0;
}

static void add_row(struct exec_model *m, struct forward_row row, uint32_t item,
                    struct exec_result *result)
{
    if (m->n_rows == m->max_rows) {
        flush_rows(m, result);
    }
    m->rows[m->n_rows] = row;
    m->row_item[m->n_rows++] = item;
}

static void add_item(struct exec_model *m, uint32_t index, struct exec_result *result)
{
    const struct exec_item *item = &m->step.items[index];
    const struct exec_seq *seq = &item->seq;
    result->items[index] = (struct exec_item_result){.finish = FINISH_NONE};
    bool all_rows = wants_prompt_rows(seq);
    if (all_rows && item->n_tokens > 0 && seq->computed_tokens == 0) {
        store_first_row(seq->request->logprobs, seq->tokens[0]);
    }
    for (uint32_t i = 0; i < item->n_tokens; i++) {
        uint32_t position = seq->computed_tokens + i;
        bool wanted = all_rows || is_sampled(seq, position);
        add_row(m, (struct forward_row){seq->tokens[position], position, seq->blocks},
                wanted ? index : NO_ITEM, result);
    }
    for (uint32_t i = 0; i < item->pad_tokens; i++) {
        add_row(m, (struct forward_row){0, 0, NULL}, NO_ITEM, result);
    }
}

static enum status exec_poll(void *self, struct exec_result *result, struct error *err)
{
    struct exec_model *m = self;
    if (!m->in_flight) {
        return error_set(err, STATUS_USAGE, -1, "poll without a step in flight");
    }
    uint64_t begin = monotime_now_ns();
    mem_step_begin();
    for (uint32_t i = 0; i < m->step.n_items; i++) {
        add_item(m, i, result);
    }
    flush_rows(m, result);
    flush_slots(m, result);
    mem_step_end();
    m->in_flight = false;
    result->plan_id = m->step.plan_id;
    result->n_items = m->step.n_items;
    result->duration_ns = monotime_now_ns() - begin;
    m->steps++;
    m->total_ns += result->duration_ns;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- what a step may ask for */

static enum status check_tokens(const struct exec_model *m, const int32_t *tokens, uint32_t n,
                                struct error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->net.config.n_vocab) {
            return error_set(err, STATUS_USAGE, i, "token id %" PRId32 " is outside 0..%" PRIu32,
                             tokens[i], m->net.config.n_vocab - 1);
        }
    }
    return STATUS_OK;
}

static enum status check_item(const struct exec_model *m, const struct exec_item *item,
                              struct error *err)
{
    const struct exec_seq *seq = &item->seq;
    uint64_t end = (uint64_t)seq->computed_tokens + item->n_tokens;
    if (end > seq->known_tokens || end > m->iface.info.max_model_len) {
        return error_set(err, STATUS_USAGE, -1,
                         "positions up to %" PRIu64 " of %" PRIu32
                         " known tokens, the model's length is %" PRIu32,
                         end, seq->known_tokens, m->iface.info.max_model_len);
    }
    if (item->n_tokens == 0) {
        return STATUS_OK;
    }
    uint64_t need = (end + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if (need > seq->n_blocks) {
        return error_set(err, STATUS_USAGE, -1,
                         "%" PRIu64 " positions need %" PRIu64 " KV blocks, %" PRIu32 " are given",
                         end, need, seq->n_blocks);
    }
    for (uint64_t i = 0; i < need; i++) {
        if (seq->blocks[i] >= m->kv.n_blocks) {
            return error_set(err, STATUS_USAGE, -1, "KV block %" PRIu32 " of %" PRIu32,
                             seq->blocks[i], m->kv.n_blocks);
        }
    }
    return check_tokens(m, seq->tokens + seq->computed_tokens, item->n_tokens, err);
}

static enum status exec_submit(void *self, const struct exec_step *step, struct error *err)
{
    struct exec_model *m = self;
    if (m->in_flight) {
        return error_set(err, STATUS_USAGE, -1, "a step is in flight already");
    }
    if (step->n_items > PLAN_MAX_SEQS) {
        return error_set(err, STATUS_USAGE, -1, "%" PRIu32 " items in a step, at most %d",
                         step->n_items, PLAN_MAX_SEQS);
    }
    for (uint32_t i = 0; i < step->n_items; i++) {
        enum status s = check_item(m, &step->items[i], err);
        if (s != STATUS_OK) {
            error_prefix(err, "request %" PRIu64, step->items[i].seq.request->id);
            return s;
        }
    }
    m->step = *step;
    m->in_flight = true;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- creation */

/* Options with the defaults filled in. */
static enum status resolve(const struct exec_model_options *in, struct exec_model_options *out,
                           struct error *err)
{
    struct exec_model_options o = *in;
    if (o.ops == NULL) {
        enum status s = tensor_select(NULL, &o.ops, err);
        if (s != STATUS_OK) {
            return s;
        }
    }
    if (o.n_threads == 0) {
        o.n_threads = pool_default_threads();
    }
    if (o.kv_blocks == 0) {
        o.kv_blocks = EXEC_MODEL_KV_BLOCKS;
    }
    if (o.max_model_len == 0 || o.max_model_len > o.config->n_ctx) {
        o.max_model_len = o.config->n_ctx;
    }
    if (o.max_rows == 0) {
        o.max_rows = EXEC_MODEL_MAX_ROWS;
    }
    *out = o;
    return STATUS_OK;
}

static enum status build(struct exec_model *m, const struct exec_model_options *o,
                         struct error *err)
{
    enum status s = pool_create(o->n_threads, &m->pool, err);
    if (s == STATUS_OK) {
        s = kv_init(&m->kv, o->config, o->kv_dtype, o->kv_blocks, err);
    }
    if (s == STATUS_OK) {
        s = network_load(&m->net, o->config, o->weights, o->ops, o->dtype, m->pool,
                         o->max_model_len, o->progress, err);
    }
    if (s == STATUS_OK) {
        s = forward_create(&m->net, &m->kv, m->pool, o->max_rows, &m->forward, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    uint32_t n_threads = pool_threads(m->pool);
    m->rows = mem_alloc(o->max_rows, sizeof *m->rows);
    m->row_item = mem_alloc(o->max_rows, sizeof *m->row_item);
    m->scratch = mem_alloc(n_threads, sizeof *m->scratch);
    if (m->rows == NULL || m->row_item == NULL || m->scratch == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "out of memory for %" PRIu32 " rows",
                         o->max_rows);
    }
    for (uint32_t i = 0; i < n_threads && s == STATUS_OK; i++) {
        s = sampler_scratch_init(&m->scratch[i], o->config->n_vocab, err);
    }
    return s;
}

enum status exec_model_create(const struct exec_model_options *options, struct exec_model **out,
                              struct error *err)
{
    struct exec_model_options o;
    enum status s = resolve(options, &o, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct exec_model *m = mem_alloc(1, sizeof *m);
    if (m == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "out of memory for the executor");
    }
    s = build(m, &o, err);
    if (s != STATUS_OK) {
        exec_model_destroy(m);
        return s;
    }
    m->tap = o.tap;
    m->max_rows = o.max_rows;
    m->iface = (struct executor){.info = {.max_model_len = o.max_model_len,
                                          .token_budget = o.max_rows,
                                          .block_tokens = KV_BLOCK_TOKENS,
                                          .total_blocks = o.kv_blocks,
                                          .can_mix = true},
                                 .submit = exec_submit,
                                 .poll = exec_poll,
                                 .self = m};
    *out = m;
    return STATUS_OK;
}

void exec_model_destroy(struct exec_model *m)
{
    if (m == NULL) {
        return;
    }
    forward_destroy(m->forward);
    network_deinit(&m->net);
    kv_deinit(&m->kv);
    for (uint32_t i = 0; m->scratch != NULL && i < pool_threads(m->pool); i++) {
        sampler_scratch_deinit(&m->scratch[i]);
    }
    pool_destroy(m->pool);
    mem_free(m->rows);
    mem_free(m->row_item);
    mem_free(m->scratch);
    mem_free(m);
}

enum status exec_model_estimate(const struct exec_model_options *options,
                                struct exec_model_memory *out, struct error *err)
{
    struct exec_model_options o;
    enum status s = resolve(options, &o, err);
    if (s != STATUS_OK) {
        return s;
    }
    const struct model_config *c = o.config;
    struct exec_model_memory e = {
        .weight_bytes = network_bytes(c, o.ops, o.dtype, o.max_model_len),
        .kv_bytes = kv_bytes(c, o.kv_dtype, o.kv_blocks),
        .activation_bytes =
            forward_bytes(c, o.ops, o.dtype, o.max_model_len, o.max_rows, o.n_threads) +
            o.n_threads * sampler_scratch_bytes(c->n_vocab) +
            (uint64_t)o.max_rows * (sizeof(struct forward_row) + sizeof(uint32_t))};
    if (__builtin_add_overflow(e.weight_bytes + e.activation_bytes, e.kv_bytes, &e.total_bytes)) {
        e.total_bytes = UINT64_MAX;
    }
    *out = e;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- the rest of the interface */

struct executor *exec_model_executor(struct exec_model *m)
{
    return &m->iface;
}

const char *exec_model_last_error(const struct exec_model *m)
{
    return m->last_error;
}

const char *exec_model_isa(const struct exec_model *m)
{
    return m->net.ops->isa;
}

uint32_t exec_model_threads(const struct exec_model *m)
{
    return pool_threads(m->pool);
}

enum status exec_model_logits(struct exec_model *m, const int32_t *tokens, uint32_t n,
                              float *logits, struct error *err)
{
    uint32_t n_blocks = (uint32_t)(((uint64_t)n + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
    if (n == 0 || n > m->iface.info.max_model_len || n_blocks > m->kv.n_blocks || m->in_flight) {
        return error_set(err, STATUS_USAGE, -1,
                         "a prompt of %" PRIu32 " tokens does not fit: length %" PRIu32 ", %" PRIu32
                         " KV blocks",
                         n, m->iface.info.max_model_len, m->kv.n_blocks);
    }
    enum status s = check_tokens(m, tokens, n, err);
    if (s != STATUS_OK) {
        return s;
    }
    uint32_t *blocks = mem_alloc(n_blocks, sizeof *blocks);
    if (blocks == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "out of memory for a block table");
    }
    for (uint32_t i = 0; i < n_blocks; i++) {
        blocks[i] = i;
    }
    size_t n_vocab = m->net.config.n_vocab;
    uint32_t piece = m->max_rows < FORWARD_HEAD_ROWS ? m->max_rows : FORWARD_HEAD_ROWS;
    for (uint32_t first = 0; first < n; first += piece) {
        uint32_t count = n - first < piece ? n - first : piece;
        for (uint32_t i = 0; i < count; i++) {
            m->rows[i] = (struct forward_row){tokens[first + i], first + i, blocks};
        }
        forward_layers(m->forward, m->rows, count);
        for (uint32_t i = 0; i < count; i++) {
            forward_select(m->forward, i, i);
        }
        size_t stride;
        const float *rows = forward_head(m->forward, count, &stride);
        for (uint32_t i = 0; i < count; i++) {
            memcpy(logits + (first + i) * n_vocab, rows + i * stride, n_vocab * sizeof(float));
        }
    }
    mem_free(blocks);
    return STATUS_OK;
}

void exec_model_timing_get(const struct exec_model *m, struct exec_model_timing *out)
{
    struct forward_timing f;
    forward_timing_get(m->forward, &f);
    *out = (struct exec_model_timing){.steps = m->steps,
                                      .rows = f.rows,
                                      .total_ns = m->total_ns,
                                      .matmul_ns = f.matmul_ns,
                                      .attention_ns = f.attention_ns,
                                      .norm_ns = f.norm_ns,
                                      .head_ns = f.head_ns,
                                      .sample_ns = m->sample_ns};
}

void exec_model_timing_reset(struct exec_model *m)
{
    forward_timing_reset(m->forward);
    m->steps = 0;
    m->total_ns = 0;
    m->sample_ns = 0;
}

void exec_model_cost(const struct exec_model *m, struct network_cost *out)
{
    cost_of_network(&m->net, m->kv.dtype, out);
}
