/*
 * simd_ops_int.h - all vector kernels, written once; included by each isa_<name>.c after it has
 * said what a vector is.
 *
 * The including file defines VEC_LANES, the type `vec`, the tile constants TILE_ROWS (rows of the
 * matrix kernel: TILE_ROWS * TILE_VECS accumulators must fit the registers) and TILE_STEPS (steps
 * per block at most: a panel's block stays in the L1 cache), and
 *
 *   vec_load vec_store vec_set1 vec_add vec_sub vec_mul vec_div vec_abs
 *   vec_fma(a, b, c)          a b + c, rounded once
 *   vec_load_n vec_store_n    the first n lanes, 1 <= n <= VEC_LANES; lanes not loaded are 0,
 *                             and the memory behind them is not touched
 *   vec_max vec_min           give the second operand when either is NaN
 *   vec_round                 to nearest, ties to even
 *   vec_if_positive(x, a, b)  x > 0 ? a : b
 *   vec_keep(v, w, from, to)  v in lanes from <= i < to, else w
 *   vec_scale2(a, n)          a 2^n, n whole, |n| <= 252, rounded once
 *
 * and how it multiplies the narrow dtypes. A loaded vector of weights holds, for each output, 2
 * inputs in bf16 or 4 in int8; x is four bytes of an operand row in every lane:
 *
 *   BF16_PARTS  1: vec_dot_bf16(acc, w, x) takes a pair of each; operand rows are bf16
 *               2: vec_bf16_part(w, i) widens the even, then the odd inputs; operand rows are f32
 *   INT8_PARTS  1: vec_dot_int8(acc, w, x) takes four of each; operand rows are x + 128, unsigned
 *               (INT8_OFFSET: sums begin with packed_matrix.offset, which takes the 128 out)
 *               2: vec_int8_part(w, i) widens inputs 0 and 2, then 1 and 3, to 16 bits; operand
 *               rows are 16 bits in that order
 *   vec_from_int(v), vec_store_bf16, vec_store_int8 (rounds to nearest even)
 *
 * Order of operations (tensor.h promises that it depends on sizes only):
 *   matrix product  acc = bias (or 0), then acc = fma(x[k], w[k], acc) for k = 0, 1, ... K-1: one
 *                   accumulator per output; with a bf16 dot, pair by pair upwards. Cutting rows
 *                   into tiles, taking several panels at once and resting acc in y between blocks
 *                   of steps change nothing of it. int8 sums are exact in any order.
 *   sums of a row   four vector accumulators in turn, then the tree of lane_sum
 *   attention       scores: d = 0, 1, ...; maximum and sum: lane by lane over tiles of 16 keys at
 *                   absolute multiples, then the tree; output: keys upwards
 * Tails run the same operations on zero-padded vectors.
 */
#include <math.h>
#include <stdbool.h>

/* Products of tile constants, lane and loop numbers, all far below 2^16; sizes of data are size_t.
 */
/* NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result) */

#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* ---- lanes to one number: halves are folded until one lane is left ---- */

static float lane_sum(vec v)
{
    float a[VEC_LANES];
    vec_store(a, v);
    for (uint32_t width = VEC_LANES / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++) {
            a[i] += a[i + width];
        }
    }
    return a[0];
}

static float lane_max(vec v)
{
    float a[VEC_LANES];
    vec_store(a, v);
    for (uint32_t width = VEC_LANES / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++) {
            a[i] = a[i] > a[i + width] ? a[i] : a[i + width];
        }
    }
    return a[0];
}

#include "tensor/simd_matmul_int.h"

/* ---- elementwise: f applied to whole vectors and to a zero-padded last one ---- */

static ALWAYS_INLINE void map(float *x, uint32_t n, vec (*f)(vec))
{
    uint32_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec_store(x + i, f(vec_load(x + i)));
    }
    if (i < n) {
        vec_store_n(x + i, f(vec_load_n(x + i, n - i)), n - i);
    }
}

static ALWAYS_INLINE void map2(float *x, const float *y, uint32_t n, vec (*f)(vec, vec))
{
    uint32_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec_store(x + i, f(vec_load(x + i), vec_load(y + i)));
    }
    if (i < n) {
        vec_store_n(x + i, f(vec_load_n(x + i, n - i), vec_load_n(y + i, n - i)), n - i);
    }
}

