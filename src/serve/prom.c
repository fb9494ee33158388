/*
 * prom.c - see prom.h: the table of metrics, the event sink that feeds them, the text format.
 *
 * Everything is counted in integers (tokens, or nanoseconds printed as seconds), so that sums are
 * exact and bucket bounds print as they are written in vLLM. Text: Prometheus exposition 0.0.4.
 */
#include "serve/prom.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/utf8.h"

#define MAX_BUCKETS 32

enum counter {
    COUNTER_PREEMPTIONS,
    COUNTER_PROMPT_TOKENS,
    COUNTER_GENERATION_TOKENS,
    COUNTER_PREFIX_QUERIES,
    COUNTER_PREFIX_HITS,
    COUNTER_PROMPT_CACHED,
    COUNTER_DISCONNECTED,
    COUNTER_SUCCESS_STOP,
    COUNTER_SUCCESS_LENGTH,
    COUNTER_SUCCESS_ABORT,
    COUNTER_SUCCESS_ERROR,
    N_COUNTERS
};

enum histogram {
    HIST_TTFT,
    HIST_ITL,
    HIST_TPOT,
    HIST_E2E,
    HIST_QUEUE,
    HIST_INFERENCE,
    HIST_PREFILL,
    HIST_DECODE,
    HIST_PROMPT_SIZE,
    HIST_GENERATION_SIZE,
    HIST_ITERATION,
    HIST_PARAMS_N,
    HIST_PARAMS_MAX_TOKENS,
    HIST_MAX_GENERATION,
    N_HISTOGRAMS
};

/* ---- the table ---- */

#define US(x) ((uint64_t)(x)*1000)
#define MS(x) ((uint64_t)(x)*NS_PER_MS)
#define S(x)  ((uint64_t)(x)*NS_PER_S)

/* The first of each line are ours, then vLLM's. 0 ends a list. */
static const uint64_t ttft_buckets[] = {US(100),  US(250), US(500), /**/
                                        MS(1),    MS(5),   MS(10),   MS(20),  MS(40),  MS(60),
                                        MS(80),   MS(100), MS(250),  MS(500), MS(750), S(1),
                                        MS(2500), S(5),    MS(7500), S(10),   S(20),   S(40),
                                        S(80),    S(160),  S(640),   S(2560), 0};
static const uint64_t token_buckets[] = {
    US(250), US(500), MS(1),    US(2500), MS(5), /**/
    MS(10),  MS(25),  MS(50),   MS(75),   MS(100),  MS(150), MS(200), MS(300), MS(400), MS(500),
    MS(750), S(1),    MS(2500), S(5),     MS(7500), S(10),   S(20),   S(40),   S(80),   0};
static const uint64_t request_buckets[] = {
    MS(1),   MS(5),   MS(10),  MS(25), MS(50),   MS(100), MS(200), /**/
    MS(300), MS(500), MS(800), S(1),   MS(1500), S(2),    MS(2500), S(5),   S(10),   S(15),   S(20),
    S(30),   S(40),   S(50),   S(60),  S(120),   S(240),  S(480),   S(960), S(1920), S(7680), 0};
static const uint64_t iteration_buckets[] = {1,   8,    16,   32,   64,   128,   256,
                                             512, 1024, 2048, 4096, 8192, 16384, 0};
static const uint64_t choice_buckets[] = {1, 2, 5, 10, 20, 0};
/* 1-2-5 up to the model's length: made at creation. */
static const uint64_t size_buckets[] = {0};

enum kind { KIND_COUNTER, KIND_RUNNING, KIND_WAITING, KIND_KV_USAGE, KIND_CONFIG, KIND_HISTOGRAM };

struct metric {
    const char *name;
    const char *help;
    enum kind kind;
    int index;               /* of the counter or histogram */
    const char *extra_label; /* counters: one more label; rows of one name follow each other */
    const uint64_t *buckets;
    bool is_time;
};

#define SECONDS(index, name, buckets, help)                                                        \
    {                                                                                              \
        name, help, KIND_HISTOGRAM, index, NULL, buckets, true                                     \
    }
#define TOKENS(index, name, buckets, help)                                                         \
    {                                                                                              \
        name, help, KIND_HISTOGRAM, index, NULL, buckets, false                                    \
    }
