/* recorder.c - see recorder.h. */
#include "metrics/recorder.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"

/* What a request's record does not say about where it is in its life. */
struct life {
    bool arrived;
    bool resident;            /* in plans now: SCHEDULED, and not preempted since */
    uint32_t computed_tokens; /* by TOKEN events */
    int32_t *tokens;          /* room for max_new_tokens */
    uint64_t last_ns;
};

struct recorder {
    const struct request *requests;
    uint32_t n;
    uint32_t n_ended;
    struct record *records;
    struct life *lives;
    int32_t *tokens; /* one block for all requests */
    struct run_totals totals;
};

const char *record_status_name(enum record_status s)
{
    switch (s) {
    case RECORD_PENDING:
        return "pending";
    case RECORD_OK:
        return "ok";
    case RECORD_FAILED:
        return "failed";
    case RECORD_REJECTED:
        return "rejected";
    case RECORD_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

enum status recorder_create(const struct request *requests, uint32_t n, struct recorder **out,
                            struct error *err)
{
    size_t n_tokens = 0;
    for (uint32_t i = 0; i < n; i++) {
        assert(requests[i].id == i);
        n_tokens += requests[i].max_new_tokens;
    }
    size_t room = n > 0 ? n : 1; /* a run without requests is a run */
    struct recorder *r = mem_alloc(1, sizeof *r);
    if (r == NULL) {
        goto fail;
    }
    r->records = mem_alloc(room, sizeof *r->records);
    r->lives = mem_alloc(room, sizeof *r->lives);
    r->tokens = mem_alloc(n_tokens > 0 ? n_tokens : 1, sizeof *r->tokens);
    if (r->records == NULL || r->lives == NULL || r->tokens == NULL) {
        goto fail;
    }
    r->requests = requests;
    r->n = n;
    r->totals.first_send_ns = TIME_NEVER;
    int32_t *tokens = r->tokens;
    for (uint32_t i = 0; i < n; i++) {
        r->lives[i].tokens = tokens;
        tokens += requests[i].max_new_tokens;
        r->records[i] = (struct record){.arrival_ns = TIME_NEVER,
                                        .scheduled_ns = TIME_NEVER,
                                        .first_deliver_ns = TIME_NEVER,
                                        .last_deliver_ns = TIME_NEVER,
                                        .input_tokens = requests[i].prompt_tokens,
                                        .tokens = r->lives[i].tokens};
    }
    *out = r;
    return STATUS_OK;
fail:
    recorder_destroy(r);
    return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the records of %u requests", n);
}

void recorder_destroy(struct recorder *r)
{
    if (r != NULL) {
        mem_free(r->records);
        mem_free(r->lives);
        mem_free(r->tokens);
        mem_free(r);
    }
}

static void on_arrive(struct recorder *r, struct record *rec, struct life *life,
                      const struct event *ev)
{
    assert(!life->arrived);
    life->arrived = true;
    rec->arrival_ns = ev->time_ns;
    if (ev->time_ns < r->totals.first_send_ns) {
        r->totals.first_send_ns = ev->time_ns;
    }
}

static void on_deliver(struct record *rec, struct life *life, const struct event *ev)
{
    assert(rec->scheduled_ns != TIME_NEVER && ev->n > 0 && ev->tokens != NULL);
    assert(ev->n <= life->computed_tokens - rec->output_tokens);
    memcpy(life->tokens + rec->output_tokens, ev->tokens, ev->n * sizeof *ev->tokens);
    rec->output_tokens += ev->n;
    if (rec->first_deliver_ns == TIME_NEVER) {
        rec->first_deliver_ns = ev->time_ns;
    }
    /* What comes at the same instant came at once: it is one delivery, in one event or in many. */
    if (rec->first_deliver_ns == ev->time_ns) {
        rec->first_tokens += ev->n;
    }
    rec->last_deliver_ns = ev->time_ns;
}

static void on_terminal(struct recorder *r, struct record *rec, const struct event *ev)
{
    rec->end_ns = ev->time_ns;
    rec->reason = ev->reason;
    switch (ev->kind) {
    case EVENT_FINISH:
        assert(rec->scheduled_ns != TIME_NEVER);
        rec->status = ev->reason == FINISH_ERROR ? RECORD_FAILED : RECORD_OK;
        break;
    case EVENT_REJECT:
        assert(rec->scheduled_ns == TIME_NEVER);
        rec->status = RECORD_REJECTED;
        break;
    case EVENT_CANCEL:
        rec->status = RECORD_CANCELLED;
        break;
    default:
        rec->status = RECORD_FAILED;
        break;
    }
    r->n_ended++;
    if (ev->time_ns > r->totals.last_end_ns) {
        r->totals.last_end_ns = ev->time_ns;
    }
}

static void on_event(void *self, const struct event *ev)
{
    struct recorder *r = self;
    assert(ev->request_id < r->n);
    struct record *rec = &r->records[ev->request_id];
    struct life *life = &r->lives[ev->request_id];
    assert(rec->status == RECORD_PENDING);
    assert(ev->kind == EVENT_ARRIVE || (life->arrived && ev->time_ns >= life->last_ns));
    life->last_ns = ev->time_ns;
    switch (ev->kind) {
    case EVENT_ARRIVE:
        on_arrive(r, rec, life, ev);
        break;
    case EVENT_SCHEDULED:
        assert(!life->resident);
        life->resident = true;
        if (rec->scheduled_ns == TIME_NEVER) {
            rec->scheduled_ns = ev->time_ns;
            rec->batch_size = ev->n;
        }
        break;
    case EVENT_TOKEN:
        assert(life->resident);
        assert(ev->n <= r->requests[ev->request_id].max_new_tokens - life->computed_tokens);
        life->computed_tokens += ev->n;
        break;
    case EVENT_DELIVER:
        on_deliver(rec, life, ev);
        break;
    case EVENT_PREEMPT:
        assert(life->resident);
        life->resident = false;
        rec->preemptions++;
        r->totals.preemptions++;
        break;
    default:
        on_terminal(r, rec, ev);
        break;
    }
}

/* The part of [begin, end) inside the run: from the first send to, once all requests have ended,
 * the last terminal event. Only that time is split up. */
static uint64_t inside_run(const struct recorder *r, uint64_t begin, uint64_t end)
{
    assert(end >= begin);
    if (begin < r->totals.first_send_ns) {
        begin = r->totals.first_send_ns;
    }
    if (r->n_ended == r->n && end > r->totals.last_end_ns) {
        end = r->totals.last_end_ns;
    }
    return end > begin ? end - begin : 0;
}

static void on_step(void *self, const struct step_record *s)
{
    struct recorder *r = self;
    struct run_totals *t = &r->totals;
    uint64_t duration = inside_run(r, s->begin_ns, s->end_ns);
    uint64_t rows = (uint64_t)s->useful_rows + s->pad_rows + s->recomputed_rows;
    assert(rows > 0 && s->live_sequences <= s->sequences);
    /* Rounding goes to the useful share, so that the three parts are the step exactly. */
    double share = (double)duration / (double)rows;
    uint64_t pad = (uint64_t)(share * s->pad_rows);
    uint64_t again = (uint64_t)(share * s->recomputed_rows);
    t->n_steps++;
    t->step_ns += duration;
    t->plan_ns += s->plan_ns;
    t->pad_ns += pad;
    t->recompute_ns += again;
    t->useful_ns += duration - pad - again;
    t->useful_rows += s->useful_rows;
    t->pad_rows += s->pad_rows;
    t->recomputed_rows += s->recomputed_rows;
    t->live_sequence_steps += s->live_sequences;
    t->sequence_steps += s->sequences;
    if (s->kv_blocks_used > t->kv_peak_blocks) {
        t->kv_peak_blocks = s->kv_blocks_used;
    }
}

static void on_gap(void *self, const struct gap_record *gap)
{
    struct recorder *r = self;
    uint64_t duration = inside_run(r, gap->begin_ns, gap->end_ns);
    if (gap->fill) {
        r->totals.fill_ns += duration;
    } else {
        r->totals.idle_ns += duration;
    }
}

struct event_sink recorder_sink(struct recorder *r)
{
    return (struct event_sink){.event = on_event, .step = on_step, .gap = on_gap, .self = r};
}

uint32_t recorder_count(const struct recorder *r)
{
    return r->n;
}

const struct record *recorder_record(const struct recorder *r, uint32_t id)
{
    assert(id < r->n);
    return &r->records[id];
}

const struct record *recorder_records(const struct recorder *r)
{
    return r->records;
}

const struct run_totals *recorder_totals(const struct recorder *r)
{
    return &r->totals;
}

uint32_t recorder_pending(const struct recorder *r)
{
    return r->n - r->n_ended;
}
