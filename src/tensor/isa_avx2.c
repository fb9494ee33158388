/*
 * isa_avx2.c - the vector operations of AVX2 + FMA, 8 lanes; all else is in simd_ops_int.h.
 *
 * Compiled with its own flags (CMakeLists.txt) and entered only after select.c asked the CPU.
 */
#include "tensor/isa_int.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VEC_LANES 8
typedef __m256 vec;

/* Lanes below n (1..8): a window of this table. */
static const int32_t lane_masks[2 * VEC_LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};

static inline __m256i lanes_below(uint32_t n)
{
    return _mm256_loadu_si256((const __m256i *)(lane_masks + VEC_LANES - n));
}

static inline vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline vec vec_load_n(const float *p, uint32_t n)
{
    return _mm256_maskload_ps(p, lanes_below(n));
}

static inline vec vec_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

static inline void vec_store_n(float *p, vec v, uint32_t n)
{
    _mm256_maskstore_ps(p, lanes_below(n), v);
}

static inline vec vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

static inline vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec vec_abs(vec a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

static inline vec vec_max_bits(vec a, vec b)
{
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}

static inline vec vec_round(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec vec_if_positive(vec x, vec then, vec otherwise)
{
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}

static inline vec vec_keep(vec v, vec other, uint32_t from, uint32_t to)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)from), lane);
    __m256i inside =
        _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)to), lane));
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(inside));
}

/* In two halves, because 2^n itself may lie outside the range of a float. */
static inline vec vec_scale2(vec a, vec n)
{
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256i one = _mm256_set1_epi32(127);
    __m256i by_half = _mm256_slli_epi32(_mm256_add_epi32(half, one), 23);
    __m256i by_rest = _mm256_slli_epi32(_mm256_add_epi32(rest, one), 23);
    return vec_mul(vec_mul(a, _mm256_castsi256_ps(by_half)), _mm256_castsi256_ps(by_rest));
}

static inline __m256i bits_of(vec v)
{
    return _mm256_castps_si256(v);
}

static inline vec vec_high_halves(vec w)
{
    return _mm256_castsi256_ps(_mm256_and_si256(bits_of(w), _mm256_set1_epi32((int)0xFFFF0000U)));
}

#define BF16_PARTS 2

static inline vec vec_bf16_part(vec w, uint32_t part)
{
    return part == 0 ? _mm256_castsi256_ps(_mm256_slli_epi32(bits_of(w), 16)) : vec_high_halves(w);
}

static inline vec vec_dot_bf16(vec acc, vec w, vec x)
{
    return vec_fma(x, w, acc);
}

static inline vec vec_dot_int16(vec w, vec x)
{
    return _mm256_castsi256_ps(_mm256_madd_epi16(bits_of(w), bits_of(x)));
}

static inline __m256i sum_pairs(vec acc, __m256i pairs)
{
    return _mm256_add_epi32(bits_of(acc), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline vec vec_dot_int8(vec acc, vec w, vec x)
{
    return _mm256_castsi256_ps(sum_pairs(acc, _mm256_maddubs_epi16(bits_of(x), bits_of(w))));
}

static inline vec vec_dot_int8_twice(vec acc, vec w0, vec x0, vec w1, vec x1)
{
    __m256i first = _mm256_maddubs_epi16(bits_of(x0), bits_of(w0));
    __m256i second = _mm256_maddubs_epi16(bits_of(x1), bits_of(w1));
    return _mm256_castsi256_ps(sum_pairs(acc, _mm256_add_epi16(first, second)));
}

/* In assembly: in C, gcc 12 takes registers from the sums, for weights and for copies. Of the
 * operands of vpmaddubsw the first is signed, the second unsigned. */
static inline void vec_add_fours(vec *acc, const vec *w0, const vec *w1, const float *x)
{
    vec a;
    vec b;
    vec c;
    vec d;
    __asm__ volatile("vpbroadcastd %[x0], %[a]\n\t"
                     "vpbroadcastd %[x1], %[b]\n\t"
                     "vpmaddubsw %[w00], %[a], %[c]\n\t"
                     "vpmaddubsw %[w10], %[b], %[d]\n\t"
                     "vpmaddubsw %[w01], %[a], %[a]\n\t"
                     "vpmaddubsw %[w11], %[b], %[b]\n\t"
                     "vpaddw %[d], %[c], %[c]\n\t"
                     "vpaddw %[b], %[a], %[a]\n\t"
                     "vpmaddwd %[ones], %[c], %[c]\n\t"
                     "vpmaddwd %[ones], %[a], %[a]\n\t"
                     "vpaddd %[c], %[acc0], %[acc0]\n\t"
                     "vpaddd %[a], %[acc1], %[acc1]"
                     : [acc0] "+x"(acc[0]), [acc1] "+x"(acc[1]), [a] "=&x"(a), [b] "=&x"(b),
                       [c] "=&x"(c), [d] "=&x"(d)
                     : [ones] "x"(_mm256_set1_epi16(1)), [x0] "m"(x[0]), [x1] "m"(x[1]),
                       [w00] "m"(w0[0]), [w01] "m"(w0[1]), [w10] "m"(w1[0]), [w11] "m"(w1[1]));
}

static inline vec vec_from_int(vec v)
{
    return _mm256_cvtepi32_ps(bits_of(v));
}

static inline void vec_store_bytes(void *p, vec v)
{
    __m256i whole = _mm256_cvtps_epi32(v);
    __m128i narrow =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(p, _mm_packus_epi16(narrow, narrow));
}

#define TILE_ROWS      6
#define INT8_TILE_ROWS 5 /* ones and the products before their sum need registers besides */
#define TILE_STEPS     320

#include "tensor/simd_ops_int.h"

const struct tensor_ops tensor_ops_avx2 = SIMD_OPS_TABLE("avx2");

#else
typedef int isa_avx2_is_empty;
#endif
