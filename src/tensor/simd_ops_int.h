/*
 * simd_ops_int.h - all vector kernels, written once; included by each isa_<name>.c after it has
 * said what a vector is.
 *
 * The including file defines VEC_LANES, the type `vec`, the tile constants TILE_ROWS (rows of the
 * matrix kernel: TILE_ROWS * TILE_VECS accumulators must fit the registers), INT8_TILE_ROWS (the
 * same of int8, at most TILE_ROWS) and TILE_STEPS (steps per block at most: a panel's block stays
 * in the L1 cache), and
 *
 *   vec_load vec_store vec_set1 vec_add vec_sub vec_mul vec_div vec_abs
 *   vec_fma(a, b, c)          a b + c, rounded once
 *   vec_load_n vec_store_n    the first n lanes, 1 <= n <= VEC_LANES; lanes not loaded are 0,
 *                             and the memory behind them is not touched
 *   vec_load_bf16             VEC_LANES bf16, widened
 *   vec_max vec_min           give the second operand when either is NaN
 *   vec_max_bits              larger as 32-bit integers: of floats >= 0, NaN the largest
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
 *   vec_dot_int8(acc, w, x)   four of each, x unsigned
 *   vec_dot_int8_twice        the same of two steps; fours may be summed in 16 bits (tensor.h)
 *   vec_add_fours(acc, w0, w1, x)  that for a panel's two vectors: acc[v] gains w0[v] x[0] and
 *                             w1[v] x[1]; weights and x in memory
 *   vec_dot_int16(w, x)       two of each, signed
 *   vec_high_halves(w)        of every four bytes, the low half zero
 *   vec_from_int(v), vec_store_bf16, vec_store_bytes (of 0..255, rounded to nearest even; NaN: any)
 *
 * Order of operations (tensor.h promises that it depends on sizes only):
 *   matrix product  acc = bias (or 0), then acc = fma(x[k], w[k], acc) for k = 0, 1, ... K-1: one
 *                   accumulator per output; with a bf16 dot, pair by pair upwards. Cutting rows
 *                   into tiles, taking several panels at once and resting acc in y between blocks
 *                   of steps change nothing of it. int8: acc = fma(whole sum of a group, scale of
 *                   x times scale of w, acc), group by group upwards.
 *   sums of a row   four vector accumulators in turn, then the tree of lane_sum
 *   attention       scores: d = 0, 1, ...; maximum and sum: lane by lane over tiles of 16 keys at
 *                   absolute multiples, then the tree; output: keys upwards
 * Tails run the same operations on zero-padded vectors.
 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

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

/* Of floats >= 0; NaN if there is one. */
static float lane_max_bits(vec v)
{
    int32_t a[VEC_LANES];
    memcpy(a, &v, sizeof a);
    for (uint32_t width = VEC_LANES / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++) {
            a[i] = a[i] > a[i + width] ? a[i] : a[i + width];
        }
    }
    float top;
    memcpy(&top, a, sizeof top);
    return top;
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

#define KEY_VECS    (TENSOR_KV_TILE / VEC_LANES)
#define MAX_QUERIES TENSOR_ATTEND_QUERIES
#define MAX_VECS    8 /* of keys or values in a step */
#define MAX_ACCS    16
#define SCORE_ACCS  12 /* sums in flight that hide the latency and still fit the registers */

/* Rows and heads that share a pass, and its scores. Query i is head i % heads of row i / heads;
 * heads and rows are constants where the functions below are expanded. */
struct attention {
    struct tensor_attention of;
    size_t row; /* floats of a query's scores: from the first tile to the last row's last */
};

/* The first n <= VEC_LANES elements at p, the other lanes 0. */
static ALWAYS_INLINE vec load_kv(const char *p, uint32_t n, const enum tensor_dtype kv)
{
    if (kv == TENSOR_F32) {
        return n == VEC_LANES ? vec_load((const float *)p) : vec_load_n((const float *)p, n);
    }
    if (n == VEC_LANES) {
        return vec_load_bf16((const uint16_t *)p);
    }
    uint16_t whole[VEC_LANES] = {0};
    memcpy(whole, p, n * sizeof *whole);
    return vec_load_bf16(whole);
}

