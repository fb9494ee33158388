/* engine_speed.c - models, rounds, limits. See engine_speed.h. */
#include "bench/engine_speed.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "bench/engine_speed_int.h"
#include "bench/environment.h"
#include "bench/foreign_load.h"
#include "infer/kv.h"

/* One measurement of the limits: a tenth of a second for each of the four rates. */
#define LIMITS_S 0.4

/* A load that is over sooner runs again: /proc/stat counts the time of others in ticks of 10 ms. */
#define CELL_S 0.3

struct speed {
    const struct engine_speed_options *o;
    struct loaded_model models[TENSOR_DTYPES]; /* by index in o->dtypes */
    struct network_cost costs[TENSOR_DTYPES];
    const struct tensor_ops *ops;
    struct pool *pool;           /* of the limits */
    struct tensor_limits before; /* the latest measurement */
    bool has_before;
    uint32_t round; /* from 1 */
    struct engine_speed_result *out;
};

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t most_streams(const struct engine_speed_options *o)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < o->n_streams; i++) {
        most = max_u32(most, o->streams[i]);
    }
    return most;
}

static uint32_t blocks_for(uint64_t tokens)
{
    return (uint32_t)((tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

/* Room for the largest load, and the few per cent that the scheduler leaves free. */
static uint32_t kv_blocks_for(const struct engine_speed_options *o)
{
    uint64_t decode =
        (uint64_t)most_streams(o) * blocks_for((uint64_t)o->prompt_tokens + o->new_tokens);
    uint64_t prefill = blocks_for((uint64_t)o->prefill_tokens + 1);
    uint64_t blocks = decode > prefill ? decode : prefill;
    blocks += blocks / 16 + 1;
    return blocks < UINT32_MAX ? (uint32_t)blocks : UINT32_MAX;
}

/* ---------------------------------------------------------------- models */

static struct model_options model_options_of(const struct engine_speed_options *o, uint32_t index)
{
    struct model_options m = o->model;
    m.dtype = o->dtypes[index];
    m.kv_blocks = kv_blocks_for(o);
    m.max_rows = max_u32(EXEC_MODEL_MAX_ROWS, max_u32(o->prefill_tokens, most_streams(o)));
    return m;
}

static enum status check_length(const struct engine_speed_options *o, const struct model_config *c,
                                struct error *err)
{
    uint64_t decode = (uint64_t)o->prompt_tokens + o->new_tokens;
    if (decode > c->n_ctx) {
        return error_set(err, STATUS_USAGE, -1,
                         "--prompt-tokens %u and --new-tokens %u exceed the model's context of %u",
                         o->prompt_tokens, o->new_tokens, c->n_ctx);
    }
    if ((uint64_t)o->prefill_tokens + 1 > c->n_ctx) {
        return error_set(
            err, STATUS_USAGE, -1,
            "--prefill %u and one new token exceed the model's context of %u; 0 leaves "
            "it out",
            o->prefill_tokens, c->n_ctx);
    }
    return STATUS_OK;
}

/* All dtypes stay loaded, so that rounds can go around them. */
static enum status check_memory(const struct engine_speed_options *o,
                                const struct model_parts *files, struct error *err)
{
    uint64_t total = TENSOR_LIMITS_READ_BYTES;
    for (uint32_t i = 0; i < o->n_dtypes; i++) {
        struct model_options options = model_options_of(o, i);
        struct exec_model_memory need;
        enum status s = model_memory(&options, files, &need, err);
        if (s != STATUS_OK) {
            return s;
        }
        if (__builtin_add_overflow(total, need.total_bytes, &total)) {
            total = UINT64_MAX;
        }
    }
    uint64_t available = environment_memory_available();
    return total <= available
               ? STATUS_OK
               : error_set(err, STATUS_NO_MEMORY, -1,
                           "the models in all dtypes need %llu bytes and %llu are available; name "
                           "fewer --dtypes or take a smaller --model",
                           (unsigned long long)total, (unsigned long long)available);
}

static enum status load_model(struct speed *m, uint32_t index, struct error *err)
{
    struct model_options options = model_options_of(m->o, index);
    struct model_parts files = {0};
    enum status s = model_parts_open(&options, true, &files, err);
    if (s == STATUS_OK && index == 0) {
        s = check_length(m->o, &files.config, err);
        if (s == STATUS_OK) {
            s = check_memory(m->o, &files, err);
        }
        m->out->parameters = config_parameter_count(&files.config);
    }
    if (s == STATUS_OK) {
        s = model_load(&options, &files, &m->models[index], err);
    }
    model_parts_close(&files);
    if (s == STATUS_OK) {
        m->out->load_s[m->o->dtypes[index]] = monotime_seconds(m->models[index].load_ns);
        exec_model_cost(m->models[index].exec, &m->costs[index]);
    }
    return s;
}

static enum status load_models(struct speed *m, struct error *err)
{
    enum status s = tensor_select(m->o->model.isa, &m->ops, err);
    for (uint32_t i = 0; i < m->o->n_dtypes && s == STATUS_OK; i++) {
        s = *m->o->stop != 0 ? error_set(err, STATUS_INTERRUPTED, -1, "interrupted")
                             : load_model(m, i, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    struct environment *e = &m->out->environment;
    const struct exec_model *first = m->models[0].exec;
    mem_free(e->isa);
    e->isa = mem_strdup(exec_model_isa(first));
    e->threads = exec_model_threads(first);
    return e->isa == NULL ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the result")
                          : pool_create((uint32_t)e->threads, &m->pool, err);
}

/* ---------------------------------------------------------------- one cell */

static struct speed_load load_of(const struct speed *m, uint32_t index,
                                 const struct engine_speed_cell *cell)
{
    return (struct speed_load){
        .exec = m->models[index].exec,
        .n_vocab = m->models[index].files.config.n_vocab,
        .streams = cell->streams,
        .prompt_tokens = cell->is_prefill ? m->o->prefill_tokens : m->o->prompt_tokens,
        .new_tokens = cell->is_prefill ? 1 : m->o->new_tokens,
        .is_prefill = cell->is_prefill,
    };
}

/* Multiply-adds of rows through a part of the model, at the peak of the weights' dtypes. */
static double multiply_seconds(const uint64_t *multiply_adds, double rows,
                               const struct tensor_limits *limits)
{
    double seconds = 0.0;
    for (int d = 0; d < TENSOR_DTYPES; d++) {
        seconds += (double)multiply_adds[d] * rows / limits->multiply_adds[d];
    }
    return seconds;
}

/* Positions attended to by rows that see `first`, first + 1, ... of them, `rows` rows in all, of
 * which the last `window` count. */
static double attended(double first, double rows, double window)
{
    double last = first + rows - 1;
    double whole = last <= window ? rows : window >= first ? window - first + 1 : 0;
    return whole * (first + 0.5 * (whole - 1)) + (rows - whole) * window;
}

static void fill_limit(const struct network_cost *cost, const struct speed_load *load,
                       const struct tensor_limits *limits, struct engine_speed_sample *sample)
{
    double prompt = load->prompt_tokens;
    double rows = load->is_prefill ? prompt : load->streams;
    double bytes = (double)(cost->layer_bytes + cost->head_bytes);
    sample->arithmetic_s = multiply_seconds(cost->layer_multiply_adds, rows, limits) +
                           multiply_seconds(cost->head_multiply_adds, load->streams, limits);
    for (int kind = 0; kind < 2; kind++) {
        const struct network_attention_cost *a = &cost->attention[kind];
        double window = (double)a->window;
        double steps = (double)load->new_tokens - 1; /* step i: prompt + i positions; their mean */
        double positions = load->is_prefill ? attended(1, prompt, window)
                                            : rows * attended(prompt + 1, steps, window) / steps;
        bytes += (load->is_prefill ? prompt : positions) * (double)a->kv_bytes;
        sample->arithmetic_s +=
            positions * (double)a->multiply_adds / limits->multiply_adds[TENSOR_F32];
    }
    sample->read_s = bytes / limits->read_bytes;
}

static void fill_times(const struct speed_steps *sum, const struct speed_load *load,
                       struct engine_speed_sample *out)
{
    double steps = (double)sum->steps;
    uint64_t known_ns =
        sum->matmul_ns + sum->head_ns + sum->attention_ns + sum->norm_ns + sum->sample_ns;
    const uint64_t parts[ENGINE_PARTS] = {
        [ENGINE_PART_MATMUL] = sum->matmul_ns,
        [ENGINE_PART_HEAD] = sum->head_ns,
        [ENGINE_PART_ATTENTION] = sum->attention_ns,
        [ENGINE_PART_NORMS] = sum->norm_ns,
        [ENGINE_PART_SAMPLING] = sum->sample_ns,
        [ENGINE_PART_SCHEDULER] = sum->wall_ns - sum->exec_ns,
        [ENGINE_PART_REST] = sum->exec_ns - known_ns,
    };
    assert(sum->steps > 0 && sum->wall_ns >= sum->exec_ns && sum->exec_ns >= known_ns);
    for (int p = 0; p < ENGINE_PARTS; p++) {
        out->part_s[p] = monotime_seconds(parts[p]) / steps;
    }
    out->step_s = monotime_seconds(sum->wall_ns) / steps;
    out->tokens_per_s = (load->is_prefill ? load->prompt_tokens : load->streams) / out->step_s;
}

static enum status measure_cell(const struct speed *m, const struct speed_load *load,
                                struct engine_speed_sample *out, struct error *err)
{
    struct speed_steps sum;
    struct foreign_load foreign;
    foreign_load_begin(&foreign);
    enum status s = speed_load_run(load, CELL_S, m->o->stop, &sum, err);
    if (s == STATUS_OK) {
        out->foreign_frac = foreign_load_end(&foreign);
        fill_times(&sum, load, out);
    }
    return s;
}

/* ---------------------------------------------------------------- rounds */

static bool is_open(const struct speed *m, const struct engine_speed_cell *cell)
{
    return cell->n_samples < m->o->rounds;
}

/* A load that is not known counts as too much. */
static bool is_void(const struct speed *m, const struct engine_speed_sample *sample)
{
    return m->o->max_load < 1.0 && !(sample->foreign_frac < m->o->max_load);
}

static void report(const struct speed *m, const struct engine_speed_cell *cell)
{
    char what[96];
    uint64_t done = 0;
    for (uint32_t i = 0; i < m->out->n_cells; i++) {
        done += m->out->cells[i].n_samples;
    }
    snprintf(what, sizeof what, "bench-engine|round %u: %s, %s%u", m->round,
             tensor_dtype_name(cell->dtype), cell->is_prefill ? "prefill " : "streams: ",
             cell->is_prefill ? m->o->prefill_tokens : cell->streams);
    progress_report(m->o->progress, what, done, (uint64_t)m->out->n_cells * m->o->rounds);
}

static enum status measure_limits(struct speed *m, struct error *err)
{
    enum status s = tensor_limits_measure(m->ops, m->pool, LIMITS_S, &m->before, err);
    m->has_before = s == STATUS_OK;
    return s;
}

/* The open cells of one dtype between two measurements of the limits, the first of which may be the
 * second of the dtype before. */
static enum status run_block(struct speed *m, uint32_t index, struct error *err)
{
    uint32_t n = m->out->n_cells / m->o->n_dtypes;
    struct engine_speed_cell *cells = m->out->cells + (size_t)index * n;
    struct engine_speed_sample samples[ENGINE_SPEED_MAX_LOADS] = {0};
    bool any = false;
    for (uint32_t i = 0; i < n; i++) {
        any = any || is_open(m, &cells[i]);
    }
    if (!any) {
        return STATUS_OK;
    }
    enum status s = m->has_before ? STATUS_OK : measure_limits(m, err);
    struct tensor_limits before = m->before;
    for (uint32_t i = 0; i < n && s == STATUS_OK; i++) {
        if (is_open(m, &cells[i])) {
            struct speed_load load = load_of(m, index, &cells[i]);
            report(m, &cells[i]);
            s = measure_cell(m, &load, &samples[i], err);
        }
    }
    if (s == STATUS_OK) {
        s = measure_limits(m, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    struct tensor_limits limits = tensor_limits_best(&before, &m->before);
    m->out->limits[m->out->n_limits++] = limits;
    for (uint32_t i = 0; i < n; i++) {
        if (!is_open(m, &cells[i])) {
            continue;
        }
        if (is_void(m, &samples[i])) {
            cells[i].n_void++;
        } else {
            struct speed_load load = load_of(m, index, &cells[i]);
            fill_limit(&m->costs[index], &load, &limits, &samples[i]);
            cells[i].samples[cells[i].n_samples++] = samples[i];
        }
    }
    return STATUS_OK;
}

/* KV pages and activations are touched for the first time: not in a measurement. */
static enum status warm_up(struct speed *m, struct error *err)
{
    uint32_t n = m->out->n_cells / m->o->n_dtypes;
    enum status s = STATUS_OK;
    for (uint32_t i = 0; i < m->out->n_cells && s == STATUS_OK; i++) {
        const struct engine_speed_cell *cell = &m->out->cells[i];
        if (cell->is_prefill || cell->streams == most_streams(m->o)) {
            struct speed_load load = load_of(m, i / n, cell);
            struct speed_steps sum;
            load.new_tokens = load.new_tokens < 2 ? load.new_tokens : 2;
            s = speed_load_run(&load, 0.0, m->o->stop, &sum, err);
        }
    }
    return s;
}

static enum status run_rounds(struct speed *m, struct error *err)
{
    enum status s = warm_up(m, err);
    uint32_t most = (1 + ENGINE_SPEED_EXTRA_ROUNDS) * m->o->rounds;
    for (m->round = 1; m->round <= most && s == STATUS_OK; m->round++) {
        for (uint32_t i = 0; i < m->o->n_dtypes && s == STATUS_OK; i++) {
            s = run_block(m, i, err);
        }
    }
    return s;
}

/* ---------------------------------------------------------------- results */

static enum status make_result(const struct engine_speed_options *o,
                               struct engine_speed_result *out, struct error *err)
{
    uint32_t n = o->n_streams + (o->prefill_tokens > 0 ? 1 : 0);
    uint32_t rounds = (1 + ENGINE_SPEED_EXTRA_ROUNDS) * o->rounds;
    memset(out, 0, sizeof *out);
    enum status s = environment_read("", &out->environment, err);
    if (s != STATUS_OK) {
        return s;
    }
    out->model = mem_strdup(o->model.model);
    out->limits = mem_alloc((size_t)o->n_dtypes * rounds, sizeof *out->limits);
    out->cells = mem_alloc((size_t)o->n_dtypes * n, sizeof *out->cells);
    bool ok = out->model != NULL && out->limits != NULL && out->cells != NULL;
    for (uint32_t i = 0; ok && i < o->n_dtypes * n; i++) {
        bool is_prefill = i % n == o->n_streams;
        out->cells[i] = (struct engine_speed_cell){
            .dtype = o->dtypes[i / n],
            .is_prefill = is_prefill,
            .streams = is_prefill ? 1 : o->streams[i % n],
            .samples = mem_alloc(o->rounds, sizeof *out->cells[i].samples),
        };
        out->n_cells = i + 1;
        ok = out->cells[i].samples != NULL;
    }
    return ok ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results");
}

void engine_speed_deinit(struct engine_speed_result *r)
{
    struct results owner = {.environment = r->environment};
    results_deinit(&owner);
    for (uint32_t i = 0; i < r->n_cells; i++) {
        mem_free(r->cells[i].samples);
    }
    mem_free(r->cells);
    mem_free(r->limits);
    mem_free(r->model);
    memset(r, 0, sizeof *r);
}

enum status engine_speed_run(const struct engine_speed_options *options,
                             struct engine_speed_result *out, struct error *err)
{
    assert(options->n_dtypes >= 1 && options->n_streams >= 1 && options->rounds >= 1);
    assert(options->new_tokens >= 2 && options->prompt_tokens >= 1);
    struct engine_speed_result r;
    struct speed m = {.o = options, .out = &r};
    enum status s = make_result(options, &r, err);
    if (s == STATUS_OK) {
        s = load_models(&m, err);
    }
    if (s == STATUS_OK) {
        s = run_rounds(&m, err);
    }
    pool_destroy(m.pool);
    for (uint32_t i = 0; i < options->n_dtypes; i++) {
        loaded_model_close(&m.models[i]);
    }
    if (s != STATUS_OK && s != STATUS_INTERRUPTED) {
        engine_speed_deinit(&r);
        return s;
    }
    r.is_partial = s == STATUS_INTERRUPTED;
    *out = r;
    return s;
}