static ALWAYS_INLINE vec poly(vec x, const float *c, const uint32_t degree)
{
    vec sum = vec_set1(c[degree]);
    UNROLL
    for (uint32_t i = degree; i > 0; i--) {
        sum = vec_fma(sum, x, vec_set1(c[i - 1]));
    }
    return sum;
}

/*
 * e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, e^r = 1 + r + r^2 q(r); q is the minimax
 * polynomial of degree 4 (relative error 3.1e-9). ln 2 in two parts keeps r exact enough. Beyond
 * the clamps the result is 0 or infinity already; NaN passes through them.
 */
static ALWAYS_INLINE vec vec_exp(vec x)
{
    static const float q[] = {0.49999994f, 0.166665196f, 0.0416683927f, 0.00836878084f,
                              0.00138144672f};
    x = vec_min(vec_set1(90.0f), vec_max(vec_set1(-110.0f), x));
    vec n = vec_round(vec_mul(x, vec_set1(1.44269504f)));
    vec r = vec_fma(n, vec_set1(-0.693359375f), x);
    r = vec_fma(n, vec_set1(2.12194440e-4f), r);
    vec e = vec_fma(vec_mul(r, r), poly(r, q, 4), r);
    return vec_scale2(vec_add(e, vec_set1(1.0f)), n);
}

/* x / (1 + e^-y) */
static ALWAYS_INLINE vec gate_by(vec x, vec y)
{
    vec e = vec_exp(vec_sub(vec_set1(0.0f), y));
    return vec_div(x, vec_add(vec_set1(1.0f), e));
}

static ALWAYS_INLINE vec vec_silu(vec x)
{
    return gate_by(x, x);
}

static ALWAYS_INLINE vec vec_silu_mul(vec gate, vec up)
{
    return vec_mul(gate_by(gate, gate), up);
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3): Hendrycks and Gimpel
 * 2016, section 2. */
static ALWAYS_INLINE vec vec_gelu_tanh(vec x)
{
    vec cubic = vec_fma(vec_mul(x, x), vec_set1(0.044715f), vec_set1(1.0f));
    return gate_by(x, vec_mul(vec_mul(x, vec_set1(1.59576912f)), cubic));
}

/*
 * x Phi(x). With a = |x| and t = 1 / (1 + 0.3 a): Phi(-a) = e^(-a^2 / 2) t p(t), the form of
 * Abramowitz and Stegun 7.1.26 with an own minimax polynomial of degree 7 (relative error 1.9e-7
 * for a <= 15; beyond, the exponential is 0).
 */
static ALWAYS_INLINE vec vec_gelu_erf(vec x)
{
    static const float p[] = {0.119634531f,   0.120672725f, 0.100425646f, 0.126857758f,
                              -0.0504423343f, 0.202814251f, -0.15514107f, 0.0351784043f};
    vec one = vec_set1(1.0f);
    vec a = vec_abs(x);
    vec t = vec_div(one, vec_fma(a, vec_set1(0.3f), one));
    vec e = vec_exp(vec_mul(vec_mul(a, a), vec_set1(-0.5f)));
    vec tail = vec_mul(vec_mul(e, t), poly(t, p, 7));
    return vec_mul(x, vec_if_positive(x, vec_sub(one, tail), tail));
}

static ALWAYS_INLINE vec vec_relu(vec x)
{
    return vec_max(vec_set1(0.0f), x);
}

static void add(float *x, const float *y, uint32_t n)
{
    map2(x, y, n, vec_add);
}

static void silu_mul(float *gate, const float *up, uint32_t n)
{
    map2(gate, up, n, vec_silu_mul);
}

static void silu(float *x, uint32_t n)
{
    map(x, n, vec_silu);
}

static void gelu_tanh(float *x, uint32_t n)
{
    map(x, n, vec_gelu_tanh);
}

static void gelu_erf(float *x, uint32_t n)
{
    map(x, n, vec_gelu_erf);
}

static void relu(float *x, uint32_t n)
{
    map(x, n, vec_relu);
}