#define COUNTS(index, name, label, help)                                                           \
    {                                                                                              \
        name, help, KIND_COUNTER, index, label, NULL, false                                        \
    }
#define ENDED "Requests that have ended, by reason."

static const struct metric metrics[] = {
    {"vllm:num_requests_running", "Requests in the running batch.", KIND_RUNNING, 0, NULL, NULL,
     false},
    {"vllm:num_requests_waiting", "Requests that wait to be run.", KIND_WAITING, 0, NULL, NULL,
     false},
    {"vllm:kv_cache_usage_perc", "KV cache in use; 1 means all of it.", KIND_KV_USAGE, 0, NULL,
     NULL, false},
    {"vllm:cache_config_info", "Shape of the KV cache.", KIND_CONFIG, 0, NULL, NULL, false},
    COUNTS(COUNTER_PREEMPTIONS, "vllm:num_preemptions_total", NULL,
           "Requests that lost their KV blocks and started over."),
    COUNTS(COUNTER_PROMPT_TOKENS, "vllm:prompt_tokens_total", NULL, "Prompt tokens processed."),
    COUNTS(COUNTER_GENERATION_TOKENS, "vllm:generation_tokens_total", NULL, "Tokens generated."),
    COUNTS(COUNTER_PREFIX_QUERIES, "vllm:prefix_cache_queries_total", NULL,
           "Prompt tokens that a prefix cache could have held."),
    COUNTS(COUNTER_PREFIX_HITS, "vllm:prefix_cache_hits_total", NULL,
           "Prompt tokens found in a prefix cache; there is none, so 0."),
    COUNTS(COUNTER_PROMPT_CACHED, "vllm:prompt_tokens_cached_total", NULL,
           "Prompt tokens not computed because they were cached; always 0."),
    COUNTS(COUNTER_SUCCESS_STOP, "vllm:request_success_total", "finished_reason=\"stop\"", ENDED),
    COUNTS(COUNTER_SUCCESS_LENGTH, "vllm:request_success_total", "finished_reason=\"length\"",
           ENDED),
    COUNTS(COUNTER_SUCCESS_ABORT, "vllm:request_success_total", "finished_reason=\"abort\"", ENDED),
    COUNTS(COUNTER_SUCCESS_ERROR, "vllm:request_success_total", "finished_reason=\"error\"", ENDED),
    COUNTS(COUNTER_DISCONNECTED, "vllm:http_requests_client_disconnected_total", NULL,
           "Clients that went away before their answer was complete."),
    SECONDS(HIST_TTFT, "vllm:time_to_first_token_seconds", ttft_buckets,
            "Arrival to the first token handed over."),
    SECONDS(HIST_ITL, "vllm:inter_token_latency_seconds", token_buckets,
            "Time between two deliveries of one request."),
    SECONDS(HIST_TPOT, "vllm:request_time_per_output_token_seconds", token_buckets,
            "First to last delivery, per token after the first, of one request."),
    SECONDS(HIST_E2E, "vllm:e2e_request_latency_seconds", request_buckets, "Arrival to end."),
    SECONDS(HIST_QUEUE, "vllm:request_queue_time_seconds", request_buckets,
            "Arrival to the first step."),
    SECONDS(HIST_INFERENCE, "vllm:request_inference_time_seconds", request_buckets,
            "First step to the last token computed."),
    SECONDS(HIST_PREFILL, "vllm:request_prefill_time_seconds", request_buckets,
            "First step to the first token computed."),
    SECONDS(HIST_DECODE, "vllm:request_decode_time_seconds", request_buckets,
            "First to last token computed."),
    TOKENS(HIST_PROMPT_SIZE, "vllm:request_prompt_tokens", size_buckets,
           "Prompt tokens of a request."),
    TOKENS(HIST_GENERATION_SIZE, "vllm:request_generation_tokens", size_buckets,
           "Tokens generated for a request."),
    TOKENS(HIST_ITERATION, "vllm:iteration_tokens_total", iteration_buckets,
           "Tokens of a step: prompts completed in it and tokens generated."),
    TOKENS(HIST_PARAMS_N, "vllm:request_params_n", choice_buckets, "Choices asked for."),
    TOKENS(HIST_PARAMS_MAX_TOKENS, "vllm:request_params_max_tokens", size_buckets,
           "Output tokens allowed."),
    TOKENS(HIST_MAX_GENERATION, "vllm:request_max_num_generation_tokens", size_buckets,
           "Tokens of the longest choice of a request."),
};

