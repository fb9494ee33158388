/*
 * test_attend.c - attention of one query row over tiles of keys and values, on every instruction
 * set here: against double precision, with any rubbish in the slots that are not attended, a whole
 * group of heads against each head alone, and with all memory ending at guard pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tensor/tensor.h"
#include "tensor/tensor_test.h"

#define MAX_ISAS  8
#define MAX_TILES 40
#define TILE      TENSOR_KV_TILE

static const struct tensor_ops *isas[MAX_ISAS];
static uint32_t n_isas;

/* Tiles before the first attended one are NULL: a window may have let go of them. */
struct kv_case {
    uint32_t group, D, first, last;
    float scale;
    struct guarded q, out, scratch;
    struct guarded k[MAX_TILES], v[MAX_TILES];
    const float *k_tiles[MAX_TILES], *v_tiles[MAX_TILES];
};

static void kv_begin(struct kv_case *c, uint32_t group, uint32_t D, uint32_t first, uint32_t last)
{
    *c = (struct kv_case){.group = group, .D = D, .first = first, .last = last};
    assert_true(last / TILE < MAX_TILES);
    c->scale = 1.0f / sqrtf((float)D);
    c->q = guarded_normal((size_t)group * D, 1.5, D + group);
    c->out = guarded_alloc((size_t)group * D);
    c->scratch = guarded_normal((size_t)group * (last + 1 + TILE), 1.0, 3);
    for (uint32_t b = first / TILE; b <= last / TILE; b++) {
        c->k[b] = guarded_normal((size_t)D * TILE, 1.5, 100 + b);
        c->v[b] = guarded_normal((size_t)D * TILE, 1.0, 200 + b);
        c->k_tiles[b] = c->k[b].at;
        c->v_tiles[b] = c->v[b].at;
    }
}

static void kv_end(struct kv_case *c)
{
    guarded_free(&c->q);
    guarded_free(&c->out);
    guarded_free(&c->scratch);
    for (uint32_t b = c->first / TILE; b <= c->last / TILE; b++) {
        guarded_free(&c->k[b]);
        guarded_free(&c->v[b]);
    }
}

static void kv_attend(const struct kv_case *c, const struct tensor_ops *ops)
{
    memset(c->out.at, 0xFF, (size_t)c->group * c->D * sizeof(float));
    ops->attend(c->out.at, c->q.at, c->group, c->D, c->scale, c->k_tiles, c->v_tiles, c->first,
                c->last, c->scratch.at);
}

/* Puts `rubbish` into every slot of the cache that is not attended. */
static void kv_soil(const struct kv_case *c, float rubbish)
{
    for (uint32_t i = c->first / TILE * TILE; i < (c->last / TILE + 1) * TILE; i++) {
        if (i >= c->first && i <= c->last) {
            continue;
        }
        for (size_t d = 0; d < c->D; d++) {
            c->k[i / TILE].at[d * TILE + i % TILE] = rubbish;
            c->v[i / TILE].at[(size_t)(i % TILE) * c->D + d] = rubbish;
        }
    }
}

static double exact_score(const struct kv_case *c, uint32_t h, uint32_t i, double *magnitude)
{
    double sum = 0.0;
    for (size_t d = 0; d < c->D; d++) {
        double term = (double)c->q.at[(size_t)h * c->D + d] *
                      (double)c->k_tiles[i / TILE][d * TILE + i % TILE];
        sum += term;
        *magnitude = fmax(*magnitude, fabs(term) * c->D);
    }
    return sum * (double)c->scale;
}

static void check_head(const struct kv_case *c, const struct tensor_ops *ops, uint32_t h)
{
    static double p[MAX_TILES * TILE];
    double magnitude = 0.0;
    double max = -HUGE_VAL;
    double sum = 0.0;
    for (uint32_t i = c->first; i <= c->last; i++) {
        p[i] = exact_score(c, h, i, &magnitude);
        max = fmax(max, p[i]);
    }
    for (uint32_t i = c->first; i <= c->last; i++) {
        p[i] = exp(p[i] - max);
        sum += p[i];
    }
    /* A score is off by so much, its exponential relatively by as much, numerator and sum alike. */
    double score_error = (c->D + 2) * F32_UNIT * magnitude * (double)c->scale;
    double relative = 2 * (2 * score_error + (c->last - c->first + 16) * F32_UNIT);
    for (size_t d = 0; d < c->D; d++) {
        double want = 0.0;
        double absolute = 0.0;
        for (uint32_t i = c->first; i <= c->last; i++) {
            double term = p[i] / sum * (double)c->v_tiles[i / TILE][(size_t)(i % TILE) * c->D + d];
            want += term;
            absolute += fabs(term);
        }
        double got = (double)c->out.at[(size_t)h * c->D + d];
        if (!(fabs(got - want) <= relative * absolute)) {
            fail_msg("%s group=%u D=%u %u..%u head %u [%zu]: %.9g, want %.9g, off by %.3g > %.3g",
                     ops->isa, c->group, c->D, c->first, c->last, h, d, got, want, fabs(got - want),
                     relative * absolute);
        }
    }
}