static ALWAYS_INLINE size_t kv_size(const enum tensor_dtype kv)
{
    return kv == TENSOR_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* acc[i][v] += word[i] * x[v] for queries i in [begin, queries), where x[v] is at from[v]. What
 * there is less of stays in registers, the other passes by. */
static ALWAYS_INLINE void add_products(vec *acc, const float *const *word, const char *const *from,
                                       uint32_t lanes, const uint32_t begin, const uint32_t queries,
                                       const uint32_t vecs, const enum tensor_dtype kv)
{
    vec x[MAX_VECS];
    if (queries < vecs) {
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            x[v] = load_kv(from[v], lanes, kv);
            UNROLL
            for (uint32_t i = begin; i < queries; i++) {
                acc[i * vecs + v] = vec_fma(vec_set1(*word[i]), x[v], acc[i * vecs + v]);
            }
            UNROLL
            for (uint32_t i = begin; i < queries; i++) {
                PIN(acc[i * vecs + v]);
            }
        }
        return;
    }
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        x[v] = load_kv(from[v], lanes, kv);
    }
    UNROLL
    for (uint32_t i = begin; i < queries; i++) {
        vec w = vec_set1(*word[i]);
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            acc[i * vecs + v] = vec_fma(w, x[v], acc[i * vecs + v]);
            PIN(acc[i * vecs + v]);
        }
    }
}

/* Tiles lie apart in memory, which the processor cannot foresee: while one is read, here and in
 * mix_values, the next is asked for.
 *
 * Scores of `tiles` tiles from tile b on. Lanes outside first..last become -inf whatever the cache
 * holds there. */
static ALWAYS_INLINE void score_tiles(const struct attention *pass, uint32_t b,
                                      const uint32_t heads, const uint32_t rows,
                                      const uint32_t tiles, const enum tensor_dtype kv)
{
    const struct tensor_attention *a = &pass->of;
    const uint32_t queries = heads * rows;
    const uint32_t vecs = tiles * KEY_VECS;
    vec acc[MAX_ACCS];
    const float *q[MAX_QUERIES];
    const char *keys[MAX_VECS];
    UNROLL
    for (uint32_t i = 0; i < queries * vecs; i++) {
        acc[i] = vec_set1(0.0f);
    }
    UNROLL
    for (uint32_t i = 0; i < queries; i++) {
        q[i] = a->q + i / heads * a->ld_q + (size_t)(i % heads) * a->head_size;
    }
    UNROLL
    for (uint32_t i = 0; i < tiles; i++) {
        keys[i] = a->k_tiles[b + i];
    }
    const char *next[MAX_VECS];
    uint32_t tiles_end = a->first / TENSOR_KV_TILE + (uint32_t)(pass->row / TENSOR_KV_TILE);
    UNROLL
    for (uint32_t i = 0; i < tiles; i++) {
        next[i] = a->k_tiles[b + tiles + i < tiles_end ? b + tiles + i : b + i];
    }
    const size_t D = a->head_size;
    for (size_t d = 0; d < D; d++) {
        UNROLL
        for (uint32_t i = 0; i < tiles; i++) {
            __builtin_prefetch(next[i] + d * TENSOR_KV_TILE * kv_size(kv), 0, 3);
        }
        const float *word[MAX_QUERIES];
        const char *from[MAX_VECS];
        UNROLL
        for (uint32_t i = 0; i < queries; i++) {
            word[i] = q[i] + d;
        }
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            from[v] =
                keys[v / KEY_VECS] + (d * TENSOR_KV_TILE + v % KEY_VECS * VEC_LANES) * kv_size(kv);
        }
        add_products(acc, word, from, VEC_LANES, 0, queries, vecs, kv);
    }
    size_t base = (size_t)(a->first / TENSOR_KV_TILE) * TENSOR_KV_TILE;
    vec masked = vec_set1(-INFINITY);
    vec scale = vec_set1(a->scale);
    PIN(masked); /* not in registers before they are needed */
    PIN(scale);
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        size_t key = (size_t)b * TENSOR_KV_TILE + v * VEC_LANES;
        uint32_t from = a->first > key ? (uint32_t)(a->first - key) : 0;
        from = from < VEC_LANES ? from : VEC_LANES;
        UNROLL
        for (uint32_t i = 0; i < queries; i++) {
            size_t end = a->last + (size_t)1 + i / heads;
            size_t count = end > key ? end - key : 0;
            uint32_t to = count < VEC_LANES ? (uint32_t)count : VEC_LANES;
            vec s = vec_mul(acc[i * vecs + v], scale);
            vec_store(a->scratch + i * pass->row + (key - base), vec_keep(s, masked, from, to));
        }
    }
}

