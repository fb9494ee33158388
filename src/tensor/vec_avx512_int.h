/*
 * vec_avx512_int.h - the vector operations of AVX-512 (F, VL, DQ, BW), 16 lanes, and the dot
 * products that the compiler's flags allow: those of isa_avx512.c, isa_avx512_vnni.c or
 * isa_avx512_bf16.c.
 */
#include <immintrin.h>

#define VEC_LANES 16
typedef __m512 vec;

static inline __mmask16 lanes_below(uint32_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline vec vec_load_n(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(lanes_below(n), p);
}

static inline vec vec_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

static inline void vec_store_n(float *p, vec v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, lanes_below(n), v);
}

static inline vec vec_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

static inline vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec vec_abs(vec a)
{
    return _mm512_abs_ps(a);
}

static inline vec vec_max_bits(vec a, vec b)
{
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

static inline vec vec_round(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec vec_if_positive(vec x, vec then, vec otherwise)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), otherwise,
                                then);
}

static inline vec vec_keep(vec v, vec other, uint32_t from, uint32_t to)
{
    return _mm512_mask_blend_ps((__mmask16)(lanes_below(to) & ~lanes_below(from)), other, v);
}

static inline vec vec_scale2(vec a, vec n)
{
    return _mm512_scalef_ps(a, n);
}

static inline __m512i bits_of(vec v)
{
    return _mm512_castps_si512(v);
}

static inline vec vec_high_halves(vec w)
{
    return _mm512_castsi512_ps(_mm512_and_si512(bits_of(w), _mm512_set1_epi32((int)0xFFFF0000U)));
}

static inline vec vec_dot_int16(vec w, vec x)
{
    return _mm512_castsi512_ps(_mm512_madd_epi16(bits_of(w), bits_of(x)));
}

#if defined(__AVX512BF16__)
#define BF16_PARTS 1

static inline vec vec_bf16_part(vec w, uint32_t part)
{
    (void)part;
    return w;
}

/* In assembly: with the intrinsic, gcc 12 takes weights from one vector type to the other by way of
 * the stack once several panels flow in side by side. */
static inline vec vec_dot_bf16(vec acc, vec w, vec x)
{
    __asm__("vdpbf16ps %[w], %[x], %[acc]" : [acc] "+v"(acc) : [x] "v"(x), [w] "v"(w));
    return acc;
}

static inline void vec_store_bf16(void *p, vec v)
{
    _mm256_storeu_si256(p, (__m256i)_mm512_cvtneps_pbh(v));
}
#else
#define BF16_PARTS 2

static inline vec vec_bf16_part(vec w, uint32_t part)
{
    return part == 0 ? _mm512_castsi512_ps(_mm512_slli_epi32(bits_of(w), 16)) : vec_high_halves(w);
}

static inline vec vec_dot_bf16(vec acc, vec w, vec x)
{
    return vec_fma(x, w, acc);
}
#endif

#if defined(__AVX512VNNI__)
static inline vec vec_dot_int8(vec acc, vec w, vec x)
{
    return _mm512_castsi512_ps(_mm512_dpbusd_epi32(bits_of(acc), bits_of(x), bits_of(w)));
}

static inline vec vec_dot_int8_twice(vec acc, vec w0, vec x0, vec w1, vec x1)
{
    return vec_dot_int8(vec_dot_int8(acc, w0, x0), w1, x1);
}
#else
static inline __m512i sum_pairs(vec acc, __m512i pairs)
{
    return _mm512_add_epi32(bits_of(acc), _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

static inline vec vec_dot_int8(vec acc, vec w, vec x)
{
    return _mm512_castsi512_ps(sum_pairs(acc, _mm512_maddubs_epi16(bits_of(x), bits_of(w))));
}

static inline vec vec_dot_int8_twice(vec acc, vec w0, vec x0, vec w1, vec x1)
{
    __m512i first = _mm512_maddubs_epi16(bits_of(x0), bits_of(w0));
    __m512i second = _mm512_maddubs_epi16(bits_of(x1), bits_of(w1));
    return _mm512_castsi512_ps(sum_pairs(acc, _mm512_add_epi16(first, second)));
}
#endif

static inline void vec_add_fours(vec *acc, const vec *w0, const vec *w1, const float *x)
{
    for (int v = 0; v < 2; v++) {
        acc[v] = vec_dot_int8_twice(acc[v], w0[v], vec_set1(x[0]), w1[v], vec_set1(x[1]));
    }
}

static inline void vec_store_bytes(void *p, vec v)
{
    _mm_storeu_si128(p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

static inline vec vec_from_int(vec v)
{
    return _mm512_cvtepi32_ps(bits_of(v));
}

#define TILE_ROWS      12
#define INT8_TILE_ROWS 12
#define TILE_STEPS     256
