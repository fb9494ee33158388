/* engine_speed_load.c - one load through the real engine, step by step. See engine_speed_int.h. */
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "bench/engine_speed_int.h"
#include "engine/clock_real.h"
#include "engine/engine.h"
#include "load/closed_loop.h"
#include "sched/registry.h"

#define SEED 7 /* of prompts and sampling: every dtype and round has the same load */

/* Watches one run of the engine. */
struct watch {
    const struct speed_load *load;
    struct speed_steps *sum;
    uint64_t last_end_ns;
    struct exec_model_timing last;
    uint32_t steps;    /* seen in this run */
    uint32_t measured; /* of them */
    uint32_t finished; /* requests that ended well */
};

static void on_event(void *self, const struct event *ev)
{
    struct watch *w = self;
    w->finished += ev->kind == EVENT_FINISH;
}

static void on_gap(void *self, const struct gap_record *gap)
{
    (void)self;
    (void)gap;
}

static bool is_measured(const struct watch *w, const struct step_record *step)
{
    const struct speed_load *load = w->load;
    bool first = w->steps == 0;
    uint32_t rows = load->is_prefill ? load->prompt_tokens : load->streams;
    return first == load->is_prefill && step->sequences == load->streams &&
           step->useful_rows == rows && step->pad_rows == 0 && step->recomputed_rows == 0;
}

static void on_step(void *self, const struct step_record *step)
{
    struct watch *w = self;
    struct exec_model_timing now;
    exec_model_timing_get(w->load->exec, &now);
    if (is_measured(w, step)) {
        uint64_t begin_ns = w->steps == 0 ? step->begin_ns - step->plan_ns : w->last_end_ns;
        struct speed_steps *sum = w->sum;
        sum->steps++;
        sum->wall_ns += step->end_ns - begin_ns;
        sum->exec_ns += now.total_ns - w->last.total_ns;
        sum->matmul_ns += now.matmul_ns - w->last.matmul_ns;
        sum->attention_ns += now.attention_ns - w->last.attention_ns;
        sum->norm_ns += now.norm_ns - w->last.norm_ns;
        sum->head_ns += now.head_ns - w->last.head_ns;
        sum->sample_ns += now.sample_ns - w->last.sample_ns;
        w->measured++;
    }
    w->last = now;
    w->last_end_ns = step->end_ns;
    w->steps++;
}

static void fill_requests(const struct speed_load *load, struct request *requests, int32_t *ids)
{
    struct rng rng = rng_stream(SEED, load->streams);
    for (uint32_t i = 0; i < load->streams; i++) {
        int32_t *prompt = ids + (size_t)i * load->prompt_tokens;
        for (uint32_t t = 0; t < load->prompt_tokens; t++) {
            prompt[t] = (int32_t)rng_below(&rng, load->n_vocab);
        }
        requests[i] =
            (struct request){.id = i,
                             .prompt = prompt,
                             .prompt_tokens = load->prompt_tokens,
                             .max_new_tokens = load->new_tokens,
                             .deadline_ns = TIME_NEVER,
                             .sample_key = rng_key(SEED, i),
                             .sampling = {.temperature = 0.7f, .top_k = 50, .top_p = 0.95f},
                             .ignore_eos = true};
    }
}

static enum status run_once(const struct speed_load *load, struct request *requests,
                            const volatile int *stop, struct speed_steps *sum, struct error *err)
{
    struct watch watch = {.load = load, .sum = sum};
    exec_model_timing_get(load->exec, &watch.last);
    struct clock_real real = {.stop = stop};
    struct clock clock = clock_real_clock(&real);
    struct event_sink sink = {.event = on_event, .step = on_step, .gap = on_gap, .self = &watch};
    struct engine_config config = {
        .executor = exec_model_executor(load->exec),
        .clock = &clock,
        .sinks = &sink,
        .n_sinks = 1,
        .max_seqs = load->streams,
        .token_budget = load->streams * load->prompt_tokens, /* all prompts in one step */
        .guard_allocations = true,
    };
    enum status s = registry_find("continuous", &config.policy, err);
    if (s != STATUS_OK) {
        return s;
    }
    config.params = policy_params_default(config.policy);
    struct engine *engine;
    s = engine_create(&config, &engine, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct closed_loop loop;
    closed_loop_init(&loop, requests, load->streams, load->streams);
    struct source source = closed_loop_source(&loop);
    s = engine_run(engine, &source, stop, err);
    engine_destroy(engine);
    uint32_t expected = load->is_prefill ? 1 : load->new_tokens - 1;
    if (s == STATUS_OK && watch.finished < load->streams) {
        s = error_set(err, STATUS_BAD_MODEL, -1, "%u of %u requests failed: %s",
                      load->streams - watch.finished, load->streams,
                      exec_model_last_error(load->exec));
    } else if (s == STATUS_OK && watch.measured != expected) {
        s = error_set(err, STATUS_INTERNAL, -1, "%u steps with %u streams, not %u", watch.measured,
                      load->streams, expected);
    }
    return s;
}

enum status speed_load_run(const struct speed_load *load, double min_s, const volatile int *stop,
                           struct speed_steps *out, struct error *err)
{
    struct request *requests = mem_alloc(load->streams, sizeof *requests);
    int32_t *ids = mem_alloc((size_t)load->streams * load->prompt_tokens, sizeof *ids);
    enum status s = STATUS_OK;
    if (requests == NULL || ids == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u prompts", load->streams);
    } else {
        fill_requests(load, requests, ids);
        memset(out, 0, sizeof *out);
        uint64_t until = monotime_now_ns() + monotime_from_seconds(min_s);
        do {
            s = run_once(load, requests, stop, out, err);
        } while (s == STATUS_OK && monotime_now_ns() < until);
    }
    mem_free(ids);
    mem_free(requests);
    return s;
}