/* ---- norms ---- */

/* sum of f(x[i], c), where f of a padded lane counts as 0. */
static ALWAYS_INLINE float row_sum(const float *x, uint32_t n, float c,
                                   vec (*f)(vec acc, vec x, vec c))
{
    vec cs = vec_set1(c);
    vec zero = vec_set1(0.0f);
    vec s[4] = {zero, zero, zero, zero};
    uint32_t i = 0;
    for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES) {
        UNROLL
        for (uint32_t u = 0; u < 4; u++) {
            s[u] = f(s[u], vec_load(x + i + u * VEC_LANES), cs);
        }
    }
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        s[0] = f(s[0], vec_load(x + i), cs);
    }
    if (i < n) {
        vec last = f(s[1], vec_load_n(x + i, n - i), cs);
        s[1] = vec_keep(last, s[1], 0, n - i);
    }
    return lane_sum(vec_add(vec_add(s[0], s[1]), vec_add(s[2], s[3])));
}

static ALWAYS_INLINE vec acc_plain(vec acc, vec x, vec c)
{
    (void)c;
    return vec_add(acc, x);
}

static ALWAYS_INLINE vec acc_squared_difference(vec acc, vec x, vec c)
{
    vec d = vec_sub(x, c);
    return vec_fma(d, d, acc);
}

/* y = ((x - mean) inv) weight + bias */
static ALWAYS_INLINE vec norm_apply(vec x, vec mean, vec inv, vec weight, vec bias)
{
    return vec_fma(vec_mul(vec_sub(x, mean), inv), weight, bias);
}

static ALWAYS_INLINE void norm_row(float *y, const float *x, const float *weight, const float *bias,
                                   uint32_t n, float mean, float inv)
{
    vec m = vec_set1(mean);
    vec s = vec_set1(inv);
    vec zero = vec_set1(0.0f);
    uint32_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec b = bias != NULL ? vec_load(bias + i) : zero;
        vec_store(y + i, norm_apply(vec_load(x + i), m, s, vec_load(weight + i), b));
    }
    if (i < n) {
        uint32_t left = n - i;
        vec b = bias != NULL ? vec_load_n(bias + i, left) : zero;
        vec w = vec_load_n(weight + i, left);
        vec_store_n(y + i, norm_apply(vec_load_n(x + i, left), m, s, w, b), left);
    }
}

static void rms_norm(float *y, const float *x, const float *weight, uint32_t n, float eps)
{
    float mean_square = row_sum(x, n, 0.0f, acc_squared_difference) / (float)n;
    norm_row(y, x, weight, NULL, n, 0.0f, 1.0f / sqrtf(mean_square + eps));
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias, uint32_t n,
                       float eps)
{
    float mean = row_sum(x, n, 0.0f, acc_plain) / (float)n;
    float variance = row_sum(x, n, mean, acc_squared_difference) / (float)n;
    norm_row(y, x, weight, bias, n, mean, 1.0f / sqrtf(variance + eps));
}

/* ---- positions ---- */

static ALWAYS_INLINE vec rotate_low(vec a, vec b, vec c, vec s)
{
    return vec_sub(vec_mul(a, c), vec_mul(b, s));
}

static ALWAYS_INLINE vec rotate_high(vec a, vec b, vec c, vec s)
{
    return vec_add(vec_mul(b, c), vec_mul(a, s));
}

static void rope(float *x, uint32_t n_heads, uint32_t head_size, const float *cos, const float *sin)
{
    uint32_t half = head_size / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += head_size) {
        uint32_t i = 0;
        for (; i + VEC_LANES <= half; i += VEC_LANES) {
            vec a = vec_load(x + i);
            vec b = vec_load(x + half + i);
            vec c = vec_load(cos + i);
            vec s = vec_load(sin + i);
            vec_store(x + i, rotate_low(a, b, c, s));
            vec_store(x + half + i, rotate_high(a, b, c, s));
        }
        if (i < half) {
            uint32_t left = half - i;
            vec a = vec_load_n(x + i, left);
            vec b = vec_load_n(x + half + i, left);
            vec c = vec_load_n(cos + i, left);
            vec s = vec_load_n(sin + i, left);
            vec_store_n(x + i, rotate_low(a, b, c, s), left);
            vec_store_n(x + half + i, rotate_high(a, b, c, s), left);
        }
    }
}

