/*
 * weights_random.c - weights of a shape without files: near-normal numbers from a hash.
 *
 * One 64-bit hash of (seed, role, layer, element) gives one element: its four 16-bit parts are
 * added (Irwin-Hall with n = 4: mean and deviation exact, tails end at 3.46 deviations), which is
 * many times cheaper than Box-Muller and makes no difference to a forward pass.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/weights_int.h"

#define RANDOM_STD 0.02F /* what gpt2, gpt_neo and llama initialise with */

/* Variance of a sum of four uniform 16-bit integers: 4 (2^32 - 1) / 12. */
#define PARTS_MEAN (2.0F * 65535.0F)
#define PARTS_STD  37837.2269F

void weights_random_fill(const struct weights *w, enum weight_role role, uint32_t layer,
                         uint64_t first, uint64_t n, float *out)
{
    uint64_t key = rng_key(w->seed, (uint64_t)role << 32 | layer);
    const float scale = RANDOM_STD / PARTS_STD;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bits = rng_at(key, first + i);
        uint32_t sum = (uint32_t)(bits & 0xFFFF) + (uint32_t)(bits >> 16 & 0xFFFF) +
                       (uint32_t)(bits >> 32 & 0xFFFF) + (uint32_t)(bits >> 48);
        out[i] = ((float)sum - PARTS_MEAN) * scale;
    }
}

static bool has_bias(const struct model_config *c, enum weight_role role)
{
    uint32_t roles = c->arch->bias_roles;
    bool attention = role == ROLE_Q || role == ROLE_K || role == ROLE_V;
    if (attention && (roles >> ROLE_QKV & 1) != 0) {
        return true;
    }
    if (c->attention_bias && (attention || role == ROLE_O)) {
        return true;
    }
    if (c->mlp_bias && (role == ROLE_UP || role == ROLE_DOWN || role == ROLE_GATE)) {
        return true;
    }
    return (roles >> role & 1) != 0;
}

static bool has_role(const struct model_config *c, enum weight_role role)
{
    const struct arch *a = c->arch;
    switch (role) {
    case ROLE_QKV:
        return false; /* offered in parts */
    case ROLE_HEAD:
        return !c->tied;
    case ROLE_GATE:
        return a->gated_mlp;
    case ROLE_POSITION:
        return a->position == POSITION_LEARNED;
    default:
        return true;
    }
}

static void add_slot(struct weights *w, enum weight_role role, uint32_t layer, bool bias)
{
    uint64_t rows;
    uint64_t columns;
    weights_shape(&w->config, role, &rows, &columns);
    struct slot *s = weights_slot(w, role, layer, bias);
    s->present = true;
    s->dtype = DTYPE_F32;
    s->rows = bias ? 1 : rows;
    s->columns = !bias || weights_is_vector(role) ? columns : rows;
    w->summary.n_tensors++;
    w->summary.bytes += s->rows * s->columns * sizeof(float);
}

enum status weights_random(const struct model_config *config, uint64_t seed, struct weights **out,
                           struct error *err)
{
    struct weights *w = mem_alloc(1, sizeof *w);
    struct slot *slots = mem_alloc((size_t)ROLE_COUNT * config->n_layers * 2, sizeof *slots);
    if (w == NULL || slots == NULL) {
        mem_free(w);
        mem_free(slots);
        return error_set(err, STATUS_NO_MEMORY, -1, "random weights: no memory");
    }
    w->config = *config;
    w->slots = slots;
    w->random = true;
    w->seed = seed;
    w->summary.format = "random weights";
    for (uint32_t r = 0; r < ROLE_COUNT; r++) {
        enum weight_role role = (enum weight_role)r;
        uint32_t layers = weights_is_per_layer(role) ? config->n_layers : 1;
        for (uint32_t l = 0; has_role(config, role) && l < layers; l++) {
            add_slot(w, role, l, false);
            if (has_bias(config, role)) {
                add_slot(w, role, l, true);
            }
        }
    }
    snprintf(w->summary.dtypes, sizeof w->summary.dtypes, "F32 x %llu",
             (unsigned long long)w->summary.n_tensors);
    *out = w;
    return STATUS_OK;
}