#define N_METRICS (sizeof metrics / sizeof metrics[0])

/* ---- values ---- */

struct hist {
    const uint64_t *bounds;
    uint32_t n_bounds;
    _Atomic uint64_t counts[MAX_BUCKETS + 1]; /* the last one: above all bounds */
    _Atomic uint64_t sum;
};

/* A live request, in a hash table with linear probing. */
struct entry {
    bool used;
    bool is_resident;
    bool is_preempted;
    uint64_t id;
    uint64_t arrival_ns;
    uint64_t scheduled_ns;     /* first time in a step */
    uint64_t first_token_ns;   /* computed */
    uint64_t last_token_ns;    /* computed */
    uint64_t first_deliver_ns; /* handed over */
    uint64_t last_deliver_ns;
    uint32_t prompt_tokens;
    uint32_t n_first;     /* tokens of the first delivery */
    uint32_t n_delivered; /* tokens */
    uint32_t n_tokens;    /* computed */
};

struct prom {
    struct prom_config config;
    uint64_t size_bounds[MAX_BUCKETS];
    uint32_t n_size_bounds;

    _Atomic uint64_t counters[N_COUNTERS];
    struct hist hists[N_HISTOGRAMS];
    _Atomic uint64_t running;
    _Atomic uint64_t preempted; /* wait to be run again */
    _Atomic uint64_t waiting;   /* the network thread's */
    _Atomic uint64_t kv_blocks_used;

    /* The engine thread's. */
    struct entry *entries;
    uint64_t mask;
    uint32_t n_entries;
    uint64_t iteration_tokens;
};

