/* exec_sim.c - see exec_sim.h. */
#include "sim/exec_sim.h"

#include <assert.h>
#include <stddef.h>

#include "base/rng.h"

#define DEFAULT_VOCAB 50257

int32_t exec_sim_token(uint64_t sample_key, uint32_t position, int32_t vocab)
{
    return (int32_t)(rng_at(sample_key, position) % (uint64_t)vocab);
}

uint32_t exec_sim_output_tokens(const struct request *r)
{
    bool early = !r->ignore_eos && r->sim_output_tokens > 0;
    return early && r->sim_output_tokens < r->max_new_tokens ? r->sim_output_tokens
                                                             : r->max_new_tokens;
}

static enum status submit(void *self, const struct exec_step *step, struct error *err)
{
    struct exec_sim *x = self;
    (void)err;
    assert(x->in_flight == NULL && step->n_items <= PLAN_MAX_SEQS);
    x->in_flight = step;
    return STATUS_OK;
}

static void compute(const struct exec_sim *x, const struct exec_item *item,
                    struct exec_item_result *out)
{
    const struct exec_seq *s = &item->seq;
    const struct request *r = s->request;
    *out = (struct exec_item_result){.n_out = 0, .finish = FINISH_NONE};
    if (item->n_tokens == 0 || s->computed_tokens + item->n_tokens < s->known_tokens) {
        return;
    }
    uint32_t n_generated = s->known_tokens - r->prompt_tokens + 1;
    out->n_out = 1;
    out->out[0] = exec_sim_token(r->sample_key, s->known_tokens, x->config.vocab);
    if (n_generated >= exec_sim_output_tokens(r)) {
        out->finish = n_generated < r->max_new_tokens ? FINISH_STOP : FINISH_LENGTH;
    }
}

static enum status poll(void *self, struct exec_result *result, struct error *err)
{
    struct exec_sim *x = self;
    (void)err;
    const struct exec_step *step = x->in_flight;
    assert(step != NULL);
    x->in_flight = NULL;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < step->n_items; i++) {
        rows += (uint64_t)step->items[i].n_tokens + step->items[i].pad_tokens;
        compute(x, &step->items[i], &result->items[i]);
    }
    result->plan_id = step->plan_id;
    result->n_items = step->n_items;
    result->duration_ns =
        x->config.base_ns + x->config.per_row_ns * rows + x->config.per_seq_ns * step->n_items;
    x->steps++;
    x->rows += rows;
    return STATUS_OK;
}

void exec_sim_init(struct exec_sim *x, const struct exec_sim_config *config)
{
    *x = (struct exec_sim){.config = *config};
    if (x->config.vocab == 0) {
        x->config.vocab = DEFAULT_VOCAB;
    }
    x->executor =
        (struct executor){.info = config->info, .submit = submit, .poll = poll, .self = x};
}
