/*
 * plan.h - one step, decided: flat, pointer-free, made by a policy, committed by the engine.
 *
 *   order of commit:  rejects -> releases -> preempts -> items (reserve blocks, then run)
 *
 * A plan always fits: the policy counted blocks on a copy of the view; the engine asserts it.
 * A plan with no items must set wake_at_ns whenever requests wait (else the engine would sleep for
 * ever), and may release, preempt or reject.
 */
#ifndef LLMSCHED_CORE_PLAN_H
#define LLMSCHED_CORE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/monotime.h"
#include "base/request.h"

/* Sequences in one step. The array bound of every plan, and of the engine's slots. */
#define PLAN_MAX_SEQS 1024

struct plan_item {
    uint32_t slot;       /* the view's seq_view.slot */
    uint32_t n_tokens;   /* tokens computed now: positions computed .. computed + n - 1; may be 0 */
    uint32_t pad_tokens; /* rows computed and thrown away; n_tokens + pad_tokens >= 1 */
    uint32_t kv_tokens;  /* KV room the sequence must own after the commit, in tokens, pad rows
                            included; >= computed + n_tokens. Rounded up to blocks; never shrinks. */
    bool hold; /* on admission: withhold tokens, and stay (marked finished) until released */
};

struct plan_reject {
    uint32_t slot;
    enum reject_reason reason;
};

struct plan {
    uint64_t id; /* set by the engine */
    uint64_t wake_at_ns;
    uint32_t n_items;
    uint32_t n_preempts;
    uint32_t n_rejects;
    uint32_t n_releases;
    struct plan_item items[PLAN_MAX_SEQS];
    uint32_t preempts[PLAN_MAX_SEQS];          /* slots of running sequences, victim order; the last
                                                  one becomes the head of the waiting queue */
    struct plan_reject rejects[PLAN_MAX_SEQS]; /* waiting sequences */
    uint32_t releases[PLAN_MAX_SEQS];          /* finished held sequences: deliver and leave */
};

static inline void plan_clear(struct plan *p)
{
    p->wake_at_ns = TIME_NEVER;
    p->n_items = 0;
    p->n_preempts = 0;
    p->n_rejects = 0;
    p->n_releases = 0;
}

static inline bool plan_is_empty(const struct plan *p)
{
    return p->n_items == 0 && p->n_preempts == 0 && p->n_rejects == 0 && p->n_releases == 0;
}

#endif