/* ---- attention ---- */

#define KEY_VECS (TENSOR_KV_TILE / VEC_LANES)
/* Query heads that share one pass over keys and values. */
#define HEAD_BLOCK 4

/* One query row against one KV head, for up to HEAD_BLOCK query heads. */
struct attention {
    float *out;
    const float *q;
    const float *const *k_tiles;
    const float *const *v_tiles;
    float *p; /* [heads][row]: scores, then probabilities, from the first tile on */
    size_t row;
    uint32_t head_size;
    uint32_t first;
    uint32_t last;
    float scale;
};

/* Scores of `tiles` tiles from tile b on. Lanes outside first..last become -inf whatever the cache
 * holds there. heads and tiles are constants where this is expanded. */
static ALWAYS_INLINE void score_tiles(const struct attention *a, uint32_t b, const uint32_t heads,
                                      const uint32_t tiles)
{
    const uint32_t vecs = tiles * KEY_VECS;
    vec acc[16];
    const float *q[HEAD_BLOCK];
    const float *keys[8];
    UNROLL
    for (uint32_t i = 0; i < heads * vecs; i++) {
        acc[i] = vec_set1(0.0f);
    }
    UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        q[h] = a->q + h * (size_t)a->head_size;
    }
    UNROLL
    for (uint32_t i = 0; i < tiles; i++) {
        keys[i] = a->k_tiles[b + i];
    }
    const size_t D = a->head_size;
    for (size_t d = 0; d < D; d++) {
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            vec key = vec_load(keys[v / KEY_VECS] + d * TENSOR_KV_TILE + v % KEY_VECS * VEC_LANES);
            UNROLL
            for (uint32_t h = 0; h < heads; h++) {
                acc[h * vecs + v] = vec_fma(vec_set1(q[h][d]), key, acc[h * vecs + v]);
            }
        }
    }
    size_t base = (size_t)(a->first / TENSOR_KV_TILE) * TENSOR_KV_TILE;
    vec masked = vec_set1(-INFINITY);
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        size_t key = (size_t)b * TENSOR_KV_TILE + v * VEC_LANES;
        uint32_t from = a->first > key ? (uint32_t)(a->first - key) : 0;
        size_t count = a->last + (size_t)1 > key ? a->last + (size_t)1 - key : 0;
        from = from < VEC_LANES ? from : VEC_LANES;
        uint32_t to = count < VEC_LANES ? (uint32_t)count : VEC_LANES;
        UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            vec s = vec_mul(acc[h * vecs + v], vec_set1(a->scale));
            vec_store(a->p + h * a->row + (key - base), vec_keep(s, masked, from, to));
        }
    }
}

/* As many tiles at once as put up to eight sums in flight; twelve spill registers with AVX2. */
static ALWAYS_INLINE void score_heads(const struct attention *a, const uint32_t heads)
{
    const uint32_t step = 8 / (heads * KEY_VECS) > 0 ? 8 / (heads * KEY_VECS) : 1;
    uint32_t end = a->last / TENSOR_KV_TILE + 1;
    uint32_t b = a->first / TENSOR_KV_TILE;
    for (; end - b >= step; b += step) {
        score_tiles(a, b, heads, step);
    }
    for (; b < end; b++) {
        score_tiles(a, b, heads, 1);
    }
}

/* exp(p - max) in place over whole tiles; returns the sum. */
static float softmax_row(float *p, size_t n)
{
    vec max[KEY_VECS];
    vec sum[KEY_VECS];
    for (uint32_t v = 0; v < KEY_VECS; v++) {
        max[v] = vec_set1(-INFINITY);
        sum[v] = vec_set1(0.0f);
    }
    for (size_t i = 0; i < n; i += TENSOR_KV_TILE) {
        for (uint32_t v = 0; v < KEY_VECS; v++) {
            max[v] = vec_max(max[v], vec_load(p + i + v * VEC_LANES));
        }
    }
    for (uint32_t v = 1; v < KEY_VECS; v++) {
        max[0] = vec_max(max[0], max[v]);
    }
    vec top = vec_set1(lane_max(max[0]));
    for (size_t i = 0; i < n; i += TENSOR_KV_TILE) {
        for (uint32_t v = 0; v < KEY_VECS; v++) {
            vec e = vec_exp(vec_sub(vec_load(p + i + v * VEC_LANES), top));
            vec_store(p + i + v * VEC_LANES, e);
            sum[v] = vec_add(sum[v], e);
        }
    }
    for (uint32_t v = 1; v < KEY_VECS; v++) {
        sum[0] = vec_add(sum[0], sum[v]);
    }
    return lane_sum(sum[0]);
}