/* One writer per value: no read-modify-write is needed. */
static void add(_Atomic uint64_t *value, uint64_t n)
{
    uint64_t old = atomic_load_explicit(value, memory_order_relaxed);
    atomic_store_explicit(value, old + n, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void observe(struct prom *p, enum histogram which, uint64_t value)
{
    struct hist *h = &p->hists[which];
    uint32_t i = 0;
    while (i < h->n_bounds && value > h->bounds[i]) {
        i++;
    }
    add(&h->counts[i], 1);
    add(&h->sum, value);
}

/* ---- live requests ---- */

static uint64_t home_of(const struct prom *p, uint64_t id)
{
    return (id * 0x9E3779B97F4A7C15ULL >> 20) & p->mask;
}

/* The request's place, or the free one where it belongs. */
static struct entry *place_of(const struct prom *p, uint64_t id)
{
    uint64_t i = home_of(p, id);
    while (p->entries[i].used && p->entries[i].id != id) {
        i = (i + 1) & p->mask;
    }
    return &p->entries[i];
}

/* Moves later members of the chain up, so that no search stops at the gap. */
static void forget(struct prom *p, struct entry *e)
{
    uint64_t gap = (uint64_t)(e - p->entries);
    for (uint64_t i = (gap + 1) & p->mask; p->entries[i].used; i = (i + 1) & p->mask) {
        uint64_t home = home_of(p, p->entries[i].id);
        if (((i - home) & p->mask) >= ((i - gap) & p->mask)) {
            p->entries[gap] = p->entries[i];
            gap = i;
        }
    }
    p->entries[gap].used = false;
    p->n_entries--;
}

/* ---- events ---- */

static void on_arrive(struct prom *p, struct entry *e, const struct event *ev)
{
    assert(!e->used && p->n_entries < p->config.max_jobs);
    *e = (struct entry){
        .used = true, .id = ev->request_id, .arrival_ns = ev->time_ns, .prompt_tokens = ev->n};
    p->n_entries++;
}

static void on_scheduled(struct prom *p, struct entry *e, const struct event *ev)
{
    assert(!e->is_resident);
    if (e->is_preempted) {
        e->is_preempted = false;
        add(&p->preempted, (uint64_t)-1);
    } else {
        e->scheduled_ns = ev->time_ns;
        add(&p->counters[COUNTER_PREFIX_QUERIES], e->prompt_tokens);
    }
    e->is_resident = true;
    add(&p->running, 1);
}

static void on_token(struct prom *p, struct entry *e, const struct event *ev)
{
    if (e->n_tokens == 0) {
        e->first_token_ns = ev->time_ns;
        add(&p->counters[COUNTER_PROMPT_TOKENS], e->prompt_tokens);
        p->iteration_tokens += e->prompt_tokens;
    }
    e->last_token_ns = ev->time_ns;
    e->n_tokens += ev->n;
    add(&p->counters[COUNTER_GENERATION_TOKENS], ev->n);
    p->iteration_tokens += ev->n;
}

static void on_deliver(struct prom *p, struct entry *e, const struct event *ev)
{
    if (e->n_delivered == 0) {
        e->first_deliver_ns = ev->time_ns;
        e->n_first = ev->n;
        observe(p, HIST_TTFT, ev->time_ns - e->arrival_ns);
    } else {
        observe(p, HIST_ITL, ev->time_ns - e->last_deliver_ns);
    }
    e->last_deliver_ns = ev->time_ns;
    e->n_delivered += ev->n;
}

/* Not in a step any more. The last one leaves the KV cache empty. */
static void leave(struct prom *p, struct entry *e)
{
    if (e->is_resident) {
        e->is_resident = false;
        add(&p->running, (uint64_t)-1);
        if (get(&p->running) == 0) {
            atomic_store_explicit(&p->kv_blocks_used, 0, memory_order_relaxed);
        }
    }
}

static void on_preempt(struct prom *p, struct entry *e)
{
    leave(p, e);
    e->is_preempted = true;
    add(&p->preempted, 1);
    add(&p->counters[COUNTER_PREEMPTIONS], 1);
}

static void observe_success(struct prom *p, const struct entry *e, uint64_t end_ns)
{
    observe(p, HIST_E2E, end_ns - e->arrival_ns);
    observe(p, HIST_QUEUE, e->scheduled_ns - e->arrival_ns);
    observe(p, HIST_INFERENCE, e->last_token_ns - e->scheduled_ns);
    observe(p, HIST_PREFILL, e->first_token_ns - e->scheduled_ns);
    observe(p, HIST_DECODE, e->last_token_ns - e->first_token_ns);
    if (e->n_delivered > e->n_first) {
        observe(p, HIST_TPOT,
                (e->last_deliver_ns - e->first_deliver_ns) / (e->n_delivered - e->n_first));
    }
    observe(p, HIST_PROMPT_SIZE, e->prompt_tokens);
    observe(p, HIST_GENERATION_SIZE, e->n_tokens);
}

static void on_terminal(struct prom *p, struct entry *e, const struct event *ev)
{
    bool may_succeed = ev->kind == EVENT_FINISH || ev->kind == EVENT_CANCEL;
    enum counter reason = ev->kind == EVENT_CANCEL ? COUNTER_SUCCESS_ABORT : COUNTER_SUCCESS_ERROR;
    if (may_succeed && ev->reason == FINISH_STOP) {
        reason = COUNTER_SUCCESS_STOP;
    } else if (may_succeed && ev->reason == FINISH_LENGTH) {
        reason = COUNTER_SUCCESS_LENGTH;
    }
    add(&p->counters[reason], 1);
    if (reason == COUNTER_SUCCESS_STOP || reason == COUNTER_SUCCESS_LENGTH) {
        observe_success(p, e, ev->time_ns);
    }
    leave(p, e);
    if (e->is_preempted) {
        add(&p->preempted, (uint64_t)-1);
    }
    forget(p, e);
}

static void on_event(void *self, const struct event *ev)
{
    struct prom *p = self;
    struct entry *e = place_of(p, ev->request_id);
    assert(e->used || ev->kind == EVENT_ARRIVE);
    switch (ev->kind) {
    case EVENT_ARRIVE:
        on_arrive(p, e, ev);
        break;
    case EVENT_SCHEDULED:
        on_scheduled(p, e, ev);
        break;
    case EVENT_TOKEN:
        on_token(p, e, ev);
        break;
    case EVENT_DELIVER:
        on_deliver(p, e, ev);
        break;
    case EVENT_PREEMPT:
        on_preempt(p, e);
        break;
    default:
        on_terminal(p, e, ev);
        break;
    }
}

/* Comes after the events of the step's result. */
static void on_step(void *self, const struct step_record *step)
{
    struct prom *p = self;
    observe(p, HIST_ITERATION, p->iteration_tokens);
    p->iteration_tokens = 0;
    atomic_store_explicit(&p->kv_blocks_used, get(&p->running) > 0 ? step->kv_blocks_used : 0,
                          memory_order_relaxed);
}

struct event_sink prom_sink(struct prom *p)
{
    return (struct event_sink){.event = on_event, .step = on_step, .self = p};
}

/* ---- network thread ---- */

void prom_request_params(struct prom *p, uint32_t n, uint32_t max_tokens)
{
    observe(p, HIST_PARAMS_N, n);
    observe(p, HIST_PARAMS_MAX_TOKENS, max_tokens);
}

void prom_request_done(struct prom *p, uint32_t most_tokens)
{
    observe(p, HIST_MAX_GENERATION, most_tokens);
}

void prom_client_disconnected(struct prom *p)
{
    add(&p->counters[COUNTER_DISCONNECTED], 1);
}

void prom_set_waiting(struct prom *p, uint32_t waiting)
{
    atomic_store_explicit(&p->waiting, waiting, memory_order_relaxed);
}

/* ---- creation ---- */

static void make_size_bounds(struct prom *p)
{
    static const uint64_t mantissas[] = {1, 2, 5};
    uint64_t power = 1;
    for (uint32_t i = 0;; i++) {
        uint64_t bound = mantissas[i % 3] * power;
        power = i % 3 == 2 ? power * 10 : power;
        if (bound > p->config.max_model_len) {
            return;
        }
        assert(p->n_size_bounds < MAX_BUCKETS);
        p->size_bounds[p->n_size_bounds++] = bound;
    }
}

enum status prom_create(const struct prom_config *config, struct prom **out, struct error *err)
{
    assert(config->total_blocks >= 1 && config->max_jobs >= 1 && config->max_jobs < 1U << 31);
    uint64_t capacity = 4;
    while (capacity < (uint64_t)config->max_jobs * 2) {
        capacity *= 2;
    }
    struct prom *p = mem_alloc(1, sizeof *p);
    if (p == NULL || (p->entries = mem_alloc(capacity, sizeof *p->entries)) == NULL) {
        prom_destroy(p);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the metrics of %u requests",
                         config->max_jobs);
    }
    p->config = *config;
    p->mask = capacity - 1;
    make_size_bounds(p);
    for (uint32_t i = 0; i < N_METRICS; i++) {
        const struct metric *m = &metrics[i];
        if (m->kind != KIND_HISTOGRAM) {
            continue;
        }
        struct hist *h = &p->hists[m->index];
        bool is_size = m->buckets == size_buckets;
        h->bounds = is_size ? p->size_bounds : m->buckets;
        h->n_bounds = is_size ? p->n_size_bounds : 0;
        while (!is_size && h->bounds[h->n_bounds] != 0) {
            h->n_bounds++;
        }
        assert(h->n_bounds <= MAX_BUCKETS);
    }
    *out = p;
    return STATUS_OK;
}

void prom_destroy(struct prom *p)
{
    if (p != NULL) {
        mem_free(p->entries);
        mem_free(p);
    }
}

/* ---- text ---- */

static void put_escaped(struct strbuf *out, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        size_t step = utf8_sequence(text + i, n - i);
        if (step == 0) {
            strbuf_puts(out, UTF8_REPLACEMENT);
            i += utf8_invalid_run(text + i, n - i);
            continue;
        }
        if (text[i] == '\n') {
            strbuf_puts(out, "\\n");
        } else {
            if (text[i] == '\\' || text[i] == '"') {
                strbuf_putc(out, '\\');
            }
            strbuf_append(out, text + i, step);
        }
        i += step;
    }
}

