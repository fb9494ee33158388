/*
 * test_attend.c - attention of query rows over tiles of keys and values, on every instruction
 * set here, in f32 and bf16: against double precision, with any rubbish in the slots that are not
 * attended, a whole group of heads against each head alone, and with all memory ending at guard
 * pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tensor/bf16.h"
#include "tensor/tensor.h"
#include "tensor/tensor_test.h"

#define MAX_ISAS  8
#define MAX_TILES 40
#define TILE      TENSOR_KV_TILE

static const struct tensor_ops *isas[MAX_ISAS];
static uint32_t n_isas;

/* k and v hold what the kernel reads, in f32; k16 and v16 are the same in bf16. Tiles before the
 * first attended one are NULL: a window may have let go of them. */
struct kv_case {
    uint32_t group, D, first, last;
    enum tensor_dtype kv;
    float scale;
    struct guarded q, out, scratch;
    struct guarded k[MAX_TILES], v[MAX_TILES];
    struct guarded k16[MAX_TILES], v16[MAX_TILES];
    const void *k_tiles[MAX_TILES], *v_tiles[MAX_TILES];
};

static void round_tile(const struct guarded *wide, const struct guarded *narrow, size_t n)
{
    uint16_t *to = (uint16_t *)narrow->at;
    for (size_t i = 0; i < n; i++) {
        to[i] = bf16_from_f32(wide->at[i]);
        wide->at[i] = bf16_to_f32(to[i]);
    }
}

/* After every change of k and v. */
static void kv_round(const struct kv_case *c)
{
    size_t n = (size_t)c->D * TILE;
    for (uint32_t b = c->first / TILE; c->kv == TENSOR_BF16 && b <= c->last / TILE; b++) {
        round_tile(&c->k[b], &c->k16[b], n);
        round_tile(&c->v[b], &c->v16[b], n);
    }
}

static void kv_begin(struct kv_case *c, enum tensor_dtype kv, uint32_t group, uint32_t D,
                     uint32_t first, uint32_t last)
{
    *c = (struct kv_case){.kv = kv, .group = group, .D = D, .first = first, .last = last};
    assert_true(last / TILE < MAX_TILES);
    c->scale = 1.0f / sqrtf((float)D);
    c->q = guarded_normal((size_t)group * D, 1.5, D + group);
    c->out = guarded_alloc((size_t)group * D);
    c->scratch = guarded_normal((size_t)TENSOR_ATTEND_QUERIES * (last + 1 + TILE), 1.0, 3);
    for (uint32_t b = first / TILE; b <= last / TILE; b++) {
        c->k[b] = guarded_normal((size_t)D * TILE, 1.5, 100 + b);
        c->v[b] = guarded_normal((size_t)D * TILE, 1.0, 200 + b);
        c->k16[b] = guarded_alloc((size_t)D * TILE / 2);
        c->v16[b] = guarded_alloc((size_t)D * TILE / 2);
        c->k_tiles[b] = kv == TENSOR_BF16 ? c->k16[b].at : c->k[b].at;
        c->v_tiles[b] = kv == TENSOR_BF16 ? c->v16[b].at : c->v[b].at;
    }
    kv_round(c);
}

static void kv_end(struct kv_case *c)
{
    guarded_free(&c->q);
    guarded_free(&c->out);
    guarded_free(&c->scratch);
    for (uint32_t b = c->first / TILE; b <= c->last / TILE; b++) {
        guarded_free(&c->k[b]);
        guarded_free(&c->v[b]);
        guarded_free(&c->k16[b]);
        guarded_free(&c->v16[b]);
    }
}

static struct tensor_attention args_of(const struct kv_case *c)
{
    return (struct tensor_attention){
        .out = c->out.at,
        .q = c->q.at,
        .n_rows = 1,
        .group = c->group,
        .head_size = c->D,
        .scale = c->scale,
        .kv = c->kv,
        .k_tiles = c->k_tiles,
        .v_tiles = c->v_tiles,
        .first = c->first,
        .last = c->last,
        .scratch = c->scratch.at,
    };
}