/* As many tiles at once as put up to twelve sums in flight. */
static ALWAYS_INLINE void score_all(const struct attention *pass, const uint32_t heads,
                                    const uint32_t rows, const enum tensor_dtype kv)
{
    const uint32_t fit = SCORE_ACCS / (heads * rows * KEY_VECS);
    const uint32_t most = MAX_VECS / KEY_VECS;
    const uint32_t step = fit > most ? most : fit > 0 ? fit : 1;
    uint32_t b = pass->of.first / TENSOR_KV_TILE;
    uint32_t end = b + (uint32_t)(pass->row / TENSOR_KV_TILE);
    for (; end - b >= step; b += step) {
        score_tiles(pass, b, heads, rows, step, kv);
    }
    for (; b < end; b++) {
        score_tiles(pass, b, heads, rows, 1, kv);
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

/* acc += p of one key times its value, for queries [begin, queries): those that attend to it. The
 * value stands in its tile at `at`, p of query i at p[i * row]. */
static ALWAYS_INLINE void mix_key(vec *acc, const void *tile, size_t at, const float *p, size_t row,
                                  const uint32_t begin, const uint32_t queries, const uint32_t vecs,
                                  uint32_t lanes, const enum tensor_dtype kv)
{
    const float *word[MAX_QUERIES];
    const char *from[MAX_VECS];
    UNROLL
    for (uint32_t i = begin; i < queries; i++) {
        word[i] = p + i * row;
    }
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        from[v] = (const char *)tile + (at + v * VEC_LANES) * kv_size(kv);
    }
    add_products(acc, word, from, lanes, begin, queries, vecs, kv);
}

/* Outputs [d, d + vecs * VEC_LANES) of each query, or the last `lanes` ones if vecs is 1. Values
 * outside a row's range are never taken. */
static ALWAYS_INLINE void mix_values(const struct attention *pass, size_t d, const uint32_t heads,
                                     const uint32_t rows, const uint32_t vecs, uint32_t lanes,
                                     const float *sums, const enum tensor_dtype kv)
{
    const struct tensor_attention *a = &pass->of;
    const uint32_t queries = heads * rows;
    const uint32_t line_vecs = CACHE_LINE / (uint32_t)(VEC_LANES * kv_size(kv));
    vec acc[MAX_ACCS];
    UNROLL
    for (uint32_t i = 0; i < queries * vecs; i++) {
        acc[i] = vec_set1(0.0f);
    }
    const float *p = a->scratch;
    for (uint32_t b = a->first / TENSOR_KV_TILE; b <= a->last / TENSOR_KV_TILE;
         b++, p += TENSOR_KV_TILE) {
        size_t key = (size_t)b * TENSOR_KV_TILE;
        size_t from = a->first > key ? a->first - key : 0;
        size_t to = a->last - key < TENSOR_KV_TILE ? a->last - key + 1 : TENSOR_KV_TILE;
        const char *next = a->v_tiles[b < a->last / TENSOR_KV_TILE ? b + 1 : b];
        for (size_t j = from; j < to; j++) {
            UNROLL
            for (uint32_t v = 0; v < vecs; v += line_vecs) {
                __builtin_prefetch(next + (j * a->head_size + d + v * VEC_LANES) * kv_size(kv), 0,
                                   3);
            }
            mix_key(acc, a->v_tiles[b], j * a->head_size + d, p + j, pass->row, 0, queries, vecs,
                    lanes, kv);
        }
    }
    UNROLL
    for (uint32_t row = 1; row < rows; row++) {
        size_t key = (size_t)a->last + row;
        size_t from_first = key - (size_t)(a->first / TENSOR_KV_TILE) * TENSOR_KV_TILE;
        mix_key(acc, a->v_tiles[key / TENSOR_KV_TILE], key % TENSOR_KV_TILE * a->head_size + d,
                a->scratch + from_first, pass->row, row * heads, queries, vecs, lanes, kv);
    }
    UNROLL
    for (uint32_t i = 0; i < queries; i++) {
        vec sum = vec_set1(sums[i]);
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            float *out = a->out + i / heads * a->ld_out + (size_t)(i % heads) * a->head_size + d +
                         v * VEC_LANES;
            vec y = vec_div(acc[i * vecs + v], sum);
            if (lanes == VEC_LANES) {
                vec_store(out, y);
            } else {
                vec_store_n(out, y, lanes);
            }
        }
    }
}