/* Outputs [d, d + vecs * VEC_LANES) of each head, or the last `lanes` ones if vecs is 1. Values
 * outside first..last are never read. */
static ALWAYS_INLINE void mix_values(const struct attention *a, size_t d, const uint32_t heads,
                                     const uint32_t vecs, uint32_t lanes, const float *sums)
{
    vec acc[16];
    UNROLL
    for (uint32_t i = 0; i < heads * vecs; i++) {
        acc[i] = vec_set1(0.0f);
    }
    const float *p = a->p;
    for (uint32_t b = a->first / TENSOR_KV_TILE; b <= a->last / TENSOR_KV_TILE;
         b++, p += TENSOR_KV_TILE) {
        size_t key = (size_t)b * TENSOR_KV_TILE;
        size_t from = a->first > key ? a->first - key : 0;
        size_t to = a->last - key < TENSOR_KV_TILE ? a->last - key + 1 : TENSOR_KV_TILE;
        for (size_t j = from; j < to; j++) {
            const float *value = a->v_tiles[b] + j * a->head_size + d;
            UNROLL
            for (uint32_t v = 0; v < vecs; v++) {
                vec x =
                    lanes == VEC_LANES ? vec_load(value + v * VEC_LANES) : vec_load_n(value, lanes);
                UNROLL
                for (uint32_t h = 0; h < heads; h++) {
                    acc[h * vecs + v] = vec_fma(vec_set1(p[h * a->row + j]), x, acc[h * vecs + v]);
                }
            }
        }
    }
    UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        vec sum = vec_set1(sums[h]);
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            float *out = a->out + h * a->head_size + d + v * VEC_LANES;
            vec y = vec_div(acc[h * vecs + v], sum);
            if (lanes == VEC_LANES) {
                vec_store(out, y);
            } else {
                vec_store_n(out, y, lanes);
            }
        }
    }
}

static ALWAYS_INLINE void attend_heads(const struct attention *a, const uint32_t heads)
{
    float sums[HEAD_BLOCK];
    score_heads(a, heads);
    for (uint32_t h = 0; h < heads; h++) {
        sums[h] = softmax_row(a->p + h * a->row, a->row);
    }
    /* Widths that put about eight sums in flight and still fit the registers. */
    const uint32_t wide = heads == 1 ? 8 : 0;
    const uint32_t middle = heads <= 3 || VEC_LANES == 16 ? 4 : 2;
    size_t d = 0;
    size_t D = a->head_size;
    for (; wide > 0 && d + wide * VEC_LANES <= D; d += wide * VEC_LANES) {
        mix_values(a, d, heads, wide, VEC_LANES, sums);
    }
    for (; d + middle * VEC_LANES <= D; d += middle * VEC_LANES) {
        mix_values(a, d, heads, middle, VEC_LANES, sums);
    }
    for (; d + VEC_LANES <= D; d += VEC_LANES) {
        mix_values(a, d, heads, 1, VEC_LANES, sums);
    }
    if (d < D) {
        mix_values(a, d, heads, 1, (uint32_t)(D - d), sums);
    }
}

/* Not inlined into one function: its registers would run out. */
#define ATTEND_HEADS(heads)                                                                        \
    static __attribute__((noinline)) void attend_##heads(const struct attention *a)                \
    {                                                                                              \
        attend_heads(a, heads);                                                                    \
    }

ATTEND_HEADS(1)
ATTEND_HEADS(2)
ATTEND_HEADS(3)
ATTEND_HEADS(4)