static void kv_attend(const struct kv_case *c, const struct tensor_ops *ops)
{
    const struct tensor_attention a = args_of(c);
    memset(c->out.at, 0xFF, (size_t)c->group * c->D * sizeof(float));
    ops->attend(&a);
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
    kv_round(c);
}

static double exact_score(const struct kv_case *c, uint32_t h, uint32_t i, double *magnitude)
{
    double sum = 0.0;
    for (size_t d = 0; d < c->D; d++) {
        double term =
            (double)c->q.at[(size_t)h * c->D + d] * (double)c->k[i / TILE].at[d * TILE + i % TILE];
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
            double term = p[i] / sum * (double)c->v[i / TILE].at[(size_t)(i % TILE) * c->D + d];
            want += term;
            absolute += fabs(term);
        }
        double got = (double)c->out.at[(size_t)h * c->D + d];
        if (!(fabs(got - want) <= relative * absolute)) {
            fail_msg("%s %s group=%u D=%u %u..%u head %u [%zu]: %.9g, want %.9g, off by %.3g > "
                     "%.3g",
                     ops->isa, tensor_dtype_name(c->kv), c->group, c->D, c->first, c->last, h, d,
                     got, want, fabs(got - want), relative * absolute);
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

/* bf16 is the same arithmetic over widened values, so the same bits as tiles of f32. */
static void check_widened(const struct kv_case *c, const struct tensor_ops *ops, const float *got)
{
    struct kv_case wide = *c;
    wide.kv = TENSOR_F32;
    for (uint32_t b = c->first / TILE; b <= c->last / TILE; b++) {
        wide.k_tiles[b] = c->k[b].at;
        wide.v_tiles[b] = c->v[b].at;
    }
    kv_attend(&wide, ops);
    if (memcmp(got, wide.out.at, (size_t)c->group * c->D * sizeof *got) != 0) {
        fail_msg("%s group=%u D=%u %u..%u: bf16 differs from the same values in f32", ops->isa,
                 c->group, c->D, c->first, c->last);
    }
}

/* Everything at once for one shape: values, rubbish, heads alone. */
static void check_case(enum tensor_dtype kv, uint32_t group, uint32_t D, uint32_t first,
                       uint32_t last)
{
    struct kv_case c;
    kv_begin(&c, kv, group, D, first, last);
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
        check_widened(&c, isas[i], clean.at);
        for (size_t r = 0; r < COUNT(rubbish); r++) {
            kv_soil(&c, rubbish[r]);
            kv_attend(&c, isas[i]);
            if (memcmp(clean.at, c.out.at, n * sizeof(float)) != 0) {
                fail_msg("%s %s group=%u D=%u %u..%u: %g beyond the range changes the result",
                         isas[i]->isa, tensor_dtype_name(kv), group, D, first, last,
                         (double)rubbish[r]);
            }
        }
        for (uint32_t h = 0; h < group; h++) {
            struct tensor_attention a = args_of(&c);
            a.out = alone.at;
            a.q += (size_t)h * D;
            a.group = 1;
            isas[i]->attend(&a);
            if (memcmp(alone.at, clean.at + (size_t)h * D, D * sizeof(float)) != 0) {
                fail_msg("%s %s group=%u D=%u %u..%u: head %u alone has other bits", isas[i]->isa,
                         tensor_dtype_name(kv), group, D, first, last, h);
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
                check_case(TENSOR_F32, groups[g], sizes[s], ranges[r][0], ranges[r][1]);
                check_case(TENSOR_BF16, groups[g], sizes[s], ranges[r][0], ranges[r][1]);
            }
        }
    }
}

/* Rows of consecutive positions at once have the bits that each has alone; with_nan: also when the
 * key that only the last one attends to is not a number. */
static void check_rows(const struct tensor_ops *ops, enum tensor_dtype kv, uint32_t group,
                       uint32_t D, uint32_t first, uint32_t last, uint32_t rows, bool with_nan)
{
    struct kv_case c;
    kv_begin(&c, kv, group, D, first, last + rows - 1);
    size_t n = (size_t)group * D;
    size_t ld = n + 3;
    struct guarded q = guarded_normal((rows - 1) * ld + n, 1.5, 7);
    struct guarded out = guarded_alloc((rows - 1) * ld + n);
    for (size_t d = 0; with_nan && d < D; d++) {
        c.v[c.last / TILE].at[c.last % TILE * D + d] = NAN;
    }
    kv_round(&c);
    struct tensor_attention a = args_of(&c);
    a.q = q.at;
    a.ld_q = ld;
    a.out = out.at;
    a.ld_out = ld;
    a.last = last;
    a.n_rows = rows;
    ops->attend(&a);
    for (uint32_t r = 0; r < rows; r++) {
        a = args_of(&c);
        a.q = q.at + r * ld;
        a.last = last + r;
        ops->attend(&a);
        if (memcmp(c.out.at, out.at + r * ld, n * sizeof(float)) != 0) {
            fail_msg("%s %s group=%u D=%u %u..%u: row %u of %u has other bits", ops->isa,
                     tensor_dtype_name(kv), group, D, first, last, r, rows);
        }
    }
    guarded_free(&q);
    guarded_free(&out);
    kv_end(&c);
}

static void rows_together_have_the_bits_of_each(void **state)
{
    (void)state;
    static const uint32_t groups[] = {1, 2, 3, 4, 7};
    static const uint32_t lasts[] = {0, 1, 14, 15, 16, 46, 255};
    for (uint32_t i = 0; i < n_isas * COUNT(groups) * COUNT(lasts); i++) {
        const struct tensor_ops *ops = isas[i % n_isas];
        uint32_t group = groups[i / n_isas % COUNT(groups)];
        uint32_t last = lasts[i / n_isas / COUNT(groups)];
        for (uint32_t rows = 2; rows <= 5; rows++) {
            for (enum tensor_dtype kv = TENSOR_F32; kv <= TENSOR_BF16; kv++) {
                check_rows(ops, kv, group, 64, 0, last, rows, false);
                check_rows(ops, kv, group, 64, 0, last, rows, true);
                check_rows(ops, kv, group, 20, last / 2, last, rows, false);
            }
        }
    }
}

/* NaN in one head of a group does not reach the others. */
static void a_bad_head_stays_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2 * n_isas; i++) {
        const struct tensor_ops *ops = isas[i / 2];
        struct kv_case c;
        kv_begin(&c, (enum tensor_dtype)(i % 2), 5, 24, 3, 70);
        kv_attend(&c, ops);
        struct guarded clean = guarded_alloc((size_t)5 * 24);
        memcpy(clean.at, c.out.at, (size_t)5 * 24 * sizeof(float));
        c.q.at[2 * 24 + 7] = NAN;
        kv_attend(&c, ops);
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
    for (uint32_t i = 0; i < 2 * n_isas; i++) {
        struct kv_case c;
        kv_begin(&c, (enum tensor_dtype)(i % 2), 2, 8, 0, 40);
        for (uint32_t key = 0; key <= 40; key++) {
            for (uint32_t d = 0; d < 8; d++) {
                c.k[key / TILE].at[d * TILE + key % TILE] = key == 21 ? 1e15f : -1e15f;
            }
        }
        for (uint32_t d = 0; d < 16; d++) {
            c.q.at[d] = 1e15f;
        }
        kv_round(&c);
        kv_attend(&c, isas[i / 2]);
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
        cmocka_unit_test(rows_together_have_the_bits_of_each),
        cmocka_unit_test(a_bad_head_stays_alone),
        cmocka_unit_test(extreme_scores_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