static ALWAYS_INLINE void attend_pass(const struct attention *pass, const uint32_t heads,
                                      const uint32_t rows, const enum tensor_dtype kv)
{
    const uint32_t queries = heads * rows;
    float sums[MAX_QUERIES];
    score_all(pass, heads, rows, kv);
    for (uint32_t i = 0; i < queries; i++) {
        sums[i] = softmax_row(pass->of.scratch + i * pass->row, pass->row);
    }
    /* Widths that put about eight sums in flight and still fit the registers. */
    const uint32_t wide = queries == 1 ? 8 : 0;
    const uint32_t middle = queries <= 3 || (VEC_LANES == 16 && queries == 4) ? 4 : 2;
    size_t d = 0;
    size_t D = pass->of.head_size;
    for (; wide > 0 && d + wide * VEC_LANES <= D; d += wide * VEC_LANES) {
        mix_values(pass, d, heads, rows, wide, VEC_LANES, sums, kv);
    }
    for (; d + middle * VEC_LANES <= D; d += middle * VEC_LANES) {
        mix_values(pass, d, heads, rows, middle, VEC_LANES, sums, kv);
    }
    for (; d + VEC_LANES <= D; d += VEC_LANES) {
        mix_values(pass, d, heads, rows, 1, VEC_LANES, sums, kv);
    }
    if (d < D) {
        mix_values(pass, d, heads, rows, 1, (uint32_t)(D - d), sums, kv);
    }
}

/* Not inlined into one function: its registers would run out. */
#define ATTEND_PASS(heads, rows)                                                                   \
    static __attribute__((noinline)) void attend_##heads##x##rows(const struct attention *pass)    \
    {                                                                                              \
        if (pass->of.kv == TENSOR_F32) {                                                           \
            attend_pass(pass, heads, rows, TENSOR_F32);                                            \
        } else {                                                                                   \
            attend_pass(pass, heads, rows, TENSOR_BF16);                                           \
        }                                                                                          \
    }

ATTEND_PASS(1, 1)
ATTEND_PASS(2, 1)
ATTEND_PASS(3, 1)
ATTEND_PASS(4, 1)
ATTEND_PASS(1, 2)
ATTEND_PASS(2, 2)
ATTEND_PASS(3, 2)

