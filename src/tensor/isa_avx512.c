/*
 * isa_avx512.c - the vector operations of AVX-512 (F, VL, DQ, BW), 16 lanes; all else is in
 * simd_ops_int.h.
 *
 * Compiled with its own flags (CMakeLists.txt) and entered only after select.c asked the CPU.
 */
#include "tensor/isa_int.h"

#if defined(__x86_64__)
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

#define TILE_ROWS 12
#define TILE_K    256

#include "tensor/simd_ops_int.h"

const struct tensor_ops tensor_ops_avx512 = SIMD_OPS_TABLE("avx512");

#else
typedef int isa_avx512_is_empty;
#endif