/* Nanoseconds as seconds, or a plain number; exact, with at least one decimal as Python writes
 * floats ("0.005", "2.0"). */
static void put_number(struct strbuf *out, uint64_t value, bool is_time)
{
    uint64_t fraction = is_time ? value % NS_PER_S : 0;
    unsigned digits = 9;
    while (digits > 1 && fraction % 10 == 0) {
        fraction /= 10;
        digits--;
    }
    strbuf_printf(out, "%llu.%0*llu", (unsigned long long)(is_time ? value / NS_PER_S : value),
                  (int)digits, (unsigned long long)fraction);
}

/* name{engine="0",model_name="..." and, if not NULL, one more label. */
static void begin_sample(const struct prom *p, struct strbuf *out, const char *name,
                         const char *suffix, const char *extra)
{
    strbuf_printf(out, "%s%s{engine=\"0\",model_name=\"", name, suffix);
    put_escaped(out, p->config.model_name);
    strbuf_putc(out, '"');
    if (extra != NULL) {
        strbuf_printf(out, ",%s", extra);
    }
}

static void put_sample(const struct prom *p, struct strbuf *out, const char *name,
                       const char *suffix, const char *extra, uint64_t value, bool is_time)
{
    begin_sample(p, out, name, suffix, extra);
    strbuf_puts(out, "} ");
    put_number(out, value, is_time);
    strbuf_putc(out, '\n');
}

