/* static_batch.c - see static_batch_int.h. */
#include "sched/static_batch_int.h"

#include "base/monotime.h"

static uint64_t add_saturated(uint64_t instant_ns, uint64_t duration_ns)
{
    return duration_ns >= TIME_NEVER - instant_ns ? TIME_NEVER : instant_ns + duration_ns;
}

uint32_t static_batch_target(const struct static_batch *rule, const struct view *view)
{
    return rule->size < view->limits.max_seqs ? rule->size : view->limits.max_seqs;
}

/* When the batch fires even though it is not full (rule 2). */
static uint64_t fire_at(const struct static_batch *rule, const struct view *view)
{
    uint64_t arrival = view->waiting[0].arrival_ns;
    uint64_t from = arrival > view->idle_since_ns ? arrival : view->idle_since_ns;
    uint64_t by_timeout = add_saturated(from, rule->timeout_ns);
    uint64_t by_wait = add_saturated(arrival, rule->max_wait_ns);
    return by_timeout < by_wait ? by_timeout : by_wait;
}

static uint32_t longest_prompt(const struct view *view, uint32_t n)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t known = view->waiting[i].known_tokens;
        longest = known > longest ? known : longest;
    }
    return longest;
}

/* KV blocks that the first n waiting requests reserve, padded to `width` (0: ragged). */
static uint64_t blocks_of(const struct view *view, uint32_t n, uint32_t width)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct seq_view *s = &view->waiting[i];
        uint64_t prompt = width > 0 ? width : s->known_tokens;
        sum += view_blocks_for(view, prompt + s->max_new_tokens);
    }
    return sum;
}

/* The longest head of the queue, of at most n, that fits (rule 3). A longer head needs at least as
 * many blocks, so bisection finds it. */
static uint32_t cut_to_fit(const struct static_batch *rule, const struct view *view, uint32_t n)
{
    uint32_t fits = 0;
    uint32_t probe = n;
    while (fits < n) {
        uint32_t width = rule->pad ? longest_prompt(view, probe) : 0;
        if (blocks_of(view, probe, width) <= view->free_blocks) {
            fits = probe;
        } else {
            n = probe - 1;
        }
        probe = fits + (n - fits + 1) / 2;
    }
    return fits;
}

static void plan_first_step(const struct static_batch *rule, const struct view *view,
                            struct plan *plan)
{
    uint32_t target = static_batch_target(rule, view);
    uint32_t n = cut_to_fit(rule, view, view->n_waiting < target ? view->n_waiting : target);
    uint32_t width = longest_prompt(view, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct seq_view *s = &view->waiting[i];
        uint32_t prompt = rule->pad ? width : s->known_tokens;
        plan->items[plan->n_items++] = (struct plan_item){
            .slot = s->slot,
            .n_tokens = s->known_tokens,
            .pad_tokens = prompt - s->known_tokens,
            .kv_tokens = prompt + s->max_new_tokens,
            .hold = true,
        };
    }
}

static void plan_decode(const struct static_batch *rule, const struct view *view, struct plan *plan)
{
    uint32_t n_finished = 0;
    for (uint32_t i = 0; i < view->n_running; i++) {
        const struct seq_view *s = &view->running[i];
        n_finished += s->finished;
        if (s->finished && !rule->pad) {
            continue;
        }
        plan->items[plan->n_items++] = (struct plan_item){
            .slot = s->slot,
            .n_tokens = s->finished ? 0 : s->known_tokens - s->computed_tokens,
            .pad_tokens = s->finished ? 1 : 0,
            .kv_tokens = s->known_tokens,
        };
    }
    if (n_finished < view->n_running) {
        return;
    }
    plan->n_items = 0;
    for (uint32_t i = 0; i < view->n_running; i++) {
        plan->releases[plan->n_releases++] = view->running[i].slot;
    }
}

void static_batch_plan(const struct static_batch *rule, const struct view *view, uint64_t now_ns,
                       struct plan *plan)
{
    if (view->n_running > 0) {
        plan_decode(rule, view, plan);
    } else if (view->n_waiting > 0) {
        uint64_t fire_ns = fire_at(rule, view);
        if (view->n_waiting >= static_batch_target(rule, view) || now_ns >= fire_ns) {
            plan_first_step(rule, view, plan);
        } else {
            plan->wake_at_ns = fire_ns;
        }
    }
}
