/* workload.c - see workload.h. */
#include "load/workload.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"

/* One random stream per dimension, so that a change of one leaves the others as they were. */
enum { STREAM_ORDER = 1, STREAM_LENGTH = 2, STREAM_WARMUP = 3 };

static void shuffle(size_t *idx, size_t n, struct rng *r)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rng_below(r, i);
        size_t t = idx[i - 1];
        idx[i - 1] = idx[j];
        idx[j] = t;
    }
}

/* prompt_idx[0 .. size): whole passes over the prompts, the first in order unless it is a warm-up.
 */
static void choose(const struct workload_config *c, uint64_t seed, size_t *pass, size_t *prompt_idx)
{
    struct rng order = rng_stream(seed, STREAM_ORDER);
    for (size_t i = 0; i < c->n_prompts; i++) {
        pass[i] = i;
    }
    for (size_t done = 0; done < c->size;) {
        if (done > 0 || c->warmup) {
            shuffle(pass, c->n_prompts, &order);
        }
        size_t take = c->size - done < c->n_prompts ? c->size - done : c->n_prompts;
        memcpy(prompt_idx + done, pass, take * sizeof *pass);
        done += take;
    }
}

enum status workload_create(const struct workload_config *c, struct workload *out,
                            struct error *err)
{
    assert(c->n_prompts >= 1 && c->size >= 1 && c->max_new_tokens >= 1);
    struct workload w = {
        .requests = mem_alloc(c->size, sizeof *w.requests),
        .prompt_idx = mem_alloc(c->size, sizeof *w.prompt_idx),
        .n = c->size,
    };
    size_t *pass = mem_alloc(c->n_prompts, sizeof *pass);
    if (w.requests == NULL || w.prompt_idx == NULL || pass == NULL) {
        mem_free(pass);
        workload_deinit(&w);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u requests", c->size);
    }
    uint64_t seed = c->warmup ? rng_key(c->seed, STREAM_WARMUP) : c->seed;
    choose(c, seed, pass, w.prompt_idx);
    struct rng lengths = rng_stream(seed, STREAM_LENGTH);
    for (uint32_t i = 0; i < c->size; i++) {
        const struct tokenized_prompt *p = &c->prompts[w.prompt_idx[i]];
        uint32_t max_new = c->max_new_tokens;
        if (c->kind == WORKLOAD_MIXED) {
            max_new = (uint32_t)rng_between(&lengths, WORKLOAD_MIXED_MIN, WORKLOAD_MIXED_MAX);
        }
        w.requests[i] = (struct request){
            .id = i,
            .prompt = p->ids,
            .prompt_tokens = p->n_ids,
            .max_new_tokens = p->max_new_tokens != 0 ? p->max_new_tokens : max_new,
            .deadline_ns = TIME_NEVER,
            .sample_key = rng_key(seed, i) & INT64_MAX,
            .sampling = c->sampling,
            .ignore_eos = c->ignore_eos,
        };
    }
    mem_free(pass);
    *out = w;
    return STATUS_OK;
}

void workload_deinit(struct workload *w)
{
    mem_free(w->requests);
    mem_free(w->prompt_idx);
    memset(w, 0, sizeof *w);
}