static void put_histogram(const struct prom *p, struct strbuf *out, const struct metric *m)
{
    const struct hist *h = &p->hists[m->index];
    uint64_t sum = get(&h->sum);
    uint64_t count = 0;
    for (uint32_t i = 0; i <= h->n_bounds; i++) {
        count += get(&h->counts[i]);
        begin_sample(p, out, m->name, "_bucket", "le=\"");
        if (i < h->n_bounds) {
            put_number(out, h->bounds[i], m->is_time);
        } else {
            strbuf_puts(out, "+Inf");
        }
        strbuf_puts(out, "\"} ");
        put_number(out, count, false);
        strbuf_putc(out, '\n');
    }
    put_sample(p, out, m->name, "_count", NULL, count, false);
    put_sample(p, out, m->name, "_sum", NULL, sum, m->is_time);
}

static void put_metric(const struct prom *p, struct strbuf *out, const struct metric *m)
{
    switch (m->kind) {
    case KIND_COUNTER:
        put_sample(p, out, m->name, "", m->extra_label, get(&p->counters[m->index]), false);
        break;
    case KIND_RUNNING:
        put_sample(p, out, m->name, "", NULL, get(&p->running), false);
        break;
    case KIND_WAITING:
        put_sample(p, out, m->name, "", NULL, get(&p->waiting) + get(&p->preempted), false);
        break;
    case KIND_KV_USAGE:
        begin_sample(p, out, m->name, "", NULL);
        strbuf_printf(out, "} %.9g\n",
                      (double)get(&p->kv_blocks_used) / (double)p->config.total_blocks);
        break;
    case KIND_CONFIG: /* as vLLM: without the model's name */
        strbuf_printf(out, "%s{block_size=\"%u\",", m->name, p->config.block_tokens);
        if (p->config.kv_dtype != NULL) {
            strbuf_printf(out, "cache_dtype=\"%s\",", p->config.kv_dtype);
        }
        if (p->config.dtype != NULL) { /* ours alone: clients compare only like with like */
            strbuf_printf(out, "dtype=\"%s\",", p->config.dtype);
        }
        strbuf_printf(out,
                      "enable_prefix_caching=\"False\",engine=\"0\",num_gpu_blocks=\"%u\"} "
                      "1.0\n",
                      p->config.total_blocks);
        break;
    case KIND_HISTOGRAM:
        put_histogram(p, out, m);
        break;
    }
}

void prom_write(const struct prom *p, struct strbuf *out)
{
    for (uint32_t i = 0; i < N_METRICS; i++) {
        const struct metric *m = &metrics[i];
        if (i == 0 || strcmp(m->name, metrics[i - 1].name) != 0) {
            static const char *const kinds[] = {
                [KIND_COUNTER] = "counter", [KIND_HISTOGRAM] = "histogram"};
            const char *kind = kinds[m->kind] != NULL ? kinds[m->kind] : "gauge";
            strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kind);
        }
        put_metric(p, out, m);
    }
}