static void attend(float *out, const float *q, uint32_t group, uint32_t head_size, float scale,
                   const float *const *k_tiles, const float *const *v_tiles, uint32_t first,
                   uint32_t last, float *scratch)
{
    struct attention a = {
        .out = out,
        .q = q,
        .k_tiles = k_tiles,
        .v_tiles = v_tiles,
        .p = scratch,
        .row = (size_t)(last / TENSOR_KV_TILE - first / TENSOR_KV_TILE + 1) * TENSOR_KV_TILE,
        .head_size = head_size,
        .first = first,
        .last = last,
        .scale = scale,
    };
    static void (*const by_heads[HEAD_BLOCK])(const struct attention *) = {attend_1, attend_2,
                                                                           attend_3, attend_4};
    while (group > 0) {
        uint32_t heads = group < HEAD_BLOCK ? group : HEAD_BLOCK;
        by_heads[heads - 1](&a);
        a.out += (size_t)heads * head_size;
        a.q += (size_t)heads * head_size;
        group -= heads;
    }
}

/* ---- limits ---- */

#define SPIN_ACCS 12 /* in flight: latency is hidden */

/* The compiler must not see that nothing changes from round to round. */
#define FORGET(v) __asm__ volatile("" : "+v"(v))

static ALWAYS_INLINE uint64_t spin(uint64_t n, const enum tensor_dtype dtype)
{
    const uint64_t round =
        (uint64_t)SPIN_ACCS * VEC_LANES * tensor_step_inputs(dtype) / parts_of(dtype);
    uint64_t rounds = n / round + 1;
    vec acc[SPIN_ACCS];
    vec w = vec_set1(0.0f);
    vec x = vec_set1(0.0f);
    UNROLL
    for (uint32_t i = 0; i < SPIN_ACCS; i++) {
        acc[i] = vec_set1(0.0f);
    }
    FORGET(w);
    FORGET(x);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (uint32_t i = 0; i < SPIN_ACCS; i++) {
            acc[i] = accumulate(acc[i], w, x, dtype);
            FORGET(acc[i]); /* else all sums were one */
            if (dtype == TENSOR_INT8 && INT8_PARTS == 2) {
                FORGET(w); /* else one product served all of them */
            }
        }
    }
    return rounds * round;
}

static uint64_t multiply_add(enum tensor_dtype dtype, uint64_t n)
{
    switch (dtype) {
    case TENSOR_BF16:
        return spin(n, TENSOR_BF16);
    case TENSOR_INT8:
        return spin(n, TENSOR_INT8);
    default:
        return spin(n, TENSOR_F32);
    }
}

static float read_floats(const float *x, size_t n)
{
    vec sum[4];
    for (uint32_t i = 0; i < 4; i++) {
        sum[i] = vec_set1(0.0f);
    }
    for (size_t at = 0; at < n; at += 4 * (size_t)VEC_LANES) {
        UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            sum[i] = vec_max(sum[i], vec_load(x + at + i * (size_t)VEC_LANES));
        }
    }
    return lane_max(vec_max(vec_max(sum[0], sum[1]), vec_max(sum[2], sum[3])));
}

#if BF16_PARTS == 1
#define SIMD_BF16_PRODUCT                                                                          \
    {                                                                                              \
        matmul_bf16, pack_bf16, 1                                                                  \
    }
#else
#define SIMD_BF16_PRODUCT                                                                          \
    {                                                                                              \
        matmul_bf16, NULL, 2                                                                       \
    }
#endif

#define SIMD_OPS_TABLE(name)                                                                       \
    {                                                                                              \
        .isa = (name), .panel = PANEL,                                                             \
        .product = {{matmul_f32, NULL, 1},                                                         \
                    SIMD_BF16_PRODUCT,                                                             \
                    {matmul_int8, pack_int8, INT8_PARTS}},                                         \
        .rms_norm = rms_norm, .layer_norm = layer_norm, .add = add, .silu_mul = silu_mul,          \
        .gelu_tanh = gelu_tanh, .gelu_erf = gelu_erf, .relu = relu, .silu = silu, .rope = rope,    \
        .attend = attend, .multiply_add = multiply_add, .read = read_floats,                       \
    }

/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