/* A query of zeros gives the plain mean of the values: no score error can hide a wrong key. */
static void check_mean(struct kv_case *c, const struct tensor_ops *ops)
{
    memset(c->q.at, 0, (size_t)c->group * c->D * sizeof(float));
    kv_attend(c, ops);
    for (uint32_t h = 0; h < c->group; h++) {
        check_head(c, ops, h);
    }
}

/* Everything at once for one shape: values, rubbish, heads alone. */
static void check_case(uint32_t group, uint32_t D, uint32_t first, uint32_t last)
{
    struct kv_case c;
    kv_begin(&c, group, D, first, last);
    size_t n = (size_t)group * D;
    struct guarded clean = guarded_alloc(n);
    struct guarded alone = guarded_alloc(D);
    static const float rubbish[] = {NAN, INFINITY, -3e38f, 0.0f};
    for (uint32_t i = 0; i < n_isas; i++) {
        fill_normal(c.q.at, n, 1.5, D + group);
        kv_attend(&c, isas[i]);
        for (uint32_t h = 0; h < group; h++) {
            check_head(&c, isas[i], h);
        }
        memcpy(clean.at, c.out.at, n * sizeof(float));
        for (size_t r = 0; r < COUNT(rubbish); r++) {
            kv_soil(&c, rubbish[r]);
            kv_attend(&c, isas[i]);
            if (memcmp(clean.at, c.out.at, n * sizeof(float)) != 0) {
                fail_msg("%s group=%u D=%u %u..%u: %g beyond the range changes the result",
                         isas[i]->isa, group, D, first, last, (double)rubbish[r]);
            }
        }
        for (uint32_t h = 0; h < group; h++) {
            isas[i]->attend(alone.at, c.q.at + (size_t)h * D, 1, D, c.scale, c.k_tiles, c.v_tiles,
                            first, last, c.scratch.at);
            if (memcmp(alone.at, clean.at + (size_t)h * D, D * sizeof(float)) != 0) {
                fail_msg("%s group=%u D=%u %u..%u: head %u alone has other bits", isas[i]->isa,
                         group, D, first, last, h);
            }
        }
        check_mean(&c, isas[i]);
    }
    guarded_free(&clean);
    guarded_free(&alone);
    kv_end(&c);
}

static void attention_matches_double_precision(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 3, 7, 8, 15, 16, 17, 33, 64, 65, 80, 128, 136};
    static const uint32_t groups[] = {1, 2, 3, 4, 5, 8, 11};
    static const uint32_t ranges[][2] = {{0, 0},   {0, 14},   {0, 15},    {0, 16},   {0, 47},
                                         {5, 5},   {5, 37},   {15, 16},   {16, 16},  {31, 64},
                                         {0, 127}, {17, 250}, {240, 255}, {37, 511}, {513, 600}};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        /* Every head size with two kinds of group, the usual one with all. */
        for (size_t g = sizes[s] == 64 ? 0 : s % 4; g < COUNT(groups);
             g += sizes[s] == 64 ? 1 : 4) {
            for (size_t r = 0; r < COUNT(ranges); r++) {
                check_case(groups[g], sizes[s], ranges[r][0], ranges[r][1]);
            }
        }
    }
}

/* NaN in one head of a group does not reach the others. */
static void a_bad_head_stays_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas; i++) {
        struct kv_case c;
        kv_begin(&c, 5, 24, 3, 70);
        kv_attend(&c, isas[i]);
        struct guarded clean = guarded_alloc((size_t)5 * 24);
        memcpy(clean.at, c.out.at, (size_t)5 * 24 * sizeof(float));
        c.q.at[2 * 24 + 7] = NAN;
        kv_attend(&c, isas[i]);
        for (size_t h = 0; h < 5; h++) {
            for (size_t d = 0; d < 24; d++) {
                if (h == 2) {
                    assert_true(isnan(c.out.at[h * 24 + d]));
                } else {
                    assert_memory_equal(c.out.at + h * 24 + d, clean.at + h * 24 + d,
                                        sizeof(float));
                }
            }
        }
        guarded_free(&clean);
        kv_end(&c);
    }
}

/* One key far above the rest takes all the weight; others vanish without underflow trouble. */
static void extreme_scores_do_not_overflow(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_isas; i++) {
        struct kv_case c;
        kv_begin(&c, 2, 8, 0, 40);
        for (uint32_t key = 0; key <= 40; key++) {
            for (uint32_t d = 0; d < 8; d++) {
                c.k[key / TILE].at[d * TILE + key % TILE] = key == 21 ? 1e15f : -1e15f;
            }
        }
        for (uint32_t d = 0; d < 16; d++) {
            c.q.at[d] = 1e15f;
        }
        kv_attend(&c, isas[i]);
        for (uint32_t d = 0; d < 16; d++) {
            assert_true(c.out.at[d] == c.v[1].at[5 * 8 + d % 8]);
        }
        kv_end(&c);
    }
}

int main(void)
{
    n_isas = tensor_available(isas, MAX_ISAS);
    for (uint32_t i = 0; i < n_isas; i++) {
        printf("instruction set run here: %s\n", isas[i]->isa);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_double_precision),
        cmocka_unit_test(a_bad_head_stays_alone),
        cmocka_unit_test(extreme_scores_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