#define ROW_HEADS  4 /* of a pass of one row */
#define PAIR_HEADS 3 /* of a pass of two */
_Static_assert(ROW_HEADS <= MAX_QUERIES && 2 * PAIR_HEADS <= MAX_QUERIES, "room for queries");
_Static_assert(ROW_HEADS * 4 <= MAX_ACCS && MAX_VECS <= MAX_ACCS, "room for sums");

static void attend(const struct tensor_attention *a)
{
    static void (*const one[ROW_HEADS])(const struct attention *) = {attend_1x1, attend_2x1,
                                                                     attend_3x1, attend_4x1};
    static void (*const two[PAIR_HEADS])(const struct attention *) = {attend_1x2, attend_2x2,
                                                                      attend_3x2};
    assert(a->kv == TENSOR_F32 || a->kv == TENSOR_BF16);
    for (uint32_t row = 0, rows; row < a->n_rows; row += rows) {
        rows = a->n_rows - row < 2 ? 1 : 2;
        uint32_t most = rows == 2 ? PAIR_HEADS : ROW_HEADS;
        uint32_t last = a->last + row + rows - 1;
        struct attention pass = {.of = *a};
        pass.of.last = a->last + row;
        pass.row = (size_t)(last / TENSOR_KV_TILE - a->first / TENSOR_KV_TILE + 1) * TENSOR_KV_TILE;
        for (uint32_t head = 0, heads; head < a->group; head += heads) {
            heads = a->group - head < most ? a->group - head : most;
            pass.of.out = a->out + row * a->ld_out + (size_t)head * a->head_size;
            pass.of.q = a->q + row * a->ld_q + (size_t)head * a->head_size;
            (rows == 2 ? two : one)[heads - 1](&pass);
        }
    }
}

/* ---- limits ---- */

#define SPIN_ACCS 12 /* in flight: latency is hidden */

static ALWAYS_INLINE uint64_t spin(uint64_t n, const enum tensor_dtype dtype)
{
    const uint64_t steps = dtype == TENSOR_INT8 ? 2 : 1;
    const uint64_t round =
        steps * SPIN_ACCS * VEC_LANES * tensor_step_inputs(dtype) / parts_of(dtype);
    uint64_t rounds = n / round + 1;
    vec acc[SPIN_ACCS];
    vec w = vec_set1(0.0f);
    vec x = vec_set1(0.0f);
    UNROLL
    for (uint32_t i = 0; i < SPIN_ACCS; i++) {
        acc[i] = vec_set1(0.0f);
    }
    PIN(w);
    PIN(x);
    for (uint64_t r = 0; r < rounds; r++) {
        UNROLL
        for (uint32_t i = 0; i < SPIN_ACCS; i++) {
            if (dtype == TENSOR_INT8) {
                vec second = w;
                PIN(second); /* else a product served twice, or for all sums */
                acc[i] = vec_dot_int8_twice(acc[i], w, x, second, x);
                PIN(w);
            } else {
                acc[i] = dtype == TENSOR_BF16 ? vec_dot_bf16(acc[i], w, x) : vec_fma(w, x, acc[i]);
            }
            PIN(acc[i]); /* else all sums were one */
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
        matmul_bf16, pack_bf16                                                                     \
    }
#else
#define SIMD_BF16_PRODUCT                                                                          \
    {                                                                                              \
        matmul_bf16, NULL                                                                          \
    }
#endif

#define SIMD_OPS_TABLE(name)                                                                       \
    {                                                                                              \
        .isa = (name), .panel = PANEL, .side_panels = {ROW1_PANELS, ROW2_PANELS},                  \
        .product = {{matmul_f32, NULL}, SIMD_BF16_PRODUCT, {matmul_int8, pack_int8}},              \
        .rms_norm = rms_norm, .layer_norm = layer_norm, .add = add, .silu_mul = silu_mul,          \
        .gelu_tanh = gelu_tanh, .gelu_erf = gelu_erf, .relu = relu, .silu = silu, .rope = rope,    \
        .attend = attend, .multiply_add = multiply_add, .read = read_floats,                       \
    }

/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
